/* The real client against ha-evaluator, both in one loop on the loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "common/conf/sweep.h"
#include "common/net/loop.h"
#include "judge-worker/client.h"
#include "judge-worker/outcome.h"
#include "judge-worker/request.h"
#include "tests/evaluator/misbehave.h"
#include "tests/evaluator/server.h"

enum { MAX_REPLY_BYTES = 1 << 20, PATIENCE_MS = 10000 };

struct bench {
    struct ha_loop *loop;
    struct ha_evaluator_server *server;
    struct ha_judge_client *client;
    struct ha_judge_request request;
    FILE *record;
    int64_t timeout_ms;
};

struct ended {
    int count;
    struct ha_judge_response last; /* body is gone */
    struct ha_judge_outcome outcome;
};

static void make_request(const char *base_url, struct ha_judge_request *ret_request)
{
    const struct ha_judge_question question = {
        .prompt = "\n\nHuman: How do I bake bread?\n\nAssistant:",
        .answer = "Mix flour and water, let it rest, and bake it until it is brown."};
    struct ha_sweep_judge judge;

    memset(&judge, 0, sizeof judge);
    assert_int_equal(ha_section_init(&ha_sweep_judge_section, &judge, NULL), 0);
    judge.base_url = ha_strdup(base_url);
    judge.model = ha_strdup("ha-evaluator");
    assert_int_equal(ha_judge_request_build(&judge, &question, ret_request, NULL), 0);
    ha_section_clear(&ha_sweep_judge_section, &judge);
}

/* An evaluator that answers every `every`-th request in this way (NULL: none). */
static void start(struct bench *b, const char *way, int every)
{
    struct ha_evaluator_options options = {.record = b->record = tmpfile()};
    char url[64];

    memset(&b->request, 0, sizeof b->request);
    b->timeout_ms = PATIENCE_MS;
    if (way) {
        options.rules[0].way = ha_evaluator_way_find(way);
        options.rules[0].every = every;
        options.n_rules = 1;
        assert_non_null(options.rules[0].way);
    }
    assert_int_equal(ha_loop_create(&b->loop, NULL), 0);
    assert_int_equal(ha_evaluator_server_create(b->loop, &options, &b->server, NULL), 0);
    assert_int_equal(ha_judge_client_create(b->loop, MAX_REPLY_BYTES, &b->client, NULL), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", ha_evaluator_server_port(b->server));
    make_request(url, &b->request);
}

static void stop(struct bench *b)
{
    ha_judge_client_destroy(b->client);
    ha_evaluator_server_destroy(b->server);
    ha_loop_destroy(b->loop);
    ha_judge_request_clear(&b->request);
    fclose(b->record);
}

static void on_end(void *context, struct ha_judge_response *response)
{
    struct ended *ended = context;
    const struct ha_judge_end end = {.provider = "ha-evaluator",
                                     .model = "ha-evaluator",
                                     .max_reasks = 2,
                                     .transport = response->transport,
                                     .transport_text = response->text,
                                     .http_status = response->http_status,
                                     .raw = response->body,
                                     .raw_size = response->body_size};

    if (ended->count++)
        ha_judge_outcome_clear(&ended->outcome);
    ended->last = *response;
    assert_int_equal(ha_judge_outcome_read(&end, &ended->outcome, NULL), 0);
}

static void send_one(struct bench *b, struct ended *ended)
{
    const struct ha_judge_call call = {.url = b->request.url,
                                       .body = b->request.body,
                                       .body_size = b->request.body_size,
                                       .key = "sk-not-a-real-key",
                                       .timeout_ms = b->timeout_ms,
                                       .connect_timeout_ms = 2000};

    assert_int_equal(ha_judge_client_send(b->client, &call, on_end, ended, NULL), 0);
}

static void wait_for(struct bench *b, const struct ended *ended, int count)
{
    int64_t end = ha_clock_boot_ms() + PATIENCE_MS;

    while (ended->count < count && ha_clock_boot_ms() < end)
        assert_int_equal(ha_loop_turn(b->loop, 100, NULL), 0);
    assert_int_equal(ended->count, count);
}

static int requests_received(const struct bench *b)
{
    int n = 0, c;

    rewind(b->record);
    while ((c = fgetc(b->record)) != EOF)
        n += c == '\n';
    return n;
}

static void brings_sixteen_scores(void **state)
{
    struct bench b;
    struct ended ended = {0};

    (void)state;
    start(&b, NULL, 0);
    send_one(&b, &ended);
    wait_for(&b, &ended, 1);
    assert_int_equal(ended.last.http_status, 200);
    assert_int_equal(ended.outcome.kind, HA_JUDGE_SCORED);
    assert_int_equal(ended.outcome.scores.repairs, 0);
    assert_true(ended.outcome.prompt_tokens > 100);
    ha_judge_outcome_clear(&ended.outcome);
    stop(&b);
}

static void keeps_many_in_flight(void **state)
{
    struct bench b;
    struct ended ended = {0};

    (void)state;
    start(&b, NULL, 0);
    for (int i = 0; i < 64; i++)
        send_one(&b, &ended);
    assert_int_equal(ha_judge_client_in_flight(b.client), 64);
    wait_for(&b, &ended, 64);
    assert_int_equal(ha_judge_client_in_flight(b.client), 0);
    assert_int_equal(ended.outcome.kind, HA_JUDGE_SCORED);
    assert_int_equal(requests_received(&b), 64);
    ha_judge_outcome_clear(&ended.outcome);
    stop(&b);
}

struct row {
    const char *way;
    int64_t timeout_ms;
    enum ha_judge_transport transport;
    enum ha_judge_class class;
    int64_t retry_after_ms;
};

static void tells_how_a_call_ended(void **state)
{
    static const struct row rows[] = {
        {"429", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_RPM, 1000},
        {"429-fraction", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_RPM, 500},
        {"429-long", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_RPM, 3600000},
        {"500", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_TRANSIENT, -1},
        {"401", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_CONFIG, -1},
        {"bad-json", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_TRANSIENT, -1},
        {"other-model", 5000, HA_JUDGE_TRANSPORT_DONE, HA_JUDGE_CLASS_CONFIG, -1},
        {"reset", 5000, HA_JUDGE_TRANSPORT_UNKNOWN, HA_JUDGE_CLASS_UNKNOWN, -1},
        {"short-body", 5000, HA_JUDGE_TRANSPORT_UNKNOWN, HA_JUDGE_CLASS_UNKNOWN, -1},
        {"oversized", 5000, HA_JUDGE_TRANSPORT_TOO_LONG, HA_JUDGE_CLASS_UNKNOWN, -1},
        {"hang", 200, HA_JUDGE_TRANSPORT_UNKNOWN, HA_JUDGE_CLASS_UNKNOWN, -1},
        {"slow", 200, HA_JUDGE_TRANSPORT_UNKNOWN, HA_JUDGE_CLASS_UNKNOWN, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench b;
        struct ended ended = {0};

        start(&b, rows[i].way, 1);
        b.timeout_ms = rows[i].timeout_ms;
        send_one(&b, &ended);
        wait_for(&b, &ended, 1);
        if (ended.last.transport != rows[i].transport || ended.outcome.class != rows[i].class ||
            ended.last.retry_after_ms != rows[i].retry_after_ms)
            fail_msg("%s: transport %d, %s, wait %lld, \"%s\"", rows[i].way, ended.last.transport,
                     ha_judge_class_name(ended.outcome.class), (long long)ended.last.retry_after_ms,
                     ended.outcome.fault);
        assert_true(ended.last.body_size <= MAX_REPLY_BYTES);
        assert_int_equal(requests_received(&b), 1);
        ha_judge_outcome_clear(&ended.outcome);
        stop(&b);
    }
}

/* libcurl sends a POST again when a reused connection dies before the reply. */
static void sends_a_body_once_over_a_dying_connection(void **state)
{
    struct bench b;
    struct ended ended = {0};

    (void)state;
    start(&b, "reset", 2);
    send_one(&b, &ended);
    wait_for(&b, &ended, 1);
    assert_int_equal(ended.last.transport, HA_JUDGE_TRANSPORT_DONE);
    send_one(&b, &ended);
    wait_for(&b, &ended, 2);
    assert_int_equal(ended.last.transport, HA_JUDGE_TRANSPORT_UNKNOWN);
    assert_int_equal(requests_received(&b), 2);
    ha_judge_outcome_clear(&ended.outcome);
    stop(&b);
}

static void knows_that_nothing_was_sent(void **state)
{
    static const struct {
        const char *url;
        enum ha_judge_transport transport;
    } rows[] = {{"http://127.0.0.1:1/v1", HA_JUDGE_TRANSPORT_NOT_SENT},
                {"http://name.invalid/v1", HA_JUDGE_TRANSPORT_NOT_SENT}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench b;
        struct ended ended = {0};

        start(&b, NULL, 0);
        ha_judge_request_clear(&b.request);
        make_request(rows[i].url, &b.request);
        send_one(&b, &ended);
        wait_for(&b, &ended, 1);
        assert_int_equal(ended.last.transport, rows[i].transport);
        assert_int_equal(ended.last.http_status, 0);
        assert_false(ended.outcome.possibly_paid);
        ha_judge_outcome_clear(&ended.outcome);
        stop(&b);
    }
}

/* ---- a server of one canned reply, for what the evaluator does not do ----------------- */

struct canned {
    int fd;
    int port;
    const char *reply;
    char request[65536];
    size_t size;
};

static void *serve_once(void *context)
{
    struct canned *canned = context;
    int fd = accept(canned->fd, NULL, NULL);
    ssize_t n;

    while (fd >= 0 && !strstr(canned->request, "\"model\"") &&
           (n = read(fd, canned->request + canned->size,
                     sizeof canned->request - 1 - canned->size)) > 0)
        canned->size += (size_t)n;
    if (fd >= 0 && write(fd, canned->reply, strlen(canned->reply)) < 0)
        canned->size = 0;
    close(fd);
    return NULL;
}

static void listen_at(struct canned *canned)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;

    canned->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(canned->fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(canned->fd, 4), 0);
    assert_int_equal(getsockname(canned->fd, (struct sockaddr *)&address, &length), 0);
    canned->port = ntohs(address.sin_port);
}

/* Number 4 of the reference's checks: neither key nor body may arrive. */
static void follows_no_redirect(void **state)
{
    struct bench b;
    struct ended ended = {0};
    struct canned *first = calloc(1, sizeof *first), *second = calloc(1, sizeof *second);
    char reply[256], url[64];
    pthread_t thread;

    (void)state;
    start(&b, NULL, 0);
    listen_at(first);
    listen_at(second);
    snprintf(reply, sizeof reply,
             "HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:%d/v1/chat/completions\r\n"
             "Content-Length: 0\r\nConnection: close\r\n\r\n",
             second->port);
    first->reply = reply;
    assert_int_equal(pthread_create(&thread, NULL, serve_once, first), 0);
    ha_judge_request_clear(&b.request);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", first->port);
    make_request(url, &b.request);
    send_one(&b, &ended);
    wait_for(&b, &ended, 1);
    pthread_join(thread, NULL);
    assert_int_equal(ended.last.http_status, 307);
    assert_int_equal(ended.outcome.class, HA_JUDGE_CLASS_CONFIG);
    assert_non_null(strstr(first->request, "Authorization: Bearer sk-not-a-real-key\r\n"));
    assert_null(strstr(first->request, "Expect:"));
    assert_int_equal(poll(&(struct pollfd){.fd = second->fd, .events = POLLIN}, 1, 50), 0);
    close(first->fd);
    close(second->fd);
    free(first);
    free(second);
    ha_judge_outcome_clear(&ended.outcome);
    stop(&b);
}

static void breaks_off_what_is_in_flight(void **state)
{
    struct bench b;
    struct ended ended = {0};

    (void)state;
    start(&b, "hang", 1);
    for (int i = 0; i < 4; i++)
        send_one(&b, &ended);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ha_loop_turn(b.loop, 10, NULL), 0);
    stop(&b);
    assert_int_equal(ended.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brings_sixteen_scores),
        cmocka_unit_test(keeps_many_in_flight),
        cmocka_unit_test(tells_how_a_call_ended),
        cmocka_unit_test(sends_a_body_once_over_a_dying_connection),
        cmocka_unit_test(knows_that_nothing_was_sent),
        cmocka_unit_test(follows_no_redirect),
        cmocka_unit_test(breaks_off_what_is_in_flight),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
