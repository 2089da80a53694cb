/* sweep_print.c - every effective value of a sweep with its source */
#include "common/conf/sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/conf/json.h"
#include "common/conf/sweep_private.h"

/* {"value": v, "source": s} */
static struct ha_json *value_json(const struct ha_section *section, const struct ha_setting *row,
                                  const void *values)
{
    const char *source = ha_setting_source_name(ha_section_source(section, row, values));
    struct ha_json *json = ha_json_new_object();

    if (json && ha_json_set(json, "value", ha_setting_json(row, values)) == 0 &&
        ha_json_set(json, "source", ha_json_new_string(source)) == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}

static struct ha_json *section_json(const struct ha_section *section, const void *values)
{
    struct ha_json *json = ha_json_new_object();

    for (int64_t i = 0; json && i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];

        if (!ha_section_has(section, row, values))
            continue;
        if (ha_json_set(json, row->key, value_json(section, row, values)) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    }
    return json;
}

static struct ha_json *array_json(const struct ha_section *section, const void *values,
                                  int64_t count)
{
    struct ha_json *json = ha_json_new_array();

    for (int64_t i = 0; json && i < count; i++)
        if (ha_json_append(json, section_json(section, (const char *)values +
                                                           (size_t)i * section->bytes)) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    return json;
}

static struct ha_json *axes_json(const struct ha_sweep *sweep)
{
    struct ha_json *json = ha_json_new_object();

    for (int64_t i = 0; json && i < sweep->axis_count; i++) {
        const struct ha_text_list *values = &sweep->axes[i].values;
        struct ha_json *list = ha_json_new_array();
        int r = list ? 0 : -ENOMEM;

        for (int64_t j = 0; r == 0 && j < values->count; j++)
            r = ha_json_append(list, ha_json_new_string(values->items[j]));
        if (r == 0)
            r = ha_json_set(json, sweep->axes[i].key, list);
        else
            ha_json_destroy(list);
        if (r < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    }
    return json;
}

/* The sections in the order of the file's reference; count -1: stands once; 0: not at all. */
struct part {
    const struct ha_section *section;
    const void *values;
    int64_t count;
};

enum { PARTS = 12 };

static void list_parts(const struct ha_sweep *sweep, struct part parts[PARTS])
{
    const struct part all[PARTS] = {
        {&ha_sweep_general_section, &sweep->general, -1},
        {&ha_sweep_model_section, sweep->models, sweep->model_count},
        {&ha_sweep_strategies_section, &sweep->use, -1},
        {&ha_sweep_strategy_section, sweep->strategies, sweep->strategy_count},
        {&ha_sweep_data_section, &sweep->data, -1},
        {&ha_sweep_train_section, &sweep->train, -1},
        {&ha_sweep_probe_section, &sweep->probe, sweep->probes ? -1 : 0},
        {&ha_sweep_generate_section, &sweep->generate, -1},
        {&ha_sweep_judge_section, sweep->judges, sweep->judge_count},
        {&ha_sweep_resources_section, &sweep->resources, -1},
        {&ha_sweep_retry_section, &sweep->retry, -1},
        {&ha_sweep_schedule_section, &sweep->schedule, -1},
    };

    for (int i = 0; i < PARTS; i++)
        parts[i] = all[i];
}

bool ha_sweep_generate_greedy(const struct ha_sweep_generate *generate)
{
    return generate->temperature <= 0.0 && strcmp(generate->settings, "ours") == 0;
}

struct ha_json *ha_sweep_generate_json(const struct ha_sweep_generate *generate, unsigned reads)
{
    const struct ha_section *section = &ha_sweep_generate_section;
    struct ha_json *all = ha_section_json(section, generate, reads), *json, *member;
    const char *key;
    void *at = NULL;

    if (!all || strcmp(generate->settings, "model") != 0)
        return all;
    json = ha_json_new_object();
    while (json && ha_json_next(all, &at, &key, &member)) {
        const struct ha_setting *row = ha_section_find(section, key);

        if (ha_section_given(section, row, generate) &&
            ha_json_set(json, key, ha_setting_json(row, generate)) < 0) {
            ha_json_destroy(json);
            json = NULL;
        }
    }
    ha_json_destroy(all);
    return json;
}

struct ha_json *ha_sweep_json(const struct ha_sweep *sweep)
{
    struct ha_json *json = ha_json_new_object();
    struct part parts[PARTS];
    int r = json ? 0 : -ENOMEM;

    list_parts(sweep, parts);
    for (int i = 0; r == 0 && i < PARTS; i++) {
        const struct part *part = &parts[i];

        if (part->section == &ha_sweep_probe_section && part->count == 0)
            continue; /* without it there is no stage of that name */
        r = ha_json_set(json, part->section->name,
                        part->count < 0 ? section_json(part->section, part->values)
                                        : array_json(part->section, part->values, part->count));
    }
    if (r == 0)
        r = ha_json_set(json, "vary", axes_json(sweep));
    if (r == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}

static int print_axes(const struct ha_sweep *sweep, struct ha_buffer *out)
{
    int r = sweep->axis_count ? ha_buffer_append_text(out, "\n[vary]\n") : 0;

    for (int64_t i = 0; r == 0 && i < sweep->axis_count; i++) {
        r = ha_buffer_printf(out, "%s =", sweep->axes[i].key);
        for (int64_t j = 0; r == 0 && j < sweep->axes[i].values.count; j++)
            r = ha_buffer_printf(out, "%s %s", j ? "," : "", sweep->axes[i].values.items[j]);
        if (r == 0)
            r = ha_buffer_append_text(out, "\n");
    }
    return r;
}

int ha_sweep_print(const struct ha_sweep *sweep, struct ha_buffer *out)
{
    struct part parts[PARTS];
    int r = 0;

    list_parts(sweep, parts);
    for (int i = 0; r == 0 && i < PARTS; i++) {
        const struct part *part = &parts[i];

        if (part->count < 0) {
            r = ha_buffer_printf(out, "%s[%s]\n", i ? "\n" : "", part->section->name);
            if (r == 0)
                r = ha_section_print(part->section, part->values, out);
        }
        for (int64_t j = 0; r == 0 && j < part->count; j++) {
            r = ha_buffer_printf(out, "\n[[%s]]\n", part->section->name);
            if (r == 0)
                r = ha_section_print(part->section,
                                     (const char *)part->values + (size_t)j * part->section->bytes,
                                     out);
        }
    }
    return r < 0 ? r : print_axes(sweep, out);
}
