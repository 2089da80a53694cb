/* liveness.c - who fell silent, and what becomes of what they held (inside.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/base/utf8.h"
#include "coordinator/core/retry.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/judging.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/worker.h"

/* Does the new process of a worker still have what this attempt told last? */
static bool is_kept(const struct ha_wire_hello *hello, const struct ha_attempt_row *row)
{
    for (int64_t i = 0; hello && i < hello->n_kept; i++) {
        const struct ha_wire_job_ref *kept = &hello->kept[i];

        if ((int64_t)kept->job == row->job &&
            (int64_t)kept->epoch.generation == row->epoch.generation &&
            (int64_t)kept->epoch.number == row->epoch.number)
            return true;
    }
    return false;
}

/* Of a gang another part may have failed before, and this loss be no more than what came of it. */
static int lose_attempt(struct ha_coordinator *c, const struct ha_by *by, const struct ha_member *m,
                        struct ha_attempt_row *row, bool back, const char *why,
                        struct ha_error *err)
{
    enum ha_outcome outcome = HA_OUTCOME_LOST;
    char reason[HA_ERROR_TEXT_BYTES];
    int r;

    ha_utf8_copy(reason, sizeof reason, why);
    r = ha_gang_lose(c, row->job, row->epoch, m->id, why, &outcome, reason, &row->worker, err);
    return r < 0 ? r : ha_server_end_attempt(c, by, row, (int)outcome, back, reason, 0, err);
}

static int lose_attempts(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                         const struct ha_wire_hello *hello, bool back, const char *why,
                         struct ha_error *err)
{
    struct ha_attempt_row row;
    int64_t job = 0;
    int r;

    /* A process that is gone can give nothing back, so its lost attempts end too. */
    while ((r = ha_store_attempt_next(c->store, m->id, job, !back, &row, err)) == 1) {
        job = row.job;
        if (is_kept(hello, &row))
            continue;
        r = lose_attempt(c, by, m, &row, back, why, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_member_lose(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m, bool back,
                   const char *why, struct ha_error *err)
{
    int r = m->judge ? ha_judging_lose(c, by, m, why, err)
                     : lose_attempts(c, by, m, NULL, back, why, err);

    m->used = -1;
    c->changed = true;
    return r;
}

int ha_member_replace(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                      const struct ha_wire_hello *hello, struct ha_error *err)
{
    static const char why[] = "its worker was started anew";
    int r = m->judge ? ha_judging_lose(c, by, m, why, err)
                     : lose_attempts(c, by, m, hello, false, why, err);

    m->used = -1;
    c->changed = true;
    return r;
}

static int lose(struct ha_coordinator *c, struct ha_member *m, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int64_t silent_s = (c->boot_ms - m->heard_ms) / 1000;
    char why[160], subject[96];
    int r;

    snprintf(why, sizeof why, "worker %s was silent for %" PRId64 " s", m->name, silent_s);
    snprintf(subject, sizeof subject, "%s %s", m->judge ? "judge worker" : "worker", m->name);
    r = ha_store_event_add(
        c->store, &by,
        &(struct ha_event){.subject = subject, .before = "alive", .after = "lost", .reason = why},
        err);
    if (r == 0)
        r = ha_store_worker_lost(c->store, m->id, true, m->seen_wall_ms, err);
    if (r == 0)
        r = ha_member_lose(c, &by, m, true, why, err);
    if (r == 0) {
        m->lost = true;
        m->running_count = 0;
    }
    return r;
}

/* Its messages are refused from now on, so nothing it holds will be given back. */
static int revoke(struct ha_coordinator *c, struct ha_member *m, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    char why[160], subject[96];
    int r;

    snprintf(why, sizeof why, "the key %s of worker %s was revoked", m->key, m->name);
    snprintf(subject, sizeof subject, "%s %s", m->judge ? "judge worker" : "worker", m->name);
    r = ha_store_event_add(c->store, &by,
                           &(struct ha_event){.subject = subject,
                                              .before = m->lost ? "lost" : "alive",
                                              .after = "revoked",
                                              .reason = why},
                           err);
    if (r == 0)
        r = ha_store_worker_revoked(c->store, m->id, m->seen_wall_ms, err);
    if (r == 0)
        r = ha_member_lose(c, &by, m, false, why, err);
    if (r < 0)
        return r;
    ha_log_info("%s", why);
    free(m->key);
    m->key = NULL;
    m->lost = true;
    m->peer = 0;
    m->running_count = 0;
    return 0;
}

int ha_server_revoke_keys(struct ha_coordinator *c, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && c->hooks.key_role && i < c->member_count; i++) {
        struct ha_member *m = c->members[i];
        enum ha_net_role role =
            m->key ? c->hooks.key_role(c->hooks.context, m->key) : HA_NET_ROLE_ADMIN;

        if (role != HA_NET_ROLE_ADMIN &&
            role != (m->judge ? HA_NET_ROLE_JUDGE : HA_NET_ROLE_WORKER))
            r = revoke(c, m, err);
    }
    c->keys_changed = r < 0;
    return r;
}

int ha_member_heard(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                    struct ha_error *err)
{
    char subject[96];
    int r = 0;

    if (m->lost) {
        snprintf(subject, sizeof subject, "%s %s", m->judge ? "judge worker" : "worker", m->name);
        r = ha_store_worker_lost(c->store, m->id, false, c->wall_ms, err);
        if (r == 0)
            r = ha_store_event_add(c->store, by,
                                   &(struct ha_event){.subject = subject,
                                                      .before = "lost",
                                                      .after = "alive",
                                                      .reason = "it was heard again"},
                                   err);
    }
    if (r < 0)
        return r;
    if (ha_member_liveness(c, m) != HA_ALIVE)
        c->changed = true;
    m->lost = false;
    m->heard_ms = c->boot_ms;
    m->seen_wall_ms = c->wall_ms;
    return 0;
}

int ha_server_tick(struct ha_coordinator *c, bool input_pending, struct ha_error *err)
{
    int r = 0;

    if (input_pending)
        return 0;
    for (int64_t i = 0; r == 0 && i < c->member_count; i++) {
        struct ha_member *m = c->members[i];

        if (!m->lost && ha_member_liveness(c, m) == HA_LOST)
            r = lose(c, m, err);
    }
    if (r == 0)
        r = ha_gangs_tick(c, err);
    return r < 0 ? r : ha_server_drain_tick(c, err);
}
