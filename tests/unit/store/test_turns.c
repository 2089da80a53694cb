/* Turns and savepoints; counters that follow the rows; limits in the schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/job.h"
#include "coordinator/store/request.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

static char dir[64], path[96];
static struct ha_store *store;
static const struct ha_by by = {.now_ms = 1000, .actor = "test"};

static int setup(void **state)
{
    (void)state;
    /* In memory where that is possible: a sync per turn adds up. */
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

static void begin(void)
{
    assert_int_equal(ha_store_begin(store, NULL), 0);
}

static void commit(void)
{
    struct ha_error err = {0};

    if (ha_store_commit(store, &err) < 0)
        fail_msg("%s", err.text);
}

static void reopen(void)
{
    ha_store_close(store);
    assert_int_equal(ha_store_open(path, &store, NULL), 0);
}

static int has(const char *sha256)
{
    return ha_store_artifact_find(store, sha256, NULL, NULL);
}

static const char *name_of(int number)
{
    static char name[65];

    snprintf(name, sizeof name, "%064d", number);
    return name;
}

static void put(int number)
{
    assert_int_equal(ha_store_artifact_add(store, name_of(number), 1, 1, NULL), 0);
}

static void what_was_committed_stays(void **state)
{
    (void)state;
    begin();
    put(1);
    commit();
    begin();
    put(2);
    reopen(); /* as a crash would */
    assert_int_equal(has(name_of(1)), 1);
    assert_int_equal(has(name_of(2)), 0);
}

static void one_request_is_undone_alone(void **state)
{
    (void)state;
    begin();
    assert_int_equal(ha_store_mark(store, NULL), 0);
    put(1);
    assert_int_equal(ha_store_keep(store, NULL), 0);
    assert_int_equal(ha_store_mark(store, NULL), 0);
    put(2);
    ha_store_undo(store);
    assert_int_equal(ha_store_mark(store, NULL), 0);
    put(3);
    assert_int_equal(ha_store_keep(store, NULL), 0);
    assert_false(ha_store_broken(store));
    commit();
    assert_int_equal(has(name_of(1)), 1);
    assert_int_equal(has(name_of(2)), 0);
    assert_int_equal(has(name_of(3)), 1);
}

static void constraints_are_a_requests_own_error(void **state)
{
    struct ha_error err = {0};

    (void)state;
    begin();
    assert_int_equal(ha_store_mark(store, NULL), 0);
    assert_int_equal(ha_store_artifact_add(store, "short", 1, 1, &err), -EEXIST);
    ha_store_undo(store);
    assert_false(ha_store_broken(store));
    put(1);
    commit();
    assert_int_equal(has(name_of(1)), 1);
}

static void a_write_error_breaks_the_turn(void **state)
{
    struct rlimit limit, none;

    (void)state;
    begin();
    put(1);
    commit();
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    none = limit;
    none.rlim_cur = 1024;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    begin();
    put(2);
    assert_true(ha_store_commit(store, NULL) < 0);
    assert_true(ha_store_broken(store));
    ha_store_rollback(store);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(has(name_of(1)), 1);
    assert_int_equal(has(name_of(2)), 0);
    begin();
    put(3);
    commit();
    reopen();
    assert_int_equal(has(name_of(3)), 1);
}

static void replies_are_kept_by_key(void **state)
{
    struct ha_buffer reply;

    (void)state;
    ha_buffer_init(&reply, 0);
    begin();
    assert_int_equal(ha_store_request_find(store, "k", "me", "h", &reply, NULL), 0);
    assert_int_equal(ha_store_request_add(store, "k", "me", "h", "bytes", 5, 1000, NULL), 0);
    assert_int_equal(ha_store_request_find(store, "k", "me", "h", &reply, NULL), 1);
    assert_string_equal(ha_buffer_text(&reply), "bytes");
    assert_int_equal(ha_store_request_find(store, "k", "me", "x", &reply, NULL), -EEXIST);
    assert_int_equal(ha_store_request_find(store, "k", "you", "h", &reply, NULL), -EEXIST);
    assert_int_equal(ha_store_request_prune(store, 1000 + HA_REQUEST_KEPT_MS, NULL), 0);
    assert_int_equal(ha_store_request_find(store, "k", "me", "h", &reply, NULL), 1);
    assert_int_equal(ha_store_request_prune(store, 1001 + HA_REQUEST_KEPT_MS, NULL), 0);
    assert_int_equal(ha_store_request_find(store, "k", "me", "h", &reply, NULL), 0);
    commit();
    ha_buffer_clear(&reply);
}

/* ---- a sweep by hand ------------------------------------------------------------------- */

struct ids {
    int64_t sweep, model, cell, result;
};

static struct ids make_cell(const char *sweep, const char *key)
{
    struct ha_sweep_row row = {.name = sweep,
                               .toml = "",
                               .base_dir = "",
                               .overrides = "[]",
                               .submit_sha256 = "",
                               .data_sha256 = "",
                               .judge_label = "",
                               .max_attempts = 3,
                               .cells = 1};
    struct ha_model_row model = {.name = "m",
                                 .path = "",
                                 .hub_id = "",
                                 .prompt_template = "hh",
                                 .digest = "d",
                                 .tokenizer_digest = "t",
                                 .family = "llama"};
    struct ha_cell_row cell = {
        .name = "m/mid", .strategy = "mid", .layers = "1", .settings = "{}", .version = 1};
    struct ids ids = {0};
    struct ha_stage_spec spec = {.kind = HA_STAGE_TRAIN, .key = key, .model_digest = "d"};

    assert_int_equal(ha_store_sweep_put(store, &by, &row, &ids.sweep, NULL), 0);
    assert_int_equal(ha_store_model_put(store, ids.sweep, &model, &ids.model, NULL), 0);
    cell.sweep = ids.sweep;
    cell.model = ids.model;
    assert_int_equal(ha_store_cell_put(store, &cell, &ids.cell, NULL), 0);
    spec.sweep = ids.sweep;
    spec.cell = ids.cell;
    spec.model = ids.model;
    assert_int_equal(ha_store_stage_attach(store, &by, &spec, &ids.result, NULL), 0);
    return ids;
}

static int read_counts(void *context, const struct ha_sweep_row *row)
{
    *(struct ha_sweep_row *)context = *row;
    return 1;
}

static struct ha_sweep_row counts(int64_t sweep)
{
    struct ha_sweep_row row = {0};

    assert_int_equal(ha_store_sweep_each(store, sweep, NULL, read_counts, &row, NULL), 0);
    return row;
}

static void counters_follow_the_states(void **state)
{
    struct ids a, b;
    int64_t job;

    (void)state;
    begin();
    a = make_cell("a", "k1");
    b = make_cell("b", "k1");
    assert_int_equal(a.result, b.result);
    assert_int_equal(counts(a.sweep).stages, 1);
    assert_int_equal(counts(a.sweep).stages_done, 0);
    assert_int_equal(ha_store_job_of_result(store, a.result, &job, NULL), 1);
    assert_int_equal(ha_store_job_set(store, &by, job, HA_JOB_FAILED, "x", NULL), 0);
    assert_int_equal(counts(a.sweep).stages_failed, 1);
    assert_int_equal(counts(b.sweep).stages_failed, 1);
    assert_int_equal(ha_store_sweep_settle(store, &by, NULL, NULL, NULL), 0);
    assert_int_equal(counts(b.sweep).state, HA_SWEEP_GAPS);
    commit();
}

static int read_state(void *context, const struct ha_job_row *row)
{
    *(enum ha_job_state *)context = row->state;
    return 0;
}

static void transitions_are_those_of_the_table(void **state)
{
    enum ha_job_state now = HA_JOB_ASIDE;
    struct ids a;
    int64_t job;

    (void)state;
    begin();
    a = make_cell("a", "k1");
    assert_int_equal(ha_store_job_of_result(store, a.result, &job, NULL), 1);
    assert_int_equal(ha_store_job_set(store, &by, job, HA_JOB_WAITING, "", NULL), -EINVAL);
    assert_int_equal(ha_store_job_set(store, &by, job, HA_JOB_LEASED, "", NULL), 0);
    assert_int_equal(ha_store_job_set(store, &by, job, HA_JOB_RUNNING, "", NULL), 0);
    assert_int_equal(ha_store_job_get(store, job, read_state, &now, NULL), 1);
    assert_int_equal(now, HA_JOB_RUNNING);
    assert_int_equal(ha_store_job_set(store, &by, 77, HA_JOB_RUNNING, "", NULL), -ENOENT);
    commit();
}

static int count_event(void *context, const struct ha_event_row *row)
{
    assert_string_equal(row->actor, "test");
    (*(int *)context)++;
    return 0;
}

static void every_change_is_in_the_history(void **state)
{
    struct ids a;
    int64_t job;
    int before = 0, after = 0;

    (void)state;
    begin();
    a = make_cell("a", "k1");
    assert_int_equal(ha_store_job_of_result(store, a.result, &job, NULL), 1);
    assert_int_equal(ha_store_event_each(store, a.sweep, 0, 0, 100, count_event, &before, NULL), 0);
    assert_int_equal(ha_store_job_set(store, &by, job, HA_JOB_LEASED, "", NULL), 0);
    assert_int_equal(ha_store_event_each(store, a.sweep, 0, 0, 100, count_event, &after, NULL), 0);
    assert_int_equal(after, before + 2); /* the job's, and its stage's */
    commit();
}

/* So many MiB more in the log, of 256 pages each. */
static void fill_log(int mebibytes)
{
    char *body = calloc(1, 1 << 20), key[32];
    static int number;

    assert_non_null(body);
    begin();
    for (int i = 0; i < mebibytes; i++) {
        snprintf(key, sizeof key, "log%d", number++);
        assert_int_equal(ha_store_request_add(store, key, "c", "h", body, 1 << 20, 1000, NULL), 0);
    }
    commit();
    free(body);
}

static void expect_moved(enum ha_leisure leisure, int64_t times)
{
    assert_int_equal(ha_store_tidy(store, leisure, NULL), 0);
    assert_int_equal(ha_store_tidied(store).times, times);
}

/* The less time there is, the longer the log grows before it is moved. */
static void the_log_is_moved_when_there_is_time(void **state)
{
    (void)state;
    fill_log(2);
    expect_moved(HA_LEISURE_REST, 0);
    assert_false(ha_store_wants_rest(store));
    fill_log(2);
    assert_true(ha_store_wants_rest(store));
    expect_moved(HA_LEISURE_NONE, 0);
    expect_moved(HA_LEISURE_TURN, 0);
    expect_moved(HA_LEISURE_REST, 1);
    expect_moved(HA_LEISURE_REST, 1);
    assert_false(ha_store_wants_rest(store));
    fill_log(32);
    expect_moved(HA_LEISURE_NONE, 1);
    begin();
    expect_moved(HA_LEISURE_TURN, 1); /* not in a turn */
    commit();
    expect_moved(HA_LEISURE_TURN, 2);
    fill_log(63);
    expect_moved(HA_LEISURE_NONE, 3);
    assert_true(ha_store_tidied(store).pages >= 99 * 256);
    assert_true(ha_store_tidied(store).longest_ns <= ha_store_tidied(store).all_ns);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_committed_stays),
        CASE(one_request_is_undone_alone),
        CASE(constraints_are_a_requests_own_error),
        CASE(a_write_error_breaks_the_turn),
        CASE(replies_are_kept_by_key),
        CASE(counters_follow_the_states),
        CASE(transitions_are_those_of_the_table),
        CASE(every_change_is_in_the_history),
        CASE(the_log_is_moved_when_there_is_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
