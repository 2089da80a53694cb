#include "coordinator/core/retry.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/buffer.h"

static const char *const outcome_names[HA_OUTCOMES] = {
    [HA_OUTCOME_DONE] = "done",     [HA_OUTCOME_STOPPED] = "stopped",
    [HA_OUTCOME_FAILED] = "failed", [HA_OUTCOME_REFUSED] = "refused",
    [HA_OUTCOME_LOST] = "lost",     [HA_OUTCOME_REVOKED] = "revoked",
};

const char *ha_outcome_name(enum ha_outcome outcome)
{
    return outcome_names[outcome];
}

bool ha_outcome_parse(const char *name, enum ha_outcome *ret_outcome)
{
    for (int i = 0; i < HA_OUTCOMES; i++) {
        if (strcmp(outcome_names[i], name) == 0) {
            *ret_outcome = (enum ha_outcome)i;
            return true;
        }
    }
    return false;
}

static const char *const stop_names[HA_STOPS] = {
    [HA_STOP_NONE] = "",       [HA_STOP_CELL] = "cell",       [HA_STOP_PAUSE] = "pause",
    [HA_STOP_DRAIN] = "drain", [HA_STOP_PREEMPT] = "preempt", [HA_STOP_LIMIT] = "time_limit",
    [HA_STOP_GAP] = "gap",
};

const char *ha_stop_name(enum ha_stop stop)
{
    return stop_names[stop];
}

bool ha_stop_parse(const char *name, enum ha_stop *ret_stop)
{
    for (int i = 0; i < HA_STOPS; i++) {
        if (strcmp(stop_names[i], name) == 0) {
            *ret_stop = (enum ha_stop)i;
            return true;
        }
    }
    return false;
}

/* SplitMix64's finisher: every bit of x moves every bit of the result. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

int64_t ha_retry_backoff_ms(int64_t count, uint64_t seed)
{
    int64_t delay_ms = HA_RETRY_BASE_MS;

    for (int64_t i = 1; i < count && delay_ms < HA_RETRY_MAX_MS; i++)
        delay_ms *= 2;
    if (delay_ms > HA_RETRY_MAX_MS)
        delay_ms = HA_RETRY_MAX_MS;
    return delay_ms * 3 / 4 +
           (int64_t)(mix(seed ^ mix((uint64_t)count)) % (uint64_t)(delay_ms / 2));
}

static struct ha_retry_decision after_crash(const struct ha_retry_policy *policy,
                                            struct ha_retry_counts counts, uint64_t seed)
{
    struct ha_retry_decision d = {.counts = {.crashes = counts.crashes + 1, .losses = 0}};

    d.verdict = d.counts.crashes >= policy->max_attempts ? HA_RETRY_FAIL : HA_RETRY_AGAIN;
    if (d.verdict == HA_RETRY_AGAIN)
        d.delay_ms = ha_retry_backoff_ms(d.counts.crashes, seed);
    return d;
}

static struct ha_retry_decision after_loss(const struct ha_retry_policy *policy,
                                           struct ha_retry_counts counts, bool started,
                                           bool progress)
{
    struct ha_retry_decision d = {.verdict = HA_RETRY_AGAIN, .counts = counts};

    if (!started)
        return d;
    d.counts.losses = progress ? 0 : counts.losses + 1;
    if (!progress)
        d.counts.crashes++;
    if (policy->wait_when_lost || d.counts.losses >= HA_RETRY_LOSSES)
        d.verdict = HA_RETRY_HOLD;
    else if (d.counts.crashes >= policy->max_attempts)
        d.verdict = HA_RETRY_FAIL;
    return d;
}

static struct ha_retry_decision after_stop(const struct ha_retry_policy *policy,
                                           struct ha_retry_counts counts, enum ha_stop stop,
                                           bool started, bool progress)
{
    struct ha_retry_decision d = {.verdict = HA_RETRY_AGAIN,
                                  .counts = {.crashes = counts.crashes, .losses = 0}};

    if (!started || progress || stop < HA_STOP_DRAIN)
        return d;
    d.counts.crashes++;
    if (d.counts.crashes >= policy->max_attempts)
        d.verdict = HA_RETRY_FAIL;
    return d;
}

struct ha_retry_decision ha_retry_decide(const struct ha_retry_policy *policy,
                                         struct ha_retry_counts counts, enum ha_outcome outcome,
                                         enum ha_stop stop, bool started, bool progress,
                                         uint64_t seed)
{
    struct ha_retry_decision d = {.verdict = HA_RETRY_FAIL, .counts = counts};

    switch (outcome) {
    case HA_OUTCOME_FAILED:
        return after_crash(policy, counts, seed);
    case HA_OUTCOME_LOST:
        return after_loss(policy, counts, started, progress);
    case HA_OUTCOME_STOPPED:
        return after_stop(policy, counts, stop, started, progress);
    default:
        return d;
    }
}

int ha_retry_memory_reason(const char *why, struct ha_buffer *out)
{
    return ha_buffer_printf(out,
                            "memory ran out, which the plan did not foresee: %s; set "
                            "train.memory_limit to less than was there, or ask for more with "
                            "resources.min_gpu_memory or host_memory, then hactl retry",
                            why);
}

int ha_retry_reason(const struct ha_retry_policy *policy, const struct ha_retry_decision *decision,
                    enum ha_outcome outcome, const char *why, struct ha_buffer *out)
{
    static const char *const events[HA_OUTCOMES] = {
        [HA_OUTCOME_DONE] = "done",    [HA_OUTCOME_STOPPED] = "stop",
        [HA_OUTCOME_FAILED] = "crash", [HA_OUTCOME_REFUSED] = "error",
        [HA_OUTCOME_LOST] = "loss",    [HA_OUTCOME_REVOKED] = "cancel",
    };

    if (outcome == HA_OUTCOME_REFUSED)
        return ha_buffer_append_text(out, why);
    if (decision->verdict == HA_RETRY_FAIL)
        return ha_buffer_printf(out, "%" PRId64 " of %" PRId64 " attempts are used up; last %s: %s",
                                decision->counts.crashes, policy->max_attempts, events[outcome],
                                why);
    if (decision->verdict == HA_RETRY_HOLD && decision->counts.losses >= HA_RETRY_LOSSES)
        return ha_buffer_printf(out,
                                "set aside after %" PRId64 " losses in a row; last: %s; give it "
                                "another chance with hactl retry",
                                decision->counts.losses, why);
    if (decision->verdict == HA_RETRY_HOLD)
        return ha_buffer_printf(out,
                                "its worker was lost (%s) and on_worker_lost = \"wait\"; "
                                "start it again with hactl retry",
                                why);
    return ha_buffer_printf(out, "%s: %s", events[outcome], why);
}
