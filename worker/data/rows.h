/* rows.h - rows of preference data, before any tokenizer
 *
 * A data set is one or more JSON Lines files (plain or gzip), concatenated in
 * the order given; rows are numbered from 0 across all of them.  Forms of a
 * row, recognised by its keys, the same for a whole data set:
 *
 *   HA_ROWS_IMPLICIT  {"chosen", "rejected"}            hh-rlhf: both hold the dialogue
 *   HA_ROWS_EXPLICIT  {"prompt", "chosen", "rejected"}  replies without the prompt
 *   HA_ROWS_PROMPT    {"prompt"}                        held-out prompts only
 *
 * Other keys are passed over.  Values are strings, or lists of messages
 * (messages.h), the same for all of a data set; rows of messages may not ask
 * for tools, nor have chat_template_kwargs other than {"enable_thinking":
 * false}.  The set is read twice: ha_rows_open checks every row and counts,
 * ha_rows_read keeps the texts of the rows that were selected, so that memory
 * follows the selection and not the files. */
#ifndef HA_WORKER_DATA_ROWS_H
#define HA_WORKER_DATA_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/data/messages.h"

struct ha_error;
struct ha_rows;

enum ha_rows_form { HA_ROWS_IMPLICIT, HA_ROWS_EXPLICIT, HA_ROWS_PROMPT };

/* UTF-8, zero-terminated; may hold zero bytes. */
struct ha_text {
    char *data;
    size_t size;
};

struct ha_row {
    int64_t number;
    struct ha_text prompt;           /* data NULL for HA_ROWS_IMPLICIT */
    struct ha_text chosen, rejected; /* data NULL for HA_ROWS_PROMPT */
    /* In rows of messages these instead; the texts are then NULL. */
    struct ha_messages prompt_list, chosen_list, rejected_list;
};

/* Check all rows of n_paths files.  Errors name FILE:LINE: malformed JSON or gzip, a missing key,
 * a value of another type, a row of another form than the first, no row at all. */
int ha_rows_open(const char *const *paths, int64_t n_paths, struct ha_rows **ret_rows,
                 struct ha_error *err);

void ha_rows_close(struct ha_rows *rows);

int64_t ha_rows_count(const struct ha_rows *rows);
enum ha_rows_form ha_rows_form(const struct ha_rows *rows);

/* Rows of messages, for a chat template. */
bool ha_rows_are_messages(const struct ha_rows *rows);

/* SHA-256 over the files' SHA-256 digests in order; of one file's stored bytes. */
void ha_rows_digest(const struct ha_rows *rows, uint8_t digest[HA_SHA256_BYTES]);
int64_t ha_rows_file_count(const struct ha_rows *rows);
const char *ha_rows_file_path(const struct ha_rows *rows, int64_t file);
void ha_rows_file_digest(const struct ha_rows *rows, int64_t file, uint8_t digest[HA_SHA256_BYTES]);

/* Read the rows with these numbers (distinct, any order) into ret_texts [n] in that order; the
 * caller frees with ha_rows_free.  -ESTALE when a file has changed since it was opened. */
int ha_rows_read(const struct ha_rows *rows, const int64_t *numbers, int64_t n,
                 struct ha_row **ret_texts, struct ha_error *err);

void ha_rows_free(struct ha_row *texts, int64_t n);

#endif
