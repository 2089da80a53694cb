/* light.c - hundreds of workers in one process
 *
 * Each is a connection of its own with the automaton that real workers have
 * (worker/daemon/session.h): what it says, when, and what it makes of the answers is theirs.  Its
 * attempts are no processes: each tells a step every STEP_MS until the file --go is there, then an
 * answer for every prompt, and its end. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arguments.h"
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/net/loop.h"
#include "common/net/socket.h"
#include "proto/wire.h"
#include "worker/daemon/session.h"

enum {
    SOCKETS_PER_NET = 500, /* of a context of ZeroMQ */
    STEP_MS = 500,
    TURN_MS = 20,
    STEPS = 100000,
    SLOT_BYTES = 1 << 30,
    STALL_MS = 1 << 30 /* nothing here is ever stuck */
};

struct job {
    bool used, stopping;
    struct attempt_id id;
    uint64_t cell;
    int64_t step;
};

struct crowd;

struct light {
    struct crowd *crowd;
    struct session *session;
    struct ha_client *client;
    struct job job; /* there is one slot */
    int64_t step_ms;
    char name[24];
};

struct crowd {
    struct ha_loop *loop;
    struct ha_net **nets;
    struct light *items;
    int64_t count, prompts;
    const char *go;
};

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...)
{
    va_list args;

    fputs("ha-light-workers: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* ---- effects --------------------------------------------------------------------------------- */

static void on_send(void *context, const struct ha_wire_message *message)
{
    const struct light *light = context;
    struct ha_error err = {0};
    struct ha_buffer frame;

    ha_buffer_init(&frame, 0);
    if (ha_wire_encode(message, &frame, &err) < 0)
        die("%s", ha_error_text(&err));
    (void)ha_client_send(light->client, frame.data, frame.size);
    ha_buffer_clear(&frame);
}

static void on_reconnect(void *context)
{
    const struct light *light = context;
    struct ha_error err = {0};

    if (ha_client_reopen(light->client, &err) < 0)
        die("%s", ha_error_text(&err));
}

static void on_files(void *context, const char *endpoint)
{
    (void)context;
    (void)endpoint;
}

static uint64_t first_cell(const char *spec)
{
    struct ha_json *json = NULL;
    struct ha_error err = {0};
    int64_t cell;

    if (ha_json_parse(spec, strlen(spec), "job.json", &json, &err) < 0)
        die("%s", ha_error_text(&err));
    cell = ha_json_int(ha_json_get(ha_json_at(ha_json_get(json, "cells"), 0), "id"), 0);
    ha_json_destroy(json);
    return (uint64_t)cell;
}

static void on_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    struct light *light = context;

    if (light->job.used || strcmp(grant->kind, "generate") != 0)
        die("%s cannot take a job of kind %s", light->name, grant->kind);
    light->job = (struct job){.used = true, .id = *id, .cell = first_cell(grant->spec_json)};
    printf("%s starts job %" PRIu64 " epoch %" PRIu64 "\n", light->name, id->job, id->epoch.number);
}

static void on_stop(void *context, const struct attempt_id *id)
{
    struct light *light = context;

    if (light->job.used && attempt_id_equal(&light->job.id, id))
        light->job.stopping = true;
}

static void on_upload(void *context, const struct attempt_id *id, int64_t number, const char *path)
{
    (void)id;
    (void)number;
    (void)path;
    die("%s has no files", ((const struct light *)context)->name);
}

static void on_keep(void *context, const struct attempt_id *id,
                    const struct ha_wire_attempt_event *event, const char *path)
{
    (void)context;
    (void)id;
    (void)event;
    (void)path;
}

static void on_delivered(void *context, const struct attempt_id *id, int64_t number)
{
    (void)context;
    (void)id;
    (void)number;
}

static void on_forget(void *context, const struct attempt_id *id, bool failed)
{
    (void)context;
    (void)id;
    (void)failed;
}

static void on_gang(void *context, const struct attempt_id *id, const char *comm_id)
{
    (void)context;
    (void)id;
    (void)comm_id;
}

static void on_note(void *context, const char *text)
{
    printf("%s: %s\n", ((const struct light *)context)->name, text);
}

static const struct session_effects effects = {.send = on_send,
                                               .reconnect = on_reconnect,
                                               .files_endpoint = on_files,
                                               .start = on_start,
                                               .stop = on_stop,
                                               .upload = on_upload,
                                               .keep = on_keep,
                                               .delivered = on_delivered,
                                               .forget = on_forget,
                                               .gang = on_gang,
                                               .note = on_note};

static void on_message(void *context, const void *data, size_t size)
{
    struct light *light = context;
    struct ha_wire_message *message;
    struct ha_error err = {0};

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, &err) < 0)
        die("%s", ha_error_text(&err));
    session_receive(light->session, message, ha_loop_now_ms(light->crowd->loop));
    ha_wire_message_destroy(message);
}

/* ---- attempts -------------------------------------------------------------------------------- */

static void end(struct light *light, enum attempt_outcome outcome, int64_t now_ms)
{
    struct attempt_id id = light->job.id;

    light->job.used = false; /* the next one may begin within the call */
    session_attempt_ended(light->session, &id, outcome, "", 0, NULL, now_ms);
}

static void tell_answers(struct light *light, int64_t now_ms)
{
    const struct job job = light->job;
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER};
    char prompt[64];

    for (int64_t i = 0; i < light->crowd->prompts; i++) {
        (void)snprintf(prompt, sizeof(prompt), "\n\nHuman: %" PRId64 "?\n\nAssistant:", i);
        event.event.answer = (struct ha_wire_attempt_answer){.cell = job.cell,
                                                             .prompt = i,
                                                             .prompt_text = prompt,
                                                             .text = "Yes.",
                                                             .raw = "Yes.",
                                                             .finish = "eos",
                                                             .prompt_tokens = 8,
                                                             .tokens = 2};
        session_attempt_event(light->session, &job.id, &event, now_ms);
    }
    event = (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = job.cell, .done = true, .summary_json = "{\"seconds\":1}"}};
    session_attempt_event(light->session, &job.id, &event, now_ms);
}

static void work(struct light *light, bool go, int64_t now_ms)
{
    struct attempt_progress progress = {.steps = STEPS, .tokens_per_second = 1};

    if (!light->job.used) {
        return;
    } else if (light->job.stopping) {
        end(light, ATTEMPT_STOPPED, now_ms);
    } else if (go) {
        tell_answers(light, now_ms);
        end(light, ATTEMPT_DONE, now_ms);
    } else if (now_ms >= light->step_ms) {
        light->step_ms = now_ms + STEP_MS;
        progress.step = ++light->job.step;
        session_attempt_phase(light->session, &light->job.id, "generate", now_ms);
        session_attempt_progress(light->session, &light->job.id, &progress, now_ms);
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void open_light(struct crowd *crowd, int64_t i, const char *endpoint)
{
    const struct ha_socket_options socket = {.insecure_loopback = true};
    struct light *light = &crowd->items[i];
    struct ha_net **net = &crowd->nets[i / SOCKETS_PER_NET];
    struct ha_error err = {0};
    char instance[48];
    int r = *net ? 0 : ha_net_create(net, &err);

    light->crowd = crowd;
    (void)snprintf(light->name, sizeof(light->name), "light-%" PRId64, i);
    (void)snprintf(instance, sizeof(instance), "%s-%d", light->name, getpid());
    if (r == 0)
        r = ha_client_create(*net, crowd->loop, endpoint, &socket, on_message, light,
                             &light->client, &err);
    if (r == 0)
        r = session_create(&(struct session_options){.name = light->name,
                                                     .instance = instance,
                                                     .machine = "light",
                                                     .version = HA_VERSION,
                                                     .backend = "cpu",
                                                     .host = "light",
                                                     .pid = getpid(),
                                                     .slots = 1,
                                                     .cpus = 1,
                                                     .memory_bytes = SLOT_BYTES,
                                                     .host_memory_bytes = SLOT_BYTES,
                                                     .stall_load_ms = STALL_MS,
                                                     .stall_step_ms = STALL_MS,
                                                     .stall_generate_ms = STALL_MS,
                                                     .heartbeat_ms = STEP_MS},
                           &effects, light, ha_loop_now_ms(crowd->loop), &light->session, &err);
    if (r < 0)
        die("%s", ha_error_text(&err));
}

static void run(struct crowd *crowd)
{
    struct ha_error err = {0};

    for (;;) {
        bool go = access(crowd->go, F_OK) == 0;
        int64_t now_ms;

        if (ha_loop_turn(crowd->loop, TURN_MS, &err) < 0)
            die("%s", ha_error_text(&err));
        now_ms = ha_loop_now_ms(crowd->loop);
        for (int64_t i = 0; i < crowd->count; i++) {
            struct light *light = &crowd->items[i];

            work(light, go, now_ms);
            if (session_next_ms(light->session) <= now_ms)
                session_tick(light->session, now_ms);
        }
    }
}

static const struct ha_option options[] = {
    {"connect", "ENDPOINT", "of the coordinator's control socket"},
    {"workers", "N", "default 1"},
    {"prompts", "N", "answers that each job gives; default 1"},
    {"go", "FILE", "jobs end when it is there"},
};

static const struct ha_command command = {
    .name = "ha-light-workers",
    .synopsis = "",
    .summary = "Be many workers whose jobs only wait; tests/fault starts it.",
    .example = "ha-light-workers --connect tcp://127.0.0.1:8470 --workers 500 --go /tmp/go",
    .options = options,
    .n_options = sizeof(options) / sizeof(*options),
};

int main(int argc, char **argv)
{
    struct ha_arguments *arguments = NULL;
    struct crowd crowd = {0};
    struct ha_error err = {0};
    int r = ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err);

    if (r == 0)
        r = ha_arguments_int(arguments, "workers", 1, 1, &crowd.count, &err);
    if (r == 0)
        r = ha_arguments_int(arguments, "prompts", 1, 1, &crowd.prompts, &err);
    if (r == 0)
        r = ha_loop_create(&crowd.loop, &err);
    if (r < 0)
        die("%s", ha_error_text(&err));
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    crowd.go = ha_arguments_value(arguments, "go", "");
    crowd.items = ha_calloc(crowd.count, sizeof(*crowd.items));
    crowd.nets = ha_calloc(crowd.count / SOCKETS_PER_NET + 1, sizeof(struct ha_net *));
    if (!crowd.items || !crowd.nets)
        die("out of memory");
    for (int64_t i = 0; i < crowd.count; i++)
        open_light(&crowd, i, ha_arguments_value(arguments, "connect", ""));
    run(&crowd);
    return 0;
}
