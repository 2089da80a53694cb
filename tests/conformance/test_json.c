/* JSONTestSuite (nst/JSONTestSuite): what must parse, what must not, and what we make of the
 * documents that each parser may treat as it likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "tests/conformance/archive.h"

/* Documents that the suite wants to be taken and that we refuse. */
static const struct {
    const char *name, *why;
} exceptions[] = {
    {"y_object_duplicated_key.json", "two values of one name: which is meant?"},
    {"y_object_duplicated_key_and_value.json", "two values of one name: which is meant?"},
    {"y_object_escaped_null_in_key.json", "a zero byte in a name; names are C strings here"},
};

/* "i_": free choice.  These we take; every other one we refuse. */
static const char *const taken[] = {
    "i_number_double_huge_neg_exp.json",   "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",       "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json", "i_structure_500_nested_arrays.json",
};

/* What some documents become; NULL: refused. */
static const struct {
    const char *name, *becomes;
} transforms[] = {
    {"number_-9223372036854775808.json", "[-9223372036854775808]"},
    {"number_-9223372036854775809.json", "[-9.2233720368547758e18]"},
    {"number_1.0.json", "[1.0]"},
    {"number_1.000000000000000005.json", "[1.0]"},
    {"number_1000000000000000.json", "[1000000000000000]"},
    {"number_10000000000000000999.json", "[1e19]"},
    {"number_1e-999.json", "[0.0]"},
    {"number_1e6.json", "[1000000.0]"},
    {"number_9223372036854775807.json", "[9223372036854775807]"},
    {"number_9223372036854775808.json", "[9.2233720368547758e18]"},
    {"object_key_nfc_nfd.json", "{\"\xc3\xa9\":\"NFC\",\"e\xcc\x81\":\"NFD\"}"},
    {"object_key_nfd_nfc.json", "{\"e\xcc\x81\":\"NFD\",\"\xc3\xa9\":\"NFC\"}"},
    {"object_same_key_different_values.json", NULL},
    {"object_same_key_same_value.json", NULL},
    {"object_same_key_unclear_values.json", NULL},
    {"string_1_escaped_invalid_codepoint.json", NULL},
    {"string_1_invalid_codepoint.json", NULL},
    {"string_2_escaped_invalid_codepoints.json", NULL},
    {"string_2_invalid_codepoints.json", NULL},
    {"string_3_escaped_invalid_codepoints.json", NULL},
    {"string_3_invalid_codepoints.json", NULL},
    {"string_with_escaped_NULL.json", "[\"A\\u0000B\"]"},
};

static bool must_parse(const char *name)
{
    for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++)
        if (strcmp(name, exceptions[i].name) == 0)
            return false;
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        if (strcmp(name, taken[i]) == 0)
            return true;
    return name[0] == 'y';
}

/* The document as we write it; NULL when it is refused. */
static char *rewritten(const struct archive_file *file, const char *name)
{
    struct ha_json *json = NULL;
    struct ha_error err = {0};
    char *text;

    if (ha_json_parse(file->text, file->size, name, &json, &err) < 0) {
        assert_int_equal(strncmp(err.text, name, strlen(name)), 0);
        return NULL;
    }
    text = ha_json_dump(json, HA_JSON_COMPACT);
    assert_non_null(text);
    ha_json_destroy(json);
    return text;
}

/* What we wrote is the same document. */
static bool stays_equal(const char *text)
{
    struct archive_file file = {.text = (char *)(uintptr_t)text, .size = strlen(text)};
    char *again = rewritten(&file, "again");
    bool equal = again && strcmp(again, text) == 0;

    free(again);
    return equal;
}

static void parsing(void **state)
{
    static const char folder[] = "test_parsing/";
    int counts[3] = {0}, failed = 0, plain = 0;
    struct archive archive;

    (void)state;
    archive_read("JSONTestSuite-test_parsing-test_transform.tar.gz", "JSONTestSuite/", &archive);
    for (int64_t i = 0; i < archive.count; i++) {
        const char *name = archive.files[i].name + sizeof(folder) - 1;
        char *text;

        if (strncmp(archive.files[i].name, folder, sizeof(folder) - 1) != 0)
            continue;
        counts[name[0] == 'y' ? 0 : name[0] == 'n' ? 1 : 2]++;
        text = rewritten(&archive.files[i], name);
        plain += text && ha_json_is_plain(archive.files[i].text, archive.files[i].size);
        if (!text && !strstr(name, "duplicated_key") &&
            ha_json_is_plain(archive.files[i].text, archive.files[i].size))
            failed++;
        if (!!text != must_parse(name) || (text && !stays_equal(text))) {
            print_message("wrong: %s is %s\n", name, text ? text : "refused");
            failed++;
        }
        free(text);
    }
    archive_clear(&archive);
    assert_int_equal(counts[0], 95);
    assert_int_equal(counts[1], 188);
    assert_int_equal(counts[2], 35);
    assert_int_equal(failed, 0);
    assert_true(plain > 60); /* most of those that have to be taken */
}

static void transforming(void **state)
{
    struct archive archive;
    int failed = 0;

    (void)state;
    archive_read("JSONTestSuite-test_parsing-test_transform.tar.gz",
                 "JSONTestSuite/test_transform/", &archive);
    for (size_t i = 0; i < sizeof(transforms) / sizeof(transforms[0]); i++) {
        const char *want = transforms[i].becomes;
        char *text = rewritten(archive_find(&archive, transforms[i].name), transforms[i].name);

        if (!text != !want || (text && strcmp(text, want) != 0)) {
            print_message("wrong: %s is %s\n", transforms[i].name, text ? text : "refused");
            failed++;
        }
        free(text);
    }
    archive_clear(&archive);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parsing),
        cmocka_unit_test(transforming),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
