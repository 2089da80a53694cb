#include "worker/attempt/contract_reporter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "kernels/collective.h"
#include "worker/attempt/engine.h"

/* Write one line and end the object; NULL: memory was short. */
static int put(struct ha_contract_reporter *context, struct ha_json *line, struct ha_error *err)
{
    char *text = line ? ha_json_dump(line, HA_JSON_COMPACT) : NULL;
    size_t size = text ? strlen(text) : 0;
    int r;

    ha_json_destroy(line);
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory for a line to the daemon");
    text[size] = '\n';
    HA_CRASH_POINT("attempt.before_line");
    r = ha_file_write_all(context->fd, text, size + 1);
    free(text);
    return r < 0 ? ha_error_set(err, -r, "the daemon does not take lines: %s", strerror(-r)) : 0;
}

static struct ha_json *line_of(const char *type)
{
    struct ha_json *line = ha_json_new_object();

    if (line && ha_json_set(line, "type", ha_json_new_string(type)) < 0) {
        ha_json_destroy(line);
        line = NULL;
    }
    return line;
}

/* put for a line whose members were set with result r. */
static int finish(struct ha_contract_reporter *context, struct ha_json *line, int r,
                  struct ha_error *err)
{
    if (r < 0) {
        ha_json_destroy(line);
        line = NULL;
    }
    return put(context, line, err);
}

static int phase(void *context, const char *name, struct ha_error *err)
{
    struct ha_json *line = line_of("phase");

    return finish(context, line, ha_json_set(line, "phase", ha_json_new_string(name)), err);
}

static int progress(void *context, const struct ha_reported_progress *progress,
                    struct ha_error *err)
{
    const struct {
        const char *name;
        double value;
    } rates[] = {
        {"pairs_per_second", progress->pairs_per_second},
        {"flops_per_second", progress->flops_per_second},
        {"utilisation", progress->utilisation},
        {"saved", progress->saved},
    };
    struct ha_json *line = line_of("progress");
    int r = ha_json_set(line, "step", ha_json_new_int(progress->step));

    if (r == 0)
        r = ha_json_set(line, "steps", ha_json_new_int(progress->steps));
    if (r == 0)
        r = ha_json_set(line, "tokens_per_second", ha_json_new_real(progress->tokens_per_second));
    for (size_t i = 0; r == 0 && i < sizeof(rates) / sizeof(rates[0]); i++)
        if (rates[i].value > 0)
            r = ha_json_set(line, rates[i].name, ha_json_new_real(rates[i].value));
    return finish(context, line, r, err);
}

static int metrics(void *context, int64_t cell, int64_t step, const struct ha_reported_metric *list,
                   int64_t n, struct ha_error *err)
{
    struct ha_json *line = line_of("metric"), *values = ha_json_new_object();
    int r = ha_json_set(line, "values", values);

    for (int64_t i = 0; r == 0 && i < n; i++)
        r = ha_json_set(values, list[i].name, ha_json_new_real(list[i].value));
    if (r == 0)
        r = ha_json_set(line, "cell", ha_json_new_int(cell));
    if (r == 0)
        r = ha_json_set(line, "step", ha_json_new_int(step));
    return finish(context, line, r, err);
}

/* Texts of the lines are C strings to their readers: U+FFFD stands for a zero byte. */
static struct ha_json *text_of(const char *bytes, size_t size)
{
    struct ha_json *json = NULL;
    struct ha_buffer text;
    int r = 0;

    if (!memchr(bytes, '\0', size))
        return ha_json_new_string_n(bytes, size);
    ha_buffer_init(&text, 0);
    for (size_t i = 0; r == 0 && i < size; i++)
        r = bytes[i] ? ha_buffer_append(&text, bytes + i, 1)
                     : ha_buffer_append_text(&text, "\xef\xbf\xbd");
    if (r == 0)
        json = ha_json_new_string_n(text.data, text.size);
    ha_buffer_clear(&text);
    return json;
}

static int answer(void *context, const struct ha_reported_answer *a, struct ha_error *err)
{
    struct ha_json *line = line_of("answer");
    int r = ha_json_set(line, "cell", ha_json_new_int(a->cell));

    if (r == 0)
        r = ha_json_set(line, "prompt", ha_json_new_int(a->prompt));
    if (r == 0)
        r = ha_json_set(line, "sample", ha_json_new_int(a->sample));
    if (r == 0)
        r = ha_json_set(line, "prompt_text", text_of(a->prompt_text, a->prompt_bytes));
    if (r == 0)
        r = ha_json_set(line, "text", text_of(a->text, a->text_bytes));
    if (r == 0)
        r = ha_json_set(line, "raw", text_of(a->raw, a->raw_bytes));
    if (r == 0)
        r = ha_json_set(line, "finish", ha_json_new_string(a->finish));
    if (r == 0)
        r = ha_json_set(line, "prompt_tokens", ha_json_new_int(a->prompt_tokens));
    if (r == 0)
        r = ha_json_set(line, "tokens", ha_json_new_int(a->tokens));
    return finish(context, line, r, err);
}

static int norm(void *context, const struct ha_reported_norm *n, struct ha_error *err)
{
    struct ha_json *line = line_of("probe");
    int r = ha_json_set(line, "cell", ha_json_new_int(n->cell));

    if (r == 0)
        r = ha_json_set(line, "block", ha_json_new_string(n->block));
    if (r == 0)
        r = ha_json_set(line, "layer", ha_json_new_int(n->layer));
    if (r == 0)
        r = ha_json_set(line, "layers", ha_json_new_int(n->layers));
    if (r == 0)
        r = ha_json_set(line, "module", ha_json_new_string(n->module));
    if (r == 0)
        r = ha_json_set(line, "norm", ha_json_new_real(n->norm));
    if (r == 0)
        r = ha_json_set(line, "parameters", ha_json_new_int(n->parameters));
    if (r == 0)
        r = ha_json_set(line, "pairs", ha_json_new_int(n->pairs));
    return finish(context, line, r, err);
}

static int artifact(void *context, int64_t cell, const char *kind, const char *name,
                    const char *path, int64_t step, struct ha_error *err)
{
    struct ha_json *line = line_of("artifact");
    int r = ha_json_set(line, "cell", ha_json_new_int(cell));

    if (r == 0)
        r = ha_json_set(line, "kind", ha_json_new_string(kind));
    if (r == 0)
        r = ha_json_set(line, "name", ha_json_new_string(name));
    if (r == 0)
        r = ha_json_set(line, "path", ha_json_new_string(path));
    if (r == 0)
        r = ha_json_set(line, "step", ha_json_new_int(step));
    HA_FAULT_DURABLE(NULL, path);
    return finish(context, line, r, err);
}

static int cell(void *context, int64_t id, bool done, const char *reason, bool permanent,
                struct ha_json *summary, struct ha_error *err)
{
    struct ha_json *line = line_of("cell");
    int r = ha_json_set(line, "summary", summary ? summary : ha_json_new_object());

    if (r == 0)
        r = ha_json_set(line, "cell", ha_json_new_int(id));
    if (r == 0)
        r = ha_json_set(line, "done", ha_json_new_bool(done));
    if (r == 0)
        r = ha_json_set(line, "reason", ha_json_new_string(reason));
    if (r == 0)
        r = ha_json_set(line, "permanent", ha_json_new_bool(permanent));
    return finish(context, line, r, err);
}

struct ha_reporter ha_contract_reporter(struct ha_contract_reporter *context)
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

int ha_contract_gang_ready(struct ha_contract_reporter *context, const struct ha_comm_id *id,
                           struct ha_error *err)
{
    char hex[2 * HA_COMM_ID_BYTES + 1] = "";
    struct ha_json *line = line_of("gang");
    int r = ha_json_set(line, "state", ha_json_new_string("ready"));

    for (int i = 0; id && i < HA_COMM_ID_BYTES; i++)
        (void)snprintf(hex + (size_t)2 * i, 3, "%02x", id->bytes[i]);
    if (r == 0 && id)
        r = ha_json_set(line, "id", ha_json_new_string(hex));
    return finish(context, line, r, err);
}

int ha_contract_gang_failed(struct ha_contract_reporter *context, int64_t started, int64_t finished,
                            bool followed)
{
    struct ha_json *line = line_of("gang");
    int r = ha_json_set(line, "state", ha_json_new_string("failed"));

    if (r == 0)
        r = ha_json_set(line, "started", ha_json_new_int(started));
    if (r == 0)
        r = ha_json_set(line, "finished", ha_json_new_int(finished));
    if (r == 0)
        r = ha_json_set(line, "followed", ha_json_new_bool(followed));
    return finish(context, line, r, NULL);
}

int ha_contract_model(void *context, const struct ha_engine_loaded *loaded, struct ha_error *err)
{
    struct ha_json *line = line_of("model");
    int r = ha_json_set(line, "bytes", ha_json_new_int(loaded->bytes));

    if (r == 0)
        r = ha_json_set(line, "read_bytes", ha_json_new_int(loaded->read_bytes));
    if (r == 0)
        r = ha_json_set(line, "device_bytes", ha_json_new_int(loaded->device_bytes));
    if (r == 0)
        r = ha_json_set(line, "seconds", ha_json_new_real(loaded->seconds));
    return finish(context, line, r, err);
}

int ha_contract_waits(struct ha_contract_reporter *context, struct ha_error *err)
{
    return put(context, line_of("waits"), err);
}

int ha_contract_error(struct ha_contract_reporter *context, const char *text)
{
    struct ha_json *line = line_of("error");

    return finish(context, line, ha_json_set(line, "text", ha_json_new_string(text)), NULL);
}
