#include "worker/data/prompts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/data/chat_pair.h"
#include "worker/data/select.h"
#include "worker/tokenizer/tokenizer.h"

/* The text of a row's prompt, "" where it has none.  Returns 0 or -ENOMEM. */
static int prompt_text(const struct ha_row *row, enum ha_rows_form form, struct ha_buffer *text)
{
    struct ha_messages messages = {0};
    enum ha_chat_flaw flaw;
    int r;

    ha_buffer_reset(text);
    if (form == HA_ROWS_IMPLICIT && row->chosen_list.count == 0)
        return ha_buffer_append(text, row->chosen.data,
                                ha_prompt_end(row->chosen.data, row->chosen.size));
    if (row->prompt_list.count == 0 && row->chosen_list.count == 0)
        return ha_buffer_append(text, row->prompt.data, row->prompt.size);
    r = ha_chat_prompt_make(row, form, &messages, &flaw);
    if (r == 0 && messages.count > 0) {
        r = ha_messages_to_dialogue(&messages, text);
        if (r == 0 && messages.items[messages.count - 1].role != HA_ROLE_ASSISTANT)
            r = ha_buffer_append_text(text, "\n\nAssistant:");
    }
    ha_messages_clear(&messages);
    return r;
}

/* ---- the set ---- */

struct building {
    struct ha_tokenizer *tokenizer;
    const struct ha_chat *chat;
    struct ha_buffer text, rendered; /* of one row */
    struct ha_prompt_set *set;
    struct ha_ids ids;
    int64_t *first; /* [n_prompts] index of a prompt's first id; pointers come last */
    int64_t max_ids;
    struct ha_error *err;
};

/* Write the row's prompt as the template does.  1, or 0 where the row is dropped. */
static int render_prompt(struct building *b, const struct ha_row *row, enum ha_rows_form form)
{
    struct ha_messages messages = {0};
    enum ha_chat_flaw flaw;
    int r = ha_chat_prompt_make(row, form, &messages, &flaw);

    ha_buffer_reset(&b->rendered);
    if (r == 0 && flaw == HA_CHAT_FINE)
        r = ha_chat_prompt_render(b->chat, &messages, form, &b->rendered);
    ha_messages_clear(&messages);
    if (r == -EINVAL || flaw != HA_CHAT_FINE) {
        b->set->report.dropped_by_template += flaw == HA_CHAT_FINE;
        b->set->report.dropped_no_turn += flaw != HA_CHAT_FINE;
        return 0;
    }
    return r < 0 ? ha_error_set(b->err, -r, "no memory for the prompts") : 1;
}

/* Append the ids of the prompt in b->text.  1, or 0 where the row is dropped. */
static int encode_prompt(struct building *b, const struct ha_row *row, enum ha_rows_form form)
{
    const struct ha_buffer *text = b->chat ? &b->rendered : &b->text;
    int64_t first = b->ids.count;
    int r;

    if (b->text.size == 0 && form == HA_ROWS_IMPLICIT) {
        b->set->report.dropped_no_turn++;
        return 0;
    }
    r = b->chat ? render_prompt(b, row, form) : 1;
    if (r <= 0)
        return r;
    r = ha_tokenizer_encode(b->tokenizer, ha_buffer_text(text), text->size, !b->chat, &b->ids,
                            b->err);
    if (r == 0 && b->ids.count == first)
        b->set->report.dropped_no_turn++;
    return r < 0 ? r : b->ids.count > first;
}

static int add_prompt(struct building *b, const struct ha_row *row, enum ha_rows_form form)
{
    struct ha_prompt_set *set = b->set;
    struct ha_prompt *prompt = &set->prompts[set->n_prompts];
    int64_t first = b->ids.count;
    int r = prompt_text(row, form, &b->text);

    if (r < 0)
        return ha_error_set(b->err, ENOMEM, "no memory for the prompts");
    r = encode_prompt(b, row, form);
    if (r <= 0)
        return r < 0 ? ha_error_prefix(b->err, "row %" PRId64, row->number) : 0;
    if (b->max_ids > 0 && b->ids.count - first > b->max_ids) {
        b->ids.count = first;
        set->report.dropped_too_long++;
        return 0;
    }
    prompt->text =
        (struct ha_text){ha_strndup(ha_buffer_text(&b->text), b->text.size), b->text.size};
    if (!prompt->text.data)
        return ha_error_set(b->err, ENOMEM, "no memory for the prompts");
    prompt->row = row->number;
    prompt->n_ids = b->ids.count - first;
    ha_sha256(prompt->text.data, prompt->text.size, prompt->sha256);
    b->first[set->n_prompts++] = first;
    return 0;
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, HA_SHA256_BYTES);
}

/* Digests of the prompts, sorted; the caller frees.  NULL when memory is short. */
static uint8_t *sorted_digests(const struct ha_prompt_set *set)
{
    uint8_t *digests = ha_calloc(set->n_prompts, HA_SHA256_BYTES);

    for (int64_t i = 0; digests && i < set->n_prompts; i++)
        memcpy(digests + i * HA_SHA256_BYTES, set->prompts[i].sha256, HA_SHA256_BYTES);
    if (digests)
        qsort(digests, (size_t)set->n_prompts, HA_SHA256_BYTES, by_digest);
    return digests;
}

static int count_repeated(struct building *b)
{
    uint8_t *digests = sorted_digests(b->set);

    if (!digests)
        return ha_error_set(b->err, ENOMEM, "no memory for the prompts");
    for (int64_t i = 1; i < b->set->n_prompts; i++)
        b->set->report.repeated +=
            by_digest(digests + (i - 1) * HA_SHA256_BYTES, digests + i * HA_SHA256_BYTES) == 0;
    free(digests);
    return 0;
}

static int add_rows(struct building *b, const struct ha_row *texts, int64_t n,
                    enum ha_rows_form form)
{
    struct ha_prompt_set *set = b->set;
    int r = 0;

    set->prompts = ha_calloc(n, sizeof(*set->prompts));
    b->first = ha_calloc(n, sizeof(*b->first));
    if (!set->prompts || !b->first)
        return ha_error_set(b->err, ENOMEM, "no memory for %" PRId64 " prompts", n);
    for (int64_t i = 0; i < n && r == 0; i++)
        r = add_prompt(b, &texts[i], form);
    if (r < 0)
        return r;
    set->report.prompts = set->n_prompts;
    if (set->n_prompts == 0)
        return ha_error_set(b->err, EINVAL,
                            "no prompt is left of %" PRId64 " rows: %" PRId64
                            " are longer than %" PRId64 " ids, %" PRId64
                            " have no turn of the assistant or no id, %" PRId64
                            " are refused by the chat template",
                            n, set->report.dropped_too_long, b->max_ids,
                            set->report.dropped_no_turn, set->report.dropped_by_template);
    set->ids = b->ids.data;
    b->ids = (struct ha_ids){0};
    for (int64_t i = 0; i < set->n_prompts; i++)
        set->prompts[i].ids = set->ids + b->first[i];
    return count_repeated(b);
}

static int select_texts(const struct ha_rows *rows, int64_t asked, uint64_t seed,
                        struct ha_row **ret_texts, int64_t *ret_count, struct ha_error *err)
{
    int64_t *numbers = NULL, n = 0;
    int r = ha_select_rows(ha_rows_count(rows), asked, seed, &numbers, &n, err);

    if (r == 0)
        r = ha_rows_read(rows, numbers, n, ret_texts, err);
    free(numbers);
    *ret_count = n;
    return r;
}

int ha_prompt_set_create(const struct ha_rows *rows, struct ha_tokenizer *tokenizer,
                         const struct ha_chat *chat, int64_t max_ids, int64_t asked, uint64_t seed,
                         struct ha_prompt_set **ret_set, struct ha_error *err)
{
    struct ha_error local = {0};
    struct building b = {
        .tokenizer = tokenizer, .chat = chat, .max_ids = max_ids, .err = err ? err : &local};
    struct ha_row *texts = NULL;
    int64_t n = 0;
    int r;

    if (ha_rows_are_messages(rows) && !chat)
        return ha_error_set(err, EINVAL,
                            "%s: rows of messages need a chat template; set the model's template "
                            "to \"chat\" or to the name of a format",
                            ha_rows_file_path(rows, 0));
    ha_buffer_init(&b.text, 0);
    ha_buffer_init(&b.rendered, 0);
    b.set = calloc(1, sizeof(*b.set));
    if (!b.set)
        return ha_error_set(err, ENOMEM, "no memory for the prompts");
    r = select_texts(rows, asked, seed, &texts, &n, b.err);
    b.set->report.total = ha_rows_count(rows);
    b.set->report.asked = asked;
    b.set->report.selected = n;
    ha_rows_digest(rows, b.set->data_digest);
    if (r == 0)
        r = add_rows(&b, texts, n, ha_rows_form(rows));
    ha_rows_free(texts, n);
    ha_ids_clear(&b.ids);
    ha_buffer_clear(&b.text);
    ha_buffer_clear(&b.rendered);
    free(b.first);
    if (r < 0) {
        ha_prompt_set_destroy(b.set);
        return r;
    }
    *ret_set = b.set;
    return 0;
}

void ha_prompt_set_destroy(struct ha_prompt_set *set)
{
    if (!set)
        return;
    for (int64_t i = 0; i < set->n_prompts; i++)
        free(set->prompts[i].text.data);
    free(set->prompts);
    free(set->ids);
    free(set);
}

int ha_prompt_set_mark_seen(struct ha_prompt_set *set, const struct ha_rows *train_rows,
                            int64_t train_asked, uint64_t train_seed, struct ha_error *err)
{
    enum ha_rows_form form = ha_rows_form(train_rows);
    struct ha_row *texts = NULL;
    struct ha_buffer text;
    uint8_t *digests;
    int64_t n = 0;
    int r = select_texts(train_rows, train_asked, train_seed, &texts, &n, err);

    if (r < 0)
        return r;
    digests = ha_calloc(n, HA_SHA256_BYTES);
    if (!digests) {
        ha_rows_free(texts, n);
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " prompts", n);
    }
    ha_buffer_init(&text, 0);
    for (int64_t i = 0; i < n && r == 0; i++) {
        r = prompt_text(&texts[i], form, &text);
        ha_sha256(ha_buffer_text(&text), text.size, digests + i * HA_SHA256_BYTES);
    }
    ha_buffer_clear(&text);
    ha_rows_free(texts, n);
    if (r < 0) {
        free(digests);
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " prompts", n);
    }
    qsort(digests, (size_t)n, HA_SHA256_BYTES, by_digest);
    set->report.seen_in_training = 0;
    for (int64_t i = 0; i < set->n_prompts; i++) {
        struct ha_prompt *prompt = &set->prompts[i];

        prompt->seen_in_training =
            bsearch(prompt->sha256, digests, (size_t)n, HA_SHA256_BYTES, by_digest) != NULL;
        set->report.seen_in_training += prompt->seen_in_training;
    }
    free(digests);
    return 0;
}
