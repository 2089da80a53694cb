/* TOML documents, with every accessor on every node. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/base/error.h"
#include "common/conf/toml.h"

enum { DEEPEST = 128 };

static void walk(const struct ha_toml *node, int64_t lines, int depth)
{
    int64_t before = 0;

    FUZZ_CHECK(depth < DEEPEST);
    FUZZ_CHECK(ha_toml_line(node) <= lines && ha_toml_key_line(node) <= lines);
    (void)ha_toml_type_name(node);
    (void)ha_toml_int(node, 0);
    (void)ha_toml_real(node, 0);
    (void)ha_toml_bool(node, false);
    if (ha_toml_string(node, NULL))
        FUZZ_CHECK(ha_toml_string(node, NULL)[ha_toml_string_bytes(node)] == '\0');
    for (int64_t i = 0; i < ha_toml_size(node); i++) {
        const struct ha_toml *child = ha_toml_at(node, i);

        if (ha_toml_is(node, HA_TOML_TABLE)) {
            FUZZ_CHECK(ha_toml_key(child));
            FUZZ_CHECK(ha_toml_key_line(child) >= before);
            before = ha_toml_key_line(child);
        }
        walk(child, lines, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_toml *root = NULL;
    struct ha_error err = {0};
    int64_t lines = 1;

    if (fuzz_result(ha_toml_parse((const char *)data, size, "input", &root, &err), &err) < 0)
        return 0;
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    walk(root, lines, 0);
    ha_toml_destroy(root);
    return 0;
}
