#include "worker/model/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

void ha_pack_pair_truncate(struct ha_pack_pair *pair, int64_t max_length)
{
    int64_t room;

    if (pair->n_prompt > max_length)
        pair->n_prompt = max_length;
    room = max_length - pair->n_prompt;
    if (pair->n_chosen > room)
        pair->n_chosen = room;
    if (pair->n_rejected > room)
        pair->n_rejected = room;
}

/* Tokens of an answer that have to be computed: all but the last. */
static int64_t answer_tokens(int64_t n_ids)
{
    return n_ids > 0 ? n_ids - 1 : 0;
}

/* Rows of an answer: nothing predicts the first token of a whole sequence. */
static int64_t answer_rows(int64_t n_prompt, int64_t n_ids)
{
    return n_prompt > 0 || n_ids == 0 ? n_ids : n_ids - 1;
}

int64_t ha_pack_pair_tokens(const struct ha_pack_pair *pair, bool share_prompt)
{
    return (share_prompt ? 1 : 2) * pair->n_prompt + answer_tokens(pair->n_chosen) +
           answer_tokens(pair->n_rejected);
}

int64_t ha_pack_pair_rows(const struct ha_pack_pair *pair)
{
    return answer_rows(pair->n_prompt, pair->n_chosen) +
           answer_rows(pair->n_prompt, pair->n_rejected);
}

int64_t ha_pack_fill(const struct ha_pack_pair *pairs, const int64_t *index, int64_t n_pairs,
                     bool share_prompt, int64_t tokens_per_microbatch)
{
    int64_t tokens = 0;

    for (int64_t i = 0; i < n_pairs; i++) {
        tokens += ha_pack_pair_tokens(&pairs[index ? index[i] : i], share_prompt);
        if (tokens > tokens_per_microbatch && i > 0)
            return i;
    }
    return n_pairs;
}

/* Arrays for at most so many tokens, segments, rows and pairs. */
static struct ha_pack *allocate(int64_t n_tokens, int64_t n_segments, int64_t n_rows,
                                int64_t n_pairs)
{
    struct ha_pack *pack = ha_calloc(1, sizeof(*pack));

    if (!pack)
        return NULL;
    pack->ids = ha_calloc(n_tokens, sizeof(*pack->ids));
    pack->positions = ha_calloc(n_tokens, sizeof(*pack->positions));
    pack->segments = ha_calloc(n_segments, sizeof(*pack->segments));
    pack->segment_part = ha_calloc(n_segments, sizeof(*pack->segment_part));
    pack->segment_pair = ha_calloc(n_segments, sizeof(*pack->segment_pair));
    pack->row_token = ha_calloc(n_rows, sizeof(*pack->row_token));
    pack->row_target = ha_calloc(n_rows, sizeof(*pack->row_target));
    pack->chosen = ha_calloc(n_pairs, sizeof(*pack->chosen));
    pack->rejected = ha_calloc(n_pairs, sizeof(*pack->rejected));
    pack->prompt_length = ha_calloc(n_pairs, sizeof(*pack->prompt_length));
    if (!pack->ids || !pack->positions || !pack->segments || !pack->segment_part ||
        !pack->segment_pair || !pack->row_token || !pack->row_target || !pack->chosen ||
        !pack->rejected || !pack->prompt_length) {
        ha_pack_destroy(pack);
        return NULL;
    }
    return pack;
}

void ha_pack_destroy(struct ha_pack *pack)
{
    if (!pack)
        return;
    free(pack->ids);
    free(pack->positions);
    free(pack->segments);
    free(pack->segment_part);
    free(pack->segment_pair);
    free(pack->row_token);
    free(pack->row_target);
    free(pack->chosen);
    free(pack->rejected);
    free(pack->prompt_length);
    free(pack);
}

static void put_tokens(struct ha_pack *pack, const int32_t *ids, int64_t n_ids, int64_t position)
{
    for (int64_t i = 0; i < n_ids; i++) {
        pack->ids[pack->n_tokens] = ids[i];
        pack->positions[pack->n_tokens] = (int32_t)(position + i);
        pack->n_tokens++;
    }
}

/* Close a segment over the tokens from begin on; an empty one is not kept. */
static void put_segment(struct ha_pack *pack, enum ha_pack_part part, int64_t begin,
                        int64_t prefix_begin, int64_t prefix_length)
{
    if (pack->n_tokens == begin)
        return;
    pack->segments[pack->n_segments] =
        (struct ha_segment){begin, pack->n_tokens - begin, prefix_begin, prefix_length};
    pack->segment_part[pack->n_segments] = part;
    pack->segment_pair[pack->n_segments] = pack->n_pairs;
    pack->n_segments++;
}

/* Rows of an answer whose tokens begin at `begin`; the first one is predicted by
 * token `before` (-1: by nothing). */
static struct ha_pack_rows put_rows(struct ha_pack *pack, const int32_t *ids, int64_t n_ids,
                                    int64_t begin, int64_t before)
{
    struct ha_pack_rows rows = {pack->n_rows, 0};

    for (int64_t i = before < 0 ? 1 : 0; i < n_ids; i++) {
        pack->row_token[pack->n_rows] = i == 0 ? before : begin + i - 1;
        pack->row_target[pack->n_rows] = ids[i];
        pack->n_rows++;
    }
    rows.count = pack->n_rows - rows.begin;
    return rows;
}

/* One answer after the shared prompt, or after a prompt of its own. */
static struct ha_pack_rows put_answer(struct ha_pack *pack, enum ha_pack_part part,
                                      const struct ha_pack_pair *pair, const int32_t *ids,
                                      int64_t n_ids, bool shared, int64_t prompt_begin)
{
    int64_t segment_begin = pack->n_tokens, begin;

    if (!shared) {
        prompt_begin = pack->n_tokens;
        put_tokens(pack, pair->prompt, pair->n_prompt, 0);
    }
    begin = pack->n_tokens;
    put_tokens(pack, ids, answer_tokens(n_ids), pair->n_prompt);
    put_segment(pack, part, segment_begin, shared ? prompt_begin : 0, shared ? pair->n_prompt : 0);
    return put_rows(pack, ids, n_ids, begin,
                    pair->n_prompt > 0 ? prompt_begin + pair->n_prompt - 1 : -1);
}

static void put_pair(struct ha_pack *pack, const struct ha_pack_pair *pair, bool share_prompt)
{
    int64_t prompt_begin = pack->n_tokens, i = pack->n_pairs;

    pack->prompt_length[i] = pair->n_prompt;
    if (share_prompt) {
        put_tokens(pack, pair->prompt, pair->n_prompt, 0);
        put_segment(pack, HA_PACK_PROMPT, prompt_begin, 0, 0);
    }
    pack->chosen[i] = put_answer(pack, HA_PACK_CHOSEN, pair, pair->chosen, pair->n_chosen,
                                 share_prompt, prompt_begin);
    pack->rejected[i] = put_answer(pack, HA_PACK_REJECTED, pair, pair->rejected, pair->n_rejected,
                                   share_prompt, prompt_begin);
    pack->n_pairs++;
}

int ha_pack_create_pairs(const struct ha_pack_pair *pairs, const int64_t *index, int64_t n_pairs,
                         bool share_prompt, struct ha_pack **ret_pack, struct ha_error *err)
{
    int64_t n_tokens = 0, n_rows = 0;
    struct ha_pack *pack;

    for (int64_t i = 0; i < n_pairs; i++) {
        const struct ha_pack_pair *pair = &pairs[index ? index[i] : i];

        if (pair->n_prompt < 0 || pair->n_chosen < 0 || pair->n_rejected < 0 ||
            pair->n_prompt > INT32_MAX - pair->n_chosen ||
            pair->n_prompt > INT32_MAX - pair->n_rejected)
            return ha_error_set(err, EINVAL, "a pair's lengths are out of range");
        n_tokens += ha_pack_pair_tokens(pair, share_prompt);
        n_rows += ha_pack_pair_rows(pair);
    }
    pack = allocate(n_tokens, 3 * n_pairs, n_rows, n_pairs);
    if (!pack)
        return ha_error_set(err, ENOMEM, "no memory for a pack of %lld tokens",
                            (long long)n_tokens);
    for (int64_t i = 0; i < n_pairs; i++)
        put_pair(pack, &pairs[index ? index[i] : i], share_prompt);
    *ret_pack = pack;
    return 0;
}

int ha_pack_create_sequences(const struct ha_pack_sequence *sequences, int64_t n_sequences,
                             bool score_all, struct ha_pack **ret_pack, struct ha_error *err)
{
    int64_t n_tokens = 0;
    struct ha_pack *pack;

    for (int64_t i = 0; i < n_sequences; i++) {
        if (sequences[i].n_ids < 0 || sequences[i].n_ids > INT32_MAX)
            return ha_error_set(err, EINVAL, "a sequence's length is out of range");
        n_tokens += sequences[i].n_ids;
    }
    pack = allocate(n_tokens, n_sequences, score_all ? n_tokens : 0, n_sequences);
    if (!pack)
        return ha_error_set(err, ENOMEM, "no memory for a pack of %lld tokens",
                            (long long)n_tokens);
    for (int64_t i = 0; i < n_sequences; i++) {
        int64_t begin = pack->n_tokens, n_ids = sequences[i].n_ids;

        put_tokens(pack, sequences[i].ids, n_ids, 0);
        put_segment(pack, HA_PACK_WHOLE, begin, 0, 0);
        pack->chosen[i] = put_rows(pack, sequences[i].ids, score_all ? n_ids : 0, begin, -1);
        pack->rejected[i] = (struct ha_pack_rows){pack->n_rows, 0};
        pack->n_pairs++;
    }
    *ret_pack = pack;
    return 0;
}
