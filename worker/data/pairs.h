/* pairs.h - preference pairs as token ids
 *
 * Every sequence the model sees is prompt ++ chosen or prompt ++ rejected; only the completion
 * has loss.  `split` says where a dialogue pair (form {"chosen", "rejected"}) is cut:
 *
 *   HA_SPLIT_TRL   TRL 1.9 exactly: prompt = longest common prefix in code points, less one
 *                  space before the difference (at the last common character where one text is
 *                  a prefix of the other; Python slices throughout).  EOS is appended as text
 *                  unless it is the suffix.  prompt ids = ids(prompt); completion ids =
 *                  ids(prompt + completion) from index |prompt ids| on, boundary effect included.
 *   HA_SPLIT_TURN  cut after the last "\n\nAssistant:" of the common prefix, tokenise
 *                  prompt + completion + EOS jointly and cut at the first token that reaches into
 *                  the completion: nothing is lost, a token astride the border belongs to the
 *                  completion.  prompt ids are the joint ids that both sides share before it, so
 *                  that both completions begin at the same character also where only one side
 *                  has such a token.
 *
 * Rows with an explicit prompt are cut where the row says; the rest is the same.
 *
 * With a chat template a row is a conversation (chat_pair.h), written by the template and tokenised
 * without further special tokens, again as TRL 1.9: the prompt with its generation prompt, and
 * prompt + completion, whose ids from index |prompt ids| on are the completion's.  HA_SPLIT_TURN
 * ends the prompt before the last turn of the assistant that both sides begin, and cuts the joint
 * ids by text.
 *
 * A sequence is cut to its first max_length ids; a pair whose prompt has max_length ids or more
 * is dropped. */
#ifndef HA_WORKER_DATA_PAIRS_H
#define HA_WORKER_DATA_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/data/rows.h"

struct ha_buffer;
struct ha_chat;
struct ha_error;
struct ha_tokenizer;

/* Names the rule by which sequences begin and end; another text whenever it changes. */
#define HA_PAIRS_ENDS "EOS as text unless it is the suffix, the tokenizer's own BOS"

enum ha_split { HA_SPLIT_TRL, HA_SPLIT_TURN };

/* "trl" | "turn" -> split.  Returns 0 or -EINVAL. */
int ha_split_parse(const char *name, enum ha_split *ret_split);

/* What happened to the selected rows.  One row may count in several fields; only the dropped ones
 * are missing from the set. */
struct ha_pair_report {
    int64_t total;    /* rows of the files */
    int64_t asked;    /* samples asked for; 0 = all */
    int64_t selected; /* rows taken, before dropping */
    int64_t pairs;    /* pairs of the set */

    int64_t dropped_prompt_too_long; /* |prompt ids| >= max_length */
    int64_t dropped_empty_text;      /* a text is empty: there is no prompt (TRL fails on it) */
    /* With a chat template only; TRL fails on both. */
    int64_t dropped_no_dialogue; /* a text that begins with no turn, or the first turns differ */
    int64_t dropped_by_template; /* roles that the template refuses: for llama-2 two turns of one
                                    role in a row */

    int64_t truncated_chosen, truncated_rejected; /* sequences cut at max_length */
    int64_t equal_texts;                          /* chosen = rejected */
    int64_t prefix_texts;                         /* one text is a prefix of the other, not equal */
    int64_t cut_inside_word;                      /* the cut lies between two letters or digits */
    int64_t mangled_boundary; /* joint ids do not begin with the prompt's ids (TRL warns) */
    int64_t prompts_differ;   /* the texts up to each side's last "\n\nAssistant:" differ */
    int64_t empty_reply;      /* no text after the last "\n\nAssistant:" of a side, or an empty
                                 explicit reply */
    int64_t empty_completion; /* a side without a completion id after the cut */
    int64_t no_turn;          /* HA_SPLIT_TURN only: no "\n\nAssistant:" in the common prefix; the
                                 texts are cut where HA_SPLIT_TRL cuts them */
};

struct ha_pair_options {
    enum ha_split split;
    const struct ha_chat *chat; /* NULL: texts as they stand */
    int64_t max_length;         /* ids per sequence; 0: no limit */
    bool require_prompt; /* a dialogue pair without a common beginning is an error; TRL goes on
                            with an empty prompt */
};

/* Pair i: ids[offset[3i] .. offset[3i + 1]) prompt, [offset[3i + 1] .. offset[3i + 2]) chosen,
 * [offset[3i + 2] .. offset[3i + 3]) rejected.  Pairs stand in the order of the selection. */
struct ha_pair_set {
    int64_t n_pairs;
    int32_t *ids;    /* [offset[3 n_pairs]] */
    int64_t *offset; /* [3 n_pairs + 1] */
    int64_t *row;    /* [n_pairs] row number in the data set */
    int64_t longest; /* ids of the longest sequence prompt + completion */
    struct ha_pair_report report;
    uint8_t data_digest[HA_SHA256_BYTES]; /* ha_rows_digest of the files */
};

/* One pair; pointers into the set. */
struct ha_pair {
    const int32_t *prompt, *chosen, *rejected;
    int64_t n_prompt, n_chosen, n_rejected;
    int64_t row;
};

/* Select `asked` rows (0 = all) with the seed and tokenise them.  rows may not be HA_ROWS_PROMPT,
 * and rows of messages need options->chat.  Errors: a row whose text cannot be tokenised, or one
 * without a prompt where that is required (named by number), no pair left. */
int ha_pair_set_create(const struct ha_rows *rows, struct ha_tokenizer *tokenizer,
                       const struct ha_pair_options *options, int64_t asked, uint64_t seed,
                       struct ha_pair_set **ret_set, struct ha_error *err);

void ha_pair_set_destroy(struct ha_pair_set *set);

struct ha_pair ha_pair_at(const struct ha_pair_set *set, int64_t index);

/* Lines for a log: "2354 rows, 240 selected, 239 pairs", then one per count that is not 0.
 * Returns 0, -ENOMEM or -EMSGSIZE. */
int ha_pair_report_text(const struct ha_pair_report *report, struct ha_buffer *text);

/* TRL's extract_prompt on UTF-8 texts.  The three parts are slices:
 * prompt = chosen[0 .. prompt_end), replies from chosen_start / rejected_start (bytes) on. */
struct ha_cut {
    size_t prompt_end;
    size_t chosen_start, rejected_start;
};

/* -EINVAL when a text is empty (Python raises there). */
int ha_pair_cut_trl(const struct ha_text *chosen, const struct ha_text *rejected,
                    struct ha_cut *ret_cut);

/* False where not even the first characters agree. */
bool ha_pair_has_common_text(const struct ha_text *chosen, const struct ha_text *rejected);

/* -ENOENT when the common prefix has no "\n\nAssistant:". */
int ha_pair_cut_turn(const struct ha_text *chosen, const struct ha_text *rejected,
                     struct ha_cut *ret_cut);

#endif
