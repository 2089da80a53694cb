/* The test vectors of huggingface/safetensors with its own reasons, files that its Python
 * package wrote, and files that only have the name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/safetensors.h"

/* Why the reference refuses a vector -> what our text says. */
static const struct {
    const char *reason, *says;
} reasons[] = {
    {"MetadataIncompleteBuffer", ""},
    {"HeaderTooLarge", "more than the limit"},
    {"HeaderTooSmall", "not a safetensors file"},
    {"InvalidHeaderLength", "longer than the file"},
    {"InvalidHeaderDeserialization", ":1:"},
    {"InvalidHeader", ""},
    {"TensorInvalidInfo", "make 16 bytes"},
    {"ValidationOverflow", ""},
    {"InvalidOffset", "overlaps"},
};

static void check_vector(const char *path, const char *expected)
{
    struct ha_safetensors *file;
    struct ha_error err = {0};
    int r = ha_safetensors_open(path, &file, &err);

    if (strcmp(expected, "accept") == 0) {
        if (r < 0)
            fail_msg("%s", err.text);
        ha_safetensors_close(file);
        return;
    }
    assert_int_equal(strncmp(expected, "reject:", 7), 0);
    if (r == 0)
        fail_msg("%s was accepted", path);
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (strcmp(reasons[i].reason, expected + 7) == 0) {
            if (!strstr(err.text, reasons[i].says))
                fail_msg("%s: \"%s\" is not %s", path, err.text, expected);
            return;
        }
    }
    fail_msg("%s: no such reason: %s", path, expected);
}

static char *data_folder(const char *name)
{
    const char *root = getenv("HA_TEST_DATA");

    if (!root) {
        print_message("HA_TEST_DATA is not set: real files are not tested\n");
        skip();
    }
    return ha_format("%s/safetensors/%s", root, name);
}

static void agrees_with_the_reference_vectors(void **state)
{
    char *dir = data_folder("hf-rust-test-vectors"), *path = ha_path_join(dir, "EXPECTED.tsv");
    FILE *table = fopen(path, "r");
    char line[512], name[256], expected[128];
    int n = 0;

    (void)state;
    assert_non_null(table);
    free(path);
    assert_non_null(fgets(line, sizeof(line), table));
    while (fgets(line, sizeof(line), table)) {
        assert_int_equal(sscanf(line, "%255s %*d %127s", name, expected), 2);
        path = ha_path_join(dir, name);
        check_vector(path, expected);
        free(path);
        n++;
    }
    assert_int_equal(n, 17);
    fclose(table);
    free(dir);
}

static void reads_the_samples(void **state)
{
    static const struct {
        const char *file, *tensor, *dtype;
    } samples[] = {
        {"d", "d", "F64"},     {"e", "e", "F16"},     {"f", "f", "F32"},
        {"i16_h", "h", "I16"}, {"i32_i", "i", "I32"}, {"i8_b", "b", "I8"},
        {"u16_H", "H", "U16"}, {"u32_I", "I", "U32"}, {"u8_B", "B", "U8"},
    };
    char *dir = data_folder("hf-samples");
    struct ha_safetensors *file;
    struct ha_error err = {0};
    char *path;

    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        path = ha_format("%s/%s.safetensors", dir, samples[i].file);
        if (ha_safetensors_open(path, &file, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(ha_safetensors_count(file), 1);
        assert_string_equal(ha_safetensors_dtype_name(ha_safetensors_at(file, 0)->dtype),
                            samples[i].dtype);
        ha_safetensors_close(file);
        free(path);
    }
    path = ha_path_join(dir, "overall.safetensors");
    assert_int_equal(ha_safetensors_open(path, &file, &err), 0);
    assert_int_equal(ha_safetensors_find(file, "H")->n_elements, 6);
    assert_string_equal(ha_safetensors_metadata(file, "test"), "a");
    ha_safetensors_close(file);
    free(path);
    free(dir);
}

static void refuses_what_only_has_the_name(void **state)
{
    static const char *const names[] = {"html_page_named_model", "text_named_model"};
    char *dir = data_folder("malformed");
    struct ha_safetensors *file;
    struct ha_error err = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        char *path = ha_format("%s/%s.safetensors", dir, names[i]);

        assert_int_equal(ha_safetensors_open(path, &file, &err), -EINVAL);
        assert_non_null(strstr(err.text, "not a safetensors file"));
        free(path);
    }
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_reference_vectors),
        cmocka_unit_test(reads_the_samples),
        cmocka_unit_test(refuses_what_only_has_the_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
