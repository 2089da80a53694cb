#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/path.h"
#include "judge-worker/spool.h"

static char dir[64];
static char file[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ha-spool-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/replies.spool", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

struct seen {
    uint64_t calls[16];
    int count;
    char raw[64];
};

static int see(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    struct seen *seen = context;

    (void)err;
    seen->calls[seen->count++] = record->call;
    assert_true(record->raw_size < sizeof seen->raw);
    memcpy(seen->raw, record->raw, record->raw_size + 1);
    assert_string_equal(record->model, "m");
    assert_int_equal(record->item, 1ULL << 60);
    assert_true(record->flagged);
    return 0;
}

static struct ha_judge_spool *open_spool(struct seen *seen, char **ret_note)
{
    struct ha_judge_spool *spool;

    memset(seen, 0, sizeof *seen);
    assert_int_equal(ha_judge_spool_open(dir, see, seen, &spool, ret_note, NULL), 0);
    return spool;
}

static void add(struct ha_judge_spool *spool, uint64_t call, char *raw, size_t size)
{
    char model[] = "m", text[] = "";
    const struct ha_judge_record record = {.item = 1ULL << 60,
                                           .call = call,
                                           .model = model,
                                           .provider = text,
                                           .identity = text,
                                           .error = text,
                                           .host = text,
                                           .flagged = true,
                                           .http_status = 200,
                                           .raw = raw,
                                           .raw_size = size};

    assert_int_equal(ha_judge_spool_add(spool, &record, NULL), 0);
}

static void keeps_what_is_not_dropped(void **state)
{
    char first[] = "one", second[] = "two\nR 0 0\n\0more";
    struct ha_judge_spool *spool;
    struct stat status;
    struct seen seen;
    char *note;

    (void)state;
    spool = open_spool(&seen, &note);
    add(spool, 1, first, 3);
    add(spool, 2, second, sizeof second - 1);
    add(spool, 3, NULL, 0);
    assert_int_equal(ha_judge_spool_sync(spool, NULL), 0);
    ha_judge_spool_drop(spool, 1);
    ha_judge_spool_drop(spool, 99);
    assert_int_equal(ha_judge_spool_count(spool), 2);
    ha_judge_spool_close(spool);
    spool = open_spool(&seen, &note);
    assert_null(note);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.calls[0], 2);
    assert_int_equal(seen.calls[1], 3);
    assert_string_equal(seen.raw, "");
    ha_judge_spool_drop(spool, 2);
    ha_judge_spool_drop(spool, 3);
    assert_int_equal(stat(file, &status), 0);
    assert_int_equal(status.st_size, 0);
    add(spool, 4, first, 3);
    ha_judge_spool_close(spool);
    spool = open_spool(&seen, &note);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.raw, "one");
    ha_judge_spool_close(spool);
}

/* A crash may leave any beginning of the last record. */
static void cuts_off_a_torn_end(void **state)
{
    struct ha_judge_spool *spool;
    struct stat whole, first;
    struct seen seen;
    char *note, raw[] = "reply";

    (void)state;
    spool = open_spool(&seen, &note);
    add(spool, 1, raw, 5);
    assert_int_equal(stat(file, &first), 0);
    add(spool, 2, raw, 5);
    assert_int_equal(stat(file, &whole), 0);
    ha_judge_spool_close(spool);
    for (off_t size = whole.st_size - 1; size >= first.st_size; size -= 7) {
        assert_int_equal(truncate(file, size), 0);
        spool = open_spool(&seen, &note);
        assert_null(note);
        assert_int_equal(seen.count, 1);
        add(spool, 2, raw, 5);
        ha_judge_spool_close(spool);
    }
}

static void sets_damage_aside(void **state)
{
    struct ha_judge_spool *spool;
    struct stat first;
    struct seen seen;
    char *note, raw[] = "reply", byte = '#';
    int fd;

    (void)state;
    spool = open_spool(&seen, &note);
    add(spool, 1, raw, 5);
    assert_int_equal(stat(file, &first), 0);
    add(spool, 2, raw, 5);
    ha_judge_spool_close(spool);
    fd = open(file, O_WRONLY);
    assert_int_equal(pwrite(fd, &byte, 1, first.st_size + 100), 1);
    close(fd);
    spool = open_spool(&seen, &note);
    assert_non_null(note);
    assert_non_null(strstr(note, "replies.spool.damaged"));
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.calls[0], 1);
    free(note);
    ha_judge_spool_close(spool);
    spool = open_spool(&seen, &note);
    assert_null(note);
    assert_int_equal(seen.count, 1);
    ha_judge_spool_close(spool);
}

static void belongs_to_one_process(void **state)
{
    struct ha_judge_spool *spool, *second;
    struct seen seen;
    char *note;

    (void)state;
    spool = open_spool(&seen, &note);
    assert_int_equal(ha_judge_spool_open(dir, see, &seen, &second, &note, NULL), -EWOULDBLOCK);
    ha_judge_spool_close(spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_what_is_not_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(cuts_off_a_torn_end, setup, teardown),
        cmocka_unit_test_setup_teardown(sets_damage_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(belongs_to_one_process, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
