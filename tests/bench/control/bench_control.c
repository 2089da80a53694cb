/* bench_control - one measurement of a running coordinator, over the real wire protocol */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arguments.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "tests/bench/control/peer.h"
#include "tests/bench/control/workers.h"

static const struct ha_option options[] = {
    {"connect", "ENDPOINT", "of the coordinator's control socket"},
    {"dir", "DIR", "fdatasync: where"},
    {"name", "NAME", "of the sweep, or what several begin with; default bench"},
    {"cells", "N", "of a sweep; default 1000"},
    {"sweeps", "N", "default 1"},
    {"pairs", NULL, "a training and the answers that wait for it in each cell; else answers only"},
    {"clients", "N", "ingest: connections that submit side by side; default 16"},
    {"workers", "N", "default 1"},
    {"slots", "N", "of each worker; default 1"},
    {"run-ms", "N", "that a job takes; default 0: it is done when it comes"},
    {"spawn", "DIR", "a job is /bin/true, its output in a file there"},
    {"pid", "N", "of the coordinator, whose processor time is told"},
    {"seconds", "N", "quiet: default 20"},
};

static const struct ha_command command = {
    .name = "bench_control",
    .synopsis = "fdatasync|hello|fill|ingest|flow|together|quiet|status|change",
    .summary = "Measure one thing; tests/bench/run.sh starts it.",
    .example = "bench_control flow --connect tcp://127.0.0.1:8470 --workers 100 --cells 20000",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_positional = 1,
    .max_positional = 1,
};

struct bench {
    const struct ha_arguments *arguments;
    const char *name, *spawn_dir;
    int64_t cells, sweeps, clients, workers, slots, run_ms, pid, seconds;
    bool pairs;
    struct bench_network network;
    struct bench_peer client;
};

static double seconds_since(int64_t begin_ns)
{
    return (double)(ha_clock_work_ns() - begin_ns) / 1e9;
}

/* Processor seconds of the coordinator until now, or 0. */
static double processor_seconds(const struct bench *b)
{
    unsigned long long user = 0, kernel = 0;
    char path[64], text[1024];
    const char *at;
    size_t n;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", b->pid);
    file = b->pid > 0 ? fopen(path, "r") : NULL;
    if (!file)
        return 0;
    n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    at = strrchr(text, ')');
    if (!at || sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                      &kernel) != 2)
        return 0;
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static struct workers *open_workers(struct bench *b)
{
    return workers_open(&b->network, &(struct workers_options){.workers = b->workers,
                                                               .slots = b->slots,
                                                               .run_ms = b->run_ms,
                                                               .spawn_dir = b->spawn_dir});
}

/* ---- ingest ---------------------------------------------------------------------------------- */

struct submitter {
    struct bench *b;
    struct bench_peer peer;
    struct bench_times *times;
    int64_t *left, *open, *next;
    int64_t sent_ns;
};

static void submit_next(struct submitter *s)
{
    struct ha_wire_message message;
    char name[64], *text;

    if (*s->left == 0)
        return;
    (*s->left)--;
    snprintf(name, sizeof name, "%s-%" PRId64, s->b->name, (*s->next)++);
    bench_submit_message(name, 1, s->b->pairs, "never", &message, &text);
    s->sent_ns = ha_clock_work_ns();
    bench_peer_send(&s->peer, &message);
    free(text);
    (*s->open)++;
}

static void on_submitted(void *context, const struct ha_wire_message *message)
{
    struct submitter *s = context;

    if (message->kind == HA_WIRE_ERROR)
        bench_die("submit: %s", message->body.error.text);
    if (message->kind == HA_WIRE_SUBMIT_REPLY) {
        bench_times_add(s->times, ha_clock_work_ns() - s->sent_ns);
        (*s->open)--;
    }
    submit_next(s);
}

/* Many small grids, from several clients at once. */
static void submit_small(struct bench *b)
{
    struct submitter *submitters = ha_calloc(b->clients, sizeof *submitters);
    struct bench_times times = {0};
    int64_t left = b->sweeps, open = 0, next = 0, begin_ns;
    struct ha_error err = {0};

    if (!submitters)
        bench_die("no memory");
    begin_ns = ha_clock_work_ns();
    for (int64_t i = 0; i < b->clients; i++) {
        struct ha_wire_message hello = {
            .kind = HA_WIRE_HELLO,
            .body.hello = {.role = HA_WIRE_ROLE_CLIENT, .instance = "bench", .host = "bench"}};

        submitters[i] = (struct submitter){
            .b = b, .times = &times, .left = &left, .open = &open, .next = &next};
        bench_peer_open(&submitters[i].peer, &b->network, b->network.endpoint, on_submitted,
                        &submitters[i]);
        bench_peer_send(&submitters[i].peer, &hello);
    }
    while (times.count < b->sweeps)
        if (ha_loop_turn(b->network.loop, 1000, &err) < 0)
            bench_die("%s", ha_error_text(&err));
    printf("grids of 1 cell, %" PRId64 " clients: %.0f submits/s durable\n", b->clients,
           (double)times.count / seconds_since(begin_ns));
    bench_times_print("submit to acknowledgement", &times);
    for (int64_t i = 0; i < b->clients; i++)
        bench_peer_close(&submitters[i].peer);
    bench_times_clear(&times);
    free(submitters);
}

/* A peer that says hello every millisecond: how long does a turn keep it waiting? */
struct pinger {
    struct bench_peer peer;
    struct ha_loop_timer *timer;
    struct bench_times times;
    int64_t sent_ns;
};

static void on_pong(void *context, const struct ha_wire_message *message)
{
    struct pinger *p = context;

    (void)message;
    bench_times_add(&p->times, ha_clock_work_ns() - p->sent_ns);
    p->sent_ns = 0;
}

static void on_ping(void *context)
{
    struct pinger *p = context;
    struct ha_wire_message hello = {
        .kind = HA_WIRE_HELLO,
        .body.hello = {.role = HA_WIRE_ROLE_CLIENT, .instance = "ping", .host = "bench"}};

    if (p->sent_ns == 0) {
        p->sent_ns = ha_clock_work_ns();
        bench_peer_send(&p->peer, &hello);
    }
    ha_loop_timer_set_after(p->timer, 1);
}

static void ping_open(struct bench *b, struct pinger *p)
{
    struct ha_error err = {0};

    *p = (struct pinger){0};
    bench_peer_open(&p->peer, &b->network, b->network.endpoint, on_pong, p);
    if (ha_loop_timer_create(b->network.loop, on_ping, p, &p->timer, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    ha_loop_timer_set_after(p->timer, 0);
}

static void ping_close(struct pinger *p, const char *what)
{
    bench_times_print(what, &p->times);
    ha_loop_timer_destroy(p->timer);
    bench_peer_close(&p->peer);
    bench_times_clear(&p->times);
}

static void submit_large(struct bench *b)
{
    struct pinger pinger;
    char name[64];
    int64_t begin_ns;
    double acknowledged;

    snprintf(name, sizeof name, "%s-large", b->name);
    ping_open(b, &pinger);
    begin_ns = ha_clock_work_ns();
    bench_submit(&b->client, name, b->cells, b->pairs, "never");
    acknowledged = seconds_since(begin_ns);
    bench_wait_expanded(&b->client, name, b->cells, b->pairs);
    printf("grid of %" PRId64 " cells: acknowledged after %.0f ms, expanded after %.2f s: %.0f "
           "cells/s\n",
           b->cells, acknowledged * 1e3, seconds_since(begin_ns),
           (double)b->cells / seconds_since(begin_ns));
    ping_close(&pinger, "another client's request meanwhile");
}

static void run_ingest(struct bench *b)
{
    bench_upload(&b->network, &b->client);
    submit_small(b);
    submit_large(b);
}

/* ---- others
 * ----------------------------------------------------------------------------------------- */

static void run_fdatasync(struct bench *b)
{
    struct bench_times times = {0};

    bench_fdatasync(ha_arguments_value(b->arguments, "dir", "."), 500, &times);
    bench_times_print("fdatasync of 4 KiB", &times);
    bench_times_clear(&times);
}

static void run_hello(struct bench *b)
{
    (void)b; /* it was said */
}

static void run_fill(struct bench *b)
{
    int64_t begin_ns;

    bench_upload(&b->network, &b->client);
    begin_ns = ha_clock_work_ns();
    for (int64_t i = 0; i < b->sweeps; i++) {
        char name[64];

        snprintf(name, sizeof name, "%s-%" PRId64, b->name, i);
        bench_submit(&b->client, name, b->cells, b->pairs, "never");
        bench_wait_expanded(&b->client, name, b->cells, b->pairs);
    }
    printf("%" PRId64 " cells in %.1f s: %.0f cells/s\n", b->sweeps * b->cells,
           seconds_since(begin_ns), (double)(b->sweeps * b->cells) / seconds_since(begin_ns));
}

static void hold(struct bench *b, const char *verb)
{
    char id[64];
    struct ha_wire_message message = {.kind = HA_WIRE_CHANGE,
                                      .body.change = {.key = id, .verb = verb, .sweep = b->name}};

    snprintf(id, sizeof id, "%s-%s", b->name, verb);
    ha_wire_message_destroy(bench_peer_call(&b->client, &message));
}

/* Jobs of a sweep, all there when the first begins, less those of the first round, in which
 * connecting and waiting show. */
static void run_flow(struct bench *b)
{
    int64_t jobs = b->cells * (b->pairs ? 2 : 1), first = b->workers * b->slots, begin_ns, begin_ms;
    double cpu, seconds;
    struct workers *w;

    if (jobs <= 2 * first)
        bench_die("too few jobs for %" PRId64 " slots", first);
    bench_upload(&b->network, &b->client);
    bench_submit(&b->client, b->name, b->cells, b->pairs, "never");
    bench_wait_expanded(&b->client, b->name, b->cells, b->pairs);
    hold(b, "pause");
    w = open_workers(b);
    hold(b, "resume");
    workers_run(w, first);
    workers_forget_times(w);
    begin_ns = ha_clock_work_ns();
    begin_ms = ha_clock_wall_ms();
    cpu = processor_seconds(b);
    workers_run(w, jobs - 2 * first);
    seconds = seconds_since(begin_ns);
    cpu = processor_seconds(b) - cpu;
    printf("window %" PRId64 " %" PRId64 "\n", begin_ms, ha_clock_wall_ms());
    printf("workers %" PRId64 " slots %" PRId64 " jobs %" PRId64 " seconds %.2f jobs/s %.0f\n",
           b->workers, b->slots, jobs - 2 * first, seconds, (double)(jobs - 2 * first) / seconds);
    if (cpu > 0)
        printf("coordinator %.0f us of processor time a job, %.0f %% of one\n",
               cpu * 1e6 / (double)(jobs - 2 * first), cpu / seconds * 100);
    bench_times_print("dispatch", workers_dispatch(w));
    bench_times_print("completion", workers_completion(w));
    workers_close(w);
}

/* From the submit to the last acknowledgement, workers waiting. */
static void run_together(struct bench *b)
{
    struct workers *w = open_workers(b);
    int64_t begin_ns;

    bench_upload(&b->network, &b->client);
    begin_ns = ha_clock_work_ns();
    bench_submit(&b->client, b->name, b->cells, b->pairs, "never");
    workers_run(w, b->cells * (b->pairs ? 2 : 1));
    printf("together %.3f s\n", seconds_since(begin_ns));
    workers_close(w);
}

static void run_quiet(struct bench *b)
{
    struct workers *w = open_workers(b);
    double cpu;

    workers_idle(w, 2000);
    cpu = processor_seconds(b);
    workers_idle(w, b->seconds * 1000);
    cpu = processor_seconds(b) - cpu;
    printf("workers %" PRId64 " seconds %" PRId64 " processor %.2f %%\n", b->workers, b->seconds,
           cpu / (double)b->seconds * 100);
    workers_close(w);
}

/* All pages of a sweep's status, one after the other. */
static void run_status(struct bench *b)
{
    uint64_t after = 0;
    int64_t pages = 0, cells = 0, begin_ns = ha_clock_work_ns();
    double cpu = processor_seconds(b);
    bool more = true;

    while (more) {
        struct ha_wire_message ask = {
            .kind = HA_WIRE_STATUS_REQUEST,
            .body.status_request = {.sweep = b->name, .after_cell = after}};
        struct ha_wire_message *reply = bench_peer_call(&b->client, &ask);
        const struct ha_wire_status_reply *status = &reply->body.status_reply;

        pages++;
        cells += status->n_cells;
        more = status->more && status->n_cells > 0;
        after = status->n_cells > 0 ? status->cells[status->n_cells - 1].cell : 0;
        ha_wire_message_destroy(reply);
    }
    printf("%" PRId64 " cells, %" PRId64 " pages: %.0f ms, coordinator %.0f ms\n", cells, pages,
           seconds_since(begin_ns) * 1e3, (processor_seconds(b) - cpu) * 1e3);
}

static void change(struct bench *b, const char *verb, const char *setting)
{
    static int number;
    char id[64], what[96];
    struct pinger pinger;
    struct ha_wire_message *reply, message = {.kind = HA_WIRE_CHANGE};
    struct ha_wire_change *body = &message.body.change;
    int64_t begin_ns;

    snprintf(id, sizeof id, "%s-change-%d", b->name, number++);
    *body = (struct ha_wire_change){.key = id, .verb = verb, .sweep = b->name};
    if (setting) {
        body->settings = &setting;
        body->n_settings = 1;
    }
    ping_open(b, &pinger);
    begin_ns = ha_clock_work_ns();
    reply = bench_peer_call(&b->client, &message);
    printf("%s: answered after %.1f ms\n", verb, seconds_since(begin_ns) * 1e3);
    ha_wire_message_destroy(reply);
    begin_ns = ha_clock_work_ns();
    while (seconds_since(begin_ns) < 1) {
        struct ha_error err = {0};

        ha_loop_turn(b->network.loop, 10, &err);
    }
    snprintf(what, sizeof what, "another client's request during %s", verb);
    ping_close(&pinger, what);
}

static void run_change(struct bench *b)
{
    change(b, "set", "priority=3");
    change(b, "pause", NULL);
    change(b, "resume", NULL);
    change(b, "cancel", NULL);
}

/* ---- the command line
 * ---------------------------------------------------------------------------------- */

static const struct mode {
    const char *name;
    void (*run)(struct bench *b);
    bool alone; /* without a coordinator */
} modes[] = {
    {"fdatasync", run_fdatasync, true}, {"hello", run_hello, false},
    {"fill", run_fill, false},          {"ingest", run_ingest, false},
    {"flow", run_flow, false},          {"together", run_together, false},
    {"quiet", run_quiet, false},        {"status", run_status, false},
    {"change", run_change, false},
};

static int read_arguments(struct bench *b, struct ha_error *err)
{
    const struct {
        const char *name;
        int64_t *value, otherwise;
    } numbers[] = {{"cells", &b->cells, 1000},   {"sweeps", &b->sweeps, 1},
                   {"clients", &b->clients, 16}, {"workers", &b->workers, 1},
                   {"slots", &b->slots, 1},      {"run-ms", &b->run_ms, 0},
                   {"pid", &b->pid, 0},          {"seconds", &b->seconds, 20}};
    int r = 0;

    b->name = ha_arguments_value(b->arguments, "name", "bench");
    b->spawn_dir = ha_arguments_value(b->arguments, "spawn", NULL);
    b->pairs = ha_arguments_given(b->arguments, "pairs");
    for (size_t i = 0; r == 0 && i < sizeof numbers / sizeof *numbers; i++)
        r = ha_arguments_int(b->arguments, numbers[i].name, 0, numbers[i].otherwise,
                             numbers[i].value, err);
    return r;
}

static void run(struct bench *b, const struct mode *mode)
{
    if (!mode->alone) {
        bench_network_open(&b->network, ha_arguments_value(b->arguments, "connect", ""));
        bench_peer_open(&b->client, &b->network, b->network.endpoint, bench_keep, &b->client);
        bench_hello_client(&b->client);
    }
    mode->run(b);
    if (!mode->alone) {
        bench_peer_close(&b->client);
        bench_network_close(&b->network);
    }
}

int main(int argc, char **argv)
{
    struct ha_arguments *arguments;
    struct ha_error err = {0};
    struct bench b = {0};
    const struct mode *mode = NULL;

    if (ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    b.arguments = arguments;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, ha_arguments_at(arguments, 0, "")) == 0)
            mode = &modes[i];
    if (ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else if (!mode)
        bench_die("there is no measurement \"%s\"", ha_arguments_at(arguments, 0, ""));
    else if (read_arguments(&b, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    else
        run(&b, mode);
    ha_arguments_destroy(arguments);
    return 0;
}
