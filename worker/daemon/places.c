#include "worker/daemon/places.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/net/loop.h"
#include "proto/wire.h"
#include "worker/daemon/backend.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/orphan.h"
#include "worker/daemon/preflight.h"

enum {
    POLL_MS = 2000,
    ANEW_MS = 30000, /* the driver is shut and opened for it */
    STALE_MS = 60000,
    STUCK_MS = 40000, /* a call that another thread is begun after; then twice as long, ... */
    MAX_LOST = 8,     /* so that the last one begins after three hours */
    FAILURES = 2,     /* in a row, of different jobs */
    PROBE_MS = 25000  /* that a process may take which asks the driver */
};

struct places {
    const struct ha_worker_config *config;
    const char *program;
    struct ha_devices *devices;
    int64_t slots, each, gpu_memory_bytes;
    bool fixed;      /* each is as worker.toml says */
    bool hung;       /* the driver has not answered yet, and */
    bool news;       /* it has, which was not told yet */
    bool on_cpu;     /* the devices are told only */
    int64_t hung_ms; /* since when */
    struct ha_loop *loop;
    struct ha_loop_timer *timer;             /* of the next probe; NULL: it was never hung */
    struct preflight *probe;                 /* asks the driver; NULL: none does */
    char lack[HA_DEVICE_REASON_BYTES + 128]; /* what the last probe found, as it is told */
    void (*changed)(void *context);
    void *context;
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

static void ask_driver(struct places *places);

static void on_devices(void *context)
{
    struct places *places = context;

    if (places->hung)
        ask_driver(places);
    if (places->changed)
        places->changed(places->context);
}

static int open_devices(struct places *places, struct ha_error *err)
{
    const struct ha_worker_config *config = places->config;
    struct ha_devices_options options = {.loop = places->loop,
                                         .visible = getenv("CUDA_VISIBLE_DEVICES"),
                                         .chosen = &config->devices,
                                         .rules = {.release_ms = config->device_release_s * 1000,
                                                   .stale_ms = STALE_MS,
                                                   .failures = FAILURES,
                                                   .max_aside = config->max_devices_aside},
                                         .poll_ms = POLL_MS,
                                         .anew_ms = ANEW_MS,
                                         .answer_ms = config->driver_answer_s * 1000,
                                         .stuck_ms = STUCK_MS,
                                         .max_lost = MAX_LOST,
                                         .mark = places->mark,
                                         .changed = on_devices,
                                         .context = places};
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

static bool is_silent(const struct places *places)
{
    int64_t since_ms;

    return places->devices && ha_devices_silence(places->devices, &since_ms) != NULL;
}

/* How many GPUs an attempt gets, and of which memory. */
static int set_offer(struct places *places, struct ha_error *err)
{
    const struct ha_worker_config *config = places->config;
    int64_t n = 0, memory;

    places->each = config->gpus;
    if (config->gpu_memory &&
        ha_memory_parse("gpu_memory", config->gpu_memory, &places->gpu_memory_bytes, err) < 0)
        return -EINVAL;
    if (!places->devices || places->on_cpu)
        return 0;
    (void)ha_devices_list(places->devices, &n);
    if (places->each == 0)
        places->each = n > config->slots ? n / config->slots : 1;
    if (places->each > n && !is_silent(places))
        return ha_error_set(err, EINVAL,
                            "gpus = %" PRId64 ", but there are %" PRId64
                            ": mend gpus, devices or CUDA_VISIBLE_DEVICES",
                            places->each, n);
    memory = ha_devices_memory_bytes(places->devices);
    if (!config->gpu_memory && memory > 0)
        places->gpu_memory_bytes = memory;
    if (!is_silent(places))
        ha_log_info("%" PRId64 " GPUs, %" PRId64 " for an attempt", n, places->each);
    return 0;
}

/* What attempts compute on. */
static int set_backend(struct places *places, const char *description, struct ha_error *err)
{
    char *copy = places->on_cpu && places->hung ? backend_describe(places->program, "cpu", NULL)
                                                : ha_strdup(description);

    if (!copy)
        return ha_error_set(err, ENOMEM, "out of memory");
    free(places->backend);
    places->backend = copy;
    places->setting = places->on_cpu ? "cpu" : places->config->backend;
    return 0;
}

/* ---- a driver that hangs --------------------------------------------------------------------- */

static void wait_for_driver(struct places *places)
{
    ha_loop_timer_set_after(places->timer, places->config->driver_answer_s * 1000);
}

/* The driver has answered: from now on all is as if the worker had begun now. */
static void take_answer(struct places *places, const char *description)
{
    struct ha_error err = {0};

    places->on_cpu = strcmp(places->config->backend, "auto") == 0 &&
                     strncmp(description, "cpu", strlen("cpu")) == 0;
    places->hung = false;
    if (set_backend(places, description, &err) < 0 || set_offer(places, &err) < 0)
        ha_log_warning("the GPU driver answers now, but: %s", ha_error_text(&err));
    places->news = true;
    ha_log_info("the GPU driver answers now, after %" PRId64 " s; attempts compute on: %s",
                (ha_clock_boot_ms() - places->hung_ms) / 1000, places->backend);
}

static void on_probe(void *context, const char *uuid, const char *why)
{
    struct places *places = context;
    char *line = why ? NULL : preflight_last_line(places->probe);

    (void)uuid;
    preflight_destroy(places->probe);
    places->probe = NULL;
    if (line) {
        take_answer(places, line);
        if (places->changed)
            places->changed(places->context);
    } else {
        (void)snprintf(places->lack, sizeof(places->lack),
                       "the driver does not answer yet: %s; it is asked again every %" PRId64 " s",
                       why ? why : "no word of the process that asked",
                       places->config->driver_answer_s);
        ha_log_warning("%s", places->lack);
        wait_for_driver(places);
    }
    free(line);
}

/* By a process that can be killed; after the management library, which is asked all the time. */
static void ask_driver(struct places *places)
{
    const char *work_dir = places->config->work_dir;
    const struct preflight_options options = {.loop = places->loop,
                                              .program = places->program,
                                              .backend = places->config->backend,
                                              .folder = work_dir,
                                              .mark = places->mark,
                                              .limit_ms = PROBE_MS,
                                              .patient = true,
                                              .done = on_probe,
                                              .context = places};
    char *log = ha_path_join(work_dir, PREFLIGHT_LOG);
    struct ha_error err = {0};

    if (!places->hung || places->probe || is_silent(places)) {
        free(log);
        return;
    }
    if (log)
        (void)unlink(log);
    free(log);
    if (strcmp(places->config->backend, "cpu") == 0)
        take_answer(places, places->backend);
    else if (preflight_create(&options, &places->probe, &err) < 0)
        on_probe(places, NULL, ha_error_text(&err));
}

static void on_timer(void *context)
{
    struct places *places = context;

    wait_for_driver(places);
    ask_driver(places);
}

static int set_hung(struct places *places, struct ha_error *err)
{
    const struct ha_worker_config *config = places->config;
    bool is_auto = strcmp(config->backend, "auto") == 0;
    int r = ha_loop_timer_create(places->loop, on_timer, places, &places->timer, err);

    if (r < 0)
        return r;
    places->hung = true;
    places->hung_ms = ha_clock_boot_ms();
    places->on_cpu = is_auto && strcmp(config->without_driver, "cpu") == 0;
    (void)snprintf(places->lack, sizeof(places->lack),
                   "the driver did not answer when this worker began; it is asked again every "
                   "%" PRId64 " s%s",
                   config->driver_answer_s,
                   is_auto && !places->on_cpu ? " (without_driver = \"cpu\" computes meanwhile)"
                                              : "");
    ha_log_warning("the GPU driver does not answer: until it does, this worker %s",
                   places->on_cpu ? "computes on the CPU" : "takes no job");
    wait_for_driver(places);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

int places_create(struct ha_loop *loop, const struct ha_worker_config *config,
                  const struct daemon_options *options, void (*changed)(void *context),
                  void *context, struct places **ret_places, struct ha_error *err)
{
    struct places *places = ha_calloc(1, sizeof(*places));
    bool is_cuda = strncmp(options->backend, "cuda", strlen("cuda")) == 0;
    int r = 0;

    if (!places)
        return ha_error_set(err, ENOMEM, "out of memory");
    places->config = config;
    places->program = options->program;
    places->loop = loop;
    places->changed = changed;
    places->context = context;
    places->slots = config->slots;
    places->fixed = config->gpus > 0;
    places->mark = make_mark(config->work_dir);
    if (!places->mark)
        r = ha_error_set(err, errno, "%s: %s", config->work_dir, strerror(errno));
    places->told = ha_calloc(HA_DEVICES_LIMIT, sizeof(*places->told));
    if (r == 0 && !places->told)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0 && (is_cuda || options->silent || config->devices.count > 0))
        r = open_devices(places, err);
    if (r == 0 && (options->silent || is_silent(places)))
        r = set_hung(places, err);
    if (r == 0)
        r = set_backend(places, options->backend, err);
    if (r == 0)
        r = set_offer(places, err);
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
    preflight_destroy(places->probe);
    ha_loop_timer_destroy(places->timer);
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

bool places_wait(const struct places *places)
{
    return places->hung && !places->on_cpu;
}

bool places_news(struct places *places)
{
    bool news = places->news;

    places->news = false;
    return news;
}

void places_check(struct places *places)
{
    if (places->probe)
        preflight_check(places->probe);
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

int64_t places_attempt_memory(const struct places *places)
{
    bool cpu = strncmp(places->backend, "cpu", strlen("cpu")) == 0;

    return cpu ? ha_memory_total() / places->slots : 0;
}

/* Of a time of the clock that no one sets. */
static int64_t wall_ms(int64_t boot_ms)
{
    return boot_ms < 0 ? 0 : ha_clock_wall_ms() - (ha_clock_boot_ms() - boot_ms);
}

/* Why no attempt gets any of the GPUs; NULL: each for itself. */
static const char *common_lack(const struct places *places)
{
    if (places->hung)
        return places->lack;
    return places->on_cpu ? "the CUDA backend does not open with it: this worker computes on the "
                            "CPU (ha-attempt backend --backend cuda says why)"
                          : NULL;
}

static int64_t tell_devices(const struct places *places)
{
    const char *lack = common_lack(places);
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
            .state = ha_device_state_name(lack ? HA_DEVICE_ASIDE : list[i].state),
            .reason = lack ? lack : list[i].reason,
            .since_ms = wall_ms(lack ? places->hung_ms : list[i].since_ms)};
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
    const char *silence = places->hung ? places->lack : NULL;
    int64_t usable, since_ms = places->hung_ms;

    if (!places->devices && !places->hung)
        return;
    beat->devices = places->told;
    if (places->devices && (silence = ha_devices_silence(places->devices, &since_ms)) == NULL)
        beat->n_devices = tell_devices(places);
    if (silence) {
        tell_silence(places, silence, since_ms);
        beat->n_devices = 1;
    }
    if (places_wait(places))
        usable = 0;
    else
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
