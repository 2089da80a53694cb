/* Which ready jobs a plan gets to see: of each sweep, and how many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/store/db.h"
#include "coordinator/store/job.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

enum { SWEEPS = 64, JOBS = 70, LIMIT = 512 };

static char dir[64];
static struct ha_store *store;
static const struct ha_by by = {.now_ms = 1000, .actor = "test"};

static int setup(void **state)
{
    char path[96];

    (void)state;
    snprintf(dir, sizeof dir, "%s/ha-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.db", dir);
    return ha_store_open(path, &store, NULL);
}

static int teardown(void **state)
{
    (void)state;
    ha_store_close(store);
    return ha_path_remove_tree(dir, NULL);
}

/* Sweeps with JOBS jobs each, numbered from 1; of the jobs only what a plan looks at first. */
static void make(int sweeps, int64_t priority, enum ha_fuse_mode fuse)
{
    static int number;

    assert_int_equal(ha_store_begin(store, NULL), 0);
    for (int i = 0; i < sweeps; i++) {
        char name[32];
        struct ha_sweep_row row = {.name = name,
                                   .toml = "",
                                   .base_dir = "",
                                   .overrides = "[]",
                                   .submit_sha256 = "",
                                   .data_sha256 = "",
                                   .judge_label = "",
                                   .priority = priority,
                                   .fuse = fuse,
                                   .max_attempts = 3,
                                   .cells = JOBS};
        int64_t id;

        snprintf(name, sizeof name, "s%d", number++);
        assert_int_equal(ha_store_sweep_put(store, &by, &row, &id, NULL), 0);
        assert_int_equal(
            ha_db_exec(
                store, NULL,
                "INSERT INTO job (sweep, kind, model_digest, state, priority, fuse_key,"
                " created_ms) WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n"
                " WHERE k < ?2) SELECT ?1, 'generate', 'd', 'ready', 0, ?3, 1000 FROM n",
                "iit", id, (int64_t)JOBS, fuse == HA_FUSE_NEVER ? "" : "f"),
            0);
    }
    assert_int_equal(ha_store_commit(store, NULL), 0);
}

struct seen {
    int64_t of[SWEEPS + 2];
};

static int count(void *context, const struct ha_job_row *row)
{
    struct seen *seen = context;

    assert_true(row->sweep > 0 && row->sweep <= SWEEPS);
    seen->of[row->sweep]++;
    return 0;
}

/* Sweeps [first, last] show so many each, with this number of free slots. */
static void expect(int64_t slots, int first, int last, int64_t each)
{
    struct seen seen = {0};
    int64_t limit = slots * 64 < LIMIT ? slots * 64 : LIMIT;

    assert_true(ha_store_job_each_ready(store, 1000, 0, limit, slots, count, &seen, NULL) >= 0);
    for (int i = first; i <= last; i++)
        assert_int_equal(seen.of[i], each);
}

static void one_sweep_shows_what_may_be_leased(void **state)
{
    (void)state;
    make(1, 0, HA_FUSE_NEVER);
    expect(1, 1, 1, 1);
    expect(30, 1, 1, 30);
    expect(64, 1, 1, 64);
}

static void many_show_several_times_their_share(void **state)
{
    (void)state;
    make(50, 0, HA_FUSE_NEVER);
    expect(1, 1, 50, 1);
    expect(30, 1, 50, 4);
    expect(64, 1, 50, 5);
}

/* A more urgent one may take every slot, so that no other gets one before it. */
static void the_most_urgent_shows_all(void **state)
{
    (void)state;
    make(20, 0, HA_FUSE_NEVER);
    make(1, 5, HA_FUSE_NEVER);
    expect(30, 21, 21, 30);
    expect(30, 1, 20, 6);
    expect(64, 21, 21, 64);
}

static void those_that_may_become_one_show_more(void **state)
{
    (void)state;
    make(40, 0, HA_FUSE_AUTO);
    make(8, 0, HA_FUSE_NEVER);
    expect(1, 1, 40, 16);
    expect(30, 1, 40, 16);
    expect(30, 41, 48, 4);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_sweep_shows_what_may_be_leased),
        CASE(many_show_several_times_their_share),
        CASE(the_most_urgent_shows_all),
        CASE(those_that_may_become_one_show_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
