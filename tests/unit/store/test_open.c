/* Opening: new, again, foreign, newer, damaged, held by another process. */
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/store/store.h"

static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    /* In memory where that is possible: a large one is written. */
    snprintf(dir, sizeof dir, "%s/ha-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.db", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static struct ha_store *open_store(void)
{
    struct ha_error err = {0};
    struct ha_store *store;

    if (ha_store_open(path, &store, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

static void expect_refused(int code, const char *words)
{
    struct ha_error err = {0};
    struct ha_store *store = NULL;

    assert_int_equal(ha_store_open(path, &store, &err), -code);
    assert_null(store);
    if (!strstr(err.text, words) || !strstr(err.text, path))
        fail_msg("%s", err.text);
}

static void run_sql(const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_new_store_keeps_its_generation(void **state)
{
    struct ha_store *store = open_store();
    int64_t generation = ha_store_generation(store);
    struct stat st;

    (void)state;
    assert_true(generation > 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    ha_store_close(store);
    store = open_store();
    assert_int_equal(ha_store_generation(store), generation);
    assert_int_equal(ha_store_check(store, NULL), 0);
    ha_store_close(store);
}

static void a_foreign_database_is_refused_untouched(void **state)
{
    struct stat before, after;

    (void)state;
    run_sql("CREATE TABLE t (x); PRAGMA application_id = 7;");
    assert_int_equal(stat(path, &before), 0);
    expect_refused(EBADMSG, "another program");
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

static void a_database_without_a_name_is_refused(void **state)
{
    (void)state;
    run_sql("CREATE TABLE t (x);");
    expect_refused(EBADMSG, "another program");
}

static void a_newer_schema_is_refused(void **state)
{
    (void)state;
    ha_store_close(open_store());
    run_sql("PRAGMA user_version = 99;");
    expect_refused(EPROTONOSUPPORT, "newer version");
}

static void a_text_file_is_refused(void **state)
{
    FILE *file = fopen(path, "w");

    (void)state;
    assert_non_null(file);
    for (int i = 0; i < 100; i++)
        fputs("this is no database\n", file);
    fclose(file);
    expect_refused(EBADMSG, "not a database");
}

static void damage_is_found(void **state)
{
    static const char noise[4096] = "noise";
    int fd;

    (void)state;
    ha_store_close(open_store());
    fd = open(path, O_WRONLY);
    for (int page = 2; page < 12; page++)
        assert_int_equal(pwrite(fd, noise, sizeof noise, page * 4096), sizeof noise);
    close(fd);
    expect_refused(EBADMSG, "");
}

/* Reading a large one takes long: it is done once after each start of the machine. */
static void a_large_one_is_read_once_per_boot(void **state)
{
    static const char noise[4096] = "noise";
    int fd;

    (void)state;
    ha_store_close(open_store());
    run_sql("CREATE TABLE filler (b BLOB); INSERT INTO filler VALUES (zeroblob(68000000))");
    ha_store_close(open_store());
    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, noise, sizeof noise, 10000 * 4096), sizeof noise);
    close(fd);
    ha_store_close(open_store()); /* of the same boot */
    run_sql("UPDATE store_meta SET boot_id = 'another'");
    expect_refused(EBADMSG, "restore a backup");
}

static void only_one_process_opens_it(void **state)
{
    struct ha_store *store = open_store();
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        struct ha_store *second;

        /* exec would be needed to use SQLite after fork; opening anew is enough here. */
        _exit(ha_store_open(path, &second, NULL) == -EBUSY ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
    ha_store_close(store);
}

static void a_folder_that_is_not_there(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/none/c.db", dir);
    expect_refused(ENOENT, "No such file");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_new_store_keeps_its_generation),
        CASE(a_foreign_database_is_refused_untouched),
        CASE(a_database_without_a_name_is_refused),
        CASE(a_newer_schema_is_refused),
        CASE(a_text_file_is_refused),
        CASE(damage_is_found),
        CASE(a_large_one_is_read_once_per_boot),
        CASE(only_one_process_opens_it),
        CASE(a_folder_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
