/* toml-test (toml-lang.org): every document of the list of TOML 1.0, the valid ones with
 * their expected values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/toml.h"
#include "tests/conformance/archive.h"

enum { TIME_BYTES = 64 };

/* One form of the several that a date or time may have: "T" between the two, no zeros at the end
 * of a fraction, "Z" for UTC. */
static void normal_time(const char *text, char out[TIME_BYTES])
{
    const char *dot = strchr(text, '.');
    size_t whole = dot ? (size_t)(dot - text) : strlen(text);
    size_t digits = dot ? strspn(dot + 1, "0123456789") : 0, kept = digits;
    const char *zone = dot ? dot + 1 + digits : "";

    while (kept > 0 && dot[kept] == '0')
        kept--;
    (void)snprintf(out, TIME_BYTES, "%.*s%.*s%s", (int)whole, text, kept > 0 ? (int)kept + 1 : 0,
                   dot ? dot : "", zone);
    if (strlen(out) > 10 && out[10] == ' ')
        out[10] = 'T';
    if (strlen(out) > 6 && strcmp(out + strlen(out) - 6, "+00:00") == 0)
        (void)snprintf(out + strlen(out) - 6, 2, "Z");
}

static bool same_time(const char *ours, const char *theirs)
{
    char a[TIME_BYTES], b[TIME_BYTES];

    normal_time(ours, a);
    normal_time(theirs, b);
    return strcmp(a, b) == 0;
}

/* toml-test's tagged JSON against our tree. */
static bool same(const struct ha_toml *node, const struct ha_json *want)
{
    const char *type = ha_json_string(ha_json_get(want, "type"), NULL);
    const char *value = ha_json_string(ha_json_get(want, "value"), NULL);
    const char *key;
    struct ha_json *member;
    void *at = NULL;

    if (ha_json_is(want, HA_JSON_ARRAY)) {
        bool ok = ha_toml_is(node, HA_TOML_ARRAY) && ha_toml_size(node) == ha_json_size(want);

        for (int64_t i = 0; ok && i < ha_json_size(want); i++)
            ok = same(ha_toml_at(node, i), ha_json_at(want, i));
        return ok;
    }
    if (!type || !value) {
        bool ok = ha_toml_is(node, HA_TOML_TABLE) && ha_toml_size(node) == ha_json_size(want);

        while (ok && ha_json_next(want, &at, &key, &member))
            ok = same(ha_toml_get(node, key), member);
        return ok;
    }
    if (strcmp(type, "string") == 0) {
        size_t size = ha_json_string_size(ha_json_get(want, "value"));

        return ha_toml_is(node, HA_TOML_STRING) && ha_toml_string_bytes(node) == size &&
               memcmp(ha_toml_string(node, ""), value, size) == 0;
    }
    if (strcmp(type, "integer") == 0)
        return ha_toml_is(node, HA_TOML_INT) && ha_toml_int(node, 0) == strtoll(value, NULL, 10);
    if (strcmp(type, "float") == 0) {
        double x = strtod(value, NULL), y = ha_toml_real(node, 0.5);

        return ha_toml_is(node, HA_TOML_REAL) && (x == y || (isnan(x) && isnan(y)));
    }
    if (strcmp(type, "bool") == 0)
        return ha_toml_is(node, HA_TOML_BOOL) &&
               ha_toml_bool(node, false) == (strcmp(value, "true") == 0);
    return ha_toml_is(node, HA_TOML_TIME) && same_time(ha_toml_string(node, ""), value);
}

/* Valid documents whose expected value cannot be compared. */
static const struct {
    const char *name, *why;
} exceptions[] = {
    {"valid/key/quoted-unicode.toml",
     "a key with a zero byte, which JSON objects cannot have here"},
};

static bool conforms(const struct archive *archive, const char *name)
{
    const struct archive_file *file = archive_find(archive, name);
    struct ha_toml *root = NULL;
    struct ha_json *want = NULL;
    struct ha_error err = {0};
    char json_name[128];
    int r = ha_toml_parse(file->text, file->size, name, &root, &err);
    bool ok;

    if (strncmp(name, "invalid/", 8) == 0) {
        ha_toml_destroy(root);
        return r < 0 && strncmp(err.text, name, strlen(name)) == 0;
    }
    if (r < 0)
        return false;
    for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++) {
        if (strcmp(name, exceptions[i].name) == 0) {
            print_message("not compared: %s: %s\n", name, exceptions[i].why);
            ha_toml_destroy(root);
            return true;
        }
    }
    (void)snprintf(json_name, sizeof(json_name), "%.*s.json", (int)strlen(name) - 5, name);
    file = archive_find(archive, json_name);
    assert_int_equal(ha_json_parse(file->text, file->size, json_name, &want, &err), 0);
    ok = same(root, want);
    ha_json_destroy(want);
    ha_toml_destroy(root);
    return ok;
}

static void toml_test(void **state)
{
    int64_t valid = 0, invalid = 0, failed = 0;
    struct archive archive;
    char *save = NULL;

    (void)state;
    archive_read("toml-test-tests.tar.gz", "tests/", &archive);
    for (char *name = strtok_r(archive_find(&archive, "files-toml-1.0.0")->text, "\n", &save); name;
         name = strtok_r(NULL, "\n", &save)) {
        size_t length = strlen(name);

        if (length < 5 || strcmp(name + length - 5, ".toml") != 0)
            continue;
        *(strncmp(name, "valid/", 6) == 0 ? &valid : &invalid) += 1;
        if (!conforms(&archive, name)) {
            print_message("wrong: %s\n", name);
            failed++;
        }
    }
    archive_clear(&archive);
    assert_int_equal(valid, 210);
    assert_int_equal(invalid, 499);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(toml_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
