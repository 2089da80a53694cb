#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/settings.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/change.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"
#include "coordinator/report/table.h"

static struct ha_json *devices_json(const struct ha_wire_worker_row *row)
{
    struct ha_json *json = ha_json_new_array();
    int r = json ? 0 : -1;

    for (int64_t i = 0; r == 0 && i < row->n_devices; i++) {
        const struct ha_wire_device *device = &row->devices[i];
        const struct {
            const char *name;
            int64_t value;
        } numbers[] = {{"index", device->index},
                       {"memory_bytes", device->memory_bytes},
                       {"memory_used_bytes", device->memory_used_bytes},
                       {"utilisation_percent", device->utilisation_percent},
                       {"temperature_c", device->temperature_c},
                       {"ecc_uncorrected", device->ecc_uncorrected},
                       {"since_ms", device->since_ms}};
        struct ha_json *item = ha_json_new_object();

        r = ha_json_append(json, item);
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0] && r == 0; k++)
            r = ha_json_set(item, numbers[k].name, ha_json_new_int(numbers[k].value));
        if (r < 0 || ha_json_set(item, "name", ha_json_new_string(device->name)) < 0 ||
            ha_json_set(item, "uuid", ha_json_new_string(device->uuid)) < 0 ||
            ha_json_set(item, "state", ha_json_new_string(device->state)) < 0 ||
            ha_json_set(item, "reason", ha_json_new_string(device->reason)) < 0)
            r = -1;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static struct ha_json *models_json(const struct ha_wire_worker_row *row)
{
    struct ha_json *json = ha_json_new_array();
    int r = json ? 0 : -1;

    for (int64_t i = 0; r == 0 && i < row->n_models; i++) {
        const struct ha_wire_held_model *model = &row->models[i];
        struct ha_json *item = ha_json_new_object();

        if (ha_json_append(json, item) < 0 ||
            ha_json_set(item, "name", ha_json_new_string(model->name)) < 0 ||
            ha_json_set(item, "digest", ha_json_new_string(model->digest)) < 0 ||
            ha_json_set(item, "bytes", ha_json_new_int(model->bytes)) < 0 ||
            ha_json_set(item, "where", ha_json_new_string(model->where)) < 0 ||
            ha_json_set(item, "load_ms", ha_json_new_int(model->load_ms)) < 0)
            r = -1;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static struct ha_json *rows_json(const struct ha_wire_workers_reply *reply)
{
    struct ha_json *json = ha_json_new_array();
    int r = json ? 0 : -1;

    for (int64_t i = 0; r == 0 && i < reply->n_workers; i++) {
        const struct ha_wire_worker_row *row = &reply->workers[i];
        struct ha_json *item = ha_json_new_object();

        if (ha_json_append(json, item) < 0 ||
            ha_json_set(item, "name", ha_json_new_string(row->name)) < 0 ||
            ha_json_set(item, "role", ha_json_new_string(row->role)) < 0 ||
            ha_json_set(item, "state", ha_json_new_string(row->state)) < 0 ||
            ha_json_set(item, "host", ha_json_new_string(row->host)) < 0 ||
            ha_json_set(item, "backend", ha_json_new_string(row->backend)) < 0 ||
            ha_json_set(item, "slots", ha_json_new_int(row->slots)) < 0 ||
            ha_json_set(item, "running", ha_json_new_int(row->n_running)) < 0 ||
            ha_json_set(item, "last_seen_ms", ha_json_new_int(row->last_seen_ms)) < 0 ||
            ha_json_set(item, "version", ha_json_new_string(row->version)) < 0 ||
            ha_json_set(item, "key", ha_json_new_string(row->key)) < 0 ||
            ha_json_set(item, "note", ha_json_new_string(row->note)) < 0 ||
            ha_json_set(item, "devices", devices_json(row)) < 0 ||
            ha_json_set(item, "models", models_json(row)) < 0)
            r = -1;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static struct ha_table *rows_table(const struct ha_wire_workers_reply *reply)
{
    struct ha_table *table = ha_table_create("");
    char stamp[HA_CLOCK_STAMP_BYTES];

    ha_table_column_text(table, "NAME");
    ha_table_column_text(table, "ROLE");
    ha_table_column_text(table, "STATE");
    ha_table_column_text(table, "HOST");
    ha_table_column_number(table, "RUNNING");
    ha_table_column_text(table, "LAST SEEN");
    ha_table_column_text(table, "BACKEND");
    ha_table_column_text(table, "KEY");
    ha_table_column_text(table, "DRAINED BY");
    for (int64_t i = 0; i < reply->n_workers; i++) {
        const struct ha_wire_worker_row *row = &reply->workers[i];

        ha_table_text(table, row->name);
        ha_table_text(table, row->role);
        ha_table_text(table, row->state);
        ha_table_text(table, row->host);
        ha_table_format(table, "%lld/%u", (long long)row->n_running, row->slots);
        ha_table_text(table, ha_clock_stamp(row->last_seen_ms, stamp));
        ha_table_text(table, row->backend);
        ha_table_text(table, row->key[0] ? row->key : "-");
        ha_table_text(table, row->note);
    }
    return table;
}

static void number_cell(struct ha_table *table, int64_t value, const char *unit)
{
    if (value < 0)
        ha_table_text(table, "-");
    else
        ha_table_format(table, "%lld%s", (long long)value, unit);
}

/* ret_some: whether any worker told one. */
static struct ha_table *devices_table(const struct ha_wire_workers_reply *reply, bool *ret_some)
{
    struct ha_table *table = ha_table_create("GPUs");
    const double gib = 1024.0 * 1024.0 * 1024.0;

    ha_table_column_text(table, "WORKER");
    ha_table_column_number(table, "GPU");
    ha_table_column_text(table, "STATE");
    ha_table_column_text(table, "NAME");
    ha_table_column_number(table, "GIB USED");
    ha_table_column_number(table, "BUSY");
    ha_table_column_number(table, "TEMP");
    ha_table_column_text(table, "UUID");
    ha_table_column_text(table, "REASON");
    *ret_some = false;
    for (int64_t i = 0; i < reply->n_workers; i++) {
        for (int64_t k = 0; k < reply->workers[i].n_devices; k++) {
            const struct ha_wire_device *device = &reply->workers[i].devices[k];

            *ret_some = true;
            ha_table_text(table, reply->workers[i].name);
            number_cell(table, device->index, "");
            ha_table_text(table, device->state);
            ha_table_text(table, device->name);
            if (device->memory_bytes < 0)
                ha_table_text(table, "-");
            else if (device->memory_used_bytes < 0)
                ha_table_format(table, "-/%.1f", (double)device->memory_bytes / gib);
            else
                ha_table_format(table, "%.1f/%.1f", (double)device->memory_used_bytes / gib,
                                (double)device->memory_bytes / gib);
            number_cell(table, device->utilisation_percent, " %");
            number_cell(table, device->temperature_c, " C");
            ha_table_text(table, device->uuid);
            ha_table_text(table, device->reason);
        }
    }
    return table;
}

/* What a next job of each model would find. */
static struct ha_table *models_table(const struct ha_wire_workers_reply *reply, bool *ret_some)
{
    struct ha_table *table = ha_table_create("Models");

    ha_table_column_text(table, "WORKER");
    ha_table_column_text(table, "MODEL");
    ha_table_column_number(table, "GIB");
    ha_table_column_text(table, "WHERE");
    ha_table_column_number(table, "LOADS IN");
    *ret_some = false;
    for (int64_t i = 0; i < reply->n_workers; i++) {
        for (int64_t k = 0; k < reply->workers[i].n_models; k++) {
            const struct ha_wire_held_model *model = &reply->workers[i].models[k];

            *ret_some = true;
            ha_table_text(table, reply->workers[i].name);
            ha_table_text(table, model->name);
            ha_table_format(table, "%.2f", (double)model->bytes / 0x1p30);
            ha_table_text(table, model->where);
            ha_table_format(table, "%.1f s", (double)model->load_ms / 1000);
        }
    }
    return table;
}

static int print_tables(const struct ha_wire_workers_reply *reply, struct ha_error *err)
{
    struct ha_table *(*const more[])(const struct ha_wire_workers_reply *, bool *) = {devices_table,
                                                                                      models_table};
    int r = ha_output_table(rows_table(reply), HA_OUTPUT_PLAIN, err);

    for (size_t i = 0; r == 0 && i < sizeof more / sizeof more[0]; i++) {
        bool some;
        struct ha_table *table = more[i](reply, &some);

        if (some)
            r = ha_output_table(table, HA_OUTPUT_PLAIN, err);
        else
            ha_table_destroy(table);
    }
    return r;
}

static int list(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_WORKERS_REQUEST}, *reply;
    struct ha_session *session;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    r = ha_link_call(ha_session_link(session), &request, HA_WIRE_WORKERS_REPLY, 0, &reply, err);
    if (r == 0) {
        if (ha_arguments_given(arguments, "json"))
            r = ha_output_json(rows_json(&reply->body.workers_reply), err);
        else
            r = print_tables(&reply->body.workers_reply, err);
        ha_wire_message_destroy(reply);
    }
    ha_session_close(session);
    return r;
}

/* --deadline reads as every duration in a file does. */
struct deadline {
    uint64_t given;
    int64_t deadline_s;
};

static const struct ha_setting deadline_rows[] = {{
    .key = "deadline",
    .type = HA_SETTING_DURATION,
    .offset = offsetof(struct deadline, deadline_s),
    .minimum = 1,
    .maximum = 30 * 86400,
    .source = HA_SOURCE_OURS,
    .help = "of a drain",
}};
static const struct ha_section deadline_section = {"", deadline_rows, 1, sizeof(struct deadline)};

static int drain(const struct ha_arguments *arguments, const char *verb, struct ha_error *err)
{
    const char *text = ha_arguments_value(arguments, "deadline", NULL);
    struct deadline deadline = {0};
    struct ha_wire_change change = {.verb = verb, .worker = ha_arguments_at(arguments, 1, NULL)};
    int r = 0;

    if (!change.worker)
        return ha_error_set(err, EINVAL, "name the worker: hactl workers %s NAME", verb);
    if (text)
        r = ha_section_set(&deadline_section, &deadline_rows[0], text, "--deadline", &deadline,
                           err);
    change.deadline_ms = deadline.deadline_s * 1000;
    return r < 0 ? r : ha_change_send(arguments, &change, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *action = ha_arguments_at(arguments, 0, NULL);

    if (!action)
        return list(arguments, err);
    if (strcmp(action, "drain") == 0 || strcmp(action, "undrain") == 0)
        return drain(arguments, action, err);
    return ha_error_set(err, EINVAL, "\"%.40s\": drain and undrain are known", action);
}

static const struct ha_option options[] = {
    {"json", NULL, "print JSON"},
    {"deadline", "DURATION", "of drain: then attempts are stopped at a checkpoint (10m, 2h)"},
    {"reason", "TEXT", "of drain: kept in the history and shown by workers and why"},
};

const struct ha_verb ha_verb_workers = {
    .name = "workers",
    .command =
        {
            .name = "hactl workers",
            .synopsis = "[drain NAME | undrain NAME]",
            .summary = "list the workers and judge workers; drain one: it gets no new work",
            .example = "hactl workers drain node7 --deadline 10m --reason 'new driver'",
            .max_positional = 2,
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
