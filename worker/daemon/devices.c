#include "worker/daemon/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "worker/daemon/orphan.h"

enum { JOIN_S = 5 };

/* What the thread has; it outlives the devices if the driver hangs. */
struct reader {
    struct ha_nvml *nvml;
    struct ha_loop *loop;
    struct ha_devices *devices; /* NULL: nobody listens any more */
    int64_t n, poll_ms;
    struct ha_device_reading *fresh, *next; /* fresh is complete; next belongs to the thread */
    int64_t fresh_ms;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool hurry, leave;
};

struct ha_devices {
    struct ha_devices_options options; /* chosen and visible are not kept */
    struct reader *reader;
    struct ha_device *items;
    int64_t *readings; /* per item: which of the reader's */
    uint64_t *claims;  /* per item; 0: none */
    int64_t n;
    uint64_t next_claim;
};

/* ---- the thread --------------------------------------------------------------------------------
 */

static void free_reader(struct reader *reader)
{
    if (!reader)
        return;
    ha_nvml_close(reader->nvml);
    pthread_mutex_destroy(&reader->lock);
    pthread_cond_destroy(&reader->wake);
    free(reader->fresh);
    free(reader->next);
    free(reader);
}

static void take_readings(void *context)
{
    struct ha_devices *devices = context;
    struct reader *reader = devices->reader;

    pthread_mutex_lock(&reader->lock);
    for (int64_t i = 0; i < devices->n; i++) {
        devices->items[i].reading = reader->fresh[devices->readings[i]];
        devices->items[i].read_ms = reader->fresh_ms;
    }
    pthread_mutex_unlock(&reader->lock);
    ha_devices_poll(devices, ha_loop_now_ms(reader->loop));
    if (devices->options.changed)
        devices->options.changed(devices->options.context);
}

static void wait_for_next(struct reader *reader)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += reader->poll_ms / 1000;
    until.tv_nsec += reader->poll_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!reader->hurry && !reader->leave &&
           pthread_cond_timedwait(&reader->wake, &reader->lock, &until) == 0)
        ;
    reader->hurry = false;
}

static void *read_for_ever(void *context)
{
    struct reader *reader = context;

    pthread_mutex_lock(&reader->lock);
    while (!reader->leave) {
        struct ha_device_reading *done;
        int64_t began_ms;

        pthread_mutex_unlock(&reader->lock);
        began_ms = ha_clock_boot_ms();
        ha_nvml_read(reader->nvml, reader->next);
        pthread_mutex_lock(&reader->lock);
        done = reader->next;
        reader->next = reader->fresh;
        reader->fresh = done;
        reader->fresh_ms = began_ms;
        /* Without memory for this, the next reading tells it. */
        if (!reader->leave)
            (void)ha_loop_post(reader->loop, take_readings, reader->devices);
        wait_for_next(reader);
    }
    pthread_mutex_unlock(&reader->lock);
    return NULL;
}

static int start_thread(struct reader *reader, struct ha_error *err)
{
    sigset_t all, old;
    int code;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    code = pthread_create(&reader->thread, NULL, read_for_ever, reader);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    reader->started = code == 0;
    return code ? ha_error_set(err, code, "no thread to watch the GPUs: %s", strerror(code)) : 0;
}

static int open_reader(const struct ha_devices_options *options, struct reader **ret_reader,
                       struct ha_error *err)
{
    struct reader *reader = ha_calloc(1, sizeof(*reader));
    pthread_condattr_t attributes;
    int r;

    if (!reader)
        return ha_error_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&reader->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&reader->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    reader->loop = options->loop;
    reader->poll_ms = options->poll_ms;
    r = ha_nvml_open(&reader->nvml, err);
    if (r == 0) {
        reader->n = ha_nvml_count(reader->nvml);
        reader->fresh = ha_calloc(reader->n, sizeof(*reader->fresh));
        reader->next = ha_calloc(reader->n, sizeof(*reader->next));
        if (!reader->fresh || !reader->next)
            r = ha_error_set(err, ENOMEM, "out of memory");
    }
    if (r < 0) {
        free_reader(reader);
        return r;
    }
    ha_nvml_read(reader->nvml, reader->fresh);
    *ret_reader = reader;
    return 0;
}

/* ---- which -------------------------------------------------------------------------------------
 */

static int choose(const struct ha_devices_options *options, const struct reader *reader,
                  bool *chosen, bool *scratch, struct ha_error *err)
{
    int64_t left = 0;

    if (options->visible)
        ha_device_select(reader->fresh, reader->n, options->visible, chosen, NULL);
    else
        memset(chosen, true, (size_t)reader->n * sizeof(*chosen));
    for (int64_t k = 0; options->chosen && k < options->chosen->count; k++) {
        int64_t bad;

        ha_device_select(reader->fresh, reader->n, options->chosen->items[k], scratch, &bad);
        if (bad >= 0)
            return ha_error_set(err, EINVAL,
                                "devices: \"%s\" names no GPU of this machine; indices, UUIDs and "
                                "all do (nvidia-smi -L lists them)",
                                options->chosen->items[k]);
        for (int64_t i = 0; i < reader->n; i++)
            scratch[reader->n + i] = scratch[reader->n + i] || scratch[i];
    }
    for (int64_t i = 0; i < reader->n; i++) {
        if (options->chosen && options->chosen->count > 0)
            chosen[i] = chosen[i] && scratch[reader->n + i];
        left += chosen[i];
    }
    return left > 0 ? 0
                    : ha_error_set(err, ENODEV, "CUDA_VISIBLE_DEVICES and devices leave no GPU");
}

static int add_devices(struct ha_devices *devices, const struct ha_devices_options *options,
                       struct ha_error *err)
{
    const struct reader *reader = devices->reader;
    bool *chosen = ha_calloc(3 * reader->n, sizeof(*chosen));
    int r = ha_error_set(err, ENOMEM, "out of memory");

    devices->items = ha_calloc(reader->n, sizeof(*devices->items));
    devices->readings = ha_calloc(reader->n, sizeof(*devices->readings));
    devices->claims = ha_calloc(reader->n, sizeof(*devices->claims));
    if (chosen && devices->items && devices->readings && devices->claims)
        r = choose(options, reader, chosen, chosen + reader->n, err);
    for (int64_t i = 0; r == 0 && i < reader->n; i++) {
        if (!chosen[i])
            continue;
        ha_device_init(&devices->items[devices->n]);
        devices->items[devices->n].reading = reader->fresh[i];
        devices->readings[devices->n++] = i;
    }
    free(chosen);
    return r;
}

int ha_devices_create(const struct ha_devices_options *options, struct ha_devices **ret_devices,
                      struct ha_error *err)
{
    struct ha_devices *devices = ha_calloc(1, sizeof(*devices));
    int r;

    if (!devices)
        return ha_error_set(err, ENOMEM, "out of memory");
    devices->options = *options;
    devices->options.chosen = NULL;
    devices->options.visible = NULL;
    devices->next_claim = 1;
    r = open_reader(options, &devices->reader, err);
    if (r == 0) {
        devices->reader->devices = devices;
        r = add_devices(devices, options, err);
    }
    if (r == 0)
        r = start_thread(devices->reader, err);
    if (r < 0) {
        ha_devices_destroy(devices);
        return r;
    }
    *ret_devices = devices;
    return 0;
}

void ha_devices_destroy(struct ha_devices *devices)
{
    struct reader *reader = devices ? devices->reader : NULL;
    struct timespec until;
    bool stuck = false;

    if (!devices)
        return;
    if (reader && reader->started) {
        pthread_mutex_lock(&reader->lock);
        reader->leave = true;
        pthread_cond_signal(&reader->wake);
        pthread_mutex_unlock(&reader->lock);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += JOIN_S;
        stuck = pthread_timedjoin_np(reader->thread, NULL, &until) != 0;
    }
    /* A thread that is stuck in the driver keeps what it uses; the process is about to end. */
    if (!stuck)
        free_reader(reader);
    free(devices->items);
    free(devices->readings);
    free(devices->claims);
    free(devices);
}

/* ---- what is with them -------------------------------------------------------------------------
 */

const struct ha_device *ha_devices_list(const struct ha_devices *devices, int64_t *ret_n)
{
    *ret_n = devices->n;
    return devices->items;
}

static void note_change(const struct ha_device *device, enum ha_device_state before)
{
    const char *uuid = device->reading.uuid;

    if (device->state == HA_DEVICE_ASIDE && before != HA_DEVICE_ASIDE)
        ha_log_warning("GPU %" PRId64 " (%s) is set aside: %s", device->reading.index, uuid,
                       device->reason);
    else if (device->state != HA_DEVICE_ASIDE && before == HA_DEVICE_ASIDE)
        ha_log_info("GPU %" PRId64 " (%s) is not aside any more", device->reading.index, uuid);
}

/* Processes of ended attempts that still compute. */
static void kill_orphans(const struct ha_devices *devices, const struct ha_device *device)
{
    for (int64_t i = 0; i < device->reading.n_pids; i++) {
        if (ha_orphan_kill(device->reading.pids[i], devices->options.mark))
            ha_log_warning("GPU %" PRId64 ": killed process %" PRId64
                           ", which an attempt had left behind",
                           device->reading.index, device->reading.pids[i]);
    }
}

void ha_devices_poll(struct ha_devices *devices, int64_t now_ms)
{
    enum ha_device_state before[HA_DEVICES_LIMIT];

    for (int64_t i = 0; i < devices->n; i++)
        before[i] = devices->items[i].state;
    ha_device_judge(devices->items, devices->n, &devices->options.rules, now_ms);
    for (int64_t i = 0; i < devices->n; i++) {
        const struct ha_device *device = &devices->items[i];

        note_change(device, before[i]);
        /* Only a reading from after the attempt's end tells of what it left. */
        if (!device->busy && device->read_ms > device->released_ms)
            kill_orphans(devices, device);
    }
}

int64_t ha_devices_usable(const struct ha_devices *devices)
{
    int64_t usable = 0;

    for (int64_t i = 0; i < devices->n; i++)
        usable +=
            devices->items[i].state == HA_DEVICE_FREE || devices->items[i].state == HA_DEVICE_BUSY;
    return usable;
}

int64_t ha_devices_memory_bytes(const struct ha_devices *devices)
{
    int64_t least = -1;

    for (int64_t i = 0; i < devices->n; i++) {
        int64_t bytes = devices->items[i].reading.memory_total_bytes;

        if (bytes >= 0 && (least < 0 || bytes < least))
            least = bytes;
    }
    return least;
}

/* ---- giving them to attempts -------------------------------------------------------------------
 */

static int say_lack(const struct ha_devices *devices, int64_t n, int64_t n_free,
                    struct ha_error *err)
{
    for (int64_t i = 0; i < devices->n; i++) {
        const struct ha_device *device = &devices->items[i];

        if (device->state == HA_DEVICE_HELD || device->state == HA_DEVICE_ASIDE)
            return ha_error_set(err, EAGAIN,
                                "%" PRId64 " of %" PRId64 " GPUs are free; GPU %" PRId64 ": %s",
                                n_free, n, device->reading.index, device->reason);
    }
    return ha_error_set(err, EAGAIN, "%" PRId64 " of %" PRId64 " GPUs are free", n_free, n);
}

int ha_devices_take(struct ha_devices *devices, int64_t n, int64_t now_ms, uint64_t *ret_claim,
                    char **ret_uuids, struct ha_error *err)
{
    struct ha_buffer uuids;
    int64_t n_free = 0, taken = 0;
    char *text;
    int r = 0;

    ha_devices_poll(devices, now_ms);
    for (int64_t i = 0; i < devices->n; i++)
        n_free += devices->items[i].state == HA_DEVICE_FREE;
    if (n_free < n)
        return say_lack(devices, n, n_free, err);
    ha_buffer_init(&uuids, 0);
    for (int64_t i = 0; i < devices->n && taken < n && r == 0; i++) {
        if (devices->items[i].state == HA_DEVICE_FREE)
            r = ha_buffer_printf(&uuids, taken++ ? ",%s" : "%s", devices->items[i].reading.uuid);
    }
    text = r == 0 ? ha_buffer_detach(&uuids) : NULL;
    ha_buffer_clear(&uuids);
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    taken = 0;
    for (int64_t i = 0; i < devices->n && taken < n; i++) {
        if (devices->items[i].state != HA_DEVICE_FREE)
            continue;
        ha_device_begin(&devices->items[i]);
        devices->claims[i] = devices->next_claim;
        taken++;
    }
    *ret_claim = devices->next_claim++;
    *ret_uuids = text;
    return 0;
}

void ha_devices_release(struct ha_devices *devices, uint64_t claim, uint64_t job, bool spoke,
                        bool failed, int64_t now_ms)
{
    for (int64_t i = 0; i < devices->n; i++) {
        if (claim == 0 || devices->claims[i] != claim)
            continue;
        devices->claims[i] = 0;
        ha_device_end(&devices->items[i], job, spoke, failed, now_ms);
    }
    pthread_mutex_lock(&devices->reader->lock);
    devices->reader->hurry = true;
    pthread_cond_signal(&devices->reader->wake);
    pthread_mutex_unlock(&devices->reader->lock);
}

bool ha_devices_condemn(struct ha_devices *devices, const char *uuid, const char *why)
{
    for (int64_t i = 0; i < devices->n; i++) {
        if (strcmp(devices->items[i].reading.uuid, uuid) == 0)
            return ha_device_condemn(devices->items, devices->n, i, &devices->options.rules, why);
    }
    return false;
}

void ha_devices_accept(struct ha_devices *devices, int64_t now_ms)
{
    for (int64_t i = 0; i < devices->n; i++)
        ha_device_accept(&devices->items[i]);
    ha_devices_poll(devices, now_ms);
}
