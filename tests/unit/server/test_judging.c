/* Leases of items: each answer is scored at most once, each reply read once. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#include "common/conf/dimensions.h"

enum { CLIENT = 1, WORKER = 2, JUDGE = 3, OTHER = 4 };

static int setup(void **state)
{
    static struct bench b;

    bench_open(&b);
    bench_hello_client(&b, CLIENT);
    bench_hello_judge(&b, JUDGE, "j1", "i1");
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

/* Both cells have answered 3 prompts each. */
static void answer_all(struct bench *b)
{
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_create(b, CLIENT);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
}

static struct ha_wire_message *answers(struct bench *b)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_ANSWERS_REQUEST,
                                  .body.answers_request = {.sweep = "demo", .prompt = -1}};

    return bench_call(b, CLIENT, &ask, HA_WIRE_ANSWERS_REPLY);
}

static int64_t scored(struct bench *b)
{
    struct ha_wire_message *reply = answers(b);
    int64_t count = 0;

    for (int64_t i = 0; i < reply->body.answers_reply.n_answers; i++) {
        const struct ha_wire_answer_row *row = &reply->body.answers_reply.answers[i];

        assert_int_equal(row->n_scores, 1);
        assert_true(row->scores[0].n_scores == 0 || row->scores[0].n_scores == HA_DIMENSIONS);
        count += row->scores[0].n_scores == HA_DIMENSIONS;
    }
    ha_wire_message_destroy(reply);
    return count;
}

static void leases_are_exclusive(void **state)
{
    struct bench *b = *state;
    struct fake_item items[10], more[10];

    answer_all(b);
    bench_hello_judge(b, OTHER, "j2", "i2");
    assert_int_equal(bench_items(b, JUDGE, items, 4), 4);
    assert_int_equal(bench_items(b, OTHER, more, 10), 2);
    assert_int_equal(bench_items(b, JUDGE, more, 10), 0);
    assert_false(bench_begin(b, OTHER, &items[0], 0)); /* not its lease */
    assert_true(bench_begin(b, JUDGE, &items[0], 0));
}

static void items_of_a_prompt_come_together(void **state)
{
    struct bench *b = *state;
    struct fake_item items[10];
    struct ha_wire_message *reply;
    int64_t prompts[6];

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, items, 10), 6);
    reply = answers(b);
    for (int i = 0; i < 6; i++)
        prompts[i] = reply->body.answers_reply.answers[items[i].item - 1].prompt;
    ha_wire_message_destroy(reply);
    for (int i = 0; i < 6; i += 2)
        assert_int_equal(prompts[i], prompts[i + 1]);
}

/* Two answers to each of 3 prompts, of one cell. */
static void answer_samples(struct bench *b, struct fake_job *job)
{
    struct ha_wire_attempt_event done = {
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = job->cell, .done = true, .reason = "", .summary_json = "{}"}};
    struct ha_wire_attempt_event end = {.kind = HA_WIRE_ATTEMPT_EVENT_END,
                                        .event.end = {.outcome = "done", .reason = ""}};

    for (int i = 0; i < 6; i++) {
        struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                              .event.answer = {.cell = job->cell,
                                                               .prompt = i / 2,
                                                               .sample = (uint32_t)i % 2,
                                                               .prompt_text = "question",
                                                               .text = "answer",
                                                               .raw = "answer",
                                                               .finish = "eos",
                                                               .prompt_tokens = 3,
                                                               .tokens = 4}};

        ha_wire_message_destroy(bench_report(b, WORKER, job, &event, 1));
        ha_wire_message_destroy(bench_report(b, WORKER, job, &event, 1)); /* counts once */
    }
    ha_wire_message_destroy(bench_report(b, WORKER, job, &done, 1));
    ha_wire_message_destroy(bench_report(b, WORKER, job, &end, 1));
}

/* Each sample of an answer is an item for each sample of the judge. */
static void samples_are_items_of_their_own(void **state)
{
    struct bench *b = *state;
    struct fake_item items[40];
    struct fake_job job;
    struct ha_wire_message *reply;
    char grid[2048];

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    snprintf(grid, sizeof grid, "%ssamples = 2\n[generate]\ntemperature = 1.0\nsamples = 2\n",
             bench_grid);
    ha_wire_message_destroy(bench_submit(b, CLIENT, "create", grid, false));
    bench_settle(b);
    while (bench_granted(b, WORKER, &job)) {
        if (job.train)
            bench_do_job(b, WORKER, &job, 0);
        else
            answer_samples(b, &job);
    }
    assert_int_equal(bench_items(b, JUDGE, items, 40), 2 * 3 * 2 * 2);
    reply = answers(b);
    assert_int_equal(reply->body.answers_reply.n_answers, 2 * 3 * 2);
    for (int i = 0; i < 12; i++)
        assert_int_equal(reply->body.answers_reply.answers[i].n_scores, 2);
    ha_wire_message_destroy(reply);
}

static void a_repeated_begin_is_one_call(void **state)
{
    struct bench *b = *state;
    struct fake_item item, again;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    again = item;
    assert_true(bench_begin(b, JUDGE, &again, 0));
    assert_int_equal(again.call, item.call);
}

/* Says what it has of `items`; how many it gets. */
static int64_t ask_holding(struct bench *b, const struct fake_item *items, int64_t n)
{
    struct ha_wire_item_ref held[8];
    struct ha_wire_message ask = {
        .kind = HA_WIRE_ITEMS_REQUEST,
        .body.items_request = {.max_items = 10, .lists_held = true, .held = held, .n_held = n}};
    struct ha_wire_message *grant;
    int64_t count;

    for (int64_t i = 0; i < n; i++)
        held[i] = (struct ha_wire_item_ref){.item = items[i].item, .epoch = items[i].epoch};
    grant = bench_call(b, JUDGE, &ask, HA_WIRE_ITEMS_GRANT);
    count = grant->body.items_grant.n_items;
    ha_wire_message_destroy(grant);
    return count;
}

static void what_a_lost_grant_held_is_free_again(void **state)
{
    struct bench *b = *state;
    struct fake_item items[6];

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, items, 6), 6);
    assert_true(bench_begin(b, JUDGE, &items[5], 0));
    assert_int_equal(ask_holding(b, items, 4), 2);     /* the call of one may be paid: a send */
    assert_false(bench_begin(b, JUDGE, &items[4], 0)); /* of the older lease */
    assert_true(bench_begin(b, JUDGE, &items[3], 0));
}

static void an_older_request_gets_nothing(void **state)
{
    struct bench *b = *state;
    struct fake_item item;
    struct ha_wire_message late = {.kind = HA_WIRE_ITEMS_REQUEST,
                                   .body.items_request = {.max_items = 10, .lists_held = true}};
    struct ha_wire_message *grant;
    uint64_t next;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    next = b->next_request;
    b->next_request = 0;
    grant = bench_call(b, JUDGE, &late, HA_WIRE_ITEMS_GRANT);
    b->next_request = next;
    assert_int_equal(grant->body.items_grant.n_items, 0);
    ha_wire_message_destroy(grant);
    assert_true(bench_begin(b, JUDGE, &item, 0));
}

static void a_late_begin_makes_no_second_call(void **state)
{
    struct bench *b = *state;
    struct fake_item item;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    bench_raw(b, JUDGE, &item, 0);
    assert_false(bench_begin(b, JUDGE, &item, 0));
}

static void a_repeated_outcome_scores_once(void **state)
{
    struct bench *b = *state;
    struct fake_item item;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    bench_raw(b, JUDGE, &item, 0);
    bench_raw(b, JUDGE, &item, 0);
    bench_outcome(b, JUDGE, &item, "scored", "");
    bench_outcome(b, JUDGE, &item, "scored", "");
    assert_int_equal(scored(b), 1);
}

static void scores_need_their_reply(void **state)
{
    struct bench *b = *state;
    struct fake_item item;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    assert_true(bench_outcome(b, JUDGE, &item, "scored", "")); /* raw was never stored */
    assert_int_equal(scored(b), 0);
}

static void fifteen_scores_are_none(void **state)
{
    struct bench *b = *state;
    struct fake_item item;
    struct ha_wire_score scores[HA_DIMENSIONS];
    struct ha_wire_judge_outcome outcome = {
        .kind = "scored", .scores = scores, .n_scores = HA_DIMENSIONS, .identity = MODEL_DIGEST};
    struct ha_wire_message message = {
        .kind = HA_WIRE_JUDGE_OUTCOMES,
        .body.judge_outcomes = {.outcomes = &outcome, .n_outcomes = 1}};

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    bench_raw(b, JUDGE, &item, 0);
    for (int d = 0; d < HA_DIMENSIONS; d++)
        scores[d] = (struct ha_wire_score){
            .dimension = ha_dimensions[d == 15 ? 14 : d].name, .value = 3, .reason = ""};
    outcome.item = item.item;
    outcome.epoch = item.epoch;
    outcome.call = item.call;
    ha_wire_message_destroy(bench_call(b, JUDGE, &message, HA_WIRE_JUDGE_ACK));
    assert_int_equal(scored(b), 0);
}

static void a_late_score_wins_when_it_is_first(void **state)
{
    struct bench *b = *state;
    struct fake_item item, again[10];

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000); /* j1 is lost; its call may have been paid */
    bench_hello_judge(b, OTHER, "j2", "i2");
    assert_int_equal(bench_items(b, OTHER, again, 10), 6);
    assert_true(bench_raw(b, JUDGE, &item, 0)); /* stored, though the lease is over */
    bench_outcome(b, JUDGE, &item, "scored", "");
    assert_int_equal(scored(b), 1);
    for (int i = 0; i < 6; i++) {
        if (again[i].item == item.item)
            assert_false(bench_begin(b, OTHER, &again[i], 0)); /* never asked a second time */
    }
}

static void a_stored_reply_is_read_by_another(void **state)
{
    struct bench *b = *state;
    struct fake_item item, again[10];
    int at = 0;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    bench_raw(b, JUDGE, &item, 0);
    bench_hello_judge(b, OTHER, "j1", "i2"); /* it died before it read the reply */
    assert_int_equal(bench_items(b, OTHER, again, 10), 6);
    while (again[at].item != item.item)
        at++;
    assert_int_equal(again[at].reply_call, item.call);
    assert_false(bench_begin(b, OTHER, &again[at], 0));
    assert_int_equal(bench_items(b, OTHER, again, 10), 1);
    again[0].call = again[0].reply_call;
    assert_false(bench_outcome(b, OTHER, &again[0], "scored", ""));
    assert_int_equal(scored(b), 1);
}

static void reasks_are_capped(void **state)
{
    struct bench *b = *state;
    struct fake_item items[10];

    answer_all(b);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bench_items(b, JUDGE, items, 1), 1);
        assert_int_equal(items[0].reasks, i);
        if (i > 0)
            assert_string_equal(items[0].fault, "15 scores");
        assert_true(bench_begin(b, JUDGE, &items[0], 0));
        bench_raw(b, JUDGE, &items[0], 0);
        assert_false(bench_outcome(b, JUDGE, &items[0], "reask", "15 scores"));
    }
    assert_int_equal(bench_judge_all(b, JUDGE), 5);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "gaps");
    assert_int_equal(scored(b), 5);
}

static void a_failed_item_is_retried_on_request(void **state)
{
    struct bench *b = *state;
    struct fake_item item;
    struct ha_wire_message change = {
        .kind = HA_WIRE_CHANGE,
        .body.change = {.key = "r1", .verb = "retry", .sweep = "demo", .failed_only = true}};

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0));
    bench_outcome(b, JUDGE, &item, "failed", "the evaluator refused it");
    assert_int_equal(bench_judge_all(b, JUDGE), 5);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "gaps");
    ha_wire_message_destroy(bench_call(b, CLIENT, &change, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "running");
    assert_int_equal(bench_judge_all(b, JUDGE), 1);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
    assert_int_equal(scored(b), 6);
}

static void sends_are_capped_and_wait(void **state)
{
    struct bench *b = *state;
    struct fake_item items[10], first;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &first, 1), 1);
    assert_true(bench_begin(b, JUDGE, &first, 0));
    bench_outcome(b, JUDGE, &first, "retry", "503");
    assert_int_equal(bench_items(b, JUDGE, items, 10), 5); /* the first one waits */
    for (int i = 2; i <= 6; i++) {
        for (int t = 0; t < 20; t++) {
            bench_turn(b, 4000);
            ha_wire_message_destroy(bench_beat(b, JUDGE, NULL, 0));
        }
        assert_int_equal(bench_items(b, JUDGE, items, 10), 1);
        assert_int_equal(items[0].item, first.item);
        assert_true(bench_begin(b, JUDGE, &items[0], 0));
        bench_outcome(b, JUDGE, &items[0], "retry", "503");
    }
    for (int t = 0; t < 100; t++) {
        bench_turn(b, 4000);
        ha_wire_message_destroy(bench_beat(b, JUDGE, NULL, 0));
    }
    assert_int_equal(bench_items(b, JUDGE, items, 10), 0); /* six sends are used up */
}

static void a_release_costs_nothing(void **state)
{
    struct bench *b = *state;
    struct fake_item item, again;
    struct ha_wire_message *status;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, &item, 1), 1);
    assert_true(bench_begin(b, JUDGE, &item, 0.5));
    bench_outcome(b, JUDGE, &item, "release", "");
    status = bench_status(b, CLIENT, "demo");
    assert_true(status->body.status_reply.reserved < 1e-9);
    ha_wire_message_destroy(status);
    assert_int_equal(bench_items(b, JUDGE, &again, 1), 1);
    assert_int_equal(again.item, item.item);
}

static void money_is_reserved_spent_and_possibly_paid(void **state)
{
    struct bench *b = *state;
    struct fake_item items[2];
    struct ha_wire_message *status;

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, items, 2), 2);
    assert_true(bench_begin(b, JUDGE, &items[0], 0.5));
    assert_true(bench_begin(b, JUDGE, &items[1], 0.5));
    bench_raw(b, JUDGE, &items[0], 0.25);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000);
    status = bench_status(b, CLIENT, "demo");
    assert_true(status->body.status_reply.spent == 0.25);
    assert_true(status->body.status_reply.reserved == 0.5);
    assert_int_equal(status->body.status_reply.possibly_paid, 1);
    ha_wire_message_destroy(status);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    bench_raw(b, JUDGE, &items[1], 0.125); /* its spool had the reply */
    status = bench_status(b, CLIENT, "demo");
    assert_true(status->body.status_reply.spent == 0.375);
    assert_true(status->body.status_reply.reserved == 0);
    assert_int_equal(status->body.status_reply.possibly_paid, 0);
    ha_wire_message_destroy(status);
}

static void a_restart_keeps_leases_and_replies(void **state)
{
    struct bench *b = *state;
    struct fake_item items[2], more[10];

    answer_all(b);
    assert_int_equal(bench_items(b, JUDGE, items, 2), 2);
    assert_true(bench_begin(b, JUDGE, &items[0], 0));
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    assert_int_equal(bench_items(b, JUDGE, more, 10), 4); /* two are still leased */
    assert_false(bench_raw(b, JUDGE, &items[0], 0));
    assert_false(bench_outcome(b, JUDGE, &items[0], "scored", ""));
    assert_true(bench_begin(b, JUDGE, &items[1], 0));
    assert_int_equal(scored(b), 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(leases_are_exclusive),
        CASE(items_of_a_prompt_come_together),
        CASE(samples_are_items_of_their_own),
        CASE(a_repeated_begin_is_one_call),
        CASE(what_a_lost_grant_held_is_free_again),
        CASE(an_older_request_gets_nothing),
        CASE(a_late_begin_makes_no_second_call),
        CASE(a_repeated_outcome_scores_once),
        CASE(scores_need_their_reply),
        CASE(fifteen_scores_are_none),
        CASE(a_late_score_wins_when_it_is_first),
        CASE(a_stored_reply_is_read_by_another),
        CASE(reasks_are_capped),
        CASE(a_failed_item_is_retried_on_request),
        CASE(sends_are_capped_and_wait),
        CASE(a_release_costs_nothing),
        CASE(money_is_reserved_spent_and_possibly_paid),
        CASE(a_restart_keeps_leases_and_replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
