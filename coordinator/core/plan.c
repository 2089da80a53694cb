#include "coordinator/core/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"

/* What stands in the way of a ready job, before any worker is looked at. */
enum gate { GATE_OPEN, GATE_STATE, GATE_PAUSED, GATE_BACKOFF };

static enum gate job_gate(const struct ha_plan_job *job, int64_t now_ms)
{
    if (job->state != HA_JOB_READY)
        return GATE_STATE;
    if (job->paused)
        return GATE_PAUSED;
    return job->not_before_ms > now_ms ? GATE_BACKOFF : GATE_OPEN;
}

static bool takes_work(const struct ha_plan_worker *worker)
{
    return worker->connected && worker->liveness == HA_ALIVE && !worker->draining;
}

static bool is_warm(const struct ha_plan_worker *worker, int64_t model)
{
    for (int i = 0; i < HA_PLAN_WARM; i++) {
        if (worker->warm[i] == model && model != 0)
            return true;
    }
    return false;
}

/* The best worker with a free slot, or -1.  used[worker_count] is counted here
 * because assignments of this plan take slots too. */
static int64_t choose(const struct ha_plan_snapshot *s, const int64_t *used, int64_t model)
{
    int64_t best = -1, best_free = 0;
    bool best_warm = false;

    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];
        int64_t free_slots = worker->slots - used[w];
        bool warm = is_warm(worker, model);

        if (!takes_work(worker) || free_slots <= 0)
            continue;
        if (best < 0 || (warm && !best_warm) || (warm == best_warm && free_slots > best_free)) {
            best = w;
            best_free = free_slots;
            best_warm = warm;
        }
    }
    return best;
}

int ha_plan_order(const struct ha_plan_job *a, const struct ha_plan_job *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

int64_t ha_plan_make(const struct ha_plan_snapshot *snapshot, int64_t now_ms,
                     struct ha_plan_assignment *assignments, int64_t limit)
{
    int64_t *used = ha_calloc(snapshot->worker_count, sizeof *used);
    int64_t count = 0;

    if (!used)
        return -ENOMEM;
    for (int64_t w = 0; w < snapshot->worker_count; w++)
        used[w] = snapshot->workers[w].used;
    for (int64_t j = 0; j < snapshot->job_count && count < limit; j++) {
        const struct ha_plan_job *job = &snapshot->jobs[j];
        int64_t w;

        if (job_gate(job, now_ms) != GATE_OPEN)
            continue;
        w = choose(snapshot, used, job->model);
        if (w < 0)
            break; /* one kind of job: nobody is free for the next one either */
        used[w]++;
        assignments[count++] =
            (struct ha_plan_assignment){.job = job->id, .worker = snapshot->workers[w].id};
    }
    free(used);
    return count;
}

static int why_no_worker(const struct ha_plan_snapshot *s, struct ha_buffer *out)
{
    int64_t slots = 0, used = 0, draining = 0, silent = 0;
    const struct ha_plan_worker *quiet = NULL;

    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (takes_work(worker)) {
            slots += worker->slots;
            used += worker->used;
        } else if (worker->liveness != HA_LOST && worker->draining) {
            draining++;
        } else if (worker->liveness != HA_LOST) {
            silent++;
            quiet = worker;
        }
    }
    if (slots > used)
        return ha_buffer_append_text(out, "about to start");
    if (slots > 0 && slots == 1)
        return ha_buffer_append_text(out, "the only slot is busy");
    if (slots > 0)
        return ha_buffer_printf(out, "all %" PRId64 " slots are busy", slots);
    if (silent == 1)
        return ha_buffer_printf(out, "worker %s has been silent for %" PRId64 " s", quiet->name,
                                quiet->silent_ms / 1000);
    if (silent > 1)
        return ha_buffer_printf(out, "all %" PRId64 " workers have been silent for a while",
                                silent);
    if (draining > 0)
        return ha_buffer_append_text(out, draining == 1 ? "the only worker is draining"
                                                        : "every worker is draining");
    return ha_buffer_append_text(out, "no worker is connected");
}

static int why_state(const struct ha_plan_job *job, struct ha_buffer *out)
{
    switch (job->state) {
    case HA_JOB_WAITING:
        return ha_buffer_printf(out, "waiting for %s",
                                job->waits_for ? job->waits_for : "its turn");
    case HA_JOB_LEASED:
        return ha_buffer_append_text(out, "granted, starting");
    case HA_JOB_RUNNING:
    case HA_JOB_DONE:
        return 0;
    case HA_JOB_HELD:
        return ha_buffer_printf(out, "held: %s", job->reason);
    default:
        return ha_buffer_append_text(out, job->reason);
    }
}

int ha_plan_why(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                int64_t now_ms, struct ha_buffer *out)
{
    switch (job_gate(job, now_ms)) {
    case GATE_STATE:
        return why_state(job, out);
    case GATE_PAUSED:
        return ha_buffer_append_text(out, "the sweep is paused");
    case GATE_BACKOFF:
        return ha_buffer_printf(out, "retry in %" PRId64 " s after %s",
                                (job->not_before_ms - now_ms + 999) / 1000, job->reason);
    default:
        return why_no_worker(snapshot, out);
    }
}

int ha_plan_why_judging(const struct ha_plan_judging *j, struct ha_buffer *out)
{
    int64_t open = j->total - j->scored - j->failed;

    if (j->answers_complete && open <= 0)
        return 0;
    if (j->paused)
        return ha_buffer_append_text(out, "the sweep is paused");
    if (j->trouble[0] && j->ready + j->leased > 0)
        return ha_buffer_printf(out, "the evaluator cannot be asked now: %s", j->trouble);
    if (j->leased > 0)
        return 0;
    if (j->ready > 0 && j->stop[0])
        return ha_buffer_append_text(out, j->stop);
    if (j->ready > 0 && j->judges == 0)
        return ha_buffer_append_text(out, "no judge worker is connected");
    if (j->ready > 0)
        return ha_buffer_printf(out, "%" PRId64 " answers wait for a judge worker", j->ready);
    if (j->blocked > 0)
        return ha_buffer_append_text(
            out, "waiting until every cell of the model has answered the same prompts");
    return ha_buffer_printf(out, "waiting for answers%s%s", j->answers_why[0] ? ": " : "",
                            j->answers_why);
}
