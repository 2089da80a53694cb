/* Held-out prompts: where they end, what is dropped, repeated or seen in training. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "common/base/error.h"
#include "tests/unit/data/fixture.h"
#include "worker/data/prompts.h"

#define HUMAN "\\n\\nHuman: "
#define BOT "\\n\\nAssistant:"

static void where_a_prompt_ends(void **state)
{
    static const char text[] = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d";

    (void)state;
    assert_int_equal(ha_prompt_end(text, sizeof(text) - 1), sizeof(text) - 3);
    assert_int_equal(ha_prompt_end(text, sizeof(text) - 4), 22);
    assert_int_equal(ha_prompt_end(text, 22), 22);
    assert_int_equal(ha_prompt_end(text, 21), 0);
    assert_int_equal(ha_prompt_end("", 0), 0);
}

static const struct ha_prompt *find_row(const struct ha_prompt_set *set, int64_t row)
{
    for (int64_t i = 0; i < set->n_prompts; i++)
        if (set->prompts[i].row == row)
            return &set->prompts[i];
    return NULL;
}

static void held_out(void **state)
{
    char *eval =
        put("eval.jsonl",
            "{\"chosen\": \"" HUMAN "one" BOT " x\", \"rejected\": \"y\"}\n"
            "{\"chosen\": \"" HUMAN "two" BOT " x" HUMAN "more" BOT "\", \"rejected\": \"y\"}\n"
            "{\"chosen\": \"no turn\", \"rejected\": \"y\"}\n"
            "{\"chosen\": \"" HUMAN "one" BOT " other\", \"rejected\": \"y\"}\n"
            "{\"chosen\": \"" HUMAN
            "a very long question, with many words, and then some more of them, which is enough" BOT
            " x\", \"rejected\": \"y\"}\n");
    char *train =
        put("train.jsonl", "{\"chosen\": \"" HUMAN "one" BOT " z\", \"rejected\": \"y\"}\n"
                           "{\"chosen\": \"none\", \"rejected\": \"y\"}\n");
    struct ha_tokenizer *t = demo_tokenizer("llama-3.1-demo");
    struct ha_prompt_set *set = NULL;
    struct ha_rows *rows, *train_rows;
    const struct ha_prompt *prompt;
    struct ha_error err = {0};
    uint8_t digest[HA_SHA256_BYTES];

    (void)state;
    assert_int_equal(ha_rows_open((const char *const *)&eval, 1, &rows, &err), 0);
    assert_int_equal(ha_rows_open((const char *const *)&train, 1, &train_rows, &err), 0);
    assert_int_equal(ha_prompt_set_create(rows, t, NULL, 20, 0, 42, &set, &err), 0);
    assert_int_equal(set->report.total, 5);
    assert_int_equal(set->report.selected, 5);
    assert_int_equal(set->report.prompts, 3);
    assert_int_equal(set->report.dropped_no_turn, 1);
    assert_int_equal(set->report.dropped_too_long, 1);
    assert_int_equal(set->report.repeated, 1);
    prompt = find_row(set, 1);
    assert_string_equal(prompt->text.data,
                        "\n\nHuman: two\n\nAssistant: x\n\nHuman: more\n\nAssistant:");
    ha_sha256(prompt->text.data, prompt->text.size, digest);
    assert_memory_equal(prompt->sha256, digest, sizeof(digest));
    assert_int_equal(prompt->ids[0], ha_tokenizer_bos_id(t));
    assert_in_range(prompt->n_ids, 8, 20);
    assert_int_equal(ha_prompt_set_mark_seen(set, train_rows, 0, 42, &err), 0);
    assert_int_equal(set->report.seen_in_training, 2);
    assert_true(find_row(set, 0)->seen_in_training);
    assert_true(find_row(set, 3)->seen_in_training);
    assert_false(prompt->seen_in_training);
    ha_prompt_set_destroy(set);
    set = NULL;
    assert_int_equal(ha_prompt_set_create(rows, t, NULL, 2, 0, 42, &set, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no prompt is left of 5 rows"));
    assert_null(set);
    ha_rows_close(rows);
    ha_rows_close(train_rows);
    ha_tokenizer_destroy(t);
    free(eval);
    free(train);
}

static void prompts_alone(void **state)
{
    char *path = put("prompts.jsonl", "{\"prompt\": \"Say it\"}\n{\"prompt\": \"\"}\n");
    struct ha_tokenizer *without_bos = demo_tokenizer("qwen3-demo");
    struct ha_tokenizer *with_bos = demo_tokenizer("llama-2-demo");
    struct ha_prompt_set *set = NULL;
    struct ha_rows *rows = NULL;

    (void)state;
    assert_int_equal(ha_rows_open((const char *const *)&path, 1, &rows, NULL), 0);
    assert_int_equal(ha_prompt_set_create(rows, without_bos, NULL, 0, 0, 42, &set, NULL), 0);
    assert_int_equal(set->n_prompts, 1);
    assert_string_equal(set->prompts[0].text.data, "Say it");
    assert_int_equal(set->report.dropped_no_turn, 1);
    ha_prompt_set_destroy(set);
    assert_int_equal(ha_prompt_set_create(rows, with_bos, NULL, 0, 0, 42, &set, NULL), 0);
    assert_int_equal(set->n_prompts, 2);
    assert_int_equal(find_row(set, 1)->n_ids, 1);
    assert_int_equal(find_row(set, 1)->ids[0], ha_tokenizer_bos_id(with_bos));
    ha_prompt_set_destroy(set);
    ha_rows_close(rows);
    ha_tokenizer_destroy(without_bos);
    ha_tokenizer_destroy(with_bos);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_a_prompt_ends),
        cmocka_unit_test(held_out),
        cmocka_unit_test(prompts_alone),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
