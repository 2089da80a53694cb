/* The artifacts folder: uploads in pieces, hashes, restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/path.h"
#include "coordinator/server/disk.h"
#include "coordinator/server/space.h"

static char dir[64], artifacts[96];
static struct ha_disk *disk;

/* Every sync of the program comes here. */
static char syncs[64][128];
static int sync_count;

int fsync(int fd)
{
    char link[32];
    ssize_t n;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, syncs[sync_count % 64], sizeof syncs[0] - 1);
    assert_true(n > 0);
    syncs[sync_count++ % 64][n] = '\0';
    return 0;
}

/* How often that was synced, of late. */
static int synced(const char *path)
{
    int count = 0;

    for (int i = 0; i < 64; i++)
        count += strcmp(syncs[i], path) == 0;
    return count;
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ha-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(artifacts, sizeof artifacts, "%s/artifacts", dir);
    return ha_disk_open(artifacts, &disk, NULL);
}

static int teardown(void **state)
{
    (void)state;
    ha_disk_close(disk);
    return ha_path_remove_tree(dir, NULL);
}

static void restart(void)
{
    ha_disk_close(disk);
    assert_int_equal(ha_disk_open(artifacts, &disk, NULL), 0);
}

static const char *hash_of(const char *text, char hex[HA_SHA256_HEX_BYTES])
{
    uint8_t digest[HA_SHA256_BYTES];

    ha_sha256(text, strlen(text), digest);
    return ha_sha256_hex(digest, hex);
}

static int64_t write_part(const char *sha256, const char *text, int64_t offset, int64_t bytes)
{
    int64_t have = -1;

    assert_int_equal(ha_disk_write(disk, sha256, (int64_t)strlen(text), offset, text + offset,
                                   (size_t)bytes, &have, NULL),
                     0);
    return have;
}

static int64_t state_of(const char *sha256, int64_t size)
{
    int64_t have = -1;

    assert_int_equal(ha_disk_state(disk, sha256, size, &have, NULL), 0);
    return have;
}

static void an_upload_in_pieces(void **state)
{
    static const char text[] = "hello, world";
    char hex[HA_SHA256_HEX_BYTES], back[32];
    const char *sha256 = hash_of(text, hex);
    int64_t size = 0;

    (void)state;
    assert_int_equal(state_of(sha256, 12), 0);
    assert_int_equal(write_part(sha256, text, 0, 5), 5);
    assert_int_equal(write_part(sha256, text, 0, 5), 5); /* repeated */
    assert_int_equal(write_part(sha256, text, 8, 4), 5); /* too far */
    assert_int_equal(ha_disk_read(disk, sha256, 0, back, sizeof back, &size, NULL), -ENOENT);
    assert_int_equal(write_part(sha256, text, 5, 7), 12);
    assert_int_equal(state_of(sha256, 12), 12);
    assert_int_equal(ha_disk_read(disk, sha256, 7, back, sizeof back, &size, NULL), 5);
    assert_memory_equal(back, "world", 5);
    assert_int_equal(size, 12);
    ha_disk_remove(disk, sha256);
    assert_int_equal(state_of(sha256, 12), 0);
}

static void an_upload_goes_on_after_a_restart(void **state)
{
    static const char text[] = "hello, world";
    char hex[HA_SHA256_HEX_BYTES];
    const char *sha256 = hash_of(text, hex);

    (void)state;
    assert_int_equal(write_part(sha256, text, 0, 5), 5);
    restart();
    assert_int_equal(state_of(sha256, 12), 5);
    assert_int_equal(write_part(sha256, text, 5, 7), 12);
    restart();
    assert_int_equal(state_of(sha256, 12), 12);
}

static void the_last_step_is_done_again(void **state)
{
    static const char text[] = "hello, world";
    char hex[HA_SHA256_HEX_BYTES], path[256];
    const char *sha256 = hash_of(text, hex);
    FILE *file;

    (void)state;
    snprintf(path, sizeof path, "%s/partial/%s", artifacts, sha256);
    file = fopen(path, "w"); /* all bytes, but the program ended before it was named */
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(state_of(sha256, 12), 12);
    snprintf(path, sizeof path, "%s/%.2s/%s", artifacts, sha256, sha256);
    assert_true(ha_path_exists(path));
}

/* The last process was killed when it had made the name, and had not synced it: what is called
 * complete is on the disk. */
static void a_name_that_was_not_synced_is_synced(void **state)
{
    static const char text[] = "hello, world";
    char hex[HA_SHA256_HEX_BYTES], path[256];
    const char *sha256 = hash_of(text, hex);
    int before;

    (void)state;
    assert_int_equal(write_part(sha256, text, 0, 12), 12);
    snprintf(path, sizeof path, "%s/%.2s", artifacts, sha256);
    restart();
    before = synced(artifacts) * 100 + synced(path);
    assert_int_equal(state_of(sha256, 12), 12);
    assert_int_equal(synced(artifacts) * 100 + synced(path), before + 101);
    assert_int_equal(state_of(sha256, 12), 12); /* once is enough */
    assert_int_equal(synced(artifacts) * 100 + synced(path), before + 101);
}

static void wrong_bytes_are_thrown_away(void **state)
{
    char hex[HA_SHA256_HEX_BYTES];
    const char *sha256 = hash_of("hello, world", hex);
    int64_t have = -1;

    (void)state;
    assert_int_equal(ha_disk_write(disk, sha256, 12, 0, "hello, earth", 12, &have, NULL), -EBADMSG);
    assert_int_equal(state_of(sha256, 12), 0);
    assert_int_equal(write_part(sha256, "hello, world", 0, 12), 12);
}

static void sizes_are_checked(void **state)
{
    char hex[HA_SHA256_HEX_BYTES];
    const char *sha256 = hash_of("hello, world", hex);
    int64_t have = -1;

    (void)state;
    assert_int_equal(ha_disk_write(disk, sha256, 4, 0, "hello", 5, &have, NULL), -EINVAL);
    assert_int_equal(ha_disk_write(disk, sha256, 12, INT64_MAX, "h", 1, &have, NULL), -EINVAL);
    assert_int_equal(write_part(sha256, "hello, world", 0, 12), 12);
    assert_int_equal(ha_disk_state(disk, sha256, 13, &have, NULL), -EINVAL);
}

static void a_file_that_was_cut_is_taken_anew(void **state)
{
    static const char text[] = "hello, world";
    char hex[HA_SHA256_HEX_BYTES], path[256];
    const char *sha256 = hash_of(text, hex);

    (void)state;
    assert_int_equal(write_part(sha256, text, 0, 12), 12);
    snprintf(path, sizeof path, "%s/%.2s/%s", artifacts, sha256, sha256);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(state_of(sha256, 12), 0);
    assert_int_equal(write_part(sha256, text, 0, 12), 12);
    assert_int_equal(state_of(sha256, 12), 12);
}

static void an_empty_file(void **state)
{
    char hex[HA_SHA256_HEX_BYTES];
    const char *sha256 = hash_of("", hex);

    (void)state;
    assert_int_equal(write_part(sha256, "", 0, 0), 0);
    restart();
    assert_int_equal(state_of(sha256, 0), 0);
}

static void many_uploads_at_once(void **state)
{
    char text[16], hex[HA_SHA256_HEX_BYTES];

    (void)state;
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < 100; i++) {
            snprintf(text, sizeof text, "upload %03d", i);
            assert_int_equal(write_part(hash_of(text, hex), text, 5 * part, 5), 5 + 5 * part);
        }
    }
}

static void the_reserve_comes_and_goes(void **state)
{
    char path[128];
    struct ha_space *space;
    struct stat st;

    (void)state;
    assert_int_equal(ha_space_create(dir, 65536, &space, NULL), 0);
    snprintf(path, sizeof path, "%s/reserve", dir);
    assert_null(ha_space_look(space));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 65536);
    ha_space_give_up(space);
    assert_int_not_equal(stat(path, &st), 0);
    assert_null(ha_space_look(space));
    assert_int_equal(stat(path, &st), 0);
    ha_space_destroy(space);
    assert_int_equal(ha_space_create(dir, INT64_MAX / 4, &space, NULL), 0);
    assert_non_null(ha_space_look(space));
    ha_space_destroy(space);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_upload_in_pieces),         CASE(an_upload_goes_on_after_a_restart),
        CASE(the_last_step_is_done_again), CASE(a_name_that_was_not_synced_is_synced),
        CASE(wrong_bytes_are_thrown_away), CASE(a_file_that_was_cut_is_taken_anew),
        CASE(sizes_are_checked),           CASE(an_empty_file),
        CASE(many_uploads_at_once),        CASE(the_reserve_comes_and_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
