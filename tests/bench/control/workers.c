#include "tests/bench/control/workers.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"

enum { BEAT_EVERY_MS = 10, CONNECTING = 100 /* hellos without an answer */ };

struct job {
    uint64_t job, cell;
    struct ha_wire_epoch epoch;
    bool train, busy;
    int64_t reported_ns;
    struct ha_child child;
    struct ha_loop_timer *timer;
    struct worker *worker;
};

struct worker {
    struct workers *all;
    struct bench_peer peer;
    struct job *jobs; /* a place for each slot */
    int64_t *free_ns; /* when slots became free, oldest first */
    int64_t n_free;
    int64_t beat_at_ms;
    int64_t beat_ms, rest_ms; /* as it was told: from beat to beat, and with nothing to do */
    bool greeted, started;
    char name[24];
};

struct workers {
    struct bench_network *network;
    struct workers_options options;
    struct worker *items;
    int64_t greeted, done, wanted;
    struct ha_loop_timer *beat;
    struct bench_times dispatch, completion;
};

/* ---- a job ----------------------------------------------------------------------------------- */

static int64_t report_events(const struct job *job, struct ha_wire_attempt_event events[3])
{
    int64_t n = 0;

    if (job->train)
        events[n++] =
            (struct ha_wire_attempt_event){.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                           .event.artifact = {.cell = job->cell,
                                                              .kind = "adapter",
                                                              .name = "adapter_model.safetensors",
                                                              .sha256 = bench_blob(),
                                                              .size = 24}};
    events[n++] = (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = job->cell, .done = true, .summary_json = "{\"seconds\":1}"}};
    events[n++] = (struct ha_wire_attempt_event){.kind = HA_WIRE_ATTEMPT_EVENT_END,
                                                 .event.end = {.outcome = "done"}};
    return n;
}

static void finish(struct job *job)
{
    struct worker *worker = job->worker;
    struct ha_wire_attempt_event events[3];
    struct ha_wire_message message = {
        .kind = HA_WIRE_REPORT,
        .body.report = {.job = job->job, .epoch = job->epoch, .sequence = 1, .events = events}};

    message.body.report.n_events = report_events(job, events);
    job->reported_ns = ha_clock_work_ns();
    worker->free_ns[worker->n_free++] = job->reported_ns;
    bench_peer_send(&worker->peer, &message);
}

static void on_timer(void *context)
{
    finish(context);
}

/* Of a worker's first job: the jobs of all workers end evenly over their time from then on, not
 * all at once. */
static int64_t head_start_ms(struct worker *worker)
{
    struct workers *w = worker->all;
    int64_t index = worker - w->items;

    if (worker->started)
        return 0;
    worker->started = true;
    return w->options.run_ms * index / w->options.workers;
}

static void start(struct job *job)
{
    const struct workers_options *o = &job->worker->all->options;
    static const char *const arguments[] = {"true", NULL};
    struct ha_error err = {0};
    char *log;

    if (o->spawn_dir) {
        log = ha_format("%s/%" PRIu64 ".log", o->spawn_dir, job->job);
        if (!log || ha_child_spawn(&(struct ha_spawn_options){.program = "/bin/true",
                                                              .arguments = arguments,
                                                              .log_path = log,
                                                              .own_group = true},
                                   &job->child, &err) < 0)
            bench_die("%s", ha_error_text(&err));
        free(log);
    } else if (o->run_ms > 0) {
        if (!job->timer && ha_loop_timer_create(job->worker->all->network->loop, on_timer, job,
                                                &job->timer, &err) < 0)
            bench_die("%s", ha_error_text(&err));
        ha_loop_timer_set_after(job->timer, o->run_ms - head_start_ms(job->worker));
    }
}

static struct job *job_of(struct workers *w, pid_t pid)
{
    for (int64_t i = 0; i < w->options.workers; i++)
        for (int64_t k = 0; k < w->options.slots; k++)
            if (w->items[i].jobs[k].child.pid == pid)
                return &w->items[i].jobs[k];
    bench_die("a process ended that nobody started");
}

/* One signal may be of several processes. */
static void on_child(void *context, int number)
{
    struct workers *w = context;
    siginfo_t info = {0};

    (void)number;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        struct job *job = job_of(w, info.si_pid);
        int status;

        if (!ha_child_poll(&job->child, &status))
            bench_die("a process that ended cannot be reaped");
        ha_child_close(&job->child);
        finish(job);
        info.si_pid = 0;
    }
}

/* The first cell's id, of a text that begins its list of cells with it. */
static uint64_t cell_of(const char *spec)
{
    struct ha_json *json = NULL;
    int64_t cell;

    if (ha_json_parse(spec, strlen(spec), "spec", &json, NULL) < 0)
        bench_die("job.json cannot be read");
    cell = ha_json_int(ha_json_get(ha_json_at(ha_json_get(json, "cells"), 0), "id"), 0);
    ha_json_destroy(json);
    return (uint64_t)cell;
}

static void on_grant(struct worker *worker, const struct ha_wire_grant *grant)
{
    struct workers *w = worker->all;
    int64_t now_ns = ha_clock_work_ns();
    struct job *job = NULL;

    for (int64_t k = 0; !job && k < w->options.slots; k++)
        job = worker->jobs[k].busy ? NULL : &worker->jobs[k];
    if (!job)
        bench_die("worker %s got more jobs than it has slots", worker->name);
    job->job = grant->job;
    job->epoch = grant->epoch;
    job->cell = cell_of(grant->spec_json);
    job->train = strcmp(grant->kind, "train") == 0;
    job->busy = true;
    start(job);
    if (worker->n_free > 0) {
        if (w->options.spawn_dir)
            now_ns = ha_clock_work_ns();
        bench_times_add(&w->dispatch, now_ns - worker->free_ns[0]);
        memmove(worker->free_ns, worker->free_ns + 1, (size_t)--worker->n_free * sizeof(int64_t));
    }
    if (!w->options.spawn_dir && w->options.run_ms == 0)
        finish(job);
}

static void on_acknowledged(struct worker *worker, const struct ha_wire_report_reply *reply)
{
    struct workers *w = worker->all;

    for (int64_t k = 0; k < w->options.slots; k++) {
        struct job *job = &worker->jobs[k];

        if (!job->busy || job->job != reply->job || job->reported_ns == 0)
            continue;
        if (reply->stale || reply->n_missing > 0 || reply->sequence != 1)
            bench_die("the report of job %" PRIu64 " was not taken", job->job);
        bench_times_add(&w->completion, ha_clock_work_ns() - job->reported_ns);
        job->busy = false;
        job->reported_ns = 0;
        w->done++;
        return;
    }
    bench_die("an acknowledgement of job %" PRIu64 ", which nobody reported", reply->job);
}

static void on_message(void *context, const struct ha_wire_message *message)
{
    struct worker *worker = context;

    switch (message->kind) {
    case HA_WIRE_HELLO_REPLY:
        worker->greeted = true;
        worker->beat_ms = message->body.hello_reply.heartbeat_ms;
        worker->all->greeted++;
        break;
    case HA_WIRE_HEARTBEAT_REPLY:
        worker->rest_ms = message->body.heartbeat_reply.rest_ms;
        break;
    case HA_WIRE_GRANT:
        on_grant(worker, &message->body.grant);
        break;
    case HA_WIRE_REPORT_REPLY:
        on_acknowledged(worker, &message->body.report_reply);
        break;
    case HA_WIRE_ERROR:
        bench_die("worker %s: %s", worker->name, message->body.error.text);
    default:
        break;
    }
}

/* ---- heartbeats -------------------------------------------------------------------------------
 */

static bool is_busy(const struct worker *worker)
{
    for (int64_t k = 0; k < worker->all->options.slots; k++)
        if (worker->jobs[k].busy)
            return true;
    return false;
}

static void beat(struct worker *worker)
{
    struct ha_wire_running running[64];
    struct ha_wire_message message = {.kind = HA_WIRE_HEARTBEAT,
                                      .body.heartbeat = {.running = running}};
    struct ha_wire_heartbeat *body = &message.body.heartbeat;

    for (int64_t k = 0; k < worker->all->options.slots && body->n_running < 64; k++) {
        const struct job *job = &worker->jobs[k];

        if (job->busy && job->reported_ns == 0)
            running[body->n_running++] = (struct ha_wire_running){
                .job = job->job, .epoch = job->epoch, .phase = "step", .step = 1, .steps = 2};
    }
    bench_peer_send(&worker->peer, &message);
}

static void on_beat(void *context)
{
    struct workers *w = context;
    int64_t now_ms = ha_loop_now_ms(w->network->loop);

    for (int64_t i = 0; i < w->options.workers; i++) {
        struct worker *worker = &w->items[i];

        if (now_ms < worker->beat_at_ms)
            continue;
        worker->beat_at_ms +=
            worker->rest_ms > 0 && !is_busy(worker) ? worker->rest_ms : worker->beat_ms;
        beat(worker);
    }
    ha_loop_timer_set_after(w->beat, BEAT_EVERY_MS);
}

/* ---- all of them ------------------------------------------------------------------------------
 */

static void open_worker(struct workers *w, int64_t i)
{
    struct worker *worker = &w->items[i];
    struct ha_wire_message hello = {.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = worker->name,
                                                   .instance = "bench",
                                                   .machine = "bench",
                                                   .version = HA_VERSION,
                                                   .slots = (uint32_t)w->options.slots,
                                                   .backend = "null",
                                                   .host = "bench"}};

    worker->all = w;
    worker->jobs = ha_calloc(w->options.slots, sizeof *worker->jobs);
    worker->free_ns = ha_calloc(w->options.slots, sizeof *worker->free_ns);
    if (!worker->jobs || !worker->free_ns)
        bench_die("no memory");
    for (int64_t k = 0; k < w->options.slots; k++)
        worker->jobs[k].worker = worker;
    snprintf(worker->name, sizeof worker->name, "light-%" PRId64, i);
    bench_peer_open(&worker->peer, w->network, w->network->endpoint, on_message, worker);
    bench_peer_send(&worker->peer, &hello);
}

static void turn(struct workers *w, int64_t wait_ms)
{
    struct ha_error err = {0};

    if (ha_loop_turn(w->network->loop, wait_ms, &err) < 0)
        bench_die("%s", ha_error_text(&err));
}

struct workers *workers_open(struct bench_network *network, const struct workers_options *options)
{
    struct workers *w = ha_calloc(1, sizeof *w);
    struct ha_error err = {0};

    if (!w)
        bench_die("no memory");
    w->network = network;
    w->options = *options;
    w->items = ha_calloc(options->workers, sizeof *w->items);
    if (!w->items || ha_loop_timer_create(network->loop, on_beat, w, &w->beat, &err) < 0)
        bench_die("no memory");
    if (options->spawn_dir && ha_loop_on_signal(network->loop, SIGCHLD, on_child, w, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    for (int64_t i = 0; i < options->workers; i++) {
        open_worker(w, i);
        while (i - w->greeted >= CONNECTING)
            turn(w, 100);
    }
    while (w->greeted < options->workers)
        turn(w, 100);
    /* Evenly over the period. */
    for (int64_t i = 0; i < options->workers; i++)
        w->items[i].beat_at_ms =
            ha_loop_now_ms(network->loop) + i * w->items[i].beat_ms / options->workers;
    ha_loop_timer_set_after(w->beat, BEAT_EVERY_MS);
    return w;
}

void workers_close(struct workers *w)
{
    for (int64_t i = 0; i < w->options.workers; i++) {
        for (int64_t k = 0; k < w->options.slots; k++)
            ha_loop_timer_destroy(w->items[i].jobs[k].timer);
        bench_peer_close(&w->items[i].peer);
        free(w->items[i].jobs);
        free(w->items[i].free_ns);
    }
    ha_loop_timer_destroy(w->beat);
    bench_times_clear(&w->dispatch);
    bench_times_clear(&w->completion);
    free(w->items);
    free(w);
}

void workers_run(struct workers *w, int64_t jobs)
{
    int64_t end = w->done + jobs;

    while (w->done < end)
        turn(w, 1000);
}

void workers_idle(struct workers *w, int64_t ms)
{
    int64_t end_ms = ha_clock_boot_ms() + ms, now_ms;

    while ((now_ms = ha_clock_boot_ms()) < end_ms)
        turn(w, end_ms - now_ms);
}

struct bench_times *workers_dispatch(struct workers *w)
{
    return &w->dispatch;
}

struct bench_times *workers_completion(struct workers *w)
{
    return &w->completion;
}

void workers_forget_times(struct workers *w)
{
    bench_times_clear(&w->dispatch);
    bench_times_clear(&w->completion);
}
