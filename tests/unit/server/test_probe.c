/* Probes: a stage before train, shared by the cells of a model, and layers chosen by it. */
#include "support.h"

#include <stdio.h>
#include <string.h>

enum { CLIENT = 1, WORKER = 2, OTHER = 3, LAYERS = 6 };

/* mid is named by the paper; top and three wait for the probe. */
static const char strategies[] = "[probe]\npairs = 4\n"
                                 "[[strategy]]\nname = \"top\"\nlayers = \"auto:2\"\n"
                                 "[[strategy]]\nname = \"three\"\nlayers = \"auto:3\"\n";

static const double norms[LAYERS] = {1, 1, 2, 4, 3, 1};

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

static struct ha_wire_message *submit_as(struct bench *b, const char *name, const char *key,
                                         const char *extra, bool extend)
{
    char grid[2048];
    struct ha_wire_message *reply;

    snprintf(grid, sizeof grid, "%s%s", bench_grid, extra);
    memcpy(strstr(grid, "demo"), name, 4);
    reply = bench_submit(b, CLIENT, key, grid, extend);
    bench_settle(b);
    return reply;
}

static void submit(struct bench *b, const char *extra)
{
    struct ha_wire_message *reply = submit_as(b, "demo", "k1", extra, false);

    if (strcmp(reply->body.submit_reply.outcome, "created") != 0)
        fail_msg("%s", reply->body.submit_reply.notes[0]);
    ha_wire_message_destroy(reply);
}

/* A worker of one slot has the probe. */
static struct fake_job start(struct bench *b)
{
    struct fake_job job;

    submit(b, strategies);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_settle(b);
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.probe);
    assert_int_equal(job.n_cells, 1);
    assert_string_equal(job.layers, "[]");
    return job;
}

static void report_norm(struct bench *b, uint64_t peer, struct fake_job *job, const char *block,
                        int64_t layer, int64_t layers, double norm)
{
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_NORM,
                                          .event.norm = {.cell = job->cell,
                                                         .block = block,
                                                         .layer = layer,
                                                         .layers = layers,
                                                         .module = "all",
                                                         .norm = norm,
                                                         .parameters = 100 + layer,
                                                         .pairs = 4}};
    struct ha_wire_message *reply = bench_report(b, peer, job, &event, 1);

    assert_int_equal(reply->body.report_reply.sequence, job->sequence);
    ha_wire_message_destroy(reply);
}

static void end_cell(struct bench *b, uint64_t peer, struct fake_job *job)
{
    struct ha_wire_attempt_event done = {
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = job->cell, .done = true, .reason = "", .summary_json = "{}"}};
    struct ha_wire_message *reply = bench_report(b, peer, job, &done, 1);

    assert_int_equal(reply->body.report_reply.sequence, job->sequence);
    ha_wire_message_destroy(reply);
    bench_end(b, peer, job, "done", "");
}

static void do_probe(struct bench *b, uint64_t peer, struct fake_job *job)
{
    for (int64_t i = 0; i < LAYERS; i++)
        report_norm(b, peer, job, "", i, 1, norms[i]);
    report_norm(b, peer, job, "local", 0, 2, 2);
    end_cell(b, peer, job);
}

static const struct ha_wire_cell_row *find_cell(const struct ha_wire_message *status,
                                                const char *name)
{
    for (int64_t i = 0; i < status->body.status_reply.n_cells; i++) {
        if (strcmp(status->body.status_reply.cells[i].name, name) == 0)
            return &status->body.status_reply.cells[i];
    }
    fail_msg("no cell %s", name);
    return NULL;
}

static void expect_layers(struct bench *b, const char *sweep, const char *name, const char *layers,
                          int64_t count, const char *chosen, double share)
{
    struct ha_wire_message *status = bench_status(b, CLIENT, sweep);
    const struct ha_wire_cell_row *cell = find_cell(status, name);

    assert_string_equal(cell->layers, layers);
    assert_int_equal(cell->choice.count, count);
    assert_string_equal(cell->choice.layers, chosen);
    assert_true(cell->choice.share > share - 1e-12 && cell->choice.share < share + 1e-12);
    ha_wire_message_destroy(status);
}

static void only_rules_wait_for_it(void **state)
{
    struct bench *b = *state;

    submit(b, strategies);
    bench_expect_stage(b, CLIENT, "tiny/mid", "probe", "ready", "no worker is connected");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready", "no worker is connected");
    bench_expect_stage(b, CLIENT, "tiny/top", "probe", "ready", "no worker is connected");
    bench_expect_stage(b, CLIENT, "tiny/top", "train", "waiting", "waiting for the probe");
    bench_expect_stage(b, CLIENT, "tiny/top", "generate", "waiting", "waiting for training");
    expect_layers(b, "demo", "tiny/top", "auto:2", 2, "", 0);
    expect_layers(b, "demo", "tiny/mid", "2-3", 0, "", 0);
}

static void the_largest_share_is_trained(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message ask = {.kind = HA_WIRE_NORMS_REQUEST,
                                  .body.norms_request = {.sweep = "demo", .limit = 4}},
                           *reply;
    bool seen[2] = {false, false};

    do_probe(b, WORKER, &job);
    /* One probe for the three cells that train: the first made it, the others have it. */
    bench_expect_stage(b, CLIENT, "tiny/mid", "probe", "done", "");
    bench_expect_stage(b, CLIENT, "tiny/top", "probe", "reused", "");
    bench_expect_stage(b, CLIENT, "tiny/three", "probe", "reused", "");
    expect_layers(b, "demo", "tiny/top", "3-4", 2, "3-4", 7.0 / 12);
    expect_layers(b, "demo", "tiny/three", "2-4", 3, "2-4", 9.0 / 12);
    while (bench_granted(b, WORKER, &job)) {
        if (strcmp(job.layers, "[3,4]") == 0)
            seen[0] = true;
        if (strcmp(job.layers, "[2,3,4]") == 0)
            seen[1] = true;
        assert_false(job.probe);
        bench_do_job(b, WORKER, &job, 3);
    }
    assert_true(seen[0] && seen[1]);
    bench_expect_stage(b, CLIENT, "tiny/top", "train", "done", "");
    bench_expect_stage(b, CLIENT, "tiny/top", "generate", "done", "");

    reply = bench_call(b, CLIENT, &ask, HA_WIRE_NORMS_REPLY);
    assert_int_equal(reply->body.norms_reply.n_rows, 4);
    assert_true(reply->body.norms_reply.more);
    assert_string_equal(reply->body.norms_reply.rows[0].model, "tiny");
    assert_true(reply->body.norms_reply.rows[3].norm.norm == 4);
    assert_int_equal(reply->body.norms_reply.rows[3].norm.parameters, 103);
    ask.body.norms_request.after = reply->body.norms_reply.rows[3].row;
    ha_wire_message_destroy(reply);
    reply = bench_call(b, CLIENT, &ask, HA_WIRE_NORMS_REPLY);
    assert_int_equal(reply->body.norms_reply.n_rows, 3);
    assert_false(reply->body.norms_reply.more);
    assert_string_equal(reply->body.norms_reply.rows[2].norm.block, "local");
    assert_int_equal(reply->body.norms_reply.rows[2].norm.layers, 2);
    ha_wire_message_destroy(reply);
    ask.body.norms_request.cell = "tiny/base";
    ask.body.norms_request.after = 0;
    reply = bench_call(b, CLIENT, &ask, HA_WIRE_NORMS_REPLY);
    assert_int_equal(reply->body.norms_reply.n_rows, 0);
    ha_wire_message_destroy(reply);
}

static void another_sweep_reuses_it(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message *reply, *status;
    bool trained = false;

    do_probe(b, WORKER, &job);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    reply = submit_as(b, "more", "k2",
                      "[probe]\npairs = 4\nmeasure = \"per_sqrt_parameters\"\n"
                      "[[strategy]]\nname = \"one\"\nlayers = \"auto:1\"\n",
                      false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    expect_layers(b, "more", "tiny/one", "3", 1, "3",
                  (4 / 10.14889156509222) /
                      (1 / 10.0 + 1 / 10.04987562112089 + 2 / 10.099504938362077 +
                       4 / 10.14889156509222 + 3 / 10.198039027185569 + 1 / 10.246950765959598));
    status = bench_status(b, CLIENT, "more");
    assert_string_equal(bench_stage(status, "tiny/one", "probe")->state, "reused");
    assert_string_equal(bench_stage(status, "tiny/mid", "probe")->state, "reused");
    ha_wire_message_destroy(status);
    while (bench_granted(b, WORKER, &job)) {
        assert_false(job.probe);
        trained = trained || (job.train && strcmp(job.layers, "[3]") == 0);
        bench_do_job(b, WORKER, &job, 3);
    }
    assert_true(trained);
}

static void a_failed_probe_stops_only_rules(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message retry = {
        .kind = HA_WIRE_CHANGE,
        .body.change = {.key = "r", .sweep = "demo", .verb = "retry", .failed_only = true}};

    bench_end(b, WORKER, &job, "refused", "the loss is not finite");
    bench_expect_stage(b, CLIENT, "tiny/top", "probe", "failed", "the loss is not finite");
    bench_expect_stage(b, CLIENT, "tiny/top", "train", "failed",
                       "the probe failed: the loss is not finite");
    bench_expect_stage(b, CLIENT, "tiny/top", "generate", "failed",
                       "training failed: the probe failed: the loss is not finite");
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "done", "");
    bench_expect_stage(b, CLIENT, "tiny/mid", "generate", "done", "");
    ha_wire_message_destroy(bench_call(b, CLIENT, &retry, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/top", "train", "waiting", "waiting for the probe");
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.probe);
    do_probe(b, WORKER, &job);
    expect_layers(b, "demo", "tiny/top", "3-4", 2, "3-4", 7.0 / 12);
    assert_true(bench_granted(b, WORKER, &job));
    assert_string_equal(job.layers, "[3,4]");
}

static void a_probe_with_a_gap_is_none(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    for (int64_t i = 0; i < LAYERS; i++) {
        if (i != 4)
            report_norm(b, WORKER, &job, "", i, 1, norms[i]);
    }
    end_cell(b, WORKER, &job);
    bench_expect_stage(b, CLIENT, "tiny/top", "probe", "failed",
                       "the attempt ended without the norms of every layer");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready", "the only slot is busy");
}

/* The worker and the coordinator die in the middle of the norms. */
static void a_probe_begins_anew(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    report_norm(b, WORKER, &job, "", 0, 1, 9);
    report_norm(b, WORKER, &job, "", 1, 1, 9);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, OTHER, "w1", "i2", 1);
    for (int i = 0; i < 4; i++) {
        bench_turn(b, 4000);
        ha_wire_message_destroy(bench_beat(b, OTHER, NULL, 0));
    }
    do {
        assert_true(bench_granted(b, OTHER, &job));
        if (!job.probe)
            bench_do_job(b, OTHER, &job, 3);
    } while (!job.probe);
    do_probe(b, OTHER, &job);
    expect_layers(b, "demo", "tiny/top", "3-4", 2, "3-4", 7.0 / 12);
}

static void only_a_probe_has_norms(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_attempt_event event = {
        .kind = HA_WIRE_ATTEMPT_EVENT_NORM,
        .event.norm = {
            .block = "", .layers = 1, .module = "all", .norm = 1, .parameters = 1, .pairs = 1}};
    struct ha_wire_message report = {.kind = HA_WIRE_REPORT,
                                     .body.report = {.events = &event, .n_events = 1}};

    do_probe(b, WORKER, &job);
    assert_true(bench_granted(b, WORKER, &job));
    event.event.norm.cell = job.cell;
    report.body.report.job = job.job;
    report.body.report.epoch = job.epoch;
    report.body.report.sequence = 1;
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &report, 22);
    expect_layers(b, "demo", "tiny/top", "3-4", 2, "3-4", 7.0 / 12);
}

static void a_grid_that_comes_again(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message *reply, *status;

    submit(b, strategies);
    reply = submit_as(b, "demo", "k2",
                      "[probe]\npairs = 8\n"
                      "[[strategy]]\nname = \"top\"\nlayers = \"auto:2\"\n"
                      "[[strategy]]\nname = \"three\"\nlayers = \"auto:3\"\n",
                      false);
    assert_string_equal(reply->body.submit_reply.outcome, "refused");
    assert_non_null(strstr(reply->body.submit_reply.notes[0], "probe.pairs (4 -> 8)"));
    ha_wire_message_destroy(reply);
    reply = submit_as(b, "demo", "k3",
                      "[probe]\npairs = 4\n"
                      "[[strategy]]\nname = \"top\"\nlayers = \"auto:3\"\n"
                      "[[strategy]]\nname = \"three\"\nlayers = \"auto:3\"\n",
                      false);
    assert_string_equal(reply->body.submit_reply.outcome, "refused");
    assert_non_null(strstr(reply->body.submit_reply.notes[0], "layers (auto:2 -> auto:3)"));
    ha_wire_message_destroy(reply);
    /* Without rules and section the probe goes, and what trains stays. */
    reply = submit_as(b, "demo", "k4", "", false);
    assert_string_equal(reply->body.submit_reply.outcome, "changed");
    ha_wire_message_destroy(reply);
    status = bench_status(b, CLIENT, "demo");
    assert_string_equal(find_cell(status, "tiny/mid")->stages[0].stage, "train");
    assert_false(find_cell(status, "tiny/top")->in_grid);
    ha_wire_message_destroy(status);
    bench_hello_worker(b, WORKER, "w1", "i1", 4);
    bench_settle(b);
    for (struct fake_job job; bench_granted(b, WORKER, &job);)
        assert_false(job.probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_rules_wait_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_share_is_trained, setup, teardown),
        cmocka_unit_test_setup_teardown(another_sweep_reuses_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_probe_stops_only_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(a_probe_with_a_gap_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_probe_begins_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_probe_has_norms, setup, teardown),
        cmocka_unit_test_setup_teardown(a_grid_that_comes_again, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
