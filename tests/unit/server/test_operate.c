/* What is set while a sweep runs; workers that are drained. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/store/sweep.h"

enum { CLIENT = 1, WORKER = 2, OTHER = 3, JUDGE = 4 };

static int setup(void **state)
{
    static struct bench b;

    bench_open(&b);
    bench_hello_client(&b, CLIENT);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

static const char *next_key(void)
{
    static char key[16];
    static int count;

    snprintf(key, sizeof key, "key%d", count++);
    return key;
}

static struct ha_wire_message setting(const char **text)
{
    return (struct ha_wire_message){
        .kind = HA_WIRE_CHANGE,
        .body.change = {
            .key = next_key(), .verb = "set", .sweep = "demo", .settings = text, .n_settings = 1}};
}

static void set(struct bench *b, const char *text)
{
    struct ha_wire_message message = setting(&text);

    ha_wire_message_destroy(bench_call(b, CLIENT, &message, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
}

static void refused(struct bench *b, const char *text, uint32_t code)
{
    struct ha_wire_message message = setting(&text);

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, code);
}

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct ha_sweep_row *kept = context;

    *kept = *row;
    return 1;
}

static struct ha_sweep_row sweep(struct bench *b)
{
    struct ha_sweep_row row;

    assert_int_equal(ha_store_sweep_each(b->store, 0, "demo", read_sweep, &row, NULL), 0);
    return row;
}

static int read_settings(void *context, const struct ha_judge_row *row)
{
    snprintf(context, 2048, "%s", row->settings);
    return 1;
}

static void expect_judge(struct bench *b, const char *part)
{
    char settings[2048];

    assert_int_equal(ha_store_judge_each(b->store, 0, 1, read_settings, settings, NULL), 0);
    assert_non_null(strstr(settings, part));
}

static void settings_without_effect_on_results_are_set(void **state)
{
    struct bench *b = *state;

    bench_create(b, CLIENT);
    set(b, "priority=7");
    assert_int_equal(sweep(b).priority, 7);
    assert_int_equal(sweep(b).cells, 2);
    set(b, "priority=-3"); /* the newest word counts */
    assert_int_equal(sweep(b).priority, -3);
    set(b, "retry.max_attempts=9");
    assert_int_equal(sweep(b).max_attempts, 9);
    assert_int_equal(sweep(b).priority, -3);
    set(b, "concurrency=5");
    expect_judge(b, "\"concurrency\":5");
    set(b, "judge.q.requests_per_minute=77");
    expect_judge(b, "\"requests_per_minute\":77");
    bench_restart(b);
    assert_int_equal(sweep(b).priority, -3);
}

static void settings_of_results_are_refused(void **state)
{
    struct bench *b = *state;

    bench_create(b, CLIENT);
    refused(b, "train.beta=0.5", EINVAL);
    refused(b, "generate.batch_invariant=true", EINVAL);
    refused(b, "judge.q.temperature=0.5", EINVAL);
    refused(b, "priority", EINVAL);
    refused(b, "priority=much", EINVAL);
    refused(b, "judge.nobody.budget=1", ENOENT);
    refused(b, "resources.nodes=2", EINVAL); /* without GPUs to share */
    assert_int_equal(sweep(b).priority, 0);
    assert_int_equal(sweep(b).version, 1);
}

/* What runs goes on, and is the same job afterwards. */
static void set_disturbs_nothing(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    set(b, "priority=2");
    assert_null(bench_push(b, WORKER, HA_WIRE_REVOKE));
    bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

/* ---- drain ------------------------------------------------------------------------------ */

static struct ha_wire_message draining(const char *verb, const char *worker, int64_t deadline_ms)
{
    return (struct ha_wire_message){.kind = HA_WIRE_CHANGE,
                                    .body.change = {.key = next_key(),
                                                    .verb = verb,
                                                    .worker = worker,
                                                    .deadline_ms = deadline_ms,
                                                    .reason = "new driver"}};
}

static int64_t drain(struct bench *b, const char *verb, const char *worker, int64_t deadline_ms)
{
    struct ha_wire_message message = draining(verb, worker, deadline_ms);
    struct ha_wire_message *reply = bench_call(b, CLIENT, &message, HA_WIRE_CHANGE_REPLY);
    int64_t changed = reply->body.change_reply.changed;

    ha_wire_message_destroy(reply);
    bench_settle(b);
    return changed;
}

static void expect_worker(struct bench *b, const char *state, const char *note)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_WORKERS_REQUEST};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &ask, HA_WIRE_WORKERS_REPLY);
    const struct ha_wire_worker_row *row = &reply->body.workers_reply.workers[0];

    assert_string_equal(row->state, state);
    assert_int_equal(strncmp(row->note, note, strlen(note)), 0);
    ha_wire_message_destroy(reply);
}

static void a_drained_worker_gets_no_work(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message *status;

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    assert_int_equal(drain(b, "drain", "w1", 0), 1);
    assert_int_equal(drain(b, "drain", "w1", 0), 0);
    expect_worker(b, "draining", "local since ");
    assert_null(bench_push(b, WORKER, HA_WIRE_REVOKE)); /* to its end */
    bench_do_job(b, WORKER, &job, 3);
    ha_wire_message_destroy(bench_beat(b, WORKER, NULL, 0));
    bench_settle(b);
    assert_false(bench_granted(b, WORKER, &job));
    expect_worker(b, "drained", "local since ");
    status = bench_status(b, CLIENT, "demo");
    assert_non_null(strstr(bench_stage(status, "tiny/mid", "train")->reason,
                           "worker w1 is drained by local since "));
    ha_wire_message_destroy(status);
    bench_restart(b); /* it is remembered, also by another instance */
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i2", 1);
    assert_false(bench_granted(b, WORKER, &job));
    assert_int_equal(drain(b, "undrain", "w1", 0), 1);
    assert_true(bench_granted(b, WORKER, &job));
    expect_worker(b, "alive", "");
}

static void at_the_deadline_attempts_stop(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    struct ha_wire_message *push;

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(drain(b, "drain", "w1", 20000), 1);
    for (int i = 0; i < 3; i++) {
        ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
        assert_null(bench_push(b, WORKER, HA_WIRE_REVOKE));
        bench_turn(b, 5000);
    }
    bench_turn(b, 6000);
    push = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(push);
    assert_int_equal(strncmp(push->body.revoke.reason, "worker w1 is drained by local since ", 36),
                     0);
    ha_wire_message_destroy(push);
    bench_end(b, WORKER, &job, "stopped", "checkpoint");
    bench_hello_worker(b, OTHER, "w2", "i1", 1);
    assert_true(bench_granted(b, OTHER, &again));
    assert_int_equal(again.job, job.job);
}

static const char five_jobs[] = "[sweep]\n"
                                "name = \"demo\"\n"
                                "[[model]]\n"
                                "path = \"tiny\"\n"
                                "[strategies]\n"
                                "use = [\"base\", \"local\", \"mid\", \"global\", \"full\"]\n"
                                "[data]\n"
                                "train = [\"train.jsonl\"]\n"
                                "eval = [\"eval.jsonl.gz\"]\n"
                                "eval_samples = 3\n"
                                "[schedule]\n"
                                "fuse = \"never\"\n"
                                "[[judge]]\n"
                                "name = \"q\"\n"
                                "base_url = \"http://127.0.0.1:9/v1\"\n"
                                "model = \"m\"\n";

/* Three different jobs end badly on the only free worker, or on the next that is free. */
static void fail_three(struct bench *b, struct fake_job failed[3])
{
    for (int i = 0; i < 3; i++) {
        assert_true(bench_granted(b, WORKER, &failed[i]));
        bench_end(b, WORKER, &failed[i], "failed", "no driver");
        bench_settle(b);
    }
}

static void a_worker_that_fails_every_job_is_set_aside(void **state)
{
    struct bench *b = *state;
    struct fake_job failed[3], job, other;

    ha_wire_message_destroy(bench_submit(b, CLIENT, "k", five_jobs, false));
    bench_settle(b);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_worker(b, OTHER, "w2", "i1", 1);
    assert_true(bench_granted(b, OTHER, &other));
    fail_three(b, failed);
    assert_false(bench_granted(b, WORKER, &job));
    expect_worker(b, "drained", "coordinator since ");
    bench_do_job(b, OTHER, &other, 3);
    /* The jobs are not to blame: each has all its three attempts again. */
    for (int i = 0; i < 2; i++) {
        for (int turn = 0; turn < 3; turn++)
            bench_turn(b, 4000);
        ha_wire_message_destroy(bench_beat(b, OTHER, NULL, 0));
        do
            assert_true(bench_granted(b, OTHER, &job));
        while (job.job != failed[0].job && (bench_do_job(b, OTHER, &job, 3), true));
        bench_end(b, OTHER, &job, "failed", "something else");
        bench_settle(b);
    }
    bench_expect_sweep(b, CLIENT, "running");
    ha_wire_message_destroy(bench_beat(b, WORKER, NULL, 0));
    assert_int_equal(drain(b, "undrain", "w1", 0), 1);
    expect_worker(b, "alive", "");
}

static void the_only_worker_is_never_set_aside(void **state)
{
    struct bench *b = *state;
    struct fake_job failed[3], job;

    ha_wire_message_destroy(bench_submit(b, CLIENT, "k", five_jobs, false));
    bench_settle(b);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    fail_three(b, failed);
    assert_true(bench_granted(b, WORKER, &job));
}

/* The GPUs as hactl workers shows them: state and reason of the one that is free by itself. */
static void expect_gpus(struct bench *b, const char *worker, const char *free, const char *other,
                        const char *reason)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_WORKERS_REQUEST};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &ask, HA_WIRE_WORKERS_REPLY);
    const struct ha_wire_worker_row *row = &reply->body.workers_reply.workers[0];
    bool lost = strcmp(worker, "lost") == 0;

    assert_string_equal(row->state, worker);
    assert_int_equal(row->n_devices, 2);
    assert_string_equal(row->devices[0].state, free);
    assert_int_equal(strncmp(row->devices[0].reason, reason, strlen(reason)), 0);
    assert_string_equal(row->devices[1].state, other);
    assert_string_equal(row->devices[1].uuid, "GPU-bbbb");
    assert_int_equal(row->devices[1].memory_bytes, 8 << 20);
    assert_int_equal(row->devices[1].temperature_c, lost ? -1 : 50);
    assert_int_equal(row->devices[1].memory_used_bytes, lost ? -1 : 7 << 20);
    assert_int_equal(row->n_models, lost ? 0 : 1);
    ha_wire_message_destroy(reply);
}

/* Nobody is to count on a GPU of a worker that is gone, silent or drained. */
static void gpus_that_are_not_to_be_had_are_not_free(void **state)
{
    struct ha_wire_device gpus[] = {
        {.index = 0, .uuid = "GPU-aaaa", .memory_bytes = 8 << 20, .state = "free"},
        {.index = 1, .uuid = "GPU-bbbb", .memory_bytes = 8 << 20, .state = "held"}};
    struct ha_wire_held_model model = {.digest = MODEL_DIGEST, .name = "tiny", .where = "disk"};
    const struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT,
                                         .body.heartbeat = {.devices = gpus,
                                                            .n_devices = 2,
                                                            .places = 1,
                                                            .gpus = 1,
                                                            .models = &model,
                                                            .n_models = 1}};
    struct bench *b = *state;

    gpus[1].temperature_c = 50;
    gpus[1].memory_used_bytes = 7 << 20;
    gpus[1].reason = "6.9 GiB of its memory is held";
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    ha_wire_message_destroy(bench_call(b, WORKER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    expect_gpus(b, "alive", "free", "held", "");
    assert_int_equal(drain(b, "drain", "w1", 0), 1);
    expect_gpus(b, "drained", "drained", "held", "local since ");
    assert_int_equal(drain(b, "undrain", "w1", 0), 1);
    for (int i = 0; i < 4; i++)
        bench_turn(b, 4000);
    expect_gpus(b, "late", "late", "held", "its worker was last heard of ");
    for (int i = 0; i < 12; i++)
        bench_turn(b, 4000);
    expect_gpus(b, "lost", "lost", "lost", "its worker was last heard of ");
    ha_wire_message_destroy(bench_call(b, WORKER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    expect_gpus(b, "alive", "free", "held", "");
}

static void drain_is_for_admin_and_known_workers(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = draining("drain", "w9", 0);

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    message.body.change.worker = "w1";
    message.body.change.key = "another";
    bench_refused(b, CLIENT, HA_NET_ROLE_SUBMIT, &message, EACCES);
}

static void a_drained_judge_worker_gets_no_items(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct fake_item items[8];

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    assert_int_equal(drain(b, "drain", "j1", 0), 1);
    assert_int_equal(bench_items(b, JUDGE, items, 8), 0);
    assert_int_equal(drain(b, "undrain", "j1", 0), 1);
    assert_int_equal(bench_items(b, JUDGE, items, 8), 6);
}

/* ---- needs, limits, room ----------------------------------------------------------------- */

static void submit(struct bench *b, const char *name, const char *extra)
{
    char grid[2048];
    struct ha_wire_message *reply;

    snprintf(grid, sizeof grid, "[sweep]\nname = \"%s\"\n%s%s", name,
             strstr(bench_grid, "[[model]]"), extra);
    reply = bench_submit(b, CLIENT, next_key(), grid, false);
    if (strcmp(reply->body.submit_reply.outcome, "created") != 0)
        fail_msg("%s", reply->body.submit_reply.notes[0]);
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

static void hello_with(struct bench *b, uint64_t peer, const char *name, const char *label,
                       uint32_t cpus)
{
    struct ha_wire_message message = {.kind = HA_WIRE_HELLO,
                                      .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                     .name = name,
                                                     .instance = name,
                                                     .machine = "machine",
                                                     .version = "test",
                                                     .slots = 1,
                                                     .backend = "cpu",
                                                     .host = "host",
                                                     .labels = &label,
                                                     .n_labels = 1,
                                                     .cpus = cpus}};

    ha_wire_message_destroy(bench_call(b, peer, &message, HA_WIRE_HELLO_REPLY));
    bench_settle(b);
}

static void a_job_waits_for_a_worker_that_fits(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message *status;
    const struct ha_wire_stage_row *stage;

    submit(b, "demo", "[resources]\nlabels = [\"a100\"]\ncpus = 4\n");
    hello_with(b, WORKER, "w1", "a100", 2);
    assert_false(bench_granted(b, WORKER, &job));
    status = bench_status(b, CLIENT, "demo");
    stage = bench_stage(status, "tiny/base", "generate");
    assert_string_equal(stage->category, "can never run here");
    assert_string_equal(stage->reason, "no worker that takes work fits: w1 offers 2 of 4 cpus");
    assert_non_null(strstr(stage->mend, "hactl set"));
    stage = bench_stage(status, "tiny/mid", "generate");
    assert_string_equal(stage->category, "waiting for its training");
    ha_wire_message_destroy(status);
    hello_with(b, OTHER, "w2", "a100", 4);
    assert_true(bench_granted(b, OTHER, &job));
    set(b, "resources.cpus=2");
    assert_true(bench_granted(b, WORKER, &job));
}

/* A heartbeat that tells one device, and how many attempts the worker has room for. */
static int64_t beat_with_device(struct bench *b, uint64_t peer, uint32_t places, const char *state,
                                const char *reason)
{
    struct ha_wire_device device = {.uuid = "GPU-aaaa",
                                    .name = "One",
                                    .state = state,
                                    .reason = reason,
                                    .since_ms = 1767225600000};
    const struct ha_wire_message message = {
        .kind = HA_WIRE_HEARTBEAT,
        .body.heartbeat = {.devices = &device, .n_devices = 1, .places = places, .gpus = 1}};
    struct ha_wire_message *reply = bench_call(b, peer, &message, HA_WIRE_HEARTBEAT_REPLY);
    int64_t undrained_ms = reply->body.heartbeat_reply.undrained_ms;

    ha_wire_message_destroy(reply);
    bench_settle(b);
    return undrained_ms;
}

static void gpus_that_are_aside_take_no_work(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message *status;
    const struct ha_wire_stage_row *stage;

    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    assert_int_equal(beat_with_device(b, WORKER, 0, "aside", "3 uncorrected ECC errors"), 0);
    bench_create(b, CLIENT);
    assert_false(bench_granted(b, WORKER, &job));
    status = bench_status(b, CLIENT, "demo");
    stage = bench_stage(status, "tiny/base", "generate");
    assert_string_equal(stage->category, "GPUs are set aside");
    assert_string_equal(stage->reason,
                        "worker w1 has not the GPUs for it now: GPU 0 is set aside since "
                        "2026-01-01T00:00:00Z: 3 uncorrected ECC errors");
    assert_non_null(strstr(stage->mend, "hactl workers undrain"));
    ha_wire_message_destroy(status);
    /* An undraining reaches the worker, which says then that they are well. */
    assert_int_equal(drain(b, "undrain", "w1", 0), 1);
    assert_int_equal(beat_with_device(b, WORKER, 0, "aside", "3 uncorrected ECC errors"),
                     b->wall_ms);
    assert_false(bench_granted(b, WORKER, &job));
    beat_with_device(b, WORKER, 1, "free", "");
    assert_true(bench_granted(b, WORKER, &job)); /* one of its two slots has a device */
    assert_false(bench_granted(b, WORKER, &job));
    beat_with_device(b, WORKER, 2, "free", "");
    assert_true(bench_granted(b, WORKER, &job));
}

static void a_time_limit_counts_only_without_progress(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message *push;
    struct ha_wire_attempt_event end = {
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {.outcome = "stopped", .reason = "its time limit", .cause = "time_limit"}};

    submit(b, "demo", "[resources]\ntime_limit = \"2h\"\n[retry]\nmax_attempts = 2\n");
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    push = bench_push(b, WORKER, HA_WIRE_GRANT);
    assert_non_null(push);
    assert_int_equal(push->body.grant.time_limit_s, 7200);
    job = (struct fake_job){.job = push->body.grant.job, .epoch = push->body.grant.epoch};
    ha_wire_message_destroy(push);
    ha_wire_message_destroy(bench_report(b, WORKER, &job, NULL, 0));
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &end, 1));
    bench_settle(b);
    assert_true(bench_granted(b, WORKER, &job)); /* once it may */
    ha_wire_message_destroy(bench_report(b, WORKER, &job, NULL, 0));
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &end, 1));
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "failed",
                       "2 of 2 attempts are used up; last stop: its time limit");
}

static void a_higher_priority_gets_the_place(void **state)
{
    struct bench *b = *state;
    struct fake_job low, high;
    struct ha_wire_message *push;
    char grid[2048];

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &low));
    ha_wire_message_destroy(bench_beat(b, WORKER, &low, 1));
    snprintf(grid, sizeof grid,
             "[sweep]\npriority = 5\nname = \"urgent\"\n%s[generate]\n"
             "max_new_tokens = 9\n",
             strstr(bench_grid, "[[model]]"));
    ha_wire_message_destroy(bench_submit(b, CLIENT, next_key(), grid, false));
    bench_settle(b);
    assert_null(bench_push(b, WORKER, HA_WIRE_REVOKE)); /* it has only begun */
    for (int i = 0; i < 61; i++) {
        bench_turn(b, 5000);
        ha_wire_message_destroy(bench_beat(b, WORKER, &low, 1));
    }
    push = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(push);
    assert_non_null(strstr(push->body.revoke.reason, "higher priority"));
    ha_wire_message_destroy(push);
    while ((push = bench_push(b, WORKER, HA_WIRE_REVOKE))) /* said again with each heartbeat */
        ha_wire_message_destroy(push);
    bench_end(b, WORKER, &low, "stopped", "checkpoint");
    bench_settle(b);
    assert_true(bench_granted(b, WORKER, &high));
    assert_int_not_equal(high.job, low.job);
    bench_do_job(b, WORKER, &high, 3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void clocks_are_compared(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message request = {.kind = HA_WIRE_WORKERS_REQUEST}, *reply;
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT};

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    beat.body.heartbeat.wall_ms = b->wall_ms + 7000;
    ha_wire_message_destroy(bench_call(b, WORKER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    beat.body.heartbeat.wall_ms = 0; /* of an older version */
    ha_wire_message_destroy(bench_call(b, JUDGE, &beat, HA_WIRE_HEARTBEAT_REPLY));
    reply = bench_call(b, CLIENT, &request, HA_WIRE_WORKERS_REPLY);
    assert_int_equal(reply->body.workers_reply.n_workers, 2);
    assert_true(reply->body.workers_reply.workers[0].clock_known);
    assert_int_equal(reply->body.workers_reply.workers[0].clock_ms, 7000);
    assert_false(reply->body.workers_reply.workers[1].clock_known);
    ha_wire_message_destroy(reply);
}

static void health_is_told(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message request = {.kind = HA_WIRE_HEALTH_REQUEST}, *reply;

    bench_artifact(b, TRAIN_DIGEST);
    ha_coordinator_set_refused(b->c, 3);
    ha_coordinator_set_disk_low(b->c, "the disk is nearly full");
    reply = bench_call(b, CLIENT, &request, HA_WIRE_HEALTH_REPLY);
    assert_string_equal(reply->body.health_reply.version, "test");
    assert_int_equal(reply->body.health_reply.artifact_count, 1);
    assert_int_equal(reply->body.health_reply.refused, 3);
    assert_int_equal(reply->body.health_reply.now_ms, b->wall_ms);
    assert_true(reply->body.health_reply.schema >= 6);
    assert_true(reply->body.health_reply.artifacts_free > 0);
    assert_string_equal(reply->body.health_reply.disk_low, "the disk is nearly full");
    ha_wire_message_destroy(reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(settings_without_effect_on_results_are_set),
        CASE(settings_of_results_are_refused),
        CASE(set_disturbs_nothing),
        CASE(a_drained_worker_gets_no_work),
        CASE(at_the_deadline_attempts_stop),
        CASE(a_worker_that_fails_every_job_is_set_aside),
        CASE(the_only_worker_is_never_set_aside),
        CASE(gpus_that_are_not_to_be_had_are_not_free),
        CASE(drain_is_for_admin_and_known_workers),
        CASE(a_drained_judge_worker_gets_no_items),
        CASE(a_job_waits_for_a_worker_that_fits),
        CASE(gpus_that_are_aside_take_no_work),
        CASE(a_time_limit_counts_only_without_progress),
        CASE(a_higher_priority_gets_the_place),
        CASE(clocks_are_compared),
        CASE(health_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
