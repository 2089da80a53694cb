#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "judge-worker/parser.h"
#include "tests/unit/judge/replies.h"

static struct ha_buffer text;

static int setup(void **state)
{
    (void)state;
    ha_buffer_init(&text, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ha_buffer_clear(&text);
    return 0;
}

static void add(const char *part)
{
    assert_int_equal(ha_buffer_append_text(&text, part), 0);
}

static uint32_t bit(enum ha_judge_repair repair)
{
    return 1u << repair;
}

/* The text holds the sixteen scores of score_of, mended in exactly this way. */
static void expect_scores(uint32_t repairs)
{
    struct ha_judge_scores scores;
    struct ha_error err = {0};
    int r = ha_judge_parse(text.data, text.size, &scores, &err);

    if (r < 0)
        print_message("fault: %s\n", err.text);
    assert_int_equal(r, 0);
    for (int i = 0; i < HA_DIMENSIONS; i++)
        assert_int_equal(scores.value[i], score_of(i));
    assert_int_equal(scores.repairs, repairs);
    ha_judge_scores_clear(&scores);
    ha_buffer_reset(&text);
}

/* The text holds no scores; the fault has these words. */
static void expect_fault(const char *words)
{
    struct ha_judge_scores scores;
    struct ha_error err = {0};

    assert_int_equal(ha_judge_parse(text.data, text.size, &scores, &err), -EBADMSG);
    if (!strstr(err.text, words))
        fail_msg("fault \"%s\" does not say \"%s\"", err.text, words);
    ha_buffer_reset(&text);
}

/* Fifteen right entries and, in the place of Tone, this one. */
static void with_tone(const char *entry)
{
    add("[");
    append_entries(&text, 0, 6, ",");
    add(",");
    add(entry);
    add(",");
    append_entries(&text, 7, 9, ",");
    add("]");
}

static void with_tone_score(const char *score)
{
    char entry[256];

    snprintf(entry, sizeof entry, "{\"dimension\":\"Tone\",\"score\":%s,\"reason\":\"r\"}", score);
    with_tone(entry);
}

static void reads_a_bare_array(void **state)
{
    struct ha_judge_scores scores;

    (void)state;
    append_array(&text);
    assert_int_equal(ha_judge_parse(text.data, text.size, &scores, NULL), 0);
    assert_int_equal(scores.repairs, 0);
    assert_string_equal(scores.reason[3], "because 3");
    ha_judge_scores_clear(&scores);
    expect_scores(0);
    add("  \n");
    append_array(&text);
    add("\n");
    expect_scores(0);
}

static void reads_any_order(void **state)
{
    (void)state;
    add("[");
    append_entries(&text, 9, 7, ",");
    add(",");
    append_entries(&text, 0, 9, ",");
    add("]");
    expect_scores(0);
}

/* Number 1 of the reference's list. */
static void strips_code_fences(void **state)
{
    (void)state;
    add("```json\n");
    append_array(&text);
    add("\n```");
    expect_scores(bit(HA_JUDGE_REPAIR_FENCE));
    add("```\n");
    append_array(&text);
    expect_scores(bit(HA_JUDGE_REPAIR_FENCE)); /* never closed */
}

/* Number 2. */
static void passes_over_chatter(void **state)
{
    (void)state;
    add("Sure, here are the scores [as \"asked\"]: ");
    append_array(&text);
    add(" Hope it helps [1].");
    expect_scores(bit(HA_JUDGE_REPAIR_AROUND));
    add("Here it is:\n```json\n");
    append_array(&text);
    add("\n```\nDone.");
    expect_scores(bit(HA_JUDGE_REPAIR_AROUND) | bit(HA_JUDGE_REPAIR_FENCE));
}

/* Number 3. */
static void unwraps_objects(void **state)
{
    (void)state;
    add("{\"scores\": ");
    append_array(&text);
    add("}");
    expect_scores(bit(HA_JUDGE_REPAIR_WRAPPER));
    add("{\"evaluation\": {\"model\": \"x\", \"results\": ");
    append_array(&text);
    add("}}");
    expect_scores(bit(HA_JUDGE_REPAIR_WRAPPER));
    add("{");
    for (int i = 0; i < HA_DIMENSIONS; i++)
        ha_buffer_printf(&text, "%s\"%s\": {\"score\": %d, \"reason\": \"r\"}", i ? "," : "",
                         ha_dimensions[i].name, score_of(i));
    add("}");
    expect_scores(bit(HA_JUDGE_REPAIR_MAP));
    add("{\"a\": ");
    append_array(&text);
    add(", \"b\": ");
    append_array(&text);
    add("}");
    expect_fault("2 complete sets");
}

/* Number 4. */
static void decodes_once(void **state)
{
    struct ha_buffer inner;

    (void)state;
    ha_buffer_init(&inner, 0);
    append_array(&inner);
    for (int level = 0; level < 2; level++) {
        struct ha_buffer outer;

        ha_buffer_init(&outer, 0);
        ha_buffer_append_text(&outer, "\"");
        for (size_t i = 0; i < inner.size; i++)
            ha_buffer_printf(&outer, "%s%c", strchr("\"\\", inner.data[i]) ? "\\" : "",
                             inner.data[i]);
        ha_buffer_append_text(&outer, "\"");
        ha_buffer_clear(&inner);
        inner = outer;
        ha_buffer_append(&text, inner.data, inner.size);
        if (level == 0)
            expect_scores(bit(HA_JUDGE_REPAIR_DOUBLE));
        else
            expect_fault("not valid JSON");
    }
    ha_buffer_clear(&inner);
}

/* Number 5. */
static void takes_entries_without_brackets(void **state)
{
    (void)state;
    append_entries(&text, 0, 16, "\n");
    expect_scores(bit(HA_JUDGE_REPAIR_BRACKETS));
    append_entries(&text, 0, 16, ",\n");
    expect_scores(bit(HA_JUDGE_REPAIR_BRACKETS));
    append_entries(&text, 0, 16, " and then ");
    expect_fault("no JSON array");
}

/* Number 6. */
static void mends_only_what_is_harmless(void **state)
{
    (void)state;
    add("[");
    append_entries(&text, 0, 16, ",");
    add(",]");
    expect_scores(bit(HA_JUDGE_REPAIR_COMMA));
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"reason\":\"two\nlines\",}");
    expect_scores(bit(HA_JUDGE_REPAIR_CONTROL) | bit(HA_JUDGE_REPAIR_COMMA));
    with_tone("{'dimension':'Tone','score':2,'reason':'r'}");
    expect_fault("not valid JSON");
    with_tone("{\"dimension\":\"Tone\",\"score\":2} // fine\n");
    expect_fault("not valid JSON");
    with_tone("{\xe2\x80\x9c"
              "dimension\xe2\x80\x9d:\"Tone\",\"score\":2}");
    expect_fault("not valid JSON");
}

/* Number 7: nothing of a reply that was cut is kept. */
static void refuses_a_cut_array(void **state)
{
    (void)state;
    append_array(&text);
    text.size -= 40;
    expect_fault("not complete");
    add("[");
    append_entries(&text, 0, 11, ",");
    add(",{\"dimension\":\"Safety\",\"sco");
    expect_fault("not complete");
}

/* Number 8. */
static void wants_each_dimension_once(void **state)
{
    (void)state;
    add("[");
    append_entries(&text, 0, 15, ",");
    add("]");
    expect_fault("1 of the 16 dimensions is missing: Overall");
    add("[");
    append_entries(&text, 0, 16, ",");
    add(",{\"dimension\":\"Clarity\",\"score\":3,\"reason\":\"r\"}]");
    expect_fault("\"Clarity\" is not one of the 16");
    add("[");
    append_entries(&text, 0, 16, ",");
    add(",");
    append_entries(&text, 6, 1, ",");
    add("]");
    expect_scores(bit(HA_JUDGE_REPAIR_TWICE));
    add("[");
    append_entries(&text, 0, 16, ",");
    add(",{\"dimension\":\"Tone\",\"score\":5,\"reason\":\"r\"}]");
    expect_fault("Tone has two scores, 2 and 5");
    add("[]");
    expect_fault("no JSON array");
}

/* Number 9. */
static void knows_spellings_but_guesses_nothing(void **state)
{
    static const char *const same[] = {"tone ", "3. Tone", "TONE", "07) tone", " Tone"};
    static const char *const other[] = {"Tone & Style", "Ton", "T\xc3\xb6ne", "Tone2", ""};
    char entry[256];

    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(entry, sizeof entry, "{\"dimension\":\"%s\",\"score\":2,\"reason\":\"r\"}",
                 same[i]);
        with_tone(entry);
        expect_scores(bit(HA_JUDGE_REPAIR_NAME));
        snprintf(entry, sizeof entry, "{\"dimension\":\"%s\",\"score\":2,\"reason\":\"r\"}",
                 other[i]);
        with_tone(entry);
        expect_fault("is not one of the 16 dimensions");
    }
    with_tone("{\"Dimension\":\"Tone\",\"Score\":2,\"Reason\":\"r\"}");
    expect_scores(bit(HA_JUDGE_REPAIR_KEY));
    with_tone("{\"name\":\"Tone\",\"score\":2,\"reason\":\"r\"}");
    expect_fault("no \"dimension\"");
}

/* Number 10. */
static void takes_integers_in_disguise_only(void **state)
{
    static const char *const bad[] = {"4.5",     "\"4/5\"", "\"four\"", "true",      "null",
                                      "\"N/A\"", "[4]",     "\"2.0\"",  "{\"a\":2}", "\"\""};

    (void)state;
    with_tone_score("\"2\"");
    expect_scores(bit(HA_JUDGE_REPAIR_SCORE_TEXT));
    with_tone_score("2.0");
    expect_scores(bit(HA_JUDGE_REPAIR_SCORE_REAL));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        with_tone_score(bad[i]);
        expect_fault("the score of Tone is");
    }
    with_tone("{\"dimension\":\"Tone\",\"reason\":\"r\"}");
    expect_fault("Tone has no score");
}

/* Number 11. */
static void never_clamps(void **state)
{
    static const char *const bad[] = {"0",
                                      "6",
                                      "-1",
                                      "85",
                                      "1e400",
                                      "2e0",
                                      "0.0",
                                      "\"6\"",
                                      "1234567890123456789012345678901234567890",
                                      "9223372036854775808",
                                      "2.000000000000000000001"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        with_tone_score(bad[i]);
        expect_fault("not an integer from 1 to 5");
    }
    with_tone_score("02");
    expect_fault("not valid JSON");
}

/* Number 12. */
static void notes_flat_and_missing_reasons(void **state)
{
    struct ha_judge_scores scores;

    (void)state;
    add("[");
    for (int i = 0; i < HA_DIMENSIONS; i++) {
        add(i ? "," : "");
        append_entry(&text, i, "3");
    }
    add("]");
    assert_int_equal(ha_judge_parse(text.data, text.size, &scores, NULL), 0);
    assert_int_equal(scores.repairs, bit(HA_JUDGE_REPAIR_FLAT));
    ha_judge_scores_clear(&scores);
    ha_buffer_reset(&text);
    with_tone("{\"dimension\":\"Tone\",\"score\":2}");
    expect_scores(bit(HA_JUDGE_REPAIR_NO_REASON));
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"reason\":null}");
    expect_scores(bit(HA_JUDGE_REPAIR_NO_REASON));
}

/* Number 13. */
static void never_reads_thinking(void **state)
{
    (void)state;
    add("<think>draft: [{\"dimension\":\"Tone\",\"score\":5}]");
    append_array(&text);
    add("</think>\n");
    append_array(&text);
    expect_scores(bit(HA_JUDGE_REPAIR_THINK));
    add("so I will give threes</think>");
    append_array(&text);
    expect_scores(bit(HA_JUDGE_REPAIR_THINK));
    add("<think>");
    append_array(&text);
    expect_fault("thinking does not end");
    append_array(&text);
    add("</think> I cannot decide.");
    expect_fault("no JSON array");
}

/* Number 19: an echoed array beside the judge's own. */
static void refuses_two_sets(void **state)
{
    (void)state;
    add("The text asks for ");
    append_array(&text);
    add(" but my scores are ");
    append_array(&text);
    expect_fault("2 complete sets");
    add("The text asks for [{\"dimension\":\"Tone\",\"score\":5,\"reason\":\"r\"}]; mine: ");
    append_array(&text);
    expect_scores(bit(HA_JUDGE_REPAIR_AROUND));
}

/* Number 20. */
static void survives_bad_bytes(void **state)
{
    struct ha_judge_scores scores;

    (void)state;
    add("\xef\xbb\xbf");
    append_array(&text);
    expect_scores(bit(HA_JUDGE_REPAIR_BOM));
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"reason\":\"a\xff\\ud83d b\\u0000c\"}");
    assert_int_equal(ha_judge_parse(text.data, text.size, &scores, NULL), 0);
    assert_string_equal(scores.reason[6], "a\xef\xbf\xbd\xef\xbf\xbd b\xef\xbf\xbd"
                                          "c");
    ha_judge_scores_clear(&scores);
    expect_scores(bit(HA_JUDGE_REPAIR_CHARACTER));
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"reason\":\"\\ud83d\\ude00\"}");
    expect_scores(0);
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"score\":5}");
    expect_fault("twice");
    with_tone("{\"dimension\":\"Tone\",\"score\":2,\"Score\":5}");
    expect_fault("twice");
    for (int i = 0; i < 10000; i++)
        add("[");
    expect_fault("nested too deep");
    for (int i = 0; i < 10000; i++)
        add("[]");
    expect_fault("over 1000 JSON values");
    ha_buffer_append(&text, "[\0]", 3);
    expect_fault("not valid JSON");
}

static void cuts_long_reasons_at_characters(void **state)
{
    struct ha_judge_scores scores;

    (void)state;
    add("[");
    append_entries(&text, 1, 15, ",");
    add(",{\"dimension\":\"GrammarFluency\",\"score\":1,\"reason\":\"x");
    for (int i = 0; i < HA_JUDGE_REASON_BYTES; i++)
        add("\xc3\xa9");
    add("\"}]");
    assert_int_equal(ha_judge_parse(text.data, text.size, &scores, NULL), 0);
    assert_int_equal(scores.repairs, bit(HA_JUDGE_REPAIR_REASON_CUT));
    assert_int_equal(strlen(scores.reason[0]), HA_JUDGE_REASON_BYTES - 1);
    ha_judge_scores_clear(&scores);
}

/* Every beginning of a good reply is a fault, and none is read past its end. */
static void refuses_every_beginning(void **state)
{
    struct ha_judge_scores scores;

    (void)state;
    append_array(&text);
    for (size_t size = 0; size < text.size; size++) {
        char *copy = malloc(size + (size == 0));

        memcpy(copy, text.data, size);
        assert_int_equal(ha_judge_parse(copy, size, &scores, NULL), -EBADMSG);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_a_bare_array, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_any_order, setup, teardown),
        cmocka_unit_test_setup_teardown(strips_code_fences, setup, teardown),
        cmocka_unit_test_setup_teardown(passes_over_chatter, setup, teardown),
        cmocka_unit_test_setup_teardown(unwraps_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(decodes_once, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_entries_without_brackets, setup, teardown),
        cmocka_unit_test_setup_teardown(mends_only_what_is_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_cut_array, setup, teardown),
        cmocka_unit_test_setup_teardown(wants_each_dimension_once, setup, teardown),
        cmocka_unit_test_setup_teardown(knows_spellings_but_guesses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_integers_in_disguise_only, setup, teardown),
        cmocka_unit_test_setup_teardown(never_clamps, setup, teardown),
        cmocka_unit_test_setup_teardown(notes_flat_and_missing_reasons, setup, teardown),
        cmocka_unit_test_setup_teardown(never_reads_thinking, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_two_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(survives_bad_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(cuts_long_reasons_at_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_every_beginning, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
