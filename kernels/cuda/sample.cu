/* sample.cu - from rows of logits to the next tokens, by searching and without sorting
 *
 * A block does one row.  The k-th largest logit, and the one at which top_p cuts, are found by
 * their keys (kernels/draw.h), three bits at a time from the top: in each pass the logits whose
 * key begins as found so far are counted, or their weights added up, by the next three bits.
 * The draw then adds up weights in the order of ids, a run of them for each warp.  All sums are
 * of whole numbers, so that their order changes nothing. */
#include <limits.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/draw.h"
#include "kernels/ops.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 512;
constexpr int WARPS = BLOCK / WARP;
constexpr int DIGIT = 3, BINS = 1 << DIGIT;

struct shared_room {
    uint64_t bins[WARPS][BINS];
    uint64_t sums[WARPS], ties[WARPS];
    uint64_t below; /* of what was found: the sum of all smaller keys */
    uint32_t key;
    float top[WARPS];
    int best[WARPS], bad[WARPS];
    int token;
};

/* A row, its rules and what was found of it. */
struct row_of {
    const float *logits;
    int vocab;
    const ha_draw *draw;
    bool no_end;   /* end tokens may not be drawn yet */
    float divisor; /* temperature; 1 while it is not to count */
};

__device__ __forceinline__ bool is_eos(const ha_draw &draw, int id)
{
    for (int i = 0; i < draw.n_eos; i++)
        if (draw.eos[i] == id)
            return true;
    return false;
}

/* A logit after the settings that come before top_k. */
__device__ __forceinline__ float value_of(const row_of &r, int id)
{
    float z = r.logits[id];

    if (r.draw->penalty != 1.0f && r.draw->seen[id / 32] >> id % 32 & 1)
        z = ha_draw_penalised(z, r.draw->penalty);
    if (r.no_end && is_eos(*r.draw, id))
        z = -INFINITY;
    return r.divisor != 1.0f ? z / r.divisor : z;
}

/* The first largest id and its logit; -1 where one is no number, or none is above -infinity. */
__device__ __forceinline__ int first_largest(const row_of &r, shared_room &room, float *ret_top)
{
    float top = -INFINITY, largest = -INFINITY;
    int best = INT_MAX, bad = 0;

    for (int id = (int)threadIdx.x; id < r.vocab; id += BLOCK) {
        float z = value_of(r, id);

        if (!(z < INFINITY))
            bad = 1;
        else if (z > top) {
            top = z;
            best = id;
        }
    }
#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, top, bits);
        int id = __shfl_xor_sync(ALL_LANES, best, bits);

        bad |= __shfl_xor_sync(ALL_LANES, bad, bits);
        if (other > top || (other == top && id < best)) {
            top = other;
            best = id;
        }
    }
    if (threadIdx.x % WARP == 0) {
        room.top[threadIdx.x / WARP] = top;
        room.best[threadIdx.x / WARP] = best;
        room.bad[threadIdx.x / WARP] = bad;
    }
    __syncthreads();
    best = INT_MAX;
    for (int i = 0; i < WARPS; i++) {
        bad |= room.bad[i];
        if (room.top[i] > largest || (room.top[i] == largest && room.best[i] < best)) {
            largest = room.top[i];
            best = room.best[i];
        }
    }
    *ret_top = largest;
    return bad || largest == -INFINITY ? -1 : best;
}

/* Go down one digit: measure(id, &key) is what an id adds, too_much(sum) says whether a sum of
 * the smallest keys has gone beyond the one that is sought; where none does, the largest key is. */
template <typename Measure, typename TooMuch>
__device__ __forceinline__ void search(const row_of &r, shared_room &room, Measure measure,
                                       TooMuch too_much)
{
    uint32_t prefix = 0;
    uint64_t below = 0;

    for (int shift = 30; shift >= 0; shift -= DIGIT) {
        uint64_t bins[BINS] = {0};

        for (int id = (int)threadIdx.x; id < r.vocab; id += BLOCK) {
            float z = value_of(r, id);
            uint32_t key = ha_draw_key(z);

            /* The keys have two bits above the first digit's place and none above those. */
            if (shift == 30 || key >> (shift + DIGIT) == prefix) {
                uint64_t one = measure(z);
                int digit = (int)(key >> shift & (BINS - 1));

#pragma unroll
                for (int b = 0; b < BINS; b++)
                    bins[b] += digit == b ? one : 0;
            }
        }
#pragma unroll
        for (int b = 0; b < BINS; b++)
            bins[b] = warp_sum(bins[b]);
        if (threadIdx.x % WARP == 0)
#pragma unroll
            for (int b = 0; b < BINS; b++)
                room.bins[threadIdx.x / WARP][b] = bins[b];
        __syncthreads();
        if (threadIdx.x == 0) {
            uint64_t before = below;
            int found = 0;

            for (int b = 0; b < BINS; b++) {
                uint64_t sum = 0;

                for (int w = 0; w < WARPS; w++)
                    sum += room.bins[w][b];
                if (sum == 0)
                    continue;
                found = b;
                below = before;
                before += sum;
                if (too_much(before))
                    break;
            }
            room.key = prefix << (shift == 30 ? 2 : DIGIT) | (uint32_t)found;
            room.below = below;
        }
        __syncthreads();
        prefix = room.key;
        below = room.below;
    }
}

/* What may be drawn: keys above `cut`, and of those equal to it all but the first `dropped`. */
struct kept {
    uint32_t cut;
    uint64_t dropped;
    uint64_t tie; /* the weight of a logit at the cut */
};

/* Where top_k and top_p cut. */
__device__ __forceinline__ kept find_cut(const row_of &r, shared_room &room, float top)
{
    kept k = {1, 0, 0};
    const ha_draw &draw = *r.draw;
    float lowest = -INFINITY;
    uint64_t total = 0, ties = 0;

    if (draw.top_k > 0 && draw.top_k < r.vocab) {
        const uint64_t rest = (uint64_t)(r.vocab - draw.top_k);

        search(
            r, room, [](float) { return (uint64_t)1; }, [=](uint64_t n) { return n > rest; });
        lowest = ha_draw_value(room.key);
        k.cut = room.key;
    }
    if (!(draw.top_p < 1.0))
        return k;
    auto weight = [=](float z) {
        return z >= lowest && z > -INFINITY ? ha_draw_weight(z - top) : (uint64_t)0;
    };
    for (int id = (int)threadIdx.x; id < r.vocab; id += BLOCK)
        total += weight(value_of(r, id));
    total = block_sum<BLOCK>(total, room.sums);
    search(r, room, weight, [=](uint64_t sum) { return ha_draw_too_much(sum, total, draw.top_p); });
    k.cut = room.key;
    k.tie = weight(ha_draw_value(room.key));
    for (int id = (int)threadIdx.x; id < r.vocab; id += BLOCK)
        ties += ha_draw_key(value_of(r, id)) == k.cut;
    ties = block_sum<BLOCK>(ties, room.ties);
    /* Equal ones go by their ids; the last of the best stays. */
    for (uint64_t low = 0, high = ties - 1; low < high;) {
        uint64_t middle = high - (high - low) / 2;

        if (ha_draw_too_much(room.below + middle * k.tie, total, draw.top_p))
            high = middle - 1;
        else
            low = middle;
        k.dropped = low;
    }
    return k;
}

/* What ids [begin, end) have of kept keys above the cut, and of those at it; all lanes alike. */
__device__ __forceinline__ uint64_t weigh(const row_of &r, const kept &k, float top, int begin,
                                          int end, uint64_t *ret_ties)
{
    uint64_t sum = 0, ties = 0;

    for (int id = begin + (int)threadIdx.x % WARP; id < end; id += WARP) {
        float z = value_of(r, id);
        uint32_t key = ha_draw_key(z);

        ties += key == k.cut;
        if (key > k.cut)
            sum += ha_draw_weight(z - top);
    }
    *ret_ties = warp_sum(ties);
    return warp_sum(sum);
}

__device__ __forceinline__ uint64_t kept_ties(const kept &k, uint64_t ties)
{
    return ties > k.dropped ? ties - k.dropped : 0;
}

/* The first id of [begin, end) at which the sum of weights exceeds the threshold; -1: none. */
__device__ __forceinline__ int first_above(const row_of &r, const kept &k, float top, int begin,
                                           int end, uint64_t sum, uint64_t ties, uint64_t threshold)
{
    const int lane = (int)threadIdx.x % WARP;

    for (int base = begin; base < end; base += WARP) {
        const int id = base + lane;
        const float z = id < end ? value_of(r, id) : -INFINITY;
        const uint32_t key = ha_draw_key(z);
        const unsigned equal = __ballot_sync(ALL_LANES, id < end && key == k.cut);
        const uint64_t rank = ties + (uint64_t)__popc(equal & ((1u << lane) - 1));
        uint64_t weight = 0;
        unsigned above;

        if (id < end && (key > k.cut || (key == k.cut && rank >= k.dropped)))
            weight = ha_draw_weight(z - top);
#pragma unroll
        for (int step = 1; step < WARP; step *= 2) {
            uint64_t other = __shfl_sync(ALL_LANES, weight, lane >= step ? lane - step : lane);

            weight += lane >= step ? other : 0;
        }
        above = __ballot_sync(ALL_LANES, sum + weight > threshold);
        if (above)
            return base + __ffs((int)above) - 1;
        sum += __shfl_sync(ALL_LANES, weight, WARP - 1);
        ties += (uint64_t)__popc(equal);
    }
    return -1;
}

/* The token, in the whole block. */
__device__ __forceinline__ int draw_one(const row_of &r, const kept &k, shared_room &room,
                                        float top)
{
    const int warp = (int)threadIdx.x / WARP;
    const int run = (r.vocab + WARPS - 1) / WARPS;
    const int begin = warp * run < r.vocab ? warp * run : r.vocab;
    const int end = begin + run < r.vocab ? begin + run : r.vocab;
    const uint64_t tie = ha_draw_weight(ha_draw_value(k.cut) - top);
    uint64_t ties, sum = weigh(r, k, top, begin, end, &ties), total = 0, all_ties = 0, threshold;

    __syncthreads(); /* the room was read */
    if (threadIdx.x % WARP == 0) {
        room.sums[warp] = sum;
        room.ties[warp] = ties;
    }
    __syncthreads();
    sum = ties = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) {
            sum = total + kept_ties(k, all_ties) * tie;
            ties = all_ties;
        }
        total += room.sums[w];
        all_ties += room.ties[w];
    }
    total += kept_ties(k, all_ties) * tie;
    threshold = ha_draw_threshold(r.draw->seed, r.draw->item, (uint32_t)r.draw->n_new, total);
    /* One warp's run holds the place. */
    if (sum <= threshold) {
        int id = first_above(r, k, top, begin, end, sum, ties, threshold);

        if (id >= 0 && threadIdx.x % WARP == 0)
            room.token = id;
    }
    __syncthreads();
    return room.token;
}

/* The token becomes a part of the sequence, or its end. */
__device__ __forceinline__ void take(const ha_sample &s, int64_t i, int token)
{
    ha_draw &draw = s.draws[i];

    if (token < 0) {
        draw.state = HA_DRAW_DIVERGED;
    } else if (is_eos(draw, token)) {
        draw.state = HA_DRAW_EOS;
    } else {
        s.drawn[i * s.drawn_stride + draw.n_drawn++] = token;
        if (draw.seen)
            draw.seen[token / 32] |= 1u << token % 32;
        if (++draw.n_new >= draw.max_new) {
            draw.state = HA_DRAW_LENGTH;
            return;
        }
        if (s.ids)
            s.ids[i] = token;
        if (s.positions)
            s.positions[i]++;
    }
}

__global__ void __launch_bounds__(BLOCK) sample_rows(ha_sample s)
{
    __shared__ shared_room room;
    const int64_t i = blockIdx.x;
    const ha_draw draw = s.draws[i];
    row_of r = {s.logits + (s.row ? s.row[i] : i) * s.vocab, (int)s.vocab, &draw,
                draw.n_new < draw.min_new, 1.0f};
    float top;
    int token;

    if (draw.state != HA_DRAW_RUNNING || draw.n_drawn >= s.drawn_stride)
        return;
    token = first_largest(r, room, &top);
    if (draw.temperature > 0.0f && token >= 0) {
        r.divisor = draw.temperature;
        top = value_of(r, token);
        token = isfinite(top) ? draw_one(r, find_cut(r, room, top), room, top) : -1;
    }
    if (threadIdx.x == 0)
        take(s, i, token);
}

} // namespace

int ha_cuda_launch_sample(CUstream_st *stream, const struct ha_sample *sample)
{
    ha_sample s = *sample;

    HA_LAUNCH(sample_rows, (unsigned)s.n_rows, BLOCK, 0, stream, s);
    return HA_LAUNCHED();
}
