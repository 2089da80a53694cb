/* plan_why.c - why a job, or the items of a judge, stand where they stand (plan.h) */
#include <inttypes.h>

#include "common/base/buffer.h"
#include "coordinator/core/plan_inside.h"

enum { NAMED = 3 }; /* workers that are named with what they lack */

static const struct {
    const char *name, *mend;
} kinds[HA_WHYS] = {
    [HA_WHY_NONE] = {"", ""},
    [HA_WHY_BUSY] = {"busy now", ""},
    [HA_WHY_NEVER] = {"can never run here",
                      "start a worker that offers it (worker.toml), or change [resources] with "
                      "hactl set SWEEP resources.KEY=VALUE"},
    [HA_WHY_DEVICES] = {"GPUs are set aside",
                        "mend what the reason names, then hactl workers undrain WORKER; hactl "
                        "workers shows each GPU"},
    [HA_WHY_NOBODY] = {"nobody works", "start ha-worker, or see hactl workers"},
    [HA_WHY_JUDGES] = {"nobody works", "start ha-judge-worker, or see hactl workers"},
    [HA_WHY_HELD] = {"held by you", "hactl resume SWEEP"},
    [HA_WHY_TRAINING] = {"waiting for its training", ""},
    [HA_WHY_PROBE] = {"waiting for its probe", ""},
    [HA_WHY_ANSWERS] = {"waiting for answers", ""},
    [HA_WHY_UNSEEN] = {"not looked at yet", ""},
    [HA_WHY_RETRY] = {"waiting to try again", ""},
    [HA_WHY_PERSON] = {"needs a person", "see hactl log SWEEP, then hactl retry SWEEP --cell CELL"},
    [HA_WHY_STOPPING] = {"stopping", ""},
    [HA_WHY_EVALUATOR] = {"the evaluator cannot be asked",
                          "see its address, key and limits, and the budget (hactl set)"},
};

const char *ha_why_name(enum ha_why why)
{
    return kinds[why].name;
}

const char *ha_why_mend(enum ha_why why)
{
    return kinds[why].mend;
}

/* What the workers of a snapshot are, to one job. */
struct sight {
    int64_t slots, used, devices; /* of those that fit and take work */
    int64_t others, own;          /* of these, have another model loaded; this one */
    int64_t unfit, draining, silent;
    int64_t sick; /* that would fit and have a place, but for their GPUs */
    const struct ha_plan_worker *quiet, *drained, *ill;
};

/* Whether it would fit if all its GPUs could be had. */
static bool would_fit(const struct ha_plan_worker *worker, const struct ha_fit *need)
{
    struct ha_fit whole = worker->offer;

    whole.gpus += worker->aside + worker->held;
    return worker->lacks && ha_fit(need, &whole);
}

static void look(const struct ha_plan_snapshot *s, const struct ha_plan_job *job,
                 struct sight *sight)
{
    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (ha_plan_takes_work(worker) && would_fit(worker, job->fit) &&
            (worker->slots == 0 || !ha_fit(job->fit, &worker->offer))) {
            sight->sick++;
            /* What nobody has to mend passes by itself. */
            if (!sight->ill || sight->ill->aside == 0)
                sight->ill = worker;
        } else if (ha_plan_takes_work(worker) && !ha_fit(job->fit, &worker->offer)) {
            sight->unfit++;
        } else if (ha_plan_takes_work(worker)) {
            bool own = job->model != 0 && ha_plan_load_ms(worker, job->model) == 0;

            sight->own += own;
            sight->others += !own && job->model != 0 && ha_plan_loaded(worker) != 0;
            sight->slots += worker->slots;
            sight->used += worker->used;
            sight->devices += ha_plan_free_devices(worker);
        } else if (worker->liveness != HA_LOST && worker->draining) {
            sight->draining++;
            sight->drained = worker->drained_by ? worker : sight->drained;
        } else if (worker->liveness != HA_LOST) {
            sight->silent++;
            sight->quiet = worker;
        }
    }
}

static int why_unfit(const struct ha_plan_snapshot *s, const struct ha_plan_job *job,
                     const struct sight *sight, struct ha_buffer *out)
{
    int64_t named = 0;
    int r = ha_buffer_append_text(out, "no worker that takes work fits: ");

    for (int64_t w = 0; r == 0 && named < NAMED && w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (!ha_plan_takes_work(worker))
            continue;
        r = ha_buffer_printf(out, "%s%s ", named++ > 0 ? ", " : "", worker->name);
        if (r == 0)
            r = ha_fit_lack(job->fit, &worker->offer, out);
    }
    if (r == 0 && sight->unfit > named)
        r = ha_buffer_printf(out, " and %" PRId64 " more", sight->unfit - named);
    return r;
}

static int why_sick(const struct sight *sight, struct ha_buffer *out)
{
    int r = ha_buffer_printf(out, "worker %s has not the GPUs for it now: %s", sight->ill->name,
                             sight->ill->lacks);

    if (r == 0 && sight->sick > 1)
        r = ha_buffer_printf(out, "; and %" PRId64 " more workers", sight->sick - 1);
    return r;
}

static int why_nobody(const struct sight *sight, struct ha_buffer *out)
{
    if (sight->silent == 1)
        return ha_buffer_printf(out, "worker %s has been silent for %" PRId64 " s",
                                sight->quiet->name, sight->quiet->silent_ms / 1000);
    if (sight->silent > 1)
        return ha_buffer_printf(out, "all %" PRId64 " workers have been silent for a while",
                                sight->silent);
    if (sight->drained)
        return ha_buffer_printf(out, "%sworker %s is drained by %s",
                                sight->draining == 1 ? "the only " : "no worker takes work: ",
                                sight->drained->name, sight->drained->drained_by);
    if (sight->draining > 0)
        return ha_buffer_append_text(out, sight->draining == 1 ? "the only worker is draining"
                                                               : "every worker is draining");
    return ha_buffer_append_text(out, "no worker is connected");
}

static int why_busy(const struct sight *sight, struct ha_buffer *out)
{
    int r = sight->slots == 1
                ? ha_buffer_append_text(out, "the only slot is busy")
                : ha_buffer_printf(out, "all %" PRId64 " slots are busy", sight->slots);

    if (r == 0 && sight->own == 0 && sight->others > 0)
        r = ha_buffer_append_text(out, "; jobs of its sweep whose model is loaded go first");
    return r;
}

/* Of a job that needs several workers at once. */
static int why_gang(const struct ha_plan_snapshot *s, const struct ha_plan_job *job,
                    struct ha_buffer *out, enum ha_why *ret_why)
{
    int64_t nodes = ha_plan_nodes(job), seats = 0, available = 0, start_ms;
    int r = ha_plan_gang_look(s, job, &seats, &available, &start_ms);

    if (r < 0)
        return r;
    if (seats < nodes) {
        *ret_why = HA_WHY_NEVER;
        return ha_buffer_printf(out,
                                "it needs %" PRId64
                                " workers at once (resources.nodes), of GPUs of "
                                "one kind, or CPUs of one machine; at most %" PRId64 " fit",
                                nodes, seats);
    }
    *ret_why = available < nodes ? HA_WHY_BUSY : HA_WHY_UNSEEN;
    if (available >= nodes)
        return ha_buffer_append_text(out, "about to start");
    return ha_buffer_printf(out,
                            "it needs %" PRId64 " workers at once (resources.nodes); of %" PRId64
                            " that fit %" PRId64 " have a free slot, kept for the first such job",
                            nodes, seats, available);
}

static int why_no_worker(const struct ha_plan_snapshot *s, const struct ha_plan_job *job,
                         struct ha_buffer *out, enum ha_why *ret_why)
{
    struct sight sight = {0};

    look(s, job, &sight);
    if (ha_plan_nodes(job) > 1 && sight.slots > 0)
        return why_gang(s, job, out, ret_why);
    if (sight.slots > sight.used) {
        *ret_why = HA_WHY_UNSEEN;
        if (job->grows && sight.devices == 0)
            return ha_buffer_append_text(out, "waiting for other cells of its model, to answer "
                                              "together with them");
        return ha_buffer_append_text(out, "about to start");
    }
    if (sight.slots > 0) {
        *ret_why = HA_WHY_BUSY;
        return why_busy(&sight, out);
    }
    if (sight.sick > 0) {
        *ret_why = sight.ill->aside > 0 ? HA_WHY_DEVICES : HA_WHY_BUSY;
        return why_sick(&sight, out);
    }
    *ret_why = sight.unfit > 0 ? HA_WHY_NEVER : HA_WHY_NOBODY;
    return sight.unfit > 0 ? why_unfit(s, job, &sight, out) : why_nobody(&sight, out);
}

static int why_state(const struct ha_plan_job *job, struct ha_buffer *out, enum ha_why *ret_why)
{
    switch (job->state) {
    case HA_JOB_WAITING:
        *ret_why = job->kind == HA_STAGE_GENERATE ? HA_WHY_TRAINING : HA_WHY_PROBE;
        return ha_buffer_printf(out, "waiting for %s",
                                job->waits_for ? job->waits_for : "its turn");
    case HA_JOB_LEASED:
    case HA_JOB_RUNNING:
        if (job->stopping && job->stopping[0]) {
            *ret_why = HA_WHY_STOPPING;
            return ha_buffer_printf(out, "stopping at a checkpoint: %s", job->stopping);
        }
        if (job->gathers && job->gathers[0])
            return ha_buffer_append_text(out, job->gathers);
        return job->state == HA_JOB_RUNNING ? 0 : ha_buffer_append_text(out, "granted, starting");
    case HA_JOB_DONE:
        return 0;
    case HA_JOB_HELD:
        *ret_why = HA_WHY_PERSON;
        return ha_buffer_printf(out, "held: %s", job->reason);
    default:
        *ret_why = job->state == HA_JOB_ASIDE ? HA_WHY_PERSON : HA_WHY_NONE;
        return ha_buffer_append_text(out, job->reason);
    }
}

int ha_plan_why(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                int64_t now_ms, struct ha_buffer *out, enum ha_why *ret_why)
{
    *ret_why = HA_WHY_NONE;
    if (job->state != HA_JOB_READY)
        return why_state(job, out, ret_why);
    if (job->held) {
        *ret_why = HA_WHY_HELD;
        return ha_buffer_printf(out, "held by %s", job->held);
    }
    if (job->not_before_ms > now_ms) {
        *ret_why = HA_WHY_RETRY;
        return ha_buffer_printf(out, "retry in %" PRId64 " s after %s",
                                (job->not_before_ms - now_ms + 999) / 1000, job->reason);
    }
    if (job->expanding) {
        *ret_why = HA_WHY_UNSEEN;
        return ha_buffer_append_text(out, "its grid is still being expanded");
    }
    return why_no_worker(snapshot, job, out, ret_why);
}

int ha_plan_why_judging(const struct ha_plan_judging *j, struct ha_buffer *out,
                        enum ha_why *ret_why)
{
    int64_t open = j->total - j->scored - j->failed;

    *ret_why = HA_WHY_NONE;
    if (j->answers_complete && open <= 0)
        return 0;
    if (j->held) {
        *ret_why = HA_WHY_HELD;
        return ha_buffer_printf(out, "held by %s", j->held);
    }
    *ret_why = HA_WHY_EVALUATOR;
    if (j->trouble[0] && j->ready + j->leased > 0)
        return ha_buffer_printf(out, "the evaluator cannot be asked now: %s", j->trouble);
    if (j->leased > 0) {
        *ret_why = HA_WHY_NONE;
        return 0;
    }
    if (j->ready > 0 && j->stop[0])
        return ha_buffer_append_text(out, j->stop);
    *ret_why = HA_WHY_JUDGES;
    if (j->ready > 0 && j->judges == 0)
        return ha_buffer_append_text(out, "no judge worker is connected");
    *ret_why = HA_WHY_BUSY;
    if (j->ready > 0)
        return ha_buffer_printf(out, "%" PRId64 " answers wait for a judge worker", j->ready);
    *ret_why = HA_WHY_ANSWERS;
    if (j->blocked > 0)
        return ha_buffer_append_text(
            out, "waiting until every cell of the model has answered the same prompts");
    return ha_buffer_printf(out, "waiting for answers%s%s", j->answers_why[0] ? ": " : "",
                            j->answers_why);
}
