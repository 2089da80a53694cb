#include "coordinator/hactl/plan_preview.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/hactl/capture.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/hactl/plan_shapes.h"
#include "coordinator/report/table.h"

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

static int add_argument(struct ha_text_list *arguments, const char *option, const char *value,
                        struct ha_error *err)
{
    int r = ha_text_list_append(arguments, option, err);

    return r < 0 || !value ? r : ha_text_list_append(arguments, value, err);
}

/* --set SECTION.KEY=VALUE of what the grid gives: one key, or all (NULL). */
static int add_settings(struct ha_text_list *arguments, const struct ha_section *section,
                        const void *values, const char *key, struct ha_error *err)
{
    for (int64_t i = 0; i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];
        char *value, *text;
        int r;

        if ((key && strcmp(row->key, key) != 0) || !ha_section_given(section, row, values))
            continue;
        value = ha_section_text(row, values);
        text = value ? ha_format("%s.%s=%s", section->name, row->key, value) : NULL;
        r = text ? add_argument(arguments, "--set", text, err) : out_of_memory(err);
        free(text);
        free(value);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --ranks N where a job has several GPUs, of all its nodes together. */
static int add_ranks(struct ha_text_list *arguments, const struct ha_sweep_resources *resources,
                     struct ha_error *err)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%lld", (long long)resources->gpus);
    return resources->gpus > 1 ? add_argument(arguments, "--ranks", text, err) : 0;
}

/* For the grid's own [train] settings, or for those of a shape. */
static int make_arguments(const struct ha_grid_input *input, const char *dir,
                          const char *gpu_memory, const struct ha_plan_shape *shape,
                          struct ha_text_list *arguments, struct ha_error *err)
{
    const struct ha_sweep *sweep = input->sweep;
    const struct ha_sweep_train *train = shape ? shape->train : &sweep->train;
    const char *limit = train->memory_limit;
    int r = add_argument(arguments, "ha-attempt", "plan", err);

    if (r == 0)
        r = add_argument(arguments, "--json", NULL, err);
    if (r == 0)
        r = add_argument(arguments, "--model", dir, err);
    if (r == 0)
        r = add_argument(arguments, "--gpu-memory", gpu_memory, err);
    if (r == 0 && strcmp(limit, "auto") != 0)
        r = add_argument(arguments, "--memory", limit, err);
    if (r == 0)
        r = add_ranks(arguments, &sweep->resources, err);
    if (r == 0)
        r = add_settings(arguments, &ha_sweep_train_section, train, NULL, err);
    if (r == 0)
        r = add_settings(arguments, &ha_sweep_data_section, &sweep->data, "train_samples", err);
    if (r == 0)
        r = add_settings(arguments, &ha_sweep_data_section, &sweep->data, "eval_samples", err);
    if (r == 0)
        r = add_settings(arguments, &ha_sweep_generate_section, &sweep->generate, "max_new_tokens",
                         err);
    if (r == 0)
        r = add_settings(arguments, &ha_sweep_generate_section, &sweep->generate, "batch_invariant",
                         err);
    return r;
}

/* Runs it; the list gets its end. */
static int ask(struct ha_text_list *arguments, struct ha_json **ret_plan, struct ha_error *err)
{
    const char **words = ha_calloc(arguments->count + 1, sizeof(*words));
    char *text = NULL;
    int r;

    if (!words)
        return out_of_memory(err);
    memcpy(words, arguments->items, (size_t)arguments->count * sizeof(*words));
    r = ha_capture(words, &text, err);
    free(words);
    if (r == 0)
        r = ha_json_parse(text, strlen(text), "ha-attempt plan", ret_plan, err);
    free(text);
    return r;
}

/* --strategy LABEL=LAYERS for each shape from `first` on that its settings fit. */
static int add_strategies(struct ha_text_list *arguments, const struct ha_plan_shapes *shapes,
                          int64_t first, bool *done, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = first; r == 0 && i < shapes->count; i++) {
        const struct ha_plan_shape *shape = &shapes->items[i];
        char *text;

        if (done[i] || !ha_plan_shapes_agree(shape, &shapes->items[first]))
            continue;
        done[i] = true;
        text = ha_format("%s=%s", shape->label, shape->layers);
        r = text ? add_argument(arguments, "--strategy", text, err) : out_of_memory(err);
        free(text);
    }
    return r;
}

static int add_copy(struct ha_json *to, const char *name, const struct ha_json *value)
{
    char *text = ha_json_dump(value, HA_JSON_COMPACT);
    struct ha_json *copy = NULL;
    int r = text ? ha_json_parse(text, strlen(text), name, &copy, NULL) : -ENOMEM;

    free(text);
    return r < 0 ? r : ha_json_set(to, name, copy);
}

/* The strategies of another plan of the model, on CPU and GPU, beside those of this one. */
static int merge(struct ha_json *plan, const struct ha_json *other)
{
    struct ha_json *to[] = {ha_json_get(plan, "strategies"),
                            ha_json_get(ha_json_get(plan, "gpu"), "strategies")};
    const struct ha_json *from[] = {ha_json_get(other, "strategies"),
                                    ha_json_get(ha_json_get(other, "gpu"), "strategies")};
    int r = 0;

    for (int k = 0; k < 2; k++) {
        struct ha_json *one;
        const char *name;
        void *at = NULL;

        while (r == 0 && ha_json_next(from[k], &at, &name, &one))
            r = add_copy(to[k], name, one);
    }
    return r;
}

/* One plan for all shapes of equal settings. */
static int plan_shapes(const struct ha_grid_input *input, int64_t model, const char *gpu_memory,
                       const struct ha_plan_shapes *shapes, struct ha_json *plan,
                       struct ha_error *err)
{
    bool *done = ha_calloc(shapes->count, sizeof(*done));
    int r = done ? 0 : out_of_memory(err);

    for (int64_t i = 0; r == 0 && i < shapes->count; i++)
        done[i] = shapes->items[i].built_in;
    for (int64_t i = 0; r == 0 && i < shapes->count; i++) {
        struct ha_text_list arguments = {0};
        struct ha_json *other = NULL;

        if (done[i])
            continue;
        r = make_arguments(input, input->models[model].dir, gpu_memory, &shapes->items[i],
                           &arguments, err);
        if (r == 0)
            r = add_strategies(&arguments, shapes, i, done, err);
        if (r == 0)
            r = ask(&arguments, &other, err);
        if (r == 0 && merge(plan, other) < 0)
            r = out_of_memory(err);
        ha_json_destroy(other);
        ha_text_list_clear(&arguments);
    }
    free(done);
    return r;
}

int ha_plan_preview(const struct ha_grid_input *input, int64_t model, const char *gpu_memory,
                    struct ha_json **ret_plan, struct ha_error *err)
{
    struct ha_text_list arguments = {0};
    struct ha_plan_shapes shapes = {0};
    struct ha_json *plan = NULL;
    int r = make_arguments(input, input->models[model].dir, gpu_memory, NULL, &arguments, err);

    if (r == 0)
        r = ask(&arguments, &plan, err);
    if (r == 0)
        r = ha_plan_shapes_find(input->grid, model, &shapes, err);
    if (r == 0)
        r = plan_shapes(input, model, gpu_memory, &shapes, plan, err);
    if (r == 0 && ha_json_set(plan, "cells_left_out", ha_json_new_int(shapes.left_out)) < 0)
        r = out_of_memory(err);
    ha_plan_shapes_clear(&shapes);
    ha_text_list_clear(&arguments);
    if (r < 0) {
        ha_json_destroy(plan);
        return ha_error_prefix(err, "model %s", input->sweep->models[model].name);
    }
    *ret_plan = plan;
    return 0;
}

/* ---- the table ---- */

static struct ha_table *start_table(const char *gpu_memory)
{
    struct ha_table *table = ha_table_create("Plan of each model and strategy");

    ha_table_column_text(table, "Model");
    ha_table_column_text(table, "Strategy");
    ha_table_column_text(table, "Layers");
    ha_table_column_number(table, "Trainable");
    ha_table_column_number(table, "% of model");
    ha_table_column_number(table, "CPU MiB");
    ha_table_column_number(table, "GPU MiB");
    ha_table_column_number(table, "Run again");
    ha_table_column_text(table, "Fits GPU");
    ha_table_column_number(table, "TFLOP per pair");
    ha_table_column_number(table, "of TRL");
    ha_table_note(
        table,
        "At the grid's settings, for the largest pack that train.max_length allows; also of "
        "its own strategies and where [vary] changes the memory (auto:K as the lowest K "
        "layers, which take the most).  CPU: "
        "f32, weights read from the mapped files and not counted; GPU of %s: bf16, "
        "weights held, 5 %% margin, layers run again so that it fits.",
        gpu_memory);
    ha_table_note(table, "TFLOP per pair as one of several in lock-step; lockstep: local, mid, "
                         "global and full in one job, their reference included.  ha-attempt plan "
                         "shows the parts.");
    return table;
}

static double number(const struct ha_json *json, const char *key)
{
    return ha_json_real(ha_json_get(json, key), 0);
}

static void add_row(struct ha_table *table, const char *model, const char *name, double parameters,
                    const struct ha_json *cpu, const struct ha_json *gpu)
{
    double trainable = number(cpu, "trainable_parameters");

    ha_table_text(table, model);
    ha_table_text(table, name);
    ha_table_text(table, ha_json_string(ha_json_get(cpu, "layers"), ""));
    ha_table_format(table, "%.0f", trainable);
    ha_table_real(table, parameters > 0 ? 100 * trainable / parameters : 0, 3);
    ha_table_real(table, number(cpu, "memory_bytes") / (1 << 20), 0);
    ha_table_real(table, number(gpu, "memory_bytes") / (1 << 20), 0);
    ha_table_real(table, number(gpu, "recomputed_layers"), 0);
    if (!ha_json_bool(ha_json_get(gpu, "fits"), false))
        ha_table_text(table, "no");
    else if (number(gpu, "weight_shards") > 1)
        ha_table_format(table, "weights in %.0f shares", number(gpu, "weight_shards"));
    else
        ha_table_text(table, "yes");
    ha_table_real(table, number(cpu, "lockstep_flops_per_pair") / 1e12, 4);
    ha_table_real(table, number(cpu, "trl_flops_per_pair") / 1e12, 4);
}

static void add_model(struct ha_table *table, const char *model, const struct ha_json *plan)
{
    const struct ha_json *cpu = ha_json_get(plan, "strategies"), *gpu = ha_json_get(plan, "gpu");
    const struct ha_json *gpu_strategies = ha_json_get(gpu, "strategies");
    double parameters = number(plan, "parameters");
    struct ha_json *one;
    const char *name;
    void *at = NULL;

    while (ha_json_next(cpu, &at, &name, &one))
        add_row(table, model, name, parameters, one, ha_json_get(gpu_strategies, name));
    add_row(table, model, "lockstep", parameters, ha_json_get(plan, "lockstep"),
            ha_json_get(gpu, "lockstep"));
}

static void note_generation(struct ha_table *table, const char *model, const struct ha_json *plan)
{
    const struct ha_json *generation = ha_json_get(ha_json_get(plan, "gpu"), "generation");
    double shards = number(generation, "weight_shards");
    double mib = number(generation, "memory_bytes") / (1 << 20);

    if (!ha_json_bool(ha_json_get(generation, "fits"), true))
        ha_table_note(table,
                      "%s: answers need %.0f MiB on each GPU, which is more than it has; let more "
                      "GPUs share the weights (resources.gpus, train.shard_weights), use larger "
                      "ones or the CPU.",
                      model, mib);
    else if (shards > 1)
        ha_table_note(
            table, "%s: answers are made with weights shared by %.0f ranks, %.0f MiB on each GPU.",
            model, shards, mib);
}

int ha_plan_preview_table(const struct ha_grid_input *input, const char *gpu_memory,
                          struct ha_table **ret_table, struct ha_error *err)
{
    struct ha_table *table = start_table(gpu_memory);
    int64_t left_out = 0;
    int r = table ? 0 : out_of_memory(err);

    for (int64_t i = 0; r == 0 && i < input->sweep->model_count; i++) {
        struct ha_json *plan;

        if (!input->models[i].dir)
            continue;
        r = ha_plan_preview(input, i, gpu_memory, &plan, err);
        if (r < 0)
            break;
        add_model(table, input->sweep->models[i].name, plan);
        note_generation(table, input->sweep->models[i].name, plan);
        left_out += ha_json_int(ha_json_get(plan, "cells_left_out"), 0);
        ha_json_destroy(plan);
    }
    if (r < 0) {
        ha_table_destroy(table);
        return r;
    }
    if (left_out > 0)
        ha_table_note(table, "%lld cells of further variations are not in it.",
                      (long long)left_out);
    *ret_table = table;
    return 0;
}
