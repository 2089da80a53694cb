#include "worker/daemon/device_policy.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double gib = (double)((int64_t)1 << 30);

void ha_device_init(struct ha_device *device)
{
    *device = (struct ha_device){.read_ms = -1, .since_ms = -1, .released_ms = -1, .good_ms = -1};
}

static void say(struct ha_device *device, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct ha_device *device, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(device->reason, sizeof(device->reason), format, args);
    va_end(args);
}

/* Whether something speaks against the device that does not pass by itself. */
static bool is_suspect(struct ha_device *device, const struct ha_device_rules *rules,
                       int64_t last_good_ms)
{
    const struct ha_device_reading *reading = &device->reading;

    if (reading->ecc_uncorrected > device->ecc_accepted)
        say(device, "%" PRId64 " uncorrected ECC errors",
            reading->ecc_uncorrected - device->ecc_accepted);
    else if (reading->xids > device->xids_accepted)
        say(device, "XID %" PRId64 ": the driver tells of broken hardware", reading->last_xid);
    else if (rules->failures > 0 && device->n_failures >= rules->failures &&
             last_good_ms >= device->failing_ms)
        say(device, "%" PRId64 " different jobs in a row failed on it, the last was job %" PRIu64,
            device->n_failures, device->last_job);
    else if (device->unfit[0])
        say(device, "%s", device->unfit);
    else
        return false;
    return true;
}

static void say_held(struct ha_device *device)
{
    const struct ha_device_reading *reading = &device->reading;

    if (reading->n_pids > 0)
        say(device, "%.1f GiB of its memory is held by process %" PRId64 "%s",
            (double)reading->memory_used_bytes / gib, reading->pids[0],
            reading->n_pids > 1 ? " and others" : "");
    else
        say(device, "%.1f GiB of its memory is held", (double)reading->memory_used_bytes / gib);
}

static enum ha_device_state judge_free(struct ha_device *device,
                                       const struct ha_device_rules *rules, int64_t now_ms)
{
    bool late = device->released_ms >= 0 && now_ms - device->released_ms >= rules->release_ms;

    if (device->read_ms < 0 || device->read_ms <= device->released_ms) {
        say(device, "its memory has not been seen free yet");
        return HA_DEVICE_HELD;
    }
    if (device->reading.memory_used_bytes <= rules->free_bytes)
        return HA_DEVICE_FREE;
    say_held(device);
    return late ? HA_DEVICE_ASIDE : HA_DEVICE_HELD;
}

static int64_t count_suspected(const struct ha_device *devices, int64_t n)
{
    int64_t suspected = 0;

    for (int64_t i = 0; i < n; i++)
        suspected += devices[i].suspected;
    return suspected;
}

static enum ha_device_state judge_one(struct ha_device *device, const struct ha_device_rules *rules,
                                      int64_t now_ms)
{
    if (device->busy)
        return HA_DEVICE_BUSY;
    if (device->reading.trouble[0]) {
        say(device, "it cannot be read: %s", device->reading.trouble);
        return HA_DEVICE_ASIDE;
    }
    if (device->suspected)
        return HA_DEVICE_ASIDE;
    if (device->read_ms >= 0 && now_ms - device->read_ms > rules->stale_ms) {
        say(device, "the driver has not answered for %" PRId64 " s",
            (now_ms - device->read_ms) / 1000);
        return HA_DEVICE_ASIDE;
    }
    return judge_free(device, rules, now_ms);
}

void ha_device_judge(struct ha_device *devices, int64_t n, const struct ha_device_rules *rules,
                     int64_t now_ms)
{
    int64_t aside = count_suspected(devices, n), last_good_ms = -1;

    for (int64_t i = 0; i < n; i++) {
        if (devices[i].good_ms > last_good_ms)
            last_good_ms = devices[i].good_ms;
    }
    for (int64_t i = 0; i < n; i++) {
        struct ha_device *device = &devices[i];
        enum ha_device_state state;
        bool suspect;

        device->reason[0] = '\0';
        suspect = is_suspect(device, rules, last_good_ms);
        if (suspect && !device->suspected && aside < rules->max_aside) {
            device->suspected = true;
            aside++;
        }
        state = judge_one(device, rules, now_ms);
        if (device->since_ms < 0 || device->judged != state)
            device->since_ms = now_ms;
        device->state = device->judged = state;
    }
}

void ha_device_begin(struct ha_device *device)
{
    device->busy = true;
    device->state = HA_DEVICE_BUSY;
}

void ha_device_end(struct ha_device *device, uint64_t job, bool spoke, bool failed, int64_t now_ms)
{
    device->busy = false;
    device->state = HA_DEVICE_HELD;
    device->released_ms = now_ms;
    if (!spoke)
        return;
    if (!failed) {
        device->n_failures = 0;
        device->last_job = 0;
        device->good_ms = now_ms;
    } else if (device->n_failures == 0 || device->last_job != job) {
        if (device->n_failures == 0)
            device->failing_ms = now_ms;
        /* The same job again would say more of the job than of the device. */
        device->n_failures++;
        device->last_job = job;
    }
}

bool ha_device_condemn(struct ha_device *devices, int64_t n, int64_t at,
                       const struct ha_device_rules *rules, const char *why)
{
    if (!devices[at].suspected && count_suspected(devices, n) >= rules->max_aside)
        return false;
    (void)snprintf(devices[at].unfit, sizeof(devices[at].unfit), "%s", why);
    devices[at].suspected = true;
    return true;
}

void ha_device_accept(struct ha_device *device)
{
    device->unfit[0] = '\0';
    device->suspected = false;
    device->n_failures = 0;
    device->last_job = 0;
    if (device->reading.ecc_uncorrected > 0)
        device->ecc_accepted = device->reading.ecc_uncorrected;
    device->xids_accepted = device->reading.xids;
}

const char *ha_device_state_name(enum ha_device_state state)
{
    switch (state) {
    case HA_DEVICE_FREE:
        return "free";
    case HA_DEVICE_BUSY:
        return "busy";
    case HA_DEVICE_ASIDE:
        return "aside";
    default:
        return "held";
    }
}

/* ---- lists of devices ------------------------------------------------------------------------ */

static bool matches(const struct ha_device_reading *reading, const char *word, size_t size)
{
    char *end;
    long index;

    if (size == strlen("all") && strncmp(word, "all", size) == 0)
        return true;
    if (isdigit((unsigned char)word[0])) {
        index = strtol(word, &end, 10);
        return end == word + size && index == reading->index;
    }
    /* Not every beginning: "G" would name whichever there is. */
    return size > strlen("GPU-") &&
           (strncmp(reading->uuid, word, size) == 0 || strncmp(reading->gpu_uuid, word, size) == 0);
}

/* Whether the matching devices are one GPU, or MIG instances of one. */
static int64_t select_word(const struct ha_device_reading *readings, int64_t n, const char *word,
                           size_t size, bool *selected)
{
    bool many = word[0] == 'a';
    int64_t first = -1;

    for (int64_t i = 0; i < n; i++) {
        if (!matches(&readings[i], word, size))
            continue;
        if (first >= 0 && !many && readings[i].index != readings[first].index)
            return 0; /* not told apart */
        if (first < 0)
            first = i;
    }
    for (int64_t i = 0; first >= 0 && i < n; i++)
        selected[i] = selected[i] || matches(&readings[i], word, size);
    return first >= 0;
}

void ha_device_select(const struct ha_device_reading *readings, int64_t n, const char *list,
                      bool *selected, int64_t *bad)
{
    int64_t position = 0;

    memset(selected, 0, (size_t)n * sizeof(*selected));
    if (bad)
        *bad = -1;
    for (const char *at = list;; position++) {
        const char *word = at + strspn(at, " \t");
        size_t size = strcspn(word, ",");
        size_t used = size;

        while (used > 0 && isspace((unsigned char)word[used - 1]))
            used--;
        if (used == 0 || !select_word(readings, n, word, used, selected)) {
            if (bad)
                *bad = position;
            return;
        }
        if (word[size] == '\0')
            return;
        at = word + size + 1;
    }
}
