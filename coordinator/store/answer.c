#include "coordinator/store/answer.h"

#include <string.h>

#include "common/base/hash.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/block.h"
#include "coordinator/store/db.h"
#include "coordinator/store/item.h"

/* *ret_bytes: of a new row. */
static int put_prompt(struct ha_store *store, const char *text, char hex[HA_SHA256_HEX_BYTES],
                      int64_t *ret_id, int64_t *ret_bytes, struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    int r;

    ha_sha256(text, strlen(text), digest);
    ha_sha256_hex(digest, hex);
    r = ha_db_int(store, ret_id, err, "SELECT id FROM prompt WHERE sha256 = ?", "t", hex);
    if (r != 0)
        return r < 0 ? r : 0;
    r = ha_db_exec(store, err, "INSERT INTO prompt (sha256, text) VALUES (?, ?)", "tt", hex, text);
    if (r == 0) {
        *ret_id = ha_db_last_id(store);
        *ret_bytes = (int64_t)strlen(text);
    }
    return r;
}

/* Tell the blocks of every cell that waits for this result. */
static int open_blocks(struct ha_store *store, const struct ha_answer *answer, struct ha_error *err)
{
    struct ha_rows rows;
    int64_t models[16];
    int count = 0;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT model FROM stage WHERE result = ? AND kind = 'generate'"
                         " AND live = 1 AND state IN ('waiting', 'ready', 'leased', 'running')",
                         "i", answer->result);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        models[count++] = ha_rows_int(&rows, 0);
        r = count == 16;
    }
    ha_rows_close(&rows);
    for (int i = 0; r >= 0 && i < count; i++)
        r = ha_store_block_answered(store, models[i], answer->prompt, answer->sample, err);
    return r < 0 ? r : 0;
}

int ha_store_answer_add(struct ha_store *store, const struct ha_by *by, const struct ha_answer *a,
                        int64_t *ret_bytes, struct ha_error *err)
{
    char hex[HA_SHA256_HEX_BYTES];
    int64_t prompt, id, prompt_bytes = 0;
    int r = put_prompt(store, a->prompt_text, hex, &prompt, &prompt_bytes, err);

    if (r < 0)
        return r;
    r = ha_db_exec(store, err,
                   "INSERT INTO answer (result, cell, adapter_sha256, prompt, sample, prompt_row,"
                   " prompt_sha256, text, raw, finish, prompt_tokens, tokens, created_ms)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                   " ON CONFLICT (result, adapter_sha256, prompt, sample) DO NOTHING",
                   "iitiiittttiii", a->result, a->cell, a->adapter_sha256, a->prompt, a->sample,
                   prompt, hex, a->text, a->raw, a->finish, a->prompt_tokens, a->tokens,
                   by->now_ms);
    if (r < 0)
        return r;
    *ret_bytes = 0;
    if (ha_db_changes(store) != 1)
        return 0;
    *ret_bytes = HA_ROW_ANSWER + prompt_bytes + (int64_t)(strlen(a->text) + strlen(a->raw));
    id = ha_db_last_id(store);
    r = ha_store_items_fill_from(store, by, a->result, id, err);
    return r < 0 ? r : open_blocks(store, a, err);
}

#define ANSWER_COLUMNS                                                                             \
    "a.id, a.result, s.cell, a.adapter_sha256, a.prompt, a.sample, p.text, a.prompt_sha256,"       \
    " a.text, a.raw, a.finish, a.prompt_tokens, a.tokens"

static int open_rows(struct ha_store *store, struct ha_rows *rows, int64_t sweep, int64_t cell,
                     int64_t prompt, int64_t after, struct ha_error *err)
{
    if (cell != 0)
        return ha_rows_open(store, rows, err,
                            "SELECT " ANSWER_COLUMNS " FROM stage s"
                            " JOIN answer a ON a.result = s.result"
                            " JOIN prompt p ON p.id = a.prompt_row"
                            " WHERE s.cell = ?1 AND s.sweep = ?2 AND s.live = 1"
                            " AND s.kind = 'generate' AND a.id > ?3"
                            " AND (?4 < 0 OR a.prompt = ?4) ORDER BY a.id",
                            "iiii", cell, sweep, after, prompt);
    return ha_rows_open(store, rows, err,
                        "SELECT " ANSWER_COLUMNS " FROM answer a"
                        " CROSS JOIN stage s ON s.result = a.result"
                        " JOIN prompt p ON p.id = a.prompt_row"
                        " WHERE a.id > ?2 AND s.sweep = ?1 AND s.live = 1"
                        " AND s.kind = 'generate' AND (?3 < 0 OR a.prompt = ?3) ORDER BY a.id",
                        "iii", sweep, after, prompt);
}

int ha_store_answer_each(struct ha_store *store, int64_t sweep, int64_t cell, int64_t prompt,
                         int64_t after, int64_t limit, ha_answer_fn fn, void *context,
                         struct ha_error *err)
{
    struct ha_rows rows;
    int64_t count = 0, last = 0;
    int r = open_rows(store, &rows, sweep, cell, prompt, after, err);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_answer answer = {
            .id = ha_rows_int(&rows, 0),
            .result = ha_rows_int(&rows, 1),
            .cell = ha_rows_int(&rows, 2),
            .adapter_sha256 = ha_rows_text(&rows, 3),
            .prompt = ha_rows_int(&rows, 4),
            .sample = ha_rows_int(&rows, 5),
            .prompt_text = ha_rows_text(&rows, 6),
            .prompt_sha256 = ha_rows_text(&rows, 7),
            .text = ha_rows_text(&rows, 8),
            .raw = ha_rows_text(&rows, 9),
            .finish = ha_rows_text(&rows, 10),
            .prompt_tokens = ha_rows_int(&rows, 11),
            .tokens = ha_rows_int(&rows, 12),
        };

        if (count >= limit && answer.id != last)
            break;
        last = answer.id;
        count++;
        r = fn(context, &answer);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_answered_each(struct ha_store *store, int64_t result, ha_answered_fn fn, void *context,
                           struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT prompt, sample FROM answer WHERE result = ?"
                         " ORDER BY prompt, sample",
                         "i", result);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        r = fn(context, ha_rows_int(&rows, 0), ha_rows_int(&rows, 1));
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_score_set_each(struct ha_store *store, int64_t answer, int64_t cell,
                            ha_score_set_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT i.id, j.name, i.state, i.fault, i.identity, i.sample, i.flagged"
                         " FROM stage s JOIN judge j ON j.id = s.judge"
                         " JOIN item i ON i.result = s.result AND i.answer = ?1"
                         " WHERE s.cell = ?2 AND s.kind = 'judge' AND s.live = 1"
                         " ORDER BY j.id, i.sample",
                         "ii", answer, cell);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_score_set_row row = {
            .item = ha_rows_int(&rows, 0),
            .judge = ha_rows_text(&rows, 1),
            .state = ha_rows_text(&rows, 2),
            .fault = ha_rows_text(&rows, 3),
            .identity = ha_rows_text(&rows, 4),
            .sample = ha_rows_int(&rows, 5),
            .flagged = ha_rows_int(&rows, 6) != 0,
        };

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_score_each(struct ha_store *store, int64_t item, ha_score_fn fn, void *context,
                        struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT d.name, s.value, s.reason FROM score s"
                         " JOIN dimension d ON d.id = s.dimension WHERE s.item = ?"
                         " ORDER BY d.id",
                         "i", item);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        r = fn(context, ha_rows_text(&rows, 0), ha_rows_int(&rows, 1), ha_rows_text(&rows, 2));
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
