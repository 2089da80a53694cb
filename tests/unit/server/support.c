#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/path.h"
#include "common/conf/dimensions.h"
#include "common/conf/json.h"

const char *const bench_grid = "[sweep]\n"
                               "name = \"demo\"\n"
                               "[[model]]\n"
                               "path = \"tiny\"\n"
                               "[strategies]\n"
                               "use = [\"base\", \"mid\"]\n"
                               "[data]\n"
                               "train = [\"train.jsonl\"]\n"
                               "eval = [\"eval.jsonl.gz\"]\n"
                               "eval_samples = 3\n"
                               "[schedule]\n"
                               "fuse = \"never\"\n"
                               "[[judge]]\n"
                               "name = \"q\"\n"
                               "base_url = \"http://127.0.0.1:9/v1\"\n"
                               "model = \"m\"\n";

const char *bench_fused_grid(void)
{
    static char grid[2048];

    if (!grid[0]) {
        const char *use = strstr(bench_grid, "use = "), *data = strstr(use, "[data]");
        const char *schedule = strstr(data, "[schedule]"), *judge = strstr(schedule, "[[judge]]");

        snprintf(grid, sizeof grid,
                 "%.*suse = [\"base\", \"local\", \"mid\", \"global\", \"full\"]\n%.*s%s",
                 (int)(use - bench_grid), bench_grid, (int)(schedule - data), data, judge);
    }
    return grid;
}

static int on_send(void *context, uint64_t peer, const void *data, size_t size)
{
    struct bench *b = context;
    struct ha_wire_message *message;

    assert_int_equal(ha_wire_decode(data, size, &ha_wire_default_limits, &message, NULL), 0);
    assert_true(b->count < SENT_LIMIT);
    b->sent[b->count++] = (struct sent){peer, message};
    return 0;
}

static void on_stored(void *context, const char *sha256)
{
    struct bench *b = context;

    assert_true(b->stored_count < ARTIFACT_LIMIT);
    snprintf(b->stored[b->stored_count++], 65, "%s", sha256);
}

static void on_not_stored(void *context, const char *sha256, const struct ha_error *why)
{
    struct bench *b = context;

    assert_int_equal(strlen(sha256), 64);
    assert_int_equal(strncmp(ha_error_text(why), "not stored: ", 12), 0);
    b->not_stored_count++;
}

static void on_orphan(void *context, const char *sha256)
{
    struct bench *b = context;

    assert_true(b->orphan_count < ARTIFACT_LIMIT);
    snprintf(b->orphans[b->orphan_count++], 65, "%s", sha256);
}

static void on_full(void *context)
{
    struct bench *b = context;

    b->full_count++;
}

static void on_snapshot(void *context, int64_t number, const char *path)
{
    struct bench *b = context;

    b->snapshots++;
    b->snapshot_number = number;
    snprintf(b->snapshot_path, sizeof b->snapshot_path, "%s", path);
}

static enum ha_net_role on_key_role(void *context, const char *name)
{
    const struct bench *b = context;

    return b->revoked && strcmp(b->revoked, name) == 0 ? b->revoked_role : HA_NET_ROLE_ADMIN;
}

static void on_snapshot_end(void *context, const char *sha256)
{
    struct bench *b = context;

    (void)sha256;
    b->snapshots_ended++;
}

static void start(struct bench *b)
{
    static char artifacts[96];
    struct ha_coordinator_options options = {
        .rules = {.heartbeat_ms = 5000, .late_ms = 15000, .lost_ms = 60000},
        .gang = {.ready_ms = 600000, .abort_ms = 20000},
        .version = "test",
        .preempt_ms = 300000,
        .suspect_jobs = 3,
        .artifacts = artifacts,
        .gc_after_ms = 86400000,
        .max_sweep_bytes = b->max_sweep_bytes,
        .max_grids = b->max_grids,
        .slice_us = b->slice_us,
        .max_grids_per_client = b->max_grids_per_client,
        .files_endpoint = "inproc://files"};
    struct ha_coordinator_hooks hooks = {.send = on_send,
                                         .artifact_stored = on_stored,
                                         .artifact_not_stored = on_not_stored,
                                         .artifact_orphan = on_orphan,
                                         .disk_full = on_full,
                                         .snapshot_copied = on_snapshot,
                                         .snapshot_end = on_snapshot_end,
                                         .key_role = on_key_role,
                                         .context = b};
    struct ha_error err = {0};
    char *path = ha_path_join(b->dir, "coordinator.db");

    if (ha_store_open(path, &b->store, &err) < 0)
        fail_msg("%s", err.text);
    free(path);
    snprintf(artifacts, sizeof artifacts, "%s/artifacts/snapshot", b->dir);
    assert_int_equal(ha_path_make_dirs(artifacts, 0700, NULL), 0);
    *strrchr(artifacts, '/') = '\0';
    if (ha_coordinator_create(&options, &hooks, b->store, b->boot_ms, b->wall_ms, &b->c, &err) < 0)
        fail_msg("%s", err.text);
}

static void forget_sent(struct bench *b)
{
    while (b->count > 0)
        ha_wire_message_destroy(b->sent[--b->count].message);
}

static void stop(struct bench *b)
{
    ha_coordinator_destroy(b->c);
    ha_store_close(b->store);
    forget_sent(b);
}

void bench_open(struct bench *b)
{
    memset(b, 0, sizeof *b);
    /* In memory where that is possible: a sync per turn adds up. */
    snprintf(b->dir, sizeof b->dir, "%s/ha-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(b->dir));
    b->boot_ms = 1000000;
    b->wall_ms = 1700000000000;
    start(b);
}

void bench_close(struct bench *b)
{
    stop(b);
    ha_path_remove_tree(b->dir, NULL);
}

void bench_kill(struct bench *b)
{
    stop(b);
}

void bench_start(struct bench *b)
{
    start(b);
}

void bench_restart(struct bench *b)
{
    stop(b);
    start(b);
}

static void turn_end(struct bench *b)
{
    struct ha_error err = {0};

    if (ha_coordinator_turn_end(b->c, false, &err) < 0)
        fail_msg("%s", err.text);
}

uint64_t bench_post(struct bench *b, uint64_t peer, enum ha_net_role role,
                    const struct ha_wire_message *message)
{
    struct ha_origin origin = {.peer = peer, .key = b->key ? b->key : "local", .role = role};
    struct ha_wire_message copy = *message, *decoded = NULL;
    struct ha_error err = {0};
    struct ha_buffer bytes;

    copy.protocol = HA_WIRE_PROTOCOL;
    copy.request_id = ++b->next_request;
    ha_buffer_init(&bytes, 0);
    if (ha_wire_encode(&copy, &bytes, &err) < 0 ||
        ha_wire_decode(bytes.data, bytes.size, &ha_wire_default_limits, &decoded, &err) < 0)
        fail_msg("%s", err.text);
    ha_coordinator_turn_begin(b->c, b->boot_ms, b->wall_ms);
    ha_coordinator_message(b->c, &origin, decoded);
    ha_wire_message_destroy(decoded);
    ha_buffer_clear(&bytes);
    return copy.request_id;
}

uint64_t bench_send_as(struct bench *b, uint64_t peer, enum ha_net_role role,
                       const struct ha_wire_message *message)
{
    uint64_t id = bench_post(b, peer, role, message);

    turn_end(b);
    return id;
}

uint64_t bench_send(struct bench *b, uint64_t peer, const struct ha_wire_message *message)
{
    return bench_send_as(b, peer, HA_NET_ROLE_ADMIN, message);
}

void bench_turn(struct bench *b, int64_t after_ms)
{
    b->boot_ms += after_ms;
    b->wall_ms += after_ms;
    ha_coordinator_turn_begin(b->c, b->boot_ms, b->wall_ms);
    turn_end(b);
}

void bench_settle(struct bench *b)
{
    for (int i = 0; i < 100000 && ha_coordinator_idle_ms(b->c) == 0; i++)
        bench_turn(b, 0);
    assert_int_not_equal(ha_coordinator_idle_ms(b->c), 0);
}

static struct ha_wire_message *take(struct bench *b, int at)
{
    struct ha_wire_message *message = b->sent[at].message;

    b->count--;
    memmove(&b->sent[at], &b->sent[at + 1], (size_t)(b->count - at) * sizeof b->sent[0]);
    return message;
}

struct ha_wire_message *bench_reply(struct bench *b, uint64_t peer, uint64_t request_id)
{
    for (int i = 0; i < b->count; i++) {
        if (b->sent[i].peer == peer && b->sent[i].message->request_id == request_id)
            return take(b, i);
    }
    return NULL;
}

struct ha_wire_message *bench_push(struct bench *b, uint64_t peer, enum ha_wire_body kind)
{
    for (int i = 0; i < b->count; i++) {
        if (b->sent[i].peer == peer && b->sent[i].message->request_id == 0 &&
            b->sent[i].message->kind == kind)
            return take(b, i);
    }
    return NULL;
}

struct ha_wire_message *bench_wait(struct bench *b, uint64_t peer, uint64_t request_id)
{
    struct ha_wire_message *reply = bench_reply(b, peer, request_id);

    /* One turn at a time: what comes after the reply is the test's to wait for. */
    for (int i = 0; !reply && i < 10000; i++) {
        bench_turn(b, 0);
        reply = bench_reply(b, peer, request_id);
    }
    assert_non_null(reply);
    return reply;
}

struct ha_wire_message *bench_call(struct bench *b, uint64_t peer,
                                   const struct ha_wire_message *message,
                                   enum ha_wire_body expected)
{
    struct ha_wire_message *reply = bench_wait(b, peer, bench_send(b, peer, message));

    if (reply->kind == HA_WIRE_ERROR && expected != HA_WIRE_ERROR)
        fail_msg("%s", reply->body.error.text);
    assert_int_equal(reply->kind, expected);
    return reply;
}

void bench_refused(struct bench *b, uint64_t peer, enum ha_net_role role,
                   const struct ha_wire_message *message, uint32_t code)
{
    uint64_t id = bench_send_as(b, peer, role, message);
    struct ha_wire_message *reply = bench_reply(b, peer, id);

    assert_non_null(reply);
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    if (reply->body.error.code != code)
        fail_msg("code %u: %s", reply->body.error.code, reply->body.error.text);
    ha_wire_message_destroy(reply);
}

/* ---- hello and submit ---------------------------------------------------------------------- */

static void hello(struct bench *b, uint64_t peer, enum ha_wire_role role, const char *name,
                  const char *instance, uint32_t slots)
{
    struct ha_wire_message message = {.kind = HA_WIRE_HELLO,
                                      .body.hello = {.role = role,
                                                     .name = name,
                                                     .instance = instance,
                                                     .machine = "machine",
                                                     .version = "test",
                                                     .slots = slots,
                                                     .backend = "cpu",
                                                     .host = "host"}};

    ha_wire_message_destroy(bench_call(b, peer, &message, HA_WIRE_HELLO_REPLY));
}

void bench_hello_client(struct bench *b, uint64_t peer)
{
    hello(b, peer, HA_WIRE_ROLE_CLIENT, "", "", 0);
}

void bench_hello_worker(struct bench *b, uint64_t peer, const char *name, const char *instance,
                        uint32_t slots)
{
    hello(b, peer, HA_WIRE_ROLE_WORKER, name, instance, slots);
}

void bench_hello_judge(struct bench *b, uint64_t peer, const char *name, const char *instance)
{
    hello(b, peer, HA_WIRE_ROLE_JUDGE, name, instance, 1);
}

void bench_artifact(struct bench *b, const char *sha256)
{
    ha_coordinator_turn_begin(b->c, b->boot_ms, b->wall_ms);
    ha_coordinator_artifact(b->c, sha256, 10);
    turn_end(b);
}

struct ha_wire_message *bench_submit(struct bench *b, uint64_t peer, const char *key,
                                     const char *toml, bool extend)
{
    struct ha_wire_message *reply = bench_submit_any(b, peer, key, toml, extend);

    if (reply->kind == HA_WIRE_ERROR)
        print_error("%s\n", reply->body.error.text);
    assert_int_equal(reply->kind, HA_WIRE_SUBMIT_REPLY);
    return reply;
}

struct ha_wire_message *bench_submit_any(struct bench *b, uint64_t peer, const char *key,
                                         const char *toml, bool extend)
{
    return bench_wait(b, peer, bench_submit_ask(b, peer, key, toml, extend));
}

uint64_t bench_submit_ask(struct bench *b, uint64_t peer, const char *key, const char *toml,
                          bool extend)
{
    struct ha_wire_submit_model model = {.name = "tiny",
                                         .path = "/models/tiny",
                                         .digest = MODEL_DIGEST,
                                         .tokenizer_digest = TOKENIZER_DIGEST,
                                         .layers = 6,
                                         .family = "llama"};
    struct ha_wire_submit_file files[] = {
        {.path = "train.jsonl", .sha256 = TRAIN_DIGEST, .size = 10, .split = "train"},
        {.path = "eval.jsonl.gz", .sha256 = EVAL_DIGEST, .size = 10, .split = "eval"}};
    struct ha_wire_message message = {.kind = HA_WIRE_SUBMIT,
                                      .body.submit = {.key = key,
                                                      .toml = toml,
                                                      .base_dir = "/grids",
                                                      .models = &model,
                                                      .n_models = 1,
                                                      .files = files,
                                                      .n_files = 2,
                                                      .extend = extend}};

    bench_artifact(b, TRAIN_DIGEST);
    bench_artifact(b, EVAL_DIGEST);
    return bench_send(b, peer, &message);
}

/* ---- a fake worker --------------------------------------------------------------------------- */

bool bench_granted(struct bench *b, uint64_t peer, struct fake_job *ret_job)
{
    struct ha_wire_message *push = bench_push(b, peer, HA_WIRE_GRANT);
    struct ha_json *spec;
    const struct ha_json *cells;
    char *layers;

    if (!push)
        return false;
    assert_int_equal(ha_json_parse(push->body.grant.spec_json, strlen(push->body.grant.spec_json),
                                   "spec", &spec, NULL),
                     0);
    *ret_job =
        (struct fake_job){.job = push->body.grant.job,
                          .epoch = push->body.grant.epoch,
                          .train = strcmp(push->body.grant.kind, "train") == 0,
                          .probe = strcmp(push->body.grant.kind, "probe") == 0,
                          .reference = !ha_json_is(ha_json_get(spec, "reference"), HA_JSON_NULL)};
    cells = ha_json_get(spec, "cells");
    for (int64_t i = 0; i < ha_json_size(cells); i++) {
        const struct ha_json *cell = ha_json_at(cells, i);

        assert_true(ret_job->n_cells < FAKE_CELLS);
        ret_job->checkpoint[i] = !ha_json_is(ha_json_get(cell, "checkpoint"), HA_JSON_NULL);
        ret_job->cells[ret_job->n_cells++] = (uint64_t)ha_json_int(ha_json_get(cell, "id"), 0);
    }
    ret_job->cell = ret_job->cells[0];
    layers = ha_json_dump(ha_json_get(ha_json_at(cells, 0), "layers"), HA_JSON_COMPACT);
    snprintf(ret_job->layers, sizeof ret_job->layers, "%s", layers);
    free(layers);
    ha_json_destroy(spec);
    ha_wire_message_destroy(push);
    return true;
}

struct ha_wire_message *bench_report(struct bench *b, uint64_t peer, struct fake_job *job,
                                     struct ha_wire_attempt_event *events, int64_t count)
{
    struct ha_wire_message message = {.kind = HA_WIRE_REPORT,
                                      .body.report = {.job = job->job,
                                                      .epoch = job->epoch,
                                                      .sequence = ++job->sequence,
                                                      .events = events,
                                                      .n_events = count}};

    return bench_call(b, peer, &message, HA_WIRE_REPORT_REPLY);
}

static void expect_taken(struct bench *b, uint64_t peer, struct fake_job *job,
                         struct ha_wire_attempt_event *events, int64_t count)
{
    struct ha_wire_message *reply = bench_report(b, peer, job, events, count);

    assert_false(reply->body.report_reply.stale);
    assert_int_equal(reply->body.report_reply.n_missing, 0);
    assert_int_equal(reply->body.report_reply.sequence, job->sequence);
    ha_wire_message_destroy(reply);
}

static void train(struct bench *b, uint64_t peer, struct fake_job *job)
{
    struct ha_wire_attempt_event events[] = {
        {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
         .event.metric = {.cell = job->cell, .step = 1, .name = "loss", .value = 0.5}},
        {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
         .event.artifact = {.cell = job->cell,
                            .kind = "adapter",
                            .name = "adapter_config.json",
                            .sha256 = CONFIG_DIGEST,
                            .size = 10}},
        {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
         .event.artifact = {.cell = job->cell,
                            .kind = "adapter",
                            .name = "adapter_model.safetensors",
                            .sha256 = ADAPTER_DIGEST,
                            .size = 10}},
        {.kind = HA_WIRE_ATTEMPT_EVENT_CELL,
         .event.cell = {.cell = job->cell,
                        .done = true,
                        .reason = "",
                        .summary_json = job->summary ? job->summary : "{\"steps\":1}"}}};

    bench_artifact(b, CONFIG_DIGEST);
    bench_artifact(b, ADAPTER_DIGEST);
    expect_taken(b, peer, job, events, 4);
}

static void generate(struct bench *b, uint64_t peer, struct fake_job *job, int prompts)
{
    struct ha_wire_attempt_event done = {
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = job->cell,
                       .done = true,
                       .reason = "",
                       .summary_json = job->summary ? job->summary : "{}"}};

    for (int i = 0; i < prompts; i++) {
        char prompt[32], text[64];
        struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                              .event.answer = {.cell = job->cell,
                                                               .prompt = i,
                                                               .prompt_text = prompt,
                                                               .text = text,
                                                               .raw = text,
                                                               .finish = "eos",
                                                               .prompt_tokens = 3,
                                                               .tokens = 4}};

        snprintf(prompt, sizeof prompt, "question %d", i);
        snprintf(text, sizeof text, "answer %d of cell %d", i, (int)job->cell);
        expect_taken(b, peer, job, &event, 1);
    }
    expect_taken(b, peer, job, &done, 1);
}

void bench_do_cell(struct bench *b, uint64_t peer, struct fake_job *job, uint64_t cell, int prompts)
{
    job->cell = cell;
    if (job->train)
        train(b, peer, job);
    else
        generate(b, peer, job, prompts);
}

void bench_do_job(struct bench *b, uint64_t peer, struct fake_job *job, int prompts)
{
    struct ha_wire_attempt_event end = {.kind = HA_WIRE_ATTEMPT_EVENT_END,
                                        .event.end = {.outcome = "done", .reason = ""}};

    for (int i = 0; i < job->n_cells; i++)
        bench_do_cell(b, peer, job, job->cells[i], prompts);
    expect_taken(b, peer, job, &end, 1);
}

/* ---- what a client sees ---------------------------------------------------------------------- */

struct ha_wire_message *bench_status(struct bench *b, uint64_t peer, const char *sweep)
{
    struct ha_wire_message message = {.kind = HA_WIRE_STATUS_REQUEST,
                                      .body.status_request = {.sweep = sweep}};

    return bench_call(b, peer, &message, HA_WIRE_STATUS_REPLY);
}

const struct ha_wire_stage_row *bench_stage(const struct ha_wire_message *status, const char *cell,
                                            const char *stage)
{
    const struct ha_wire_status_reply *reply = &status->body.status_reply;

    for (int64_t i = 0; i < reply->n_cells; i++) {
        for (int64_t j = 0; strcmp(reply->cells[i].name, cell) == 0 && j < reply->cells[i].n_stages;
             j++) {
            if (strcmp(reply->cells[i].stages[j].stage, stage) == 0)
                return &reply->cells[i].stages[j];
        }
    }
    fail_msg("no stage %s of cell %s", stage, cell);
    return NULL;
}

char *bench_replicated(int seeds, const char *more)
{
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_printf(&text, "%s\n%s\n[vary]\nseed = [0", bench_grid, more), 0);
    for (int i = 1; i < seeds; i++)
        assert_int_equal(ha_buffer_printf(&text, ", %d", i), 0);
    assert_int_equal(ha_buffer_append_text(&text, "]\n"), 0);
    return ha_buffer_detach(&text);
}

void bench_create(struct bench *b, uint64_t peer)
{
    struct ha_wire_message *reply = bench_submit(b, peer, "create", bench_grid, false);

    if (strcmp(reply->body.submit_reply.outcome, "created") != 0)
        fail_msg("%s: %s", reply->body.submit_reply.outcome, reply->body.submit_reply.notes[0]);
    assert_int_equal(reply->body.submit_reply.cells, 2);
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

void bench_expect_stage(struct bench *b, uint64_t peer, const char *cell, const char *stage,
                        const char *state, const char *reason)
{
    struct ha_wire_message *status = bench_status(b, peer, "demo");
    const struct ha_wire_stage_row *row = bench_stage(status, cell, stage);

    if (strcmp(row->state, state) != 0)
        fail_msg("%s %s is %s (%s), not %s", cell, stage, row->state, row->reason, state);
    if (reason)
        assert_string_equal(row->reason, reason);
    ha_wire_message_destroy(status);
}

void bench_expect_sweep(struct bench *b, uint64_t peer, const char *state)
{
    struct ha_wire_message *status = bench_status(b, peer, "demo");

    assert_string_equal(status->body.status_reply.sweep.state, state);
    ha_wire_message_destroy(status);
}

struct ha_wire_message *bench_beat(struct bench *b, uint64_t peer, const struct fake_job *jobs,
                                   int64_t count)
{
    struct ha_wire_running running[8];
    struct ha_wire_message message = {.kind = HA_WIRE_HEARTBEAT,
                                      .body.heartbeat = {.running = running, .n_running = count}};

    assert_true(count <= 8);
    for (int64_t i = 0; i < count; i++)
        running[i] = (struct ha_wire_running){.job = jobs[i].job,
                                              .epoch = jobs[i].epoch,
                                              .phase = "step",
                                              .step = 3,
                                              .steps = 7,
                                              .tokens_per_second = 100};
    return bench_call(b, peer, &message, HA_WIRE_HEARTBEAT_REPLY);
}

void bench_end(struct bench *b, uint64_t peer, struct fake_job *job, const char *outcome,
               const char *reason)
{
    struct ha_wire_attempt_event end = {.kind = HA_WIRE_ATTEMPT_EVENT_END,
                                        .event.end = {.outcome = outcome, .reason = reason}};

    expect_taken(b, peer, job, &end, 1);
}

/* ---- a fake judge worker --------------------------------------------------------------------- */

int bench_items(struct bench *b, uint64_t peer, struct fake_item *items, int limit)
{
    struct ha_wire_message ask = {.kind = HA_WIRE_ITEMS_REQUEST,
                                  .body.items_request = {.max_items = (uint32_t)limit}};
    struct ha_wire_message *grant = bench_call(b, peer, &ask, HA_WIRE_ITEMS_GRANT);
    int count = (int)grant->body.items_grant.n_items;

    assert_true(count <= limit);
    for (int i = 0; i < count; i++) {
        const struct ha_wire_item *item = &grant->body.items_grant.items[i];

        items[i] = (struct fake_item){.item = item->item,
                                      .epoch = item->epoch,
                                      .reply_call = item->reply_call,
                                      .reasks = item->reasks};
        snprintf(items[i].fault, sizeof items[i].fault, "%s", item->last_fault);
        if (item->reply_call != 0)
            assert_memory_equal(item->reply.data, "raw", 3);
    }
    ha_wire_message_destroy(grant);
    return count;
}

bool bench_begin(struct bench *b, uint64_t peer, struct fake_item *item, double reserve)
{
    struct ha_wire_item_ref ref = {.item = item->item, .epoch = item->epoch};
    struct ha_wire_message begin = {
        .kind = HA_WIRE_ITEMS_BEGIN,
        .body.items_begin = {.items = &ref, .n_items = 1, .reserve = &reserve, .n_reserve = 1}};
    struct ha_wire_message *begun = bench_call(b, peer, &begin, HA_WIRE_ITEMS_BEGIN_REPLY);
    bool good = begun->body.items_begin_reply.n_calls == 1;

    assert_int_equal(
        begun->body.items_begin_reply.n_calls + begun->body.items_begin_reply.n_refused, 1);
    if (good)
        item->call = begun->body.items_begin_reply.calls[0].call;
    ha_wire_message_destroy(begun);
    return good;
}

static bool acknowledged(struct bench *b, uint64_t peer, const struct ha_wire_message *message,
                         uint64_t call)
{
    struct ha_wire_message *ack = bench_call(b, peer, message, HA_WIRE_JUDGE_ACK);
    bool stale = ack->body.judge_ack.n_stale == 1;

    assert_int_equal(ack->body.judge_ack.n_calls, call != 0);
    if (call != 0)
        assert_int_equal(ack->body.judge_ack.calls[0], call);
    ha_wire_message_destroy(ack);
    return stale;
}

bool bench_raw(struct bench *b, uint64_t peer, const struct fake_item *item, double cost)
{
    struct ha_wire_judge_reply raw = {.item = item->item,
                                      .epoch = item->epoch,
                                      .call = item->call,
                                      .http_status = 200,
                                      .raw = {(const uint8_t *)"raw", 3},
                                      .cost = cost};
    struct ha_wire_message replies = {.kind = HA_WIRE_JUDGE_REPLIES,
                                      .body.judge_replies = {.replies = &raw, .n_replies = 1}};

    return acknowledged(b, peer, &replies, item->call);
}

bool bench_outcome(struct bench *b, uint64_t peer, const struct fake_item *item, const char *kind,
                   const char *fault)
{
    bool scored = strcmp(kind, "scored") == 0;
    struct ha_wire_score scores[HA_DIMENSIONS];
    struct ha_wire_judge_outcome outcome = {.item = item->item,
                                            .epoch = item->epoch,
                                            .call = item->call,
                                            .kind = kind,
                                            .scores = scores,
                                            .n_scores = scored ? HA_DIMENSIONS : 0,
                                            .fault = fault,
                                            .identity = scored ? MODEL_DIGEST : ""};
    struct ha_wire_message outcomes = {
        .kind = HA_WIRE_JUDGE_OUTCOMES,
        .body.judge_outcomes = {.outcomes = &outcome, .n_outcomes = 1}};

    for (int d = 0; d < HA_DIMENSIONS; d++)
        scores[d] = (struct ha_wire_score){
            .dimension = ha_dimensions[d].name, .value = 1 + (uint32_t)d % 5, .reason = "why"};
    return acknowledged(b, peer, &outcomes, item->call);
}

int bench_judge_all(struct bench *b, uint64_t peer)
{
    struct fake_item items[100];
    int count = bench_items(b, peer, items, 100);

    for (int i = 0; i < count; i++) {
        assert_true(bench_begin(b, peer, &items[i], 0));
        assert_false(bench_raw(b, peer, &items[i], 0));
        assert_false(bench_outcome(b, peer, &items[i], "scored", ""));
    }
    return count;
}
