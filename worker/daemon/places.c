#include "worker/daemon/places.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/conf/daemon.h"
#include "proto/wire.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/orphan.h"

enum {
    POLL_MS = 2000,
    STALE_MS = 60000,
    FAILURES = 2 /* in a row, of different jobs */
};

struct places {
    struct ha_devices *devices;
    int64_t slots, each, gpu_memory_bytes;
    bool fixed; /* each is as worker.toml says */
    char *mark;
    struct ha_wire_device *told;
    bool answered;
    int64_t undrained_ms; /* as the last reply said */
};

static char *make_mark(const char *work_dir)
{
    char *whole = realpath(work_dir, NULL);
    char *mark = whole ? ha_format(HA_ORPHAN_MARK "%s", whole) : NULL;

    free(whole);
    return mark;
}

static int open_devices(struct places *places, struct ha_loop *loop,
                        const struct ha_worker_config *config, void (*changed)(void *context),
                        void *context, struct ha_error *err)
{
    struct ha_devices_options options = {.loop = loop,
                                         .visible = getenv("CUDA_VISIBLE_DEVICES"),
                                         .chosen = &config->devices,
                                         .rules = {.release_ms = config->device_release_s * 1000,
                                                   .stale_ms = STALE_MS,
                                                   .failures = FAILURES,
                                                   .max_aside = config->max_devices_aside},
                                         .poll_ms = POLL_MS,
                                         .mark = places->mark,
                                         .changed = changed,
                                         .context = context};
    int r = ha_memory_parse("device_free_memory", config->device_free_memory,
                            &options.rules.free_bytes, err);

    if (r == 0)
        r = ha_devices_create(&options, &places->devices, err);
    /* What was not asked for by name is not needed: slots alone decide, as ever. */
    if (config->devices.count == 0 && (r == -ENOENT || r == -ENODEV)) {
        ha_log_warning("the GPUs are not watched: %s", ha_error_text(err));
        return 0;
    }
    return r;
}

static int set_offer(struct places *places, const struct ha_worker_config *config,
                     struct ha_error *err)
{
    int64_t n = 0, memory;

    if (config->gpu_memory &&
        ha_memory_parse("gpu_memory", config->gpu_memory, &places->gpu_memory_bytes, err) < 0)
        return -EINVAL;
    places->slots = config->slots;
    places->fixed = config->gpus > 0;
    places->each = config->gpus;
    if (!places->devices)
        return 0;
    (void)ha_devices_list(places->devices, &n);
    if (places->each == 0)
        places->each = n > config->slots ? n / config->slots : 1;
    if (places->each > n)
        return ha_error_set(err, EINVAL,
                            "gpus = %" PRId64 ", but there are %" PRId64
                            ": mend gpus, devices or CUDA_VISIBLE_DEVICES",
                            places->each, n);
    memory = ha_devices_memory_bytes(places->devices);
    if (!config->gpu_memory && memory > 0)
        places->gpu_memory_bytes = memory;
    places->told = ha_calloc(n, sizeof(*places->told));
    if (!places->told)
        return ha_error_set(err, ENOMEM, "out of memory");
    ha_log_info("%" PRId64 " GPUs, %" PRId64 " for an attempt", n, places->each);
    return 0;
}

int places_create(struct ha_loop *loop, const struct ha_worker_config *config, const char *backend,
                  void (*changed)(void *context), void *context, struct places **ret_places,
                  struct ha_error *err)
{
    struct places *places = ha_calloc(1, sizeof(*places));
    bool is_cuda = strncmp(backend, "cuda", strlen("cuda")) == 0;
    int r = 0;

    if (!places)
        return ha_error_set(err, ENOMEM, "out of memory");
    places->mark = make_mark(config->work_dir);
    if (!places->mark)
        r = ha_error_set(err, errno, "%s: %s", config->work_dir, strerror(errno));
    if (r == 0 && (is_cuda || config->devices.count > 0))
        r = open_devices(places, loop, config, changed, context, err);
    if (r == 0)
        r = set_offer(places, config, err);
    if (r < 0) {
        places_destroy(places);
        return r;
    }
    *ret_places = places;
    return 0;
}

void places_destroy(struct places *places)
{
    if (!places)
        return;
    ha_devices_destroy(places->devices);
    free(places->mark);
    free(places->told);
    free(places);
}

struct ha_devices *places_devices(const struct places *places)
{
    return places->devices;
}

const char *places_mark(const struct places *places)
{
    return places->mark;
}

uint32_t places_gpus(const struct places *places)
{
    return (uint32_t)places->each;
}

int64_t places_gpu_memory_bytes(const struct places *places)
{
    return places->gpu_memory_bytes;
}

/* Of a time of the clock that no one sets. */
static int64_t wall_ms(int64_t boot_ms)
{
    return boot_ms < 0 ? 0 : ha_clock_wall_ms() - (ha_clock_boot_ms() - boot_ms);
}

void places_tell(struct places *places, struct ha_wire_heartbeat *beat)
{
    const struct ha_device *list;
    int64_t n, usable;

    if (!places->devices)
        return;
    list = ha_devices_list(places->devices, &n);
    for (int64_t i = 0; i < n; i++) {
        const struct ha_device_reading *reading = &list[i].reading;

        places->told[i] =
            (struct ha_wire_device){.index = reading->index,
                                    .name = reading->name,
                                    .uuid = reading->uuid,
                                    .memory_bytes = reading->memory_total_bytes,
                                    .memory_used_bytes = reading->memory_used_bytes,
                                    .utilisation_percent = reading->utilisation_percent,
                                    .temperature_c = reading->temperature_c,
                                    .ecc_uncorrected = reading->ecc_uncorrected,
                                    .state = ha_device_state_name(list[i].state),
                                    .reason = list[i].reason,
                                    .since_ms = wall_ms(list[i].since_ms)};
    }
    beat->devices = places->told;
    beat->n_devices = n;
    /* Where nobody said how many an attempt has, the slots share what is there. */
    usable = ha_devices_usable(places->devices);
    if (places->fixed)
        beat->places = (uint32_t)(usable / places->each);
    else
        beat->places = (uint32_t)(usable < places->slots ? usable : places->slots);
    beat->gpus =
        (uint32_t)(places->fixed || beat->places == 0 ? places->each : usable / beat->places);
}

void places_take_reply(struct places *places, const struct ha_wire_heartbeat_reply *reply,
                       int64_t now_ms)
{
    bool newer =
        places->answered && reply->undrained_ms != 0 && reply->undrained_ms != places->undrained_ms;

    places->answered = true;
    if (reply->undrained_ms != 0)
        places->undrained_ms = reply->undrained_ms;
    if (newer && places->devices) {
        ha_log_info("this worker was undrained: its GPUs count as well");
        ha_devices_accept(places->devices, now_ms);
    }
}
