#include "kernels/cpu/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"

/* How long a thread without work looks for some before it sleeps: longer than the
 * usual gap between two operations, shorter than a time slice. */
enum { SPIN_NS = 100000, PAUSES = 64 };

/* A run is published by storing its ticket: number of items in the upper half, the
 * next free one in the lower.  Taking an item adds one; what is at or past the number
 * of items is no item.  fn and context may be read by whoever holds an item: they
 * change only after all items of the run are done. */
struct ha_pool {
    int threads;
    int n_started;
    pthread_t *workers; /* (threads - 1) */
    struct worker *places;

    ha_pool_fn fn;
    void *context;
    _Atomic uint64_t ticket;
    _Atomic int64_t done;
    _Atomic unsigned epoch; /* number of runs so far */

    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    _Atomic int sleepers; /* workers */
    _Atomic bool caller_sleeps;
    _Atomic bool quit;
};

struct worker {
    struct ha_pool *pool;
    int thread;
};

static void pause_briefly(void)
{
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

static bool has_items(uint64_t ticket)
{
    return (uint32_t)ticket < (uint32_t)(ticket >> 32);
}

/* Do items as long as there are any. */
static void work_off(struct ha_pool *pool, int thread)
{
    while (has_items(atomic_load(&pool->ticket))) {
        uint64_t ticket = atomic_fetch_add(&pool->ticket, 1);

        if (!has_items(ticket))
            return;
        pool->fn(pool->context, (uint32_t)ticket, thread);
        if (atomic_fetch_add(&pool->done, 1) + 1 == (int64_t)(ticket >> 32) &&
            atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static bool wanted(struct ha_pool *pool, unsigned epoch)
{
    return atomic_load(&pool->epoch) != epoch || atomic_load(&pool->quit);
}

/* Until a run later than `epoch` is there. */
static void wait_for_run(struct ha_pool *pool, unsigned epoch)
{
    int64_t limit = ha_clock_boot_ns() + SPIN_NS;

    while (!wanted(pool, epoch) && ha_clock_boot_ns() < limit)
        pause_briefly();
    if (wanted(pool, epoch))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!wanted(pool, epoch))
        pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument)
{
    const struct worker *worker = argument;
    struct ha_pool *pool = worker->pool;

    while (!atomic_load(&pool->quit)) {
        unsigned epoch = atomic_load(&pool->epoch);

        work_off(pool, worker->thread);
        wait_for_run(pool, epoch);
    }
    return NULL;
}

int ha_pool_create(int threads, struct ha_pool **ret_pool, struct ha_error *err)
{
    struct ha_pool *pool = ha_calloc(1, sizeof(*pool));
    int rc = 0;

    if (!pool)
        return ha_error_set(err, ENOMEM, "no memory for %d threads", threads);
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->workers = ha_calloc(threads, sizeof(*pool->workers));
    pool->places = ha_calloc(threads, sizeof(*pool->places));
    if (!pool->workers || !pool->places)
        rc = ha_error_set(err, ENOMEM, "no memory for %d threads", threads);
    while (rc == 0 && pool->n_started < threads - 1) {
        struct worker *worker = &pool->places[pool->n_started];
        int code;

        *worker = (struct worker){pool, pool->n_started + 1};
        code = pthread_create(&pool->workers[pool->n_started], NULL, worker_main, worker);
        if (code != 0)
            rc = ha_error_set(err, code, "cannot start %d threads: %s; use fewer", threads,
                              strerror(code));
        else
            pool->n_started++;
    }
    if (rc < 0) {
        ha_pool_destroy(pool);
        return rc;
    }
    *ret_pool = pool;
    return 0;
}

void ha_pool_destroy(struct ha_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->quit, true);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->finished);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool->places);
    free(pool);
}

static void wake_workers(struct ha_pool *pool, int64_t n_items)
{
    if (atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    if (n_items >= pool->threads)
        pthread_cond_broadcast(&pool->work);
    else
        for (int64_t i = 1; i < n_items; i++)
            pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_items(struct ha_pool *pool, int64_t n_items)
{
    int64_t limit = ha_clock_boot_ns() + SPIN_NS;

    while (atomic_load(&pool->done) != n_items && ha_clock_boot_ns() < limit)
        pause_briefly();
    if (atomic_load(&pool->done) == n_items)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->done) != n_items)
        pthread_cond_wait(&pool->finished, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void ha_pool_run(struct ha_pool *pool, ha_pool_fn fn, void *context, int64_t n_items)
{
    if (pool->threads == 1 || n_items < 2) {
        for (int64_t i = 0; i < n_items; i++)
            fn(context, i, 0);
        return;
    }
    pool->fn = fn;
    pool->context = context;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, (uint64_t)n_items << 32);
    atomic_fetch_add(&pool->epoch, 1);
    wake_workers(pool, n_items);
    work_off(pool, 0);
    wait_for_items(pool, n_items);
}
