/* The models of a worker: what the page cache has of them, how long loading takes, what is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "proto/wire.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/holdings.h"

enum { WEIGHTS = 4 << 20, WAIT_MS = 10000 };

static const int64_t gib = (int64_t)1 << 30;
static char dir[] = "/tmp/ha_test_holdings_XXXXXX";

static void times_to_load(void **state)
{
    const struct holding_speeds speeds = {.disk = (double)gib, .cache = 4.0 * (double)gib};
    static const struct {
        int64_t bytes, cached, ms;
    } rows[] = {
        {16, 16, 4000}, {16, 0, 16000}, {16, -1, 16000}, {16, 8, 10000}, {0, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(holding_load_ms(&speeds, rows[i].bytes * gib,
                                         rows[i].cached < 0 ? -1 : rows[i].cached * gib),
                         rows[i].ms);
    assert_int_equal(holding_load_ms(&speeds, INT64_MAX, 0), 86400000);
}

static void speeds_are_learned(void **state)
{
    struct holding_speeds speeds = {.disk = 1e9, .cache = 4e9};

    (void)state;
    holding_learn(&speeds, gib, gib, (double)gib / 8e9);
    assert_true(speeds.cache > 5.9e9 && speeds.cache < 6.1e9);
    assert_true(speeds.disk == 1e9);
    holding_learn(&speeds, gib, 0, (double)gib / 5e8);
    assert_true(speeds.disk > 7.4e8 && speeds.disk < 7.6e8);
    /* Of both, of neither, in no time: nothing is learned. */
    holding_learn(&speeds, gib, gib / 2, 1);
    holding_learn(&speeds, gib, -1, 1);
    holding_learn(&speeds, gib, gib, 0);
    holding_learn(&speeds, 0, 0, 1);
    assert_true(speeds.cache > 5.9e9 && speeds.disk > 7.4e8);
}

static char *make_model(const char *name)
{
    char *folder = ha_path_join(dir, name), *file = ha_path_join(folder, "a.safetensors");
    char *other = ha_path_join(folder, "config.json"), *bytes = ha_calloc(WEIGHTS, 1);

    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(ha_file_write(file, bytes, WEIGHTS, 0600, NULL), 0);
    assert_int_equal(ha_file_write(other, "{}", 2, 0600, NULL), 0);
    free(bytes);
    free(file);
    free(other);
    return folder;
}

/* What was just written is there; without the file's pages it is not, where the file system lets
 * them go. */
static void the_cache_is_sampled(void **state)
{
    char *folder = make_model("sampled"), *file = ha_path_join(folder, "a.safetensors");
    int64_t bytes, cached = holding_sample(folder, &bytes);
    int fd = open(file, O_RDONLY);

    (void)state;
    assert_int_equal(bytes, WEIGHTS);
    assert_true(cached == WEIGHTS || cached == -1);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    assert_true(holding_sample(folder, &bytes) <= cached);
    close(fd);
    assert_int_equal(holding_sample("/no/such/folder", &bytes), -1);
    assert_int_equal(bytes, 0);
    free(file);
    free(folder);
}

static bool is_loaded(void *context, const char *path, const char *digest)
{
    (void)digest;
    return strcmp(ha_path_basename(path), context) == 0;
}

static void models_are_told(void **state)
{
    const struct holding_speeds speeds = {.disk = 1e6, .cache = 4e6};
    const struct contract_model told = {.bytes = WEIGHTS, .seconds = 1};
    char *first = make_model("first"), *second = make_model("second");
    struct ha_wire_heartbeat beat = {0};
    struct holdings *holdings;
    char loaded[] = "second";

    (void)state;
    assert_int_equal(holdings_create(&speeds, &holdings, NULL), 0);
    holdings_tell(holdings, is_loaded, loaded, &beat);
    assert_int_equal(beat.n_models, 0);
    holdings_add(holdings, first, "d1");
    holdings_add(holdings, second, "d2");
    holdings_add(holdings, first, "d1");
    holdings_loaded(holdings, first, &told); /* mapped: nothing is learned */
    for (int waited = 0; beat.n_models < 2 || beat.models[0].bytes == 0; waited += 10) {
        assert_true(waited < WAIT_MS);
        usleep(10000);
        holdings_tell(holdings, is_loaded, loaded, &beat);
    }
    assert_int_equal(beat.n_models, 2);
    assert_string_equal(beat.models[0].name, "first"); /* used last */
    assert_string_equal(beat.models[0].digest, "d1");
    assert_string_not_equal(beat.models[0].where, "loaded");
    assert_int_equal(beat.models[0].bytes, WEIGHTS);
    assert_true(beat.models[0].load_ms >= 1000 && beat.models[0].load_ms <= 5000);
    assert_string_equal(beat.models[1].where, "loaded");
    assert_int_equal(beat.models[1].load_ms, 0);
    /* No more than a plan looks at. */
    for (int i = 0; i < 2 * HOLDINGS_MOST; i++) {
        char *path = ha_format("/no/model/%d", i);

        holdings_add(holdings, path, "d");
        free(path);
    }
    holdings_tell(holdings, is_loaded, loaded, &beat);
    assert_int_equal(beat.n_models, HOLDINGS_MOST);
    assert_string_equal(beat.models[0].name, "15");
    holdings_destroy(holdings);
    free(first);
    free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_to_load),
        cmocka_unit_test(speeds_are_learned),
        cmocka_unit_test(the_cache_is_sampled),
        cmocka_unit_test(models_are_told),
    };
    int failed;

    if (!mkdtemp(dir))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    ha_path_remove_tree(dir, NULL);
    return failed;
}
