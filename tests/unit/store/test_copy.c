/* Copies of the database that nobody writes: opened, read through, refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/store.h"

static char dir[64], path[96], copy_path[128];
static struct ha_store *store;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ha-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.db", dir);
    snprintf(copy_path, sizeof copy_path, "%s/a copy?x=1#y%%20.db", dir); /* as no URI reads it */
    return ha_store_open(path, &store, NULL);
}

static int teardown(void **state)
{
    (void)state;
    ha_store_close(store);
    return ha_path_remove_tree(dir, NULL);
}

static void add(int number)
{
    char hex[65];

    snprintf(hex, sizeof hex, "%064x", number);
    assert_int_equal(ha_store_begin(store, NULL), 0);
    assert_int_equal(ha_store_artifact_add(store, hex, number, 1, NULL), 0);
    assert_int_equal(ha_store_commit(store, NULL), 0);
}

/* A page or so at a time, with turns in between. */
static void make_copy(int turns)
{
    struct ha_store_copy *copy;
    int64_t done, total;
    int r, n = 1000;

    assert_int_equal(ha_store_copy_begin(store, copy_path, &copy, NULL), 0);
    do {
        r = ha_store_copy_step(copy, 0, NULL);
        assert_true(r >= 0);
        for (int i = 0; r == 0 && i < turns; i++)
            add(n++);
    } while (r == 0);
    ha_store_copy_progress(copy, &done, &total);
    assert_int_equal(done, total);
    ha_store_copy_end(copy);
}

static int count_one(void *context, const char *sha256, int64_t size)
{
    (void)sha256;
    (void)size;
    ++*(int64_t *)context;
    return 0;
}

static void turns_go_into_the_copy(void **state)
{
    struct ha_store_facts here, there;
    struct ha_store *copy;
    struct ha_error err = {0};
    int64_t n = 0;

    (void)state;
    for (int i = 0; i < 900; i++)
        add(i);
    make_copy(3);
    if (ha_store_open_copy(copy_path, &copy, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(ha_store_check_whole(copy, &err), 0);
    assert_int_equal(ha_store_facts(copy, &there, &err), 0);
    assert_int_equal(ha_store_facts(store, &here, &err), 0);
    assert_memory_equal(&here, &there, sizeof here);
    assert_int_equal(ha_store_artifact_each(copy, count_one, &n, &err), 0);
    assert_int_equal(n, there.artifacts);
    assert_true(n >= 900);
    ha_store_close(copy);
}

static void a_step_within_a_turn_is_refused(void **state)
{
    struct ha_store_copy *copy;

    (void)state;
    assert_int_equal(ha_store_copy_begin(store, copy_path, &copy, NULL), 0);
    assert_int_equal(ha_store_begin(store, NULL), 0);
    assert_int_equal(ha_store_copy_step(copy, 0, NULL), -EBUSY);
    ha_store_rollback(store);
    assert_true(ha_store_copy_step(copy, INT64_MAX, NULL) == 1);
    ha_store_copy_end(copy);
}

static void change(const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(copy_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refused(int code, bool opens, const char *words)
{
    struct ha_store *copy;
    struct ha_error err = {0};
    int r = ha_store_open_copy(copy_path, &copy, &err);

    if (r == 0) {
        assert_true(opens);
        r = ha_store_check_whole(copy, &err);
        ha_store_close(copy);
    }
    assert_int_equal(r, -code);
    if (!strstr(err.text, words))
        fail_msg("%s", err.text);
}

static void damage_is_found(void **state)
{
    static const char noise[4096] = "noise";
    int fd;

    (void)state;
    for (int i = 0; i < 500; i++)
        add(i);
    make_copy(0);
    change("INSERT INTO judge_raw VALUES (12345, x'00')"); /* of no call */
    refused(EBADMSG, true, "refers to none in table of judge_raw");
    make_copy(0);
    fd = open(copy_path, O_WRONLY);
    for (int page = 2; page < 12; page++)
        assert_int_equal(pwrite(fd, noise, sizeof noise, page * 4096), sizeof noise);
    close(fd);
    refused(EBADMSG, true, "");
    assert_int_equal(truncate(copy_path, 5000), 0);
    refused(EBADMSG, true, "");
    assert_int_equal(truncate(copy_path, 0), 0);
    refused(EBADMSG, false, "empty");
    unlink(copy_path);
    refused(ENOENT, false, "No such file");
}

static void another_versions_copy_is_refused(void **state)
{
    (void)state;
    make_copy(0);
    change("PRAGMA user_version = 99");
    refused(EPROTONOSUPPORT, false, "newer version");
    change("PRAGMA user_version = 1; PRAGMA application_id = 5");
    refused(EBADMSG, false, "another program");
}

static void a_new_life_has_other_numbers(void **state)
{
    int64_t before = ha_store_generation(store);

    (void)state;
    assert_int_equal(ha_store_begin(store, NULL), 0);
    assert_int_equal(ha_store_new_life(store, NULL), 0);
    assert_int_equal(ha_store_commit(store, NULL), 0);
    assert_int_not_equal(ha_store_generation(store), before);
    before = ha_store_generation(store);
    assert_int_equal(ha_store_fold(store, NULL), 0);
    ha_store_close(store);
    assert_int_equal(ha_store_open(path, &store, NULL), 0);
    assert_int_equal(ha_store_generation(store), before);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(turns_go_into_the_copy),
        CASE(a_step_within_a_turn_is_refused),
        CASE(damage_is_found),
        CASE(another_versions_copy_is_refused),
        CASE(a_new_life_has_other_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
