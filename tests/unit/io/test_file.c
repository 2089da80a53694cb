#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

static char *folder;

static int make_folder(void **state)
{
    char name[] = "/tmp/ha-test-file-XXXXXX";

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

static int count_entries(void)
{
    DIR *dir = opendir(folder);
    int n = 0;

    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void expect_content(const char *path, const char *want)
{
    struct ha_error err = {0};
    char *bytes;
    size_t size;

    assert_int_equal(ha_file_read(path, 1 << 20, &bytes, &size, &err), 0);
    assert_int_equal(size, strlen(want));
    assert_string_equal(bytes, want);
    free(bytes);
}

static void writes_whole_or_not_at_all(void **state)
{
    char *path = ha_path_join(folder, "a");
    struct ha_file_writer *writer;
    struct ha_error err = {0};
    struct stat st;

    (void)state;
    assert_int_equal(ha_file_write(path, "one", 3, 0600, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(ha_file_writer_open(path, 0644, &writer, &err), 0);
    assert_int_equal(ha_file_writer_write(writer, "two", 3, &err), 0);
    expect_content(path, "one");
    assert_int_equal(count_entries(), 2);
    ha_file_writer_destroy(writer);
    expect_content(path, "one");
    assert_int_equal(count_entries(), 1);

    assert_int_equal(ha_file_writer_open(path, 0644, &writer, &err), 0);
    assert_int_equal(ha_file_writer_write(writer, "three", 5, &err), 0);
    assert_int_equal(ha_file_writer_commit(writer, &err), 0);
    ha_file_writer_destroy(writer);
    expect_content(path, "three");
    assert_int_equal(count_entries(), 1);
    free(path);
}

static void names_the_file_in_errors(void **state)
{
    struct ha_error err = {0};
    char *bytes;
    size_t size;

    (void)state;
    assert_int_equal(ha_file_write("/nowhere/at/all", "x", 1, 0644, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    assert_int_equal(ha_file_read("/tmp", 10, &bytes, &size, &err), -EISDIR);
    assert_int_equal(ha_file_read("/nowhere", 10, &bytes, &size, &err), -ENOENT);
}

/* A process limit on file sizes stands in for a disk without room. */
static void keeps_the_old_file_when_writing_fails(void **state)
{
    struct rlimit old, small;
    struct ha_error err = {0};
    char *path = ha_path_join(folder, "full");
    int r, entries;

    (void)state;
    assert_int_equal(ha_file_write(path, "old", 3, 0644, &err), 0);
    entries = count_entries();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 4, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    r = ha_file_write(path, "much longer", 11, 0644, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, -EFBIG);
    assert_non_null(strstr(err.text, path));
    expect_content(path, "old");
    assert_int_equal(count_entries(), entries);
    free(path);
}

static void reads_up_to_the_limit(void **state)
{
    char *path = ha_path_join(folder, "b");
    struct ha_error err = {0};
    char *bytes;
    size_t size;

    (void)state;
    assert_int_equal(ha_file_write(path, "12345678", 8, 0644, &err), 0);
    assert_int_equal(ha_file_read(path, 8, &bytes, &size, &err), 0);
    assert_int_equal(size, 8);
    free(bytes);
    assert_int_equal(ha_file_read(path, 7, &bytes, &size, &err), -EFBIG);
    assert_int_equal(ha_file_read("/proc/self/status", 1 << 20, &bytes, &size, &err), 0);
    assert_true(size > 100);
    free(bytes);
    free(path);
}

static void copies_and_hashes(void **state)
{
    enum { SIZE = (1 << 20) + 4321 };
    char *from = ha_path_join(folder, "c"), *to = ha_path_join(folder, "d");
    char *bytes = malloc(SIZE), *again;
    char hex[HA_SHA256_HEX_BYTES], want[HA_SHA256_HEX_BYTES];
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_error err = {0};
    int64_t n = 0;
    size_t size;

    (void)state;
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    assert_int_equal(ha_file_write(from, bytes, SIZE, 0644, &err), 0);
    assert_int_equal(ha_file_copy(from, to, 0644, &err), 0);
    assert_int_equal(ha_file_read(to, SIZE, &again, &size, &err), 0);
    assert_int_equal(size, SIZE);
    assert_memory_equal(again, bytes, SIZE);
    ha_sha256(bytes, SIZE, digest);
    assert_int_equal(ha_file_sha256(to, hex, &n, &err), 0);
    assert_string_equal(hex, ha_sha256_hex(digest, want));
    assert_int_equal(n, SIZE);
    assert_int_equal(ha_file_copy("/nowhere", to, 0644, &err), -ENOENT);
    assert_true(ha_path_exists(to));
    free(again);
    free(bytes);
    free(from);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_whole_or_not_at_all),
        cmocka_unit_test(names_the_file_in_errors),
        cmocka_unit_test(keeps_the_old_file_when_writing_fails),
        cmocka_unit_test(reads_up_to_the_limit),
        cmocka_unit_test(copies_and_hashes),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
