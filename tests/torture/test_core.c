/* coordinator/core: plans, sets of cells, job.json, differences. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/core/fuse.h"
#include "coordinator/core/job_spec.h"
#include "coordinator/core/plan.h"
#include "coordinator/core/preempt.h"
#include "coordinator/core/resubmit.h"
#include "tests/torture/torture.h"

enum { JOBS = 6 };

static const struct ha_plan_worker workers[] = {
    {.id = 1, .name = "a", .liveness = HA_ALIVE, .connected = true, .slots = 2, .devices = 2},
    {.id = 2, .name = "b", .liveness = HA_ALIVE, .connected = true, .slots = 1},
};

static int plan(struct ha_error *err)
{
    struct ha_plan_job jobs[JOBS];
    struct ha_plan_assignment out[JOBS];
    struct ha_plan_snapshot snapshot = {
        .workers = workers, .worker_count = 2, .jobs = jobs, .job_count = JOBS};
    int64_t n;

    for (int i = 0; i < JOBS; i++)
        jobs[i] = (struct ha_plan_job){.id = i + 1,
                                       .state = HA_JOB_READY,
                                       .model = i / 3,
                                       .group = i / 3 + 1,
                                       .need = {.shared = 2, .cost = 1},
                                       .reason = ""};
    n = ha_plan_make(&snapshot, 1000, out, JOBS);
    if (n < 0)
        return n == -ENOMEM ? torture_no_memory(err) : (int)n;
    TORTURE_CHECK(n > 0);
    return 0;
}

/* Everybody is busy with what may wait. */
static int preempt(struct ha_error *err)
{
    struct ha_preempt_running running[] = {{.job = 7, .worker = 1, .ran_ms = 9000},
                                           {.job = 8, .worker = 1, .ran_ms = 8000},
                                           {.job = 9, .worker = 2, .ran_ms = 10}};
    struct ha_plan_worker busy[] = {workers[0], workers[1]};
    struct ha_plan_job urgent = {
        .id = 1, .state = HA_JOB_READY, .priority = 2, .group = 1, .reason = ""};
    struct ha_plan_snapshot snapshot = {
        .workers = busy, .worker_count = 2, .jobs = &urgent, .job_count = 1};
    struct ha_preempt p = {.snapshot = &snapshot,
                           .running = running,
                           .running_count = 3,
                           .min_run_ms = 1000,
                           .now_ms = 1000};
    struct ha_preempt_stop stop;
    int64_t wait_ms, n;

    busy[0].used = 2;
    busy[1].used = 1;
    n = ha_preempt_choose(&p, &stop, 1, &wait_ms);
    if (n < 0)
        return n == -ENOMEM ? torture_no_memory(err) : (int)n;
    TORTURE_CHECK(n == 1 && stop.victim == 1);
    return 0;
}

static int why(struct ha_error *err)
{
    struct ha_plan_snapshot snapshot = {.workers = workers, .worker_count = 2};
    struct ha_plan_job job = {.id = 1, .state = HA_JOB_HELD, .reason = "a person has to look"};
    struct ha_buffer text;
    enum ha_why category;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_plan_why(&snapshot, &job, 1000, &text, &category);
    if (r == 0)
        TORTURE_CHECK(strstr(ha_buffer_text(&text), "a person has to look"));
    ha_buffer_clear(&text);
    return r == -ENOMEM ? torture_no_memory(err) : r;
}

static int fuse(struct ha_error *err)
{
    struct ha_fuse_need cells[9];
    struct ha_fuse_group group = {.cells = cells, .count = 9, .mode = HA_FUSE_AUTO};
    int64_t set_of[9], sets;

    for (int i = 0; i < 9; i++)
        cells[i] = (struct ha_fuse_need){.shared = 3, .cost = 1 + i % 3};
    sets = ha_fuse_choose(&group, 3, set_of, NULL);
    if (sets < 0)
        return sets == -ENOMEM ? torture_no_memory(err) : (int)sets;
    TORTURE_CHECK(sets > 0);
    return 0;
}

static int job_spec(struct ha_error *err)
{
    static const char *const train[] = {"inputs/data/train-0.jsonl"};
    static const struct ha_spec_cell cells[] = {
        {.id = 3,
         .name = "m/mid",
         .layers = "2-4,7",
         .settings = "{\"train\": {\"beta\": 0.1}, \"data\": {\"seed\": 1}}",
         .checkpoint = "inputs/checkpoint/3"},
        {.id = 4, .name = "m/own", .layers = "1", .settings = "{\"train\": {\"beta\": 0.2}}"},
    };
    static const struct ha_spec_skip skip[] = {{3, 1, 0}, {3, 2, 0}, {4, 0, 0}};
    struct ha_spec spec = {.kind = HA_STAGE_TRAIN,
                           .sweep = "s",
                           .job = 12,
                           .model_name = "m",
                           .model_path = "/models/m",
                           .hub_id = "",
                           .prompt_template = "hh",
                           .train = train,
                           .train_count = 1,
                           .eval = train,
                           .eval_count = 1,
                           .cells = cells,
                           .cell_count = 2,
                           .skip = skip,
                           .skip_count = 3};
    char *text = NULL, *path;
    int r = ha_spec_json(&spec, &text, err);

    if (r < 0)
        return r;
    TORTURE_CHECK(strstr(text, "m/own"));
    free(text);
    path = ha_spec_data_path("train", 0, "a.jsonl");
    if (!path)
        return torture_no_memory(err);
    free(path);
    return 0;
}

static int differences(struct ha_error *err)
{
    static const struct ha_resubmit_cell before = {.settings = "{\"train\": {\"beta\": 0.1}}",
                                                   .layers = "1",
                                                   .model_digest = "d",
                                                   .tokenizer_digest = "t",
                                                   .data_digest = "x"};
    struct ha_resubmit_cell after = before;
    struct ha_buffer text;
    int r;

    after.settings = "{\"train\": {\"beta\": 0.5}}";
    ha_buffer_init(&text, 0);
    r = ha_resubmit_difference(&before, &after, &text, err);
    if (r == 0)
        r = ha_resubmit_judge_difference("judge.j", "{\"model\": \"a\"}", "{\"model\": \"b\"}",
                                         &text, err);
    if (r == 0)
        TORTURE_CHECK(strstr(ha_buffer_text(&text), "train.beta"));
    ha_buffer_clear(&text);
    return r;
}

int main(void)
{
    static const struct torture_scenario scenarios[] = {
        {"core: a plan", plan, NULL},
        {"core: who makes room", preempt, NULL},
        {"core: why a job waits", why, NULL},
        {"core: sets of cells", fuse, NULL},
        {"core: job.json", job_spec, NULL},
        {"core: what differs between two grids", differences, NULL},
    };

    return torture_run(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), INT64_MAX);
}
