#include "worker/daemon/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "worker/daemon/device_reader.h"
#include "worker/daemon/orphan.h"

struct ha_devices {
    struct ha_devices_options options; /* chosen and visible are copies */
    struct ha_text_list chosen;
    struct ha_device_reader *reader;
    struct ha_device_reading *readings; /* the last ones */
    struct ha_device *items;            /* room for HA_DEVICES_LIMIT, as all that follows */
    uint64_t *claims;                   /* per item; 0: none */
    int64_t n;
    uint64_t next_claim;
    int64_t begin_ms;
    bool found; /* the driver has told of devices */
    char silence[HA_DEVICE_REASON_BYTES];
};

/* ---- which ----------------------------------------------------------------------------------- */

/* Which of these the settings take.  -EINVAL: chosen names one that is not there. */
static int choose(const struct ha_devices_options *options,
                  const struct ha_device_reading *readings, int64_t n, bool *taken,
                  struct ha_error *err)
{
    bool word[HA_DEVICES_LIMIT], some[HA_DEVICES_LIMIT] = {false};
    int r = 0;

    if (options->visible)
        ha_device_select(readings, n, options->visible, taken, NULL);
    else
        memset(taken, true, (size_t)n * sizeof(*taken));
    for (int64_t k = 0; k < options->chosen->count; k++) {
        int64_t bad;

        ha_device_select(readings, n, options->chosen->items[k], word, &bad);
        if (bad >= 0)
            r = ha_error_set(err, EINVAL,
                             "devices: \"%s\" names no GPU of this machine; indices, UUIDs and "
                             "all do (nvidia-smi -L lists them)",
                             options->chosen->items[k]);
        for (int64_t i = 0; i < n; i++)
            some[i] = some[i] || word[i];
    }
    for (int64_t i = 0; i < n && options->chosen->count > 0; i++)
        taken[i] = taken[i] && some[i];
    return r;
}

/* The reading of this device, or of its GPU where that is lost; NULL: there is none. */
static const struct ha_device_reading *find_reading(const struct ha_device_reading *readings,
                                                    int64_t n, const struct ha_device_reading *was)
{
    const struct ha_device_reading *lost = NULL;

    for (int64_t i = 0; i < n; i++) {
        if (was->uuid[0] && strcmp(readings[i].uuid, was->uuid) == 0)
            return &readings[i];
        if (readings[i].index == was->index && (!readings[i].uuid[0] || !was->uuid[0]))
            lost = &readings[i];
    }
    return lost;
}

/* Is its GPU there, in other parts? */
static bool is_split_otherwise(const struct ha_device_reading *readings, int64_t n,
                               const struct ha_device_reading *was)
{
    for (int64_t i = 0; i < n; i++) {
        if (was->gpu_uuid[0] && strcmp(readings[i].gpu_uuid, was->gpu_uuid) == 0)
            return true;
    }
    return false;
}

static void set_trouble(struct ha_device_reading *reading, const char *text)
{
    (void)snprintf(reading->trouble, sizeof(reading->trouble), "%s", text);
    reading->memory_used_bytes = reading->utilisation_percent = reading->temperature_c = -1;
    reading->n_pids = 0;
}

static void take_reading(struct ha_device *device, const struct ha_device_reading *now)
{
    int64_t last_xid = device->reading.last_xid;

    device->reading = *now;
    device->reading.xids += device->xids_before;
    if (now->xids == 0)
        device->reading.last_xid = last_xid;
}

/* What there is now of the devices that were there.  read_ms -1: it tells of no memory. */
static void renew(struct ha_devices *devices, const struct ha_device_reading *readings, int64_t n,
                  int64_t read_ms)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < devices->n; i++) {
        struct ha_device *device = &devices->items[i];
        const struct ha_device_reading *now = find_reading(readings, n, &device->reading);

        if (!now && !device->busy && is_split_otherwise(readings, n, &device->reading)) {
            ha_log_info("GPU %" PRId64 " (%s) is split otherwise now: not offered any more",
                        device->reading.index, device->reading.uuid);
            continue;
        }
        if (!now)
            set_trouble(&device->reading, "it is not there any more");
        else if (now->uuid[0] || !device->reading.uuid[0])
            take_reading(device, now);
        else
            set_trouble(&device->reading, now->trouble);
        device->read_ms = read_ms;
        if (kept != i) {
            devices->items[kept] = *device;
            devices->claims[kept] = devices->claims[i];
        }
        kept++;
    }
    devices->n = kept;
}

static bool is_known(const struct ha_devices *devices, const struct ha_device_reading *reading)
{
    for (int64_t i = 0; i < devices->n; i++) {
        const struct ha_device_reading *known = &devices->items[i].reading;

        if (reading->uuid[0] ? strcmp(known->uuid, reading->uuid) == 0
                             : known->index == reading->index)
            return true;
    }
    return false;
}

static void add_new(struct ha_devices *devices, const struct ha_device_reading *readings, int64_t n,
                    const bool *taken, int64_t read_ms)
{
    for (int64_t i = 0; i < n && devices->n < HA_DEVICES_LIMIT; i++) {
        struct ha_device *device = &devices->items[devices->n];

        if (!taken[i] || is_known(devices, &readings[i]))
            continue;
        ha_device_init(device);
        device->reading = readings[i];
        device->read_ms = read_ms;
        devices->claims[devices->n++] = 0;
        if (devices->found)
            ha_log_info("GPU %" PRId64 " (%s) is there now", readings[i].index, readings[i].uuid);
    }
}

/* Join the last readings, if there are any, to what is known.  first: the settings have to fit
 * them.  1; 0: there are none yet. */
static int merge(struct ha_devices *devices, bool first, struct ha_error *err)
{
    bool taken[HA_DEVICES_LIMIT];
    struct ha_error lack = {0};
    int64_t n = 0, read_ms = 0;
    int r = ha_device_reader_take(devices->reader, devices->readings, &n, &read_ms, &lack);

    if (r < 0) {
        (void)snprintf(devices->silence, sizeof(devices->silence), "%s", ha_error_text(&lack));
        for (int64_t i = 0; i < devices->n; i++)
            set_trouble(&devices->items[i].reading, ha_error_text(&lack));
        return ha_error_set(err, lack.code, "%s", lack.text);
    }
    if (r == 0)
        return 0;
    r = choose(&devices->options, devices->readings, n, taken, first ? err : NULL);
    if (first && r < 0)
        return r;
    if (first)
        read_ms = -1;
    renew(devices, devices->readings, n, read_ms);
    add_new(devices, devices->readings, n, taken, read_ms);
    devices->found = true;
    return devices->n > 0
               ? 1
               : ha_error_set(err, ENODEV, "CUDA_VISIBLE_DEVICES and devices leave no GPU");
}

static void on_told(void *context)
{
    struct ha_devices *devices = context;
    bool found = devices->found;

    if (merge(devices, false, NULL) == 0)
        return; /* of a thread that was given up since */
    if (!found && devices->found)
        ha_log_info("the GPU driver answers now: %" PRId64 " GPUs", devices->n);
    ha_devices_poll(devices, ha_loop_now_ms(devices->options.loop));
    if (devices->options.changed)
        devices->options.changed(devices->options.context);
}

/* Another thread counts XIDs from the beginning. */
static void on_anew(void *context)
{
    struct ha_devices *devices = context;

    for (int64_t i = 0; i < devices->n; i++)
        devices->items[i].xids_before = devices->items[i].reading.xids;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Begin to ask the driver, and wait for its first answer, but not for ever. */
static int find_first(struct ha_devices *devices, struct ha_error *err)
{
    const struct ha_devices_options *options = &devices->options;
    const struct ha_device_reader_options reader = {.loop = options->loop,
                                                    .poll_ms = options->poll_ms,
                                                    .anew_ms = options->anew_ms,
                                                    .stuck_ms = options->stuck_ms,
                                                    .max_lost = options->max_lost,
                                                    .told = on_told,
                                                    .anew = on_anew,
                                                    .context = devices};
    int r = ha_device_reader_create(&reader, &devices->reader, err);

    if (r < 0)
        return r;
    if (ha_device_reader_wait(devices->reader, options->answer_ms)) {
        r = merge(devices, true, err);
        return r < 0 ? r : 0;
    }
    ha_log_warning("the GPU driver does not answer: its GPUs are set aside until it does");
    return 0;
}

static int copy_options(struct ha_devices *devices, const struct ha_devices_options *options,
                        struct ha_error *err)
{
    const struct ha_text_list *chosen = options->chosen;
    int64_t n = chosen ? chosen->count : 0;
    int r = 0;

    devices->options = *options;
    devices->options.visible = NULL;
    devices->options.chosen = &devices->chosen;
    if (options->visible) {
        devices->options.visible = ha_strdup(options->visible);
        if (!devices->options.visible)
            return ha_error_set(err, ENOMEM, "out of memory");
    }
    for (int64_t i = 0; r == 0 && i < n; i++)
        r = ha_text_list_append(&devices->chosen, chosen->items[i], err);
    return r;
}

int ha_devices_create(const struct ha_devices_options *options, struct ha_devices **ret_devices,
                      struct ha_error *err)
{
    struct ha_devices *devices = ha_calloc(1, sizeof(*devices));
    int r;

    if (!devices)
        return ha_error_set(err, ENOMEM, "out of memory");
    devices->next_claim = 1;
    devices->begin_ms = ha_clock_boot_ms();
    (void)snprintf(devices->silence, sizeof(devices->silence), "the driver does not answer");
    devices->readings = ha_calloc(HA_DEVICES_LIMIT, sizeof(*devices->readings));
    devices->items = ha_calloc(HA_DEVICES_LIMIT, sizeof(*devices->items));
    devices->claims = ha_calloc(HA_DEVICES_LIMIT, sizeof(*devices->claims));
    r = devices->readings && devices->items && devices->claims
            ? copy_options(devices, options, err)
            : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = find_first(devices, err);
    if (r < 0) {
        ha_devices_destroy(devices);
        return r;
    }
    *ret_devices = devices;
    return 0;
}

void ha_devices_destroy(struct ha_devices *devices)
{
    if (!devices)
        return;
    ha_device_reader_destroy(devices->reader);
    ha_text_list_clear(&devices->chosen);
    free((char *)(uintptr_t)devices->options.visible);
    free(devices->readings);
    free(devices->items);
    free(devices->claims);
    free(devices);
}

const char *ha_devices_silence(const struct ha_devices *devices, int64_t *ret_since_ms)
{
    *ret_since_ms = devices->begin_ms;
    return devices->found ? NULL : devices->silence;
}

int64_t ha_devices_lost(const struct ha_devices *devices)
{
    return ha_device_reader_lost(devices->reader);
}

/* ---- what is with them ----------------------------------------------------------------------- */

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

/* ---- giving them to attempts ----------------------------------------------------------------- */

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
    ha_device_reader_hurry(devices->reader);
}

void ha_devices_pass(struct ha_devices *devices, uint64_t claim, uint64_t job, int64_t now_ms)
{
    for (int64_t i = 0; i < devices->n; i++) {
        if (claim == 0 || devices->claims[i] != claim)
            continue;
        ha_device_end(&devices->items[i], job, true, false, now_ms);
        ha_device_begin(&devices->items[i]);
    }
}

bool ha_devices_are_well(const struct ha_devices *devices, uint64_t claim)
{
    for (int64_t i = 0; i < devices->n; i++) {
        const struct ha_device *device = &devices->items[i];

        if (claim != 0 && devices->claims[i] == claim &&
            (device->suspected || device->reading.trouble[0]))
            return false;
    }
    return true;
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
