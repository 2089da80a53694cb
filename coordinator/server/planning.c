/* planning.c - from the store to a plan and back: leases and grants, revocations (inside.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "coordinator/core/retry.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/job.h"

enum {
    PLAN_BYTES = 64 << 20,
    PLAN_JOBS = 512,             /* that are weighed */
    PLAN_LEASES = HA_FUSE_CELLS, /* cells that are leased in one turn */
    PLAN_WAITING = 64            /* jobs that may ask others to make room */
};

int64_t ha_server_model_number(const char *digest)
{
    uint8_t hash[HA_SHA256_BYTES];
    int64_t number = 0;

    ha_sha256(digest, strlen(digest), hash);
    for (int i = 0; i < 7; i++)
        number = number << 8 | hash[i];
    return number + 1;
}

/* Attempts on a CPU share its cores; each GPU attempt has a device of its own. */
static int64_t devices_of(const struct ha_member *m)
{
    return strncmp(m->backend, "cpu", 3) == 0 ? 1 : ha_member_slots(m);
}

/* Which of its GPUs an attempt cannot have now.  -ENOMEM. */
static int tell_lacks(struct ha_arena *arena, const struct ha_member *m,
                      struct ha_plan_worker *worker)
{
    const struct ha_wire_heartbeat *beat = m->beat ? &m->beat->body.heartbeat : NULL;
    const char *text = NULL;

    for (int64_t i = 0; beat && i < beat->n_devices; i++) {
        const struct ha_wire_device *device = &beat->devices[i];
        bool aside = strcmp(device->state, "aside") == 0;
        char stamp[HA_CLOCK_STAMP_BYTES], which[40] = "all its GPUs are";

        if (!aside && strcmp(device->state, "held") != 0)
            continue;
        worker->aside += aside;
        worker->held += !aside;
        if (device->index >= 0)
            (void)snprintf(which, sizeof which, "GPU %" PRId64 " is", device->index);
        text = ha_scratch_format(
            arena, "%s%s%s %s%s%s: %s", text ? text : "", text ? "; " : "", which,
            aside ? "set aside" : "held", device->since_ms > 0 ? " since " : "",
            device->since_ms > 0 ? ha_clock_stamp(device->since_ms, stamp) : "", device->reason);
        if (!text)
            return -ENOMEM;
    }
    worker->lacks = text;
    return 0;
}

/* Ranks of a gang talk among GPUs of one kind, or on one machine. */
static int64_t island_of(const struct ha_member *m)
{
    return ha_server_model_number(strncmp(m->backend, "cpu", 3) == 0 ? m->machine : m->backend);
}

static int count_used(struct ha_coordinator *c, struct ha_member *m, struct ha_error *err)
{
    return m->used >= 0 ? 0 : ha_store_attempt_count(c->store, m->id, &m->used, err);
}

int ha_server_plan_workers(struct ha_coordinator *c, struct ha_arena *arena, bool all,
                           struct ha_plan_snapshot *ret_snapshot, struct ha_error *err)
{
    struct ha_plan_worker *workers =
        ha_arena_alloc(arena, (size_t)(c->member_count + 1) * sizeof *workers);
    int64_t count = 0, busy = 0;

    if (!workers)
        return ha_error_set(err, ENOMEM, "no memory for a plan");
    for (int64_t i = 0; i < c->member_count; i++) {
        struct ha_member *m = c->members[i];
        int r;

        busy += m->judge;
        if (m->judge || m->lost)
            continue;
        r = count_used(c, m, err);
        if (r < 0)
            return r;
        busy += m->used;
        if (!all && m->used >= ha_member_slots(m))
            continue;
        workers[count] = (struct ha_plan_worker){
            .id = m->id,
            .name = m->name,
            .liveness = ha_member_liveness(c, m),
            .silent_ms = c->boot_ms - m->heard_ms,
            .connected = m->peer != 0,
            .draining = m->draining || m->drained || m->returns,
            .drained_by = m->drained ? m->drain_why : NULL,
            .slots = ha_member_slots(m),
            .used = m->used,
            .devices = devices_of(m),
            .memory_bytes = m->memory_bytes,
            .island = island_of(m),
            .offer = m->offer,
            .train_speed = ha_speed_of(&m->speed, HA_STAGE_TRAIN),
            .generate_speed = ha_speed_of(&m->speed, HA_STAGE_GENERATE),
        };
        if (all && tell_lacks(arena, m, &workers[count]) < 0)
            return ha_error_set(err, ENOMEM, "no memory for a plan");
        memcpy(workers[count].models, m->models, sizeof m->models);
        count++;
    }
    c->idle = busy == 0;
    *ret_snapshot = (struct ha_plan_snapshot){.workers = workers, .worker_count = count};
    return 0;
}

struct gather {
    struct ha_coordinator *c;
    struct ha_arena *arena;
    /* of the last job, as the next one is mostly of the same: its model and that one's number, its
     * group and that one's */
    char digest[HA_SHA256_HEX_BYTES], fuse_key[HA_SHA256_HEX_BYTES];
    int64_t model, sweep, group;
    bool shares;    /* sharing was read */
    double sharing; /* measured: shared over cost of answering; negative: not known */
    struct ha_plan_job *jobs;
    int64_t count;
};

/* Equal for jobs that may become one; those that ran stay what they are. */
static int64_t group_of(struct gather *g, const struct ha_job_row *row)
{
    const char *text;

    if (!row->fuse_key[0] || row->attempts > 0 || row->fuse == HA_FUSE_NEVER)
        return 0;
    if (g->group != 0 && g->sweep == row->sweep && strcmp(g->fuse_key, row->fuse_key) == 0)
        return g->group;
    text = ha_scratch_format(g->arena, "%" PRId64 " %s", row->sweep, row->fuse_key);
    g->group = text ? ha_server_model_number(text) : 0;
    g->sweep = row->sweep;
    ha_utf8_copy(g->fuse_key, sizeof g->fuse_key, row->fuse_key);
    return g->group;
}

/* What the workers' records say of answering in company. */
static int read_sharing(struct gather *g)
{
    const struct ha_coordinator *c = g->c;
    const struct ha_speed **speeds;

    if (g->shares)
        return 0;
    speeds = ha_arena_alloc(g->arena, (size_t)(c->member_count + 1) * sizeof *speeds);
    if (!speeds)
        return -ENOMEM;
    for (int64_t i = 0; i < c->member_count; i++)
        speeds[i] = &c->members[i]->speed;
    g->sharing = ha_speed_sharing(speeds, c->member_count);
    g->shares = true;
    return 0;
}

static int64_t model_of(struct gather *g, const char *digest)
{
    if (g->model == 0 || strcmp(g->digest, digest) != 0) {
        g->model = ha_server_model_number(digest);
        ha_utf8_copy(g->digest, sizeof g->digest, digest);
    }
    return g->model;
}

static int gather_job(void *context, const struct ha_job_row *row)
{
    struct gather *g = context;
    struct ha_plan_job *job = ha_scratch_grow(g->arena, &g->jobs, &g->count, sizeof *job);
    int64_t group;

    if (!job)
        return -ENOMEM;
    group = group_of(g, row);
    *job = (struct ha_plan_job){
        .id = row->id,
        .state = row->state,
        .kind = row->kind,
        .sweep = row->sweep,
        .priority = row->priority,
        .turn = row->turn,
        .group = group,
        .fuse = row->fuse,
        .grows = group != 0 && row->grows,
        .need = row->need,
        .model = model_of(g, row->model_digest),
        .reason = "",
    };
    if (row->kind != HA_STAGE_GENERATE || group == 0)
        return 0;
    if (read_sharing(g) < 0)
        return -ENOMEM;
    if (g->sharing >= 0)
        job->need.shared = job->need.cost * g->sharing;
    return 0;
}

/* Push the grant of a job that was just leased.  A job whose description cannot
 * be made is set aside and does not stop the others. */
static int push_grant(struct ha_coordinator *c, struct ha_arena *arena, struct ha_member *m,
                      int64_t job, struct ha_epoch epoch, struct ha_error *err)
{
    struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL};
    int r = ha_server_grant(c, arena, job, epoch, m, &message, err);

    return r < 0 ? r : ha_server_hold(c, m->peer, &message, err);
}

static int set_aside(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                     struct ha_epoch epoch, const char *why, struct ha_error *err)
{
    struct ha_job_counts cells = {0};
    int r = ha_store_attempt_end(c->store, job, epoch, HA_OUTCOME_REFUSED, why, 0, by->now_ms, err);

    if (r == 0)
        r = ha_store_job_cell_counts(c->store, job, &cells, err);
    if (r < 0)
        return r;
    ha_gang_end(c, job, epoch, true);
    /* One cell may be why; then it is held by itself. */
    return cells.pending > 1 ? ha_store_job_split(c->store, by, job, 0, why, err)
                             : ha_store_job_set(c->store, by, job, HA_JOB_HELD, why, err);
}

/* The workers of a job of the plan, the attempt's own first. */
struct team {
    struct ha_member *members[HA_PLAN_NODES];
    int64_t ids[HA_PLAN_NODES];
    int64_t count;
};

static int add_worker(struct ha_coordinator *c, struct team *team, int64_t worker,
                      struct ha_error *err)
{
    struct ha_member *m = ha_member_by_id(c, worker);

    if (!m)
        return ha_error_set(err, ENOENT, "a plan names a worker that is gone");
    if (team->count == HA_PLAN_NODES)
        return ha_error_set(err, EINVAL, "a plan names too many workers");
    team->members[team->count] = m;
    team->ids[team->count++] = worker;
    return 0;
}

/* One job of the plan with those that become part of it, and all workers of a gang. */
static int lease(struct ha_coordinator *c, struct ha_arena *arena,
                 const struct ha_plan_assignment *assignment, int64_t parts,
                 const struct ha_plan_job *job, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int64_t id = assignment->job;
    struct ha_error why = {0};
    struct team team;
    struct ha_epoch epoch;
    int r;

    team.count = 0;
    r = add_worker(c, &team, assignment->worker, err);
    for (int64_t i = 1; r == 0 && i < parts; i++)
        r = assignment[i].part > 0 ? add_worker(c, &team, assignment[i].worker, err)
                                   : ha_store_job_join(c->store, &by, id, assignment[i].job, err);
    if (r == 0)
        r = ha_store_attempt_lease(c->store, &by, id, team.ids[0], team.members[0]->instance,
                                   &epoch, err);
    if (r == 0 && ha_fit_ranks(job->fit) > 1)
        r = ha_gang_begin(c, &by, id, epoch, team.ids, team.count,
                          ha_fit_ranks(job->fit) / team.count, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < team.count; i++)
        team.members[i]->used = -1;
    for (int64_t i = 0; r == 0 && i < team.count; i++)
        r = push_grant(c, arena, team.members[i], id, epoch, &why);
    if (r < 0)
        return set_aside(c, &by, id, epoch, ha_error_text(&why), err);
    for (int64_t i = 0; i < team.count; i++)
        ha_member_loads(team.members[i], job->model);
    return 0;
}

static const struct ha_plan_job *find_job(const struct ha_plan_snapshot *snapshot, int64_t job)
{
    int64_t i = 0;

    while (snapshot->jobs[i].id != job)
        i++;
    return &snapshot->jobs[i];
}

static void mark_leased(struct ha_plan_job *jobs, int64_t count, int64_t job)
{
    for (int64_t i = 0; i < count; i++) {
        if (jobs[i].id == job)
            jobs[i].state = HA_JOB_LEASED;
    }
}

static int64_t free_slots(const struct ha_plan_snapshot *snapshot)
{
    int64_t slots = 0;

    for (int64_t w = 0; w < snapshot->worker_count; w++)
        if (ha_plan_takes_work(&snapshot->workers[w]))
            slots += snapshot->workers[w].slots - snapshot->workers[w].used;
    return slots;
}

/* Does something wait that is more urgent than something that runs? */
static int urgent(struct ha_coordinator *c, struct ha_error *err)
{
    int64_t highest = 0, lowest = 0;
    int r =
        c->options.preempt_ms > 0 ? ha_store_attempt_lowest_priority(c->store, &lowest, err) : 0;

    if (r > 0)
        r = ha_store_job_highest_ready(c->store, &highest, err);
    return r <= 0 ? r : lowest < highest;
}

static int lease_all(struct ha_coordinator *c, struct ha_arena *arena,
                     const struct ha_plan_snapshot *snapshot,
                     const struct ha_plan_assignment *assignments, int64_t count,
                     struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0, parts; r == 0 && i < count; i += parts) {
        for (parts = 1; i + parts < count && assignments[i + parts].into == assignments[i].job;)
            parts++;
        r = lease(c, arena, &assignments[i], parts, find_job(snapshot, assignments[i].job), err);
    }
    return r;
}

/* What waits and could be leased, and those that may ask others to make room: no more than there
 * are slots of jobs that stay by themselves, and enough to fill every slot with of others. */
static int gather_jobs(struct ha_coordinator *c, struct gather *gather, int64_t slots, bool room,
                       struct ha_plan_snapshot *snapshot, struct ha_error *err)
{
    int64_t leases = slots < PLAN_LEASES ? slots : PLAN_LEASES, more = room ? PLAN_WAITING : 0;
    int64_t jobs = leases * HA_FUSE_CELLS + more;
    int r = ha_store_job_each_ready(c->store, c->wall_ms, 2 * HA_RETRY_MAX_MS,
                                    jobs < PLAN_JOBS ? jobs : PLAN_JOBS, leases + more, gather_job,
                                    gather, err);

    if (r < 0)
        return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for a plan") : r;
    snapshot->jobs = gather->jobs;
    snapshot->job_count = gather->count;
    return ha_server_plan_sweeps(c, gather->arena, gather->jobs, snapshot, err);
}

/* Does one of the jobs need several workers? */
static bool has_gang(const struct ha_plan_snapshot *snapshot)
{
    for (int64_t i = 0; i < snapshot->job_count; i++)
        if (ha_plan_nodes(&snapshot->jobs[i]) > 1)
            return true;
    return false;
}

/* Busy ones too: a gang waits for them. */
static int see_all_workers(struct ha_coordinator *c, struct ha_arena *arena,
                           struct ha_plan_snapshot *snapshot, struct ha_error *err)
{
    struct ha_plan_snapshot all;
    int r = ha_server_plan_workers(c, arena, true, &all, err);

    if (r == 0) {
        snapshot->workers = all.workers;
        snapshot->worker_count = all.worker_count;
    }
    return r;
}

static int plan(struct ha_coordinator *c, struct ha_arena *arena, bool *ret_more,
                int64_t *ret_wait_ms, struct ha_error *err)
{
    struct ha_plan_assignment assignments[PLAN_LEASES + HA_PLAN_NODES];
    struct ha_plan_snapshot snapshot;
    struct gather gather = {.c = c, .arena = arena};
    int64_t slots = 0, count = 0;
    int room, r = ha_server_plan_workers(c, arena, false, &snapshot, err);

    if (r == 0)
        slots = free_slots(&snapshot);
    room = r < 0 ? r : urgent(c, err);
    if (room < 0)
        return room;
    if (room > 0 && c->boot_ms < c->room_at_ms) {
        *ret_wait_ms = c->room_at_ms - c->boot_ms;
        room = 0;
    }
    if (slots == 0 && room == 0)
        return 0;
    r = gather_jobs(c, &gather, slots, room > 0, &snapshot, err);
    if (r == 0 && has_gang(&snapshot))
        r = see_all_workers(c, arena, &snapshot, err);
    if (r < 0)
        return r;
    if (slots > 0)
        count = ha_plan_make(&snapshot, c->wall_ms, assignments, PLAN_LEASES + HA_PLAN_NODES);
    if (count < 0)
        return ha_error_set(err, ENOMEM, "no memory for a plan");
    r = lease_all(c, arena, &snapshot, assignments, count, err);
    for (int64_t i = 0; i < count; i++)
        mark_leased(gather.jobs, gather.count, assignments[i].job);
    if (r == 0 && room > 0)
        r = ha_server_make_room(c, arena, &snapshot, ret_wait_ms, err);
    *ret_more = count > 0; /* then there may be more to give */
    c->idle = c->idle && count == 0;
    return r;
}

int ha_server_plan(struct ha_coordinator *c, struct ha_error *err)
{
    struct ha_arena arena;
    int64_t next_ms = 0, wait_ms = 0;
    bool more = false;
    int r;

    ha_arena_init(&arena, PLAN_BYTES);
    r = ha_server_stop_held(c, err);
    r = r < 0 ? r : plan(c, &arena, &more, &wait_ms, err);
    ha_arena_clear(&arena);
    if (r == 0) {
        c->changed = more;
        r = ha_store_job_next_wait(c->store, c->wall_ms, &next_ms, err);
        c->plan_at_ms = r > 0 ? next_ms : 0;
        if (wait_ms > 0 && (c->plan_at_ms == 0 || c->wall_ms + wait_ms < c->plan_at_ms))
            c->plan_at_ms = c->wall_ms + wait_ms;
    }
    return r < 0 ? r : 0;
}

/* Push "stop this attempt" to its worker, if it is there. */
static int push_revoke(struct ha_coordinator *c, const struct ha_attempt_row *row,
                       const char *reason, struct ha_error *err)
{
    const struct ha_member *m = ha_member_by_id(c, row->worker);
    struct ha_wire_message message = {
        .protocol = HA_WIRE_PROTOCOL,
        .kind = HA_WIRE_REVOKE,
        .body.revoke = {.job = (uint64_t)row->job,
                        .epoch = {(uint64_t)row->epoch.generation, (uint64_t)row->epoch.number},
                        .reason = reason}};

    return !m || m->peer == 0 ? 0 : ha_server_hold(c, m->peer, &message, err);
}

struct stop_word {
    struct ha_coordinator *c;
    const struct ha_attempt_row *row;
    struct ha_error *err;
};

static int tell(void *context, const struct ha_job_row *job)
{
    struct stop_word *word = context;
    int r = push_revoke(word->c, word->row, job->stop_reason, word->err);

    return r < 0 ? r : 1;
}

int ha_server_ask_to_stop(struct ha_coordinator *c, const struct ha_attempt_row *row,
                          struct ha_error *err)
{
    struct stop_word word = {.c = c, .row = row, .err = err};
    int r = ha_store_job_get(c->store, row->job, tell, &word, err);

    return r < 0 ? r : 0;
}

int ha_server_stop_attempt(struct ha_coordinator *c, const struct ha_by *by,
                           const struct ha_attempt_row *row, enum ha_stop stop, const char *reason,
                           struct ha_error *err)
{
    int r = ha_store_job_set_stop(c->store, by, row->job, stop, reason, err);

    return r < 0 ? r : push_revoke(c, row, reason, err);
}

static int revoke(struct ha_coordinator *c, const struct ha_attempt_row *row, struct ha_error *err)
{
    struct ha_member *m = ha_member_by_id(c, row->worker);
    int r = ha_store_attempt_end(c->store, row->job, row->epoch, HA_OUTCOME_REVOKED, "cancelled", 0,
                                 c->wall_ms, err);

    if (m)
        m->used = -1;
    ha_gang_end(c, row->job, row->epoch, false);
    return r < 0 ? r : push_revoke(c, row, "cancelled", err);
}

int ha_server_revoke(struct ha_coordinator *c, struct ha_error *err)
{
    struct ha_attempt_row row;
    int64_t job = 0;
    int r;

    while ((r = ha_store_attempt_next_stop(c->store, job, &row, err)) == 1) {
        job = row.job;
        r = ha_server_ask_to_stop(c, &row, err);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    while ((r = ha_store_attempt_next_revoked(c->store, &row, err)) == 1) {
        r = revoke(c, &row, err);
        if (r < 0)
            return r;
        c->changed = true;
    }
    if (r == 0)
        c->cancelled = false;
    return r;
}
