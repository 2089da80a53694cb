#include "worker/daemon/holdings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "proto/wire.h"
#include "worker/daemon/contract_line.h"

enum {
    SAMPLES = 128,    /* of a model */
    MOST_FILES = 256, /* that are looked at */
    LOOK_S = 15,      /* between two looks */
    JOIN_S = 2,
    MOST_LOAD_MS = 86400000
};

#define SUFFIX ".safetensors"

static const double nearly_all = 0.9, newest = 0.5; /* the weight of the newest speed */

struct holding {
    char *path, *digest; /* NULL: no further one */
    int64_t bytes, cached;
};

struct holdings {
    pthread_mutex_t lock; /* of all but told */
    pthread_cond_t wake;
    pthread_t thread;
    bool started, leave, hurry;
    struct holding list[HOLDINGS_MOST];
    struct holding_speeds speeds;
    struct ha_wire_held_model told[HOLDINGS_MOST];
    char *texts[2 * HOLDINGS_MOST]; /* of told */
};

/* ---- speeds ------------------------------------------------------------------------------ */

int64_t holding_load_ms(const struct holding_speeds *speeds, int64_t bytes, int64_t cached)
{
    double there = cached > 0 ? (double)cached : 0, rest = (double)bytes - there;
    double ms = (there / speeds->cache + (rest > 0 ? rest : 0) / speeds->disk) * 1000;

    return ms < MOST_LOAD_MS ? (int64_t)ms : MOST_LOAD_MS;
}

void holding_learn(struct holding_speeds *speeds, int64_t bytes, int64_t cached, double seconds)
{
    double speed = (double)bytes / seconds, part = (double)cached / (double)bytes;
    double *learned = NULL;

    if (bytes <= 0 || cached < 0 || !(seconds > 0) || !isfinite(speed))
        return;
    if (part >= nearly_all)
        learned = &speeds->cache;
    else if (part <= 1 - nearly_all)
        learned = &speeds->disk;
    if (learned)
        *learned += newest * (speed - *learned);
}

/* ---- the page cache ---------------------------------------------------------------------- */

/* Is the byte there?  1, 0, or -1 where that cannot be asked. */
static int is_cached(int fd, int64_t offset)
{
    char byte;
    struct iovec piece = {.iov_base = &byte, .iov_len = 1};
    ssize_t n = preadv2(fd, &piece, 1, offset, RWF_NOWAIT);

    if (n >= 0)
        return n == 1;
    return errno == EAGAIN ? 0 : -1;
}

struct weight_file {
    char *path;
    int64_t bytes;
};

static int64_t list_files(const char *folder, struct weight_file *files, int64_t *ret_bytes)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    int64_t n = 0;

    *ret_bytes = 0;
    while (dir && n < MOST_FILES && (entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name), suffix = sizeof(SUFFIX) - 1;
        struct stat st;
        char *path;

        if (length <= suffix || strcmp(entry->d_name + length - suffix, SUFFIX) != 0)
            continue;
        path = ha_path_join(folder, entry->d_name);
        if (!path || stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
            free(path);
            continue;
        }
        files[n++] = (struct weight_file){path, st.st_size};
        *ret_bytes += st.st_size;
    }
    if (dir)
        (void)closedir(dir);
    return n;
}

/* Samples of one file; false where they cannot be had. */
static bool sample_file(const struct weight_file *file, int64_t all_bytes, int64_t *asked,
                        int64_t *found)
{
    int64_t n = (int64_t)((double)SAMPLES * (double)file->bytes / (double)all_bytes) + 1;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    bool known = fd >= 0;

    for (int64_t i = 0; known && i < n && file->bytes > 0; i++) {
        int there = is_cached(fd, (int64_t)((double)file->bytes * ((double)i + 0.5) / (double)n));

        known = there >= 0;
        *asked += 1;
        *found += there > 0;
    }
    if (fd >= 0)
        (void)close(fd);
    return known;
}

int64_t holding_sample(const char *folder, int64_t *ret_bytes)
{
    struct weight_file files[MOST_FILES];
    int64_t n = list_files(folder, files, ret_bytes), asked = 0, found = 0;
    bool known = n > 0;

    for (int64_t i = 0; i < n; i++) {
        known = known && sample_file(&files[i], *ret_bytes, &asked, &found);
        free(files[i].path);
    }
    if (!known || asked == 0)
        return -1;
    return (int64_t)((double)*ret_bytes * (double)found / (double)asked);
}

/* ---- the thread -------------------------------------------------------------------------- */

/* One after the other, without the lock while a disk is asked. */
static void look(struct holdings *holdings)
{
    for (int i = 0; i < HOLDINGS_MOST && !holdings->leave; i++) {
        char *path = ha_strdup(holdings->list[i].path);
        int64_t bytes = 0, cached;

        if (!path)
            break;
        pthread_mutex_unlock(&holdings->lock);
        cached = holding_sample(path, &bytes);
        pthread_mutex_lock(&holdings->lock);
        for (int k = 0; k < HOLDINGS_MOST && holdings->list[k].path; k++) {
            if (strcmp(holdings->list[k].path, path) != 0)
                continue;
            holdings->list[k].bytes = bytes;
            holdings->list[k].cached = cached;
        }
        free(path);
    }
}

static void *run(void *context)
{
    struct holdings *holdings = context;

    pthread_mutex_lock(&holdings->lock);
    while (!holdings->leave) {
        struct timespec until;

        holdings->hurry = false;
        look(holdings);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += LOOK_S;
        while (!holdings->leave && !holdings->hurry &&
               pthread_cond_timedwait(&holdings->wake, &holdings->lock, &until) != ETIMEDOUT)
            ;
    }
    pthread_mutex_unlock(&holdings->lock);
    return NULL;
}

int holdings_create(const struct holding_speeds *speeds, struct holdings **ret_holdings,
                    struct ha_error *err)
{
    struct holdings *holdings = ha_calloc(1, sizeof(*holdings));
    int r;

    if (!holdings)
        return ha_error_set(err, ENOMEM, "out of memory");
    (void)pthread_mutex_init(&holdings->lock, NULL);
    (void)pthread_cond_init(&holdings->wake, NULL);
    holdings->speeds = *speeds;
    r = pthread_create(&holdings->thread, NULL, run, holdings);
    if (r != 0) {
        holdings_destroy(holdings);
        return ha_error_set(err, r, "cannot start a thread: %s", strerror(r));
    }
    holdings->started = true;
    *ret_holdings = holdings;
    return 0;
}

static void clear_texts(struct holdings *holdings)
{
    for (int i = 0; i < 2 * HOLDINGS_MOST; i++) {
        free(holdings->texts[i]);
        holdings->texts[i] = NULL;
    }
}

void holdings_destroy(struct holdings *holdings)
{
    struct timespec until;

    if (!holdings)
        return;
    if (holdings->started) {
        pthread_mutex_lock(&holdings->lock);
        holdings->leave = true;
        pthread_cond_signal(&holdings->wake);
        pthread_mutex_unlock(&holdings->lock);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += JOIN_S;
        /* One that a disk has keeps what it uses; the process is about to end. */
        if (pthread_timedjoin_np(holdings->thread, NULL, &until) != 0)
            return;
    }
    for (int i = 0; i < HOLDINGS_MOST; i++) {
        free(holdings->list[i].path);
        free(holdings->list[i].digest);
    }
    clear_texts(holdings);
    (void)pthread_cond_destroy(&holdings->wake);
    (void)pthread_mutex_destroy(&holdings->lock);
    free(holdings);
}

/* ---- what comes and goes ----------------------------------------------------------------- */

static int find(const struct holdings *holdings, const char *path)
{
    int at = 0;

    while (at < HOLDINGS_MOST && holdings->list[at].path &&
           strcmp(holdings->list[at].path, path) != 0)
        at++;
    return at;
}

void holdings_add(struct holdings *holdings, const char *path, const char *digest)
{
    struct holding new = {.path = ha_strdup(path), .digest = ha_strdup(digest), .cached = -1};
    struct holding *last;
    int at;

    if (!new.path || !new.digest) {
        free(new.path);
        free(new.digest);
        return;
    }
    pthread_mutex_lock(&holdings->lock);
    at = find(holdings, path);
    last = &holdings->list[at < HOLDINGS_MOST ? at : HOLDINGS_MOST - 1];
    if (at < HOLDINGS_MOST && last->path) {
        new.bytes = last->bytes;
        new.cached = last->cached;
    }
    free(last->path);
    free(last->digest);
    memmove(&holdings->list[1], &holdings->list[0],
            (size_t)(last - holdings->list) * sizeof(*last));
    holdings->list[0] = new;
    holdings->hurry = true;
    pthread_cond_signal(&holdings->wake);
    pthread_mutex_unlock(&holdings->lock);
}

void holdings_loaded(struct holdings *holdings, const char *path,
                     const struct contract_model *model)
{
    int at;

    pthread_mutex_lock(&holdings->lock);
    at = find(holdings, path);
    /* A mapped file is read while it is worked with: that says nothing of the speed. */
    if (at < HOLDINGS_MOST && holdings->list[at].path && model->device_bytes > 0 &&
        model->read_bytes > 0 && holdings->list[at].bytes > 0)
        holding_learn(&holdings->speeds, holdings->list[at].bytes, holdings->list[at].cached,
                      model->seconds);
    holdings->hurry = true;
    pthread_cond_signal(&holdings->wake);
    pthread_mutex_unlock(&holdings->lock);
}

void holdings_tell(struct holdings *holdings,
                   bool (*is_loaded)(void *context, const char *path, const char *digest),
                   void *context, struct ha_wire_heartbeat *beat)
{
    int64_t n = 0;

    clear_texts(holdings);
    pthread_mutex_lock(&holdings->lock);
    for (int i = 0; i < HOLDINGS_MOST && holdings->list[i].path; i++) {
        const struct holding *one = &holdings->list[i];
        bool loaded = is_loaded(context, one->path, one->digest);
        char *name = ha_strdup(ha_path_basename(one->path)), *digest = ha_strdup(one->digest);

        holdings->texts[2 * n] = name;
        holdings->texts[2 * n + 1] = digest;
        if (!name || !digest)
            break;
        holdings->told[n++] = (struct ha_wire_held_model){
            .digest = digest,
            .name = name,
            .bytes = one->bytes,
            .where = loaded                                                  ? "loaded"
                     : (double)one->cached > nearly_all * (double)one->bytes ? "cached"
                                                                             : "disk",
            .load_ms =
                loaded ? 0 : holding_load_ms(&holdings->speeds, one->bytes, one->cached) + 1};
    }
    pthread_mutex_unlock(&holdings->lock);
    beat->models = holdings->told;
    beat->n_models = n;
}
