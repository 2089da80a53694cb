#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

enum { FAIL_MS = 1800000 /* the first failures, and the submits */ };

/* ---- chance ------------------------------------------------------------------------------ */

uint64_t sim_random(struct sim *s, uint64_t below)
{
    uint64_t x = s->random += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % below;
}

bool sim_chance(struct sim *s, uint64_t per_million)
{
    return sim_random(s, 1000000) < per_million;
}

/* ---- events: a heap by time, then by order ------------------------------------------------- */

static bool sooner(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

void sim_at(struct sim *s, int64_t at_ms, enum sim_kind kind, int32_t worker, int32_t subject,
            int32_t number)
{
    struct sim_event event = {.at_ms = at_ms > s->now_ms ? at_ms : s->now_ms,
                              .order = s->order++,
                              .kind = (int32_t)kind,
                              .worker = worker,
                              .subject = subject,
                              .instance = worker < 0 ? 0 : s->workers[worker].instance,
                              .number = number};
    void *array = s->events;
    int64_t at = s->event_count;

    if (ha_grow(&array, &s->event_capacity, s->event_count + 1, sizeof *s->events) < 0)
        sim_fail(s, "no memory for events");
    s->events = array;
    s->event_count++;
    for (; at > 0 && sooner(&event, &s->events[(at - 1) / 2]); at = (at - 1) / 2)
        s->events[at] = s->events[(at - 1) / 2];
    s->events[at] = event;
}

bool sim_next_event(struct sim *s, struct sim_event *ret_event)
{
    struct sim_event last;
    int64_t at = 0;

    if (s->event_count == 0)
        return false;
    *ret_event = s->events[0];
    last = s->events[--s->event_count];
    for (;;) {
        int64_t child = 2 * at + 1;

        if (child >= s->event_count)
            break;
        if (child + 1 < s->event_count && sooner(&s->events[child + 1], &s->events[child]))
            child++;
        if (!sooner(&s->events[child], &last))
            break;
        s->events[at] = s->events[child];
        at = child;
    }
    s->events[at] = last;
    return true;
}

/* ---- ready jobs: bits, and bits for words of bits -------------------------------------------- */

static void set_ready(struct sim *s, int32_t job, bool ready)
{
    uint64_t *word = &s->ready[job / 64], *above = &s->summary[job / 4096];

    if (ready)
        *word |= 1ull << (job % 64);
    else
        *word &= ~(1ull << (job % 64));
    if (*word)
        *above |= 1ull << (job / 64 % 64);
    else
        *above &= ~(1ull << (job / 64 % 64));
}

int32_t sim_next_ready(const struct sim *s, int32_t from)
{
    int64_t word = from / 64, above;
    uint64_t bits;

    if (from >= s->options.jobs)
        return -1;
    bits = s->ready[word] >> (from % 64) << (from % 64);
    if (bits)
        return (int32_t)(word * 64 + __builtin_ctzll(bits));
    word++;
    if (word >= s->ready_words)
        return -1;
    above = word / 64;
    bits = s->summary[above] >> (word % 64) << (word % 64);
    while (!bits && ++above < s->summary_words)
        bits = s->summary[above];
    if (!bits)
        return -1;
    word = above * 64 + __builtin_ctzll(bits);
    return (int32_t)(word * 64 + __builtin_ctzll(s->ready[word]));
}

void sim_mark_ready(struct sim *s, int32_t job)
{
    struct sim_job *j = &s->jobs[job];

    if (j->state != HA_JOB_READY || j->whole >= 0)
        return;
    if (j->not_before_ms > s->now_ms) {
        sim_at(s, j->not_before_ms, SIM_DUE, -1, job, j->attempts);
        return;
    }
    j->ready_ms = s->now_ms;
    set_ready(s, job, true);
    s->changed = true;
}

void sim_hide(struct sim *s, int32_t job)
{
    set_ready(s, job, false);
}

void sim_touch(struct sim *s, int32_t worker)
{
    const struct sim_worker *w = &s->workers[worker];
    bool is_free = !w->lost && w->connected && w->used < w->slots;

    s->free[worker / 64] &= ~(1ull << (worker % 64));
    s->free[worker / 64] |= (uint64_t)is_free << (worker % 64);
}

void sim_set_state(struct sim *s, int32_t job, enum ha_job_state state)
{
    struct sim_job *j = &s->jobs[job];
    struct sim_sweep *sweep = &s->sweeps[j->sweep];

    if (!ha_job_may((enum ha_job_state)j->state, state))
        sim_fail(s, "job %d goes from %s to %s", job,
                 ha_job_state_name((enum ha_job_state)j->state), ha_job_state_name(state));
    if (j->state == HA_JOB_READY)
        set_ready(s, job, false);
    j->state = (uint8_t)state;
    if (state == HA_JOB_READY)
        sim_mark_ready(s, job);
    if (!ha_job_final(state))
        return;
    s->open--;
    if (j->kind == HA_STAGE_TRAIN)
        sweep->open_train[j->model]--;
    s->changed = true;
}

/* ---- making it ------------------------------------------------------------------------------- */

static void make_fits(struct sim *s)
{
    s->fits[0] = (struct ha_fit){.labels = ""};
    s->fits[1] = (struct ha_fit){.gpus = 1, .labels = ""};
    s->fits[2] = (struct ha_fit){.gpus = 1, .gpu_memory_bytes = 40ll << 30, .labels = ""};
    s->fits[3] = (struct ha_fit){.labels = "big\n", .memory_bytes = 8ll << 30};
    s->fits[4] = s->fits[1];
    s->fits[4].nodes = 2;
    s->fits[5] = s->fits[2];
    s->fits[5].nodes = 4;
}

static void make_worker(struct sim *s, int32_t w)
{
    struct sim_worker *worker = &s->workers[w];
    bool gpu = w % 4 != 3, big = w % 8 < 3;

    snprintf(worker->name, sizeof worker->name, "w%d", w);
    worker->slots = 1 + (int64_t)sim_random(s, gpu ? 4 : 2);
    worker->devices = gpu ? worker->slots : 1;
    worker->memory_bytes = w % 8 == 7 ? 0 : (gpu ? big ? 80ll : 24ll : 16ll) << 30;
    if (w % 10 != 9) {
        worker->train_speed = (gpu ? 1e14 : 3e13) * (1 + 0.01 * (double)sim_random(s, 300));
        worker->generate_speed = worker->train_speed / 3;
    }
    worker->offer = (struct ha_fit){.labels = big ? "big\nrack2\n" : "rack1\n",
                                    .cpus = 8,
                                    .memory_bytes = 64ll << 30,
                                    .gpus = gpu,
                                    .gpu_memory_bytes = gpu ? worker->memory_bytes : 0};
    worker->island = gpu ? 1 + big : 3 + w; /* GPUs of one kind; a CPU's machine */
    worker->connected = true;
    sim_touch(s, w);
    if (w <= 3) /* the first few are healthy, so that the end comes */
        return;
    sim_at(s, (int64_t)sim_random(s, FAIL_MS), SIM_DIES, w, 0, 0);
    sim_at(s, (int64_t)sim_random(s, FAIL_MS), SIM_CUT, w, 0, 0);
    if (sim_chance(s, 50000))
        sim_at(s, (int64_t)sim_random(s, FAIL_MS), SIM_DRAIN, w, 0, 0);
}

const struct ha_fit *sim_fit(const struct sim *s, int32_t job)
{
    const struct sim_sweep *sweep = &s->sweeps[s->jobs[job].sweep];

    return s->jobs[job].kind == HA_STAGE_GENERATE ? sweep->fit : sweep->train_fit;
}

/* One of the trainings waits for a probe of the model, which has the place of another. */
static void make_probe(struct sim *s, int32_t first, int32_t pairs)
{
    s->jobs[first].kind = HA_STAGE_PROBE;
    s->jobs[first + pairs].kind = HA_STAGE_TRAIN;
}

/* Cell by cell of a model: first its trainings, then the answers that wait for them. */
static void make_cells(struct sim *s, struct sim_sweep *sweep, int32_t number, int32_t model,
                       int32_t first, int32_t pairs, bool probes)
{
    /* So that eight to hundreds of them are what a GPU has room for. */
    int64_t adapter_bytes = (int64_t)(1 + sim_random(s, 8)) << 28;

    for (int32_t i = 0; i < 2 * pairs; i++) {
        bool train = i < pairs;
        double cost = 5e15 * (1 + 0.1 * (double)sim_random(s, 30));

        s->jobs[first + i] = (struct sim_job){
            .sweep = number,
            .model = model,
            .child = train ? first + i + pairs : -1,
            .whole = -1,
            .next = -1,
            .worker = -1,
            .kind = train ? HA_STAGE_TRAIN : HA_STAGE_GENERATE,
            .waits = !train,
            .state = HA_JOB_WAITING,
            .attempt = HA_ATTEMPT_STATE_ENDED,
            .need = {.shared = train ? cost / 3 : cost / 30,
                     .cost = train ? cost : cost / 2,
                     .shared_bytes = (2 + model) * (1ll << 30),
                     .pass_bytes = 1ll << 30,
                     .bytes = adapter_bytes},
        };
    }
    if (probes && pairs > 0)
        make_probe(s, first, pairs);
    sweep->open_train[model] = pairs;
}

static void make_sweep(struct sim *s, int32_t number, int32_t first, int32_t count)
{
    struct sim_sweep *sweep = &s->sweeps[number];
    int32_t models = 1 + (int32_t)sim_random(s, SIM_MODELS), done = 0;
    bool probes = sim_chance(s, 300000);

    *sweep =
        (struct sim_sweep){.first = first,
                           .count = count,
                           .priority = sim_chance(s, 500000) ? (int64_t)sim_random(s, 3) : 0,
                           .fit = &s->fits[sim_random(s, SIM_FITS - SIM_GANGS)],
                           .fuse = (enum ha_fuse_mode)sim_random(s, HA_FUSE_MODES),
                           .policy = {.max_attempts = 3, .wait_when_lost = sim_chance(s, 100000)}};
    sweep->train_fit = sweep->fit;
    if (sim_chance(s, 400000)) {
        int64_t which = (int64_t)sim_random(s, SIM_GANGS);

        sweep->train_fit = &s->fits[SIM_FITS - SIM_GANGS + which];
        sweep->fit = sim_chance(s, 500000) ? sweep->train_fit : &s->fits[1 + which];
    }
    for (int32_t m = 0; m < models; m++) {
        int32_t pairs = (m == models - 1 ? count / 2 - done : count / 2 / models);

        make_cells(s, sweep, number, m, first + 2 * done, pairs, probes);
        done += pairs;
    }
    sim_at(s, number < 2 ? 0 : (int64_t)sim_random(s, FAIL_MS), SIM_SUBMIT, -1, number, 0);
}

static bool allocate(struct sim *s)
{
    const struct sim_options *o = &s->options;

    s->ready_words = o->jobs / 64 + 1;
    s->summary_words = s->ready_words / 64 + 1;
    s->jobs = ha_calloc(o->jobs, sizeof *s->jobs);
    s->workers = ha_calloc(o->workers, sizeof *s->workers);
    s->sweeps = ha_calloc(o->sweeps, sizeof *s->sweeps);
    s->ready = ha_calloc(s->ready_words, sizeof *s->ready);
    s->summary = ha_calloc(s->summary_words, sizeof *s->summary);
    s->free = ha_calloc(o->workers / 64 + 1, sizeof *s->free);
    s->plan_workers = ha_calloc(o->workers, sizeof *s->plan_workers);
    return s->jobs && s->workers && s->sweeps && s->ready && s->summary && s->free &&
           s->plan_workers;
}

struct sim *sim_create(const struct sim_options *options)
{
    struct sim *s = ha_calloc(1, sizeof *s);
    int32_t each = (int32_t)(options->jobs / options->sweeps / 2 * 2), first = 0;

    if (!s)
        return NULL;
    s->options = *options;
    s->options.jobs = (int64_t)each * options->sweeps;
    s->random = options->seed;
    s->rules = (struct ha_lease_rules){.heartbeat_ms = 5000, .late_ms = 15000, .lost_ms = 60000};
    if (!allocate(s)) {
        sim_destroy(s);
        return NULL;
    }
    make_fits(s);
    for (int32_t w = 0; w < options->workers; w++)
        make_worker(s, w);
    for (int32_t i = 0; i < options->sweeps; i++, first += each)
        make_sweep(s, i, first, each);
    s->open = s->options.jobs;
    sim_at(s, s->rules.heartbeat_ms / 2, SIM_TICK, -1, 0, 0);
    sim_at(s, 300000 + (int64_t)sim_random(s, 600000), SIM_RESTART, -1, 0, 0);
    sim_at(s, 300000 + (int64_t)sim_random(s, 600000), SIM_FREEZE, -1, 0, 0);
    sim_at(s, 100000 + (int64_t)sim_random(s, 100000), SIM_PAUSE, -1, 0, 0);
    return s;
}

void sim_destroy(struct sim *s)
{
    if (!s)
        return;
    for (int64_t j = 0; s->jobs && j < s->options.jobs; j++)
        free(s->jobs[j].gang);
    free(s->jobs);
    free(s->workers);
    free(s->sweeps);
    free(s->ready);
    free(s->summary);
    free(s->free);
    free(s->plan_workers);
    free(s->events);
    free(s->counts.plan_times);
    free(s);
}
