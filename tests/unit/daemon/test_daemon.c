/* The whole daemon against a coordinator of a few lines and attempts that are
 * shell scripts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/net/socket.h"
#include "proto/wire.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/journal.h"

enum { WAIT_MS = 15000, MAX_FILES = 16, FILE_BYTES = 1 << 16 };

static const char input[] = "{\"prompt\":\"x\"}\n";
static char input_sha256[HA_SHA256_HEX_BYTES];
static char *folder;
static pid_t worker;

/* What the coordinator knows. */
static struct {
    struct ha_net *net;
    struct ha_loop *loop;
    struct ha_server *control, *files;
    ha_peer peer;
    bool known;
    int n_hellos, n_beats;
    char instance[64];
    char phase[32];
    char kept[32];  /* jobs that the last hello listed */
    bool leased;    /* job 1 is to be run */
    bool draining;  /* said by the worker */
    uint64_t taken; /* reports */
    char events[4096];
    bool ended;
    struct {
        char sha256[HA_SHA256_HEX_BYTES];
        char bytes[FILE_BYTES];
        int64_t size;
    } stored[MAX_FILES];
    int n_stored;
} hub;

static const struct ha_wire_epoch epoch = {.generation = 3, .number = 9};

/* ---- the coordinator ---------------------------------------------------------------------- */

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *format, ...)
{
    size_t used = strlen(hub.events);
    va_list args;

    va_start(args, format);
    vsnprintf(hub.events + used, sizeof(hub.events) - used, format, args);
    va_end(args);
}

static void reply(struct ha_server *server, ha_peer peer, struct ha_wire_message *message)
{
    struct ha_buffer out;

    message->protocol = HA_WIRE_PROTOCOL;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_wire_encode(message, &out, NULL), 0);
    (void)ha_server_send(server, peer, out.data, out.size);
    ha_buffer_clear(&out);
}

static int find_stored(const char *sha256)
{
    for (int i = 0; i < hub.n_stored; i++) {
        if (strcmp(hub.stored[i].sha256, sha256) == 0)
            return i;
    }
    (void)snprintf(hub.stored[hub.n_stored].sha256, sizeof(hub.stored[hub.n_stored].sha256), "%s",
                   sha256);
    hub.stored[hub.n_stored].size = 0;
    return hub.n_stored++;
}

static void send_grant(void)
{
    struct ha_wire_input inputs[] = {
        {.sha256 = input_sha256, .size = sizeof(input) - 1, .path = "inputs/data/train-0.jsonl"}};
    char *model = ha_path_join(folder, "model");
    struct ha_wire_message message = {
        .kind = HA_WIRE_GRANT,
        .body.grant = {.job = 1,
                       .epoch = epoch,
                       .kind = "train",
                       .sweep = "s",
                       .spec_json =
                           "{\"kind\":\"train\",\"model\":{\"name\":\"m\",\"path\":\"?\"}}",
                       .inputs = inputs,
                       .n_inputs = 1,
                       .model_path = model}};

    hub.leased = true;
    reply(hub.control, hub.peer, &message);
    free(model);
}

static void take_event(const struct ha_wire_attempt_event *event)
{
    const struct ha_wire_attempt_artifact *artifact = &event->event.artifact;

    switch (event->kind) {
    case HA_WIRE_ATTEMPT_EVENT_METRIC:
        note("%s=%g\n", event->event.metric.name, event->event.metric.value);
        break;
    case HA_WIRE_ATTEMPT_EVENT_ARTIFACT:
        note("%s %s: %s", artifact->kind, artifact->name,
             hub.stored[find_stored(artifact->sha256)].bytes);
        break;
    case HA_WIRE_ATTEMPT_EVENT_CELL:
        note("cell %d %s\n", (int)event->event.cell.cell, event->event.cell.summary_json);
        break;
    case HA_WIRE_ATTEMPT_EVENT_END:
        note("%s: %s\n", event->event.end.outcome, event->event.end.reason);
        hub.ended = true;
        hub.leased = false;
        break;
    default:
        note("?\n");
    }
}

static void on_control(void *context, const struct ha_server_message *frame)
{
    struct ha_wire_job_ref ref = {.job = 1, .epoch = epoch};
    struct ha_wire_message *message, answer = {0};

    (void)context;
    assert_int_equal(
        ha_wire_decode(frame->data, frame->size, &ha_wire_default_limits, &message, NULL), 0);
    answer.request_id = message->request_id;
    if (message->kind == HA_WIRE_HELLO) {
        hub.peer = frame->peer;
        hub.known = true;
        hub.n_hellos++;
        snprintf(hub.instance, sizeof(hub.instance), "%s", message->body.hello.instance);
        hub.kept[0] = '\0';
        for (int64_t i = 0; i < message->body.hello.n_kept; i++)
            snprintf(hub.kept, sizeof(hub.kept), "%llu",
                     (unsigned long long)message->body.hello.kept[i].job);
        answer.kind = HA_WIRE_HELLO_REPLY;
        answer.body.hello_reply = (struct ha_wire_hello_reply){
            .version = "t", .name = message->body.hello.name, .heartbeat_ms = 100};
    } else if (!hub.known || frame->peer != hub.peer) {
        answer.kind = HA_WIRE_ERROR;
        answer.body.error = (struct ha_wire_error){.code = EPROTO, .text = "hello again"};
    } else if (message->kind == HA_WIRE_HEARTBEAT) {
        const struct ha_wire_heartbeat *beat = &message->body.heartbeat;

        hub.n_beats++;
        hub.draining = beat->draining;
        snprintf(hub.phase, sizeof(hub.phase), "%s", beat->n_running ? beat->running[0].phase : "");
        answer.kind = HA_WIRE_HEARTBEAT_REPLY;
        answer.body.heartbeat_reply =
            (struct ha_wire_heartbeat_reply){.should_run = &ref, .n_should_run = hub.leased};
    } else if (message->kind == HA_WIRE_REPORT) {
        const struct ha_wire_report *report = &message->body.report;

        if (report->sequence == hub.taken + 1) {
            hub.taken++;
            for (int64_t i = 0; i < report->n_events; i++)
                take_event(&report->events[i]);
        }
        answer.kind = HA_WIRE_REPORT_REPLY;
        answer.body.report_reply =
            (struct ha_wire_report_reply){.job = 1, .epoch = epoch, .sequence = hub.taken};
    }
    if (answer.kind)
        reply(hub.control, frame->peer, &answer);
    ha_wire_message_destroy(message);
}

static void on_files(void *context, const struct ha_server_message *frame)
{
    struct ha_wire_message *message, answer = {0};
    int at;

    (void)context;
    assert_int_equal(
        ha_wire_decode(frame->data, frame->size, &ha_wire_default_limits, &message, NULL), 0);
    answer.request_id = message->request_id;
    if (message->kind == HA_WIRE_ARTIFACT_READ) {
        answer.kind = HA_WIRE_ARTIFACT_DATA;
        answer.body.artifact_data = (struct ha_wire_artifact_data){
            .sha256 = message->body.artifact_read.sha256,
            .size = sizeof(input) - 1,
            .data = {.data = (const uint8_t *)input, .size = sizeof(input) - 1}};
    } else {
        at = find_stored(message->body.artifact_open.sha256);
        if (message->kind == HA_WIRE_ARTIFACT_CHUNK) {
            const struct ha_wire_artifact_chunk *chunk = &message->body.artifact_chunk;

            memcpy(hub.stored[at].bytes + chunk->offset, chunk->data.data, chunk->data.size);
            hub.stored[at].size = chunk->offset + (int64_t)chunk->data.size;
        }
        answer.kind = HA_WIRE_ARTIFACT_STATE;
        answer.body.artifact_state = (struct ha_wire_artifact_state){
            .sha256 = hub.stored[at].sha256,
            .have = hub.stored[at].size,
            .complete = hub.stored[at].size == message->body.artifact_open.size};
    }
    reply(hub.files, frame->peer, &answer);
    ha_wire_message_destroy(message);
}

static void open_hub(void)
{
    const struct ha_server_handlers control = {.message = on_control},
                                    files = {.message = on_files};
    char *endpoint = ha_format("ipc://%s/c", folder);
    char *files_endpoint = ha_format("ipc://%s/c.files", folder);
    struct ha_error err = {0};

    assert_int_equal(ha_net_create(&hub.net, &err), 0);
    assert_int_equal(ha_loop_create(&hub.loop, &err), 0);
    assert_int_equal(
        ha_server_create(hub.net, hub.loop, endpoint, NULL, &control, &hub.control, &err), 0);
    assert_int_equal(
        ha_server_create(hub.net, hub.loop, files_endpoint, NULL, &files, &hub.files, &err), 0);
    free(endpoint);
    free(files_endpoint);
}

static void close_hub(void)
{
    ha_server_destroy(hub.control);
    ha_server_destroy(hub.files);
    ha_loop_destroy(hub.loop);
    ha_net_destroy(hub.net);
    hub.known = false;
}

/* Turn until the condition holds. */
#define RUN_UNTIL(condition)                                                                       \
    for (int64_t deadline = ha_clock_boot_ms() + WAIT_MS; !(condition);) {                         \
        assert_int_equal(ha_loop_turn(hub.loop, 20, NULL), 0);                                     \
        if (ha_clock_boot_ms() > deadline)                                                         \
            fail_msg("%s: not within %d ms; events: %s", #condition, WAIT_MS, hub.events);         \
    }

/* ---- the worker ------------------------------------------------------------------------------ */

static int run_worker(void)
{
    char *overrides[] = {ha_format("coordinator=ipc://%s/c", folder),
                         ha_format("work_dir=%s/work", folder),
                         ha_format("model_roots=%s", folder),
                         ha_strdup("name=w1"),
                         ha_strdup("stop_grace=1s"),
                         ha_strdup("stall_load=2s")};
    char *program = ha_path_join(folder, "attempt.sh");
    struct daemon_options options = {.program = program, .backend = "cpu: test", .watch_fd = -1};
    struct ha_worker_config config;
    struct daemon *daemon = NULL;
    struct ha_error err = {0};
    int r = ha_worker_config_load(NULL, (const char *const *)overrides, 6, &config, &err);

    ha_log_setup("worker", HA_LOG_ERROR, HA_LOG_TEXT);
    if (r == 0) {
        options.config = &config;
        r = daemon_create(&options, &daemon, &err);
    }
    if (r == 0)
        r = daemon_run(daemon, &err);
    if (r < 0)
        ha_log_error("%s", err.text);
    daemon_destroy(daemon);
    ha_worker_config_clear(&config);
    for (int i = 0; i < 6; i++)
        free(overrides[i]);
    free(program);
    return r < 0;
}

static void start_worker(void)
{
    worker = fork();
    if (worker == 0)
        _exit(run_worker());
    assert_true(worker > 0);
}

static int end_worker(int number)
{
    int status = -1;

    kill(worker, number);
    RUN_UNTIL(waitpid(worker, &status, WNOHANG) == worker);
    worker = 0;
    return status;
}

static void write_script(const char *body)
{
    char *path = ha_path_join(folder, "attempt.sh");
    char *text = ha_format("#!/bin/sh\nexec 2> /dev/null\necho $$ > %s/pid\n%s", folder, body);

    assert_int_equal(ha_file_write(path, text, strlen(text), 0700, NULL), 0);
    free(text);
    free(path);
}

static pid_t attempt_pid(void)
{
    char *path = ha_path_join(folder, "pid"), *text = NULL;
    size_t size;
    pid_t pid = 0;

    if (ha_file_read(path, 64, &text, &size, NULL) == 0)
        pid = (int)strtol(text, NULL, 10);
    free(text);
    free(path);
    return pid;
}

static bool is_gone(pid_t pid)
{
    char path[64], text[256] = "", state = 'X';
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "r");
    if (!file)
        return true;
    if (fgets(text, sizeof(text), file) && strrchr(text, ')'))
        state = strrchr(text, ')')[2];
    fclose(file);
    return state == 'Z' || state == 'X';
}

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-daemon-XXXXXX";
    uint8_t digest[HA_SHA256_BYTES];
    char *path;

    (void)state;
    memset(&hub, 0, sizeof(hub));
    worker = 0;
    folder = ha_strdup(mkdtemp(name));
    ha_sha256(input, sizeof(input) - 1, digest);
    ha_sha256_hex(digest, input_sha256);
    path = ha_path_join(folder, "model");
    assert_int_equal(mkdir(path, 0700), 0);
    free(path);
    path = ha_path_join(folder, "model/config.json");
    assert_int_equal(ha_file_write(path, "{}", 2, 0600, NULL), 0);
    free(path);
    open_hub();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (worker > 0) {
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
    }
    close_hub();
    ha_path_remove_tree(folder, NULL);
    free(folder);
    return 0;
}

/* ---- tests
 * ---------------------------------------------------------------------------------------- */

#define LINE(text) "echo '" text "' >&3\n"
#define WAIT_FOR_TERM                                                                              \
    "trap 'exit 75' TERM\n" LINE(                                                                  \
        "{\"type\":\"phase\",\"phase\":\"step\"}") "while :; do sleep 0.02; done\n"

static void runs_an_attempt(void **state)
{
    char *spec_line;

    (void)state;
    write_script(
        "echo a log line\n"
        "cat inputs/data/train-0.jsonl > out.txt\n"
        "grep -o '\"path\": \"[^\"]*\"' job.json >> out.txt\n" LINE(
            "{\"type\":\"metric\",\"cell\":5,\"step\":1,\"values\":{\"loss\":0.5}}")
            LINE("{\"type\":\"artifact\",\"cell\":5,\"kind\":\"adapter\",\"name\":"
                 "\"adapter.txt\",\"path\":\"out.txt\",\"step\":0}")
                LINE("{\"type\":\"cell\",\"cell\":5,\"done\":true,\"summary\":{\"a\":1}}"));
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    send_grant();
    RUN_UNTIL(hub.ended);
    assert_non_null(strstr(hub.events, "loss=0.5\n"));
    spec_line = ha_format("adapter adapter.txt: %s\"path\": \"%s/model\"\ncell 5 {\"a\":1}\n"
                          "log attempt.log: a log line\ndone: exit code 0\n",
                          input, folder);
    assert_non_null(strstr(hub.events, spec_line));
    free(spec_line);
    assert_int_equal(end_worker(SIGTERM), 0);
    assert_true(hub.draining);
}

static void tells_how_an_attempt_failed(void **state)
{
    (void)state;
    write_script(LINE("{\"type\":\"error\",\"text\":\"no luck\"}") "kill -9 $$\n");
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(hub.ended);
    assert_string_equal(hub.events, "failed: no luck (killed by signal 9 (SIGKILL))\n");
}

/* It hangs before its first line: that is loading, and has that limit.  As it does not end when it
 * is asked to, it is asked where it stands before it is killed. */
static void ends_an_attempt_that_says_nothing(void **state)
{
    (void)state;
    write_script("trap '' TERM\ntrap 'echo here it stands' URG\nwhile :; do sleep 0.05; done\n");
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(hub.ended);
    assert_non_null(strstr(hub.events, "log attempt.log: here it stands\n"));
    assert_non_null(strstr(hub.events, "failed: no progress for 2 s in phase load"));
}

static void refuses_lines_that_are_none(void **state)
{
    (void)state;
    write_script("echo '{\"type\":\"artifact\",\"path\":\"../x\"}' >&3\nsleep 100\n");
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(hub.ended);
    assert_non_null(strstr(hub.events, "failed: the attempt sent a line with a wrong path"));
}

static void stops_an_attempt_that_is_revoked(void **state)
{
    struct ha_wire_message revoke = {
        .kind = HA_WIRE_REVOKE, .body.revoke = {.job = 1, .epoch = epoch, .reason = "cancelled"}};

    (void)state;
    write_script(WAIT_FOR_TERM);
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    reply(hub.control, hub.peer, &revoke);
    RUN_UNTIL(hub.ended);
    assert_string_equal(hub.events, "stopped: cancelled (exit code 75)\n");
    hub.ended = false;
    hub.taken = 0;
}

static void stops_an_attempt_that_is_not_listed(void **state)
{
    pid_t pid;

    (void)state;
    write_script(WAIT_FOR_TERM);
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    pid = attempt_pid();
    hub.leased = false;
    RUN_UNTIL(is_gone(pid));
    assert_string_equal(hub.events, "");
}

static void goes_on_while_the_coordinator_is_away(void **state)
{
    (void)state;
    write_script(LINE(
        "{\"type\":\"phase\",\"phase\":\"step\"}") "while [ ! -e ../../go ]; do "
                                                   "sleep 0.02; done\n" LINE(
                                                       "{\"type\":\"metric\",\"cell\":5,\"step\":1,"
                                                       "\"values\":{\"loss\":0.25}}"));
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    close_hub();
    {
        char *go = ha_path_join(folder, "go");

        assert_int_equal(ha_file_write(go, "", 0, 0600, NULL), 0);
        free(go);
    }
    while (!is_gone(attempt_pid()))
        usleep(10000);
    open_hub();
    RUN_UNTIL(hub.ended);
    assert_string_equal(hub.events, "loss=0.25\ndone: exit code 0\n");
    assert_int_equal(hub.n_hellos, 2);
}

static void loses_its_attempts_when_it_is_killed(void **state)
{
    char first[64];
    pid_t pid;

    (void)state;
    write_script(WAIT_FOR_TERM);
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    pid = attempt_pid();
    (void)snprintf(first, sizeof(first), "%s", hub.instance);
    end_worker(SIGKILL);
    RUN_UNTIL(is_gone(pid));
    hub.leased = false;
    start_worker();
    RUN_UNTIL(hub.n_hellos == 2);
    assert_string_not_equal(hub.instance, first);
    RUN_UNTIL(hub.phase[0] == '\0');
}

static int see_end(void *context, const struct ha_wire_attempt_event *event, const char *path)
{
    (void)path;
    *(bool *)context |= event->kind == HA_WIRE_ATTEMPT_EVENT_END;
    return 0;
}

/* Whether the journal of the one attempt has its end; of a copy, as the daemon is writing. */
static bool wrote_down_the_end(void)
{
    char *pattern = ha_path_join(folder, "*/*/" JOURNAL_FILE);
    char *seen = ha_path_join(folder, "seen"), *copy = ha_path_join(seen, JOURNAL_FILE);
    struct journal *journal;
    glob_t found;
    bool end = false;

    (void)mkdir(seen, 0700);
    if (glob(pattern, 0, NULL, &found) == 0) {
        if (ha_file_copy(found.gl_pathv[0], copy, 0600, NULL) == 0 &&
            journal_open(seen, see_end, &end, &journal, NULL) == 0)
            journal_destroy(journal);
        globfree(&found);
    }
    free(copy);
    free(seen);
    free(pattern);
    return end;
}

static void results_outlive_their_daemon(void **state)
{
    (void)state;
    write_script(LINE(
        "{\"type\":\"phase\",\"phase\":\"step\"}") "while [ ! -e ../../go ]; do sleep 0.02; "
                                                   "done\necho weights > w\n" LINE(
                                                       "{\"type\":\"metric\",\"cell\":5,\"step\":1,"
                                                       "\"values\":{\"loss\":0.25}}")
                                                       LINE("{\"type\":\"artifact\",\"cell\":5,"
                                                            "\"kind\":\"adapter\",\"name\":\"w\","
                                                            "\"path\":\"w\"}")
                                                           LINE("{\"type\":\"cell\",\"cell\":5,"
                                                                "\"done\":true}"));
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    close_hub();
    {
        char *go = ha_path_join(folder, "go");

        assert_int_equal(ha_file_write(go, "", 0, 0600, NULL), 0);
        free(go);
    }
    while (!wrote_down_the_end())
        usleep(10000);
    kill(worker, SIGKILL);
    waitpid(worker, NULL, 0);
    open_hub();
    start_worker();
    RUN_UNTIL(hub.ended);
    assert_string_equal(hub.kept, "1");
    assert_non_null(strstr(hub.events, "loss=0.25\n"));
    assert_non_null(strstr(hub.events, "adapter w: weights\n"));
    assert_non_null(strstr(hub.events, "cell 5"));
    assert_non_null(strstr(hub.events, "done: exit code 0\n"));
}

static void drains_with_a_checkpoint(void **state)
{
    (void)state;
    write_script("trap 'echo weights > ck; echo '\"'\"'{\"type\":\"artifact\",\"cell\":5,"
                 "\"kind\":\"checkpoint\",\"name\":\"ck\",\"path\":\"ck\",\"step\":3}'\"'\"' >&3; "
                 "exit 75' TERM\n" LINE(
                     "{\"type\":\"phase\",\"phase\":\"step\"}") "while :; do sleep 0.02; done\n");
    start_worker();
    RUN_UNTIL(hub.n_beats > 0);
    send_grant();
    RUN_UNTIL(strcmp(hub.phase, "step") == 0);
    assert_int_equal(end_worker(SIGTERM), 0);
    assert_string_equal(hub.events, "checkpoint ck: weights\n"
                                    "stopped: the worker is leaving (exit code 75)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(runs_an_attempt),
        TEST(tells_how_an_attempt_failed),
        TEST(ends_an_attempt_that_says_nothing),
        TEST(refuses_lines_that_are_none),
        TEST(stops_an_attempt_that_is_revoked),
        TEST(stops_an_attempt_that_is_not_listed),
        TEST(goes_on_while_the_coordinator_is_away),
        TEST(loses_its_attempts_when_it_is_killed),
        TEST(results_outlive_their_daemon),
        TEST(drains_with_a_checkpoint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
