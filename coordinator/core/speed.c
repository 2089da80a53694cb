#include "coordinator/core/speed.h"

#include <math.h>

/* What a record weighs beside the next one. */
static const double FADE = 0.9;

/* Spread of 1 / cells below which records say nothing about sharing: those of 4 and 5 cells have
 * 0.0006. */
static const double SPREAD = 0.001;

/* A queue that costs several times a variant's own work is not believed. */
static const double MOST_SHARED = 4;

static int place_of(enum ha_stage_kind kind)
{
    return kind == HA_STAGE_TRAIN ? 0 : kind == HA_STAGE_GENERATE ? 1 : -1;
}

static bool positive(double value)
{
    return isfinite(value) && value > 0;
}

static void add_sharing(struct ha_speed *speed, const struct ha_speed_record *record)
{
    double x, y = record->seconds / record->flops_plain;

    if (!positive(y) || record->cells_in_job < 1)
        return;
    x = 1 / (double)record->cells_in_job;
    speed->n = speed->n * FADE + 1;
    speed->x = speed->x * FADE + x;
    speed->y = speed->y * FADE + y;
    speed->xx = speed->xx * FADE + x * x;
    speed->xy = speed->xy * FADE + x * y;
}

void ha_speed_add(struct ha_speed *speed, const struct ha_speed_record *record)
{
    int place = place_of(record->kind);

    if (place < 0 || !positive(record->flops) || !positive(record->seconds))
        return;
    speed->flops[place] = speed->flops[place] * FADE + record->flops;
    speed->seconds[place] = speed->seconds[place] * FADE + record->seconds;
    if (record->kind == HA_STAGE_GENERATE)
        add_sharing(speed, record);
}

double ha_speed_of(const struct ha_speed *speed, enum ha_stage_kind kind)
{
    int place = kind == HA_STAGE_GENERATE;

    if (!(speed->seconds[place] > 0))
        place = !place;
    return speed->seconds[place] > 0 ? speed->flops[place] / speed->seconds[place] : 0;
}

bool ha_speed_fill(double *speeds, int64_t count)
{
    double sum = 0;
    int64_t known = 0;

    for (int64_t i = 0; i < count; i++) {
        sum += speeds[i];
        known += speeds[i] > 0;
    }
    if (known == 0)
        return false;
    for (int64_t i = 0; i < count; i++)
        if (!(speeds[i] > 0))
            speeds[i] = sum / (double)known;
    return true;
}

/* y = cost + shared * x, by least squares; shared over cost. */
static bool fit(const struct ha_speed *speed, double *ret_ratio)
{
    double spread, slope, rest;

    if (speed->n < 1)
        return false;
    spread = speed->xx / speed->n - speed->x / speed->n * speed->x / speed->n;
    if (!(spread > SPREAD))
        return false;
    slope = (speed->xy / speed->n - speed->x / speed->n * speed->y / speed->n) / spread;
    rest = speed->y / speed->n - slope * speed->x / speed->n;
    if (slope <= 0)
        *ret_ratio = 0;
    else
        *ret_ratio = rest * MOST_SHARED > slope ? slope / rest : MOST_SHARED;
    return true;
}

double ha_speed_sharing(const struct ha_speed *const *speeds, int64_t count)
{
    double sum = 0, weight = 0;

    for (int64_t i = 0; i < count; i++) {
        double ratio;

        if (!fit(speeds[i], &ratio))
            continue;
        sum += ratio * speeds[i]->n;
        weight += speeds[i]->n;
    }
    return weight > 0 ? sum / weight : -1;
}
