/* From a backup: what is checked, what is refused, and how life goes on. */
#include "support.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "coordinator/server/restore.h"
#include "coordinator/store/backup.h"

enum { CLIENT = 1, WORKER = 2 };

struct place {
    struct bench b;
    char backup[96], target[96], database[128], artifacts[128];
    struct fake_job job; /* that ran when the backup was taken */
};

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    char *message = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    sqlite3_close(db);
}

static void write_file(const char *path, const char *text)
{
    assert_int_equal(ha_file_write(path, text, strlen(text), 0600, NULL), 0);
}

/* The grid's files have invented hashes; in the backup they have those of real files. */
static void add_artifact(struct place *p, const char *invented, const char *text)
{
    char hex[HA_SHA256_HEX_BYTES], path[256], sql[1024];
    uint8_t digest[HA_SHA256_BYTES];

    ha_sha256(text, strlen(text), digest);
    ha_sha256_hex(digest, hex);
    snprintf(path, sizeof path, "%s/artifacts/%.2s", p->backup, hex);
    assert_int_equal(ha_path_make_dirs(path, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/artifacts/%.2s/%s", p->backup, hex, hex);
    write_file(path, text);
    snprintf(sql, sizeof sql,
             "UPDATE artifact SET sha256 = '%s', size = %zu WHERE sha256 = '%s';"
             "UPDATE sweep_file SET sha256 = '%s' WHERE sha256 = '%s';",
             hex, strlen(text), invented, hex, invented);
    snprintf(path, sizeof path, "%s/coordinator.db", p->backup);
    run_sql(path, sql);
}

static void describe(struct place *p)
{
    char path[128], hex[HA_SHA256_HEX_BYTES], text[512];
    int64_t size;

    snprintf(path, sizeof path, "%s/coordinator.db", p->backup);
    assert_int_equal(ha_file_sha256(path, hex, &size, NULL), 0);
    snprintf(text, sizeof text,
             "{\"format\": 1, \"database\": {\"sha256\": \"%s\", \"size\": %lld}}", hex,
             (long long)size);
    snprintf(path, sizeof path, "%s/backup.json", p->backup);
    write_file(path, text);
}

/* A backup of a coordinator with an attempt under way. */
static int setup(void **state)
{
    static struct place p;
    struct bench *b = &p.b;
    struct ha_store_copy *copy;
    char path[128];

    memset(&p, 0, sizeof p);
    bench_open(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &p.job));
    ha_wire_message_destroy(bench_beat(b, WORKER, &p.job, 1));
    snprintf(p.backup, sizeof p.backup, "%s/backup", b->dir);
    snprintf(p.target, sizeof p.target, "%s/target", b->dir);
    snprintf(p.database, sizeof p.database, "%s/coordinator.db", p.target);
    snprintf(p.artifacts, sizeof p.artifacts, "%s/artifacts", p.target);
    assert_int_equal(ha_path_make_dirs(p.backup, 0700, NULL), 0);
    assert_int_equal(ha_path_make_dirs(p.target, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/coordinator.db", p.backup);
    assert_int_equal(ha_store_copy_begin(b->store, path, &copy, NULL), 0);
    assert_int_equal(ha_store_copy_step(copy, INT64_MAX, NULL), 1);
    ha_store_copy_end(copy);
    add_artifact(&p, TRAIN_DIGEST, "train");
    add_artifact(&p, EVAL_DIGEST, "eval");
    describe(&p);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;

    bench_close(&p->b);
    return 0;
}

static int restore(struct place *p, bool discard, struct ha_restore_report *ret_report,
                   struct ha_error *err)
{
    return ha_restore(&(struct ha_restore_options){.backup = p->backup,
                                                   .database = p->database,
                                                   .artifacts = p->artifacts,
                                                   .discard_newer = discard},
                      ret_report, err);
}

static void refused(struct place *p, int code, const char *words)
{
    struct ha_restore_report report;
    struct ha_error err = {0};

    assert_int_equal(restore(p, false, &report, &err), -code);
    if (!strstr(err.text, words))
        fail_msg("%s", err.text);
}

/* The bench goes on from the restored folder. */
static void move_to_target(struct place *p)
{
    char path[160];

    snprintf(path, sizeof path, "%s/coordinator.db", p->b.dir);
    /* bench_restart opens dir/coordinator.db. */
    assert_int_equal(rename(p->database, path), 0);
}

static void life_goes_on_with_other_epochs(void **state)
{
    struct place *p = *state;
    struct bench *b = &p->b;
    struct ha_restore_report report;
    struct ha_wire_message *reply;
    struct ha_wire_attempt_event metric = {
        .kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
        .event.metric = {.cell = p->job.cell, .step = 1, .name = "loss", .value = 1}};
    struct fake_job again;
    struct ha_error err = {0};
    struct stat st;
    int64_t before = ha_store_generation(b->store);

    if (restore(p, false, &report, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(report.sweeps, 1);
    assert_int_equal(report.artifacts, 2);
    assert_int_equal(report.placed, 2);
    assert_int_equal(report.attempts, 1);
    assert_string_equal(report.replaced, "");
    assert_int_equal(stat(p->database, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    bench_kill(b);
    move_to_target(p);
    bench_start(b);
    assert_int_not_equal(ha_store_generation(b->store), before);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1); /* it lives on with its attempt */
    reply = bench_beat(b, WORKER, &p->job, 1);
    for (int64_t i = 0; i < reply->body.heartbeat_reply.n_should_run; i++)
        assert_int_not_equal(reply->body.heartbeat_reply.should_run[i].epoch.generation, before);
    ha_wire_message_destroy(reply);
    /* What it says of the attempt of before is refused. */
    reply = bench_report(b, WORKER, &p->job, &metric, 1);
    assert_true(reply->body.report_reply.stale);
    ha_wire_message_destroy(reply);
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.job, p->job.job);
    assert_int_not_equal(again.epoch.generation, (uint64_t)before);
}

static void a_backup_that_is_not_whole_changes_nothing(void **state)
{
    struct place *p = *state;
    char path[256], hex[HA_SHA256_HEX_BYTES];
    uint8_t digest[HA_SHA256_BYTES];

    ha_sha256("train", 5, digest);
    ha_sha256_hex(digest, hex);
    snprintf(path, sizeof path, "%s/artifacts/%.2s/%s", p->backup, hex, hex);
    write_file(path, "trein");
    refused(p, EBADMSG, "another hash");
    unlink(path);
    refused(p, ENOENT, hex);
    write_file(path, "train");
    snprintf(path, sizeof path, "%s/coordinator.db", p->backup);
    run_sql(path, "UPDATE sweep SET name = 'other'");
    refused(p, EBADMSG, "not those that");
    snprintf(path, sizeof path, "%s/backup.json", p->backup);
    write_file(path, "{\"format\": 2}");
    refused(p, EPROTONOSUPPORT, "newer version");
    unlink(path);
    refused(p, ENOENT, "not a backup");
    assert_false(ha_path_exists(p->database));
}

static void what_is_newer_stays(void **state)
{
    struct place *p = *state;
    struct ha_restore_report report;
    struct ha_error err = {0};
    char path[256];

    /* The same database some events later. */
    snprintf(path, sizeof path, "%s/coordinator.db", p->backup);
    assert_int_equal(ha_file_copy(path, p->database, 0600, NULL), 0);
    run_sql(p->database, "INSERT INTO event (time_ms, subject, before, after, reason, actor)"
                         " VALUES (9000000000000, 'x', '', '', '', '')");
    refused(p, EEXIST, "knows more");
    assert_int_equal(restore(p, true, &report, &err), 0);
    assert_true(strncmp(report.replaced, ".replaced-", 10) == 0);
    snprintf(path, sizeof path, "%s%s", p->database, report.replaced);
    assert_true(ha_path_exists(path));
    /* Restored again: the event of the restore makes it newer than the backup. */
    refused(p, EEXIST, "knows more");
    assert_int_equal(ha_restore_check_marker(p->database, &err), 0);
}

static void what_cannot_be_read_is_put_aside(void **state)
{
    struct place *p = *state;
    struct ha_restore_report report;
    struct ha_error err = {0};

    write_file(p->database, "this is no database at all, and it is long enough to be looked at");
    if (restore(p, false, &report, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(report.replaced[0]);
}

static void a_restore_that_was_cut_off_keeps_the_coordinator_out(void **state)
{
    struct place *p = *state;
    struct ha_restore_report report;
    struct ha_error err = {0};
    char path[256];

    snprintf(path, sizeof path, "%s/restoring", p->target);
    write_file(path, "");
    assert_int_equal(ha_restore_check_marker(p->database, &err), -EBUSY);
    assert_int_equal(restore(p, false, &report, &err), 0);
    assert_int_equal(ha_restore_check_marker(p->database, &err), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(life_goes_on_with_other_epochs),
        CASE(a_backup_that_is_not_whole_changes_nothing),
        CASE(what_is_newer_stays),
        CASE(what_cannot_be_read_is_put_aside),
        CASE(a_restore_that_was_cut_off_keeps_the_coordinator_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
