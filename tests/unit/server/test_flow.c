/* The whole way of a sweep, with fake workers: submit, train, generate, judge. */
#include "support.h"

#include <stdio.h>
#include <string.h>

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
    bench_hello_client(b, CLIENT);
    bench_create(b, CLIENT);
}

static void a_submit_explains_itself(void **state)
{
    struct bench *b = *state;

    submit(b);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", "no worker is connected");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready", "no worker is connected");
    bench_expect_stage(b, CLIENT, "tiny/mid", "generate", "waiting", "waiting for training");
    bench_expect_stage(b, CLIENT, "tiny/mid", "judge:q", "waiting",
                       "waiting for answers: waiting for training");
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
    assert_int_equal(bench_judge_all(b, JUDGE), 0); /* the other cell has not answered */
    bench_expect_stage(b, CLIENT, "tiny/base", "judge:q", "ready",
                       "waiting until every cell of the model has answered the same prompts");
    bench_do_job(b, WORKER, &second, 0);
    assert_true(bench_granted(b, WORKER, &second));
    assert_false(second.train);
    bench_do_job(b, WORKER, &second, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 6);
    bench_settle(b);

    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", "");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "done", "");
    bench_expect_stage(b, CLIENT, "tiny/mid", "judge:q", "done", "");
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
