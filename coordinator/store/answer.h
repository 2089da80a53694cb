/* answer.h - what models answered to held-out prompts */
#ifndef HA_COORDINATOR_STORE_ANSWER_H
#define HA_COORDINATOR_STORE_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

struct ha_answer {
    int64_t id;
    int64_t result, cell;
    const char *adapter_sha256; /* "" for base */
    int64_t prompt, sample;
    const char *prompt_text, *prompt_sha256, *text, *raw;
    const char *finish; /* "stop", "eos", "length" */
    int64_t prompt_tokens, tokens;
};

/* Store an answer, its items, and what it opens.  The first committed wins:
 * *ret_bytes is 0 for a repeated one, else what its rows count.  id and prompt_sha256 are not
 * read. */
int ha_store_answer_add(struct ha_store *store, const struct ha_by *by,
                        const struct ha_answer *answer, int64_t *ret_bytes, struct ha_error *err);

typedef int (*ha_answer_fn)(void *context, const struct ha_answer *answer);

/* Answers of a sweep's live cells after an id, in order of id; cell 0: all;
 * prompt -1: all.  An answer that several cells share comes once per cell, and
 * fn is then called beyond limit rather than between them. */
int ha_store_answer_each(struct ha_store *store, int64_t sweep, int64_t cell, int64_t prompt,
                         int64_t after, int64_t limit, ha_answer_fn fn, void *context,
                         struct ha_error *err);

/* (prompt, sample) of a result's answers, in that order. */
typedef int (*ha_answered_fn)(void *context, int64_t prompt, int64_t sample);
int ha_store_answered_each(struct ha_store *store, int64_t result, ha_answered_fn fn, void *context,
                           struct ha_error *err);

struct ha_score_set_row {
    int64_t item;
    const char *judge, *state, *fault, *identity;
    int64_t sample;
    bool flagged;
};

/* The items of one answer for the judges of one cell. */
typedef int (*ha_score_set_fn)(void *context, const struct ha_score_set_row *row);
int ha_store_score_set_each(struct ha_store *store, int64_t answer, int64_t cell,
                            ha_score_set_fn fn, void *context, struct ha_error *err);

typedef int (*ha_score_fn)(void *context, const char *dimension, int64_t value, const char *reason);
int ha_store_score_each(struct ha_store *store, int64_t item, ha_score_fn fn, void *context,
                        struct ha_error *err);

#endif
