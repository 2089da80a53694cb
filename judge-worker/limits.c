#include "judge-worker/limits.h"

enum {
    START_WIDTH = 8,
    BURST_MS = 15000,
    BACKOFF_FIRST_MS = 1000,
    BACKOFF_MAX_MS = 60000,
    MINUTE_MS = 60000
};

static const double cut_factor = 0.7;

static void bucket_init(struct ha_judge_bucket *bucket, int64_t per_minute, bool per_second)
{
    bucket->per_ms = (double)per_minute / MINUTE_MS;
    bucket->capacity = (double)per_minute / 60 * (per_second ? 1 : 2);
    if (per_minute > 0 && bucket->capacity < 1)
        bucket->capacity = 1;
    bucket->level = bucket->capacity;
}

void ha_judge_limits_init(struct ha_judge_limits *limits, int64_t concurrency,
                          int64_t requests_per_minute, int64_t tokens_per_minute, bool per_second,
                          int64_t now_ms)
{
    *limits = (struct ha_judge_limits){.ceiling = concurrency,
                                       .width = concurrency < START_WIDTH ? (double)concurrency
                                                                          : START_WIDTH,
                                       .slow_start = true,
                                       .burst_end = now_ms,
                                       .hold_until = now_ms,
                                       .streak_until = now_ms,
                                       .filled_at = now_ms};
    bucket_init(&limits->requests, requests_per_minute, per_second);
    bucket_init(&limits->tokens, tokens_per_minute, per_second);
}

static void bucket_fill(struct ha_judge_bucket *bucket, int64_t ms)
{
    bucket->level += bucket->per_ms * (double)ms;
    if (bucket->level > bucket->capacity)
        bucket->level = bucket->capacity;
}

/* Milliseconds until `need` may be taken; a need above the capacity is met by a full bucket. */
static int64_t bucket_wait(const struct ha_judge_bucket *bucket, double need)
{
    if (bucket->per_ms <= 0)
        return 0;
    if (need > bucket->capacity)
        need = bucket->capacity;
    if (bucket->level >= need)
        return 0;
    return (int64_t)((need - bucket->level) / bucket->per_ms) + 1;
}

static void bucket_take(struct ha_judge_bucket *bucket, double amount)
{
    if (bucket->per_ms > 0)
        bucket->level -= amount;
}

int64_t ha_judge_limits_admit(struct ha_judge_limits *limits, int64_t tokens, int64_t now_ms)
{
    int64_t wait = limits->hold_until - now_ms, more;

    bucket_fill(&limits->requests, now_ms - limits->filled_at);
    bucket_fill(&limits->tokens, now_ms - limits->filled_at);
    limits->filled_at = now_ms;
    if ((double)limits->in_flight + 1 > limits->width)
        return INT64_MAX;
    more = bucket_wait(&limits->requests, 1);
    if (more > wait)
        wait = more;
    more = bucket_wait(&limits->tokens, (double)tokens);
    if (more > wait)
        wait = more;
    if (wait > 0)
        return wait;
    bucket_take(&limits->requests, 1);
    bucket_take(&limits->tokens, (double)tokens);
    limits->in_flight++;
    return 0;
}

void ha_judge_limits_return(struct ha_judge_limits *limits, int64_t tokens)
{
    limits->in_flight--;
    bucket_take(&limits->requests, -1);
    bucket_take(&limits->tokens, -(double)tokens);
}

static void hold(struct ha_judge_limits *limits, int64_t until)
{
    if (until > limits->hold_until)
        limits->hold_until = until;
}

/* Full jitter: somewhere in [0, backoff), but at least a tenth of it. */
static int64_t backoff_ms(int64_t streak, double random)
{
    int64_t backoff = BACKOFF_FIRST_MS;

    for (int64_t i = 1; i < streak && backoff < BACKOFF_MAX_MS; i++)
        backoff *= 2;
    if (backoff > BACKOFF_MAX_MS)
        backoff = BACKOFF_MAX_MS;
    return backoff / 10 + (int64_t)((double)backoff * 0.9 * random);
}

/* One cut per burst; the burst lasts as long as the server asks to wait. */
static void cut(struct ha_judge_limits *limits, int64_t wait, int64_t now_ms)
{
    if (now_ms < limits->burst_end)
        return;
    limits->slow_start = false;
    limits->width = limits->width * cut_factor < 1 ? 1 : limits->width * cut_factor;
    limits->burst_end = now_ms + (wait > BURST_MS ? wait : BURST_MS);
}

static void grow(struct ha_judge_limits *limits, int64_t now_ms)
{
    limits->streak = 0;
    if (now_ms < limits->burst_end)
        return;
    limits->width += limits->slow_start ? 1 : 1 / limits->width;
    if (limits->width > (double)limits->ceiling)
        limits->width = (double)limits->ceiling;
}

int64_t ha_judge_limits_end(struct ha_judge_limits *limits, const struct ha_judge_ending *ending,
                            int64_t now_ms)
{
    int64_t wait;

    limits->in_flight--;
    if (ending->tokens_used >= 0)
        bucket_take(&limits->tokens, (double)(ending->tokens_used - ending->tokens_reserved));
    if (ending->class == HA_JUDGE_CLASS_REPLY || ending->class == HA_JUDGE_CLASS_ITEM) {
        grow(limits, now_ms);
        return 0;
    }
    if (now_ms >= limits->streak_until)
        limits->streak++;
    wait = backoff_ms(limits->streak, ending->random);
    if (ending->retry_after_ms > wait)
        wait = ending->retry_after_ms;
    if (now_ms >= limits->streak_until)
        limits->streak_until = now_ms + wait;
    switch (ending->class) {
    case HA_JUDGE_CLASS_RPM:
    case HA_JUDGE_CLASS_TPM:
        cut(limits, wait, now_ms);
        hold(limits, now_ms + wait);
        break;
    case HA_JUDGE_CLASS_RAMP:
        limits->slow_start = false;
        hold(limits, now_ms + wait);
        break;
    case HA_JUDGE_CLASS_NOT_SENT:
    case HA_JUDGE_CLASS_CONFIG:
    case HA_JUDGE_CLASS_WALLET:
        limits->width = 1;
        limits->slow_start = true;
        hold(limits, now_ms + wait);
        break;
    default:
        if (ending->retry_after_ms > 0)
            hold(limits, now_ms + ending->retry_after_ms);
        break;
    }
    return wait;
}
