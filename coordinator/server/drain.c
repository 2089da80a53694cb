/* drain.c - workers that a person takes out: no new work, and what runs ends by
 * itself or, at a deadline, at a checkpoint (inside.h) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/worker.h"

#define DEADLINE_MAX_MS (30 * INT64_C(86400000))

/* The deadline of the row is wall clock; how much of it is left is believed up to
 * what was asked for, as clocks jump. */
int ha_member_drain(const struct ha_coordinator *c, struct ha_member *m,
                    const struct ha_worker_row *row)
{
    char stamp[HA_CLOCK_STAMP_BYTES];
    int64_t asked_ms = row->drain_deadline_ms - row->drain_since_ms;
    int64_t left_ms = row->drain_deadline_ms - c->wall_ms;
    char *why = NULL;

    if (row->drain_actor[0]) {
        ha_clock_stamp(row->drain_since_ms, stamp);
        why = ha_format("%s since %s%s%s", row->drain_actor, stamp,
                        row->drain_reason[0] ? ": " : "", row->drain_reason);
        if (!why)
            return -ENOMEM;
    }
    free(m->drain_why);
    m->drain_why = why;
    m->drained = why != NULL;
    m->aside = why && strcmp(row->drain_actor, HA_SERVER_SETS_ASIDE) == 0;
    m->drain_until_ms = 0;
    if (why && row->drain_deadline_ms != 0)
        m->drain_until_ms = c->boot_ms + (left_ms < 1          ? 1
                                          : left_ms > asked_ms ? asked_ms
                                                               : left_ms);
    return 0;
}

/* A judge worker when no worker has the name. */
static struct ha_member *find(struct ha_coordinator *c, const char *name, struct ha_error *err)
{
    struct ha_member *m = ha_member_by_name(c, false, name);

    if (!m)
        m = ha_member_by_name(c, true, name);
    if (!m)
        ha_error_set(err, ENOENT, "there is no worker %.64s; hactl workers lists them", name);
    return m;
}

static bool has_aside(const struct ha_member *m)
{
    const struct ha_wire_heartbeat *beat = m->beat ? &m->beat->body.heartbeat : NULL;

    for (int64_t i = 0; beat && i < beat->n_devices; i++) {
        if (strcmp(beat->devices[i].state, "aside") == 0)
            return true;
    }
    return false;
}

int ha_server_drain(struct ha_request *q, bool drain, int64_t *ret_changed, const char **ret_text,
                    struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    struct ha_member *m = find(q->c, change->worker, err);
    char reason[HA_ERROR_TEXT_BYTES];
    struct ha_worker_row row = {.drain_actor = drain ? q->by.actor : "",
                                .drain_reason = reason,
                                .drain_since_ms = q->by.now_ms};
    int r;

    if (q->origin->role != HA_NET_ROLE_ADMIN)
        return ha_error_set(err, EACCES, "the key %s has role %s; draining is for admin",
                            q->origin->key, ha_net_role_name(q->origin->role));
    if (!m)
        return -ENOENT;
    *ret_text = drain ? "it was drained already" : "it was not drained";
    if (!drain && has_aside(m)) {
        m->undrained_ms = q->by.now_ms;
        *ret_changed = 1;
        *ret_text = "its GPUs that were set aside for errors count again";
    }
    if (!drain && !m->drained)
        return 0;
    if (change->deadline_ms > DEADLINE_MAX_MS)
        return ha_error_set(err, EINVAL, "a deadline is at most 30 days away");
    ha_utf8_copy(reason, sizeof reason, change->reason);
    if (change->deadline_ms > 0)
        row.drain_deadline_ms = q->by.now_ms + change->deadline_ms;
    *ret_changed = *ret_changed || m->drained != drain;
    r = ha_store_worker_drain(q->c->store, &q->by, m->id, row.drain_actor, reason,
                              row.drain_deadline_ms, err);
    if (r == 0 && ha_member_drain(q->c, m, &row) < 0)
        r = ha_error_set(err, ENOMEM, "no memory to drain a worker");
    if (r < 0)
        return r;
    if (!drain)
        ha_suspect_forgive(&q->c->suspects, m->id);
    *ret_text = !drain                    ? "it takes work again"
                : change->deadline_ms > 0 ? "no new work; what runs is stopped at the deadline"
                                          : "no new work; what runs goes on to its end";
    return 0;
}

static int stop_all(struct ha_coordinator *c, struct ha_member *m, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct ha_attempt_row row;
    struct ha_error text;
    char why[HA_ERROR_TEXT_BYTES];
    int64_t job = 0;
    int r;

    ha_error_set(&text, EINTR, "worker %s is drained by %s", m->name, m->drain_why);
    ha_utf8_copy(why, sizeof why, text.text);
    while ((r = ha_store_attempt_next(c->store, m->id, job, false, &row, err)) == 1) {
        job = row.job;
        if (row.newest && !row.stops)
            r = ha_server_stop_attempt(c, &by, &row, HA_STOP_DRAIN, why, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_server_drain_tick(struct ha_coordinator *c, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < c->member_count; i++) {
        struct ha_member *m = c->members[i];

        if (m->drained && !m->judge && m->drain_until_ms != 0 && c->boot_ms >= m->drain_until_ms)
            r = stop_all(c, m, err);
    }
    return r;
}
