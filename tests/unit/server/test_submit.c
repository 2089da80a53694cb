/* Submits: once per key, the same again, changed ones, large ones; cancel, pause, retry. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"

enum { CLIENT = 1, WORKER = 2, JUDGE = 3 };

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

static void expect_outcome(struct bench *b, const char *key, const char *toml, bool extend,
                           const char *outcome, const char *note)
{
    struct ha_wire_message *reply = bench_submit(b, CLIENT, key, toml, extend);
    const struct ha_wire_submit_reply *r = &reply->body.submit_reply;

    if (strcmp(r->outcome, outcome) != 0)
        fail_msg("%s: %s", r->outcome, r->n_notes > 0 ? r->notes[0] : "");
    if (note) {
        assert_true(r->n_notes > 0);
        if (!strstr(r->notes[0], note))
            fail_msg("%s", r->notes[0]);
    }
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

/* The grid with one text replaced. */
static char *edited(const char *from, const char *to)
{
    const char *at = strstr(bench_grid, from);
    struct ha_buffer text;

    assert_non_null(at);
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append(&text, bench_grid, (size_t)(at - bench_grid)), 0);
    assert_int_equal(ha_buffer_append_text(&text, to), 0);
    assert_int_equal(ha_buffer_append_text(&text, at + strlen(from)), 0);
    return ha_buffer_detach(&text);
}

static void finish(struct bench *b)
{
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    bench_create(b, CLIENT);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 6);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
}

static void expect_no_sweep(struct bench *b)
{
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &list, HA_WIRE_SWEEP_LIST);

    assert_int_equal(reply->body.sweep_list.n_sweeps, 0);
    ha_wire_message_destroy(reply);
}

static void one_key_one_sweep(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    char *other = edited("\"demo\"", "\"other\"");
    struct ha_wire_message wrong = {
        .kind = HA_WIRE_SUBMIT, .body.submit = {.key = "k", .toml = other, .base_dir = "/grids"}};

    expect_outcome(b, "k", bench_grid, false, "created", NULL);
    expect_outcome(b, "k", bench_grid, false, "created", NULL); /* the stored reply */
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    expect_outcome(b, "k", bench_grid, false, "created", NULL);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &wrong, EEXIST); /* another body */
    expect_outcome(b, "k2", bench_grid, false, "resumed", NULL);
    reply = bench_call(b, CLIENT, &list, HA_WIRE_SWEEP_LIST);
    assert_int_equal(reply->body.sweep_list.n_sweeps, 1);
    ha_wire_message_destroy(reply);
    free(other);
}

static void what_is_wrong_is_said(void **state)
{
    struct bench *b = *state;
    char *unknown = edited("eval_samples", "eval_sample");
    char *files = edited("\"train.jsonl\"", "\"train.jsonl\", \"more.jsonl\"");
    struct ha_wire_submit_model model = {.name = "tiny",
                                         .path = "/m",
                                         .digest = MODEL_DIGEST,
                                         .tokenizer_digest = TOKENIZER_DIGEST,
                                         .layers = 6,
                                         .family = "llama"};
    struct ha_wire_submit_file split[] = {
        {.path = "train.jsonl", .sha256 = TRAIN_DIGEST, .size = 1, .split = "train"},
        {.path = "e.jsonl", .sha256 = EVAL_DIGEST, .size = 1, .split = "eval"}};
    struct ha_wire_message message = {.kind = HA_WIRE_SUBMIT,
                                      .body.submit = {.key = "x",
                                                      .toml = bench_grid,
                                                      .base_dir = "/grids",
                                                      .models = &model,
                                                      .n_models = 1,
                                                      .files = split,
                                                      .n_files = 2}};

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOENT); /* not uploaded */
    expect_outcome(b, "a", unknown, false, "refused", "grid.toml:");
    expect_outcome(b, "b", files, false, "refused", "2 files of split train");
    message.body.submit.key = "";
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EINVAL);
    free(unknown);
    free(files);
}

/* Read over several turns: nothing is there before all of it was read. */
static void a_large_grid_is_read_in_slices(void **state)
{
    struct bench *b = *state;
    char *large = bench_replicated(1000, ""),
         *wrong = bench_replicated(1000, "[resources]\ngpus = 64\n");
    struct ha_wire_message *reply;

    expect_outcome(b, "w", wrong, false, "refused", "gradient_accumulation");
    expect_no_sweep(b);
    reply = bench_submit(b, CLIENT, "k", large, false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    assert_int_equal(reply->body.submit_reply.cells, 1001);
    ha_wire_message_destroy(reply);
    expect_outcome(b, "k", large, false, "created", NULL); /* the stored reply */
    expect_outcome(b, "k2", large, false, "resumed", NULL);
    free(large);
    free(wrong);
}

static void expect_error(struct ha_wire_message *reply, uint32_t code, const char *text)
{
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    assert_int_equal(reply->body.error.code, code);
    if (!strstr(reply->body.error.text, text))
        fail_msg("%s", reply->body.error.text);
    ha_wire_message_destroy(reply);
}

/* Nobody gets the answer of another request, also while that one is worked on. */
static void a_key_is_of_one_request_while_it_is_worked_on(void **state)
{
    struct bench *b = *state;
    char *large = bench_replicated(800, ""), *other = bench_replicated(801, "");
    struct ha_wire_message cancel = {
        .kind = HA_WIRE_CHANGE, .body.change = {.key = "k", .verb = "cancel", .sweep = "demo"}};
    struct ha_wire_message *reply;
    uint64_t id;

    b->slice_us = 1; /* a step per turn */
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    id = bench_submit_ask(b, CLIENT, "k", large, false);
    assert_null(bench_reply(b, CLIENT, id));
    expect_error(bench_submit_any(b, CLIENT, "k", other, false), EEXIST, "another request");
    expect_error(bench_submit_any(b, CLIENT, "k", large, true), EEXIST, "another request");
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &cancel, EEXIST);
    b->key = "ann";
    expect_error(bench_submit_any(b, CLIENT, "k", large, false), EEXIST, "another request");
    b->key = NULL;
    reply = bench_wait(b, CLIENT, bench_submit_ask(b, CLIENT, "k", large, false)); /* the same */
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    assert_int_equal(reply->body.submit_reply.cells, 801);
    ha_wire_message_destroy(reply);
    assert_null(bench_reply(b, CLIENT, id)); /* it is answered where it was asked last */
    bench_settle(b);

    /* Compared, it is worked on as well. */
    id = bench_submit_ask(b, CLIENT, "k2", other, false);
    bench_turn(b, 0);
    expect_error(bench_submit_any(b, CLIENT, "k2", large, false), EEXIST, "another request");
    reply = bench_wait(b, CLIENT, id);
    assert_string_equal(reply->body.submit_reply.outcome, "changed");
    ha_wire_message_destroy(reply);
    expect_outcome(b, "k2", other, false, "changed", NULL);
    free(large);
    free(other);
}

static void grids_that_are_read_are_limited_in_number(void **state)
{
    struct bench *b = *state;
    char *large = bench_replicated(1200, ""), *small = edited("\"demo\"", "\"small\"");
    uint64_t ids[3];

    b->max_grids_per_client = 2;
    b->max_grids = 3;
    b->slice_us = 1; /* a step per turn */
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    ids[0] = bench_submit_ask(b, CLIENT, "k0", large, false);
    ids[1] = bench_submit_ask(b, CLIENT, "k1", large, false);
    expect_error(bench_submit_any(b, CLIENT, "k2", large, false), EBUSY,
                 "max_grids_per_client in coordinator.toml");
    ids[1] = bench_submit_ask(b, CLIENT, "k1", large, false); /* the same is none more */
    b->key = "ann";
    ids[2] = bench_submit_ask(b, CLIENT, "k3", large, false);
    b->key = "ben";
    expect_error(bench_submit_any(b, CLIENT, "k4", large, false), EBUSY,
                 "max_grids in coordinator.toml");
    expect_outcome(b, "small", small, false, "created", NULL); /* takes one turn */
    b->key = NULL;
    for (int i = 0; i < 3; i++)
        ha_wire_message_destroy(bench_wait(b, CLIENT, ids[i]));
    bench_settle(b);
    expect_outcome(b, "k2", large, false, "resumed", NULL);
    free(large);
    free(small);
}

static void a_full_disk_refuses_submits_only(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = {
        .kind = HA_WIRE_SUBMIT,
        .body.submit = {.key = "k", .toml = bench_grid, .base_dir = "/grids"}};

    ha_coordinator_set_disk_low(b->c, "the disk is nearly full");
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOSPC);
    ha_coordinator_set_disk_low(b->c, NULL);
    bench_create(b, CLIENT);
}

static void a_changed_setting_is_refused_by_name(void **state)
{
    struct bench *b = *state;
    char *grid = edited("[[judge]]", "[train]\nbeta = 0.5\n[[judge]]");
    struct fake_job job;

    finish(b);
    expect_outcome(b, "k2", grid, false, "refused", "train.beta (0.1");
    bench_expect_sweep(b, CLIENT, "done");
    expect_outcome(b, "k3", grid, true, "changed", "1 cells are kept");
    bench_expect_stage(b, CLIENT, "tiny/base", "judge:q", "done", NULL);
    bench_expect_stage(b, CLIENT, "tiny/mid", "generate", "waiting", NULL);
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    bench_do_job(b, WORKER, &job, 0);
    assert_true(bench_granted(b, WORKER, &job));
    bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 3);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
    /* Back again: the old results are still there. */
    expect_outcome(b, "k4", bench_grid, true, "changed", "1 cells are kept");
    bench_expect_sweep(b, CLIENT, "done");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "reused", NULL);
    free(grid);
}

static void settings_without_effect_are_applied(void **state)
{
    struct bench *b = *state;
    char *grid = edited("[[judge]]", "[retry]\nmax_attempts = 7\n[[judge]]\nconcurrency = 3");

    finish(b);
    expect_outcome(b, "k2", grid, false, "resumed", "2 cells are kept");
    bench_expect_sweep(b, CLIENT, "done");
    free(grid);
}

static void cells_come_and_go(void **state)
{
    struct bench *b = *state;
    char *more = edited("\"base\", \"mid\"", "\"base\", \"full\"");
    struct fake_job job;
    struct ha_wire_message *status;

    finish(b);
    expect_outcome(b, "k2", more, false, "changed", "1 cells are kept");
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    status = bench_status(b, CLIENT, "demo");
    assert_int_equal(status->body.status_reply.n_cells, 3);
    assert_int_equal(status->body.status_reply.sweep.stages, 5);
    for (int i = 0; i < 3; i++)
        assert_int_equal(status->body.status_reply.cells[i].in_grid,
                         strcmp(status->body.status_reply.cells[i].name, "tiny/mid") != 0);
    ha_wire_message_destroy(status);
    /* Back while the new cell's training runs: it is stopped. */
    expect_outcome(b, "k3", bench_grid, false, "changed", "1 cells are kept");
    status = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(status);
    assert_int_equal(status->body.revoke.job, job.job);
    ha_wire_message_destroy(status);
    bench_expect_sweep(b, CLIENT, "done");
    free(more);
}

static void a_second_judge_asks_for_its_own(void **state)
{
    struct bench *b = *state;
    char *more = edited("[[judge]]", "[[judge]]\nname = \"p\"\nbase_url = \"http://h/v1\"\n"
                                     "model = \"other\"\n[[judge]]");

    finish(b);
    expect_outcome(b, "k2", more, false, "resumed", "2 cells are kept");
    bench_expect_stage(b, CLIENT, "tiny/mid", "judge:p", "ready", NULL);
    assert_int_equal(bench_judge_all(b, JUDGE), 6);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
    expect_outcome(b, "k3", bench_grid, false, "resumed", "2 cells are kept");
    bench_expect_sweep(b, CLIENT, "done");
    free(more);
}

static struct ha_wire_message change(const char *key, const char *verb, const char *cell)
{
    return (struct ha_wire_message){
        .kind = HA_WIRE_CHANGE,
        .body.change = {.key = key, .verb = verb, .sweep = "demo", .cell = cell}};
}

static int64_t apply(struct bench *b, const char *key, const char *verb, const char *cell)
{
    struct ha_wire_message message = change(key, verb, cell);
    struct ha_wire_message *reply = bench_call(b, CLIENT, &message, HA_WIRE_CHANGE_REPLY);
    int64_t changed = reply->body.change_reply.changed;

    ha_wire_message_destroy(reply);
    bench_settle(b);
    return changed;
}

static void cancel_stops_and_submit_resumes(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message *push;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(apply(b, "c1", "cancel", ""), 5);
    assert_int_equal(apply(b, "c1", "cancel", ""), 5); /* the stored reply */
    bench_expect_sweep(b, CLIENT, "cancelled");
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "cancelled", "cancelled");
    push = bench_push(b, WORKER, HA_WIRE_REVOKE);
    assert_non_null(push);
    ha_wire_message_destroy(push);
    push = bench_report(b, WORKER, &job, NULL, 0);
    assert_true(push->body.report_reply.stale);
    ha_wire_message_destroy(push);
    assert_false(bench_granted(b, WORKER, &job));

    expect_outcome(b, "k2", bench_grid, false, "resumed", NULL);
    bench_expect_sweep(b, CLIENT, "running");
    assert_true(bench_granted(b, WORKER, &job));
    bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

static void one_cell_is_cancelled_and_retried(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    bench_create(b, CLIENT);
    assert_int_equal(apply(b, "c1", "cancel", "tiny/mid"), 3);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 3); /* nobody waits for the other cell */
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "gaps");
    assert_int_equal(apply(b, "c2", "retry", "tiny/mid"), 3);
    bench_expect_sweep(b, CLIENT, "running");
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 3);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
    /* What has ended stays what it is. */
    assert_int_equal(apply(b, "c3", "cancel", ""), 0);
    assert_int_equal(apply(b, "c4", "retry", "tiny/mid"), 0);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
}

static void a_shared_result_survives_one_cancel(void **state)
{
    struct bench *b = *state;
    char *grid = edited("\"demo\"", "\"other\"");
    struct fake_job job;
    struct ha_wire_message *status;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    bench_create(b, CLIENT);
    expect_outcome(b, "k2", grid, false, "created", NULL);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(apply(b, "c1", "cancel", ""), 5);
    assert_null(bench_push(b, WORKER, HA_WIRE_REVOKE)); /* the other sweep wants it */
    bench_do_job(b, WORKER, &job, 3);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 6);
    bench_settle(b);
    status = bench_status(b, CLIENT, "other");
    assert_string_equal(status->body.status_reply.sweep.state, "done");
    ha_wire_message_destroy(status);
    bench_expect_sweep(b, CLIENT, "cancelled");
    expect_outcome(b, "k3", bench_grid, false, "resumed", NULL);
    bench_expect_sweep(b, CLIENT, "done");
    bench_expect_stage(b, CLIENT, "tiny/mid", "judge:q", "reused", NULL);
    free(grid);
}

static void too_many_failures_stop_the_sweep(void **state)
{
    struct bench *b = *state;
    char *grid = edited("[[judge]]", "[retry]\nmax_failures = 1\n[[judge]]");
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    expect_outcome(b, "k", grid, false, "created", NULL);
    assert_true(bench_granted(b, WORKER, &job));
    bench_end(b, WORKER, &job, "refused", "no such model");
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "failed", "no such model");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "cancelled",
                       "stopped: 1 cells failed (retry.max_failures)");
    bench_expect_sweep(b, CLIENT, "gaps");
    free(grid);
}

static void unknown_names_are_said(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = change("x", "cancel", "tiny/none");

    bench_create(b, CLIENT);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOENT);
    message = change("y", "explode", "");
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOSYS);
    message.body.change.sweep = "none";
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOENT);
}

/* 500 values of beta: base once, mid 500 times. */
static char *large_grid(void)
{
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append_text(&text, bench_grid), 0);
    assert_int_equal(ha_buffer_append_text(&text, "[vary]\nbeta = ["), 0);
    for (int i = 1; i <= 500; i++)
        assert_int_equal(ha_buffer_printf(&text, "%s%d.5", i > 1 ? ", " : "", i), 0);
    assert_int_equal(ha_buffer_append_text(&text, "]\n"), 0);
    return ha_buffer_detach(&text);
}

static void a_large_grid_expands_in_slices(void **state)
{
    struct bench *b = *state;
    char *grid = large_grid();
    struct ha_wire_message *reply = bench_submit(b, CLIENT, "k", grid, false);

    assert_string_equal(reply->body.submit_reply.outcome, "created");
    assert_int_equal(reply->body.submit_reply.cells, 501);
    ha_wire_message_destroy(reply);
    bench_turn(b, 0);
    reply = bench_status(b, CLIENT, "demo");
    assert_true(reply->body.status_reply.sweep.stages < 1502); /* not all yet */
    assert_string_equal(reply->body.status_reply.sweep.state, "running");
    ha_wire_message_destroy(reply);
    bench_restart(b); /* in the middle */
    bench_hello_client(b, CLIENT);
    bench_settle(b);
    reply = bench_status(b, CLIENT, "demo");
    assert_int_equal(reply->body.status_reply.sweep.stages, 1502);
    assert_int_equal(reply->body.status_reply.sweep.cells, 501);
    ha_wire_message_destroy(reply);
    free(grid);
}

static void status_pages_through_all_cells(void **state)
{
    struct bench *b = *state;
    char *grid = large_grid();
    struct ha_wire_message ask = {.kind = HA_WIRE_STATUS_REQUEST,
                                  .body.status_request = {.sweep = "demo", .limit = 64}};
    int64_t cells = 0;
    bool more = true;

    expect_outcome(b, "k", grid, false, "created", NULL);
    while (more) {
        struct ha_wire_message *page = bench_call(b, CLIENT, &ask, HA_WIRE_STATUS_REPLY);
        const struct ha_wire_status_reply *reply = &page->body.status_reply;

        cells += reply->n_cells;
        more = reply->more;
        ask.body.status_request.after_cell = reply->cells[reply->n_cells - 1].cell;
        ha_wire_message_destroy(page);
    }
    assert_int_equal(cells, 501);
    free(grid);
}

static void one_cell_is_shown_with_its_artifacts(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message ask = {.kind = HA_WIRE_STATUS_REQUEST,
                                  .body.status_request = {.sweep = "demo", .cell = "tiny/mid"}};
    struct ha_wire_message *reply;
    const struct ha_wire_stage_row *train;

    finish(b);
    reply = bench_call(b, CLIENT, &ask, HA_WIRE_STATUS_REPLY);
    assert_int_equal(reply->body.status_reply.n_cells, 1);
    assert_non_null(strstr(reply->body.status_reply.cells[0].settings_json, "learning_rate"));
    assert_string_equal(reply->body.status_reply.cells[0].layers, "2-3");
    train = bench_stage(reply, "tiny/mid", "train");
    assert_int_equal(train->n_artifacts, 2);
    assert_string_equal(train->artifacts[1].sha256, ADAPTER_DIGEST);
    assert_string_equal(train->summary_json, "{\"steps\":1}");
    ha_wire_message_destroy(reply);
}

static void history_and_metrics_are_kept(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message log = {.kind = HA_WIRE_LOG_REQUEST,
                                  .body.log_request = {.sweep = "demo", .limit = 5}};
    struct ha_wire_message metrics = {.kind = HA_WIRE_METRICS_REQUEST,
                                      .body.metrics_request = {.sweep = "demo"}};
    struct ha_wire_message workers = {.kind = HA_WIRE_WORKERS_REQUEST}, *reply;

    finish(b);
    reply = bench_call(b, CLIENT, &log, HA_WIRE_LOG_REPLY);
    assert_int_equal(reply->body.log_reply.n_events, 5);
    assert_true(reply->body.log_reply.more);
    assert_string_equal(reply->body.log_reply.events[0].subject, "sweep demo");
    assert_string_equal(reply->body.log_reply.events[0].to, "submitted");
    assert_string_equal(reply->body.log_reply.events[0].actor, "local");
    ha_wire_message_destroy(reply);
    reply = bench_call(b, CLIENT, &metrics, HA_WIRE_METRICS_REPLY);
    assert_int_equal(reply->body.metrics_reply.n_rows, 1);
    assert_string_equal(reply->body.metrics_reply.rows[0].name, "loss");
    assert_true(reply->body.metrics_reply.rows[0].value == 0.5);
    ha_wire_message_destroy(reply);
    reply = bench_call(b, CLIENT, &workers, HA_WIRE_WORKERS_REPLY);
    assert_int_equal(reply->body.workers_reply.n_workers, 2);
    ha_wire_message_destroy(reply);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_key_one_sweep),
        CASE(what_is_wrong_is_said),
        CASE(a_full_disk_refuses_submits_only),
        CASE(a_large_grid_is_read_in_slices),
        CASE(a_key_is_of_one_request_while_it_is_worked_on),
        CASE(grids_that_are_read_are_limited_in_number),
        CASE(a_changed_setting_is_refused_by_name),
        CASE(settings_without_effect_are_applied),
        CASE(cells_come_and_go),
        CASE(a_second_judge_asks_for_its_own),
        CASE(cancel_stops_and_submit_resumes),
        CASE(one_cell_is_cancelled_and_retried),
        CASE(a_shared_result_survives_one_cancel),
        CASE(too_many_failures_stop_the_sweep),
        CASE(unknown_names_are_said),
        CASE(a_large_grid_expands_in_slices),
        CASE(status_pages_through_all_cells),
        CASE(one_cell_is_shown_with_its_artifacts),
        CASE(history_and_metrics_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
