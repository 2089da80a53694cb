/* simulate - the coordinator's policy over a cluster that fails, on a simulated clock (world.h) */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/arguments.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "tests/sim/world.h"

enum { MESSAGES = 64, STUCK_MS = 24 * 3600000 };

static const struct ha_option options[] = {
    {"workers", "N", "default 50"},
    {"jobs", "N", "default 2000"},
    {"sweeps", "N", "default 8"},
    {"seed", "N", "default 1"},
    {"check-every", "N",
     "steps between two checks of everything; what a step touched is checked "
     "after every step; default 1"},
};

static const struct ha_command command = {
    .name = "simulate",
    .synopsis = "",
    .summary = "Drive the coordinator's plans over simulated workers that fail; check everything.",
    .example = "simulate --workers 10000 --jobs 1000000 --sweeps 64 --check-every 100000",
    .options = options,
    .n_options = sizeof options / sizeof *options,
};

/* After a pause of the coordinator's own, silence proves nothing. */
static void begin_turn(struct sim *s, int64_t at_ms)
{
    s->now_ms = at_ms > s->now_ms ? at_ms : s->now_ms;
    if (s->now_ms < s->frozen_until_ms)
        s->now_ms = s->listens_ms = s->frozen_until_ms;
    if (!ha_lease_renew(&s->rules, s->turn_ended_ms, s->now_ms))
        return;
    for (int64_t w = 0; w < s->options.workers; w++)
        if (!s->workers[w].lost)
            s->workers[w].heard_ms = s->now_ms;
}

static void step(struct sim *s, const struct sim_event *event)
{
    sim_handle(s, event);
    s->counts.steps++;
    if (event->worker >= 0)
        sim_check_worker(s, event->worker);
    if (event->kind == SIM_RUNS || event->kind == SIM_ENDS || event->kind == SIM_STOPS ||
        event->kind == SIM_DUE || event->kind == SIM_PERSON || event->kind == SIM_PART ||
        event->kind == SIM_LATE || event->kind == SIM_JUDGED)
        sim_check_job(s, event->subject);
    if (s->counts.steps % s->options.check_every == 0)
        sim_check_all(s);
}

/* As the server's loop: what is waiting, up to a bound, then a plan. */
static void turn(struct sim *s)
{
    int64_t end_ms = s->now_ms + SIM_TURN_MS;
    struct sim_event event;
    int count = 0;

    while (count < MESSAGES && s->event_count > 0 && s->events[0].at_ms <= end_ms) {
        sim_next_event(s, &event);
        if (event.at_ms > s->now_ms)
            s->now_ms = event.at_ms;
        step(s, &event);
        count++;
    }
    if (s->changed)
        sim_plan(s);
    s->turn_ended_ms = s->now_ms;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print(struct sim *s, int64_t wall_ns)
{
    struct sim_counts *c = &s->counts;
    double seconds = (double)wall_ns / 1e9;

    qsort(c->plan_times, (size_t)c->plans, sizeof(int64_t), compare);
    printf("workers %" PRId64 "  jobs %" PRId64 "  sweeps %" PRId64 "  seed %" PRIu64
           "  simulated %.1f h, 99 %% within %.2f h\n",
           s->options.workers, s->options.jobs, s->options.sweeps, s->options.seed,
           (double)s->now_ms / 3600000, (double)c->mostly_ms / 3600000);
    printf("granted %" PRId64 "  joined %" PRId64 "  done %" PRId64 "  failed %" PRId64
           "  crashed %" PRId64 "  lost %" PRId64 "  back %" PRId64 "  stale %" PRId64
           "  split %" PRId64 "  stopped %" PRId64 "  restarts %" PRId64 "\n",
           c->granted, c->joined, c->done, c->failed, c->crashed, c->lost, c->returned, c->stale,
           c->split, c->stopped, c->restarts);
    printf("gangs %" PRId64 " (answer %" PRId64 ", probe %" PRId64 ")  longest wait of one %.1f min"
           "  probes %" PRId64 "  longest wait of a job %.1f min\n",
           c->gangs, c->gang_answers, c->gang_probes, (double)c->gang_wait_ms / 60000, c->probes,
           (double)c->wait_ms / 60000);
    printf("plans %" PRId64 "  p50 %.1f us  p99 %.1f us  longest %.2f ms\n", c->plans,
           (double)c->plan_times[c->plans / 2] / 1e3,
           (double)c->plan_times[c->plans * 99 / 100] / 1e3,
           (double)c->plan_times[c->plans - 1] / 1e6);
    printf("steps %" PRId64 " in %.2f s: %.0f steps/s\n", c->steps, seconds,
           (double)c->steps / seconds);
}

static int run(const struct sim_options *o)
{
    struct sim *s = sim_create(o);
    int64_t begin_ns = ha_clock_work_ns(), open, since_ms = 0;

    if (!s)
        return 1;
    open = s->open;
    while (s->open > 0 && s->event_count > 0) {
        begin_turn(s, s->events[0].at_ms);
        turn(s);
        if (s->open < open)
            since_ms = s->now_ms;
        open = s->open;
        if (s->counts.mostly_ms == 0 && open <= s->options.jobs / 100)
            s->counts.mostly_ms = s->now_ms;
        if (s->now_ms - since_ms > STUCK_MS)
            sim_fail(s, "%" PRId64 " jobs are stuck", s->open);
    }
    sim_check_all(s);
    if (s->open > 0)
        sim_fail(s, "%" PRId64 " jobs are stuck", s->open);
    print(s, ha_clock_work_ns() - begin_ns);
    sim_destroy(s);
    return 0;
}

int main(int argc, char **argv)
{
    struct sim_options o;
    struct ha_arguments *arguments;
    struct ha_error err = {0};
    int64_t seed;
    int status = 2;

    if (ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err) < 0) {
        fprintf(stderr, "%s\n", ha_error_text(&err));
        return 2;
    }
    if (ha_arguments_help(arguments)) {
        ha_command_print_help(&command);
        status = 0;
    } else if (ha_arguments_int(arguments, "workers", 8, 50, &o.workers, &err) < 0 ||
               ha_arguments_int(arguments, "jobs", 2, 2000, &o.jobs, &err) < 0 ||
               ha_arguments_int(arguments, "sweeps", 1, 8, &o.sweeps, &err) < 0 ||
               ha_arguments_int(arguments, "seed", 0, 1, &seed, &err) < 0 ||
               ha_arguments_int(arguments, "check-every", 1, 1, &o.check_every, &err) < 0) {
        fprintf(stderr, "%s\n", ha_error_text(&err));
    } else {
        o.seed = (uint64_t)seed;
        status = run(&o);
    }
    ha_arguments_destroy(arguments);
    return status;
}
