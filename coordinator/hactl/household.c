#include "coordinator/hactl/household.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/proc/spawn.h"
#include "coordinator/hactl/private_coordinator.h"

enum {
    MAX_ARGUMENTS = 24,
    STOP_WORKER_MS = 60000,
    STOP_JUDGE_MS = 60000,
    STOP_EVALUATOR_MS = 2000,
    STOP_POLL_MS = 20,
    EVALUATOR_START_MS = 10000,
    GIVE_UP_DEATHS = 10,
    GIVE_UP_MS = 600000,
    PAUSE_MS = 200,
    PAUSE_MAX_MS = 10000
};

enum member { WORKER, JUDGE, EVALUATOR, MEMBERS };

struct servant {
    const char *name;
    char *program, *log;
    char *arguments[MAX_ARGUMENTS];
    int64_t n_arguments;
    const char *const *environment; /* added to this process's; NULL: nothing */
    struct ha_child child;
    bool started;
    int64_t deaths, first_death_ms, again_ms;
};

struct ha_household {
    struct ha_private_coordinator *coordinator;
    struct servant servants[MEMBERS];
    char *dir;
    int64_t slots, threads, gpus, coordinator_deaths;
    const char *backend;
    const char *const *judge_environment;
    const volatile sig_atomic_t *hurry;
};

static const char *const programs[MEMBERS] = {"ha-worker", "ha-judge-worker", "ha-evaluator"};
static const char *const logs[MEMBERS] = {"worker.log", "judge.log", "evaluator.log"};

static int64_t cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

int ha_household_create(const struct ha_household_options *options,
                        struct ha_household **ret_household, struct ha_error *err)
{
    struct ha_household *h = ha_calloc(1, sizeof(*h));
    int r;

    if (!h)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    h->gpus = options->gpus;
    h->slots = options->slots > 0 ? options->slots : h->gpus > 0 ? 1 : cores();
    h->threads =
        options->threads > 0 ? options->threads : (cores() > h->slots ? cores() / h->slots : 1);
    h->backend = options->backend;
    h->judge_environment = options->judge_environment;
    h->hurry = options->hurry;
    h->dir = ha_strdup(options->dir);
    for (int i = 0; i < MEMBERS; i++) {
        struct ha_child none = {.input_fd = -1, .output_fd = -1, .contract_fd = -1};

        h->servants[i].name = programs[i];
        h->servants[i].child = none;
    }
    r = h->dir ? ha_private_coordinator_start(options->dir, &h->coordinator, err)
               : ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (r < 0) {
        ha_household_destroy(h);
        return r;
    }
    *ret_household = h;
    return 0;
}

/* Adds an argument that is taken over; NULL: memory was short. */
static int add_argument(struct servant *servant, char *text, struct ha_error *err)
{
    if (!text || servant->n_arguments + 1 >= MAX_ARGUMENTS) {
        free(text);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    servant->arguments[servant->n_arguments++] = text;
    return 0;
}

static int add_option(struct servant *servant, const char *option, char *value,
                      struct ha_error *err)
{
    int r = add_argument(servant, ha_strdup(option), err);

    if (r < 0) {
        free(value);
        return r;
    }
    return add_argument(servant, value, err);
}

static int spawn(struct servant *servant, struct ha_error *err)
{
    struct ha_spawn_options options = {.program = servant->program,
                                       .arguments = (const char *const *)servant->arguments,
                                       .environment = servant->environment,
                                       .log_path = servant->log,
                                       .input_pipe = true,
                                       .own_group = true};
    int r = ha_child_spawn(&options, &servant->child, err);

    servant->started = servant->started || r == 0;
    return r;
}

/* Finds the program and begins its command line; the watch on this process is
 * its standard input. */
static int prepare(struct ha_household *h, enum member member, struct ha_error *err)
{
    struct servant *servant = &h->servants[member];
    int r = ha_program_find(programs[member], &servant->program, err);

    if (r < 0)
        return r;
    servant->log = ha_path_join(h->dir, logs[member]);
    if (!servant->log)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    r = add_argument(servant, ha_strdup(programs[member]), err);
    return r < 0 ? r : add_option(servant, "--watch-fd", ha_strdup("0"), err);
}

static int start_worker(struct ha_household *h, struct ha_error *err)
{
    struct servant *servant = &h->servants[WORKER];
    int r = prepare(h, WORKER, err);

    if (r == 0)
        r = add_option(servant, "--connect", ha_strdup(ha_household_endpoint(h)), err);
    if (r == 0)
        r = add_option(servant, "--files", ha_strdup(ha_household_files(h)), err);
    if (r == 0)
        r = add_option(servant, "--name", ha_strdup("local"), err);
    if (r == 0)
        r = add_option(servant, "--work-dir", ha_path_join(h->dir, "work"), err);
    if (r == 0)
        r = add_option(servant, "--slots", ha_format("%lld", (long long)h->slots), err);
    if (r == 0)
        r = add_option(servant, "--threads", ha_format("%lld", (long long)h->threads), err);
    if (r == 0)
        r = add_option(servant, "--set", ha_format("gpus=%lld", (long long)h->gpus), err);
    if (r == 0)
        r = add_option(servant, "--backend", ha_strdup(h->backend), err);
    if (r == 0)
        r = add_option(servant, "--model-root", ha_strdup("/"), err);
    return r < 0 ? r : spawn(servant, err);
}

static int start_judge(struct ha_household *h, struct ha_error *err)
{
    struct servant *servant = &h->servants[JUDGE];
    int r = prepare(h, JUDGE, err);

    servant->environment = h->judge_environment;
    if (r == 0)
        r = add_argument(servant, ha_strdup("--embedded"), err);
    if (r == 0)
        r = add_option(servant, "--connect", ha_strdup(ha_household_endpoint(h)), err);
    if (r == 0)
        r = add_option(servant, "--name", ha_strdup("local-judge"), err);
    if (r == 0)
        r = add_option(servant, "--spool", ha_path_join(h->dir, "spool"), err);
    return r < 0 ? r : spawn(servant, err);
}

int ha_household_start_workers(struct ha_household *h, struct ha_error *err)
{
    int r = start_worker(h, err);

    return r < 0 ? r : start_judge(h, err);
}

/* Waits for the one line that tells the port. */
static int read_port(const struct servant *servant, const char *path, int64_t *ret_port,
                     struct ha_error *err)
{
    int64_t end = ha_clock_boot_ms() + EVALUATOR_START_MS;

    while (ha_clock_boot_ms() < end) {
        char *text = NULL;
        size_t size;
        long long port = 0;

        if (ha_file_read(path, 64, &text, &size, NULL) == 0 && strchr(text, '\n'))
            port = strtoll(text, NULL, 10);
        free(text);
        if (port > 0 && port < 65536) {
            *ret_port = port;
            return 0;
        }
        usleep(20000);
    }
    return ha_error_set(err, ETIMEDOUT, "ha-evaluator does not start; see %s", servant->log);
}

int ha_household_start_evaluator(struct ha_household *h, int64_t *ret_port, struct ha_error *err)
{
    struct servant *servant = &h->servants[EVALUATOR];
    char *path = ha_path_join(h->dir, "evaluator.port");
    int r = path ? prepare(h, EVALUATOR, err) : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        (void)unlink(path);
    if (r == 0)
        r = add_option(servant, "--port-file", ha_strdup(path), err);
    if (r == 0)
        r = add_option(servant, "--port", ha_strdup("0"), err);
    if (r == 0)
        r = spawn(servant, err);
    if (r == 0)
        r = read_port(servant, path, ret_port, err);
    /* Started again, it must come back where the judge worker looks for it. */
    if (r == 0) {
        char *port = ha_format("%lld", (long long)*ret_port);

        if (port) {
            free(servant->arguments[servant->n_arguments - 1]);
            servant->arguments[servant->n_arguments - 1] = port;
        } else {
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
        }
    }
    free(path);
    return r;
}

/* Restarts a servant that ended, after its pause. */
static int tend(struct servant *servant, int64_t now, struct ha_error *err)
{
    int64_t pause;
    int status;

    if (!servant->started)
        return 0;
    if (servant->child.pid > 0) {
        if (!ha_child_poll(&servant->child, &status))
            return 0;
        ha_child_close(&servant->child);
        if (servant->deaths == 0 || now - servant->first_death_ms > GIVE_UP_MS) {
            servant->first_death_ms = now;
            servant->deaths = 0;
        }
        servant->deaths++;
        if (servant->deaths >= GIVE_UP_DEATHS)
            return ha_error_set(err, ECHILD, "%s ended %d times within ten minutes; see %s",
                                servant->name, (int)GIVE_UP_DEATHS, servant->log);
        pause = PAUSE_MS << (servant->deaths - 1);
        servant->again_ms = now + (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
    }
    return now >= servant->again_ms ? spawn(servant, err) : 0;
}

int ha_household_tend(struct ha_household *h, struct ha_error *err)
{
    int64_t now = ha_clock_boot_ms();
    int r = ha_private_coordinator_revive(h->coordinator, err);

    if (r < 0)
        return r;
    h->coordinator_deaths += r;
    if (h->coordinator_deaths >= GIVE_UP_DEATHS)
        return ha_error_set(err, ECHILD, "ha-coordinator ended %d times; see %s/coordinator.log",
                            (int)GIVE_UP_DEATHS, h->dir);
    r = 0;
    for (int i = 0; r == 0 && i < MEMBERS; i++)
        r = tend(&h->servants[i], now, err);
    return r;
}

/* SIGTERM, then SIGKILL when its time is over or there is none to be had. */
static void stop_servant(const struct ha_household *h, struct servant *servant, int64_t grace_ms)
{
    int64_t end = ha_clock_boot_ms() + grace_ms;
    int status;

    ha_child_signal(&servant->child, SIGTERM);
    while (servant->child.pid > 0 && !*h->hurry && ha_clock_boot_ms() < end &&
           !ha_child_poll(&servant->child, &status))
        usleep(STOP_POLL_MS * 1000);
    (void)ha_child_stop(&servant->child, 0);
    ha_child_close(&servant->child);
    servant->started = false;
}

void ha_household_stop(struct ha_household *h)
{
    static const int64_t grace[MEMBERS] = {STOP_WORKER_MS, STOP_JUDGE_MS, STOP_EVALUATOR_MS};

    for (int i = 0; i < MEMBERS; i++)
        stop_servant(h, &h->servants[i], grace[i]);
    ha_private_coordinator_stop(h->coordinator);
    h->coordinator = NULL;
}

void ha_household_destroy(struct ha_household *h)
{
    if (!h)
        return;
    ha_household_stop(h);
    for (int i = 0; i < MEMBERS; i++) {
        for (int64_t k = 0; k < h->servants[i].n_arguments; k++)
            free(h->servants[i].arguments[k]);
        free(h->servants[i].program);
        free(h->servants[i].log);
    }
    free(h->dir);
    free(h);
}

const char *ha_household_endpoint(const struct ha_household *h)
{
    return ha_private_coordinator_endpoint(h->coordinator);
}

const char *ha_household_files(const struct ha_household *h)
{
    return ha_private_coordinator_files(h->coordinator);
}
