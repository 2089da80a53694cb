/* gangs.c - attempts on several workers, from prepare to judge, as the server's gang.c has them
 * (world.h)
 *
 *   a part is ready after a while; all of them: gone, the attempt runs
 *   a part crashes, or its process dies: the others follow, once gone, soon after
 *   the coordinator hears of the first end, or they are late: aborting, and all are to end
 *   all have ended, or it has waited for long enough: core/gang.h says what the end is */
#include <stdlib.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "coordinator/core/gang.h"
#include "tests/sim/world.h"

enum { READY_MS = 120000, ABORT_MS = 60000, FOLLOW_MS = 8000 };

int64_t sim_nodes(const struct sim *s, int32_t job)
{
    const struct ha_fit *fit = sim_fit(s, job);

    return fit->nodes > 1 ? fit->nodes : 1;
}

void sim_gang_begin(struct sim *s, int32_t job, const int32_t *workers, int32_t count)
{
    struct sim_job *j = &s->jobs[job];
    int64_t waited_ms = s->now_ms - j->ready_ms;

    j->gang = ha_calloc(1, (int64_t)sizeof *j->gang + count * (int64_t)sizeof j->gang->parts[0]);
    if (!j->gang)
        sim_fail(s, "no memory for a gang");
    j->gang->count = count;
    for (int32_t i = 0; i < count; i++) {
        /* One in a hundred is late. */
        int64_t ms = (int64_t)sim_random(s, sim_chance(s, 10000) ? 2 * READY_MS : 550);

        j->gang->parts[i].worker = workers[i];
        sim_at(s, s->now_ms + 50 + ms, SIM_RUNS, workers[i], job, j->attempts);
    }
    sim_at(s, s->now_ms + READY_MS, SIM_LATE, -1, job, j->attempts);
    s->counts.gangs++;
    s->counts.gang_answers += j->kind == HA_STAGE_GENERATE;
    s->counts.gang_probes += j->kind == HA_STAGE_PROBE;
    if (waited_ms > s->counts.gang_wait_ms)
        s->counts.gang_wait_ms = waited_ms;
}

static struct sim_part *part_of(struct sim_gang *gang, int32_t worker)
{
    for (int32_t i = 0; i < gang->count; i++)
        if (gang->parts[i].worker == worker)
            return &gang->parts[i];
    return NULL;
}

/* ---- giving up ------------------------------------------------------------------------------- */

/* Those that have not ended do so, and say it when they can. */
static void follow(struct sim *s, int32_t job)
{
    const struct sim_job *j = &s->jobs[job];

    for (int32_t i = 0; i < j->gang->count; i++) {
        const struct sim_part *part = &j->gang->parts[i];

        if (!part->ended && !s->workers[part->worker].dead)
            sim_at(s, s->now_ms + 500 + (int64_t)sim_random(s, FOLLOW_MS), SIM_PART, part->worker,
                   job, j->attempts);
    }
}

static void abort_gang(struct sim *s, int32_t job)
{
    struct sim_gang *gang = s->jobs[job].gang;

    if (gang->aborting)
        return;
    gang->aborting = true;
    follow(s, job);
    sim_at(s, s->now_ms + ABORT_MS, SIM_JUDGED, -1, job, s->jobs[job].attempts);
}

static void judge(struct sim *s, int32_t job)
{
    const struct sim_gang *gang = s->jobs[job].gang;
    struct ha_gang_part *parts = ha_calloc(gang->count, sizeof *parts);
    int64_t *started = ha_calloc(gang->count, sizeof *started);
    bool *ready = ha_calloc(gang->count, sizeof *ready);
    struct ha_gang_view view = {.parts = parts,
                                .part_count = gang->count,
                                .started = started,
                                .ready = ready,
                                .late = gang->late,
                                .time_ms = READY_MS};
    enum ha_outcome outcome;
    struct ha_buffer reason;
    int64_t cause;

    if (!parts || !started || !ready)
        sim_fail(s, "no memory for a gang");
    for (int32_t i = 0; i < gang->count; i++) {
        const struct sim_part *part = &gang->parts[i];

        ready[i] = part->ready;
        parts[i] = (struct ha_gang_part){.worker = s->workers[part->worker].name,
                                         .first_rank = i,
                                         .ranks = 1,
                                         .ended = part->ended,
                                         .outcome = HA_OUTCOME_FAILED,
                                         .followed = part->followed,
                                         .order = part->order,
                                         .reason = part->followed ? "followed" : "crashed"};
    }
    ha_buffer_init(&reason, 0);
    if (ha_gang_judge(&view, &outcome, &cause, &reason) < 0)
        sim_fail(s, "no memory for a gang");
    ha_buffer_clear(&reason);
    free(parts);
    free(started);
    free(ready);
    if (outcome != HA_OUTCOME_FAILED && outcome != HA_OUTCOME_LOST)
        sim_fail(s, "the gang of job %d was given up, and is said to be %s", job,
                 ha_outcome_name(outcome));
    if (gang->crashed != (outcome == HA_OUTCOME_FAILED) && !gang->late)
        sim_fail(s, "the gang of job %d %s, and is said to be %s", job,
                 gang->crashed ? "crashed" : "lost a worker", ha_outcome_name(outcome));
    s->counts.crashed += outcome == HA_OUTCOME_FAILED;
    s->counts.lost += outcome == HA_OUTCOME_LOST;
    sim_end(s, job, outcome, sim_checkpoint_ms(s, s->now_ms), false);
}

/* A part has ended: by itself, or because others had. */
static void end_part(struct sim *s, int32_t job, struct sim_part *part)
{
    struct sim_gang *gang = s->jobs[job].gang;

    if (part->ended)
        return;
    part->ended = true;
    part->order = gang->ends++;
    part->followed = gang->broken || gang->aborting;
    gang->crashed = gang->crashed || !part->followed;
    abort_gang(s, job);
    if (gang->ends == gang->count)
        judge(s, job);
}

/* ---- events ---------------------------------------------------------------------------------- */

void sim_gang_runs(struct sim *s, const struct sim_event *e)
{
    struct sim_job *j = &s->jobs[e->subject];
    struct sim_gang *gang = j->gang;
    struct sim_part *part = part_of(gang, e->worker);

    if (!part || part->ready || part->ended || gang->aborting)
        return;
    part->ready = true;
    if (++gang->ready < gang->count || gang->broken)
        return;
    gang->gone = true;
    j->attempt = HA_ATTEMPT_STATE_RUNNING;
    sim_set_state(s, e->subject, HA_JOB_RUNNING);
    s->changed = true;
    sim_at(s, s->now_ms + sim_run_ms(s, e->subject), SIM_ENDS, j->worker, e->subject, j->attempts);
    if (sim_chance(s, 50000)) {
        int32_t who = gang->parts[sim_random(s, (uint64_t)gang->count)].worker;

        sim_at(s, s->now_ms + (int64_t)sim_random(s, (uint64_t)sim_run_ms(s, e->subject)), SIM_PART,
               who, e->subject, j->attempts);
    }
}

void sim_gang_part(struct sim *s, const struct sim_event *e)
{
    struct sim_gang *gang = s->jobs[e->subject].gang;

    if (sim_heard(s, e) && gang && part_of(gang, e->worker))
        end_part(s, e->subject, part_of(gang, e->worker));
}

void sim_gang_fails(struct sim *s, int32_t job)
{
    end_part(s, job, &s->jobs[job].gang->parts[0]);
}

void sim_gang_breaks(struct sim *s, int32_t job)
{
    struct sim_gang *gang = s->jobs[job].gang;

    if (gang->broken)
        return;
    gang->broken = true;
    if (gang->gone)
        follow(s, job);
}

void sim_gang_late(struct sim *s, const struct sim_event *e)
{
    struct sim_gang *gang = s->jobs[e->subject].gang;

    if (!sim_newest(s, e->subject, e->number) || !gang || gang->gone || gang->aborting)
        return;
    gang->late = true;
    abort_gang(s, e->subject);
}

void sim_gang_judged(struct sim *s, const struct sim_event *e)
{
    const struct sim_gang *gang = s->jobs[e->subject].gang;

    if (sim_newest(s, e->subject, e->number) && gang && gang->aborting)
        judge(s, e->subject);
}
