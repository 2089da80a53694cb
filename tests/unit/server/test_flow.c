/* The whole way of a sweep, with fake workers: submit, train, generate, judge. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#include "common/conf/dimensions.h"

enum { CLIENT = 1, WORKER = 2, JUDGE = 3 };

static int setup(void **state)
{
    static struct bench b;

    bench_open(&b);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

static void submit(struct bench *b)
{
    struct ha_wire_message *reply;

    bench_hello_client(b, CLIENT);
    reply = bench_submit(b, CLIENT, "k1", bench_grid, false);
    if (strcmp(reply->body.submit_reply.outcome, "created") != 0)
        fail_msg("%s: %s", reply->body.submit_reply.outcome, reply->body.submit_reply.notes[0]);
    assert_int_equal(reply->body.submit_reply.cells, 2);
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

static void expect_stage(struct bench *b, const char *cell, const char *stage, const char *is,
                         const char *reason)
{
    struct ha_wire_message *status = bench_status(b, CLIENT, "demo");
    const struct ha_wire_stage_row *row = bench_stage(status, cell, stage);

    assert_string_equal(row->state, is);
    if (reason)
        assert_string_equal(row->reason, reason);
    ha_wire_message_destroy(status);
}

static void a_submit_explains_itself(void **state)
{
    struct bench *b = *state;

    submit(b);
    expect_stage(b, "tiny/base", "generate", "ready", "no worker is connected");
    expect_stage(b, "tiny/mid", "train", "ready", "no worker is connected");
    expect_stage(b, "tiny/mid", "generate", "waiting", "waiting for training");
    expect_stage(b, "tiny/mid", "judge:q", "waiting", "waiting for answers: waiting for training");
}

/* Judge everything that can be leased; returns how many items there were. */
static int64_t judge_all(struct bench *b)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_ITEMS_REQUEST,
                                  .body.items_request = {.max_items = 100}};
    struct ha_wire_message *grant = bench_call(b, JUDGE, &ask, HA_WIRE_ITEMS_GRANT);
    int64_t count = grant->body.items_grant.n_items;

    for (int64_t i = 0; i < count; i++) {
        const struct ha_wire_item *item = &grant->body.items_grant.items[i];
        struct ha_wire_item_ref ref = {.item = item->item, .epoch = item->epoch};
        struct ha_wire_message begin = {.kind = HA_WIRE_ITEMS_BEGIN,
                                        .body.items_begin = {.items = &ref, .n_items = 1}};
        struct ha_wire_message *begun = bench_call(b, JUDGE, &begin, HA_WIRE_ITEMS_BEGIN_REPLY);
        struct ha_wire_judge_reply raw = {.item = item->item,
                                          .epoch = item->epoch,
                                          .http_status = 200,
                                          .raw = {(const uint8_t *)"raw", 3},
                                          .host = "h",
                                          .error = ""};
        struct ha_wire_message replies = {.kind = HA_WIRE_JUDGE_REPLIES,
                                          .body.judge_replies = {.replies = &raw, .n_replies = 1}};
        struct ha_wire_score scores[HA_DIMENSIONS];
        struct ha_wire_judge_outcome outcome = {.item = item->item,
                                                .epoch = item->epoch,
                                                .kind = "scored",
                                                .scores = scores,
                                                .n_scores = HA_DIMENSIONS,
                                                .fault = "",
                                                .identity = MODEL_DIGEST};
        struct ha_wire_message outcomes = {
            .kind = HA_WIRE_JUDGE_OUTCOMES,
            .body.judge_outcomes = {.outcomes = &outcome, .n_outcomes = 1}};
        struct ha_wire_message *ack;

        assert_int_equal(begun->body.items_begin_reply.n_calls, 1);
        raw.call = outcome.call = begun->body.items_begin_reply.calls[0].call;
        for (int d = 0; d < HA_DIMENSIONS; d++)
            scores[d] = (struct ha_wire_score){
                .dimension = ha_dimensions[d].name, .value = 1 + (uint32_t)d % 5, .reason = "why"};
        ack = bench_call(b, JUDGE, &replies, HA_WIRE_JUDGE_ACK);
        assert_int_equal(ack->body.judge_ack.n_calls, 1);
        assert_int_equal(ack->body.judge_ack.n_stale, 0);
        ha_wire_message_destroy(ack);
        ack = bench_call(b, JUDGE, &outcomes, HA_WIRE_JUDGE_ACK);
        assert_int_equal(ack->body.judge_ack.n_calls, 1);
        ha_wire_message_destroy(ack);
        ha_wire_message_destroy(begun);
    }
    ha_wire_message_destroy(grant);
    return count;
}

static void from_submit_to_scores(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    struct ha_wire_message answers = {.kind = HA_WIRE_ANSWERS_REQUEST,
                                      .body.answers_request = {.sweep = "demo",
                                                               .cell = "tiny/mid",
                                                               .prompt = -1,
                                                               .with_text = true,
                                                               .with_reasons = true}};
    struct fake_job first, second;

    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    submit(b);
    assert_true(bench_granted(b, WORKER, &first));
    assert_true(bench_granted(b, WORKER, &second));
    assert_false(first.train); /* base */
    assert_true(second.train);
    bench_do_job(b, WORKER, &first, 3);
    assert_int_equal(judge_all(b), 0); /* the other cell has not answered */
    expect_stage(b, "tiny/base", "judge:q", "ready",
                 "waiting until every cell of the model has answered the same prompts");
    bench_do_job(b, WORKER, &second, 0);
    assert_true(bench_granted(b, WORKER, &second));
    assert_false(second.train);
    bench_do_job(b, WORKER, &second, 3);
    assert_int_equal(judge_all(b), 6);
    bench_settle(b);

    expect_stage(b, "tiny/base", "generate", "done", "");
    expect_stage(b, "tiny/mid", "train", "done", "");
    expect_stage(b, "tiny/mid", "judge:q", "done", "");
    reply = bench_call(b, CLIENT, &list, HA_WIRE_SWEEP_LIST);
    assert_int_equal(reply->body.sweep_list.n_sweeps, 1);
    assert_string_equal(reply->body.sweep_list.sweeps[0].state, "done");
    assert_int_equal(reply->body.sweep_list.sweeps[0].stages, 5);
    assert_int_equal(reply->body.sweep_list.sweeps[0].stages_done, 5);
    ha_wire_message_destroy(reply);

    reply = bench_call(b, CLIENT, &answers, HA_WIRE_ANSWERS_REPLY);
    assert_int_equal(reply->body.answers_reply.n_answers, 3);
    assert_string_equal(reply->body.answers_reply.answers[0].prompt_text, "question 0");
    assert_int_equal(reply->body.answers_reply.answers[0].n_scores, 1);
    assert_int_equal(reply->body.answers_reply.answers[0].scores[0].n_scores, 16);
    assert_string_equal(reply->body.answers_reply.answers[0].scores[0].state, "scored");
    assert_string_equal(reply->body.answers_reply.answers[0].scores[0].scores[0].reason, "why");
    ha_wire_message_destroy(reply);
}

static void results_are_reused_by_key(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    char grid[2048];

    from_submit_to_scores(state);
    snprintf(grid, sizeof grid, "%s", bench_grid);
    memcpy(strstr(grid, "demo"), "more", 4);
    reply = bench_submit(b, CLIENT, "k2", grid, false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    bench_settle(b);
    reply = bench_call(b, CLIENT, &list, HA_WIRE_SWEEP_LIST);
    assert_int_equal(reply->body.sweep_list.n_sweeps, 2);
    assert_string_equal(reply->body.sweep_list.sweeps[1].state, "done");
    ha_wire_message_destroy(reply);
    reply = bench_status(b, CLIENT, "more");
    assert_string_equal(bench_stage(reply, "tiny/mid", "train")->state, "reused");
    assert_string_equal(bench_stage(reply, "tiny/mid", "judge:q")->state, "reused");
    assert_int_equal(bench_stage(reply, "tiny/mid", "judge:q")->done, 3);
    ha_wire_message_destroy(reply);
    assert_null(bench_push(b, WORKER, HA_WIRE_GRANT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_submit_explains_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(from_submit_to_scores, setup, teardown),
        cmocka_unit_test_setup_teardown(results_are_reused_by_key, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
