/* Jobs of several cells: formed at lease time, taken apart, cancelled cell by cell. */
#include "support.h"

#include <stdio.h>
#include <string.h>

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

static void submit(struct bench *b, const char *extra)
{
    char grid[2048];
    struct ha_wire_message *reply;

    snprintf(grid, sizeof grid, "%s%s", bench_fused_grid(), extra);
    reply = bench_submit(b, CLIENT, "k1", grid, false);
    if (strcmp(reply->body.submit_reply.outcome, "created") != 0)
        fail_msg("%s", reply->body.submit_reply.notes[0]);
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

/* Worker w1 has one slot and leases all four cells that train. */
static struct fake_job start(struct bench *b, const char *extra)
{
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    submit(b, extra);
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    assert_int_equal(job.n_cells, 4);
    return job;
}

static int64_t change(struct bench *b, const char *key, const char *verb, const char *cell)
{
    struct ha_wire_message message = {
        .kind = HA_WIRE_CHANGE,
        .body.change = {.key = key, .sweep = "demo", .cell = cell, .verb = verb}};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &message, HA_WIRE_CHANGE_REPLY);
    int64_t changed = reply->body.change_reply.changed;

    ha_wire_message_destroy(reply);
    bench_settle(b);
    return changed;
}

/* The next job that trains; what answers meanwhile is done. */
static struct fake_job next_train(struct bench *b)
{
    struct fake_job job;

    for (int i = 0; i < 20; i++) {
        while (bench_granted(b, WORKER, &job)) {
            if (job.train)
                return job;
            bench_do_job(b, WORKER, &job, 3);
        }
        bench_turn(b, 10000);
        ha_wire_message_destroy(bench_beat(b, WORKER, NULL, 0));
    }
    fail_msg("nothing to train");
    return job;
}

static struct fake_job crash(struct bench *b, struct fake_job *job)
{
    bench_end(b, WORKER, job, "failed", "exit code 1");
    return next_train(b);
}

/* So many other cells does the training of tiny/global name, in the status of one cell or of all.
 */
static void expect_mates(struct bench *b, const char *cell, int64_t n)
{
    struct ha_wire_message message = {.kind = HA_WIRE_STATUS_REQUEST,
                                      .body.status_request = {.sweep = "demo", .cell = cell}};
    struct ha_wire_message *status = bench_call(b, CLIENT, &message, HA_WIRE_STATUS_REPLY);
    const struct ha_wire_stage_row *stage = bench_stage(status, "tiny/global", "train");

    assert_int_equal(stage->n_mates, n);
    if (n > 0)
        assert_string_equal(stage->mates[0], "tiny/local");
    ha_wire_message_destroy(status);
}

static void one_device_trains_and_answers_together(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");

    assert_false(bench_granted(b, WORKER, &job));
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", "the only slot is busy");
    expect_mates(b, "", 3);
    expect_mates(b, "tiny/global", 3);
    bench_do_job(b, WORKER, &job, 0);
    expect_mates(b, "", 0);
    expect_mates(b, "tiny/global", 3);
    assert_true(bench_granted(b, WORKER, &job)); /* base with the others */
    assert_false(job.train);
    assert_int_equal(job.n_cells, 5);
    bench_do_job(b, WORKER, &job, 3);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    assert_int_equal(bench_judge_all(b, JUDGE), 15);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
}

static void many_devices_spread(void **state)
{
    struct bench *b = *state;
    struct fake_job jobs[4];
    int cells = 0;

    for (uint64_t i = 0; i < 4; i++) {
        char name[8];

        snprintf(name, sizeof name, "w%d", (int)i);
        bench_hello_worker(b, 10 + i, name, name, 1);
    }
    submit(b, "");
    for (uint64_t i = 0; i < 4; i++) {
        assert_true(bench_granted(b, 10 + i, &jobs[i]));
        cells += jobs[i].n_cells;
    }
    assert_int_equal(cells, 5); /* three train jobs, and base answers meanwhile */
}

static void never_and_always(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    submit(b, "[schedule]\nfuse = \"always\"\n");
    assert_true(bench_granted(b, WORKER, &job) && job.n_cells == 4);
    assert_true(bench_granted(b, OTHER, &job) && job.n_cells == 1);
}

/* Work all there is: w1 says that it is slow, w2 that it is fast. */
static void work_unevenly(struct bench *b)
{
    struct fake_job job;

    for (int i = 0; i < 20; i++) {
        while (bench_granted(b, WORKER, &job)) {
            job.summary = "{\"flops\":1e9,\"flops_plain\":4e9,\"seconds\":1,\"cells_in_job\":1}";
            bench_do_job(b, WORKER, &job, 3);
        }
        while (bench_granted(b, OTHER, &job)) {
            job.summary = "{\"flops\":3e9,\"flops_plain\":4e9,\"seconds\":1,\"cells_in_job\":1}";
            bench_do_job(b, OTHER, &job, 3);
        }
        bench_settle(b);
    }
}

static void submit_again(struct bench *b, const char *key, const char *name, const char *beta)
{
    const char *first = bench_fused_grid(), *at = strstr(first, "\"demo\"");
    char grid[2048];
    struct ha_wire_message *reply;

    snprintf(grid, sizeof grid, "%.*s\"%s\"%s[train]\nbeta = %s\n[schedule]\nfuse = \"always\"\n",
             (int)(at - first), first, name, at + strlen("\"demo\""), beta);
    reply = bench_submit(b, CLIENT, key, grid, false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

/* Two workers that are equal but for what they have done so far: the heaviest job goes to the
 * faster one, also when the coordinator was started anew. */
static void measured_speeds_count(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    submit(b, "[schedule]\nfuse = \"never\"\n");
    work_unevenly(b);
    submit_again(b, "k2", "second", "0.5");
    assert_true(bench_granted(b, OTHER, &job) && job.train && job.n_cells == 4);
    bench_do_job(b, OTHER, &job, 3);
    work_unevenly(b);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    submit_again(b, "k3", "third", "0.25");
    assert_true(bench_granted(b, OTHER, &job) && job.train && job.n_cells == 4);
}

static void judging_begins_while_answers_come(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");

    bench_do_job(b, WORKER, &job, 0);
    assert_true(bench_granted(b, WORKER, &job));
    bench_hello_judge(b, JUDGE, "j1", "i1");
    for (int i = 0; i < job.n_cells; i++) {
        struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                              .event.answer = {.cell = job.cells[i],
                                                               .prompt = 1,
                                                               .prompt_text = "q",
                                                               .text = "a",
                                                               .raw = "a",
                                                               .finish = "eos"}};

        assert_int_equal(bench_judge_all(b, JUDGE), 0);
        ha_wire_message_destroy(bench_report(b, WORKER, &job, &event, 1));
    }
    assert_int_equal(bench_judge_all(b, JUDGE), 5);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
}

static void a_cell_fails_alone(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");
    struct ha_wire_attempt_event failed = {.kind = HA_WIRE_ATTEMPT_EVENT_CELL,
                                           .event.cell = {.cell = job.cells[1],
                                                          .reason = "the loss is not finite",
                                                          .permanent = true}};
    uint64_t cells[] = {job.cells[0], job.cells[2], job.cells[3]};

    ha_wire_message_destroy(bench_report(b, WORKER, &job, &failed, 1));
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "failed", "the loss is not finite");
    bench_expect_stage(b, CLIENT, "tiny/full", "train", "running", NULL);
    job.n_cells = 3;
    memcpy(job.cells, cells, sizeof cells);
    bench_do_job(b, WORKER, &job, 0);
    bench_expect_stage(b, CLIENT, "tiny/full", "train", "done", "");
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(job.n_cells, 4); /* base and the three */
}

static void two_crashes_split(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, ""), again = crash(b, &job);
    struct ha_wire_message *reply;
    uint64_t bad;

    assert_int_equal(again.job, job.job);
    assert_int_equal(again.n_cells, 4);
    job = again;
    again = crash(b, &job);
    assert_int_not_equal(again.job, job.job);
    assert_int_equal(again.n_cells, 1);
    reply = bench_report(b, WORKER, &job, NULL, 0); /* the old attempt is over */
    assert_true(reply->body.report_reply.stale);
    ha_wire_message_destroy(reply);
    /* The one that goes on crashing fails by itself, after three attempts of its own. */
    bad = again.cell;
    for (int crashes = 0, done = 0; crashes < 3 || done < 3;) {
        assert_int_equal(again.n_cells, 1);
        if (again.cell == bad)
            bench_end(b, WORKER, &again, "failed", "exit code 1");
        else
            bench_do_job(b, WORKER, &again, 0);
        crashes += again.cell == bad;
        done += again.cell != bad;
        if (crashes < 3 || done < 3)
            again = next_train(b);
    }
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/local", "train", "failed",
                       "3 of 3 attempts are used up; last crash: exit code 1");
    bench_expect_stage(b, CLIENT, "tiny/full", "train", "done", "");
}

/* Memory that ran out would run out again: no second attempt of the same. */
static void want_of_memory_splits_at_once(void **state)
{
    struct ha_wire_attempt_event end = {
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {.outcome = "failed", .reason = "exit code 79", .cause = "memory"}};
    struct bench *b = *state;
    struct fake_job job = start(b, ""), again;

    ha_wire_message_destroy(bench_report(b, WORKER, &job, &end, 1));
    for (int i = 0; i < 4; i++) {
        again = next_train(b);
        assert_int_not_equal(again.job, job.job);
        assert_int_equal(again.n_cells, 1);
        if (i == 0)
            ha_wire_message_destroy(bench_report(b, WORKER, &again, &end, 1));
        else
            bench_do_job(b, WORKER, &again, 0);
    }
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/local", "train", "failed",
                       "memory ran out, which the plan did not foresee: exit code 79; set "
                       "train.memory_limit to less than was there, or ask for more with "
                       "resources.min_gpu_memory or host_memory, then hactl retry");
    bench_expect_stage(b, CLIENT, "tiny/full", "train", "done", "");
}

static void one_cell_is_cancelled(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, ""), again;
    struct ha_wire_attempt_event checkpoint = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {.cell = job.cells[0],
                           .kind = "checkpoint",
                           .name = "checkpoint-5.safetensors",
                           .sha256 = ADAPTER_DIGEST,
                           .size = 10,
                           .step = 5}};
    struct ha_wire_attempt_event late = {
        .kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
        .event.metric = {.cell = job.cells[3], .step = 6, .name = "loss", .value = 1}};
    struct ha_wire_message *push, *reply;

    assert_int_equal(change(b, "c1", "cancel", "tiny/full"), 3);
    push = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(push);
    assert_int_equal(push->body.revoke.job, job.job);
    ha_wire_message_destroy(push);
    bench_expect_stage(b, CLIENT, "tiny/full", "train", "cancelled", "cancelled");
    /* The push may be lost: the heartbeat says it again. */
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    push = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(push);
    ha_wire_message_destroy(push);
    /* Its attempt is still the newest: checkpoints count, the cancelled cell does not. */
    bench_artifact(b, ADAPTER_DIGEST);
    reply = bench_report(b, WORKER, &job, &checkpoint, 1);
    assert_int_equal(reply->body.report_reply.sequence, 1);
    ha_wire_message_destroy(reply);
    reply = bench_report(b, WORKER, &job, &late, 1);
    assert_false(reply->body.report_reply.stale);
    ha_wire_message_destroy(reply);
    bench_end(b, WORKER, &job, "stopped", "asked to");
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.job, job.job);
    assert_int_equal(again.n_cells, 3);
    assert_true(again.checkpoint[0]);
    assert_false(again.checkpoint[1]);
    bench_do_job(b, WORKER, &again, 0);
    bench_expect_stage(b, CLIENT, "tiny/local", "train", "done", "");
    /* Retried, it runs by itself. */
    assert_true(bench_granted(b, WORKER, &again)); /* the others answer */
    assert_int_equal(change(b, "c2", "retry", "tiny/full"), 3);
    bench_do_job(b, WORKER, &again, 3);
    assert_true(bench_granted(b, WORKER, &again));
    assert_true(again.train);
    assert_int_equal(again.n_cells, 1);
}

static void a_cancelled_sweep_revokes(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");
    struct ha_wire_message *reply;

    change(b, "c1", "cancel", "");
    reply = bench_report(b, WORKER, &job, NULL, 0);
    assert_true(reply->body.report_reply.stale);
    ha_wire_message_destroy(reply);
    bench_expect_sweep(b, CLIENT, "cancelled");
}

static void another_sweep_goes_on_with_a_shared_cell(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, ""), other;
    struct ha_wire_message *reply;
    char grid[2048];

    snprintf(grid, sizeof grid, "%s", bench_fused_grid());
    memcpy(strstr(grid, "demo"), "more", 4);
    reply = bench_submit(b, CLIENT, "k2", grid, false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    bench_settle(b);
    assert_int_equal(change(b, "c1", "cancel", "tiny/mid"), 3);
    bench_end(b, WORKER, &job, "stopped", "asked to");
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(job.n_cells, 3);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    assert_true(bench_granted(b, OTHER, &other));
    assert_true(other.train);
    assert_int_equal(other.n_cells, 1);
    bench_do_job(b, OTHER, &other, 0);
    reply = bench_status(b, CLIENT, "more");
    assert_string_equal(bench_stage(reply, "tiny/mid", "train")->state, "done");
    ha_wire_message_destroy(reply);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "cancelled", NULL);
}

static void a_restart_keeps_the_set(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");

    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    bench_do_job(b, WORKER, &job, 0);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(job.n_cells, 5);
}

static void references_are_kept_and_given(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");
    struct ha_wire_attempt_event reference = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {
            .kind = "reference", .name = DIGEST("aa"), .sha256 = DIGEST("bb"), .size = 10}};
    struct ha_wire_message *reply;

    assert_false(job.reference);
    bench_artifact(b, DIGEST("bb"));
    reply = bench_report(b, WORKER, &job, &reference, 1);
    assert_int_equal(reply->body.report_reply.sequence, 1);
    ha_wire_message_destroy(reply);
    job = crash(b, &job);
    assert_true(job.reference);
    /* A newer one takes the place of the old. */
    reference.event.artifact.sha256 = DIGEST("cc");
    bench_artifact(b, DIGEST("cc"));
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &reference, 1));
    assert_int_equal(b->orphan_count, 1);
    assert_string_equal(b->orphans[0], DIGEST("bb"));
}

/* A sweep with another plan of batches gets what was made under the first one's only if it takes
 * any. */
static void references_of_another_plan(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b, "");
    struct ha_wire_attempt_event reference = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {
            .kind = "reference", .name = DIGEST("aa"), .sha256 = DIGEST("bb"), .size = 10}};

    bench_artifact(b, DIGEST("bb"));
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &reference, 1));
    bench_do_job(b, WORKER, &job, 0);
    submit_again(b, "k2", "second", "0.5\ntokens_per_microbatch = 512");
    job = next_train(b);
    assert_int_equal(job.n_cells, 4);
    assert_false(job.reference);
    bench_do_job(b, WORKER, &job, 0);
    submit_again(b, "k3", "third", "0.5\nbatch_size = 3\nreference = \"any\"");
    job = next_train(b);
    assert_int_equal(job.n_cells, 4);
    assert_true(job.reference);
    bench_do_job(b, WORKER, &job, 0);
    submit_again(b, "k4", "fourth", "0.5\nmax_length = 512\nreference = \"any\"");
    job = next_train(b);
    assert_false(job.reference);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_device_trains_and_answers_together),
        CASE(many_devices_spread),
        CASE(never_and_always),
        CASE(measured_speeds_count),
        CASE(judging_begins_while_answers_come),
        CASE(a_cell_fails_alone),
        CASE(two_crashes_split),
        CASE(want_of_memory_splits_at_once),
        CASE(one_cell_is_cancelled),
        CASE(a_cancelled_sweep_revokes),
        CASE(another_sweep_goes_on_with_a_shared_cell),
        CASE(a_restart_keeps_the_set),
        CASE(references_are_kept_and_given),
        CASE(references_of_another_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
