/* hello.c - Hello, Heartbeat */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/part.h"
#include "coordinator/store/store.h"
#include "coordinator/store/worker.h"

enum { LABELS_BYTES = 65536, RUNNING_LIMIT = 4096, SLOTS_LIMIT = 4096, DEVICES_LIMIT = 256 };

static void fill_reply(struct ha_request *q, const char *name)
{
    struct ha_coordinator *c = q->c;
    bool files = q->message->body.hello.role != HA_WIRE_ROLE_JUDGE;

    q->reply.kind = HA_WIRE_HELLO_REPLY;
    q->reply.body.hello_reply = (struct ha_wire_hello_reply){
        .version = c->version,
        .generation = (uint64_t)ha_store_generation(c->store),
        .heartbeat_ms = (uint32_t)c->options.rules.heartbeat_ms,
        .lost_ms = (uint32_t)c->options.rules.lost_ms,
        .files_endpoint = files ? c->files_endpoint : "",
        .name = name,
    };
}

static int hello_client(struct ha_request *q, struct ha_error *err)
{
    struct ha_caller *caller = ha_caller_add(q->c, q->origin->peer);

    if (!caller)
        return ha_error_set(err, ENOMEM, "no memory for another client");
    caller->role = HA_WIRE_ROLE_CLIENT;
    caller->member = NULL;
    fill_reply(q, q->origin->key);
    return 0;
}

static int check_fields(const struct ha_wire_hello *hello, struct ha_error *err)
{
    if (!ha_curve_name_valid(hello->name))
        return ha_error_set(err, EINVAL,
                            "a worker needs a name of 1 to 64 letters, digits and . _ -");
    if (!hello->instance[0] || !hello->machine[0])
        return ha_error_set(err, EINVAL, "worker %s said hello without instance or machine",
                            hello->name);
    if (hello->n_kept > RUNNING_LIMIT)
        return ha_error_set(err, EINVAL, "worker %s kept %" PRId64 " attempts", hello->name,
                            hello->n_kept);
    if (hello->role == HA_WIRE_ROLE_WORKER && (hello->slots == 0 || hello->slots > SLOTS_LIMIT))
        return ha_error_set(err, EINVAL, "worker %s offers %u slots; 1 to %d are possible",
                            hello->name, hello->slots, SLOTS_LIMIT);
    return 0;
}

/* The key that the name belongs to from now on; NULL: none.  Whoever comes without keys (on this
 * machine alone) changes nothing of that. */
static const char *key_of(const struct ha_request *q, const struct ha_member *m)
{
    return m && m->key ? m->key : strcmp(q->origin->key, "local") == 0 ? NULL : q->origin->key;
}

/* A name belongs to the key that says it first, until that key is revoked. */
static int check_key(const struct ha_request *q, const struct ha_member *m, struct ha_error *err)
{
    if (!m || !m->key || strcmp(q->origin->key, m->key) == 0 ||
        strcmp(q->origin->key, "local") == 0)
        return 0;
    return ha_error_set(
        err, EACCES,
        "the name %s belongs to the key %s, this is the key %s: choose another name "
        "(name in the worker's file), or revoke that key first",
        m->name, m->key, q->origin->key);
}

/* Void what an older process of this name held, or refuse the newer one. */
static int take_name(struct ha_request *q, struct ha_member *m, struct ha_error *err)
{
    const struct ha_wire_hello *hello = &q->message->body.hello;
    struct ha_lease_holder holder;

    if (!m)
        return 0;
    if (ha_member_is_void(m, hello->instance))
        return ha_error_set(err, EADDRINUSE,
                            "another process on %s took the name %s over; give each its own name",
                            m->host, hello->name);
    holder = (struct ha_lease_holder){
        .machine = m->machine, .instance = m->instance, .liveness = ha_member_liveness(q->c, m)};
    switch (ha_lease_hello(&holder, hello->machine, hello->instance)) {
    case HA_HELLO_REFUSED:
        return ha_error_set(err, EADDRINUSE,
                            "the name %s is held by a program on %s that is alive; choose another "
                            "name",
                            hello->name, m->host);
    case HA_HELLO_VOIDS:
        return ha_member_replace(q->c, &q->by, m, hello, err);
    default:
        return 0;
    }
}

static int store_member(struct ha_request *q, const struct ha_member *m, int64_t *ret_id,
                        struct ha_error *err)
{
    const struct ha_wire_hello *hello = &q->message->body.hello;
    const char *key = key_of(q, m);
    struct ha_worker_row row = {
        .judge = hello->role == HA_WIRE_ROLE_JUDGE,
        .name = hello->name,
        .machine = hello->machine,
        .instance = hello->instance,
        .host = hello->host,
        .backend = hello->backend,
        .version = hello->version,
        .slots = hello->slots,
        .key = key ? key : "",
        .seen_ms = q->c->wall_ms,
    };

    return ha_store_worker_put(q->c->store, &row, ret_id, err);
}

static int hello_event(struct ha_request *q, const struct ha_member *m, struct ha_error *err)
{
    const struct ha_wire_hello *hello = &q->message->body.hello;
    bool same = m && !m->lost && strcmp(m->instance, hello->instance) == 0;
    char subject[96];

    if (same)
        return 0;
    snprintf(subject, sizeof subject, "%s %s",
             hello->role == HA_WIRE_ROLE_JUDGE ? "judge worker" : "worker", hello->name);
    return ha_store_event_add(q->c->store, &q->by,
                              &(struct ha_event){.subject = subject,
                                                 .before = !m        ? ""
                                                           : m->lost ? "lost"
                                                                     : "gone",
                                                 .after = "alive",
                                                 .reason = hello->host},
                              err);
}

/* One per line, as a plan reads them. */
static char *join_labels(const struct ha_wire_hello *hello)
{
    struct ha_buffer text;
    char *copy;
    int r = 0;

    ha_buffer_init(&text, LABELS_BYTES);
    for (int64_t i = 0; r == 0 && i < hello->n_labels; i++)
        r = ha_buffer_printf(&text, "%s\n", hello->labels[i]);
    copy = r < 0 ? NULL : ha_strdup(ha_buffer_text(&text));
    ha_buffer_clear(&text);
    return copy;
}

static int remember(struct ha_request *q, struct ha_member *m, int64_t id, bool returns,
                    struct ha_error *err)
{
    const struct ha_wire_hello *hello = &q->message->body.hello;
    bool same = m && strcmp(m->instance, hello->instance) == 0;
    struct ha_caller *caller;
    char *labels;

    if (m && !same && ha_member_void(m) < 0)
        return ha_error_set(err, ENOMEM, "no memory for another worker");
    if (!m)
        m = ha_member_add(q->c, id, hello->role == HA_WIRE_ROLE_JUDGE);
    if (!m || ha_member_describe(m, hello->name, hello->machine, hello->instance, hello->host,
                                 hello->backend, hello->version) < 0)
        return ha_error_set(err, ENOMEM, "no memory for another worker");
    caller = ha_caller_add(q->c, q->origin->peer);
    if (!caller)
        return ha_error_set(err, ENOMEM, "no memory for another worker");
    labels = join_labels(hello);
    if (!m->key && key_of(q, m)) {
        m->key = ha_strdup(key_of(q, m));
        if (!m->key) {
            free(labels);
            labels = NULL;
        }
    }
    if (!labels)
        return ha_error_set(err, ENOMEM, "no memory for another worker");
    caller->role = hello->role;
    caller->member = m;
    if (!same)
        m->items_request = 0;
    m->peer = q->origin->peer;
    m->heard_ms = q->c->boot_ms;
    m->seen_wall_ms = q->c->wall_ms;
    m->slots = hello->slots;
    ha_wire_message_destroy(m->beat);
    m->beat = NULL;
    ha_wire_message_destroy(m->told);
    m->told = NULL;
    if (!same) /* what its processes had loaded is gone */
        memset(m->models, 0, sizeof m->models);
    m->memory_bytes = hello->memory_bytes;
    free(m->labels);
    m->labels = labels;
    m->offer = (struct ha_fit){.labels = labels,
                               .cpus = hello->cpus,
                               .memory_bytes = hello->host_memory_bytes,
                               .gpus = hello->gpus,
                               .gpu_memory_bytes = hello->gpu_memory_bytes};
    m->gpu_memory_bytes = hello->gpu_memory_bytes;
    m->lost = m->draining = false;
    m->returns = returns;
    m->used = -1;
    return 0;
}

/* Does a worker that greets again have attempts that it may be running?  1 or 0. */
static int has_attempts(struct ha_request *q, int64_t id, struct ha_error *err)
{
    struct ha_attempt_row row;

    return q->message->body.hello.role != HA_WIRE_ROLE_WORKER
               ? 0
               : ha_store_attempt_next(q->c->store, id, 0, true, &row, err);
}

int ha_handle_hello(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_hello *hello = &q->message->body.hello;
    struct ha_member *m;
    int64_t id;
    int r;

    if (hello->role == HA_WIRE_ROLE_CLIENT)
        return hello_client(q, err);
    r = check_fields(hello, err);
    if (r < 0)
        return r;
    m = ha_member_by_name(q->c, hello->role == HA_WIRE_ROLE_JUDGE, hello->name);
    r = check_key(q, m, err);
    if (r == 0)
        r = take_name(q, m, err);
    if (r == 0)
        r = store_member(q, m, &id, err);
    if (r == 0)
        r = hello_event(q, m, err);
    if (r == 0)
        r = has_attempts(q, id, err);
    if (r >= 0)
        r = remember(q, m, id, r == 1, err);
    if (r < 0)
        return r;
    fill_reply(q, hello->name);
    q->c->changed = true;
    return 0;
}

/* ---- heartbeat -------------------------------------------------------------------- */

static int keep_progress(struct ha_member *m, const struct ha_wire_heartbeat *beat)
{
    struct ha_progress *running = ha_calloc(beat->n_running, sizeof *running);

    if (!running)
        return -ENOMEM;
    for (int64_t i = 0; i < beat->n_running; i++) {
        const struct ha_wire_running *from = &beat->running[i];

        running[i] = (struct ha_progress){
            .job = (int64_t)from->job,
            .epoch = {(int64_t)from->epoch.generation, (int64_t)from->epoch.number},
            .step = from->step,
            .steps = from->steps,
            .tokens_per_second = from->tokens_per_second,
            .utilisation = from->utilisation,
        };
        ha_utf8_copy(running[i].phase, sizeof running[i].phase, from->phase);
    }
    free(m->running);
    m->running = running;
    m->running_count = beat->n_running;
    return 0;
}

/* Of each GPU that may be had: what hello said, if none that is there now has less. */
static int64_t least_memory(const struct ha_member *m, const struct ha_wire_heartbeat *beat)
{
    int64_t least = m->gpu_memory_bytes;

    for (int64_t i = 0; i < beat->n_devices; i++) {
        const struct ha_wire_device *device = &beat->devices[i];

        if (device->memory_bytes > 0 && strcmp(device->state, "aside") != 0 &&
            (least == 0 || device->memory_bytes < least))
            least = device->memory_bytes;
    }
    return least;
}

/* What it tells of devices, instead of what it told before. */
static int keep_devices(struct ha_request *q, struct ha_member *m, struct ha_error *err)
{
    const struct ha_wire_heartbeat *beat = &q->message->body.heartbeat;
    const struct ha_wire_message told = {.kind = HA_WIRE_HEARTBEAT,
                                         .body.heartbeat = {.devices = beat->devices,
                                                            .n_devices = beat->n_devices,
                                                            .places = beat->places,
                                                            .gpus = beat->gpus}};
    struct ha_wire_message *copy = NULL;
    int64_t before = ha_member_slots(m), memory = least_memory(m, beat);

    if (beat->n_devices > DEVICES_LIMIT)
        return ha_error_set(err, EINVAL, "a heartbeat of %" PRId64 " devices", beat->n_devices);
    if (beat->n_devices > 0 && ha_wire_copy(&told, &copy, NULL, err) < 0)
        return -ENOMEM;
    ha_wire_message_destroy(m->beat);
    m->beat = copy;
    if (copy && (m->offer.gpus != beat->gpus || m->offer.gpu_memory_bytes != memory)) {
        m->offer.gpus = beat->gpus;
        m->offer.gpu_memory_bytes = memory;
        q->c->changed = true;
    }
    q->c->changed = q->c->changed || ha_member_slots(m) != before;
    return 0;
}

/* Attempts that the worker runs and the store does not know as running: just
 * started, or lost and back. */
static int see_running(struct ha_request *q, struct ha_member *m, struct ha_error *err)
{
    const struct ha_wire_heartbeat *beat = &q->message->body.heartbeat;

    for (int64_t i = 0; i < beat->n_running; i++) {
        struct ha_epoch epoch = {(int64_t)beat->running[i].epoch.generation,
                                 (int64_t)beat->running[i].epoch.number};
        struct ha_attempt_row row;
        int r = ha_store_attempt_get(q->c->store, (int64_t)beat->running[i].job, epoch, &row, err);

        /* A word that was lost, or came before the worker had the grant. */
        if (r == 1 && row.newest && row.worker == m->id && row.stops)
            r = ha_server_ask_to_stop(q->c, &row, err) < 0 ? -ENOMEM : 1;
        if (r < 0)
            return r;
        if (r == 0 || !row.newest || row.state == HA_ATTEMPT_STATE_RUNNING ||
            row.state == HA_ATTEMPT_STATE_ENDED)
            continue;
        if (row.worker != m->id)
            r = ha_store_part_of(q->c->store, row.job, epoch, m->id, err);
        if (r == 0)
            continue;
        r = r < 0 ? r : ha_store_attempt_runs(q->c->store, &q->by, &row, err);
        if (r < 0)
            return r;
        m->used = -1;
        q->c->changed = true;
    }
    return 0;
}

static int list_should_run(struct ha_request *q, const struct ha_member *m, struct ha_error *err)
{
    struct ha_wire_heartbeat_reply *reply = &q->reply.body.heartbeat_reply;
    struct ha_attempt_row row;
    int64_t job = 0;
    int r;

    q->reply.kind = HA_WIRE_HEARTBEAT_REPLY;
    reply->generation = (uint64_t)ha_store_generation(q->c->store);
    reply->undrained_ms = m->undrained_ms;
    while (!m->judge && m->used != 0 &&
           (r = ha_store_attempt_next(q->c->store, m->id, job, false, &row, err)) != 0) {
        struct ha_wire_job_ref *ref;

        if (r < 0)
            return r;
        job = row.job;
        if (!row.newest)
            continue;
        ref = ha_scratch_grow(&q->arena, &reply->should_run, &reply->n_should_run, sizeof *ref);
        if (!ref)
            return ha_error_set(err, ENOMEM, "no memory for the reply");
        *ref = (struct ha_wire_job_ref){
            .job = (uint64_t)row.job,
            .epoch = {(uint64_t)row.epoch.generation, (uint64_t)row.epoch.number}};
    }
    return 0;
}

bool ha_heartbeat_is_quiet(const struct ha_coordinator *c, const struct ha_caller *caller,
                           const struct ha_wire_message *message)
{
    const struct ha_member *m = caller ? caller->member : NULL;

    return message->kind == HA_WIRE_HEARTBEAT && m && !m->judge && !m->lost && m->used == 0 &&
           message->body.heartbeat.n_running == 0 && ha_member_liveness(c, m) == HA_ALIVE;
}

int ha_handle_heartbeat(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_heartbeat *beat = &q->message->body.heartbeat;
    struct ha_member *m = q->caller->member;
    int r;

    if (!m)
        return ha_error_set(err, EACCES, "a client has no heartbeat");
    if (beat->n_running > RUNNING_LIMIT)
        return ha_error_set(err, EINVAL, "a heartbeat of %" PRId64 " attempts", beat->n_running);
    r = see_running(q, m, err);
    if (r == 0)
        r = list_should_run(q, m, err);
    if (r == 0 && keep_progress(m, beat) < 0)
        r = ha_error_set(err, ENOMEM, "no memory for progress");
    if (r == 0)
        r = keep_devices(q, m, err);
    if (r == 0)
        r = ha_member_keep_models(m, beat, err);
    if (r < 0)
        return r;
    if (m->lost || m->draining != beat->draining || ha_member_liveness(q->c, m) != HA_ALIVE)
        q->c->changed = true;
    m->lost = false;
    m->draining = beat->draining;
    if (m->returns)
        q->c->changed = true;
    m->returns = false;
    m->clock_known = beat->wall_ms > 0;
    m->clock_ms = m->clock_known ? beat->wall_ms - q->c->wall_ms : 0;
    m->heard_ms = q->c->boot_ms;
    m->seen_wall_ms = q->c->wall_ms;
    return 0;
}
