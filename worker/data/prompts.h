/* prompts.h - held-out prompts for generation and judging
 *
 * The prompt of a dialogue row is `chosen` up to and including its last
 * "\n\nAssistant:"; of rows with a prompt, the prompt as it stands.  `split`
 * has no part in it.
 *
 * With a chat template the ids are those of the same prompt as a conversation (chat_pair.h),
 * written by the template with its generation prompt; the text stays the dialogue's, and that of a
 * message list is written as hh-rlhf would, so that people, judges and other sweeps see the same
 * prompt whatever the template is. */
#ifndef HA_WORKER_DATA_PROMPTS_H
#define HA_WORKER_DATA_PROMPTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/data/rows.h"

struct ha_chat;
struct ha_error;
struct ha_tokenizer;

struct ha_prompt_report {
    int64_t total;    /* rows of the files */
    int64_t asked;    /* 0 = all */
    int64_t selected; /* rows taken, before dropping */
    int64_t prompts;  /* prompts of the set */

    int64_t dropped_too_long;    /* more ids than the limit */
    int64_t dropped_no_turn;     /* no "\n\nAssistant:" in chosen, or a prompt without an id: an
                                    empty one where the tokenizer adds no BOS */
    int64_t dropped_by_template; /* roles that the chat template refuses, or no way in it to ask for
                                    an answer after an answer (llama-2) */
    int64_t seen_in_training;    /* kept; see ha_prompt_set_mark_seen */
    int64_t repeated;            /* kept; the same text came before */
};

struct ha_prompt {
    int64_t row;
    struct ha_text text;
    uint8_t sha256[HA_SHA256_BYTES]; /* of the text: answers pair by it across sweeps */
    const int32_t *ids;              /* [n_ids], special tokens as the tokenizer adds them */
    int64_t n_ids;
    int seen_in_training;
};

struct ha_prompt_set {
    int64_t n_prompts;
    struct ha_prompt *prompts; /* [n_prompts], in the order of the selection */
    int32_t *ids;
    struct ha_prompt_report report;
    uint8_t data_digest[HA_SHA256_BYTES];
};

/* Select `asked` rows (0 = all) with the seed.  chat: NULL for texts as they stand, which rows of
 * messages are not.  max_ids: context - max_new_tokens, 0: no limit.  Errors: a text that cannot be
 * tokenised (row named), no prompt left. */
int ha_prompt_set_create(const struct ha_rows *rows, struct ha_tokenizer *tokenizer,
                         const struct ha_chat *chat, int64_t max_ids, int64_t asked, uint64_t seed,
                         struct ha_prompt_set **ret_set, struct ha_error *err);

void ha_prompt_set_destroy(struct ha_prompt_set *set);

/* Mark and count the prompts that the selected training rows hold too (same selection arguments
 * as ha_pair_set_create). */
int ha_prompt_set_mark_seen(struct ha_prompt_set *set, const struct ha_rows *train_rows,
                            int64_t train_asked, uint64_t train_seed, struct ha_error *err);

/* Bytes of the prompt at the start of a dialogue: up to and including the last "\n\nAssistant:";
 * 0 when there is none. */
size_t ha_prompt_end(const char *text, size_t size);

#endif
