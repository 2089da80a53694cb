#include "worker/attempt/console_reporter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

enum { PROGRESS_MS = 2000 };

static int write_failed(const char *path, int code, struct ha_error *err)
{
    return ha_error_set(err, code, "%s: cannot write results: %s", path, strerror(code));
}

static int put(FILE *file, const char *path, struct ha_json *line, int r, struct ha_error *err)
{
    char *text = r == 0 && line ? ha_json_dump(line, HA_JSON_COMPACT) : NULL;

    ha_json_destroy(line);
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = fprintf(file, "%s\n", text) < 0 || fflush(file) == EOF ? write_failed(path, errno, err) : 0;
    free(text);
    return r;
}

/* Empties a file that is written anew; pipes and devices have nothing to empty. */
static void empty_file(FILE *file)
{
    struct stat status;

    if (file && file != stdout && fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode))
        (void)ftruncate(fileno(file), 0);
}

/* Old results are gone only when the model and the data have proved to be there. */
static int phase(void *context, const char *name, struct ha_error *err)
{
    struct ha_console_reporter *console = context;

    (void)err;
    if (!console->append && !console->emptied && strcmp(name, "load") != 0) {
        empty_file(console->metrics);
        empty_file(console->answers);
        console->emptied = true;
    }
    console->next_progress_ms = 0;
    ha_log_info("phase %s", name);
    return 0;
}

static int progress(void *context, const struct ha_reported_progress *progress,
                    struct ha_error *err)
{
    struct ha_console_reporter *console = context;
    int64_t now = ha_clock_boot_ms();

    (void)err;
    if (now >= console->next_progress_ms || progress->step == progress->steps) {
        console->next_progress_ms = now + PROGRESS_MS;
        if (progress->utilisation > 0)
            ha_log_info("%lld of %lld, %.0f tokens/s, %.0f %% of the peak",
                        (long long)progress->step, (long long)progress->steps,
                        progress->tokens_per_second, 100 * progress->utilisation);
        else
            ha_log_info("%lld of %lld, %.0f tokens/s", (long long)progress->step,
                        (long long)progress->steps, progress->tokens_per_second);
    }
    return 0;
}

static int metrics(void *context, int64_t cell, int64_t step, const struct ha_reported_metric *list,
                   int64_t n, struct ha_error *err)
{
    struct ha_console_reporter *console = context;
    struct ha_json *line;
    int r;

    (void)cell;
    if (!console->metrics)
        return 0;
    line = ha_json_new_object();
    r = ha_json_set(line, "step", ha_json_new_int(step));
    for (int64_t i = 0; r == 0 && i < n; i++)
        r = ha_json_set(line, list[i].name, ha_json_new_real(list[i].value));
    return put(console->metrics, console->metrics_path, line, r, err);
}

static int answer(void *context, const struct ha_reported_answer *a, struct ha_error *err)
{
    struct ha_console_reporter *console = context;
    struct ha_json *line;
    int r;

    if (!console->answers)
        return 0;
    line = ha_json_new_object();
    r = ha_json_set(line, "prompt", ha_json_new_int(a->prompt));
    if (r == 0)
        r = ha_json_set(line, "row", ha_json_new_int(a->row));
    if (r == 0)
        r = ha_json_set(line, "sample", ha_json_new_int(a->sample));
    if (r == 0 && console->names && console->names[a->cell - 1])
        r = ha_json_set(line, "adapter", ha_json_new_string(console->names[a->cell - 1]));
    if (r == 0)
        r = ha_json_set(line, "prompt_text", ha_json_new_string_n(a->prompt_text, a->prompt_bytes));
    if (r == 0)
        r = ha_json_set(line, "text", ha_json_new_string_n(a->text, a->text_bytes));
    if (r == 0)
        r = ha_json_set(line, "raw", ha_json_new_string_n(a->raw, a->raw_bytes));
    if (r == 0)
        r = ha_json_set(line, "finish", ha_json_new_string(a->finish));
    if (r == 0)
        r = ha_json_set(line, "prompt_tokens", ha_json_new_int(a->prompt_tokens));
    if (r == 0)
        r = ha_json_set(line, "tokens", ha_json_new_int(a->tokens));
    return put(console->answers, console->answers_path, line, r, err);
}

static int norm(void *context, const struct ha_reported_norm *reported, struct ha_error *err)
{
    struct ha_console_reporter *console = context;

    if (ha_grow((void **)&console->norms, &console->norm_capacity, console->n_norms + 1,
                sizeof(*console->norms)) < 0)
        return ha_error_set(err, ENOMEM, "out of memory");
    console->norms[console->n_norms++] = *reported;
    return 0;
}

static int artifact(void *context, int64_t cell, const char *kind, const char *name,
                    const char *path, int64_t step, struct ha_error *err)
{
    (void)context;
    (void)cell;
    (void)name;
    (void)step;
    (void)err;
    ha_log_info("%s: %s", kind, path);
    return 0;
}

static int cell(void *context, int64_t id, bool done, const char *reason, bool permanent,
                struct ha_json *summary, struct ha_error *err)
{
    struct ha_console_reporter *console = context;
    char *text = summary ? ha_json_dump(summary, HA_JSON_COMPACT) : NULL;

    (void)id;
    (void)permanent;
    (void)err;
    console->failed = console->failed || !done;
    if (done)
        ha_log_info("done: %s", text ? text : "");
    else
        ha_log_error("failed: %s", reason);
    free(text);
    ha_json_destroy(summary);
    return 0;
}

static int open_file(const char *path, FILE **ret_file, struct ha_error *err)
{
    if (!path)
        return 0;
    *ret_file = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
    return *ret_file ? 0 : ha_error_set(err, errno, "%s: %s", path, strerror(errno));
}

int ha_console_reporter_open(struct ha_console_reporter *context, struct ha_error *err)
{
    int r = open_file(context->metrics_path, &context->metrics, err);

    return r < 0 ? r : open_file(context->answers_path, &context->answers, err);
}

static int close_file(FILE *file, const char *path, int r, struct ha_error *err)
{
    if (file && file != stdout && fclose(file) == EOF && r >= 0)
        return write_failed(path, errno, err);
    return r;
}

int ha_console_reporter_close(struct ha_console_reporter *context, int r, struct ha_error *err)
{
    free(context->norms);
    context->norms = NULL;
    context->n_norms = context->norm_capacity = 0;
    r = close_file(context->metrics, context->metrics_path, r, err);
    return close_file(context->answers, context->answers_path, r, err);
}

struct ha_reporter ha_console_reporter(struct ha_console_reporter *context)
{
    return (struct ha_reporter){.context = context,
                                .phase = phase,
                                .progress = progress,
                                .metrics = metrics,
                                .answer = answer,
                                .norm = norm,
                                .artifact = artifact,
                                .cell = cell};
}
