/* Pairs: TRL's cut and ids on odd rows (golden), the cut at the turn, truncation and counts, and
 * the odd records of hh-rlhf where the data folder is at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "tests/unit/data/fixture.h"
#include "worker/data/pairs.h"

#define HUMAN "\\n\\nHuman: Hi"
#define BOT "\\n\\nAssistant:"

static struct ha_rows *open_rows(const char *path)
{
    struct ha_rows *rows = NULL;
    struct ha_error err = {0};

    if (ha_rows_open(&path, 1, &rows, &err) < 0)
        fail_msg("%s", err.text);
    return rows;
}

static struct ha_text text_of(const struct ha_json *json)
{
    /* Only read. */
    return (struct ha_text){(char *)(uintptr_t)ha_json_string(json, ""), ha_json_string_size(json)};
}

static struct ha_json *golden(void)
{
    struct ha_json *all = NULL;

    assert_int_equal(
        ha_json_load(HA_SOURCE_ROOT "/tests/golden/tokenizers/pairs.json", 1 << 20, &all, NULL), 0);
    assert_true(ha_json_size(ha_json_get(all, "rows")) > 20);
    return all;
}

static void assert_part(const struct ha_text *text, size_t from, size_t to,
                        const struct ha_json *expected)
{
    assert_int_equal(to - from, ha_json_string_size(expected));
    assert_memory_equal(text->data + from, ha_json_string(expected, ""), to - from);
}

static void cuts_as_trl(void **state)
{
    struct ha_json *all = golden();
    const struct ha_json *rows = ha_json_get(all, "rows");

    (void)state;
    for (int64_t i = 0; i < ha_json_size(rows); i++) {
        const struct ha_json *row = ha_json_at(rows, i);
        struct ha_text chosen = text_of(ha_json_get(row, "chosen"));
        struct ha_text rejected = text_of(ha_json_get(row, "rejected"));
        struct ha_cut cut;

        assert_int_equal(ha_pair_cut_trl(&chosen, &rejected, &cut), 0);
        assert_part(&chosen, 0, cut.prompt_end, ha_json_get(row, "prompt"));
        assert_part(&chosen, cut.chosen_start, chosen.size, ha_json_get(row, "chosen_reply"));
        assert_part(&rejected, cut.rejected_start, rejected.size,
                    ha_json_get(row, "rejected_reply"));
    }
    ha_json_destroy(all);
}

static void assert_ids(const int32_t *ids, int64_t n, const struct ha_json *expected)
{
    assert_int_equal(n, ha_json_size(expected));
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(ids[i], ha_json_int(ha_json_at(expected, i), -1));
}

/* The golden rows as a file, through the whole of ha_pair_set_create. */
static void ids_as_trl(void **state)
{
    struct ha_json *all = golden();
    const struct ha_json *rows = ha_json_get(all, "rows");
    const struct ha_pair_options options = {.split = HA_SPLIT_TRL};
    struct ha_buffer lines;
    const char *model;
    struct ha_json *expected;
    void *iterator = NULL;
    char *path;

    (void)state;
    ha_buffer_init(&lines, 0);
    for (int64_t i = 0; i < ha_json_size(rows); i++) {
        char *line = ha_json_dump(ha_json_at(rows, i), HA_JSON_COMPACT);
        char *rest = strstr(line, ",\"prompt\"");

        /* {"chosen","rejected"} alone: the prompt would make the row explicit. */
        assert_non_null(rest);
        memcpy(rest, "}\n", 3);
        assert_int_equal(ha_buffer_append_text(&lines, line), 0);
        free(line);
    }
    path = put("golden.jsonl", lines.data);
    while (ha_json_next(ha_json_get(all, "models"), &iterator, &model, &expected)) {
        struct ha_tokenizer *t = demo_tokenizer(model);
        struct ha_rows *data = open_rows(path);
        struct ha_pair_set *set = NULL;

        assert_int_equal(ha_pair_set_create(data, t, &options, 0, 42, &set, NULL), 0);
        assert_int_equal(set->n_pairs, ha_json_size(rows));
        for (int64_t i = 0; i < set->n_pairs; i++) {
            struct ha_pair pair = ha_pair_at(set, i);
            const struct ha_json *ids = ha_json_at(expected, pair.row);

            assert_ids(pair.prompt, pair.n_prompt, ha_json_at(ids, 0));
            assert_ids(pair.chosen, pair.n_chosen, ha_json_at(ids, 1));
            assert_ids(pair.rejected, pair.n_rejected, ha_json_at(ids, 2));
        }
        ha_pair_set_destroy(set);
        ha_rows_close(data);
        ha_tokenizer_destroy(t);
    }
    free(path);
    ha_buffer_clear(&lines);
    ha_json_destroy(all);
}

static char *decode(const struct ha_tokenizer *t, const int32_t *ids, int64_t n)
{
    char *text = NULL;

    assert_int_equal(ha_tokenizer_decode(t, ids, n, true, &text, NULL, NULL), 0);
    return text;
}

/* Nothing is lost at the turn; a token astride the border belongs to both completions. */
static void cut_at_the_turn(void **state)
{
    static const char *const models[] = {"llama-2-demo", "llama-3.1-demo", "qwen2.5-demo",
                                         "qwen3-demo"};
    const struct ha_pair_options options = {.split = HA_SPLIT_TURN};
    char *path =
        put("turn.jsonl",
            "{\"chosen\": \"" HUMAN BOT " It is.\", \"rejected\": \"" HUMAN BOT " I am.\"}\n"
            "{\"chosen\": \"" HUMAN BOT "\\n\\nlate\", \"rejected\": \"" HUMAN BOT " I\"}\n"
            "{\"chosen\": \"" HUMAN BOT "\", \"rejected\": \"" HUMAN BOT " text\"}\n"
            "{\"chosen\": \"" HUMAN BOT " a" HUMAN BOT " b\", \"rejected\": \"" HUMAN BOT
            " c" HUMAN BOT " d\"}\n"
            "{\"chosen\": \"no turn here\", \"rejected\": \"no turn there\"}\n");

    (void)state;
    for (int m = 0; m < 4; m++) {
        struct ha_tokenizer *t = demo_tokenizer(models[m]);
        struct ha_rows *rows = open_rows(path);
        struct ha_pair_set *set = NULL;
        int64_t order[5];
        struct ha_pair pair;
        char *prompt;

        assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 1, &set, NULL), 0);
        assert_int_equal(set->report.no_turn, 1);
        assert_int_equal(set->report.prompts_differ, 1);
        assert_int_equal(set->report.empty_reply, 1);
        for (int64_t i = 0; i < 5; i++)
            order[set->row[i]] = i;
        for (int64_t row = 0; row < 4; row++) {
            int32_t joint[256];

            pair = ha_pair_at(set, order[row]);
            assert_int_equal(pair.chosen[pair.n_chosen - 1], ha_tokenizer_eos_id(t));
            assert_int_equal(pair.rejected[pair.n_rejected - 1], ha_tokenizer_eos_id(t));
            memcpy(joint, pair.prompt, (size_t)pair.n_prompt * sizeof(*joint));
            memcpy(joint + pair.n_prompt, pair.chosen, (size_t)pair.n_chosen * sizeof(*joint));
            prompt = decode(t, joint, pair.n_prompt + pair.n_chosen);
            assert_non_null(strstr(prompt, "Hi\n\nAssistant:"));
            free(prompt);
            prompt = decode(t, pair.prompt, pair.n_prompt);
            /* Row 1 may lose the colon to a token ":\n\n". */
            assert_int_equal(strncmp(prompt, "\n\nHuman: Hi\n\nAssistant", 22), 0);
            if (row != 1)
                assert_string_equal(prompt, "\n\nHuman: Hi\n\nAssistant:");
            free(prompt);
        }
        ha_pair_set_destroy(set);
        ha_rows_close(rows);
        ha_tokenizer_destroy(t);
    }
    free(path);
}

static void long_rows(void **state)
{
    char *path = put(
        "long.jsonl",
        "{\"prompt\": \"one two three four five six\", \"chosen\": \" a\", \"rejected\": \" b\"}\n"
        "{\"prompt\": \"x\", \"chosen\": \" and so on and on and on\", \"rejected\": \"\"}\n");
    struct ha_tokenizer *t = demo_tokenizer("qwen3-demo");
    struct ha_rows *rows = open_rows(path);
    struct ha_pair_options options = {.split = HA_SPLIT_TRL, .max_length = 4};
    struct ha_pair_set *set = NULL;
    struct ha_error err = {0};
    struct ha_buffer text;
    struct ha_pair pair;

    (void)state;
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), 0);
    assert_int_equal(set->n_pairs, 1);
    assert_int_equal(set->report.total, 2);
    assert_int_equal(set->report.selected, 2);
    assert_int_equal(set->report.dropped_prompt_too_long, 1);
    assert_int_equal(set->report.truncated_chosen, 1);
    assert_int_equal(set->report.truncated_rejected, 0);
    assert_int_equal(set->report.empty_reply, 1);
    assert_int_equal(set->longest, 4);
    pair = ha_pair_at(set, 0);
    assert_int_equal(pair.row, 1);
    assert_int_equal(pair.n_prompt, 1);
    assert_int_equal(pair.n_chosen, 3);
    assert_int_equal(pair.n_rejected, 1); /* EOS alone */
    assert_int_not_equal(pair.chosen[2], ha_tokenizer_eos_id(t));
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_pair_report_text(&set->report, &text), 0);
    assert_string_equal(text.data, "2 rows, 2 selected, 1 pairs\n"
                                   "prompts too long, dropped: 1\n"
                                   "chosen sequences cut at max_length: 1\n"
                                   "pairs with an empty reply: 1\n");
    ha_buffer_clear(&text);
    ha_pair_set_destroy(set);
    options.max_length = 1;
    set = NULL;
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no pair is left of 2 rows"));
    assert_null(set);
    ha_rows_close(rows);
    ha_tokenizer_destroy(t);
    free(path);
}

static void refused_rows(void **state)
{
    char *prompts = put("prompts.jsonl", "{\"prompt\": \"x\"}\n");
    char *empty = put("empty.jsonl", "{\"chosen\": \"\", \"rejected\": \"x\"}\n");
    char *apart = put("apart.jsonl", "{\"chosen\": \"yes\", \"rejected\": \"no\"}\n");
    struct ha_tokenizer *t = demo_tokenizer("qwen3-demo");
    struct ha_pair_options options = {.split = HA_SPLIT_TRL};
    struct ha_pair_set *set = NULL;
    struct ha_error err = {0};
    struct ha_rows *rows = open_rows(prompts);
    enum ha_split split;

    (void)state;
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), -EINVAL);
    ha_rows_close(rows);
    rows = open_rows(empty);
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1 rows have an empty text"));
    ha_rows_close(rows);
    rows = open_rows(apart);
    options.require_prompt = true;
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), -EINVAL);
    assert_non_null(strstr(err.text, "row 0: chosen and rejected have no common beginning"));
    options.require_prompt = false;
    assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, &err), 0);
    ha_pair_set_destroy(set);
    ha_rows_close(rows);
    ha_tokenizer_destroy(t);
    assert_int_equal(ha_split_parse("turn", &split), 0);
    assert_int_equal(split, HA_SPLIT_TURN);
    assert_int_equal(ha_split_parse("Turn", &split), -EINVAL);
    free(prompts);
    free(empty);
    free(apart);
}

/* The counts that the data folder's README gives for the odd records. */
static void odd_records_of_hh(void **state)
{
    static const struct {
        const char *name;
        int64_t rows, equal, empty, differ, prefix, cut;
    } files[] = {
        {"harmless-base", 2312, 0, 4, 5, 5, 197},
        {"helpful-base", 2354, 2, 4, 9, 15, 178},
        {"helpful-rejection-sampled", 2749, 32, 0, 3, 7, 234},
    };
    const char *data = getenv("HA_TEST_DATA");
    const struct ha_pair_options options = {.split = HA_SPLIT_TRL};
    struct ha_tokenizer *t;

    (void)state;
    if (!data) {
        print_message("HA_TEST_DATA is not set: the records of hh-rlhf are not tried\n");
        skip();
    }
    t = demo_tokenizer("qwen3-demo");
    for (int i = 0; i < 3; i++) {
        char *path = ha_format("%s/hh-rlhf/%s/test.jsonl.gz", data, files[i].name);
        struct ha_rows *rows = open_rows(path);
        struct ha_pair_set *set = NULL;
        const struct ha_pair_report *report;

        assert_int_equal(ha_pair_set_create(rows, t, &options, 0, 42, &set, NULL), 0);
        report = &set->report;
        assert_int_equal(report->total, files[i].rows);
        assert_int_equal(report->pairs, files[i].rows);
        assert_int_equal(report->equal_texts, files[i].equal);
        assert_int_equal(report->empty_reply, files[i].empty);
        assert_int_equal(report->prompts_differ, files[i].differ);
        assert_int_equal(report->prefix_texts, files[i].prefix);
        assert_int_equal(report->cut_inside_word, files[i].cut);
        ha_pair_set_destroy(set);
        ha_rows_close(rows);
        free(path);
    }
    ha_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_as_trl),     cmocka_unit_test(ids_as_trl),
        cmocka_unit_test(cut_at_the_turn), cmocka_unit_test(long_rows),
        cmocka_unit_test(refused_rows),    cmocka_unit_test(odd_records_of_hh),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
