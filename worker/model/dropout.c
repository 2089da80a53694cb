/* Where the masks of a pack's tokens begin.
 *
 * The words of a counter (kernels/ops.h) are
 *     0   position << 2 | side
 *     1   the pair's number
 *     2   epoch << 13 | layer << 3 | module
 *     3   the feature, and what the number is for
 * so that no two elements of a training have the same one. */
#include "worker/model/pass.h"

#include <errno.h>

#include "common/base/error.h"

enum { SIDE_BITS = 2, MAX_POSITION = 1 << 30, EPOCH_SHIFT = 13 };

_Static_assert(HA_PACK_WHOLE < 1 << SIDE_BITS, "the parts of a pack do not fit the counters");
_Static_assert((int64_t)HA_PASS_MAX_DROPOUT_EPOCHS << EPOCH_SHIFT == INT64_C(1) << 32,
               "epochs do not fit the counters");

static int check(const struct ha_pass *pass, const struct ha_pass_dropout *dropout,
                 struct ha_error *err)
{
    const struct ha_pack *pack = pass->pack;

    if (pass->limits.dropout_width == 0)
        return ha_error_set(err, EINVAL, "the pass was made without room for dropout");
    if (!(dropout->p >= 0 && dropout->p < 1))
        return ha_error_set(err, EINVAL, "dropout %g is not in [0, 1)", dropout->p);
    if (dropout->epoch < 0 || dropout->epoch >= HA_PASS_MAX_DROPOUT_EPOCHS)
        return ha_error_set(err, EINVAL, "epoch %lld is out of range for dropout",
                            (long long)dropout->epoch);
    for (int64_t i = 0; i < pack->n_pairs; i++) {
        if (dropout->pairs[i] < 0 || dropout->pairs[i] > (int64_t)UINT32_MAX)
            return ha_error_set(err, EINVAL, "pair %lld is out of range for dropout",
                                (long long)dropout->pairs[i]);
    }
    for (int64_t i = 0; i < pack->n_tokens; i++) {
        if (pack->positions[i] >= MAX_POSITION)
            return ha_error_set(err, EINVAL, "position %d is out of range for dropout",
                                (int)pack->positions[i]);
    }
    return 0;
}

/* Prompt tokens have the prompt's side also where each answer has a copy of them. */
static void fill_places(const struct ha_pack *pack, const int64_t *pairs, uint32_t *places)
{
    for (int64_t s = 0; s < pack->n_segments; s++) {
        const struct ha_segment *segment = &pack->segments[s];
        int64_t pair = pack->segment_pair[s];

        for (int64_t t = segment->begin; t < segment->begin + segment->length; t++) {
            uint32_t position = (uint32_t)pack->positions[t];
            enum ha_pack_part side =
                position < pack->prompt_length[pair] ? HA_PACK_PROMPT : pack->segment_part[s];

            places[2 * t] = position << SIDE_BITS | (uint32_t)side;
            places[2 * t + 1] = (uint32_t)pairs[pair];
        }
    }
}

int ha_pass_set_dropout(struct ha_pass *pass, const struct ha_pass_dropout *dropout,
                        struct ha_error *err)
{
    int r;

    pass->drops = false;
    if (dropout->p == 0) /* also where there is no room for it */
        return 0;
    r = check(pass, dropout, err);
    if (r < 0)
        return r;
    fill_places(pass->pack, dropout->pairs, pass->host_places);
    r = ha_backend_upload(pass->backend, pass->places, pass->host_places,
                          (size_t)pass->pack->n_tokens * 2 * sizeof(uint32_t), err);
    if (r < 0)
        return r;
    pass->dropout.mask = (struct ha_dropout){.p = dropout->p,
                                             .seed = dropout->seed,
                                             .stream = (uint32_t)dropout->epoch << EPOCH_SHIFT,
                                             .places = pass->places};
    pass->drops = true;
    return 0;
}
