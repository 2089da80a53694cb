/* The embedded form: coordinator, worker and judge worker as children, the
 * sweep's own directory, the report at the end; started again, it resumes. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/base/secret.h"
#include "common/proc/spawn.h"
#include "coordinator/hactl/boards.h"
#include "coordinator/hactl/document.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/hactl/household.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/progress.h"
#include "coordinator/hactl/status_view.h"
#include "coordinator/hactl/submission.h"
#include "coordinator/hactl/verbs.h"

enum { TEND_MS = 200, LOOK_MS = 500, LINE_MS = 10000 };

/* The first interrupt lets everybody finish; the second waits for nobody. */
static volatile sig_atomic_t interrupted, hurry;

static void on_interrupt(int number)
{
    (void)number;
    hurry = interrupted;
    interrupted = 1;
}

struct embedded {
    const struct ha_arguments *arguments;
    struct ha_grid_input *input;
    const char *name;
    char *dir;
    struct ha_lock *lock;
    struct ha_household *household;
    struct ha_link *link;
    struct ha_boards *boards;
    char **overrides; /* the user's and the evaluator's; items owned from n_given on */
    int64_t n_overrides, n_given;
    char **keys; /* "NAME=value" of judges, ended by NULL; items owned */
    int64_t next_line_ms;
};

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

static int take_directory(struct embedded *run, struct ha_error *err)
{
    char *lock;
    int r;

    run->dir = ha_format("runs/%s", run->name);
    lock = run->dir ? ha_path_join(run->dir, "run.lock") : NULL;
    if (!lock)
        return out_of_memory(err);
    r = ha_path_make_dirs(run->dir, 0777, err);
    if (r == 0)
        r = ha_lock_take(lock, &run->lock, err);
    if (r == -EWOULDBLOCK)
        (void)ha_error_prefix(err,
                              "%s is already being run (follow it with: hactl status --dir %s)",
                              run->name, run->dir);
    free(lock);
    return r;
}

/* Starts ha-evaluator when a judge of the grid is it, and says where it is. */
static int start_evaluator(struct embedded *run, struct ha_error *err)
{
    const struct ha_sweep *sweep = run->input->sweep;
    int64_t port = 0;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < sweep->judge_count; i++) {
        const struct ha_sweep_judge *judge = &sweep->judges[i];
        char *override;

        if (strcmp(judge->provider, "ha-evaluator") != 0 || strcmp(judge->base_url, "auto") != 0)
            continue;
        if (port == 0)
            r = ha_household_start_evaluator(run->household, &port, err);
        if (r < 0)
            break;
        override =
            ha_format("judge.%s.base_url=http://127.0.0.1:%lld/v1", judge->name, (long long)port);
        if (!override)
            return out_of_memory(err);
        run->overrides[run->n_overrides++] = override;
    }
    run->input->overrides = (const char *const *)run->overrides;
    run->input->n_overrides = run->n_overrides;
    return r;
}

static int connect_link(struct embedded *run, struct ha_error *err)
{
    struct ha_link_options options = {.endpoint = ha_household_endpoint(run->household),
                                      .files_endpoint = ha_household_files(run->household),
                                      .hello_timeout_ms = 10000};

    return ha_link_open(&options, &run->link, err);
}

static int start(struct embedded *run, struct ha_error *err)
{
    struct ha_household_options options = {
        .dir = run->dir,
        .backend = ha_arguments_value(run->arguments, "backend", "auto"),
        .judge_environment = (const char *const *)run->keys,
        .hurry = &hurry,
    };
    struct ha_wire_message *reply;
    int r = ha_arguments_int(run->arguments, "slots", 1, 0, &options.slots, err);

    if (r == 0)
        r = ha_arguments_int(run->arguments, "threads", 1, 0, &options.threads, err);
    options.gpus = run->input->sweep->resources.gpus;
    if (r == 0 && run->input->sweep->resources.nodes > 1)
        r = ha_error_set(
            err, EINVAL,
            "resources.nodes = %lld: hactl run has one worker; start a coordinator and "
            "workers, and hactl submit",
            (long long)run->input->sweep->resources.nodes);
    if (r == 0 && options.gpus > 1 && options.slots > 1)
        r = ha_error_set(err, EINVAL,
                         "--slots %lld: with resources.gpus = %lld there is one attempt at a time",
                         (long long)options.slots, (long long)options.gpus);
    if (r == 0)
        r = ha_household_create(&options, &run->household, err);
    if (r == 0)
        r = start_evaluator(run, err);
    if (r == 0)
        r = connect_link(run, err);
    if (r == 0)
        r = ha_submission_send(run->link, run->input, run->name,
                               ha_arguments_given(run->arguments, "extend"), &reply, err);
    if (r < 0)
        return r;
    ha_submission_print(reply);
    ha_wire_message_destroy(reply);
    r = ha_household_start_workers(run->household, err);
    if (r == 0)
        r = ha_boards_create(run->dir, &run->boards, err);
    return r;
}

/* A table that is drawn anew on a terminal; elsewhere a line now and then. */
static int draw(struct embedded *run, const struct ha_status *status, bool last,
                struct ha_error *err)
{
    struct ha_view_style style = ha_view_style_detect();
    int64_t now = ha_clock_boot_ms();
    struct ha_buffer out;
    int r = 0;

    style.summary = !isatty(STDOUT_FILENO) && !last;
    if (style.summary && now < run->next_line_ms)
        return 0;
    run->next_line_ms = now + LINE_MS;
    ha_buffer_init(&out, 0);
    if (isatty(STDOUT_FILENO))
        r = ha_buffer_append_text(&out, "\033[H\033[2J");
    if (r == 0)
        r = ha_status_view(status, &style, &out);
    if (r < 0) {
        ha_buffer_clear(&out);
        return out_of_memory(err);
    }
    return ha_output_text(&out, err);
}

/* One look at the sweep.  Returns 1 when it is over, 0 when not. */
static int look(struct embedded *run, bool *ret_gaps, struct ha_error *err)
{
    struct ha_status *status;
    bool over;
    int r = ha_fetch_status(run->link, run->name, "", &status, err);

    if (r < 0)
        return r;
    over = strcmp(status->head->sweep.state, "running") != 0;
    *ret_gaps = strcmp(status->head->sweep.state, "done") != 0;
    r = ha_boards_update(run->boards, run->link, status, err);
    if (r == 0)
        r = draw(run, status, over, err);
    ha_status_destroy(status);
    return r < 0 ? r : over;
}

/* Follows the sweep to its end or to an interrupt.  Returns an exit code. */
static int follow(struct embedded *run, struct ha_error *err)
{
    int64_t next_look = 0;
    bool gaps = false;

    while (!interrupted) {
        int r = ha_household_tend(run->household, err);

        if (r < 0)
            return r;
        if (ha_clock_boot_ms() >= next_look) {
            r = look(run, &gaps, err);
            /* A coordinator that was just started again answers at the next look. */
            if (r < 0 && r != -ENOTCONN)
                return r;
            if (r > 0)
                return gaps ? HA_EXIT_GAPS : HA_EXIT_DONE;
            next_look = ha_clock_boot_ms() + LOOK_MS;
        }
        usleep(TEND_MS * 1000);
    }
    fprintf(stderr, "hactl: stopping; what runs writes a checkpoint (again: at once)\n");
    return HA_EXIT_FAILED;
}

static int finish(struct embedded *run, int code, struct ha_error *err)
{
    char *report = ha_path_join(run->dir, "report");
    int r = report ? ha_document_write(run->link, run->name, "", report, err) : out_of_memory(err);

    if (r == 0)
        printf("report: %s/report.md\n", report);
    if (code == HA_EXIT_GAPS)
        fprintf(stderr,
                "hactl: %s has gaps; once their cause is mended: hactl retry %s --dir %s, then run "
                "it again\n",
                run->name, run->name, run->dir);
    free(report);
    return r < 0 ? r : code;
}

/* A key that is missing now is missing when the answers are there to be scored. */
static int check_keys(const struct ha_sweep *sweep, struct ha_error *err)
{
    for (int64_t i = 0; i < sweep->judge_count; i++) {
        const struct ha_sweep_judge *judge = &sweep->judges[i];
        const char *key = judge->api_key_env ? getenv(judge->api_key_env) : NULL;

        if (judge->api_key_env && judge->api_key_env[0] && !(key && key[0]))
            return ha_error_set(err, ENOKEY,
                                "judge \"%s\": the environment variable %s, which is to hold the "
                                "evaluator's key, is not set",
                                judge->name, judge->api_key_env);
    }
    return 0;
}

/* Take the evaluators' keys out of the environment: the judge worker alone needs them, and
 * whoever else had them could leave them in a core file. */
static int take_keys(struct embedded *run, struct ha_error *err)
{
    const struct ha_sweep *sweep = run->input->sweep;
    int64_t n = 0;
    int r = check_keys(sweep, err);

    if (r < 0)
        return r;
    run->keys = ha_calloc(sweep->judge_count + 1, sizeof(*run->keys));
    if (!run->keys)
        return out_of_memory(err);
    for (int64_t i = 0; i < sweep->judge_count; i++) {
        const char *name = sweep->judges[i].api_key_env;
        const char *key = name && name[0] ? getenv(name) : NULL;

        if (!key)
            continue; /* none, or taken for another judge */
        ha_secret_guard();
        run->keys[n] = ha_format("%s=%s", name, key);
        if (!run->keys[n++])
            return out_of_memory(err);
        (void)unsetenv(name);
    }
    return 0;
}

static void forget_keys(struct embedded *run)
{
    for (int64_t i = 0; run->keys && run->keys[i]; i++) {
        explicit_bzero(run->keys[i], strlen(run->keys[i]));
        free(run->keys[i]);
    }
    free(run->keys);
}

static void end(struct embedded *run)
{
    ha_boards_destroy(run->boards);
    ha_link_close(run->link);
    ha_household_destroy(run->household);
    forget_keys(run);
    ha_lock_release(run->lock);
    for (int64_t i = run->n_given; i < run->n_overrides; i++)
        free(run->overrides[i]);
    free(run->overrides);
    free(run->dir);
    ha_grid_input_destroy(run->input);
}

static int prepare(struct embedded *run, struct ha_error *err)
{
    const char *const *given;
    int r;

    given = ha_arguments_values(run->arguments, "set", &run->n_given);
    r = ha_grid_input_load(ha_arguments_at(run->arguments, 0, ""), given, run->n_given, false,
                           &run->input, err);
    if (r == 0)
        r = take_keys(run, err);
    if (r < 0)
        return r;
    r = ha_submission_name(run->input, ha_arguments_value(run->arguments, "name", NULL), &run->name,
                           err);
    if (r < 0)
        return r;
    run->overrides =
        ha_calloc(run->n_given + run->input->sweep->judge_count, sizeof(*run->overrides));
    if (!run->overrides)
        return out_of_memory(err);
    for (int64_t i = 0; i < run->n_given; i++)
        run->overrides[run->n_overrides++] = (char *)(uintptr_t)given[i];
    printf("reading models and data of %s\n", ha_arguments_at(run->arguments, 0, ""));
    (void)fflush(stdout);
    r = ha_grid_input_hash(run->input, err);
    return r < 0 ? r : take_directory(run, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    struct embedded embedded = {.arguments = arguments};
    int r = prepare(&embedded, err);

    if (r == 0) {
        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGTERM, &action, NULL);
        r = start(&embedded, err);
    }
    if (r == 0)
        r = follow(&embedded, err);
    if (r == HA_EXIT_DONE || r == HA_EXIT_GAPS)
        r = finish(&embedded, r, err);
    end(&embedded);
    return r;
}

static const struct ha_option options[] = {
    {"set", "KEY=VALUE", "another value than the grid's (train.beta=0.5); repeatable"},
    {"name", "NAME", "another name than the grid's: runs/NAME"},
    {"extend", NULL,
     "work cells anew whose settings changed; what is there under their keys is reused"},
    {"slots", "N", "attempts side by side (default: one per core; with resources.gpus one)"},
    {"threads", "N", "threads of an attempt (default: cores over slots)"},
    {"backend", "NAME", "auto, cpu or cuda (default: auto)"},
};

const struct ha_verb ha_verb_run = {
    .name = "run",
    .command =
        {
            .name = "hactl run",
            .synopsis = "GRID.toml",
            .summary = "run a whole grid on this machine, in runs/NAME; run again, it resumes",
            .example = "hactl run deploy/demo/grid.toml",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .min_positional = 1,
            .max_positional = 1,
        },
    .run = run,
};
