/* coordinator/store: opening, and turns in which SQLite or we run out of memory.
 * Whatever failed, the store goes on after a rollback, and what was committed is
 * there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/store/answer.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/call.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/gc.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/item.h"
#include "coordinator/store/job.h"
#include "coordinator/store/metric.h"
#include "coordinator/store/probe.h"
#include "coordinator/store/reference.h"
#include "coordinator/store/request.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"
#include "coordinator/store/worker.h"
#include "tests/torture/torture.h"

static const struct ha_by by = {.now_ms = 1000, .actor = "torture"};
static struct ha_store *store;
enum { POINTS = 150 };

static int64_t number; /* of the runs: names are new each time */

static const char *path(void)
{
    return torture_path("c.db");
}

static const char *name_of(char kind)
{
    static char names[4][65];
    static int turn;

    turn = (turn + 1) % 4;
    (void)snprintf(names[turn], sizeof names[turn], "%c%063lld", kind, (long long)number);
    return names[turn];
}

static void need_store(void)
{
    torture_pause();
    if (!store)
        TORTURE_CHECK(ha_store_open(path(), &store, NULL) == 0);
    number++;
    torture_resume();
}

/* A whole turn that must succeed. */
static void store_goes_on(void)
{
    const char *name = name_of('d');
    struct ha_error err = {0};

    TORTURE_CHECK(!ha_store_broken(store) && !ha_store_fatal(store));
    if (ha_store_begin(store, &err) < 0)
        printf("# %s\n", err.text);
    TORTURE_CHECK(err.code == 0);
    TORTURE_CHECK(ha_store_artifact_add(store, name, 1, 1, NULL) == 0);
    TORTURE_CHECK(ha_store_commit(store, NULL) == 0);
    TORTURE_CHECK(ha_store_artifact_find(store, name, NULL, NULL) == 1);
    TORTURE_CHECK(ha_store_tidy(store, true, NULL) == 0);
}

struct ids {
    int64_t sweep, model, cell, train, generate, job;
};

static int put_sweep(struct ids *ids, struct ha_error *err)
{
    struct ha_sweep_row sweep = {.name = name_of('s'),
                                 .toml = "",
                                 .base_dir = "",
                                 .overrides = "[]",
                                 .submit_sha256 = "",
                                 .data_sha256 = "",
                                 .judge_label = "",
                                 .max_attempts = 3,
                                 .cells = 1};
    struct ha_model_row model = {.name = "m",
                                 .path = "",
                                 .hub_id = "",
                                 .prompt_template = "hh",
                                 .digest = "d",
                                 .tokenizer_digest = "t",
                                 .family = "llama"};
    struct ha_cell_row cell = {
        .name = "m/mid", .strategy = "mid", .layers = "1", .settings = "{}", .version = 1};
    int r = ha_store_sweep_put(store, &by, &sweep, &ids->sweep, err);

    if (r == 0)
        r = ha_store_model_put(store, ids->sweep, &model, &ids->model, err);
    cell.sweep = ids->sweep;
    cell.model = ids->model;
    return r < 0 ? r : ha_store_cell_put(store, &cell, &ids->cell, err);
}

static int put_stages(struct ids *ids, struct ha_error *err)
{
    struct ha_stage_spec spec = {.sweep = ids->sweep,
                                 .cell = ids->cell,
                                 .model = ids->model,
                                 .kind = HA_STAGE_TRAIN,
                                 .key = name_of('a'),
                                 .model_digest = "d"};
    int r = ha_store_stage_attach(store, &by, &spec, &ids->train, err);

    if (r < 0)
        return r;
    spec.kind = HA_STAGE_GENERATE;
    spec.key = name_of('b');
    spec.parent = ids->train;
    r = ha_store_stage_attach(store, &by, &spec, &ids->generate, err);
    if (r < 0)
        return r;
    r = ha_store_job_of_result(store, ids->train, &ids->job, err);
    TORTURE_CHECK(r < 0 || r == 1);
    return r < 0 ? r : 0;
}

/* A worker takes the job, reports and ends. */
static int work(const struct ids *ids, struct ha_error *err)
{
    const struct ha_worker_row worker = {.name = "w",
                                         .key = "",
                                         .machine = "m",
                                         .instance = "i",
                                         .host = "h",
                                         .backend = "cpu",
                                         .version = "1",
                                         .slots = 1};
    const char *sha256 = name_of('c');
    struct ha_attempt_row row;
    struct ha_epoch epoch;
    int64_t id = 0;
    int r = ha_store_worker_put(store, &worker, &id, err);

    if (r >= 0)
        r = ha_store_attempt_lease(store, &by, ids->job, id, "i", &epoch, err);
    if (r >= 0)
        r = ha_store_attempt_get(store, ids->job, epoch, &row, err);
    if (r >= 0)
        r = ha_store_attempt_runs(store, &by, &row, err);
    if (r >= 0)
        r = ha_store_attempt_take(store, ids->job, epoch, 1, err);
    if (r >= 0)
        r = ha_store_metric_put(store, ids->train, 1, "loss", 0.5, err);
    if (r >= 0)
        r = ha_store_artifact_add(store, sha256, 5, 1, err);
    if (r >= 0)
        r = ha_store_product_add(store,
                                 &(struct ha_product){.job = ids->job,
                                                      .number = epoch.number,
                                                      .result = ids->train,
                                                      .kind = "adapter",
                                                      .name = "a",
                                                      .sha256 = sha256,
                                                      .size = 5},
                                 err);
    if (r >= 0)
        r = ha_store_job_cell_end(store, &by, ids->job, ids->train, true, "", err);
    if (r >= 0)
        r = ha_store_job_set(store, &by, ids->job, HA_JOB_DONE, "", err);
    if (r >= 0)
        r = ha_store_sweep_settle(store, &by, NULL, NULL, err);
    return r < 0 ? r : 0;
}

static int count_row(void *context, const struct ha_event_row *row)
{
    (void)row;
    ++*(int64_t *)context;
    return 0;
}

static int keep_stage(void *context, const struct ha_stage_row *row)
{
    if (row->kind == HA_STAGE_TRAIN)
        *(enum ha_stage_state *)context = row->state;
    return 0;
}

static int look(const struct ids *ids, struct ha_error *err)
{
    enum ha_stage_state state = HA_STAGE_WAITING;
    int64_t events = 0;
    int r = ha_store_event_each(store, ids->sweep, 0, 0, 1000, count_row, &events, err);

    if (r == 0)
        r = ha_store_stage_each(store, ids->cell, keep_stage, &state, err);
    if (r == 0)
        TORTURE_CHECK(events > 0 && state == HA_STAGE_DONE);
    return r;
}

static int changes(struct ids *ids, struct ha_error *err)
{
    int r = ha_store_mark(store, err);

    if (r == 0)
        r = put_sweep(ids, err);
    if (r == 0)
        r = put_stages(ids, err);
    if (r == 0)
        r = work(ids, err);
    if (r == 0)
        r = ha_store_request_add(store, name_of('k'), "me", "h", "bytes", 5, 1000, err);
    if (r == 0)
        r = look(ids, err);
    return r < 0 ? r : ha_store_keep(store, err);
}

static int no_orphan(void *context, const char *sha256)
{
    (void)context;
    (void)sha256;
    return 0;
}

/* ---- answers, and what judges make of them ------------------------------------------------- */

struct judging {
    struct ids ids;
    int64_t judge, result, worker, item;
};

static int put_judging(struct judging *j, struct ha_error *err)
{
    const struct ha_judge_row judge = {.name = "j",
                                       .settings = "{}",
                                       .eager = true,
                                       .samples = 1,
                                       .max_reasks = 1,
                                       .max_attempts = 1,
                                       .budget = 10};
    const struct ha_worker_row worker = {.judge = true,
                                         .name = "j",
                                         .key = "",
                                         .machine = "m",
                                         .instance = "i",
                                         .host = "h",
                                         .backend = "",
                                         .version = "1"};
    struct ha_stage_spec spec = {
        .kind = HA_STAGE_GENERATE, .key = name_of('e'), .model_digest = "d", .total = 1};
    int r = put_sweep(&j->ids, err);

    if (r == 0)
        r = ha_store_judge_put(store, j->ids.sweep, &judge, &j->judge, err);
    spec.sweep = j->ids.sweep;
    spec.cell = j->ids.cell;
    spec.model = j->ids.model;
    if (r == 0)
        r = ha_store_stage_attach(store, &by, &spec, &j->ids.generate, err);
    spec.kind = HA_STAGE_JUDGE;
    spec.key = name_of('f');
    spec.judge = j->judge;
    spec.parent = j->ids.generate;
    if (r == 0)
        r = ha_store_stage_attach(store, &by, &spec, &j->result, err);
    if (r == 0)
        r = ha_store_worker_put(store, &worker, &j->worker, err);
    return r < 0 ? r : 0;
}

static int keep_item(void *context, const struct ha_item_row *row)
{
    *(int64_t *)context = row->id;
    return 1;
}

static int answer_it(struct judging *j, struct ha_error *err)
{
    const struct ha_answer answer = {.result = j->ids.generate,
                                     .cell = j->ids.cell,
                                     .adapter_sha256 = "",
                                     .prompt_text = name_of('q'),
                                     .text = "answer",
                                     .raw = "answer</s>",
                                     .finish = "eos"};
    int64_t bytes = 0;
    int r = ha_store_answer_add(store, &by, &answer, &bytes, err);

    if (r == 0)
        r = ha_store_item_each_ready(store, j->judge, 1000, 1000, 1, keep_item, &j->item, err);
    if (r >= 0)
        TORTURE_CHECK(bytes > 0 && j->item > 0);
    return r < 0 ? r : 0;
}

static int score_it(const struct judging *j, struct ha_error *err)
{
    const struct ha_item_score score = {.dimension = "clarity", .reason = "why", .value = 3};
    struct ha_item_scores scores = {.scores = &score, .count = 1, .identity = "e", .repairs = "[]"};
    struct ha_call_reply reply = {.item = j->item,
                                  .http_status = 200,
                                  .raw = "raw",
                                  .raw_bytes = 3,
                                  .host = "h",
                                  .error = "",
                                  .cost = 1};
    enum ha_call_taken taken = HA_CALL_UNKNOWN;
    int64_t epoch = 0;
    int r = ha_store_item_lease(store, &by, j->item, j->worker, &epoch, err);

    if (r >= 0)
        r = ha_store_call_begin(store, j->item, epoch, j->worker, 2, 1 << 20, 1000, &reply.call,
                                err);
    if (r >= 0)
        r = ha_store_call_reply(store, &reply, 1000, &taken, err);
    if (r >= 0)
        r = ha_store_item_set_unread(store, j->item, reply.call, err);
    scores.call = reply.call;
    if (r >= 0)
        r = ha_store_item_score(store, &by, j->item, &scores, err);
    if (r >= 0)
        TORTURE_CHECK(r == 1 && taken == HA_CALL_TAKEN);
    return r < 0 ? r : ha_store_call_outcome(store, reply.call, "scored", err);
}

/* A row of the sweep is held and let go; a reference is kept and used; a norm is stored. */
static int beside(const struct judging *j, struct ha_error *err)
{
    const struct ha_hold hold = {
        .sweep = j->ids.sweep, .model = j->ids.model, .strategy = "", .reason = "because"};
    const struct ha_norm_row norm = {.result = j->ids.generate,
                                     .block = "",
                                     .module = "all",
                                     .norm = 0.5,
                                     .layers = 1,
                                     .parameters = 1,
                                     .pairs = 1};
    const struct ha_reference reference = {.name = "r", .sha256 = name_of('h'), .size = 3};
    int64_t bytes = 0;
    int r = ha_store_hold_put(store, &by, &hold, err);

    if (r >= 0)
        r = ha_store_hold_of_cell(store, j->ids.cell, NULL, NULL, err);
    if (r >= 0)
        r = (int)ha_store_hold_remove(store, &by, j->ids.sweep, j->ids.model, "", err);
    if (r >= 0)
        r = ha_store_artifact_add(store, reference.sha256, 3, 1, err);
    if (r >= 0)
        r = ha_store_reference_put(store, reference.sha256, &reference, 1000, no_orphan, NULL, err);
    if (r >= 0)
        r = ha_store_norm_put(store, &norm, err);
    if (r >= 0)
        r = ha_store_stored_bytes(store, j->ids.sweep, 0, &bytes, NULL, err);
    if (r >= 0)
        TORTURE_CHECK(bytes > HA_ROW_CALL + 3 + HA_ROW_SCORE + 3 + HA_ROW_ITEM + HA_ROW_CELL);
    return r < 0 ? r : 0;
}

static int judged_changes(struct ids *ids, struct ha_error *err)
{
    struct judging j = {0};
    int r = put_judging(&j, err);

    (void)ids;
    if (r == 0)
        r = answer_it(&j, err);
    if (r == 0)
        r = score_it(&j, err);
    return r < 0 ? r : beside(&j, err);
}

/* ---- turns -------------------------------------------------------------------------------- */

static int turn_of(int (*what)(struct ids *ids, struct ha_error *err), struct ha_error *err)
{
    struct ids ids = {0};
    int r = ha_store_begin(store, err);

    if (r == 0) {
        r = what(&ids, err);
        if (r == 0)
            r = ha_store_commit(store, err);
        if (r < 0)
            ha_store_rollback(store);
    }
    return r;
}

/* From a submit to the end of a job. */
static int prepared_turn(struct ha_error *err)
{
    need_store();
    return turn_of(changes, err);
}

/* From a submit to a score. */
static int judged_turn(struct ha_error *err)
{
    need_store();
    return turn_of(judged_changes, err);
}

static void close_store(void)
{
    torture_pause();
    ha_store_close(store);
    store = NULL;
    torture_resume();
}

/* Every statement is prepared anew. */
static int first_turn(struct ha_error *err)
{
    int r;

    need_store();
    r = turn_of(changes, err);
    torture_pause();
    store_goes_on();
    torture_resume();
    close_store();
    return r;
}

static int open_again(struct ha_error *err)
{
    int r;

    close_store();
    r = ha_store_open(path(), &store, err);
    torture_pause();
    if (r == 0)
        ha_store_close(store);
    store = NULL;
    torture_resume();
    return r;
}

/* Made by no more than what a failed opening left. */
static int open_new(struct ha_error *err)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char file[256];
    int r;

    torture_pause();
    for (int i = 0; i < 4; i++) {
        (void)snprintf(file, sizeof file, "%s%s", torture_path("new.db"), ends[i]);
        (void)unlink(file);
    }
    torture_resume();
    r = ha_store_open(torture_path("new.db"), &store, err);
    torture_pause();
    if (r < 0)
        TORTURE_CHECK(ha_store_open(torture_path("new.db"), &store, NULL) == 0);
    number++;
    store_goes_on();
    ha_store_close(store);
    store = NULL;
    torture_resume();
    return r;
}

static void store_is_sound(void)
{
    struct ha_error err = {0};

    need_store();
    if (ha_store_check(store, &err) < 0)
        printf("# %s\n", err.text);
    TORTURE_CHECK(err.code == 0);
    store_goes_on();
    close_store();
}

static int whole_file(struct ha_error *err)
{
    int r;

    need_store();
    r = ha_store_check(store, err);
    close_store();
    return r;
}

/* A copy of it: made, read through, looked into. */
static int copy(struct ha_error *err)
{
    struct ha_store_copy *making = NULL;
    struct ha_store *read = NULL;
    struct ha_store_facts facts;
    int r;

    need_store();
    r = ha_store_copy_begin(store, torture_path("copy.db"), &making, err);
    while (r == 0)
        r = ha_store_copy_step(making, 0, err);
    ha_store_copy_end(making);
    if (r > 0)
        r = ha_store_open_copy(torture_path("copy.db"), &read, err);
    if (r == 0)
        r = ha_store_check_whole(read, err);
    if (r == 0)
        r = ha_store_facts(read, &facts, err);
    if (read)
        ha_store_close(read);
    return r;
}

/* Everything that may be removed is found and dropped; the turn is then taken back. */
static int collect(struct ha_error *err)
{
    int64_t found = 0;
    int r;

    need_store();
    r = ha_store_begin(store, err);
    if (r == 0)
        r = ha_store_artifact_add(store, name_of('g'), 3, 1, err);
    for (int kind = 0; r >= 0 && kind < HA_GC_KINDS; kind++) {
        struct ha_gc_thing thing = {.key = ""};

        while ((r = ha_store_gc_next(store, (enum ha_gc_kind)kind, thing.key, INT64_MAX, &thing,
                                     err)) == 1) {
            r = ha_store_gc_drop(store, (enum ha_gc_kind)kind, &thing, no_orphan, NULL, err);
            if (r < 0)
                break;
            found++;
        }
    }
    if (r >= 0)
        TORTURE_CHECK(found > 0);
    ha_store_rollback(store);
    return r < 0 ? r : 0;
}

int main(void)
{
    static const struct torture_scenario scenarios[] = {
        {"store: a turn", prepared_turn, store_goes_on},
        {"store: a turn of judges", judged_turn, store_goes_on},
        {"store: a first turn", first_turn, NULL},
        {"store: the check", whole_file, NULL},
        {"store: opening again", open_again, store_is_sound},
        {"store: making a new one", open_new, NULL},
        {"store: a copy", copy, store_goes_on},
        {"store: what nothing needs", collect, store_goes_on},
    };
    int r = torture_run(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), POINTS);

    store_is_sound();
    return r;
}
