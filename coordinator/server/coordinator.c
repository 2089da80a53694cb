/* coordinator.c - turns: requests in savepoints, one commit, then the replies */
#include "coordinator/server/coordinator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/base/memory.h"
#include "coordinator/server/dispatch.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/job.h"
#include "coordinator/store/request.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

enum {
    REPLY_BYTES = 32 << 20,
    PRUNE_MS = 3600000,
    SLICE_US = 2000,
    REST_MS = 1000,
    TICK_MS = 250,
    CROWD = 64,   /* workers whose heartbeats are read several at a time, */
    QUIET_MS = 25 /* for which they wait so long */
};

/* ---- life ------------------------------------------------------------------------ */

struct unfinished {
    int64_t *sweeps, count, capacity;
};

static int list_unfinished(void *context, const struct ha_sweep_row *row)
{
    struct unfinished *u = context;
    void *array = u->sweeps;

    if (!row->expanding && row->chore == HA_CHORE_NONE)
        return 0;
    if (ha_grow(&array, &u->capacity, u->count + 1, sizeof *u->sweeps) < 0)
        return -ENOMEM;
    u->sweeps = array;
    u->sweeps[u->count++] = row->expanding ? row->id : -row->id;
    return 0;
}

static int stop_sweep(struct ha_coordinator *c, int64_t sweep, const char *why,
                      struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int r = ha_store_begin(c->store, err);

    if (r < 0)
        return r;
    r = ha_store_sweep_set_state(c->store, &by, sweep, HA_SWEEP_PAUSED, why, err);
    if (r == 0)
        return ha_store_commit(c->store, err);
    ha_store_rollback(c->store);
    return r;
}

/* Long work that a restart cut off.  A grid that cannot be read any more stops
 * its sweep, not the start. */
static int resume_chores(struct ha_coordinator *c, struct ha_error *err)
{
    struct unfinished u = {0};
    int r = ha_store_sweep_each(c->store, 0, NULL, list_unfinished, &u, err);

    for (int64_t i = 0; r >= 0 && i < u.count; i++) {
        struct ha_error why = {0};

        if (u.sweeps[i] > 0)
            r = ha_chore_expand(c, u.sweeps[i], NULL, &why);
        else
            r = ha_chore_stages(c, -u.sweeps[i], &why);
        if (r == -ENOMEM) {
            r = ha_error_set(err, ENOMEM, "no memory to start");
        } else if (r < 0) {
            ha_log_warning("sweep %lld cannot go on: %s", (long long)llabs(u.sweeps[i]),
                           ha_error_text(&why));
            r = stop_sweep(c, llabs(u.sweeps[i]), ha_error_text(&why), err);
        }
    }
    free(u.sweeps);
    return r;
}

int ha_coordinator_create(const struct ha_coordinator_options *options,
                          const struct ha_coordinator_hooks *hooks, struct ha_store *store,
                          int64_t boot_ms, int64_t wall_ms, struct ha_coordinator **ret_coordinator,
                          struct ha_error *err)
{
    struct ha_coordinator *c = ha_calloc(1, sizeof *c);
    int r;

    if (!c)
        return ha_error_set(err, ENOMEM, "no memory for the coordinator");
    c->options = *options;
    if (c->options.slice_us == 0)
        c->options.slice_us = SLICE_US;
    c->hooks = *hooks;
    c->store = store;
    c->boot_ms = c->turn_ended_ms = boot_ms;
    c->wall_ms = c->pruned_ms = wall_ms;
    c->changed = c->cancelled = true;
    c->settled = -1;
    c->version = ha_strdup(options->version);
    c->files_endpoint = ha_strdup(options->files_endpoint);
    r = c->version && c->files_endpoint ? ha_members_load(c, err)
                                        : ha_error_set(err, ENOMEM, "no memory");
    if (r == 0)
        r = ha_gangs_load(c, err);
    if (r == 0)
        r = resume_chores(c, err);
    if (r < 0) {
        ha_coordinator_destroy(c);
        return r;
    }
    *ret_coordinator = c;
    return 0;
}

void ha_coordinator_destroy(struct ha_coordinator *c)
{
    if (!c)
        return;
    ha_store_rollback(c->store);
    ha_backup_drop(c);
    ha_server_drop_held(c, 0);
    ha_chores_clear(c);
    ha_members_clear(c);
    ha_gangs_clear(c);
    free(c->held);
    free(c->asked);
    free(c->version);
    free(c->files_endpoint);
    free(c->disk_low);
    free(c);
}

void ha_coordinator_set_disk_low(struct ha_coordinator *c, const char *why)
{
    free(c->disk_low);
    c->disk_low = ha_strdup(why);
}

void ha_coordinator_keys_changed(struct ha_coordinator *c)
{
    c->keys_changed = true;
}

void ha_coordinator_set_refused(struct ha_coordinator *c, int64_t count)
{
    c->refused = count;
}

void ha_coordinator_peer_gone(struct ha_coordinator *c, uint64_t peer)
{
    ha_caller_remove(c, peer);
    c->changed = true;
}

/* ---- the turn --------------------------------------------------------------------- */

void ha_coordinator_turn_begin(struct ha_coordinator *c, int64_t boot_ms, int64_t wall_ms)
{
    if (c->in_turn)
        return;
    /* A pause of our own (the machine slept, the disk hung) is nobody's silence. */
    if (ha_lease_renew(&c->options.rules, c->turn_ended_ms, boot_ms)) {
        for (int64_t i = 0; i < c->member_count; i++) {
            if (!c->members[i]->lost)
                c->members[i]->heard_ms = boot_ms;
        }
    }
    c->boot_ms = boot_ms;
    c->wall_ms = wall_ms;
    c->in_turn = true;
    c->turn_step = c->step + 1;
}

/* The first change of a turn begins the transaction; one that fails is not
 * stored. */
static int begin(struct ha_coordinator *c, struct ha_error *err)
{
    int r = ha_store_begin(c->store, err);

    c->step++;
    return r < 0 ? r : ha_store_mark(c->store, err);
}

static int remember(struct ha_coordinator *c, uint64_t peer, uint64_t request_id)
{
    void *array = c->asked;

    if (ha_grow(&array, &c->asked_capacity, c->asked_count + 1, sizeof *c->asked) < 0)
        return -ENOMEM;
    c->asked = array;
    c->asked[c->asked_count++] = (struct ha_asked){.peer = peer, .request_id = request_id};
    return 0;
}

/* Take back everything from a step on. */
static void undo(struct ha_coordinator *c, int64_t held, int64_t step, bool rewind)
{
    ha_store_undo(c->store);
    ha_server_drop_held(c, held);
    ha_chores_undone(c, step, rewind);
    for (int64_t i = 0; i < c->member_count; i++)
        c->members[i]->used = -1;
}

/* A worker in an idle crowd beats less often, and every other heartbeat goes unanswered: the answer
 * would say what the last one did, and a worker calls the coordinator silent after three without
 * one. */
static bool goes_unanswered(struct ha_request *q)
{
    if (!q->quiet || !q->c->idle || q->c->member_count < CROWD)
        return false;
    q->reply.body.heartbeat_reply.rest_ms = (uint32_t)ha_lease_rest_ms(&q->c->options.rules);
    q->caller->member->answered = !q->caller->member->answered;
    return !q->caller->member->answered;
}

static int answer(struct ha_request *q, struct ha_error *err)
{
    int r = ha_dispatch(q, err);

    if (r < 0 || q->deferred || q->reply.kind == HA_WIRE_UNKNOWN)
        return r;
    if (goes_unanswered(q))
        return 0;
    q->reply.protocol = HA_WIRE_PROTOCOL;
    q->reply.request_id = q->message->request_id;
    return ha_server_hold(q->c, q->origin->peer, &q->reply, err);
}

static void name_actor(struct ha_request *q)
{
    if (q->caller && q->caller->member)
        snprintf(q->actor, sizeof q->actor, "%s %s",
                 q->caller->member->judge ? "judge worker" : "worker", q->caller->member->name);
    else
        snprintf(q->actor, sizeof q->actor, "%s", q->origin->key);
    q->by = (struct ha_by){.now_ms = q->c->wall_ms, .actor = q->actor};
}

void ha_coordinator_message(struct ha_coordinator *c, const struct ha_origin *origin,
                            const struct ha_wire_message *message)
{
    struct ha_request q = {.c = c, .origin = origin, .message = message};
    struct ha_error err = {0};
    int64_t held = c->held_count, step = c->step + 1;
    int r = 0;

    q.caller = ha_caller_find(c, origin->peer);
    q.quiet = ha_heartbeat_is_quiet(c, q.caller, message);
    c->quiet_beats += q.quiet;
    if (!q.quiet && remember(c, origin->peer, message->request_id) < 0)
        r = ha_error_set(&err, ENOMEM, "no memory for the request");
    if (r == 0 && !q.quiet)
        r = begin(c, &err);
    if (r < 0) {
        ha_server_hold_error(c, origin->peer, message->request_id, &err);
        return;
    }
    ha_arena_init(&q.arena, REPLY_BYTES);
    if (q.caller)
        q.caller->heard_ms = c->boot_ms;
    name_actor(&q);
    r = answer(&q, &err);
    if (!q.quiet && r == 0)
        r = ha_store_keep(c->store, &err);
    else if (!q.quiet)
        undo(c, held, step, false);
    if (r < 0)
        ha_server_hold_error(c, origin->peer, message->request_id, &err);
    ha_arena_clear(&q.arena);
}

void ha_coordinator_garbage(struct ha_coordinator *c, const struct ha_origin *origin,
                            uint64_t request_id, const struct ha_error *why)
{
    ha_server_hold_error(c, origin->peer, request_id, why);
}

void ha_coordinator_artifact(struct ha_coordinator *c, const char *sha256, int64_t size)
{
    struct ha_error err = {0};
    int64_t held = c->held_count, step = c->step + 1;
    int r = begin(c, &err);

    if (r < 0)
        return; /* whoever uploaded it asks again */
    r = ha_store_artifact_add(c->store, sha256, size, c->wall_ms, &err);
    if (r == 0)
        r = ha_server_hold_artifact(c, sha256, false, &err);
    if (r == 0)
        r = ha_store_keep(c->store, &err);
    else
        undo(c, held, step, false);
    if (r < 0)
        ha_log_debug("artifact %s: %s", sha256, ha_error_text(&err));
}

/* What the coordinator does by itself at the end of a turn, each in a savepoint
 * of its own, so that one that fails does not take the requests with it. */
static int by_itself(struct ha_coordinator *c,
                     int (*work)(struct ha_coordinator *c, struct ha_error *err),
                     struct ha_error *err)
{
    int64_t held = c->held_count, step = c->step + 1;
    int r = begin(c, err);

    if (r < 0)
        return r;
    r = work(c, err);
    if (r == 0)
        return ha_store_keep(c->store, err);
    undo(c, held, step, work == ha_chores_work);
    return r;
}

/* Sweeps whose user does not want to see more failures. */
static int stop_failing(struct ha_coordinator *c, const struct ha_by *by, struct ha_error *err)
{
    int64_t sweep = 0, failed = 0;
    int r;

    while ((r = ha_store_sweep_next_failing(c->store, sweep, &sweep, &failed, err)) == 1) {
        char why[128];

        snprintf(why, sizeof why, "stopped: %lld cells failed (retry.max_failures)",
                 (long long)failed);
        r = ha_store_sweep_set_state(c->store, by, sweep, HA_SWEEP_RUNNING, why, err);
        if (r == 0)
            r = ha_store_sweep_set_chore(c->store, sweep, HA_CHORE_CANCEL, err);
        if (r == 0)
            r = ha_chore_stages(c, sweep, err);
        if (r < 0)
            break;
    }
    return r;
}

static int settle(struct ha_coordinator *c, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int r = stop_failing(c, &by, err);

    if (r >= 0)
        r = ha_store_sweep_settle(c->store, &by, NULL, NULL, err);
    if (r >= 0)
        c->settled = ha_store_changes(c->store);
    return r;
}

static int tick(struct ha_coordinator *c, struct ha_error *err)
{
    c->ticked_ms = c->boot_ms;
    return ha_server_tick(c, false, err);
}

static bool prune_is_due(const struct ha_coordinator *c)
{
    return c->wall_ms - c->pruned_ms >= PRUNE_MS || c->wall_ms < c->pruned_ms;
}

static int prune(struct ha_coordinator *c, struct ha_error *err)
{
    c->pruned_ms = c->wall_ms;
    ha_callers_prune(c);
    return ha_store_request_prune(c->store, c->wall_ms, err);
}

static int own_work(struct ha_coordinator *c, bool input_pending, struct ha_error *err)
{
    int r = 0;

    if (c->boot_ms < c->rest_until_ms)
        return 0;
    if (c->keys_changed)
        r = by_itself(c, ha_server_revoke_keys, err);
    if (r >= 0 && !input_pending && c->boot_ms - c->ticked_ms >= TICK_MS)
        r = by_itself(c, tick, err);
    if (r == 0 && prune_is_due(c))
        r = by_itself(c, prune, err);
    if (r == 0 && c->chores)
        r = by_itself(c, ha_chores_work, err);
    if (r == 0 && ha_store_changes(c->store) != c->settled)
        r = by_itself(c, settle, err);
    if (r == 0 && c->cancelled)
        r = by_itself(c, ha_server_revoke, err);
    if (r == 0 && c->failure_seen)
        r = by_itself(c, ha_server_suspect, err);
    if (r == 0 && (c->changed || (c->plan_at_ms != 0 && c->plan_at_ms <= c->wall_ms)))
        r = by_itself(c, ha_server_plan, err);
    return r;
}

/* Nothing of the turn happened: say so to everybody who asked in it. */
static void not_stored(struct ha_coordinator *c, const struct ha_error *why)
{
    struct ha_error err;

    ha_error_set(&err, why->code ? why->code : EIO, "not stored: %s", ha_error_text(why));
    ha_store_rollback(c->store);
    ha_server_refuse_held(c, &err);
    ha_chores_undone(c, c->turn_step, true);
    ha_gangs_undone(c);
    for (int64_t i = 0; i < c->member_count; i++)
        c->members[i]->used = -1;
    for (int64_t i = 0; i < c->asked_count; i++)
        ha_server_hold_error(c, c->asked[i].peer, c->asked[i].request_id, &err);
    c->changed = c->cancelled = true;
    c->settled = -1;
    /* Requests that only read still work while the disk is full. */
    c->rest_until_ms = c->boot_ms + REST_MS;
    if (why->code == ENOSPC)
        c->hooks.disk_full(c->hooks.context);
}

int ha_coordinator_turn_end(struct ha_coordinator *c, bool input_pending, struct ha_error *err)
{
    struct ha_error why = {0};
    int r = own_work(c, input_pending, &why);

    if (r < 0 && !ha_store_broken(c->store)) {
        ha_log_warning("the coordinator's own work is put off: %s", ha_error_text(&why));
        r = 0;
    }
    if (r == 0)
        r = ha_store_commit(c->store, &why);
    if (r < 0) {
        if (ha_store_fatal(c->store) || r == -EBADMSG)
            return ha_error_set(err, why.code, "%s", ha_error_text(&why));
        ha_log_error("%s", ha_error_text(&why));
        not_stored(c, &why);
    } else {
        ha_chores_kept(c);
    }
    ha_server_release_held(c);
    ha_backup_work(c);
    if (c->asked_count > 0)
        c->asked_ms = c->boot_ms;
    c->was_quiet = c->quiet_beats > 0 && c->asked_count == 0;
    c->asked_count = c->quiet_beats = 0;
    c->in_turn = false;
    c->turn_ended_ms = c->boot_ms;
    return 0;
}

bool ha_coordinator_at_rest(const struct ha_coordinator *c)
{
    return ha_coordinator_idle_ms(c) > 0 && c->boot_ms - c->asked_ms >= HA_COORDINATOR_REST_MS;
}

int64_t ha_coordinator_rest_ms(const struct ha_coordinator *c)
{
    return c->idle && c->was_quiet && c->member_count >= CROWD && !c->chores && !c->changed &&
                   !ha_backup_has_work(c)
               ? QUIET_MS
               : 0;
}

int64_t ha_coordinator_idle_ms(const struct ha_coordinator *c)
{
    int64_t idle_ms = c->options.rules.heartbeat_ms / 2;

    if (c->boot_ms < c->rest_until_ms)
        return c->rest_until_ms - c->boot_ms;
    if (c->chores || c->changed || ha_backup_has_work(c))
        return 0;
    if (c->plan_at_ms != 0 && c->plan_at_ms - c->wall_ms < idle_ms)
        idle_ms = c->plan_at_ms - c->wall_ms;
    return idle_ms > 0 ? idle_ms : 1;
}
