#include "worker/daemon/device_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/net/loop.h"

enum { JOIN_S = 5, LOOKS = 4 /* at the thread, in stuck_ms */ };

/* What a thread has; it outlives the reader if the driver hangs. */
struct asker {
    struct ha_nvml *nvml; /* the thread's alone */
    struct ha_device_reader *reader;
    struct ha_loop *loop;
    int64_t poll_ms, anew_ms;
    struct ha_device_reading *fresh, *next; /* fresh is complete; next belongs to the thread */
    int64_t n_fresh, fresh_ms;
    int64_t asked_ms;     /* since when it is in the driver; -1: it is not */
    bool answered;        /* the driver did, once at least: */
    struct ha_error lack; /* why it has no devices; code 0: fresh has them */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, told;
    bool hurry, leave, ended;
};

struct ha_device_reader {
    struct ha_device_reader_options options;
    struct asker *asker;
    struct asker *lost[HA_DEVICE_READERS_LOST]; /* that were given up */
    int64_t n_lost;
    bool exhausted; /* no further thread is begun, which was told */
    struct ha_loop_timer *timer;
};

/* ---- the thread ------------------------------------------------------------------------------ */

static void on_told(void *context)
{
    struct ha_device_reader *reader = context;

    reader->options.told(reader->options.context);
}

static struct timespec in_ms(int64_t ms)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return until;
}

static void wait_for_next(struct asker *asker)
{
    const struct timespec until = in_ms(asker->poll_ms);

    while (!asker->hurry && !asker->leave &&
           pthread_cond_timedwait(&asker->wake, &asker->lock, &until) == 0)
        ;
    asker->hurry = false;
}

/* Ask the driver, however long that takes. */
static int64_t ask(struct asker *asker, int64_t *anew_at_ms, struct ha_error *lack)
{
    int64_t now_ms = ha_clock_boot_ms();
    bool anew = now_ms >= *anew_at_ms;

    *lack = (struct ha_error){0};
    if (!asker->nvml && ha_nvml_open(&asker->nvml, lack) < 0)
        return 0;
    if (anew)
        *anew_at_ms = now_ms + asker->anew_ms;
    return ha_nvml_read(asker->nvml, anew, asker->next);
}

static void take_answer(struct asker *asker, int64_t n, const struct ha_error *lack)
{
    struct ha_device_reading *done = asker->next;

    asker->next = asker->fresh;
    asker->fresh = done;
    asker->n_fresh = n;
    asker->fresh_ms = asker->asked_ms;
    asker->lack = *lack;
    asker->answered = true;
    pthread_cond_signal(&asker->told);
    /* Without memory for this, the next reading tells it. */
    if (!asker->leave)
        (void)ha_loop_post(asker->loop, on_told, asker->reader);
}

static void *read_for_ever(void *context)
{
    struct asker *asker = context;
    int64_t anew_at_ms = ha_clock_boot_ms() + asker->anew_ms;

    pthread_mutex_lock(&asker->lock);
    while (!asker->leave) {
        struct ha_error lack;
        int64_t n;

        asker->asked_ms = ha_clock_boot_ms();
        pthread_mutex_unlock(&asker->lock);
        n = ask(asker, &anew_at_ms, &lack);
        pthread_mutex_lock(&asker->lock);
        take_answer(asker, n, &lack);
        asker->asked_ms = -1;
        wait_for_next(asker);
    }
    pthread_mutex_unlock(&asker->lock);
    ha_nvml_close(asker->nvml); /* which may hang as well */
    pthread_mutex_lock(&asker->lock);
    asker->ended = true;
    pthread_mutex_unlock(&asker->lock);
    return NULL;
}

/* ---- its life -------------------------------------------------------------------------------- */

/* Of a thread that has ended or never began. */
static void free_asker(struct asker *asker)
{
    if (!asker)
        return;
    pthread_mutex_destroy(&asker->lock);
    pthread_cond_destroy(&asker->wake);
    pthread_cond_destroy(&asker->told);
    free(asker->fresh);
    free(asker->next);
    free(asker);
}

static int start_thread(struct asker *asker, struct ha_error *err)
{
    sigset_t all, old;
    int code;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    code = pthread_create(&asker->thread, NULL, read_for_ever, asker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code ? ha_error_set(err, code, "no thread to watch the GPUs: %s", strerror(code)) : 0;
}

static int create_asker(struct ha_device_reader *reader, struct asker **ret_asker,
                        struct ha_error *err)
{
    struct asker *asker = ha_calloc(1, sizeof(*asker));
    pthread_condattr_t attributes;
    int r = 0;

    if (!asker)
        return ha_error_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&asker->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&asker->wake, &attributes);
    pthread_cond_init(&asker->told, &attributes);
    pthread_condattr_destroy(&attributes);
    asker->loop = reader->options.loop;
    asker->reader = reader;
    asker->poll_ms = reader->options.poll_ms;
    asker->anew_ms = reader->options.anew_ms;
    asker->asked_ms = ha_clock_boot_ms();
    asker->fresh = ha_calloc(HA_DEVICES_LIMIT, sizeof(*asker->fresh));
    asker->next = ha_calloc(HA_DEVICES_LIMIT, sizeof(*asker->next));
    if (!asker->fresh || !asker->next)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = start_thread(asker, err);
    if (r < 0)
        free_asker(asker);
    else
        *ret_asker = asker;
    return r;
}

static void tell_to_leave(struct asker *asker)
{
    pthread_mutex_lock(&asker->lock);
    asker->leave = true;
    pthread_cond_signal(&asker->wake);
    pthread_mutex_unlock(&asker->lock);
}

static bool has_ended(struct asker *asker)
{
    bool ended;

    pthread_mutex_lock(&asker->lock);
    ended = asker->ended;
    pthread_mutex_unlock(&asker->lock);
    return ended;
}

static void join(struct asker *asker)
{
    (void)pthread_join(asker->thread, NULL);
    free_asker(asker);
}

/* ---- giving one up --------------------------------------------------------------------------- */

static void free_those_that_came_back(struct ha_device_reader *reader)
{
    for (int64_t i = reader->n_lost - 1; i >= 0; i--) {
        if (!has_ended(reader->lost[i]))
            continue;
        join(reader->lost[i]);
        reader->lost[i] = reader->lost[--reader->n_lost];
        reader->exhausted = false;
        ha_log_info("a call of the GPU driver that was given up has returned; %" PRId64 " have not",
                    reader->n_lost);
    }
}

/* Since when the driver has not returned from a call; -1: it has. */
static int64_t asked_ms(struct asker *asker)
{
    int64_t ms;

    pthread_mutex_lock(&asker->lock);
    ms = asker->asked_ms;
    pthread_mutex_unlock(&asker->lock);
    return ms;
}

static void replace(struct ha_device_reader *reader, int64_t silent_ms)
{
    struct asker *old = reader->asker;
    struct ha_error err = {0};

    if (reader->n_lost == reader->options.max_lost ||
        create_asker(reader, &reader->asker, &err) < 0) {
        if (!reader->exhausted)
            ha_log_warning("a call of the GPU driver has not returned for %" PRId64
                           " s, as %" PRId64 " before it, and no further thread asks (%s): "
                           "mend the driver, and restart this worker if it stays so",
                           silent_ms / 1000, reader->n_lost,
                           err.code ? err.text : "they are enough");
        reader->exhausted = true;
        return;
    }
    reader->exhausted = false;
    tell_to_leave(old);
    reader->lost[reader->n_lost++] = old;
    ha_log_warning("a call of the GPU driver has not returned for %" PRId64
                   " s: it is given up, and a new thread asks (%" PRId64 " of at most %" PRId64 ")",
                   silent_ms / 1000, reader->n_lost, reader->options.max_lost);
    reader->options.anew(reader->options.context);
}

static void on_timer(void *context)
{
    struct ha_device_reader *reader = context;
    int64_t since_ms = asked_ms(reader->asker), now_ms = ha_clock_boot_ms();

    ha_loop_timer_set_after(reader->timer, reader->options.stuck_ms / LOOKS);
    free_those_that_came_back(reader);
    if (since_ms >= 0 && now_ms - since_ms >= reader->options.stuck_ms << reader->n_lost)
        replace(reader, now_ms - since_ms);
}

/* ---- the whole ------------------------------------------------------------------------------- */

int ha_device_reader_create(const struct ha_device_reader_options *options,
                            struct ha_device_reader **ret_reader, struct ha_error *err)
{
    struct ha_device_reader *reader = ha_calloc(1, sizeof(*reader));
    int r;

    if (!reader)
        return ha_error_set(err, ENOMEM, "out of memory");
    reader->options = *options;
    r = ha_loop_timer_create(options->loop, on_timer, reader, &reader->timer, err);
    if (r == 0)
        r = create_asker(reader, &reader->asker, err);
    if (r < 0) {
        ha_device_reader_destroy(reader);
        return r;
    }
    if (options->stuck_ms > 0)
        ha_loop_timer_set_after(reader->timer, options->stuck_ms / LOOKS);
    *ret_reader = reader;
    return 0;
}

void ha_device_reader_destroy(struct ha_device_reader *reader)
{
    struct timespec until;

    if (!reader)
        return;
    for (int64_t i = 0; i < reader->n_lost; i++) {
        if (has_ended(reader->lost[i]))
            join(reader->lost[i]);
    }
    if (reader->asker) {
        tell_to_leave(reader->asker);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += JOIN_S;
        if (pthread_timedjoin_np(reader->asker->thread, NULL, &until) == 0)
            free_asker(reader->asker);
    }
    ha_loop_timer_destroy(reader->timer);
    free(reader);
}

bool ha_device_reader_wait(struct ha_device_reader *reader, int64_t ms)
{
    const struct timespec until = in_ms(ms);
    struct asker *asker = reader->asker;
    bool answered;

    pthread_mutex_lock(&asker->lock);
    while (!asker->answered && pthread_cond_timedwait(&asker->told, &asker->lock, &until) == 0)
        ;
    answered = asker->answered;
    pthread_mutex_unlock(&asker->lock);
    return answered;
}

int ha_device_reader_take(struct ha_device_reader *reader, struct ha_device_reading *readings,
                          int64_t *ret_n, int64_t *ret_ms, struct ha_error *err)
{
    struct asker *asker = reader->asker;
    int r;

    pthread_mutex_lock(&asker->lock);
    r = asker->answered;
    if (r == 1 && asker->lack.code) {
        r = ha_error_set(err, asker->lack.code, "%s", asker->lack.text);
    } else if (r == 1) {
        memcpy(readings, asker->fresh, (size_t)asker->n_fresh * sizeof(*readings));
        *ret_n = asker->n_fresh;
        *ret_ms = asker->fresh_ms;
    }
    pthread_mutex_unlock(&asker->lock);
    return r;
}

void ha_device_reader_hurry(struct ha_device_reader *reader)
{
    pthread_mutex_lock(&reader->asker->lock);
    reader->asker->hurry = true;
    pthread_cond_signal(&reader->asker->wake);
    pthread_mutex_unlock(&reader->asker->lock);
}

int64_t ha_device_reader_lost(const struct ha_device_reader *reader)
{
    return reader->n_lost;
}
