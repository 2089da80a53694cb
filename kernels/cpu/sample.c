/* sample.c - from rows of logits to the next tokens; the arithmetic is in kernels/draw.h */
#include "kernels/cpu/sample.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/draw.h"
#include "kernels/sample.h"

/* Scratch of one draw; (vocab) each. */
struct room {
    struct ha_cpu_candidate *candidates; /* by id */
    struct ha_cpu_candidate *sorted;
    float *values, *copy;
};

int64_t ha_cpu_sample_bytes(int64_t vocab)
{
    return vocab * 2 * (int64_t)(sizeof(struct ha_cpu_candidate) + sizeof(float));
}

static struct room divide(void *scratch, int64_t vocab)
{
    struct ha_cpu_candidate *candidates = scratch;
    float *values = (float *)(void *)(candidates + 2 * vocab);

    return (struct room){candidates, candidates + vocab, values, values + vocab};
}

/* Penalty, and no end before its time. */
static void prepare(const struct ha_draw *draw, const float *logits, int64_t vocab, float *values)
{
    memcpy(values, logits, (size_t)vocab * sizeof(*values));
    for (int64_t word = 0; draw->penalty != 1.0f && word < (vocab + 31) / 32; word++)
        for (uint32_t bits = draw->seen[word]; bits; bits &= bits - 1) {
            float *value = &values[32 * word + __builtin_ctz(bits)];

            *value = ha_draw_penalised(*value, draw->penalty);
        }
    if (draw->n_new < draw->min_new)
        for (int32_t i = 0; i < draw->n_eos; i++)
            if (draw->eos[i] >= 0 && draw->eos[i] < vocab)
                values[draw->eos[i]] = -INFINITY;
}

/* The first largest id; -1 when a logit is no number, or none is above -infinity. */
static int32_t first_largest(const float *values, int64_t vocab)
{
    int32_t best = -1;
    float largest = -INFINITY;

    for (int64_t id = 0; id < vocab; id++) {
        if (isnan(values[id]) || values[id] == INFINITY)
            return -1;
        if (values[id] > largest) {
            largest = values[id];
            best = (int32_t)id;
        }
    }
    return best;
}

/* The k-th largest of n values, 1 <= k <= n; the values are reordered. */
static float kth_largest(float *values, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1, at = k - 1;

    while (low < high) {
        float pivot = values[low + (high - low) / 2];
        int64_t i = low, j = high;

        while (i <= j) {
            while (values[i] > pivot)
                i++;
            while (values[j] < pivot)
                j--;
            if (i <= j) {
                float value = values[i];

                values[i++] = values[j];
                values[j--] = value;
            }
        }
        if (at <= j)
            high = j;
        else if (at >= i)
            low = i;
        else
            break;
    }
    return values[at];
}

/* Ascending by logit, then by id: the order of a stable ascending sort. */
static int compare(const void *a, const void *b)
{
    const struct ha_cpu_candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit < y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static uint64_t total_of(const struct ha_cpu_candidate *candidates, int64_t n)
{
    uint64_t total = 0;

    for (int64_t i = 0; i < n; i++)
        total += candidates[i].weight;
    return total;
}

/* Drop the least likely candidates as long as they are not too much.  Those so light that all n of
 * that weight would not be go without being sorted: they come first in the order. */
static int64_t cut_tail(const struct room *room, int64_t n, double top_p)
{
    struct ha_cpu_candidate *candidates = room->candidates, best = candidates[0], cut;
    uint64_t total = total_of(candidates, n), dropped = 0, light = 0;
    int64_t n_sorted = 0, first = 0, kept = 0;

    for (int64_t i = 1; i < n; i++)
        if (compare(&candidates[i], &best) > 0)
            best = candidates[i];
    for (uint64_t bit = (uint64_t)1 << HA_DRAW_UNIT_BITS; bit > 0; bit /= 2)
        if (!ha_draw_too_much((light | bit) * (uint64_t)n, total, top_p))
            light |= bit;
    for (int64_t i = 0; i < n; i++) {
        if (candidates[i].weight <= light && candidates[i].id != best.id)
            dropped += candidates[i].weight;
        else
            room->sorted[n_sorted++] = candidates[i];
    }
    qsort(room->sorted, (size_t)n_sorted, sizeof(*room->sorted), compare);
    for (; first < n_sorted - 1; first++) {
        dropped += room->sorted[first].weight;
        if (ha_draw_too_much(dropped, total, top_p))
            break;
    }
    cut = room->sorted[first];
    for (int64_t i = 0; i < n; i++)
        if (compare(&candidates[i], &cut) >= 0)
            candidates[kept++] = candidates[i];
    return kept;
}

/* Temperature, top_k and top_p: the number of candidates that are left. */
static int64_t shape(const struct ha_draw *draw, const struct room *room, int64_t vocab,
                     int32_t best)
{
    float lowest = -INFINITY, *values = room->values;
    int64_t n = 0;

    if (draw->temperature != 1.0f)
        for (int64_t id = 0; id < vocab; id++)
            values[id] /= draw->temperature;
    if (draw->top_k > 0 && draw->top_k < vocab) {
        memcpy(room->copy, values, (size_t)vocab * sizeof(float));
        lowest = kth_largest(room->copy, vocab, draw->top_k);
    }
    for (int64_t id = 0; id < vocab; id++)
        if (values[id] >= lowest && values[id] > -INFINITY)
            room->candidates[n++] = (struct ha_cpu_candidate){
                ha_draw_weight(values[id] - values[best]), values[id], (int32_t)id};
    return draw->top_p < 1.0 ? cut_tail(room, n, draw->top_p) : n;
}

int64_t ha_cpu_sample_candidates(const struct ha_draw *draw, const float *logits, int64_t vocab,
                                 void *scratch, const struct ha_cpu_candidate **ret_candidates)
{
    struct room room = divide(scratch, vocab);
    int32_t best;

    prepare(draw, logits, vocab, room.values);
    best = first_largest(room.values, vocab);
    *ret_candidates = room.candidates;
    if (best < 0 || (draw->temperature > 0.0f && !isfinite(room.values[best] / draw->temperature)))
        return 0;
    if (draw->temperature > 0.0f)
        return shape(draw, &room, vocab, best);
    room.candidates[0] = (struct ha_cpu_candidate){1, room.values[best], best};
    return 1;
}

/* The first candidate whose cumulative weight exceeds the threshold. */
static int32_t draw_one(const struct ha_draw *draw, const struct ha_cpu_candidate *candidates,
                        int64_t n)
{
    uint64_t sum = 0, threshold = ha_draw_threshold(draw->seed, draw->item, (uint32_t)draw->n_new,
                                                    total_of(candidates, n));

    for (int64_t i = 0; i < n - 1; i++) {
        sum += candidates[i].weight;
        if (sum > threshold)
            return candidates[i].id;
    }
    return candidates[n - 1].id;
}

static bool is_eos(const struct ha_draw *draw, int32_t token)
{
    for (int32_t i = 0; i < draw->n_eos; i++)
        if (draw->eos[i] == token)
            return true;
    return false;
}

/* The token becomes a part of the sequence, or its end. */
static void take(const struct ha_sample *s, int64_t i, int32_t token)
{
    struct ha_draw *draw = &s->draws[i];

    if (is_eos(draw, token)) {
        draw->state = HA_DRAW_EOS;
        return;
    }
    s->drawn[i * s->drawn_stride + draw->n_drawn++] = token;
    if (draw->seen)
        draw->seen[token / 32] |= (uint32_t)1 << token % 32;
    if (++draw->n_new >= draw->max_new) {
        draw->state = HA_DRAW_LENGTH;
        return;
    }
    if (s->ids)
        s->ids[i] = token;
    if (s->positions)
        s->positions[i]++;
}

static void do_row(const void *context, int64_t i, void *scratch)
{
    const struct ha_sample *s = context;
    struct ha_draw *draw = &s->draws[i];
    const struct ha_cpu_candidate *candidates;
    int64_t n;

    if (draw->state != HA_DRAW_RUNNING || draw->n_drawn >= s->drawn_stride)
        return;
    n = ha_cpu_sample_candidates(draw, s->logits + (s->row ? s->row[i] : i) * s->vocab, s->vocab,
                                 scratch, &candidates);
    if (n > 0)
        take(s, i, draw_one(draw, candidates, n));
    else
        draw->state = HA_DRAW_DIVERGED;
}

int ha_cpu_op_sample(struct ha_backend *backend, const struct ha_sample *sample,
                     struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int rc = ha_sample_check(sample, err);

    if (rc < 0 || sample->n_rows == 0)
        return rc;
    rc = ha_cpu_scratch(cpu, 0, (size_t)ha_cpu_sample_bytes(sample->vocab), err);
    if (rc == 0)
        ha_cpu_for_tiles(cpu, sample->n_rows,
                         HA_CPU_ELEMENT_WORK * (double)sample->n_rows * (double)sample->vocab,
                         do_row, sample);
    return rc;
}
