#include "worker/daemon/model_thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "worker/daemon/model_find.h"

struct search {
    struct search *next;
    struct model_threads *threads;
    pthread_t thread;
    struct attempt_id id;
    char *path, *digest, *found;
    struct ha_error err;
    int result;
};

struct model_threads {
    struct ha_loop *loop;
    const struct ha_text_list *roots;
    const char *cache;
    model_found_fn found;
    void *context;
    pthread_mutex_t one;     /* at a time: the next one finds the digests in the cache */
    struct search *searches; /* under way; touched by the loop's thread only */
};

static void free_search(struct search *search)
{
    free(search->path);
    free(search->digest);
    free(search->found);
    free(search);
}

/* In the loop's thread: the search's own thread is about to end. */
static void tell(void *context)
{
    struct search *search = context;
    struct model_threads *threads = search->threads;
    struct search **at = &threads->searches;

    pthread_join(search->thread, NULL);
    while (*at != search)
        at = &(*at)->next;
    *at = search->next;
    threads->found(threads->context, &search->id, search->found,
                   search->result < 0 ? ha_error_text(&search->err) : NULL);
    free_search(search);
}

static void *run(void *context)
{
    struct search *search = context;
    struct model_threads *threads = search->threads;

    pthread_mutex_lock(&threads->one);
    search->result = model_find(threads->roots, search->path, search->digest, threads->cache,
                                &search->found, &search->err);
    pthread_mutex_unlock(&threads->one);
    /* Without memory for this, the job is found stuck by its coordinator. */
    (void)ha_loop_post(threads->loop, tell, search);
    return NULL;
}

int model_threads_create(struct ha_loop *loop, const struct ha_text_list *roots, const char *cache,
                         model_found_fn found, void *context, struct model_threads **ret_threads,
                         struct ha_error *err)
{
    struct model_threads *threads = ha_calloc(1, sizeof(*threads));

    if (!threads)
        return ha_error_set(err, ENOMEM, "out of memory");
    *threads = (struct model_threads){
        .loop = loop, .roots = roots, .cache = cache, .found = found, .context = context};
    pthread_mutex_init(&threads->one, NULL);
    *ret_threads = threads;
    return 0;
}

void model_threads_destroy(struct model_threads *threads)
{
    if (!threads)
        return;
    while (threads->searches) {
        struct search *search = threads->searches;

        threads->searches = search->next;
        pthread_join(search->thread, NULL);
        free_search(search);
    }
    pthread_mutex_destroy(&threads->one);
    free(threads);
}

int model_threads_find(struct model_threads *threads, const struct attempt_id *id, const char *path,
                       const char *digest)
{
    struct search *search = ha_calloc(1, sizeof(*search));
    sigset_t all, old;
    int r;

    if (search) {
        *search = (struct search){.threads = threads, .id = *id};
        search->path = ha_strdup(path);
        search->digest = ha_strdup(digest);
    }
    if (!search || !search->path || !search->digest) {
        if (search)
            free_search(search);
        return -ENOMEM;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = -pthread_create(&search->thread, NULL, run, search);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r < 0) {
        free_search(search);
        return r;
    }
    search->next = threads->searches;
    threads->searches = search;
    return 0;
}
