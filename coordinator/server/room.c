/* room.c - what sweeps need and have, and attempts that make room for others (inside.h) */
#include <errno.h>
#include <inttypes.h>

#include "common/base/utf8.h"
#include "coordinator/core/preempt.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/sweep.h"

enum { STOPS = 64 /* in one plan */, ROOM_MS = 1000 /* between two looks at all that runs */ };

/* ---- needs and shares ------------------------------------------------------------------- */

struct needs {
    struct ha_arena *arena;
    struct ha_fit fit;
    bool any;
};

static int read_need(void *context, const struct ha_sweep_row *row)
{
    struct needs *needs = context;

    needs->fit = row->need;
    needs->fit.labels = ha_scratch_text(needs->arena, row->need.labels);
    needs->any = row->need.labels[0] || row->need.cpus > 0 || row->need.memory_bytes > 0 ||
                 row->need.gpus > 0 || row->need.gpu_memory_bytes > 0;
    return needs->fit.labels ? 1 : -ENOMEM;
}

/* What the jobs of a sweep need, whatever they do: all of them use all GPUs.  NULL: nothing
 * special. */
static int read_fit(struct ha_coordinator *c, struct ha_arena *arena, int64_t sweep,
                    const struct ha_fit **ret_fit, struct ha_error *err)
{
    struct needs needs = {.arena = arena};
    int r = ha_store_sweep_each(c->store, sweep, NULL, read_need, &needs, err);

    *ret_fit = NULL;
    if (r < 0 || !needs.any)
        return r;
    *ret_fit = ha_scratch_copy(arena, &needs.fit, sizeof needs.fit);
    return *ret_fit ? 0 : -ENOMEM;
}

/* Jobs come sweep by sweep. */
int ha_server_plan_sweeps(struct ha_coordinator *c, struct ha_arena *arena,
                          struct ha_plan_job *jobs, struct ha_plan_snapshot *snapshot,
                          struct ha_error *err)
{
    struct ha_plan_share *shares = NULL;
    const struct ha_fit *fit = NULL;
    int r = 0;

    for (int64_t j = 0; r >= 0 && j < snapshot->job_count; j++) {
        if (j == 0 || jobs[j].sweep != jobs[j - 1].sweep) {
            struct ha_plan_share *share =
                ha_scratch_grow(arena, &shares, &snapshot->share_count, sizeof *share);

            if (!share)
                return ha_error_set(err, ENOMEM, "no memory for a plan");
            *share = (struct ha_plan_share){.sweep = jobs[j].sweep};
            r = ha_store_attempt_count_sweep(c->store, share->sweep, &share->used, err);
            if (r >= 0)
                r = read_fit(c, arena, share->sweep, &fit, err);
        }
        jobs[j].fit = fit;
    }
    snapshot->shares = shares;
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for a plan") : r < 0 ? r : 0;
}

/* ---- preemption -------------------------------------------------------------------------- */

struct listing {
    struct ha_coordinator *c;
    struct ha_arena *arena;
    struct ha_preempt_running *running;
    struct ha_attempt_row *rows; /* beside running */
    int64_t count, row_count;
};

/* The workers of the further parts, where the attempt is a gang's. */
static int list_others(const struct listing *list, const struct ha_attempt_row *row,
                       struct ha_preempt_running *running)
{
    const struct ha_gang *gang = NULL;
    int64_t *others;

    for (int64_t i = 0; !gang && i < list->c->gang_count; i++)
        if (list->c->gangs[i]->job == row->job &&
            ha_epoch_equal(list->c->gangs[i]->epoch, row->epoch))
            gang = list->c->gangs[i];
    if (!gang || gang->part_count <= 1)
        return 0;
    others = ha_arena_alloc(list->arena, (size_t)gang->part_count * sizeof *others);
    if (!others)
        return -ENOMEM;
    for (int64_t i = 1; i < gang->part_count; i++)
        others[i - 1] = gang->parts[i].worker;
    running->others = others;
    running->other_count = gang->part_count - 1;
    return 0;
}

static int list_running(void *context, const struct ha_attempt_row *row, int64_t priority,
                        int64_t started_ms)
{
    struct listing *list = context;
    struct ha_preempt_running *running =
        ha_scratch_grow(list->arena, &list->running, &list->count, sizeof *running);
    struct ha_attempt_row *copy =
        ha_scratch_grow(list->arena, &list->rows, &list->row_count, sizeof *copy);

    if (!running || !copy)
        return -ENOMEM;
    *copy = *row;
    *running = (struct ha_preempt_running){.job = row->job,
                                           .worker = row->worker,
                                           .priority = priority,
                                           .ran_ms = list->c->wall_ms - started_ms,
                                           .stopping = row->stops};
    return list_others(list, row, running);
}

/* The highest priority of what waits; false: nothing does. */
static bool waits(const struct ha_plan_snapshot *snapshot, int64_t now_ms, int64_t *ret_priority)
{
    bool any = false;

    for (int64_t j = 0; j < snapshot->job_count; j++) {
        const struct ha_plan_job *job = &snapshot->jobs[j];

        if (!ha_plan_may_start(job, now_ms) || (any && job->priority <= *ret_priority))
            continue;
        *ret_priority = job->priority;
        any = true;
    }
    return any;
}

static int stop(struct ha_coordinator *c, const struct ha_attempt_row *row, int64_t job,
                struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct ha_error text;
    char why[HA_ERROR_TEXT_BYTES];

    ha_error_set(&text, EINTR, "job %" PRId64 " of a sweep with higher priority needs the place",
                 job);
    ha_utf8_copy(why, sizeof why, text.text);
    return ha_server_stop_attempt(c, &by, row, HA_STOP_PREEMPT, why, err);
}

int ha_server_make_room(struct ha_coordinator *c, struct ha_arena *arena,
                        const struct ha_plan_snapshot *before, int64_t *ret_wait_ms,
                        struct ha_error *err)
{
    struct listing list = {.c = c, .arena = arena};
    struct ha_preempt_stop stops[STOPS];
    struct ha_plan_snapshot now;
    struct ha_preempt preempt;
    int64_t priority = 0, lowest = 0, count;
    int r;

    *ret_wait_ms = 0;
    if (c->options.preempt_ms <= 0 || !waits(before, c->wall_ms, &priority))
        return 0;
    r = ha_store_attempt_lowest_priority(c->store, &lowest, err);
    if (r <= 0 || lowest >= priority)
        return r < 0 ? r : 0;
    c->room_at_ms = c->boot_ms + ROOM_MS;
    r = ha_server_plan_workers(c, arena, true, &now, err);
    if (r == 0)
        r = ha_store_attempt_each_running(c->store, list_running, &list, err);
    if (r < 0)
        return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for a plan") : r;
    now.jobs = before->jobs;
    now.job_count = before->job_count;
    preempt = (struct ha_preempt){.snapshot = &now,
                                  .running = list.running,
                                  .running_count = list.count,
                                  .min_run_ms = c->options.preempt_ms,
                                  .now_ms = c->wall_ms};
    count = ha_preempt_choose(&preempt, stops, STOPS, ret_wait_ms);
    if (count < 0)
        return ha_error_set(err, ENOMEM, "no memory for a plan");
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = stop(c, &list.rows[stops[i].victim], stops[i].job, err);
    return r;
}
