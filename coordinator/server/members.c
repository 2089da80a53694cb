/* members.c - workers, judge workers and connections in memory (inside.h) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/worker.h"

enum { CALLER_IDLE_MS = 600000, RECORDS = 1000 };

static void member_free(struct ha_member *m)
{
    if (!m)
        return;
    free(m->name);
    free(m->machine);
    free(m->instance);
    free(m->host);
    free(m->backend);
    free(m->version);
    free(m->key);
    free(m->drain_why);
    free(m->labels);
    for (int i = 0; i < HA_SERVER_VOIDED; i++)
        free(m->voided[i]);
    free(m->running);
    ha_wire_message_destroy(m->beat);
    ha_wire_message_destroy(m->told);
    free(m);
}

void ha_members_clear(struct ha_coordinator *c)
{
    for (int64_t i = 0; i < c->member_count; i++)
        member_free(c->members[i]);
    free(c->members);
    free(c->callers);
    c->members = NULL;
    c->callers = NULL;
    c->member_count = c->member_capacity = c->caller_count = c->caller_capacity = 0;
}

int ha_member_describe(struct ha_member *m, const char *name, const char *machine,
                       const char *instance, const char *host, const char *backend,
                       const char *version)
{
    char *texts[] = {ha_strdup(name), ha_strdup(machine), ha_strdup(instance),
                     ha_strdup(host), ha_strdup(backend), ha_strdup(version)};
    char **places[] = {&m->name, &m->machine, &m->instance, &m->host, &m->backend, &m->version};
    bool complete = true;

    for (int i = 0; i < 6; i++)
        complete = complete && texts[i];
    for (int i = 0; i < 6; i++) {
        if (!complete) {
            free(texts[i]);
            continue;
        }
        free(*places[i]);
        *places[i] = texts[i];
    }
    return complete ? 0 : -ENOMEM;
}

struct ha_member *ha_member_add(struct ha_coordinator *c, int64_t id, bool judge)
{
    struct ha_member *m = ha_calloc(1, sizeof *m);
    void *array = c->members;
    int64_t at = c->member_count;

    if (!m || ha_grow(&array, &c->member_capacity, c->member_count + 1, sizeof(void *)) < 0) {
        free(m);
        return NULL;
    }
    c->members = array;
    m->id = id;
    m->judge = judge;
    m->used = -1;
    while (at > 0 && c->members[at - 1]->id > id) {
        c->members[at] = c->members[at - 1];
        at--;
    }
    c->members[at] = m;
    c->member_count++;
    return m;
}

void ha_member_finished(struct ha_member *m, enum ha_stage_kind kind, const char *summary_json)
{
    struct ha_json *summary = NULL;
    struct ha_speed_record record = {.kind = kind};

    if (!m || ha_json_parse(summary_json, strlen(summary_json), "summary", &summary, NULL) < 0)
        return;
    record.flops = ha_json_real(ha_json_get(summary, "flops"), 0);
    record.flops_plain = ha_json_real(ha_json_get(summary, "flops_plain"), 0);
    record.seconds = ha_json_real(ha_json_get(summary, "seconds"), 0);
    record.cells_in_job = ha_json_int(ha_json_get(summary, "cells_in_job"), 0);
    ha_json_destroy(summary);
    ha_speed_add(&m->speed, &record);
}

static int load_record(void *context, int64_t worker, enum ha_stage_kind kind,
                       const char *summary_json)
{
    struct ha_member *m = ha_member_by_id(context, worker);

    if (m)
        ha_member_finished(m, kind, summary_json);
    return 0;
}

static int load_one(void *context, const struct ha_worker_row *row)
{
    struct ha_coordinator *c = context;
    struct ha_member *m = ha_member_add(c, row->id, row->judge);

    if (!m || ha_member_describe(m, row->name, row->machine, row->instance, row->host, row->backend,
                                 row->version) < 0)
        return -ENOMEM;
    if (row->key[0]) {
        m->key = ha_strdup(row->key);
        if (!m->key)
            return -ENOMEM;
    }
    m->slots = row->slots;
    m->lost = row->lost;
    m->heard_ms = c->boot_ms;
    m->seen_wall_ms = row->seen_ms;
    return ha_member_drain(c, m, row);
}

int ha_members_load(struct ha_coordinator *c, struct ha_error *err)
{
    int r = ha_store_worker_each(c->store, load_one, c, err);

    if (r == 0)
        r = ha_store_result_each_record(c->store, RECORDS, load_record, c, err);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for the table of workers") : r;
}

struct ha_member *ha_member_by_id(const struct ha_coordinator *c, int64_t id)
{
    int64_t low = 0, high = c->member_count;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (c->members[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->member_count && c->members[low]->id == id ? c->members[low] : NULL;
}

struct ha_member *ha_member_by_name(const struct ha_coordinator *c, bool judge, const char *name)
{
    for (int64_t i = 0; i < c->member_count; i++) {
        if (c->members[i]->judge == judge && strcmp(c->members[i]->name, name) == 0)
            return c->members[i];
    }
    return NULL;
}

enum ha_liveness ha_member_liveness(const struct ha_coordinator *c, const struct ha_member *m)
{
    return m->lost ? HA_LOST : ha_lease_liveness(&c->options.rules, m->heard_ms, c->boot_ms);
}

int64_t ha_member_slots(const struct ha_member *m)
{
    const struct ha_wire_heartbeat *beat = m->beat ? &m->beat->body.heartbeat : NULL;

    return beat && (int64_t)beat->places < m->slots ? (int64_t)beat->places : m->slots;
}

int ha_member_void(struct ha_member *m)
{
    char *copy = ha_strdup(m->instance);

    if (!copy)
        return -ENOMEM;
    free(m->voided[HA_SERVER_VOIDED - 1]);
    memmove(&m->voided[1], &m->voided[0], (HA_SERVER_VOIDED - 1) * sizeof m->voided[0]);
    m->voided[0] = copy;
    return 0;
}

bool ha_member_is_void(const struct ha_member *m, const char *instance)
{
    for (int i = 0; i < HA_SERVER_VOIDED; i++) {
        if (m->voided[i] && strcmp(m->voided[i], instance) == 0)
            return true;
    }
    return false;
}

/* Most recent first; the last one falls out.  With one slot a next job finds what this one leaves;
 * beside it, one finds at best the files in the page cache. */
void ha_member_loads(struct ha_member *m, int64_t model)
{
    int at = 0;

    while (at < HA_PLAN_MODELS - 1 && m->models[at].model != model)
        at++;
    memmove(&m->models[1], &m->models[0], (size_t)at * sizeof m->models[0]);
    m->models[0] = (struct ha_plan_model){.model = model, .load_ms = m->slots == 1 ? 0 : 1};
    for (int i = 1; i < HA_PLAN_MODELS && m->slots == 1; i++)
        m->models[i].load_ms = m->models[i].load_ms > 0 ? m->models[i].load_ms : 1;
}

int ha_member_keep_models(struct ha_member *m, const struct ha_wire_heartbeat *beat,
                          struct ha_error *err)
{
    struct ha_wire_message told = {
        .kind = HA_WIRE_HEARTBEAT,
        .body.heartbeat = {.models = beat->models, .n_models = beat->n_models}};
    struct ha_wire_message *copy = NULL;

    if (beat->n_models == 0)
        return 0;
    if (beat->n_models > HA_PLAN_MODELS)
        told.body.heartbeat.n_models = HA_PLAN_MODELS;
    if (ha_wire_copy(&told, &copy, NULL, err) < 0)
        return -ENOMEM;
    ha_wire_message_destroy(m->told);
    m->told = copy;
    memset(m->models, 0, sizeof m->models);
    for (int64_t i = 0; i < copy->body.heartbeat.n_models; i++) {
        const struct ha_wire_held_model *from = &copy->body.heartbeat.models[i];

        m->models[i] = (struct ha_plan_model){.model = ha_server_model_number(from->digest),
                                              .load_ms = from->load_ms};
    }
    return 0;
}

const struct ha_progress *ha_member_progress(const struct ha_coordinator *c, int64_t job)
{
    for (int64_t i = 0; i < c->member_count; i++) {
        const struct ha_member *m = c->members[i];

        for (int64_t j = 0; j < m->running_count; j++) {
            if (m->running[j].job == job)
                return &m->running[j];
        }
    }
    return NULL;
}

/* ---- callers: open addressing, at most half full ---------------------------------- */

static struct ha_caller *place(struct ha_caller *table, int64_t capacity, uint64_t peer)
{
    uint64_t at = (peer * 0x9e3779b97f4a7c15u) >> 20;

    while (table[at % (uint64_t)capacity].peer != 0 && table[at % (uint64_t)capacity].peer != peer)
        at++;
    return &table[at % (uint64_t)capacity];
}

static int rebuild(struct ha_coordinator *c, int64_t capacity)
{
    struct ha_caller *table = ha_calloc(capacity, sizeof *table);

    if (!table)
        return -ENOMEM;
    for (int64_t i = 0; i < c->caller_capacity; i++) {
        if (c->callers[i].peer != 0)
            *place(table, capacity, c->callers[i].peer) = c->callers[i];
    }
    free(c->callers);
    c->callers = table;
    c->caller_capacity = capacity;
    return 0;
}

struct ha_caller *ha_caller_find(struct ha_coordinator *c, uint64_t peer)
{
    struct ha_caller *caller;

    if (c->caller_capacity == 0 || peer == 0)
        return NULL;
    caller = place(c->callers, c->caller_capacity, peer);
    return caller->peer == peer ? caller : NULL;
}

struct ha_caller *ha_caller_add(struct ha_coordinator *c, uint64_t peer)
{
    struct ha_caller *caller = ha_caller_find(c, peer);

    if (caller)
        return caller;
    if ((c->caller_count + 1) * 2 > c->caller_capacity &&
        rebuild(c, c->caller_capacity == 0 ? 64 : c->caller_capacity * 2) < 0)
        return NULL;
    caller = place(c->callers, c->caller_capacity, peer);
    *caller = (struct ha_caller){.peer = peer, .heard_ms = c->boot_ms};
    c->caller_count++;
    return caller;
}

void ha_caller_remove(struct ha_coordinator *c, uint64_t peer)
{
    struct ha_caller *caller = ha_caller_find(c, peer);

    if (!caller)
        return;
    if (caller->member && caller->member->peer == peer)
        caller->member->peer = 0;
    caller->peer = 0;
    c->caller_count--;
    rebuild(c, c->caller_capacity); /* closes the gap; without memory somebody says hello again */
}

/* Clients that said nothing for long: they say hello again when they come back. */
void ha_callers_prune(struct ha_coordinator *c)
{
    bool gone = false;

    for (int64_t i = 0; i < c->caller_capacity; i++) {
        struct ha_caller *caller = &c->callers[i];

        if (caller->peer != 0 && c->boot_ms - caller->heard_ms > CALLER_IDLE_MS) {
            if (caller->member && caller->member->peer == caller->peer)
                caller->member->peer = 0;
            caller->peer = 0;
            c->caller_count--;
            gone = true;
        }
    }
    if (gone)
        rebuild(c, c->caller_capacity);
}
