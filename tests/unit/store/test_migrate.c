/* A database of every earlier schema is brought to the newest, with its rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/job.h"
#include "coordinator/store/migrate.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

static char dir[64], path[96];
static const struct ha_by by = {.now_ms = 1000, .actor = "test"};

static int setup(void **state)
{
    (void)state;
    /* In memory where that is possible: every step syncs. */
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

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %.60s", message, sql);
}

/* A sweep that trains one cell and has another's answers waiting, as schema 1
 * stored it. */
static const char rows[] =
    "INSERT INTO store_meta VALUES (1, 5, 'boot', 1);"
    "INSERT INTO sweep (id, name, state, version, expanding, toml, base_dir, overrides,"
    " submit_sha256, data_sha256, priority, seed, budget, max_attempts, max_failures,"
    " wait_when_lost, judge_label, created_ms)"
    " VALUES (1, 's', 'running', 1, 0, '', '', '[]', '', '', 0, 1, 0, 3, 0, 0, '', 1);"
    "INSERT INTO model (id, sweep, name, path, hub_id, template, digest, tokenizer_digest, layers,"
    " family) VALUES (3, 1, 'm', '/m', '', 'hh', 'd', 't', 9, 'llama');"
    "INSERT INTO setting VALUES (1, 'x', '{}');"
    "INSERT INTO cell VALUES (1, 1, 3, 0, 'm/mid', 'mid', '3-5', 1, 1, 1);"
    "INSERT INTO result (id, key, kind, state) VALUES (1, 'a', 'train', 'ready');"
    "INSERT INTO result (id, key, kind, parent, state) VALUES (2, 'b', 'generate', 1, 'waiting');"
    "INSERT INTO stage (id, sweep, cell, model, kind, key, result, state, live)"
    " VALUES (1, 1, 1, 3, 'train', 'a', 1, 'ready', 1);"
    "INSERT INTO stage (id, sweep, cell, model, kind, key, result, state, live)"
    " VALUES (2, 1, 1, 3, 'generate', 'b', 2, 'waiting', 1);"
    "UPDATE result SET owner = id;"
    "INSERT INTO job (id, sweep, kind, model_digest, state, priority, created_ms)"
    " VALUES (1, 1, 'train', 'd', 'ready', 0, 1);"
    "INSERT INTO job (id, sweep, kind, model_digest, state, priority, created_ms)"
    " VALUES (2, 1, 'generate', 'd', 'waiting', 0, 1);"
    "INSERT INTO job_cell VALUES (1, 1, 1, 'pending', ''), (2, 2, 1, 'pending', '');";

static void make(int version)
{
    sqlite3 *db;
    char mark[96];

    remove(path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    run(db, ha_store_schemas[0]);
    run(db, rows);
    for (int next = 2; next <= version; next++)
        run(db, ha_store_schemas[next - 1]);
    snprintf(mark, sizeof mark, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             HA_STORE_APPLICATION_ID, version);
    run(db, mark);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int keep_row(void *context, const struct ha_job_row *row)
{
    struct ha_job_row *kept = context;

    assert_string_equal(row->fuse_key, "");
    assert_int_equal(row->fuse, HA_FUSE_AUTO);
    *kept = *row;
    return 0;
}

/* What was there is kept, unless it was the newest already. */
static void expect_copy(int version)
{
    struct ha_store_facts facts;
    struct ha_store *copy;
    char name[128];

    snprintf(name, sizeof name, "%s.schema%d", path, version);
    if (version == ha_store_schema_count) {
        assert_int_equal(access(name, F_OK), -1);
        return;
    }
    assert_int_equal(ha_store_open_copy(name, &copy, NULL), 0);
    assert_int_equal(ha_store_check_whole(copy, NULL), 0);
    assert_int_equal(ha_store_facts(copy, &facts, NULL), 0);
    assert_int_equal(facts.schema, version);
    assert_int_equal(facts.sweeps, 1);
    ha_store_close(copy);
    snprintf(name, sizeof name, "%s.schema%d.part", path, version);
    assert_int_equal(access(name, F_OK), -1);
}

static void every_schema_leads_to_the_newest(void **state)
{
    (void)state;
    for (int version = 1; version <= ha_store_schema_count; version++) {
        struct ha_error err = {0};
        struct ha_store *store;
        struct ha_job_row row = {0};

        make(version);
        if (ha_store_open(path, &store, &err) < 0)
            fail_msg("schema %d: %s", version, err.text);
        assert_int_equal(ha_store_check(store, NULL), 0);
        expect_copy(version);
        assert_int_equal(ha_store_generation(store), 5);
        assert_int_equal(ha_store_job_each_ready(store, 1000, 0, 9, 9, keep_row, &row, &err), 0);
        assert_int_equal(row.id, 1);
        assert_int_equal(row.turn, 26);
        assert_false(row.grows);
        /* What follows from the end of training still does. */
        assert_int_equal(ha_store_begin(store, NULL), 0);
        assert_int_equal(ha_store_job_cell_end(store, &by, 1, 1, true, "", &err), 0);
        assert_int_equal(ha_store_job_get(store, 2, keep_row, &row, &err), 1);
        assert_int_equal(row.state, HA_JOB_READY);
        assert_int_equal(row.turn, 28);
        assert_int_equal(ha_store_commit(store, NULL), 0);
        ha_store_close(store);
    }
}

/* What was stored before rows were counted is counted with the first start. */
static void rows_of_before_are_counted(void **state)
{
    static const char stored[] =
        "INSERT INTO prompt VALUES (1, 'p', 'question');"
        "INSERT INTO answer (result, cell, adapter_sha256, prompt, sample, prompt_row,"
        " prompt_sha256, text, raw, finish, prompt_tokens, tokens, created_ms)"
        " VALUES (2, 1, '', 0, 0, 1, 'p', 'caf\xc3\xa9', '12345', 'eos', 1, 1, 1);"
        "INSERT INTO metric (result, step, name, value) VALUES (1, 1, 'loss', 1), (1, 2, 'loss', "
        "1);"
        "INSERT INTO worker (id, role, name, machine, instance, host, backend, version, slots, "
        "lost,"
        " seen_ms) VALUES (1, 'judge', 'j', '', '', '', '', '', 1, 0, 1);"
        "INSERT INTO judge (id, sweep, name, settings, eager, samples, max_reasks, max_attempts,"
        " budget, live) VALUES (1, 1, 'j', '{}', 0, 1, 1, 1, 0, 1);"
        "INSERT INTO result (id, key, kind, parent, state) VALUES (3, 'c', 'judge', 2, 'ready');"
        "INSERT INTO item (id, result, answer, sample, judge, model, prompt, answer_sample, turn,"
        " state) VALUES (1, 3, 1, 0, 1, 3, 0, 0, 0, 'ready');"
        "INSERT INTO judge_call (id, item, judge, epoch, worker, state, reserved, begun_ms)"
        " VALUES (1, 1, 1, 1, 1, 'replied', 0, 1);"
        "INSERT INTO judge_raw VALUES (1, x'010203');"
        "INSERT INTO judge_call (id, item, judge, epoch, worker, state, reserved, begun_ms)"
        " VALUES (2, 1, 1, 1, 1, 'unknown', 0, 1);"
        "INSERT INTO attempt (job, generation, number, worker, instance, state, started_ms)"
        " VALUES (1, 1, 1, 1, '', 'leased', 1);"
        "INSERT INTO event (time_ms, sweep, job, subject, before, after, reason, actor)"
        " VALUES (1, 1, 1, 'job 1', '', 'ready', 'why', 'a'), (1, 1, 0, 's', '', '', '', 'a'),"
        " (1, 0, 0, 'w', '', '', 'of none', 'a');"
        "INSERT INTO dimension VALUES (1, 'd');"
        "INSERT INTO score VALUES (1, 1, 3, 'because');";
    int64_t bytes = 0;
    struct ha_store *store;
    sqlite3 *db;

    (void)state;
    make(7);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    run(db, stored);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(ha_store_open(path, &store, NULL), 0);
    assert_int_equal(ha_store_stored_bytes(store, 1, 0, &bytes, NULL, NULL), 0);
    assert_int_equal(bytes, HA_ROW_ANSWER + 5 + 5 + 2 * (HA_ROW_METRIC + 4) + HA_ROW_CALL + 3 +
                                HA_ROW_SCORE + 7 + strlen("[]") + HA_ROW_CELL + strlen("m/mid") +
                                2 * HA_ROW_STAGE + HA_ROW_ITEM + HA_ROW_CALL + HA_ROW_ATTEMPT +
                                2 * HA_ROW_EVENT + strlen("why"));
    ha_store_close(store);
}

static bool takes(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* The constraint on kinds is another, and still one; the tables' rows stand. */
static void kinds_are_those_of_now(void **state)
{
    (void)state;
    for (int version = 1; version <= ha_store_schema_count; version++) {
        struct ha_store *store;
        sqlite3_stmt *check;
        sqlite3 *db;

        make(version);
        assert_int_equal(ha_store_open(path, &store, NULL), 0);
        ha_store_close(store);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        run(db, "PRAGMA foreign_keys = ON");
        assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &check, NULL), 0);
        assert_int_equal(sqlite3_step(check), SQLITE_ROW);
        assert_string_equal(sqlite3_column_text(check, 0), "ok");
        sqlite3_finalize(check);
        assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA foreign_key_check", -1, &check, NULL), 0);
        assert_int_equal(sqlite3_step(check), SQLITE_DONE);
        sqlite3_finalize(check);
        assert_true(takes(db, "INSERT INTO result (id, key, kind, state)"
                              " VALUES (9, 'p', 'probe', 'ready')"));
        assert_true(takes(db, "INSERT INTO stage (sweep, cell, model, kind, key, result, state,"
                              " live) VALUES (1, 1, 3, 'probe', 'p', 9, 'ready', 1)"));
        assert_true(takes(db, "INSERT INTO job (sweep, kind, model_digest, state, priority,"
                              " created_ms) VALUES (1, 'probe', 'd', 'ready', 0, 1)"));
        assert_false(takes(db, "INSERT INTO result (key, kind, state)"
                               " VALUES ('q', 'prove', 'ready')"));
        assert_false(takes(db, "UPDATE stage SET kind = 'x'"));
        assert_false(takes(db, "UPDATE job SET kind = 'judge'"));
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
    }
}

/* Every definition of a database, one per line, by name. */
static char *definitions(void)
{
    sqlite3 *db;
    sqlite3_stmt *list;
    char *text = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT group_concat(type || ' ' || name || ' ' ||"
                                        " ifnull(sql, ''), char(10)) FROM"
                                        " (SELECT * FROM sqlite_schema ORDER BY type, name)",
                                        -1, &list, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(list), SQLITE_ROW);
    text = strdup((const char *)sqlite3_column_text(list, 0));
    sqlite3_finalize(list);
    sqlite3_close(db);
    return text;
}

/* However old it was, it has the tables, indices and triggers of a new one. */
static void an_old_database_becomes_as_a_new_one(void **state)
{
    struct ha_store *store;
    char *new_one, *old_one;

    (void)state;
    assert_int_equal(ha_store_open(path, &store, NULL), 0);
    ha_store_close(store);
    new_one = definitions();
    for (int version = 1; version <= ha_store_schema_count; version++) {
        make(version);
        assert_int_equal(ha_store_open(path, &store, NULL), 0);
        ha_store_close(store);
        old_one = definitions();
        assert_string_equal(old_one, new_one);
        free(old_one);
    }
    free(new_one);
}

/* A step that cannot be made leaves the database at the version before it. */
static void a_step_that_fails_changes_nothing(void **state)
{
    struct ha_store *store;
    struct ha_error err = {0};
    sqlite3_stmt *version;
    sqlite3 *db;

    (void)state;
    make(1);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    run(db, "CREATE TABLE reference (x)"); /* schema 2 makes one */
    sqlite3_close(db);
    assert_true(ha_store_open(path, &store, &err) < 0);
    assert_non_null(strstr(err.text, "schema 2"));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &version, NULL), 0);
    assert_int_equal(sqlite3_step(version), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(version, 0), 1);
    sqlite3_finalize(version);
    assert_false(takes(db, "SELECT fuse FROM sweep")); /* of schema 2, before its failure */
    sqlite3_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_schema_leads_to_the_newest, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_of_before_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(kinds_are_those_of_now, setup, teardown),
        cmocka_unit_test_setup_teardown(an_old_database_becomes_as_a_new_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_step_that_fails_changes_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
