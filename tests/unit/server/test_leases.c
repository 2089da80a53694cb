/* Leases of jobs: reports, epochs, silence, restarts, retries. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { CLIENT = 1, WORKER = 2, OTHER = 3 };

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

/* A worker with one slot that holds the generate job of base. */
static struct fake_job start(struct bench *b)
{
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &job));
    assert_false(job.train);
    return job;
}

static struct ha_wire_attempt_event answer_event(const struct fake_job *job, int64_t prompt)
{
    return (struct ha_wire_attempt_event){.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                          .event.answer = {.cell = job->cell,
                                                           .prompt = prompt,
                                                           .prompt_text = "q",
                                                           .text = "a",
                                                           .raw = "a",
                                                           .finish = "eos"}};
}

static void expect_report(struct bench *b, uint64_t peer, struct fake_job *job, uint64_t sequence,
                          uint64_t taken, bool stale)
{
    struct ha_wire_attempt_event event = answer_event(job, 0);
    struct ha_wire_message *reply;

    job->sequence = sequence - 1;
    reply = bench_report(b, peer, job, &event, 1);
    assert_int_equal(reply->body.report_reply.stale, stale);
    if (!stale)
        assert_int_equal(reply->body.report_reply.sequence, taken);
    ha_wire_message_destroy(reply);
}

static int64_t answers(struct bench *b)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_ANSWERS_REQUEST,
                                  .body.answers_request = {.sweep = "demo", .prompt = -1}};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &ask, HA_WIRE_ANSWERS_REPLY);
    int64_t count = reply->body.answers_reply.n_answers;

    ha_wire_message_destroy(reply);
    return count;
}

static void reports_count_once(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    expect_report(b, WORKER, &job, 1, 1, false);
    expect_report(b, WORKER, &job, 1, 1, false); /* its reply was lost */
    assert_int_equal(answers(b), 1);
    expect_report(b, WORKER, &job, 2, 2, false); /* the same answer again */
    assert_int_equal(answers(b), 1);
}

/* The worker was told that report 2 is durable, and the store has lost it: nobody waits for it. */
static void a_lost_report_ends_the_attempt(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;

    expect_report(b, WORKER, &job, 1, 1, false); /* an answer: progress */
    expect_report(b, WORKER, &job, 3, 1, true);
    assert_int_equal(answers(b), 1); /* what the store has stays */
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.job, job.job);
    assert_int_equal(again.epoch.number, 2);
    expect_report(b, WORKER, &job, 4, 1, true);
    bench_do_job(b, WORKER, &again, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

static void other_epochs_are_stale(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), wrong = job;

    wrong.epoch.number++;
    expect_report(b, WORKER, &wrong, 1, 0, true);
    wrong = job;
    wrong.epoch.generation++;
    expect_report(b, WORKER, &wrong, 1, 0, true);
    wrong = job;
    wrong.job += 100;
    expect_report(b, WORKER, &wrong, 1, 0, true);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    expect_report(b, OTHER, &job, 1, 0, true); /* not its lease */
    assert_int_equal(answers(b), 0);
}

static void a_report_waits_for_its_artifacts(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_attempt_event event = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {.kind = "log", .name = "log.txt", .sha256 = CONFIG_DIGEST, .size = 10}};
    struct ha_wire_message *reply = bench_report(b, WORKER, &job, &event, 1);

    assert_int_equal(reply->body.report_reply.n_missing, 1);
    assert_string_equal(reply->body.report_reply.missing[0], CONFIG_DIGEST);
    assert_int_equal(reply->body.report_reply.sequence, 0);
    ha_wire_message_destroy(reply);
    bench_artifact(b, CONFIG_DIGEST);
    job.sequence = 0;
    reply = bench_report(b, WORKER, &job, &event, 1);
    assert_int_equal(reply->body.report_reply.n_missing, 0);
    assert_int_equal(reply->body.report_reply.sequence, 1);
    ha_wire_message_destroy(reply);
}

static void training_without_an_adapter_is_no_success(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_attempt_event done = {
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.done = true, .reason = "", .summary_json = "{}"}};

    bench_do_job(b, WORKER, &job, 3);
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    done.event.cell.cell = job.cell;
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &done, 1));
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "failed",
                       "the attempt ended without an adapter");
}

static void silence_gives_the_job_to_another(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;

    expect_report(b, WORKER, &job, 1, 1, false);
    bench_hello_worker(b, OTHER, "w2", "i2", 1);
    assert_true(bench_granted(b, OTHER, &again)); /* the train job */
    for (int i = 0; i < 14; i++) {
        bench_turn(b, 4000);
        ha_wire_message_destroy(bench_beat(b, OTHER, &again, 1));
    }
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    bench_turn(b, 4000);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", "the only slot is busy");
    bench_do_job(b, OTHER, &again, 0);
    assert_true(bench_granted(b, OTHER, &again)); /* at once: a loss waits for nothing */
    assert_int_equal(again.job, job.job);
    assert_int_equal(again.epoch.number, job.epoch.number + 1);
    expect_report(b, WORKER, &job, 2, 0, true); /* the zombie */
    bench_do_job(b, OTHER, &again, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

/* A hundred workers that have nothing to do are not to keep the coordinator busy. */
static void an_idle_crowd_beats_less_often(void **state)
{
    enum { FIRST = 1000, WORKERS = 100 };
    struct bench *b = *state;
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT}, *reply;
    int answered = 0;
    char name[16];

    bench_hello_worker(b, FIRST, "one", "i", 1);
    reply = bench_call(b, FIRST, &beat, HA_WIRE_HEARTBEAT_REPLY);
    assert_int_equal(reply->body.heartbeat_reply.rest_ms, 0);
    ha_wire_message_destroy(reply);
    for (int i = 1; i < WORKERS; i++) {
        snprintf(name, sizeof name, "w%d", i);
        bench_hello_worker(b, FIRST + (uint64_t)i, name, "i", 1);
    }
    bench_settle(b);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < WORKERS; i++) {
            reply = bench_reply(b, FIRST + i, bench_send(b, FIRST + i, &beat));
            answered += reply != NULL;
            if (reply)
                assert_in_range(reply->body.heartbeat_reply.rest_ms, 5001, 7499);
            ha_wire_message_destroy(reply);
        }
    }
    assert_int_equal(answered, WORKERS);
}

static void a_lost_attempt_is_taken_back(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message *reply;

    expect_report(b, WORKER, &job, 1, 1, false);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", "no worker is connected");
    reply = bench_beat(b, WORKER, &job, 1);
    assert_int_equal(reply->body.heartbeat_reply.n_should_run, 1);
    assert_int_equal(reply->body.heartbeat_reply.should_run[0].job, job.job);
    ha_wire_message_destroy(reply);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    job.sequence = 1;
    bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

static void a_restart_takes_running_attempts_back(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT}, *reply;

    expect_report(b, WORKER, &job, 1, 1, false);
    bench_restart(b);
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &beat, EPROTO); /* hello again */
    bench_hello_client(b, CLIENT);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    for (int i = 0; i < 10; i++)
        bench_turn(b, 4000); /* 40 s: a full new lease period has begun */
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    reply = bench_beat(b, WORKER, &job, 1);
    assert_int_equal(reply->body.heartbeat_reply.n_should_run, 1);
    ha_wire_message_destroy(reply);
    expect_report(b, WORKER, &job, 2, 2, false);
    job.sequence = 2;
    bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

/* A worker that was lost greets again: its job is not leased to it anew before it could say that it
 * has gone on with it. */
static void who_comes_back_first_tells_what_it_runs(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;

    expect_report(b, WORKER, &job, 1, 1, false);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", NULL);
    bench_hello_worker(b, OTHER, "w1", "i1", 1);
    bench_settle(b);
    assert_false(bench_granted(b, OTHER, &again));
    ha_wire_message_destroy(bench_beat(b, OTHER, &job, 1));
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    job.sequence = 1;
    bench_do_job(b, OTHER, &job, 3);
    assert_true(bench_granted(b, OTHER, &again));
}

static void a_long_turn_is_nobodys_silence(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    expect_report(b, WORKER, &job, 1, 1, false);
    bench_turn(b, 3600000); /* the coordinator's machine slept */
    bench_hello_client(b, CLIENT);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
}

static void a_new_process_voids_the_old_one(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;

    expect_report(b, WORKER, &job, 1, 1, false);
    bench_hello_worker(b, OTHER, "w1", "i2", 1);
    assert_true(bench_granted(b, OTHER, &again));
    assert_int_equal(again.job, job.job);
    expect_report(b, OTHER, &job, 2, 0, true);
}

/* What ended with the old process and was not delivered is delivered by the new one. */
static void a_new_process_keeps_what_it_has_of_the_old_one(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), other;
    struct ha_wire_job_ref kept = {.job = job.job, .epoch = job.epoch};
    struct ha_wire_message hello = {.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = "w1",
                                                   .instance = "i2",
                                                   .machine = "machine",
                                                   .slots = 1,
                                                   .kept = &kept,
                                                   .n_kept = 1}};

    expect_report(b, WORKER, &job, 1, 1, false);
    ha_wire_message_destroy(bench_call(b, OTHER, &hello, HA_WIRE_HELLO_REPLY));
    assert_false(bench_granted(b, OTHER, &other)); /* its slot is taken until then */
    expect_report(b, OTHER, &job, 1, 1, false);    /* asks where it is: nothing happens */
    job.sequence = 1;
    bench_do_job(b, OTHER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

static void an_attempt_may_end_with_its_daemon(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;
    struct ha_wire_attempt_event end = {
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {.outcome = "stopped", .reason = "its daemon died", .cause = "lost"}};

    expect_report(b, WORKER, &job, 1, 1, false);
    ha_wire_message_destroy(bench_report(b, WORKER, &job, &end, 1));
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.job, job.job);
}

static void two_processes_of_one_name_do_not_take_turns(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), again;
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT};
    struct ha_wire_message hello = {.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = "w1",
                                                   .instance = "i1",
                                                   .machine = "machine",
                                                   .slots = 1}};

    expect_report(b, WORKER, &job, 1, 1, false);
    bench_hello_worker(b, OTHER, "w1", "i2", 1);
    assert_true(bench_granted(b, OTHER, &again));
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &beat, EPROTO);
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &hello, EADDRINUSE);
    bench_do_job(b, OTHER, &again, 3);
}

static void a_report_proves_life(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    expect_report(b, WORKER, &job, 1, 1, false);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", NULL);
    expect_report(b, WORKER, &job, 2, 2, false);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000); /* and it can be lost again */
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready", NULL);
}

static void another_machine_may_not_take_a_name(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message hello = {.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = "w1",
                                                   .instance = "i9",
                                                   .machine = "elsewhere",
                                                   .slots = 1}};

    start(b);
    bench_refused(b, OTHER, HA_NET_ROLE_ADMIN, &hello, EADDRINUSE);
    for (int i = 0; i < 16; i++)
        bench_turn(b, 4000);
    ha_wire_message_destroy(bench_call(b, OTHER, &hello, HA_WIRE_HELLO_REPLY));
}

static void crashes_are_retried_with_a_wait(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), other;
    struct ha_wire_message *status;

    bench_end(b, WORKER, &job, "failed", "killed by signal 9 (SIGKILL)");
    assert_true(bench_granted(b, WORKER, &other)); /* the next job meanwhile */
    assert_true(other.train);
    status = bench_status(b, CLIENT, "demo");
    assert_non_null(strstr(bench_stage(status, "tiny/base", "generate")->reason,
                           " s after crash: killed by signal 9 (SIGKILL)"));
    ha_wire_message_destroy(status);
    bench_do_job(b, WORKER, &other, 0);
    assert_true(bench_granted(b, WORKER, &other));
    bench_do_job(b, WORKER, &other, 3);
    bench_turn(b, 1000);
    assert_false(bench_granted(b, WORKER, &job));
    bench_turn(b, 2000);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(job.epoch.number, 2);
}

static void used_up_attempts_fail_the_job(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), train;

    bench_do_job(b, WORKER, &job, 3);
    for (int i = 1; i <= 3; i++) {
        assert_true(bench_granted(b, WORKER, &train));
        bench_end(b, WORKER, &train, "failed", "exit code 1");
        for (int turn = 0; turn < 2; turn++) {
            bench_turn(b, 4000);
            ha_wire_message_destroy(bench_beat(b, WORKER, NULL, 0));
        }
    }
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "failed",
                       "3 of 3 attempts are used up; last crash: exit code 1");
    bench_expect_stage(b, CLIENT, "tiny/mid", "generate", "failed",
                       "training failed: 3 of 3 attempts are used up; last crash: exit code 1");
    bench_expect_stage(b, CLIENT, "tiny/mid", "judge:q", "failed", NULL);
    bench_expect_stage(b, CLIENT, "tiny/base", "judge:q", "ready", "no judge worker is connected");
    bench_expect_sweep(b, CLIENT, "running");
}

static void what_cannot_heal_fails_at_once(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    bench_end(b, WORKER, &job, "refused", "model.safetensors is cut short");
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "failed",
                       "model.safetensors is cut short");
}

static void a_stop_costs_nothing(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);

    for (int i = 0; i < 8; i++) {
        bench_end(b, WORKER, &job, "stopped", "asked to stop");
        assert_true(bench_granted(b, WORKER, &job));
    }
    assert_int_equal(job.epoch.number, 9);
}

static void heartbeats_say_what_should_run(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b), old = job;
    struct ha_wire_message *reply = bench_beat(b, WORKER, NULL, 0);
    struct ha_wire_message ask = {.kind = HA_WIRE_GRANT_REQUEST,
                                  .body.grant_request = {.job = job.job, .epoch = job.epoch}};

    assert_int_equal(reply->body.heartbeat_reply.n_should_run, 1);
    ha_wire_message_destroy(reply);
    reply = bench_call(b, WORKER, &ask, HA_WIRE_GRANT); /* the push was lost */
    assert_int_equal(reply->body.grant.job, job.job);
    ha_wire_message_destroy(reply);
    old.epoch.number = 77;
    ask.body.grant_request.epoch = old.epoch;
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &ask, ESTALE);
    reply = bench_beat(b, WORKER, &old, 1);
    assert_int_equal(reply->body.heartbeat_reply.n_should_run, 1);
    assert_int_equal(reply->body.heartbeat_reply.should_run[0].epoch.number, 1);
    ha_wire_message_destroy(reply);
}

/* Many that do nothing are read several at a time; not while one of them works. */
static void heartbeats_of_many_idle_workers_wait_for_company(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT}, *reply;
    struct fake_job job;
    char name[32];
    uint64_t id;

    for (uint64_t i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "idle-%d", (int)i);
        bench_hello_worker(b, 1000 + i, name, "one", 1);
        assert_int_equal(ha_coordinator_rest_ms(b->c), 0); /* a hello is a request */
    }
    bench_turn(b, 1000);
    reply = bench_beat(b, 1000, NULL, 0);
    assert_int_equal(reply->body.heartbeat_reply.n_should_run, 0);
    ha_wire_message_destroy(reply);
    assert_true(ha_coordinator_rest_ms(b->c) > 0);
    for (int answered = 0; answered < 2; answered++) { /* every other one */
        id = bench_send(b, 1000, &beat);
        reply = bench_reply(b, 1000, id);
        assert_int_equal(reply != NULL, answered);
        ha_wire_message_destroy(reply);
    }
    bench_turn(b, 1000);
    assert_int_equal(ha_coordinator_rest_ms(b->c), 0);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, 1000, &job) || bench_granted(b, 1001, &job));
    ha_wire_message_destroy(bench_beat(b, 1063, NULL, 0));
    assert_int_equal(ha_coordinator_rest_ms(b->c), 0);
}

/* What a worker tells of a model decides who gets its job, and is shown. */
static void jobs_go_where_the_model_is(void **state)
{
    struct bench *b = *state;
    struct ha_wire_held_model told[] = {
        {.digest = DIGEST("00"), .name = "another", .bytes = 5, .where = "loaded"},
        {.digest = MODEL_DIGEST, .name = "tiny", .bytes = 7, .where = "disk", .load_ms = 900}};
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT,
                                   .body.heartbeat = {.models = told, .n_models = 2}};
    struct ha_wire_message ask = {.kind = HA_WIRE_WORKERS_REQUEST}, *reply;
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_worker(b, OTHER, "w2", "i1", 1);
    ha_wire_message_destroy(bench_call(b, WORKER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    told[1].load_ms = 0;
    ha_wire_message_destroy(bench_call(b, OTHER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    bench_create(b, CLIENT);
    bench_settle(b);
    assert_true(bench_granted(b, OTHER, &job));
    assert_false(job.train); /* the first one */
    reply = bench_call(b, CLIENT, &ask, HA_WIRE_WORKERS_REPLY);
    assert_int_equal(reply->body.workers_reply.workers[0].n_models, 2);
    assert_string_equal(reply->body.workers_reply.workers[0].models[1].name, "tiny");
    assert_int_equal(reply->body.workers_reply.workers[0].models[1].load_ms, 900);
    ha_wire_message_destroy(reply);
}

static void a_draining_worker_gets_nothing(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    struct ha_wire_message beat = {.kind = HA_WIRE_HEARTBEAT, .body.heartbeat = {.draining = true}};

    ha_wire_message_destroy(bench_call(b, WORKER, &beat, HA_WIRE_HEARTBEAT_REPLY));
    bench_do_job(b, WORKER, &job, 3);
    assert_false(bench_granted(b, WORKER, &job));
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready", "the only worker is draining");
}

/* The grid with more attempts than losses that it takes. */
static void create_patient(struct bench *b)
{
    char grid[2048];
    struct ha_wire_message *reply;

    snprintf(grid, sizeof grid, "%s[retry]\nmax_attempts = 9\n", bench_grid);
    reply = bench_submit(b, CLIENT, "patient", grid, false);
    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

static void losses_quarantine_the_job(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    char instance[16];

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    create_patient(b);
    assert_true(bench_granted(b, WORKER, &job));
    for (int i = 2; i <= 6; i++) {
        ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
        snprintf(instance, sizeof instance, "i%d", i);
        bench_hello_worker(b, WORKER, "w1", instance, 1);
        assert_true(bench_granted(b, WORKER, &job));
        assert_int_equal(job.train, i == 6); /* the fifth loss set it aside */
    }
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "ready",
                       "held: set aside after 5 losses in a row; last: its worker was started "
                       "anew; give it another chance with hactl retry");
}

static void progress_forgives_losses(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    char instance[16];

    for (int i = 2; i <= 20; i++) {
        struct ha_wire_attempt_event event = answer_event(&job, i);

        ha_wire_message_destroy(bench_report(b, WORKER, &job, &event, 1));
        snprintf(instance, sizeof instance, "i%d", i);
        bench_hello_worker(b, WORKER, "w1", instance, 1);
        assert_true(bench_granted(b, WORKER, &job));
        assert_false(job.train);
    }
    assert_int_equal(job.epoch.number, 20);
}

static void checkpoints_go_along_and_old_ones_go(void **state)
{
    struct bench *b = *state;
    struct fake_job job = start(b);
    static const char *const digests[] = {DIGEST("01"), DIGEST("02"), DIGEST("03")};
    struct ha_wire_message *push;

    bench_do_job(b, WORKER, &job, 3);
    assert_true(bench_granted(b, WORKER, &job));
    for (int i = 0; i < 3; i++) {
        struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                              .event.artifact = {.cell = job.cell,
                                                                 .kind = "checkpoint",
                                                                 .name = "checkpoint",
                                                                 .sha256 = digests[i],
                                                                 .size = 10,
                                                                 .step = 10 * i}};

        bench_artifact(b, digests[i]);
        ha_wire_message_destroy(bench_report(b, WORKER, &job, &event, 1));
    }
    assert_int_equal(b->orphan_count, 1);
    assert_string_equal(b->orphans[0], digests[0]);
    bench_end(b, WORKER, &job, "stopped", "");
    push = bench_push(b, WORKER, HA_WIRE_GRANT);
    assert_non_null(push);
    assert_int_equal(push->body.grant.n_inputs, 3); /* two data files and the newest checkpoint */
    assert_string_equal(push->body.grant.inputs[2].sha256, digests[2]);
    assert_string_equal(push->body.grant.inputs[2].path, "inputs/checkpoint/2");
    assert_non_null(strstr(push->body.grant.spec_json, "\"checkpoint\":\"inputs/checkpoint/2\""));
    ha_wire_message_destroy(push);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(reports_count_once),
        CASE(a_lost_report_ends_the_attempt),
        CASE(other_epochs_are_stale),
        CASE(a_report_waits_for_its_artifacts),
        CASE(training_without_an_adapter_is_no_success),
        CASE(silence_gives_the_job_to_another),
        CASE(an_idle_crowd_beats_less_often),
        CASE(a_lost_attempt_is_taken_back),
        CASE(a_restart_takes_running_attempts_back),
        CASE(who_comes_back_first_tells_what_it_runs),
        CASE(a_long_turn_is_nobodys_silence),
        CASE(a_new_process_voids_the_old_one),
        CASE(a_new_process_keeps_what_it_has_of_the_old_one),
        CASE(an_attempt_may_end_with_its_daemon),
        CASE(two_processes_of_one_name_do_not_take_turns),
        CASE(a_report_proves_life),
        CASE(another_machine_may_not_take_a_name),
        CASE(crashes_are_retried_with_a_wait),
        CASE(used_up_attempts_fail_the_job),
        CASE(what_cannot_heal_fails_at_once),
        CASE(a_stop_costs_nothing),
        CASE(heartbeats_say_what_should_run),
        CASE(heartbeats_of_many_idle_workers_wait_for_company),
        CASE(jobs_go_where_the_model_is),
        CASE(a_draining_worker_gets_nothing),
        CASE(losses_quarantine_the_job),
        CASE(progress_forgives_losses),
        CASE(checkpoints_go_along_and_old_ones_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
