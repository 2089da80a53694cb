/* pack.h - sequences laid side by side without padding
 *
 * A pack holds the tokens of some pairs (or plain sequences), a segment table
 * that says who attends to whom, positions, and the rows that the output head
 * has to score.  A row is (token of the pack whose hidden state predicts,
 * target id).
 *
 * Layout of a pair, sharing the prompt:        and without sharing:
 *     [ prompt ][ chosen ][ rejected ]             [ prompt+chosen ][ prompt+rejected ]
 *         ^---------+----------+  prefix
 * The last token of an answer predicts nothing and is left out.  Shared is the
 * longest common prefix of the two sequences that ends before the first loss
 * token of either, which is the prompt; its last token then predicts the first
 * token of both answers and appears in two rows.  The positions of both
 * answers go on from the end of the prompt.  Answers of length 0 are legal and
 * have no rows; so does the first token of an answer to an empty prompt, as
 * nothing predicts it.
 *
 * A pack is a pure function of the arguments of its constructor. */
#ifndef HA_WORKER_MODEL_PACK_H
#define HA_WORKER_MODEL_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"

struct ha_error;

/* Token ids of one preference pair; the memory is the caller's. */
struct ha_pack_pair {
    const int32_t *prompt, *chosen, *rejected;
    int64_t n_prompt, n_chosen, n_rejected;
};

/* Token ids of one plain sequence. */
struct ha_pack_sequence {
    const int32_t *ids;
    int64_t n_ids;
};

enum ha_pack_part { HA_PACK_PROMPT, HA_PACK_CHOSEN, HA_PACK_REJECTED, HA_PACK_WHOLE };

/* The rows of one scored sequence: [begin, begin + count) of the row tables. */
struct ha_pack_rows {
    int64_t begin, count;
};

struct ha_pack {
    int64_t n_tokens;
    int32_t *ids;       /* (n_tokens) */
    int32_t *positions; /* (n_tokens) */

    int64_t n_segments;
    struct ha_segment *segments;     /* (n_segments), in token order */
    enum ha_pack_part *segment_part; /* (n_segments) */
    int64_t *segment_pair;           /* (n_segments) the pair of the pack that it belongs to */

    int64_t n_rows;
    int64_t *row_token;  /* (n_rows) token of the pack whose hidden state is scored */
    int32_t *row_target; /* (n_rows) */

    int64_t n_pairs;
    struct ha_pack_rows *chosen;   /* (n_pairs) */
    struct ha_pack_rows *rejected; /* (n_pairs) */
    int64_t *prompt_length;        /* (n_pairs) tokens before the answers, shared or not */
};

/* Cut both sides to max_length tokens, prompt included, from the front
 * (truncation_mode keep_start of TRL). */
void ha_pack_pair_truncate(struct ha_pack_pair *pair, int64_t max_length);

/* Tokens and rows that a pair takes in a pack. */
int64_t ha_pack_pair_tokens(const struct ha_pack_pair *pair, bool share_prompt);
int64_t ha_pack_pair_rows(const struct ha_pack_pair *pair);

/* pairs[index[i]] for i in [0, n_pairs), in this order; index NULL: pairs[i]. */
int ha_pack_create_pairs(const struct ha_pack_pair *pairs, const int64_t *index, int64_t n_pairs,
                         bool share_prompt, struct ha_pack **ret_pack, struct ha_error *err);

/* One causal sequence after the other.  With score_all every token but the last
 * of each sequence has a row with the next token as target; else there are no
 * rows.  chosen[i] are the rows of sequence i and n_pairs is their number. */
int ha_pack_create_sequences(const struct ha_pack_sequence *sequences, int64_t n_sequences,
                             bool score_all, struct ha_pack **ret_pack, struct ha_error *err);

void ha_pack_destroy(struct ha_pack *pack);

/* How many of the pairs pairs[index[0 ..]] fill one pack: as many as stay
 * within tokens_per_microbatch tokens, at least one (n_pairs >= 1). */
int64_t ha_pack_fill(const struct ha_pack_pair *pairs, const int64_t *index, int64_t n_pairs,
                     bool share_prompt, int64_t tokens_per_microbatch);

#endif
