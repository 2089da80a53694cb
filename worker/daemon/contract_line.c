#include "worker/daemon/contract_line.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

enum { MAX_ID_CHARS = 1024 };

static const char *text_of(const struct ha_json *json, const char *key)
{
    return ha_json_string(ha_json_get(json, key), "");
}

static int64_t count_of(const struct ha_json *json, const char *key)
{
    return ha_json_int(ha_json_get(json, key), 0);
}

/* A number; null stands for one that is not finite. */
static double real_of(const struct ha_json *json)
{
    return ha_json_real(json, NAN);
}

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

static int wrong(const char *what, struct ha_error *err)
{
    return ha_error_set(err, EINVAL, "the attempt sent a line with a wrong %s", what);
}

static int make_events(struct contract_line *line, int64_t n, struct ha_error *err)
{
    line->kind = CONTRACT_EVENTS;
    line->events = ha_calloc(n, sizeof(*line->events));
    if (!line->events)
        return no_memory(err);
    line->n_events = n;
    return 0;
}

static int parse_phase(struct contract_line *line, struct ha_error *err)
{
    line->kind = CONTRACT_PHASE;
    line->text = text_of(line->json, "phase");
    return line->text[0] ? 0 : wrong("phase", err);
}

/* 0 where it is not told, or no rate. */
static double rate_of(const struct ha_json *json, const char *name)
{
    double rate = ha_json_real(ha_json_get(json, name), 0);

    return isfinite(rate) && rate > 0 ? rate : 0;
}

static int parse_progress(struct contract_line *line, struct ha_error *err)
{
    line->kind = CONTRACT_PROGRESS;
    line->progress = (struct attempt_progress){
        .step = count_of(line->json, "step"),
        .steps = count_of(line->json, "steps"),
        .tokens_per_second = rate_of(line->json, "tokens_per_second"),
        .utilisation = rate_of(line->json, "utilisation"),
    };
    return line->progress.step >= 0 && line->progress.steps >= 0 ? 0 : wrong("step", err);
}

static int parse_metric(struct contract_line *line, struct ha_error *err)
{
    const struct ha_json *values = ha_json_get(line->json, "values");
    uint64_t cell = (uint64_t)count_of(line->json, "cell");
    int64_t step = count_of(line->json, "step"), n = 0;
    void *iterator = NULL;
    const char *name;
    struct ha_json *value;
    int r;

    if (!ha_json_is(values, HA_JSON_OBJECT))
        return wrong("table of values", err);
    r = make_events(line, ha_json_size(values), err);
    while (r == 0 && ha_json_next(values, &iterator, &name, &value))
        line->events[n++] = (struct ha_wire_attempt_event){
            .kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
            .event.metric = {.cell = cell, .step = step, .name = name, .value = real_of(value)}};
    return r;
}

static int parse_answer(struct contract_line *line, struct ha_error *err)
{
    const struct ha_json *json = line->json;
    int r = make_events(line, 1, err);

    if (r < 0)
        return r;
    line->events[0] = (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
        .event.answer = {.cell = (uint64_t)count_of(json, "cell"),
                         .prompt = count_of(json, "prompt"),
                         .sample = (uint32_t)count_of(json, "sample"),
                         .prompt_text = text_of(json, "prompt_text"),
                         .text = text_of(json, "text"),
                         .raw = text_of(json, "raw"),
                         .finish = text_of(json, "finish"),
                         .prompt_tokens = count_of(json, "prompt_tokens"),
                         .tokens = count_of(json, "tokens")}};
    return 0;
}

static int parse_norm(struct contract_line *line, struct ha_error *err)
{
    const struct ha_json *json = line->json;
    double norm = real_of(ha_json_get(json, "norm"));
    int r = make_events(line, 1, err);

    if (r < 0)
        return r;
    if (!isfinite(norm) || norm < 0)
        return wrong("norm", err);
    line->events[0] =
        (struct ha_wire_attempt_event){.kind = HA_WIRE_ATTEMPT_EVENT_NORM,
                                       .event.norm = {.cell = (uint64_t)count_of(json, "cell"),
                                                      .block = text_of(json, "block"),
                                                      .layer = count_of(json, "layer"),
                                                      .layers = count_of(json, "layers"),
                                                      .module = text_of(json, "module"),
                                                      .norm = norm,
                                                      .parameters = count_of(json, "parameters"),
                                                      .pairs = count_of(json, "pairs")}};
    return 0;
}

static int parse_cell(struct contract_line *line, struct ha_error *err)
{
    const struct ha_json *json = line->json, *summary = ha_json_get(json, "summary");
    int r = make_events(line, 1, err);

    if (r < 0)
        return r;
    line->summary = summary ? ha_json_dump(summary, HA_JSON_COMPACT) : ha_strdup("{}");
    if (!line->summary)
        return no_memory(err);
    line->events[0] = (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_CELL,
        .event.cell = {.cell = (uint64_t)count_of(json, "cell"),
                       .done = ha_json_bool(ha_json_get(json, "done"), false),
                       .reason = text_of(json, "reason"),
                       .permanent = ha_json_bool(ha_json_get(json, "permanent"), false),
                       .summary_json = line->summary}};
    return 0;
}

/* A path that cannot lead out of the folder it is relative to. */
static bool stays_inside(const char *path)
{
    if (path[0] == '/' || path[0] == '\0')
        return false;
    while (*path) {
        size_t length = strcspn(path, "/");

        if (length == 2 && strncmp(path, "..", 2) == 0)
            return false;
        path += length + (path[length] == '/');
    }
    return true;
}

static int parse_artifact(struct contract_line *line, struct ha_error *err)
{
    const struct ha_json *json = line->json;

    line->kind = CONTRACT_ARTIFACT;
    line->text = text_of(json, "path");
    line->artifact = (struct ha_wire_attempt_artifact){.cell = (uint64_t)count_of(json, "cell"),
                                                       .kind = text_of(json, "kind"),
                                                       .name = text_of(json, "name"),
                                                       .step = count_of(json, "step")};
    return stays_inside(line->text) ? 0 : wrong("path", err);
}

static int parse_error(struct contract_line *line, struct ha_error *err)
{
    (void)err;
    line->kind = CONTRACT_ERROR;
    line->text = text_of(line->json, "text");
    return 0;
}

static int parse_gang(struct contract_line *line, struct ha_error *err)
{
    line->kind = CONTRACT_GANG;
    line->text = text_of(line->json, "state");
    line->gang_id = text_of(line->json, "id");
    line->gang_started = count_of(line->json, "started");
    line->gang_finished = count_of(line->json, "finished");
    line->gang_followed = ha_json_bool(ha_json_get(line->json, "followed"), false);
    return line->gang_started >= 0 && line->gang_finished >= 0 &&
                   strlen(line->gang_id) <= MAX_ID_CHARS
               ? 0
               : wrong("gang", err);
}

static int parse_model(struct contract_line *line, struct ha_error *err)
{
    struct contract_model *model = &line->model;

    line->kind = CONTRACT_MODEL;
    *model = (struct contract_model){.bytes = count_of(line->json, "bytes"),
                                     .read_bytes = count_of(line->json, "read_bytes"),
                                     .device_bytes = count_of(line->json, "device_bytes"),
                                     .seconds = rate_of(line->json, "seconds")};
    return model->bytes >= 0 && model->read_bytes >= 0 && model->device_bytes >= 0
               ? 0
               : wrong("model", err);
}

static int parse_waits(struct contract_line *line, struct ha_error *err)
{
    (void)err;
    line->kind = CONTRACT_WAITS;
    return 0;
}

static const struct {
    const char *type;
    int (*parse)(struct contract_line *line, struct ha_error *err);
} types[] = {
    {"phase", parse_phase},   {"progress", parse_progress}, {"metric", parse_metric},
    {"answer", parse_answer}, {"artifact", parse_artifact}, {"cell", parse_cell},
    {"error", parse_error},   {"probe", parse_norm},        {"gang", parse_gang},
    {"model", parse_model},   {"waits", parse_waits},
};

/* Refused here, where the attempt can be stopped for it, and not when a report is to be sent: it
 * would be tried for ever. */
static int check_rules(const struct contract_line *line, struct ha_error *err)
{
    struct ha_wire_attempt_event artifact = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                             .event.artifact = line->artifact};
    struct ha_wire_message report = {.protocol = HA_WIRE_PROTOCOL, .kind = HA_WIRE_REPORT};
    struct ha_error why = {0};
    struct ha_buffer frame;
    int r;

    if (line->kind != CONTRACT_EVENTS && line->kind != CONTRACT_ARTIFACT)
        return 0;
    report.body.report.events = line->kind == CONTRACT_EVENTS ? line->events : &artifact;
    report.body.report.n_events = line->kind == CONTRACT_EVENTS ? line->n_events : 1;
    ha_buffer_init(&frame, ha_wire_default_limits.frame_bytes);
    r = ha_wire_encode(&report, &frame, &why);
    ha_buffer_clear(&frame);
    if (r < 0)
        return ha_error_set(err, r == -ENOMEM ? ENOMEM : EINVAL,
                            "the attempt sent a line that cannot be reported: %s",
                            ha_error_text(&why));
    return 0;
}

int contract_line_parse(const char *bytes, size_t size, struct contract_line *ret_line,
                        struct ha_error *err)
{
    struct contract_line line = {.kind = CONTRACT_OTHER};
    const char *type;
    int r = ha_json_parse(bytes, size, "the attempt's line", &line.json, err);

    if (r < 0)
        return r == -ENOMEM ? r : -EINVAL;
    type = text_of(line.json, "type");
    if (type[0] == '\0')
        r = wrong("type", err);
    for (size_t i = 0; r == 0 && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].type, type) == 0)
            r = types[i].parse(&line, err);
    }
    if (r == 0)
        r = check_rules(&line, err);
    if (r < 0)
        contract_line_clear(&line);
    else
        *ret_line = line;
    return r;
}

void contract_line_clear(struct contract_line *line)
{
    ha_json_destroy(line->json);
    free(line->events);
    free(line->summary);
    *line = (struct contract_line){.kind = CONTRACT_OTHER};
}

bool contract_is_starved(const char *error)
{
    const char *at = strstr(error, CONTRACT_STARVED);
    size_t before = strlen(CONTRACT_PERHAPS);

    return at &&
           ((size_t)(at - error) < before || strncmp(at - before, CONTRACT_PERHAPS, before) != 0);
}
