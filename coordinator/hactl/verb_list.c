#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"
#include "coordinator/report/table.h"

static struct ha_json *rows_json(const struct ha_wire_sweep_list *list)
{
    struct ha_json *json = ha_json_new_array();
    int r = json ? 0 : -1;

    for (int64_t i = 0; r == 0 && i < list->n_sweeps; i++) {
        const struct ha_wire_sweep_row *row = &list->sweeps[i];
        struct ha_json *item = ha_json_new_object();

        if (ha_json_append(json, item) < 0 ||
            ha_json_set(item, "id", ha_json_new_int((int64_t)row->sweep)) < 0 ||
            ha_json_set(item, "name", ha_json_new_string(row->name)) < 0 ||
            ha_json_set(item, "state", ha_json_new_string(row->state)) < 0 ||
            ha_json_set(item, "reason", ha_json_new_string(row->reason)) < 0 ||
            ha_json_set(item, "cells", ha_json_new_int(row->cells)) < 0 ||
            ha_json_set(item, "stages", ha_json_new_int(row->stages)) < 0 ||
            ha_json_set(item, "stages_done", ha_json_new_int(row->stages_done)) < 0 ||
            ha_json_set(item, "stages_failed", ha_json_new_int(row->stages_failed)) < 0 ||
            ha_json_set(item, "created_ms", ha_json_new_int(row->created_ms)) < 0)
            r = -1;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static struct ha_table *rows_table(const struct ha_wire_sweep_list *list)
{
    struct ha_table *table = ha_table_create("");
    char stamp[HA_CLOCK_STAMP_BYTES];

    ha_table_column_number(table, "ID");
    ha_table_column_text(table, "NAME");
    ha_table_column_text(table, "STATE");
    ha_table_column_number(table, "CELLS");
    ha_table_column_number(table, "STAGES DONE");
    ha_table_column_number(table, "FAILED");
    ha_table_column_text(table, "CREATED");
    for (int64_t i = 0; i < list->n_sweeps; i++) {
        const struct ha_wire_sweep_row *row = &list->sweeps[i];

        ha_table_format(table, "%llu", (unsigned long long)row->sweep);
        ha_table_text(table, row->name);
        ha_table_text(table, row->state);
        ha_table_format(table, "%lld", (long long)row->cells);
        ha_table_format(table, "%lld/%lld", (long long)row->stages_done, (long long)row->stages);
        ha_table_format(table, "%lld", (long long)row->stages_failed);
        ha_table_text(table, ha_clock_stamp(row->created_ms, stamp));
    }
    return table;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    struct ha_session *session;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    r = ha_link_call(ha_session_link(session), &request, HA_WIRE_SWEEP_LIST, 0, &reply, err);
    if (r == 0) {
        if (ha_arguments_given(arguments, "json"))
            r = ha_output_json(rows_json(&reply->body.sweep_list), err);
        else
            r = ha_output_table(rows_table(&reply->body.sweep_list), HA_OUTPUT_PLAIN, err);
        ha_wire_message_destroy(reply);
    }
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {{"json", NULL, "print JSON"}};

const struct ha_verb ha_verb_list = {
    .name = "list",
    .command =
        {
            .name = "hactl list",
            .synopsis = "",
            .summary = "list the sweeps",
            .example = "hactl list --dir runs/demo",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
