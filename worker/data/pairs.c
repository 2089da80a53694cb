#include "worker/data/pairs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "worker/data/chat_pair.h"
#include "worker/data/prompts.h"
#include "worker/data/select.h"
#include "worker/tokenizer/tokenizer.h"

int ha_split_parse(const char *name, enum ha_split *ret_split)
{
    if (strcmp(name, "trl") == 0)
        *ret_split = HA_SPLIT_TRL;
    else if (strcmp(name, "turn") == 0)
        *ret_split = HA_SPLIT_TURN;
    else
        return -EINVAL;
    return 0;
}

struct slice {
    const char *data;
    size_t size;
};

/* One row on its way to ids. */
struct building {
    struct ha_tokenizer *tokenizer;
    struct ha_pair_options options;
    struct ha_pair_set *set;
    int64_t id_capacity;
    struct ha_buffer joint;                 /* prompt + completion + EOS */
    struct ha_buffer chat[3];               /* prompt, prompt + chosen, prompt + rejected */
    struct ha_ids prompt, chosen, rejected; /* chosen and rejected: joint ids at first */
    struct ha_error *err;
};

static struct slice cut_slice(const struct ha_text *text, size_t from, size_t to)
{
    return (struct slice){text->data + from, to - from};
}

/* ---- what is counted ---- */

/* Letters and digits, as far as the count of words cut in two needs them: ASCII's, and every other
 * character that is not punctuation of the common blocks. */
static bool of_word(uint32_t code)
{
    if (code < 0x80)
        return (code >= '0' && code <= '9') || ((code | 0x20) >= 'a' && (code | 0x20) <= 'z');
    return code >= 0xc0 && code != 0xd7 && code != 0xf7 && (code < 0x2000 || code > 0x303f) &&
           code < 0xe000;
}

static bool begins_word(struct slice text)
{
    uint32_t code = 0;

    return ha_utf8_decode(text.data, text.size, &code) > 0 && of_word(code);
}

static bool ends_word(struct slice text)
{
    size_t start = text.size;
    uint32_t code = 0;

    if (text.size == 0)
        return false;
    do
        start--;
    while (start > 0 && ((uint8_t)text.data[start] & 0xc0) == 0x80);
    return ha_utf8_decode(text.data + start, text.size - start, &code) > 0 && of_word(code);
}

static bool blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
            return false;
    return true;
}

static bool empty_reply(const struct ha_text *text)
{
    size_t end = ha_prompt_end(text->data, text->size);

    return end > 0 && blank(text->data + end, text->size - end);
}

static void count_dialogue(struct ha_pair_report *report, const struct ha_row *row)
{
    const struct ha_text *c = &row->chosen, *r = &row->rejected;
    size_t least = c->size < r->size ? c->size : r->size;
    size_t chosen_prompt = ha_prompt_end(c->data, c->size);
    size_t rejected_prompt = ha_prompt_end(r->data, r->size);

    if (c->size == r->size && memcmp(c->data, r->data, least) == 0)
        report->equal_texts++;
    else if (memcmp(c->data, r->data, least) == 0)
        report->prefix_texts++;
    if (chosen_prompt != rejected_prompt || memcmp(c->data, r->data, chosen_prompt) != 0)
        report->prompts_differ++;
    if (empty_reply(c) || empty_reply(r))
        report->empty_reply++;
}

static void count_explicit(struct ha_pair_report *report, const struct ha_row *row)
{
    const struct ha_text *c = &row->chosen, *r = &row->rejected;

    if (c->size == r->size && memcmp(c->data, r->data, c->size) == 0)
        report->equal_texts++;
    if (blank(c->data, c->size) || blank(r->data, r->size))
        report->empty_reply++;
}

/* ---- ids ---- */

static int row_error(struct building *b, const struct ha_row *row)
{
    return ha_error_prefix(b->err, "row %" PRId64, row->number);
}

/* A chat template writes the special tokens itself. */
static int encode(struct building *b, struct slice text, struct ha_ids *ids)
{
    ids->count = 0;
    return ha_tokenizer_encode(b->tokenizer, text.data, text.size, !b->options.chat, ids, b->err);
}

static bool ends_with(struct slice text, const char *tail, size_t tail_size)
{
    return text.size >= tail_size &&
           memcmp(text.data + text.size - tail_size, tail, tail_size) == 0;
}

static int encode_joint(struct building *b, struct slice prompt, struct slice reply,
                        struct ha_ids *ids)
{
    const char *eos = ha_tokenizer_eos_text(b->tokenizer);
    int r;

    ha_buffer_reset(&b->joint);
    r = ha_buffer_append(&b->joint, prompt.data, prompt.size);
    if (r == 0)
        r = ha_buffer_append(&b->joint, reply.data, reply.size);
    if (r == 0 && !ends_with(reply, eos, strlen(eos)))
        r = ha_buffer_append_text(&b->joint, eos);
    if (r < 0)
        return ha_error_set(b->err, -r, "no memory to tokenise");
    return encode(b, (struct slice){b->joint.data, b->joint.size}, ids);
}

static bool begins_with(const struct ha_ids *ids, const struct ha_ids *head)
{
    if (head->count == 0)
        return true;
    return ids->count >= head->count &&
           memcmp(ids->data, head->data, (size_t)head->count * sizeof(*ids->data)) == 0;
}

static void remove_first(struct ha_ids *ids, int64_t n)
{
    n = n < ids->count ? n : ids->count;
    ids->count -= n;
    memmove(ids->data, ids->data + n, (size_t)ids->count * sizeof(*ids->data));
}

static int64_t id_bytes(const struct building *b, const struct ha_ids *ids)
{
    int64_t bytes = 0;

    for (int64_t i = 0; i < ids->count; i++)
        bytes += ha_tokenizer_id_bytes(b->tokenizer, ids->data[i]);
    return bytes;
}

/* Ids of a joint text that end within the first `bytes` bytes. */
static int64_t ids_within(const struct building *b, const struct ha_ids *ids, int64_t bytes)
{
    int64_t n = 0;

    for (; n < ids->count; n++) {
        bytes -= ha_tokenizer_id_bytes(b->tokenizer, ids->data[n]);
        if (bytes < 0)
            break;
    }
    return n;
}

/* The prompt's ids are those of the joint texts that lie in the prompt and are the same on both
 * sides. */
static int border_by_token(struct building *b)
{
    int64_t bytes = id_bytes(b, &b->prompt);
    int64_t chosen = ids_within(b, &b->chosen, bytes);
    int64_t rejected = ids_within(b, &b->rejected, bytes);
    int64_t least = chosen < rejected ? chosen : rejected;
    int r = 0;

    b->prompt.count = 0;
    for (int64_t i = 0; i < least && b->chosen.data[i] == b->rejected.data[i] && r == 0; i++)
        r = ha_ids_append(&b->prompt, b->chosen.data[i]);
    return r < 0 ? ha_error_set(b->err, ENOMEM, "no memory to tokenise") : 0;
}

/* Keep the pair, cut to max_length. */
static int keep_pair(struct building *b, int64_t row)
{
    struct ha_pair_set *set = b->set;
    struct ha_pair_report *report = &set->report;
    int64_t limit = b->options.max_length > 0 ? b->options.max_length : INT64_MAX;
    const struct ha_ids *parts[] = {&b->prompt, &b->chosen, &b->rejected};
    int64_t *offset = &set->offset[3 * set->n_pairs];

    if (b->prompt.count >= limit) {
        report->dropped_prompt_too_long++;
        return 0;
    }
    if (b->chosen.count > limit - b->prompt.count) {
        b->chosen.count = limit - b->prompt.count;
        report->truncated_chosen++;
    }
    if (b->rejected.count > limit - b->prompt.count) {
        b->rejected.count = limit - b->prompt.count;
        report->truncated_rejected++;
    }
    report->empty_completion += b->chosen.count == 0 || b->rejected.count == 0;
    for (int i = 0; i < 3; i++) {
        int64_t n = parts[i]->count, used = offset[i];

        if (ha_grow((void **)&set->ids, &b->id_capacity, used + n, sizeof(*set->ids)) < 0)
            return ha_error_set(b->err, ENOMEM, "no memory for the pairs");
        if (n > 0)
            memcpy(set->ids + used, parts[i]->data, (size_t)n * sizeof(*set->ids));
        offset[i + 1] = used + n;
        if (i > 0 && b->prompt.count + n > set->longest)
            set->longest = b->prompt.count + n;
    }
    set->row[set->n_pairs++] = row;
    return 0;
}

/* From prompt ids and joint ids to the ids of the three parts. */
static int part_joint_ids(struct building *b)
{
    int r = 0;

    if (!begins_with(&b->chosen, &b->prompt) || !begins_with(&b->rejected, &b->prompt))
        b->set->report.mangled_boundary++;
    if (b->options.split == HA_SPLIT_TURN)
        r = border_by_token(b);
    remove_first(&b->chosen, b->prompt.count);
    remove_first(&b->rejected, b->prompt.count);
    return r;
}

static int tokenise(struct building *b, struct slice prompt, struct slice chosen,
                    struct slice rejected)
{
    int r = encode(b, prompt, &b->prompt);

    if (r == 0)
        r = encode_joint(b, prompt, chosen, &b->chosen);
    if (r == 0)
        r = encode_joint(b, prompt, rejected, &b->rejected);
    if (r < 0)
        return r;
    if (ends_word(prompt) && (begins_word(chosen) || begins_word(rejected)))
        b->set->report.cut_inside_word++;
    return part_joint_ids(b);
}

static int add_dialogue(struct building *b, const struct ha_row *row)
{
    struct ha_pair_report *report = &b->set->report;
    struct ha_cut cut;
    int r = ha_pair_cut_trl(&row->chosen, &row->rejected, &cut);

    if (r < 0) {
        report->dropped_empty_text++;
        return 0;
    }
    if (b->options.require_prompt && !ha_pair_has_common_text(&row->chosen, &row->rejected))
        return ha_error_set(b->err, EINVAL,
                            "chosen and rejected have no common beginning, so there is no prompt; "
                            "give the prompt as a key of its own");
    count_dialogue(report, row);
    if (b->options.split == HA_SPLIT_TURN &&
        ha_pair_cut_turn(&row->chosen, &row->rejected, &cut) < 0)
        report->no_turn++;
    r = tokenise(b, cut_slice(&row->chosen, 0, cut.prompt_end),
                 cut_slice(&row->chosen, cut.chosen_start, row->chosen.size),
                 cut_slice(&row->rejected, cut.rejected_start, row->rejected.size));
    return r < 0 ? r : keep_pair(b, row->number);
}

static int add_explicit(struct building *b, const struct ha_row *row)
{
    int r;

    count_explicit(&b->set->report, row);
    r = tokenise(b, cut_slice(&row->prompt, 0, row->prompt.size),
                 cut_slice(&row->chosen, 0, row->chosen.size),
                 cut_slice(&row->rejected, 0, row->rejected.size));
    return r < 0 ? r : keep_pair(b, row->number);
}

/* ---- conversations ---- */

static bool empty_message(const struct ha_messages *messages)
{
    const struct ha_message *last = &messages->items[messages->count - 1];

    return last->role == HA_ROLE_ASSISTANT && blank(last->text, last->size);
}

static void count_conversation(struct ha_pair_report *report, const struct ha_chat_pair *pair)
{
    const struct ha_messages *c = &pair->chosen, *r = &pair->rejected;
    int64_t least = c->count < r->count ? c->count : r->count, common = ha_messages_common(c, r);

    if (common == c->count && common == r->count)
        report->equal_texts++;
    else if (common == least)
        report->prefix_texts++;
    if (c->count != r->count || common < c->count - 1)
        report->prompts_differ++;
    if (empty_message(c) || empty_message(r))
        report->empty_reply++;
}

/* Write prompt, prompt + chosen and prompt + rejected.  -EINVAL when the template refuses. */
static int render_pair(struct building *b, const struct ha_chat_pair *pair)
{
    const struct ha_messages *sides[] = {&pair->chosen, &pair->rejected};
    int r;

    for (int i = 0; i < 3; i++)
        ha_buffer_reset(&b->chat[i]);
    r = ha_chat_render(b->options.chat, &pair->prompt, HA_CHAT_GENERATE, &b->chat[0]);
    for (int i = 0; i < 2 && r == 0; i++) {
        struct ha_messages joint = {0};

        r = ha_messages_join(&joint, &pair->prompt);
        if (r == 0)
            r = ha_messages_join(&joint, sides[i]);
        if (r == 0)
            r = ha_chat_render(b->options.chat, &joint, HA_CHAT_CLOSED, &b->chat[i + 1]);
        ha_messages_clear(&joint);
    }
    return r;
}

/* Bytes of the prompt that both joint texts begin with. */
static size_t common_text(const struct ha_buffer chat[3])
{
    size_t n = 0;

    while (n < chat[0].size && n < chat[1].size && n < chat[2].size &&
           chat[0].data[n] == chat[1].data[n] && chat[0].data[n] == chat[2].data[n])
        n++;
    while (n > 0 && n < chat[0].size && ((uint8_t)chat[0].data[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static int tokenise_pair(struct building *b, const struct ha_chat_pair *pair)
{
    struct ha_ids *ids[] = {&b->prompt, &b->chosen, &b->rejected};
    int r = render_pair(b, pair);

    if (r == -EINVAL) {
        b->set->report.dropped_by_template++;
        return 0;
    }
    if (r < 0)
        return ha_error_set(b->err, -r, "no memory for a conversation");
    count_conversation(&b->set->report, pair);
    if (b->options.split == HA_SPLIT_TURN)
        ha_buffer_truncate(&b->chat[0], common_text(b->chat));
    for (int i = 0; i < 3 && r == 0; i++)
        r = encode(b, (struct slice){ha_buffer_text(&b->chat[i]), b->chat[i].size}, ids[i]);
    if (r == 0)
        r = part_joint_ids(b);
    return r < 0 ? r : 1;
}

static int add_conversation(struct building *b, const struct ha_row *row, enum ha_rows_form form)
{
    struct ha_chat_pair pair = {0};
    enum ha_chat_flaw flaw;
    bool no_turn;
    int r = ha_chat_pair_make(row, form, b->options.split == HA_SPLIT_TURN, &pair, &flaw, &no_turn);

    if (r < 0)
        r = ha_error_set(b->err, -r, "no memory for a conversation");
    else if (flaw != HA_CHAT_FINE)
        b->set->report.dropped_no_dialogue++;
    else
        r = tokenise_pair(b, &pair);
    if (r > 0) {
        b->set->report.no_turn += no_turn;
        r = keep_pair(b, row->number);
    }
    ha_chat_pair_clear(&pair);
    return r;
}

/* ---- rows ---- */

static int add_row(struct building *b, const struct ha_row *row, enum ha_rows_form form)
{
    if (b->options.chat)
        return add_conversation(b, row, form);
    return form == HA_ROWS_IMPLICIT ? add_dialogue(b, row) : add_explicit(b, row);
}

static int add_rows(struct building *b, const struct ha_row *texts, int64_t n,
                    enum ha_rows_form form)
{
    int r = 0;

    b->set->offset = ha_calloc(3 * n + 1, sizeof(*b->set->offset));
    b->set->row = ha_calloc(n, sizeof(*b->set->row));
    if (!b->set->offset || !b->set->row)
        return ha_error_set(b->err, ENOMEM, "no memory for %" PRId64 " pairs", n);
    for (int64_t i = 0; i < n && r == 0; i++) {
        r = add_row(b, &texts[i], form);
        if (r < 0)
            r = row_error(b, &texts[i]);
    }
    b->set->report.pairs = b->set->n_pairs;
    if (r == 0 && b->set->n_pairs == 0)
        r = ha_error_set(b->err, EINVAL,
                         "no pair is left of %" PRId64 " rows: %" PRId64
                         " prompts have max_length = %" PRId64 " ids or more, %" PRId64
                         " rows have an empty text, %" PRId64 " are no dialogue, %" PRId64
                         " are refused by the chat template",
                         n, b->set->report.dropped_prompt_too_long, b->options.max_length,
                         b->set->report.dropped_empty_text, b->set->report.dropped_no_dialogue,
                         b->set->report.dropped_by_template);
    return r;
}

static int build(struct building *b, const struct ha_rows *rows, int64_t asked, uint64_t seed)
{
    struct ha_row *texts = NULL;
    int64_t *numbers = NULL, n = 0;
    int r = ha_select_rows(ha_rows_count(rows), asked, seed, &numbers, &n, b->err);

    if (r == 0)
        r = ha_rows_read(rows, numbers, n, &texts, b->err);
    b->set->report.total = ha_rows_count(rows);
    b->set->report.asked = asked;
    b->set->report.selected = n;
    ha_rows_digest(rows, b->set->data_digest);
    if (r == 0)
        r = add_rows(b, texts, n, ha_rows_form(rows));
    ha_rows_free(texts, n);
    free(numbers);
    return r;
}

int ha_pair_set_create(const struct ha_rows *rows, struct ha_tokenizer *tokenizer,
                       const struct ha_pair_options *options, int64_t asked, uint64_t seed,
                       struct ha_pair_set **ret_set, struct ha_error *err)
{
    struct ha_error local = {0};
    struct building b = {.tokenizer = tokenizer, .options = *options, .err = err ? err : &local};
    int r;

    if (ha_rows_form(rows) == HA_ROWS_PROMPT)
        return ha_error_set(err, EINVAL, "%s: rows of prompts alone cannot be trained on",
                            ha_rows_file_path(rows, 0));
    if (ha_rows_are_messages(rows) && !options->chat)
        return ha_error_set(err, EINVAL,
                            "%s: rows of messages need a chat template; set the model's template "
                            "to \"chat\" or to the name of a format",
                            ha_rows_file_path(rows, 0));
    if (!options->chat && !ha_tokenizer_eos_text(tokenizer))
        return ha_error_set(err, EINVAL,
                            "tokenizer_config.json names no eos_token, which ends "
                            "every completion");
    b.set = calloc(1, sizeof(*b.set));
    if (!b.set)
        return ha_error_set(err, ENOMEM, "no memory for the pairs");
    ha_buffer_init(&b.joint, 0);
    for (int i = 0; i < 3; i++)
        ha_buffer_init(&b.chat[i], 0);
    r = build(&b, rows, asked, seed);
    ha_buffer_clear(&b.joint);
    for (int i = 0; i < 3; i++)
        ha_buffer_clear(&b.chat[i]);
    ha_ids_clear(&b.prompt);
    ha_ids_clear(&b.chosen);
    ha_ids_clear(&b.rejected);
    if (r < 0) {
        ha_pair_set_destroy(b.set);
        return r;
    }
    *ret_set = b.set;
    return 0;
}

void ha_pair_set_destroy(struct ha_pair_set *set)
{
    if (!set)
        return;
    free(set->ids);
    free(set->offset);
    free(set->row);
    free(set);
}

struct ha_pair ha_pair_at(const struct ha_pair_set *set, int64_t index)
{
    const int64_t *o = &set->offset[3 * index];

    return (struct ha_pair){.prompt = set->ids + o[0],
                            .chosen = set->ids + o[1],
                            .rejected = set->ids + o[2],
                            .n_prompt = o[1] - o[0],
                            .n_chosen = o[2] - o[1],
                            .n_rejected = o[3] - o[2],
                            .row = set->row[index]};
}

int ha_pair_report_text(const struct ha_pair_report *report, struct ha_buffer *text)
{
    const struct {
        const char *what;
        int64_t count;
    } lines[] = {
        {"prompts too long, dropped", report->dropped_prompt_too_long},
        {"rows with an empty text, dropped", report->dropped_empty_text},
        {"rows that are no dialogue, dropped", report->dropped_no_dialogue},
        {"rows that the chat template refuses, dropped", report->dropped_by_template},
        {"chosen sequences cut at max_length", report->truncated_chosen},
        {"rejected sequences cut at max_length", report->truncated_rejected},
        {"pairs of equal texts", report->equal_texts},
        {"pairs where one text is the beginning of the other", report->prefix_texts},
        {"pairs cut inside a word", report->cut_inside_word},
        {"pairs whose border ids changed when joined", report->mangled_boundary},
        {"pairs that part before the last reply", report->prompts_differ},
        {"pairs with an empty reply", report->empty_reply},
        {"pairs with an empty completion", report->empty_completion},
        {"pairs without a common turn", report->no_turn},
    };
    int r = ha_buffer_printf(text, "%" PRId64 " rows, %" PRId64 " selected, %" PRId64 " pairs\n",
                             report->total, report->selected, report->pairs);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]) && r == 0; i++)
        if (lines[i].count > 0)
            r = ha_buffer_printf(text, "%s: %" PRId64 "\n", lines[i].what, lines[i].count);
    return r;
}
