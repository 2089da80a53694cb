/* An event file is read back record by record; the checksums are computed here
 * by another method (table of nibbles). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "common/io/events.h"
#include "common/io/file.h"

static uint32_t crc32c(const uint8_t *bytes, size_t size)
{
    uint32_t table[16], crc = 0xffffffff;

    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int k = 0; k < 4; k++)
            table[i] = table[i] >> 1 ^ (table[i] & 1) * 0x82f63b78;
    }
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t masked(const uint8_t *bytes, size_t size)
{
    uint32_t crc = crc32c(bytes, size);

    return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}

static char *only_file(const char *dir)
{
    DIR *folder = opendir(dir);
    struct dirent *entry;
    char *path = NULL;

    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.')
            path = ha_path_join(dir, entry->d_name);
    closedir(folder);
    return path;
}

/* Checks the record at *at and moves behind it; the message is in *ret_message. */
static size_t next_record(const char *bytes, size_t size, size_t *at, const uint8_t **ret_message)
{
    uint64_t length;
    uint32_t crc;

    assert_true(*at + 12 <= size);
    memcpy(&length, bytes + *at, 8);
    memcpy(&crc, bytes + *at + 8, 4);
    assert_int_equal(crc, masked((const uint8_t *)bytes + *at, 8));
    assert_true(*at + 16 + length <= size);
    *ret_message = (const uint8_t *)bytes + *at + 12;
    memcpy(&crc, bytes + *at + 12 + length, 4);
    assert_int_equal(crc, masked(*ret_message, length));
    *at += 16 + length;
    return length;
}

static void scalars_come_back(void **state)
{
    /* wall_time 1.5 (field 1), step 300 (field 2), summary (field 5) with one
     * value: tag "loss" (field 1), simple_value 0.5 (field 2). */
    static const uint8_t want[] = {0x09, 0,    0,    0,    0,    0,    0,    0xf8, 0x3f,
                                   0x10, 0xac, 0x02, 0x2a, 0x0d, 0x0a, 0x0b, 0x0a, 0x04,
                                   'l',  'o',  's',  's',  0x15, 0,    0,    0,    0x3f};
    char dir[] = "/tmp/ha-test-events-XXXXXX", *path, *bytes;
    const uint8_t *message;
    struct ha_events *events;
    size_t size, at = 0, length;

    (void)state;
    assert_int_equal(crc32c((const uint8_t *)"123456789", 9), 0xe3069283);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ha_events_create(dir, 1000, &events, NULL), 0);
    assert_int_equal(ha_events_scalar(events, 1500, 300, "loss", 0.5F, NULL), 0);
    ha_events_destroy(events);
    path = only_file(dir);
    assert_non_null(strstr(path, "events.out.tfevents."));
    assert_int_equal(ha_file_read(path, 4096, &bytes, &size, NULL), 0);
    length = next_record(bytes, size, &at, &message);
    assert_memory_equal(message + length - 13, "brain.Event:2", 13);
    length = next_record(bytes, size, &at, &message);
    assert_int_equal(length, sizeof(want));
    assert_memory_equal(message, want, sizeof(want));
    assert_int_equal(at, size);
    free(bytes);
    free(path);
    assert_int_equal(ha_path_remove_tree(dir, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
