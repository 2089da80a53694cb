#include "coordinator/hactl/progress.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/hactl/fetch.h"

enum { KIND_PROBE, KIND_TRAIN, KIND_GENERATE, KIND_JUDGE, KINDS };

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

struct ha_progress ha_progress_of(const struct ha_status *status)
{
    struct ha_progress progress = {.remaining_ms = -1};
    double time[KINDS] = {0}, work[KINDS] = {0}, left[KINDS] = {0}, remaining = 0, sum = 0;
    bool known = false;

    for (int64_t i = 0; i < status->n_cells; i++) {
        for (int64_t k = 0; k < status->cells[i]->n_stages; k++) {
            const struct ha_wire_stage_row *stage = &status->cells[i]->stages[k];
            double fraction = ha_stage_fraction(stage);
            double ms = worked_ms(stage, status->head->now_ms);
            int kind = kind_of(stage);

            progress.stages++;
            progress.final += ha_stage_final(stage);
            progress.complete += ha_stage_complete(stage);
            progress.failed += strcmp(stage->state, "failed") == 0;
            progress.running += strcmp(stage->state, "running") == 0;
            sum += ha_stage_final(stage) ? 1 : fraction;
            if (ms > 0 && fraction > 0) {
                time[kind] += ms;
                work[kind] += fraction;
            }
            if (!ha_stage_final(stage))
                left[kind] += 1 - fraction;
            if (kind == KIND_GENERATE) {
                progress.answers += stage->done;
                progress.answers_total += stage->total;
            } else if (kind == KIND_JUDGE) {
                progress.scores += stage->done;
                progress.scores_total += stage->total;
            }
        }
    }
    progress.fraction = progress.stages > 0 ? sum / (double)progress.stages : 0;
    for (int kind = 0; kind < KINDS; kind++) {
        if (left[kind] > 0 && work[kind] <= 0)
            progress.at_least = true;
        else if (left[kind] > 0)
            remaining += left[kind] * time[kind] / work[kind];
        known = known || work[kind] > 0;
    }
    /* Nothing left of what was measured says nothing about the rest. */
    if (known && (remaining > 0 || !progress.at_least))
        progress.remaining_ms =
            (int64_t)(remaining / (double)(progress.running > 0 ? progress.running : 1));
    return progress;
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
