/* The judge worker's automaton against a coordinator and an evaluator of canned
 * words; no socket, no file, no clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "judge-worker/client.h"
#include "judge-worker/record.h"
#include "judge-worker/request.h"
#include "judge-worker/session.h"
#include "tests/unit/judge/replies.h"

enum { MANY = 64, MANY_SENT = 1024 };

struct world {
    struct ha_judge_session *session;
    int64_t now;
    struct ha_wire_message *sent[MANY_SENT]; /* not yet looked at, in order */
    int n_sent;
    int reconnects;
    void *calls[MANY]; /* handles of calls in flight */
    char *bodies[MANY];
    int n_calls;
    uint64_t kept[MANY], dropped[MANY];
    int n_kept, n_dropped;
    int keep_result;
    bool refuse_calls;
    char note[512];
};

/* ---- effects --------------------------------------------------------------------------- */

static void effect_send(void *context, const struct ha_wire_message *message)
{
    struct world *w = context;
    struct ha_buffer frame;
    struct ha_error err = {0};

    ha_buffer_init(&frame, 0);
    if (ha_wire_encode(message, &frame, &err) < 0)
        fail_msg("%s does not encode: %s", ha_wire_body_name(message->kind), err.text);
    assert_true(w->n_sent < MANY_SENT);
    assert_int_equal(ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits,
                                    &w->sent[w->n_sent++], NULL),
                     0);
    ha_buffer_clear(&frame);
}

static void effect_reconnect(void *context)
{
    ((struct world *)context)->reconnects++;
}

static int effect_call(void *context, void *handle, const struct ha_sweep_judge *judge,
                       const struct ha_judge_request *request, struct ha_error *err)
{
    struct world *w = context;

    (void)judge;
    if (w->refuse_calls)
        return ha_error_set(err, ENOENT, "no key");
    assert_true(w->n_calls < MANY);
    w->bodies[w->n_calls] = strdup(request->body);
    w->calls[w->n_calls++] = handle;
    return 0;
}

static int effect_keep(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    struct world *w = context;

    if (w->keep_result < 0)
        return ha_error_set(err, -w->keep_result, "disk full");
    w->kept[w->n_kept++] = record->call;
    return 0;
}

static void effect_drop(void *context, uint64_t call)
{
    struct world *w = context;

    w->dropped[w->n_dropped++] = call;
}

static double effect_random(void *context)
{
    (void)context;
    return 0.5;
}

static void effect_note(void *context, enum ha_log_level level, const char *text)
{
    struct world *w = context;

    (void)level;
    snprintf(w->note, sizeof w->note, "%s", text);
}

static const struct ha_judge_effects effects = {effect_send, effect_reconnect, effect_call,
                                                effect_keep, effect_drop,      effect_random,
                                                effect_note};

/* ---- the coordinator's part ---------------------------------------------------------------- */

static void begin_world(struct world *w)
{
    const struct ha_judge_session_options options = {.name = "j1",
                                                     .instance = "i1",
                                                     .machine = "m1",
                                                     .version = "0",
                                                     .host = "h1",
                                                     .pid = 7,
                                                     .concurrency = 8};

    memset(w, 0, sizeof *w);
    w->now = 1000;
    assert_int_equal(ha_judge_session_create(&options, &effects, w, w->now, &w->session, NULL), 0);
}

static void forget_sent(struct world *w)
{
    for (int i = 0; i < w->n_sent; i++)
        ha_wire_message_destroy(w->sent[i]);
    w->n_sent = 0;
}

static void end_world(struct world *w)
{
    forget_sent(w);
    for (int i = 0; i < w->n_calls; i++)
        free(w->bodies[i]);
    ha_judge_session_destroy(w->session);
}

/* Time passes up to this; every due tick happens, and none without need. */
static void pass(struct world *w, int64_t ms)
{
    int64_t end = w->now + ms, next;

    for (int ticks = 0; (next = ha_judge_session_next_ms(w->session)) <= end; ticks++) {
        assert_true(ticks < 1000); /* a session that is always due would spin */
        if (next > w->now)
            w->now = next;
        ha_judge_session_tick(w->session, w->now);
    }
    w->now = end;
}

/* The oldest message of this kind that was sent and not taken yet. */
static struct ha_wire_message *take(struct world *w, enum ha_wire_body kind)
{
    for (int i = 0; i < w->n_sent; i++) {
        struct ha_wire_message *message = w->sent[i];

        if (message->kind != kind)
            continue;
        w->n_sent--;
        memmove(w->sent + i, w->sent + i + 1, (size_t)(w->n_sent - i) * sizeof w->sent[0]);
        return message;
    }
    fail_msg("no %s was sent", ha_wire_body_name(kind));
    return NULL;
}

static bool was_sent(const struct world *w, enum ha_wire_body kind)
{
    for (int i = 0; i < w->n_sent; i++) {
        if (w->sent[i]->kind == kind)
            return true;
    }
    return false;
}

static void answer(struct world *w, uint64_t request, struct ha_wire_message message)
{
    message.protocol = HA_WIRE_PROTOCOL;
    message.request_id = request;
    ha_judge_session_receive(w->session, &message, w->now);
}

static void answer_error(struct world *w, uint64_t request, uint32_t code)
{
    answer(w, request,
           (struct ha_wire_message){.kind = HA_WIRE_ERROR,
                                    .body.error = {.code = code, .text = "no"}});
}

static void welcome(struct world *w)
{
    struct ha_wire_message *hello;

    pass(w, 0);
    hello = take(w, HA_WIRE_HELLO);
    assert_int_equal(hello->body.hello.role, HA_WIRE_ROLE_JUDGE);
    assert_string_equal(hello->body.hello.name, "j1");
    answer(w, hello->request_id,
           (struct ha_wire_message){.kind = HA_WIRE_HELLO_REPLY,
                                    .body.hello_reply = {.version = "0",
                                                         .heartbeat_ms = 5000,
                                                         .lost_ms = 60000,
                                                         .files_endpoint = "",
                                                         .name = "j1"}});
    ha_wire_message_destroy(hello);
    pass(w, 1);
}

static struct ha_wire_item item_of(uint64_t id)
{
    return (struct ha_wire_item){.item = id,
                                 .epoch = {1, id + 100},
                                 .judge = 5,
                                 .prompt_text = "\n\nHuman: Hi\n\nAssistant:",
                                 .answer_text = "Hello.",
                                 .last_fault = ""};
}

static void grant(struct world *w, struct ha_wire_item *items, int64_t count)
{
    struct ha_wire_message *request = take(w, HA_WIRE_ITEMS_REQUEST);
    struct ha_wire_judge_spec spec = {
        .judge = 5,
        .sweep = "s",
        .settings_json = "{\"name\":\"q\",\"base_url\":\"https://h/v1\",\"model\":\"m\","
                         "\"concurrency\":8,\"price_input\":1,\"price_output\":2,"
                         "\"max_tokens\":1000,\"max_reasks\":2}"};

    assert_true(request->body.items_request.max_items > 0);
    answer(w, request->request_id,
           (struct ha_wire_message){
               .kind = HA_WIRE_ITEMS_GRANT,
               .body.items_grant = {
                   .judges = &spec, .n_judges = 1, .items = items, .n_items = count}});
    ha_wire_message_destroy(request);
}

static void grant_ids(struct world *w, uint64_t from, int64_t count)
{
    struct ha_wire_item items[MANY];

    for (int64_t i = 0; i < count; i++)
        items[i] = item_of(from + (uint64_t)i);
    grant(w, items, count);
}

/* Permit everything that is asked; item n gets call 1000 + n. */
static int64_t permit(struct world *w)
{
    struct ha_wire_message *begin = take(w, HA_WIRE_ITEMS_BEGIN);
    struct ha_wire_begun_call calls[MANY];
    int64_t n = begin->body.items_begin.n_items;

    assert_int_equal(begin->body.items_begin.n_reserve, n);
    for (int64_t i = 0; i < n; i++)
        calls[i] = (struct ha_wire_begun_call){begin->body.items_begin.items[i].item,
                                               1000 + begin->body.items_begin.items[i].item};
    answer(w, begin->request_id,
           (struct ha_wire_message){.kind = HA_WIRE_ITEMS_BEGIN_REPLY,
                                    .body.items_begin_reply = {.calls = calls, .n_calls = n}});
    ha_wire_message_destroy(begin);
    return n;
}

/* The oldest call ends like this. */
static void end_call(struct world *w, enum ha_judge_transport transport, int status,
                     const char *body, int64_t retry_after_ms)
{
    char *copy = strdup(body);
    struct ha_judge_response response = {.transport = transport,
                                         .http_status = status,
                                         .body = copy,
                                         .body_size = strlen(body),
                                         .retry_after_ms = retry_after_ms,
                                         .latency_ms = 20};
    void *handle = w->calls[0];

    assert_true(w->n_calls > 0);
    if (transport != HA_JUDGE_TRANSPORT_DONE)
        snprintf(response.text, sizeof response.text, "connection refused");
    free(w->bodies[0]);
    w->n_calls--;
    memmove(w->calls, w->calls + 1, (size_t)w->n_calls * sizeof w->calls[0]);
    memmove(w->bodies, w->bodies + 1, (size_t)w->n_calls * sizeof w->bodies[0]);
    ha_judge_session_replied(w->session, handle, &response, "h", w->now);
    free(copy);
}

static char *completion(const char *text)
{
    struct ha_json *string = ha_json_new_string(text);
    char *quoted = ha_json_dump(string, HA_JSON_COMPACT);
    struct ha_buffer body;

    ha_buffer_init(&body, 0);
    ha_buffer_printf(&body,
                     "{\"choices\":[{\"message\":{\"content\":%s},\"finish_reason\":\"stop\"}],"
                     "\"usage\":{\"prompt_tokens\":900,\"completion_tokens\":700}}",
                     quoted);
    free(quoted);
    ha_json_destroy(string);
    return ha_buffer_detach(&body);
}

static char *good_reply(void)
{
    struct ha_buffer text;
    char *body;

    ha_buffer_init(&text, 0);
    append_array(&text);
    body = completion(text.data);
    ha_buffer_clear(&text);
    return body;
}

static void end_well(struct world *w)
{
    char *body = good_reply();

    end_call(w, HA_JUDGE_TRANSPORT_DONE, 200, body, -1);
    free(body);
}

/* Acknowledge a request of replies or outcomes, all of it. */
static void acknowledge(struct world *w, const struct ha_wire_message *request)
{
    uint64_t calls[MANY];
    int64_t n = 0;

    if (request->kind == HA_WIRE_JUDGE_REPLIES) {
        for (; n < request->body.judge_replies.n_replies; n++)
            calls[n] = request->body.judge_replies.replies[n].call;
    } else {
        for (; n < request->body.judge_outcomes.n_outcomes; n++)
            calls[n] = request->body.judge_outcomes.outcomes[n].call;
    }
    answer(w, request->request_id,
           (struct ha_wire_message){.kind = HA_WIRE_JUDGE_ACK,
                                    .body.judge_ack = {.calls = calls, .n_calls = n}});
}

static void take_replies(struct world *w)
{
    struct ha_wire_message *replies = take(w, HA_WIRE_JUDGE_REPLIES);

    acknowledge(w, replies);
    ha_wire_message_destroy(replies);
}

/* The only outcome of the next request, which is acknowledged; the caller destroys the message. */
static struct ha_wire_message *take_outcome(struct world *w,
                                            const struct ha_wire_judge_outcome **ret_outcome)
{
    struct ha_wire_message *outcomes = take(w, HA_WIRE_JUDGE_OUTCOMES);

    assert_int_equal(outcomes->body.judge_outcomes.n_outcomes, 1);
    *ret_outcome = &outcomes->body.judge_outcomes.outcomes[0];
    acknowledge(w, outcomes);
    return outcomes;
}

static void expect_outcome(struct world *w, const char *kind, const char *words)
{
    const struct ha_wire_judge_outcome *outcome;
    struct ha_wire_message *message = take_outcome(w, &outcome);

    assert_string_equal(outcome->kind, kind);
    if (!strstr(outcome->fault, words))
        fail_msg("\"%s\" does not say \"%s\"", outcome->fault, words);
    ha_wire_message_destroy(message);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void leads_an_item_to_its_scores(void **state)
{
    const struct ha_wire_judge_outcome *outcome;
    struct ha_wire_message *message;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 1);
    assert_int_equal(w.n_calls, 0); /* not before it is permitted */
    message = w.sent[w.n_sent - 1];
    assert_int_equal(message->kind, HA_WIRE_ITEMS_BEGIN);
    assert_true(message->body.items_begin.reserve[0] > 1000 * 2 / 1e6);
    permit(&w);
    assert_int_equal(w.n_calls, 1);
    end_well(&w);
    assert_int_equal(w.kept[0], 1001);
    pass(&w, 100);
    assert_false(was_sent(&w, HA_WIRE_JUDGE_REPLIES)); /* not before it is on disk */
    ha_judge_session_synced(w.session, w.now);
    assert_false(was_sent(&w, HA_WIRE_JUDGE_OUTCOMES)); /* not before it is stored */
    message = take(&w, HA_WIRE_JUDGE_REPLIES);
    assert_int_equal(message->body.judge_replies.replies[0].completion_tokens, 700);
    assert_true(message->body.judge_replies.replies[0].cost > 0.0022999);
    acknowledge(&w, message);
    ha_wire_message_destroy(message);
    assert_int_equal(w.n_dropped, 0);
    message = take_outcome(&w, &outcome);
    assert_string_equal(outcome->kind, "scored");
    assert_int_equal(outcome->n_scores, HA_DIMENSIONS);
    assert_int_equal(outcome->scores[2].value, score_of(2));
    assert_int_equal(strlen(outcome->identity), 64);
    assert_int_equal(outcome->epoch.number, 101);
    ha_wire_message_destroy(message);
    assert_int_equal(w.dropped[0], 1001);
    assert_true(ha_judge_session_is_empty(w.session));
    end_world(&w);
}

static void asks_again_with_the_fault(void **state)
{
    struct ha_wire_item item;
    struct world w;
    char *body = completion("I rate it [\"good\"]");

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 1);
    permit(&w);
    assert_null(strstr(w.bodies[0], "Correction"));
    end_call(&w, HA_JUDGE_TRANSPORT_DONE, 200, body, -1);
    ha_judge_session_synced(w.session, w.now);
    take_replies(&w);
    expect_outcome(&w, "reask", "reply: it holds no JSON array of scores");
    pass(&w, 10);
    item = item_of(1);
    item.epoch.number = 200;
    item.reasks = 1;
    item.last_fault = "reply: it holds no JSON array of scores";
    grant(&w, &item, 1);
    permit(&w);
    assert_non_null(strstr(w.bodies[0], "could not be used: it holds no JSON array of scores."));
    end_call(&w, HA_JUDGE_TRANSPORT_DONE, 500, "{}", -1);
    ha_judge_session_synced(w.session, w.now);
    take_replies(&w);
    expect_outcome(&w, "retry", "HTTP 500");
    pass(&w, 5000);
    item.epoch.number = 300;
    item.last_fault = "HTTP 500: {}";
    grant(&w, &item, 1);
    permit(&w);
    assert_null(strstr(w.bodies[0], "HTTP 500")); /* no fault of the evaluator's text */
    end_well(&w);
    free(body);
    end_world(&w);
}

static void drops_what_may_not_be_sent(void **state)
{
    struct ha_wire_refused_item refused = {.item = 1, .reason = "the budget is used up"};
    struct ha_wire_message *begin;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 2);
    begin = take(&w, HA_WIRE_ITEMS_BEGIN);
    assert_int_equal(begin->body.items_begin.n_items, 2);
    answer(
        &w, begin->request_id,
        (struct ha_wire_message){.kind = HA_WIRE_ITEMS_BEGIN_REPLY,
                                 .body.items_begin_reply = {.refused = &refused, .n_refused = 1}});
    ha_wire_message_destroy(begin);
    assert_int_equal(w.n_calls, 0);
    assert_int_equal(permit(&w), 1); /* item 2, which the reply did not name, is asked for again */
    assert_int_equal(w.n_calls, 1);
    end_well(&w);
    end_world(&w);
}

static void repeats_what_was_not_answered(void **state)
{
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 1);
    ha_wire_message_destroy(take(&w, HA_WIRE_ITEMS_BEGIN));
    for (int i = 0; i < 4; i++) { /* heartbeats are answered, so the line is alive */
        pass(&w, 3000);
        answer(&w, 0, (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY});
    }
    permit(&w);
    end_well(&w);
    ha_judge_session_synced(w.session, w.now);
    ha_wire_message_destroy(take(&w, HA_WIRE_JUDGE_REPLIES));
    for (int i = 0; i < 4; i++) {
        pass(&w, 3000);
        answer(&w, 0, (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY});
    }
    take_replies(&w);
    expect_outcome(&w, "scored", "");
    end_world(&w);
}

static void lists_what_it_has_after_a_lost_grant(void **state)
{
    struct ha_wire_message *request;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 2);
    for (int i = 0; i < 5; i++) { /* the next request has no answer */
        pass(&w, 3000);
        answer(&w, 0, (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY});
    }
    request = take(&w, HA_WIRE_ITEMS_REQUEST);
    assert_false(request->body.items_request.lists_held);
    ha_wire_message_destroy(request);
    request = take(&w, HA_WIRE_ITEMS_REQUEST);
    assert_true(request->body.items_request.lists_held);
    assert_int_equal(request->body.items_request.n_held, 2);
    assert_int_equal(request->body.items_request.held[1].item, 2);
    assert_int_equal(request->body.items_request.held[1].epoch.number, 102);
    ha_wire_message_destroy(request);
    end_world(&w);
}

static void sends_nothing_while_the_coordinator_is_away(void **state)
{
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 8);
    permit(&w);
    assert_int_equal(w.n_calls, 8);
    forget_sent(&w);
    pass(&w, 20000);
    assert_int_equal(w.reconnects, 1);
    assert_true(was_sent(&w, HA_WIRE_HELLO));
    for (int i = 0; i < 3; i++)
        end_well(&w);
    ha_judge_session_synced(w.session, w.now);
    forget_sent(&w);
    pass(&w, 3600000 / 60);
    assert_false(was_sent(&w, HA_WIRE_JUDGE_REPLIES));
    assert_false(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    assert_int_equal(w.n_calls, 5);
    forget_sent(&w);
    pass(&w, 1000);
    welcome(&w);
    take_replies(&w);
    assert_true(was_sent(&w, HA_WIRE_JUDGE_OUTCOMES));
    while (w.n_calls > 0)
        end_well(&w);
    end_world(&w);
}

static void says_hello_again_when_told_so(void **state)
{
    struct ha_wire_message *begin;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 1);
    begin = take(&w, HA_WIRE_ITEMS_BEGIN);
    answer_error(&w, begin->request_id, EPROTO);
    ha_wire_message_destroy(begin);
    assert_false(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    welcome(&w);
    permit(&w);
    end_well(&w);
    end_world(&w);
}

static void offers_the_spool_again(void **state)
{
    struct ha_judge_record record = {.item = 9,
                                     .generation = 1,
                                     .number = 4,
                                     .call = 77,
                                     .max_reasks = 2,
                                     .provider = strdup("generic"),
                                     .model = strdup("m"),
                                     .identity = strdup("0123456789abcdef0123456789abcdef"
                                                        "0123456789abcdef0123456789abcdef"),
                                     .error = strdup(""),
                                     .host = strdup("h"),
                                     .http_status = 200};
    struct world w;

    (void)state;
    record.raw = good_reply();
    record.raw_size = strlen(record.raw);
    begin_world(&w);
    assert_int_equal(ha_judge_session_restore(w.session, &record, NULL), 0);
    ha_judge_session_synced(w.session, w.now);
    ha_judge_record_clear(&record);
    assert_false(ha_judge_session_is_empty(w.session));
    welcome(&w);
    take_replies(&w);
    expect_outcome(&w, "scored", "");
    assert_int_equal(w.n_dropped, 1);
    assert_int_equal(w.dropped[0], 77);
    assert_true(ha_judge_session_is_empty(w.session));
    end_world(&w);
}

static void reads_a_stored_reply_instead_of_asking(void **state)
{
    struct ha_wire_item item = item_of(3);
    char *raw = good_reply();
    struct world w;

    (void)state;
    item.reply = (struct ha_wire_bytes){(const uint8_t *)raw, strlen(raw)};
    item.reply_call = 55;
    begin_world(&w);
    welcome(&w);
    grant(&w, &item, 1);
    assert_false(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    expect_outcome(&w, "scored", "");
    assert_int_equal(w.n_calls + w.n_kept + w.n_dropped, 0);
    free(raw);
    end_world(&w);
}

static void delivers_without_a_spool_but_sends_no_more(void **state)
{
    struct world w;

    (void)state;
    begin_world(&w);
    w.keep_result = -ENOSPC;
    welcome(&w);
    grant_ids(&w, 1, 1);
    permit(&w);
    end_well(&w);
    assert_non_null(strstr(w.note, "disk full"));
    ha_judge_session_synced(w.session, w.now);
    take_replies(&w);
    expect_outcome(&w, "scored", "");
    pass(&w, 10);
    grant_ids(&w, 2, 1);
    assert_false(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    pass(&w, 5000);
    assert_true(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    end_world(&w);
}

static void waits_as_long_as_it_is_told(void **state)
{
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 1);
    permit(&w);
    end_call(&w, HA_JUDGE_TRANSPORT_DONE, 429, "{}", 7000);
    ha_judge_session_synced(w.session, w.now);
    take_replies(&w);
    expect_outcome(&w, "release", "limit of requests");
    pass(&w, 10);
    grant_ids(&w, 1, 1);
    pass(&w, 6500);
    assert_false(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    pass(&w, 1000);
    assert_true(was_sent(&w, HA_WIRE_ITEMS_BEGIN));
    end_world(&w);
}

static void tells_trouble_once_and_harms_no_item(void **state)
{
    struct world w;

    (void)state;
    begin_world(&w);
    w.refuse_calls = true;
    welcome(&w);
    grant_ids(&w, 1, 1);
    permit(&w);
    ha_judge_session_synced(w.session, w.now);
    assert_non_null(strstr(w.note, "no key"));
    take_replies(&w);
    expect_outcome(&w, "release", "no key");
    end_world(&w);
}

/* An address where nobody ever was ends its items; the status can say why. */
static void gives_up_an_evaluator_that_never_was(void **state)
{
    uint64_t id = 1;
    int failed = 0;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    for (; failed < 3 && id < 40; id++) {
        const struct ha_wire_judge_outcome *outcome;
        struct ha_wire_message *message;

        grant_ids(&w, id, 1);
        for (int i = 0; i < 100 && !was_sent(&w, HA_WIRE_ITEMS_BEGIN); i++) {
            pass(&w, 1000);
            answer(&w, 0, (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY});
        }
        permit(&w);
        if (w.n_calls > 0)
            end_call(&w, HA_JUDGE_TRANSPORT_NOT_SENT, 0, "", -1);
        ha_judge_session_synced(w.session, w.now);
        take_replies(&w);
        message = take_outcome(&w, &outcome);
        assert_non_null(strstr(outcome->fault, "connection refused"));
        if (strcmp(outcome->kind, "failed") == 0)
            failed++;
        else
            assert_string_equal(outcome->kind, "retry");
        ha_wire_message_destroy(message);
        pass(&w, 1000);
        answer(&w, 0, (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY});
    }
    assert_int_equal(failed, 3);
    assert_in_range(id, 6, 20);
    assert_in_range(w.now, 20000, 200000);
    end_world(&w);
}

static void gives_back_and_waits_when_it_ends(void **state)
{
    const struct ha_wire_judge_outcome *outcome;
    struct ha_wire_message *message;
    struct world w;

    (void)state;
    begin_world(&w);
    welcome(&w);
    grant_ids(&w, 1, 9); /* eight go, the ninth waits */
    assert_int_equal(permit(&w), 8);
    forget_sent(&w);
    ha_judge_session_drain(w.session, w.now);
    message = take_outcome(&w, &outcome);
    assert_string_equal(outcome->kind, "release");
    assert_int_equal(outcome->item, 9);
    assert_int_equal(outcome->call, 0);
    ha_wire_message_destroy(message);
    pass(&w, 10);
    message = take(&w, HA_WIRE_HEARTBEAT);
    assert_true(message->body.heartbeat.draining);
    ha_wire_message_destroy(message);
    assert_int_equal(ha_judge_session_in_flight(w.session), 8);
    while (w.n_calls > 0)
        end_well(&w);
    ha_judge_session_synced(w.session, w.now);
    take_replies(&w);
    assert_false(ha_judge_session_is_empty(w.session));
    message = take(&w, HA_WIRE_JUDGE_OUTCOMES);
    assert_int_equal(message->body.judge_outcomes.n_outcomes, 8);
    acknowledge(&w, message);
    ha_wire_message_destroy(message);
    assert_true(ha_judge_session_is_empty(w.session));
    assert_false(was_sent(&w, HA_WIRE_ITEMS_REQUEST));
    end_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leads_an_item_to_its_scores),
        cmocka_unit_test(asks_again_with_the_fault),
        cmocka_unit_test(drops_what_may_not_be_sent),
        cmocka_unit_test(repeats_what_was_not_answered),
        cmocka_unit_test(lists_what_it_has_after_a_lost_grant),
        cmocka_unit_test(sends_nothing_while_the_coordinator_is_away),
        cmocka_unit_test(says_hello_again_when_told_so),
        cmocka_unit_test(offers_the_spool_again),
        cmocka_unit_test(reads_a_stored_reply_instead_of_asking),
        cmocka_unit_test(delivers_without_a_spool_but_sends_no_more),
        cmocka_unit_test(waits_as_long_as_it_is_told),
        cmocka_unit_test(tells_trouble_once_and_harms_no_item),
        cmocka_unit_test(gives_up_an_evaluator_that_never_was),
        cmocka_unit_test(gives_back_and_waits_when_it_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
