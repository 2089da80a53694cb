/* What an attempt prints: bounded while it runs, its end kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/path.h"
#include "common/io/file.h"
#include "worker/daemon/log_file.h"
#include "worker/daemon/rank_log.h"

enum { BYTES = 4096, LINE = 64 };

static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ha-test-XXXXXX");
    snprintf(path, sizeof path, "%s/attempt.log", mkdtemp(dir));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static int64_t size_of(const char *suffix)
{
    char name[128];
    struct stat st;

    snprintf(name, sizeof name, "%s%s", path, suffix);
    return stat(name, &st) < 0 ? -1 : st.st_size;
}

static void write_lines(struct log_file *log, int from, int count)
{
    char line[LINE + 1];

    for (int i = from; i < from + count; i++) {
        snprintf(line, sizeof line, "%0*d\n", LINE - 1, i);
        log_file_write(log, line, LINE);
    }
}

/* PATH ends with line `last` and holds nothing but whole lines in order. */
static void expect_end(int last, int64_t bytes)
{
    char *text;
    size_t size;

    assert_int_equal(ha_file_read(path, 1 << 20, &text, &size, NULL), 0);
    assert_int_equal(size, bytes);
    for (int64_t i = bytes / LINE - 1; i >= 0; i--, last--)
        assert_int_equal(strtol(text + i * LINE, NULL, 10), last);
    free(text);
}

static void a_short_one_is_one_file(void **state)
{
    struct log_file *log;

    (void)state;
    assert_int_equal(log_file_open(path, BYTES, 3, &log, NULL), 0);
    write_lines(log, 0, 64); /* exactly full */
    log_file_close(log);
    assert_int_equal(size_of(".1"), -1);
    expect_end(63, BYTES);
}

static void a_long_one_is_bounded(void **state)
{
    struct log_file *log;

    (void)state;
    assert_int_equal(log_file_open(path, BYTES, 3, &log, NULL), 0);
    for (int i = 0; i < 1000; i++) {
        write_lines(log, i * 10, 10);
        assert_true(size_of("") <= BYTES);
        assert_true(size_of(".1") <= BYTES);
        assert_true(size_of(".2") <= BYTES);
        assert_int_equal(size_of(".3"), -1);
    }
    log_file_close(log);
    expect_end(9999, BYTES); /* whatever the last file held */
    assert_int_equal(size_of(".joined"), -1);
}

static void one_file_alone_begins_anew(void **state)
{
    struct log_file *log;

    (void)state;
    assert_int_equal(log_file_open(path, BYTES, 1, &log, NULL), 0);
    write_lines(log, 0, 65);
    log_file_close(log);
    assert_int_equal(size_of(".1"), -1);
    expect_end(64, LINE);
}

static void one_piece_may_be_longer_than_a_file(void **state)
{
    struct log_file *log;
    char *text = malloc(10 * BYTES);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', 10 * BYTES);
    assert_int_equal(log_file_open(path, BYTES, 2, &log, NULL), 0);
    log_file_write(log, text, 10 * BYTES);
    log_file_write(log, "end", 3);
    assert_true(size_of("") <= BYTES);
    log_file_close(log);
    assert_int_equal(size_of(""), BYTES);
    free(text);
}

static void a_disk_that_takes_nothing_stops_nobody(void **state)
{
    struct log_file *log;

    (void)state;
    assert_int_equal(log_file_open("/dev/full", BYTES, 2, &log, NULL), 0);
    write_lines(log, 0, 10);
    log_file_close(log);
}

/* Of a rank, what it printed last. */
static void the_end_of_a_log_is_told_in_whole_lines(void **state)
{
    static struct rank_log told;
    struct log_file *log;

    (void)state;
    assert_int_equal(log_file_open(path, 1 << 20, 2, &log, NULL), 0);
    write_lines(log, 0, 3);
    log_file_write(log, "caf\xc3\xa9 \xff\n", 8);
    log_file_close(log);
    rank_log_read(dir, 0, true, &told);
    assert_string_equal(told.path, path);
    assert_string_equal(told.tail + 3 * (size_t)LINE, "caf\xc3\xa9 ?");
    rank_log_read(dir, 0, false, &told);
    assert_string_equal(told.tail, "");
    rank_log_read(dir, 1, true, &told); /* it never began */
    assert_string_equal(told.path, "");
    assert_int_equal(log_file_open(path, 1 << 20, 2, &log, NULL), 0);
    write_lines(log, 0, 1000);
    log_file_close(log);
    rank_log_read(dir, 0, true, &told);
    assert_int_equal((strlen(told.tail) + 1) % LINE, 0);
    assert_string_equal(told.tail + strlen(told.tail) - 5, "00999");
    assert_true(strlen(told.tail) > RANK_LOG_TAIL_BYTES - 2 * LINE);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_short_one_is_one_file),
        CASE(a_long_one_is_bounded),
        CASE(one_file_alone_begins_anew),
        CASE(one_piece_may_be_longer_than_a_file),
        CASE(a_disk_that_takes_nothing_stops_nobody),
        CASE(the_end_of_a_log_is_told_in_whole_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
