/* ha-attempt job: what the daemon starts; worker/contract.h says how they speak. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/contract_reporter.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/generation.h"
#include "worker/attempt/job_spec.h"
#include "worker/attempt/outcome.h"
#include "worker/attempt/probing.h"
#include "worker/attempt/shelf.h"
#include "worker/attempt/training.h"
#include "worker/contract.h"

/* What the jobs of this process have in common. */
struct service {
    struct ha_contract_reporter context;
    struct ha_reporter reporter;
    struct ha_shelf shelf;
    int64_t rank;
    bool serves; /* more than one job */
};

/* The ranks that are here use the first devices. */
static struct ha_engine_options engine_of(const struct ha_job_spec *spec, struct service *service)
{
    int64_t device = service->rank - spec->first_rank;

    return (struct ha_engine_options){.model_dir = spec->model_path,
                                      .backend = spec->backend,
                                      .threads = spec->threads,
                                      .device = device > 0 ? (int)device : 0,
                                      .prompt_template = spec->prompt_template,
                                      .shelf = service->serves ? &service->shelf : NULL,
                                      .loaded = service->rank == 0 ? ha_contract_model : NULL,
                                      .context = &service->context};
}

static struct ha_gang gang_of(const struct ha_job_spec *spec, struct ha_gang_daemon *meeting)
{
    return (struct ha_gang){.rank = meeting->rank,
                            .ranks = spec->ranks,
                            .join_ms = spec->gang_wait_ms,
                            .step_ms = spec->gang_wait_ms,
                            .abort = &ha_attempt_abort,
                            .meet = ha_gang_daemon_meet,
                            .failed = ha_gang_daemon_failed,
                            .context = meeting};
}

static int train(const struct ha_job_spec *spec, const struct ha_gang *gang,
                 struct service *service, struct ha_error *err)
{
    struct ha_training_cell *cells = ha_calloc(spec->n_cells, sizeof(*cells));
    char **folders = ha_calloc(2 * spec->n_cells, sizeof(*folders));
    struct ha_training training = {.engine = engine_of(spec, service),
                                   .hub_id = spec->hub_id,
                                   .train = spec->train,
                                   .n_train = spec->n_train,
                                   .eval = spec->eval,
                                   .n_eval = spec->n_eval,
                                   .cells = cells,
                                   .n_cells = spec->n_cells,
                                   .reference = spec->reference,
                                   .time_alone_steps = spec->time_alone_steps,
                                   .reference_out = "out/reference.safetensors",
                                   .choices = spec->choices,
                                   .digests = spec->digests,
                                   .gang = spec->ranks > 1 ? gang : NULL};
    int r = cells && folders ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    for (int64_t i = 0; r == 0 && i < spec->n_cells; i++) {
        const struct ha_job_cell *cell = &spec->cells[i];

        folders[2 * i] = ha_format("out/%lld/adapter", (long long)cell->id);
        folders[2 * i + 1] = ha_format("out/%lld/checkpoint", (long long)cell->id);
        if (!folders[2 * i] || !folders[2 * i + 1])
            r = ha_error_set(err, ENOMEM, "out of memory");
        cells[i] = (struct ha_training_cell){.id = cell->id,
                                             .name = cell->name,
                                             .layers = cell->layers,
                                             .n_layers = cell->n_layers,
                                             .settings = cell->settings,
                                             .checkpoint = cell->checkpoint,
                                             .out_dir = folders[2 * i],
                                             .checkpoint_dir = folders[2 * i + 1]};
    }
    if (r == 0)
        r = ha_training_run(&training, &service->reporter, &ha_attempt_stop, err);
    for (int64_t i = 0; folders && i < 2 * spec->n_cells; i++)
        free(folders[i]);
    free(folders);
    free(cells);
    return r;
}

static int generate(const struct ha_job_spec *spec, const struct ha_gang *gang,
                    struct service *service, struct ha_error *err)
{
    struct ha_generation_cell *cells = ha_calloc(spec->n_cells, sizeof(*cells));
    struct ha_generation generation = {.engine = engine_of(spec, service),
                                       .prompts = spec->eval,
                                       .n_prompts = spec->n_eval,
                                       .train = spec->train,
                                       .n_train = spec->n_train,
                                       .cells = cells,
                                       .n_cells = spec->n_cells,
                                       .gang = spec->ranks > 1 ? gang : NULL};
    int r;

    if (!cells)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; i < spec->n_cells; i++)
        cells[i] = (struct ha_generation_cell){.id = spec->cells[i].id,
                                               .name = spec->cells[i].name,
                                               .adapter = spec->cells[i].adapter,
                                               .settings = spec->cells[i].settings,
                                               .skip = spec->cells[i].skip,
                                               .n_skip = spec->cells[i].n_skip};
    r = ha_generation_run(&generation, &service->reporter, &ha_attempt_stop, err);
    free(cells);
    return r;
}

static int probe(const struct ha_job_spec *spec, const struct ha_gang *gang,
                 struct service *service, struct ha_error *err)
{
    struct ha_probing probing = {.engine = engine_of(spec, service),
                                 .train = spec->train,
                                 .n_train = spec->n_train,
                                 .cell = spec->cells[0].id,
                                 .settings = spec->cells[0].settings,
                                 .gang = spec->ranks > 1 ? gang : NULL};

    return ha_probing_run(&probing, &service->reporter, &ha_attempt_stop, err);
}

static int run_kind(const struct ha_job_spec *spec, const struct ha_gang *gang,
                    struct service *service, struct ha_error *err)
{
    switch (spec->kind) {
    case HA_JOB_TRAIN:
        return train(spec, gang, service, err);
    case HA_JOB_PROBE:
        return probe(spec, gang, service, err);
    case HA_JOB_GENERATE:
        break;
    }
    return generate(spec, gang, service, err);
}

/* The job of the folder that we are in. */
static int run_job(struct service *service, struct ha_error *err)
{
    struct ha_gang_daemon meeting = {.reporter = &service->context, .abort = &ha_attempt_abort};
    struct ha_job_spec *spec;
    struct ha_gang gang;
    int r = ha_job_spec_load(HA_ATTEMPT_SPEC_FILE, &spec, err);

    if (r < 0)
        return r;
    service->serves = service->serves && spec->ranks == 1;
    meeting.rank = service->rank < spec->ranks ? (int)service->rank : 0;
    gang = gang_of(spec, &meeting);
    r = service->rank < spec->ranks ? run_kind(spec, &gang, service, err)
                                    : ha_error_set(err, EINVAL, "--rank %lld: the job has %d ranks",
                                                   (long long)service->rank, spec->ranks);
    ha_job_spec_destroy(spec);
    return r;
}

/* Wait for the next job's folder.  False: there is none, or we are to end. */
static bool next_folder(char *folder)
{
    size_t used = 0;

    while (used < PATH_MAX && !ha_attempt_stop) {
        ssize_t n = read(STDIN_FILENO, folder + used, 1);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        if (folder[used] == '\n') {
            folder[used] = '\0';
            return true;
        }
        used++;
    }
    return false;
}

static int enter(const char *folder, struct ha_error *err)
{
    return chdir(folder) < 0 ? ha_error_set(err, errno, "--dir %s: %s", folder, strerror(errno))
                             : 0;
}

/* One job after the other.  One that was not done, and a device that has failed, end it. */
static int serve(struct service *service, struct ha_error *err)
{
    char folder[PATH_MAX + 1];
    int r = run_job(service, err);

    while (r == 0 && service->serves && !ha_attempt_stop) {
        struct ha_error why = {0};

        if (ha_shelf_rest(&service->shelf, &why) < 0) {
            ha_log_error("the process ends after its job: %s", ha_error_text(&why));
            break;
        }
        (void)fflush(stdout);
        r = ha_contract_waits(&service->context, err);
        HA_CRASH_POINT("attempt.waits");
        if (r < 0 || !next_folder(folder))
            break;
        r = enter(folder, err);
        if (r == 0)
            r = ha_shelf_wake(&service->shelf, err);
        if (r == 0)
            r = run_job(service, err);
    }
    ha_shelf_clear(&service->shelf);
    return r;
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    const char *dir = ha_arguments_value(call->arguments, "dir", ".");
    struct service service = {.serves = ha_arguments_given(call->arguments, "serve")};
    int64_t fd;
    int r = ha_arguments_int(call->arguments, "contract-fd", 0, STDOUT_FILENO, &fd, err);

    if (r == 0)
        r = ha_arguments_int(call->arguments, "rank", 0, 0, &service.rank, err);
    if (r < 0)
        return r;
    if (fd > INT_MAX || fcntl((int)fd, F_GETFD) < 0)
        return ha_error_set(err, EBADF, "--contract-fd %lld: not an open descriptor",
                            (long long)fd);
    r = enter(dir, err);
    if (r < 0)
        return r;
    service.context.fd = (int)fd;
    service.reporter = ha_contract_reporter(&service.context);
    r = serve(&service, err);
    if (r == 0)
        return HA_ATTEMPT_DONE;
    if (r == -EINTR) {
        ha_log_info("%s", ha_error_text(err));
        return HA_ATTEMPT_STOPPED;
    }
    ha_log_error("%s", ha_error_text(err));
    (void)ha_contract_error(&service.context, ha_error_text(err));
    if (r == -ENOMEM)
        return HA_ATTEMPT_STARVED;
    return ha_outcome_is_permanent(r) ? HA_ATTEMPT_REFUSED : HA_ATTEMPT_FAILED;
}

static const struct ha_option options[] = {
    {"dir", "FOLDER", "the attempt's folder, with job.json and inputs/ (default: here)"},
    {"rank", "R", "of the gang that the job asks for (default: 0)"},
    {"serve", NULL, "then take the folders of further jobs from standard input, one a line"},
    {"contract-fd", "N", "where the lines for the daemon go (default: standard output)"},
};

const struct ha_subcommand ha_subcommand_job = {
    .name = "job",
    .command = {.name = "ha-attempt job",
                .synopsis = "",
                .summary = "run a job as the worker daemon does; JSON lines tell what happens",
                .example = "ha-attempt job --dir runs/demo/work/3-7",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .stops = true,
    .run = run,
};
