#include "kernels/segments.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"

/* True when the prefix of segment s lies inside one earlier segment. */
static bool prefix_fits(const struct ha_attention *shape, int64_t s)
{
    const struct ha_segment *segment = &shape->segments[s];
    int64_t begin = segment->prefix_begin;

    for (int64_t i = 0; i < s; i++) {
        const struct ha_segment *earlier = &shape->segments[i];

        if (begin >= earlier->begin && begin - earlier->begin <= earlier->length &&
            segment->prefix_length <= earlier->length - (begin - earlier->begin))
            return true;
    }
    return false;
}

int ha_attention_check(const struct ha_attention *shape, struct ha_error *err)
{
    int64_t next = 0;

    if (shape->n_heads < 1 || shape->n_kv_heads < 1 || shape->n_heads % shape->n_kv_heads != 0 ||
        shape->head_dim < 1)
        return ha_error_set(err, EINVAL,
                            "attention: %" PRId64 " heads, %" PRId64 " kv heads, width %" PRId64,
                            shape->n_heads, shape->n_kv_heads, shape->head_dim);
    for (int64_t s = 0; s < shape->n_segments; s++) {
        const struct ha_segment *segment = &shape->segments[s];

        if (segment->begin != next || segment->length < 0 ||
            segment->length > shape->n_tokens - next)
            return ha_error_set(err, EINVAL,
                                "attention: segment %" PRId64 " is %" PRId64 " tokens from %" PRId64
                                ", expected to begin at %" PRId64 " of %" PRId64,
                                s, segment->length, segment->begin, next, shape->n_tokens);
        next += segment->length;
        if (segment->prefix_length != 0 && segment->length != 0 &&
            (segment->prefix_length < 0 || !prefix_fits(shape, s)))
            return ha_error_set(err, EINVAL,
                                "attention: the prefix of segment %" PRId64 ", %" PRId64
                                " tokens from %" PRId64 ", is not inside one earlier segment",
                                s, segment->prefix_length, segment->prefix_begin);
    }
    if (next != shape->n_tokens)
        return ha_error_set(err, EINVAL,
                            "attention: the segments hold %" PRId64 " of %" PRId64 " tokens", next,
                            shape->n_tokens);
    return 0;
}

double ha_attention_pairs(const struct ha_attention *shape)
{
    double pairs = 0.0;

    for (int64_t s = 0; s < shape->n_segments; s++) {
        double n = (double)shape->segments[s].length;

        pairs += n * (double)shape->segments[s].prefix_length + n * (n + 1.0) / 2.0;
    }
    return pairs;
}
