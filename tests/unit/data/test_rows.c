/* Rows: forms, numbering over files, digests, and one clear line for everything that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "common/base/error.h"
#include "tests/unit/data/fixture.h"
#include "worker/data/rows.h"

static void rows_over_files(void **state)
{
    char *a = put("a.jsonl", "{\"chosen\": \"c0\", \"rejected\": \"r0\"}\n\n"
                             "{\"rejected\": \"r1\", \"chosen\": \"c1\\u0000x\", \"more\": 1}\n");
    char *b = put("b.jsonl", "{\"chosen\": \"c2\", \"rejected\": \"\"}");
    const char *const paths[] = {a, b, a};
    const int64_t wanted[] = {4, 0, 2, 1};
    uint8_t whole[HA_SHA256_BYTES], first[HA_SHA256_BYTES], third[HA_SHA256_BYTES];
    struct ha_rows *rows = NULL;
    struct ha_row *texts = NULL;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_rows_open(paths, 3, &rows, &err), 0);
    assert_int_equal(ha_rows_count(rows), 5);
    assert_int_equal(ha_rows_form(rows), HA_ROWS_IMPLICIT);
    assert_int_equal(ha_rows_file_count(rows), 3);
    assert_string_equal(ha_rows_file_path(rows, 1), b);
    ha_rows_file_digest(rows, 0, first);
    ha_rows_file_digest(rows, 2, third);
    ha_rows_digest(rows, whole);
    assert_memory_equal(first, third, sizeof(first));
    assert_memory_not_equal(first, whole, sizeof(first));
    assert_int_equal(ha_rows_read(rows, wanted, 4, &texts, &err), 0);
    assert_int_equal(texts[0].number, 4);
    assert_int_equal(texts[0].chosen.size, 4);
    assert_memory_equal(texts[0].chosen.data, "c1\0x", 5);
    assert_string_equal(texts[1].chosen.data, "c0");
    assert_string_equal(texts[2].chosen.data, "c2");
    assert_int_equal(texts[2].rejected.size, 0);
    assert_null(texts[2].prompt.data);
    assert_string_equal(texts[3].rejected.data, "r1");
    ha_rows_free(texts, 4);
    free(put("b.jsonl", "{\"chosen\": \"c2\", \"rejected\": \" \"}"));
    assert_int_equal(ha_rows_read(rows, wanted, 4, &texts, &err), -ESTALE);
    assert_non_null(strstr(err.text, b));
    ha_rows_close(rows);
    free(a);
    free(b);
}

static void other_forms(void **state)
{
    char *a = put("e.jsonl", "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n");
    char *b = put("p.jsonl", "{\"prompt\": \"p\"}\n{\"prompt\": \"q\", \"id\": 3}\n");
    const int64_t second = 1;
    struct ha_rows *rows = NULL;
    struct ha_row *texts = NULL;

    (void)state;
    assert_int_equal(ha_rows_open((const char *const *)&a, 1, &rows, NULL), 0);
    assert_int_equal(ha_rows_form(rows), HA_ROWS_EXPLICIT);
    ha_rows_close(rows);
    assert_int_equal(ha_rows_open((const char *const *)&b, 1, &rows, NULL), 0);
    assert_int_equal(ha_rows_form(rows), HA_ROWS_PROMPT);
    assert_int_equal(ha_rows_read(rows, &second, 1, &texts, NULL), 0);
    assert_string_equal(texts[0].prompt.data, "q");
    assert_null(texts[0].chosen.data);
    ha_rows_free(texts, 1);
    ha_rows_close(rows);
    free(a);
    free(b);
}

static void messages(void **state)
{
    char *a = put("messages.jsonl",
                  "{\"prompt\": [{\"role\": \"system\", \"content\": \"s\\u0000t\"}, {\"role\": "
                  "\"user\", \"content\": \"\", \"name\": null}], \"tools\": null, "
                  "\"chat_template_kwargs\": {\"enable_thinking\": false}}\n");
    struct ha_row *texts = NULL;
    struct ha_rows *rows;
    int64_t first = 0;

    (void)state;
    assert_int_equal(ha_rows_open((const char *const *)&a, 1, &rows, NULL), 0);
    assert_int_equal(ha_rows_form(rows), HA_ROWS_PROMPT);
    assert_true(ha_rows_are_messages(rows));
    assert_int_equal(ha_rows_read(rows, &first, 1, &texts, NULL), 0);
    assert_null(texts[0].prompt.data);
    assert_int_equal(texts[0].prompt_list.count, 2);
    assert_int_equal(texts[0].prompt_list.items[0].role, HA_ROLE_SYSTEM);
    assert_int_equal(texts[0].prompt_list.items[0].size, 3);
    assert_memory_equal(texts[0].prompt_list.items[0].text, "s\0t", 3);
    assert_int_equal(texts[0].prompt_list.items[1].size, 0);
    assert_int_equal(texts[0].chosen_list.count, 0);
    ha_rows_free(texts, 1);
    ha_rows_close(rows);
    free(a);
}

static void refusals(void **state)
{
    static const struct {
        const char *text, *part;
        int code;
    } cases[] = {
        {"", "x.jsonl: the data set is empty", -EINVAL},
        {"\n \n", "x.jsonl: the data set is empty", -EINVAL},
        {"{\"chosen\": \"a\", \"rejected\": \"b\"}\n{\"chosen\": \"a\"}",
         "x.jsonl:2: the key \"rejected\"", -EINVAL},
        {"{\"rejected\": \"a\"}", "x.jsonl:1: the key \"chosen\" is missing", -EINVAL},
        {"{\"chosen\": 1, \"rejected\": \"b\"}",
         "x.jsonl:1: \"chosen\" is neither a text nor a list of messages", -EINVAL},
        {"{\"chosen\": [], \"rejected\": []}", "x.jsonl:1: \"chosen\": a list of messages is empty",
         -EINVAL},
        {"{\"prompt\": [1]}", "x.jsonl:1: \"prompt\": message 0 is no {\"role\", \"content\"}",
         -EINVAL},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"tool\", "
         "\"content\": "
         "\"a\"}]}",
         "x.jsonl:1: \"prompt\": message 1 has the role \"tool\"", -ENOTSUP},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": [\"a\"]}]}",
         "the content of message 0 is not a text", -ENOTSUP},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"a\", \"tool_calls\": []}]}",
         "message 0 has \"tool_calls\"", -ENOTSUP},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": []}",
         "x.jsonl:1: tools are not supported", -ENOTSUP},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"chat_template_kwargs\": "
         "{\"enable_thinking\": true}}",
         "x.jsonl:1: chat_template_kwargs has \"enable_thinking\"", -ENOTSUP},
        {"{\"prompt\": \"a\", \"chosen\": [{\"role\": \"user\", \"content\": \"a\"}], "
         "\"rejected\": \"a\"}",
         "x.jsonl:1: texts and lists of messages in one row", -EINVAL},
        {"{\"prompt\": \"a\"}\n{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}]}",
         "x.jsonl:2: a row of messages among rows of texts", -EINVAL},
        {"{\"text\": \"a\"}", "x.jsonl:1: neither", -EINVAL},
        {"[1]", "x.jsonl:1: not an object", -EINVAL},
        {"{\"chosen\": \"a\", \"rejected\": \"b\"}\n{\"chosen\"", "x.jsonl:2:", -EINVAL},
        {"{\"prompt\": \"a\"}\n{\"chosen\": \"a\", \"rejected\": \"b\"}",
         "x.jsonl:2: a row {\"chosen\"", -EINVAL},
        {"{\"chosen\": \"a\", \"chosen\": \"b\"}", "x.jsonl:1:", -EINVAL},
    };
    struct ha_rows *rows = NULL;
    struct ha_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *path = put("x.jsonl", cases[i].text);

        assert_int_equal(ha_rows_open((const char *const *)&path, 1, &rows, &err), cases[i].code);
        if (!strstr(err.text, cases[i].part))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].part);
        free(path);
    }
    assert_null(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_over_files),
        cmocka_unit_test(other_forms),
        cmocka_unit_test(messages),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
