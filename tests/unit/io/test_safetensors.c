#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/io/safetensors.h"

static char *folder;

static int make_folder(void **state)
{
    char name[] = "/tmp/ha-test-safetensors-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    return folder ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    ha_path_remove_tree(folder, NULL);
    free(folder);
    return 0;
}

/* Open a file made of a header text and so many data bytes. */
static int open_made(const char *header, size_t data_bytes, struct ha_safetensors **ret_file,
                     struct ha_error *err)
{
    char *path = ha_path_join(folder, "made.safetensors");
    size_t header_bytes = strlen(header), size = 8 + header_bytes + data_bytes;
    char *bytes = ha_calloc((int64_t)size, 1);
    uint64_t length = header_bytes;
    int r;

    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, header_bytes);
    assert_int_equal(ha_file_write(path, bytes, size, 0644, err), 0);
    r = ha_safetensors_open(path, ret_file, err);
    free(bytes);
    free(path);
    return r;
}

static void refuse(const char *header, size_t data_bytes, const char *why)
{
    struct ha_safetensors *file;
    struct ha_error err = {0};

    assert_int_equal(open_made(header, data_bytes, &file, &err), -EINVAL);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

#define A4 "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    refuse("[]", 0, "not a JSON object");
    refuse("{" A4 "}", 3, "it was cut");
    refuse("{" A4 "}", 5, "belong to none");
    refuse("{" A4 ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6, "overlaps");
    refuse("{" A4 ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", 9, "gap");
    refuse("{" A4 "," A4 "}", 4, "a");
    refuse("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, "dtype F4");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]}}", 4, "shape[0]");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]}}", 4, "shape[0]");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", 4, "array");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]}}", 4,
           "at most 8");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 4, "data_offsets");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-4,0]}}", 4, "data_offsets");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}", 4, "data_offsets");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "data_offsets");
    refuse("{\"a\":{\"dtype\":\"U16\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "make 8 bytes");
    refuse("{\"a\":{\"dtype\":\"U64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
           "overflows");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
           "overflows");
    refuse("{\"a\":7}", 0, "dtype");
    refuse("{\"__metadata__\":7}", 0, "__metadata__");
    refuse("{\"__metadata__\":{\"k\":7}}", 0, "__metadata__.k");
}

static void tells_whether_data_is_aligned(void **state)
{
    static const char header[] =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}  ";
    const struct ha_safetensors_tensor *tensor;
    struct ha_safetensors *file;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal((8 + sizeof(header) - 1) % 4, 0);
    assert_int_equal(open_made(header, 9, &file, &err), 0);
    tensor = ha_safetensors_find(file, "b");
    assert_non_null(tensor);
    assert_false(tensor->aligned);
    assert_int_equal(tensor->bytes, 8);
    assert_true(ha_safetensors_find(file, "a")->aligned);
    assert_null(ha_safetensors_find(file, "c"));
    ha_safetensors_close(file);
}

static void writes_what_it_reads(void **state)
{
    static const float weights[6] = {1, 2, 3, -4, 5, 6.5f};
    static const uint16_t halves[4] = {0x3f80, 0, 1, 2};
    const struct ha_safetensors_item items[] = {
        {.name = "z.bytes", .dtype = HA_SAFETENSORS_U8, .rank = 1, .shape = {3}, .data = "xyz"},
        {.name = "b", .dtype = HA_SAFETENSORS_F32, .rank = 2, .shape = {2, 3}, .data = weights},
        {.name = "none", .dtype = HA_SAFETENSORS_F32, .rank = 2, .shape = {0, 3}},
        {.name = "h", .dtype = HA_SAFETENSORS_BF16, .rank = 1, .shape = {4}, .data = halves},
        {.name = "a", .dtype = HA_SAFETENSORS_F32, .rank = 0, .data = weights},
    };
    const struct ha_safetensors_pair metadata[] = {{"format", "pt"}, {"é", "ü"}};
    static const char *const order[] = {"a", "b", "none", "h", "z.bytes"};
    char *path = ha_path_join(folder, "w.safetensors");
    const struct ha_safetensors_tensor *tensor;
    struct ha_safetensors *file;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_safetensors_write(path, items, 5, metadata, 2, &err), 0);
    assert_int_equal(ha_safetensors_open(path, &file, &err), 0);
    assert_int_equal(ha_safetensors_count(file), 5);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(ha_safetensors_at(file, i)->name, order[i]);
        assert_true(ha_safetensors_at(file, i)->aligned);
    }
    tensor = ha_safetensors_find(file, "b");
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[0], 2);
    assert_int_equal(tensor->shape[1], 3);
    assert_memory_equal(tensor->data, weights, sizeof(weights));
    assert_memory_equal(ha_safetensors_find(file, "h")->data, halves, sizeof(halves));
    assert_memory_equal(ha_safetensors_find(file, "z.bytes")->data, "xyz", 3);
    assert_int_equal(ha_safetensors_find(file, "none")->bytes, 0);
    assert_string_equal(ha_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(ha_safetensors_metadata(file, "é"), "ü");
    assert_null(ha_safetensors_metadata(file, "other"));
    ha_safetensors_close(file);
    free(path);
}

static void refuses_to_write_nonsense(void **state)
{
    struct ha_safetensors_item items[] = {
        {.name = "a", .dtype = HA_SAFETENSORS_U8, .rank = 1, .shape = {1}, .data = "x"},
        {.name = "m", .dtype = HA_SAFETENSORS_U8, .rank = 1, .shape = {1}, .data = "x"},
        {.name = "a", .dtype = HA_SAFETENSORS_I8, .rank = 1, .shape = {1}, .data = "x"},
    };
    char *path = ha_path_join(folder, "n.safetensors");
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_safetensors_write(path, items, 3, NULL, 0, &err), -EINVAL);
    assert_non_null(strstr(err.text, "two tensors are named a"));
    items[1].shape[0] = -1;
    assert_int_equal(ha_safetensors_write(path, items, 2, NULL, 0, &err), -EINVAL);
    items[0].name = "__metadata__";
    assert_int_equal(ha_safetensors_write(path, items, 1, NULL, 0, &err), -EINVAL);
    assert_false(ha_path_exists(path));
    free(path);
}

static void survives_any_cut_and_any_changed_byte(void **state)
{
    static const float weights[2] = {1, 2};
    const struct ha_safetensors_item item = {
        .name = "w", .dtype = HA_SAFETENSORS_F32, .rank = 1, .shape = {2}, .data = weights};
    char *path = ha_path_join(folder, "cut.safetensors"), *bytes;
    struct ha_safetensors *file;
    struct ha_error err = {0};
    size_t size;

    (void)state;
    assert_int_equal(ha_safetensors_write(path, &item, 1, NULL, 0, &err), 0);
    assert_int_equal(ha_file_read(path, 1 << 20, &bytes, &size, &err), 0);
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(truncate(path, (off_t)(size - 1 - cut)), 0);
        assert_true(ha_safetensors_open(path, &file, &err) < 0);
    }
    for (size_t at = 0; at < size; at++) {
        bytes[at] = (char)(bytes[at] ^ 0x15);
        assert_int_equal(ha_file_write(path, bytes, size, 0644, &err), 0);
        if (ha_safetensors_open(path, &file, &err) == 0)
            ha_safetensors_close(file);
        bytes[at] = (char)(bytes[at] ^ 0x15);
    }
    free(bytes);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(tells_whether_data_is_aligned),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(refuses_to_write_nonsense),
        cmocka_unit_test(survives_any_cut_and_any_changed_byte),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
