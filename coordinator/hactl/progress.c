#include "coordinator/hactl/progress.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/hactl/fetch.h"

enum { KIND_PROBE, KIND_TRAIN, KIND_GENERATE, KIND_JUDGE };

_Static_assert(KIND_JUDGE + 1 == HA_PROGRESS_KINDS, "a sum for each kind");

bool ha_stage_complete(const struct ha_wire_stage_row *stage)
{
    return strcmp(stage->state, "done") == 0 || strcmp(stage->state, "reused") == 0;
}

bool ha_stage_final(const struct ha_wire_stage_row *stage)
{
    return ha_stage_complete(stage) || strcmp(stage->state, "failed") == 0 ||
           strcmp(stage->state, "cancelled") == 0;
}

double ha_stage_fraction(const struct ha_wire_stage_row *stage)
{
    double fraction;

    if (ha_stage_complete(stage))
        return 1;
    if (stage->total <= 0)
        return 0;
    fraction = (double)(stage->done + stage->failed) / (double)stage->total;
    return fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
}

static int kind_of(const struct ha_wire_stage_row *stage)
{
    if (strcmp(stage->stage, "probe") == 0)
        return KIND_PROBE;
    if (strcmp(stage->stage, "train") == 0)
        return KIND_TRAIN;
    return strcmp(stage->stage, "generate") == 0 ? KIND_GENERATE : KIND_JUDGE;
}

/* Milliseconds that a stage has worked so far; 0 when that is not known. */
static double worked_ms(const struct ha_wire_stage_row *stage, int64_t now_ms)
{
    int64_t end = stage->finished_ms > 0 ? stage->finished_ms : now_ms;

    if (stage->started_ms <= 0 || end <= stage->started_ms || strcmp(stage->state, "reused") == 0)
        return 0;
    return (double)(end - stage->started_ms);
}

int64_t ha_stage_remaining_ms(const struct ha_wire_stage_row *stage, int64_t now_ms)
{
    double fraction = ha_stage_fraction(stage), ms = worked_ms(stage, now_ms);

    if (ms <= 0 || fraction <= 0)
        return -1;
    return (int64_t)(ms * (1 - fraction) / fraction);
}

static void add_stage(struct ha_progress_sums *sums, const struct ha_wire_stage_row *stage,
                      int64_t now_ms)
{
    double fraction = ha_stage_fraction(stage), ms = worked_ms(stage, now_ms);
    bool complete = ha_stage_complete(stage), final = complete || ha_stage_final(stage);
    struct ha_progress *counts = &sums->counts;
    int kind = kind_of(stage);

    counts->stages++;
    counts->final += final;
    counts->complete += complete;
    counts->failed += final && !complete && strcmp(stage->state, "failed") == 0;
    counts->running += !final && strcmp(stage->state, "running") == 0;
    sums->parts += final ? 1 : fraction;
    if (ms > 0 && fraction > 0) {
        sums->time[kind] += ms;
        sums->work[kind] += fraction;
    }
    if (!final)
        sums->left[kind] += 1 - fraction;
    if (kind == KIND_GENERATE) {
        counts->answers += stage->done;
        counts->answers_total += stage->total;
    } else if (kind == KIND_JUDGE) {
        counts->scores += stage->done;
        counts->scores_total += stage->total;
    }
}

void ha_progress_add(struct ha_progress_sums *sums, const struct ha_wire_cell_row *cell,
                     int64_t now_ms)
{
    for (int64_t i = 0; i < cell->n_stages; i++)
        add_stage(sums, &cell->stages[i], now_ms);
}

struct ha_progress ha_progress_end(const struct ha_progress_sums *sums)
{
    struct ha_progress progress = sums->counts;
    double remaining = 0;
    bool known = false;

    progress.remaining_ms = -1;
    progress.fraction = progress.stages > 0 ? sums->parts / (double)progress.stages : 0;
    for (int kind = 0; kind < HA_PROGRESS_KINDS; kind++) {
        if (sums->left[kind] > 0 && sums->work[kind] <= 0)
            progress.at_least = true;
        else if (sums->left[kind] > 0)
            remaining += sums->left[kind] * sums->time[kind] / sums->work[kind];
        known = known || sums->work[kind] > 0;
    }
    /* Nothing left of what was measured says nothing about the rest. */
    if (known && (remaining > 0 || !progress.at_least))
        progress.remaining_ms =
            (int64_t)(remaining / (double)(progress.running > 0 ? progress.running : 1));
    return progress;
}

struct ha_progress ha_progress_of(const struct ha_status *status)
{
    struct ha_progress_sums sums = {0};

    for (int64_t i = 0; i < status->n_cells; i++)
        ha_progress_add(&sums, status->cells[i], status->head->now_ms);
    return ha_progress_end(&sums);
}

const char *ha_duration_text(int64_t ms, char text[HA_DURATION_BYTES])
{
    int64_t s = (ms + 500) / 1000;

    if (ms < 0)
        (void)snprintf(text, HA_DURATION_BYTES, "-");
    else if (s < 60)
        (void)snprintf(text, HA_DURATION_BYTES, "%lld s", (long long)s);
    else if (s < 3600)
        (void)snprintf(text, HA_DURATION_BYTES, "%lld min %02lld s", (long long)(s / 60),
                       (long long)(s % 60));
    else
        (void)snprintf(text, HA_DURATION_BYTES, "%lld h %02lld min", (long long)(s / 3600),
                       (long long)(s / 60 % 60));
    return text;
}
