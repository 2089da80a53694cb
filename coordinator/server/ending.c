/* ending.c - what becomes of a job when its attempt ends (inside.h) */
#include <errno.h>
#include <inttypes.h>

#include "common/base/buffer.h"
#include "common/base/utf8.h"
#include "coordinator/core/retry.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/job.h"

struct facts {
    struct ha_retry_policy policy;
    struct ha_retry_counts counts;
    struct ha_job_counts cells;
    int64_t sweep;
    enum ha_stage_kind kind;
};

static int read_facts(void *context, const struct ha_job_row *row)
{
    struct facts *facts = context;

    facts->sweep = row->sweep;
    facts->kind = row->kind;
    facts->policy.max_attempts = row->max_attempts;
    facts->policy.wait_when_lost = row->wait_when_lost;
    facts->counts.crashes = row->crashes;
    facts->counts.losses = row->losses;
    return 0;
}

/* A job of several cells whose attempts do not end well: one of them may be why,
 * and the others shall not fail for it. */
static bool splits(const struct facts *facts, const struct ha_retry_decision *decision)
{
    return facts->cells.pending > 1 && decision->verdict != HA_RETRY_HOLD &&
           (decision->verdict == HA_RETRY_FAIL ||
            (decision->counts.crashes > facts->counts.crashes &&
             decision->counts.crashes >= HA_RETRY_SPLIT));
}

static int split_job(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                     const struct ha_retry_decision *decision, const char *reason,
                     struct ha_error *err)
{
    int64_t not_before_ms = decision->delay_ms > 0 ? by->now_ms + decision->delay_ms : 0;
    struct ha_error text;
    char words[HA_ERROR_TEXT_BYTES];

    ha_error_set(&text, EIO, "each cell by itself after %s", reason);
    ha_utf8_copy(words, sizeof words, text.text);
    return ha_store_job_split(c->store, by, job, not_before_ms, words, err);
}

static int set_job(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                   const struct ha_retry_decision *decision, const char *reason,
                   struct ha_error *err)
{
    static const enum ha_job_state states[] = {
        [HA_RETRY_AGAIN] = HA_JOB_READY,
        [HA_RETRY_FAIL] = HA_JOB_FAILED,
        [HA_RETRY_HOLD] = HA_JOB_HELD,
    };
    int64_t not_before_ms = decision->delay_ms > 0 ? by->now_ms + decision->delay_ms : 0;
    int r = ha_store_job_set_counts(c->store, job, decision->counts.crashes,
                                    decision->counts.losses, not_before_ms, err);

    return r < 0 ? r : ha_store_job_set(c->store, by, job, states[decision->verdict], reason, err);
}

/* An attempt whose job is already ready again (it was lost), or over. */
static int end_only(struct ha_coordinator *c, const struct ha_by *by,
                    const struct ha_attempt_row *attempt, int outcome, const char *why,
                    int64_t exit_code, struct ha_error *err)
{
    int r = ha_store_attempt_end(c->store, attempt->job, attempt->epoch, (enum ha_outcome)outcome,
                                 why, exit_code, by->now_ms, err);

    if (r == 0)
        ha_gang_end(c, attempt->job, attempt->epoch, outcome == HA_OUTCOME_LOST);
    return r;
}

int ha_server_end_job(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                      const struct ha_job_counts *cells, struct ha_error *err)
{
    return ha_store_job_set(c->store, by, job, cells->done > 0 ? HA_JOB_DONE : HA_JOB_FAILED, "",
                            err);
}

/* All cells have their outcome already: only the word that the attempt is over
 * was missing. */
static int finish_job(struct ha_coordinator *c, const struct ha_by *by,
                      const struct ha_attempt_row *attempt, int outcome, const char *why,
                      int64_t exit_code, const struct ha_job_counts *cells, struct ha_error *err)
{
    int r = end_only(c, by, attempt, outcome, why, exit_code, err);

    if (r == 0)
        r = ha_server_end_job(c, by, attempt->job, cells, err);
    c->changed = true;
    return r;
}

/* What its end says of the worker; a loss or a stop without progress says nothing. */
static void see_end(struct ha_coordinator *c, const struct ha_attempt_row *attempt,
                    const struct facts *facts, enum ha_outcome outcome, const char *why)
{
    if (outcome == HA_OUTCOME_FAILED || outcome == HA_OUTCOME_REFUSED)
        ha_server_saw_end(c, attempt, facts->sweep, facts->kind, false, why);
    else if (outcome == HA_OUTCOME_STOPPED && attempt->progress)
        ha_server_saw_end(c, attempt, facts->sweep, facts->kind, true, why);
}

int ha_server_end_attempt(struct ha_coordinator *c, const struct ha_by *by,
                          const struct ha_attempt_row *attempt, int outcome, bool back,
                          const char *why, int64_t exit_code, struct ha_error *err)
{
    bool started = attempt->state == HA_ATTEMPT_STATE_RUNNING;
    struct ha_retry_decision decision;
    struct facts facts = {0};
    struct ha_buffer reason;
    char text[HA_ERROR_TEXT_BYTES];
    bool split;
    int r;

    if (attempt->state == HA_ATTEMPT_STATE_LOST || !attempt->newest)
        return end_only(c, by, attempt, outcome, why, exit_code, err);
    r = ha_store_job_cell_counts(c->store, attempt->job, &facts.cells, err);
    if (r == 0 && facts.cells.pending == 0)
        return finish_job(c, by, attempt, outcome, why, exit_code, &facts.cells, err);
    if (r == 0)
        r = ha_store_job_get(c->store, attempt->job, read_facts, &facts, err);
    if (r < 0)
        return r;
    decision = ha_retry_decide(&facts.policy, facts.counts, (enum ha_outcome)outcome, attempt->stop,
                               started, attempt->progress, (uint64_t)attempt->job);
    ha_buffer_init(&reason, 0);
    r = ha_retry_reason(&facts.policy, &decision, (enum ha_outcome)outcome, why, &reason);
    if (r < 0) {
        ha_buffer_clear(&reason);
        return ha_error_set(err, ENOMEM, "no memory for a reason");
    }
    ha_utf8_copy(text, sizeof text, ha_buffer_text(&reason));
    ha_buffer_clear(&reason);
    split = splits(&facts, &decision);
    /* Of a gang over several workers all are needed, and the others gave up. */
    back = back && ha_gang_parts(c, attempt->job, attempt->epoch) <= 1;
    if (back && decision.verdict != HA_RETRY_FAIL && !split)
        r = ha_store_attempt_lose(c->store, attempt->job, attempt->epoch,
                                  decision.counts.crashes > facts.counts.crashes, err);
    else
        r = end_only(c, by, attempt, outcome, why, exit_code, err);
    if (r == 0)
        r = split ? split_job(c, by, attempt->job, &decision, text, err)
                  : set_job(c, by, attempt->job, &decision, text, err);
    if (r == 0)
        see_end(c, attempt, &facts, (enum ha_outcome)outcome, why);
    if (r == 0 && !split && facts.cells.pending > 1)
        r = ha_server_part_held(c, by, facts.sweep, attempt->job, err);
    c->changed = true;
    return r;
}
