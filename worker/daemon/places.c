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
#include "worker/daemon/backend.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/orphan.h"

enum {
    POLL_MS = 2000,
    ANEW_MS = 30000, /* the driver is shut and opened for it */
    STALE_MS = 60000,
    FAILURES = 2 /* in a row, of different jobs */
};

struct places {
    struct ha_devices *devices;
    int64_t slots, each, gpu_memory_bytes;
    bool fixed;  /* each is as worker.toml says */
    bool on_cpu; /* the devices are told only */
    char *mark;
    char *backend;               /* its description, and */
    const char *setting;         /* what attempts are told */
    struct ha_wire_device *told; /* HA_DEVICES_LIMIT */
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
                                         .anew_ms = ANEW_MS,
                                         .answer_ms = config->driver_answer_s * 1000,
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
    int64_t n = 0, memory, since_ms;

    if (config->gpu_memory &&
        ha_memory_parse("gpu_memory", config->gpu_memory, &places->gpu_memory_bytes, err) < 0)
        return -EINVAL;
    places->slots = config->slots;
    places->fixed = config->gpus > 0;
    places->each = config->gpus;
    if (!places->devices || places->on_cpu)
        return 0;
    (void)ha_devices_list(places->devices, &n);
    if (places->each == 0)
        places->each = n > config->slots ? n / config->slots : 1;
    if (places->each > n && !ha_devices_silence(places->devices, &since_ms))
        return ha_error_set(err, EINVAL,
                            "gpus = %" PRId64 ", but there are %" PRId64
                            ": mend gpus, devices or CUDA_VISIBLE_DEVICES",
                            places->each, n);
    memory = ha_devices_memory_bytes(places->devices);
    if (!config->gpu_memory && memory > 0)
        places->gpu_memory_bytes = memory;
    ha_log_info("%" PRId64 " GPUs, %" PRId64 " for an attempt", n, places->each);
    return 0;
}

/* What attempts compute on. */
static int set_backend(struct places *places, const struct ha_worker_config *config,
                       const struct daemon_options *options, struct ha_error *err)
{
    places->setting = config->backend;
    if (places->on_cpu) {
        ha_log_warning("the GPU driver does not answer: this worker computes on the CPU");
        places->setting = "cpu";
        places->backend = backend_describe(options->program, "cpu", NULL);
    } else {
        places->backend = ha_strdup(options->backend);
    }
    return places->backend ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

int places_create(struct ha_loop *loop, const struct ha_worker_config *config,
                  const struct daemon_options *options, void (*changed)(void *context),
                  void *context, struct places **ret_places, struct ha_error *err)
{
    struct places *places = ha_calloc(1, sizeof(*places));
    bool is_cuda = strncmp(options->backend, "cuda", strlen("cuda")) == 0, silent;
    int64_t since_ms;
    int r = 0;

    if (!places)
        return ha_error_set(err, ENOMEM, "out of memory");
    places->mark = make_mark(config->work_dir);
    if (!places->mark)
        r = ha_error_set(err, errno, "%s: %s", config->work_dir, strerror(errno));
    places->told = ha_calloc(HA_DEVICES_LIMIT, sizeof(*places->told));
    if (r == 0 && !places->told)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0 && (is_cuda || options->silent || config->devices.count > 0))
        r = open_devices(places, loop, config, changed, context, err);
    silent = options->silent ||
             (places->devices && ha_devices_silence(places->devices, &since_ms) != NULL);
    places->on_cpu = silent && strcmp(config->backend, "auto") == 0;
    if (r == 0)
        r = set_backend(places, config, options, err);
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
    free(places->backend);
    free(places);
}

const char *places_backend(const struct places *places)
{
    return places->backend;
}

const char *places_setting(const struct places *places)
{
    return places->setting;
}

bool places_on_cpu(const struct places *places)
{
    return places->on_cpu;
}

struct ha_devices *places_devices(const struct places *places)
{
    return places->on_cpu ? NULL : places->devices;
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

static int64_t tell_devices(const struct places *places)
{
    static const char on_cpu[] = "the driver did not answer when this worker began, which computes "
                                 "on the CPU; start it anew to use this GPU";
    int64_t n;
    const struct ha_device *list = ha_devices_list(places->devices, &n);

    for (int64_t i = 0; i < n; i++) {
        const struct ha_device_reading *reading = &list[i].reading;

        places->told[i] = (struct ha_wire_device){
            .index = reading->index,
            .name = reading->name,
            .uuid = reading->uuid,
            .memory_bytes = reading->memory_total_bytes,
            .memory_used_bytes = reading->memory_used_bytes,
            .utilisation_percent = reading->utilisation_percent,
            .temperature_c = reading->temperature_c,
            .ecc_uncorrected = reading->ecc_uncorrected,
            .state = ha_device_state_name(places->on_cpu ? HA_DEVICE_ASIDE : list[i].state),
            .reason = places->on_cpu ? on_cpu : list[i].reason,
            .since_ms = wall_ms(list[i].since_ms)};
    }
    return n;
}

/* One line for all of them. */
static void tell_silence(const struct places *places, const char *why, int64_t since_ms)
{
    places->told[0] = (struct ha_wire_device){.index = -1,
                                              .name = "",
                                              .uuid = "",
                                              .memory_bytes = -1,
                                              .memory_used_bytes = -1,
                                              .utilisation_percent = -1,
                                              .temperature_c = -1,
                                              .ecc_uncorrected = -1,
                                              .state = ha_device_state_name(HA_DEVICE_ASIDE),
                                              .reason = why,
                                              .since_ms = wall_ms(since_ms)};
}

void places_tell(struct places *places, struct ha_wire_heartbeat *beat)
{
    const char *silence;
    int64_t usable, since_ms;

    if (!places->devices)
        return;
    silence = ha_devices_silence(places->devices, &since_ms);
    beat->devices = places->told;
    beat->n_devices = silence ? 1 : tell_devices(places);
    if (silence)
        tell_silence(places, silence, since_ms);
    usable = places->on_cpu ? places->slots : ha_devices_usable(places->devices);
    /* Where nobody said how many an attempt has, the slots share what is there. */
    if (places->fixed && !places->on_cpu)
        beat->places = (uint32_t)(usable / places->each);
    else
        beat->places = (uint32_t)(usable < places->slots ? usable : places->slots);
    if (places->on_cpu || places->fixed || beat->places == 0)
        beat->gpus = (uint32_t)places->each;
    else
        beat->gpus = (uint32_t)(usable / beat->places);
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
