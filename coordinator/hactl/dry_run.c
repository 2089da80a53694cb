#include "coordinator/hactl/dry_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/dimensions.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "common/conf/stage_key.h"
#include "coordinator/hactl/fuse_preview.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/hactl/judge_preview.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/plan_preview.h"
#include "coordinator/report/table.h"

/* "0-10" of a built-in block; "-" for none. */
static char *block_text(const char *block, int64_t layers)
{
    struct ha_layers found;
    char *text = NULL;

    if (ha_layers_of(block, NULL, layers, &found, NULL) == 0) {
        text = ha_layers_text(&found);
        ha_layers_clear(&found);
    }
    return text;
}

static struct ha_table *models_table(const struct ha_grid_input *input)
{
    static const char *const blocks[] = {"local", "mid", "global"};
    struct ha_table *table = ha_table_create("Layer blocks of each model");

    ha_table_column_text(table, "Model");
    ha_table_column_text(table, "Family");
    ha_table_column_number(table, "Total Layers");
    ha_table_column_text(table, "Local Block");
    ha_table_column_text(table, "Intermediate Block");
    ha_table_column_text(table, "Global Block");
    ha_table_column_text(table, "Files");
    for (int64_t i = 0; i < input->sweep->model_count; i++) {
        const struct ha_input_model *model = &input->models[i];

        ha_table_text(table, input->sweep->models[i].name);
        ha_table_text(table, model->family);
        ha_table_format(table, "%lld", (long long)input->grid->layers[i]);
        for (int k = 0; k < 3; k++) {
            char *text = block_text(blocks[k], input->grid->layers[i]);

            ha_table_text(table, text);
            free(text);
        }
        ha_table_text(table, model->dir ? model->dir : "not here; layers as the grid says");
    }
    return table;
}

static struct ha_table *cells_table(const struct ha_grid_input *input)
{
    struct ha_table *table = ha_table_create("Cells");

    ha_table_column_text(table, "Cell");
    ha_table_column_text(table, "Trained layers");
    ha_table_column_text(table, "Stages");
    for (int64_t i = 0; i < input->grid->cell_count; i++) {
        const struct ha_grid_cell *cell = &input->grid->cells[i];
        char *layers = ha_grid_cell_layers(cell);

        ha_table_text(table, cell->name);
        ha_table_text(table, cell->trains ? layers : "none");
        ha_table_format(table, "%s%s%sgenerate, judge x %lld",
                        cell->trains && input->sweep->probes ? "probe, " : "",
                        cell->auto_layers > 0 ? "then " : "", cell->trains ? "train, " : "",
                        (long long)input->sweep->judge_count);
        free(layers);
    }
    return table;
}

/* Digests that stand for files that need not be here: one for each model, as no
 * two models of a grid are the same files. */
static int stand_in(const struct ha_grid_input *input, const struct ha_grid_cell *cell,
                    char key[HA_SHA256_HEX_BYTES])
{
    const struct ha_sweep *sweep = input->sweep;
    const char *name = sweep->models[cell->model].name;
    char hex[HA_SHA256_HEX_BYTES];
    uint8_t digest[HA_SHA256_BYTES];
    const char **files = ha_calloc(sweep->data.train.count, sizeof(*files));
    int r = -ENOMEM;

    ha_sha256(name, strlen(name), digest);
    ha_sha256_hex(digest, hex);
    for (int64_t i = 0; files && i < sweep->data.train.count; i++)
        files[i] = hex;
    if (files)
        r = ha_stage_key_probe(input->grid, cell,
                               &(struct ha_stage_digests){.model = hex,
                                                          .tokenizer = hex,
                                                          .train = files,
                                                          .train_count = sweep->data.train.count},
                               key, NULL);
    free(files);
    return r;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* How many different probes the cells have: one for each model, or more where
 * [vary] changes the loss.  -ENOMEM. */
static int64_t count_probes(const struct ha_grid_input *input)
{
    char(*keys)[HA_SHA256_HEX_BYTES] = ha_calloc(input->grid->cell_count, sizeof(*keys));
    int64_t n = 0, different = 0;
    int r = keys ? 0 : -ENOMEM;

    for (int64_t i = 0; r == 0 && input->sweep->probes && i < input->grid->cell_count; i++)
        if (input->grid->cells[i].trains)
            r = stand_in(input, &input->grid->cells[i], keys[n++]);
    if (r == 0 && n > 0)
        qsort(keys, (size_t)n, sizeof(*keys), compare_keys);
    for (int64_t i = 0; r == 0 && i < n; i++)
        different += i == 0 || strcmp(keys[i], keys[i - 1]) != 0;
    free(keys);
    return r < 0 ? r : different;
}

struct counts {
    int64_t probes, trains, generates, answers, calls;
};

static struct counts count(const struct ha_grid_input *input)
{
    struct counts counts = {.probes = count_probes(input)};

    for (int64_t i = 0; i < input->grid->cell_count; i++) {
        const struct ha_grid_cell *cell = &input->grid->cells[i];
        int64_t answers = input->sweep->data.eval_samples * cell->generate->samples;

        counts.trains += cell->trains;
        counts.generates++;
        counts.answers += answers;
        for (int64_t k = 0; k < input->sweep->judge_count; k++)
            counts.calls += answers * input->sweep->judges[k].samples;
    }
    return counts;
}

static int print_counts(const struct ha_grid_input *input, struct ha_error *err)
{
    struct counts n = count(input);
    struct ha_buffer out;

    ha_buffer_init(&out, 0);
    if (n.probes < 0 ||
        ha_buffer_printf(&out, "%lld cells\n", (long long)input->grid->cell_count) < 0 ||
        ha_buffer_printf(&out, "%lld of them train, %lld answer\n", (long long)n.trains,
                         (long long)n.generates) < 0 ||
        (input->sweep->probes &&
         ha_buffer_printf(&out, "%lld probes of %lld pairs, each a job by itself\n",
                          (long long)n.probes, (long long)input->sweep->probe.pairs) < 0) ||
        ha_buffer_printf(
            &out, "%lld answers at most, %lld evaluator calls, %lld scores%s\n\n",
            (long long)n.answers, (long long)n.calls, (long long)n.calls * HA_DIMENSIONS,
            input->sweep->data.eval_samples == 0 ? " (eval_samples = 0: every held-out row)" : "") <
            0) {
        ha_buffer_clear(&out);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return ha_output_text(&out, err);
}

/* Takes the table over; nothing for one without rows. */
static int print_rows(struct ha_table *table, struct ha_error *err)
{
    int r;

    if (ha_table_rows(table) == 0) {
        ha_table_destroy(table);
        return 0;
    }
    r = ha_output_table(table, HA_OUTPUT_PLAIN, err);
    if (r == 0)
        puts("");
    return r;
}

/* Nothing where no cells may share a job. */
static int print_jobs(const struct ha_grid_input *input, const char *gpu_memory,
                      struct ha_error *err)
{
    struct ha_table *table = NULL;
    int r = ha_fuse_preview_table(input, gpu_memory, &table, err);

    return r < 0 ? r : print_rows(table, err);
}

/* Nothing where no model's files are here. */
static int print_plans(const struct ha_grid_input *input, const char *gpu_memory,
                       struct ha_error *err)
{
    struct ha_table *table;
    int r = ha_plan_preview_table(input, gpu_memory, &table, err);

    return r < 0 ? r : print_rows(table, err);
}

/* All calls of a judge, as if each were like the example. */
static void print_estimate(const struct ha_grid_input *input, const struct ha_sweep_judge *judge,
                           const struct ha_json *preview)
{
    const struct ha_json *estimate = ha_json_get(preview, "estimate");
    double calls = (double)(count(input).answers * judge->samples);

    printf("%.0f calls like this: %.1f million prompt tokens, at most %.1f million completion "
           "tokens, price at most %.2f\n\n",
           calls, calls * ha_json_real(ha_json_get(estimate, "prompt_tokens"), 0) / 1e6,
           calls * ha_json_real(ha_json_get(estimate, "completion_tokens_at_most"), 0) / 1e6,
           calls * ha_json_real(ha_json_get(estimate, "price_at_most"), 0));
}

/* What each judge would be sent first, with its estimate. */
static int print_previews(const struct ha_grid_input *input, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < input->sweep->judge_count; i++) {
        struct ha_json *preview;

        r = ha_judge_preview(&input->sweep->judges[i], &preview, err);
        if (r < 0)
            return r;
        printf("\nA request to judge %s, for an example answer; its key is masked:\n\n",
               input->sweep->judges[i].name);
        print_estimate(input, &input->sweep->judges[i], preview);
        r = ha_output_json(preview, err);
    }
    return r;
}

/* Settings that do nothing: said once, with how many cells have them. */
static void print_warnings(const struct ha_grid_input *input)
{
    const char *said = NULL;
    int64_t count = 0;

    for (int64_t i = 0; i < input->grid->cell_count; i++) {
        const struct ha_grid_cell *cell = &input->grid->cells[i];
        const char *text = cell->trains ? ha_loss_rules_warning(cell->train) : NULL;

        said = text ? text : said;
        count += text != NULL;
    }
    if (said)
        printf("warning, %lld cells: %s\n\n", (long long)count, said);
}

int ha_dry_run_print(const struct ha_grid_input *input, const char *gpu_memory,
                     struct ha_error *err)
{
    struct ha_buffer settings;
    int r = print_counts(input, err);

    if (r == 0)
        print_warnings(input);
    if (r == 0)
        r = ha_output_table(models_table(input), HA_OUTPUT_PLAIN, err);
    if (r == 0)
        puts("");
    if (r == 0)
        r = ha_output_table(cells_table(input), HA_OUTPUT_PLAIN, err);
    if (r == 0)
        puts("");
    if (r == 0)
        r = print_jobs(input, gpu_memory, err);
    if (r == 0)
        r = print_plans(input, gpu_memory, err);
    if (r < 0)
        return r;
    ha_buffer_init(&settings, 0);
    if (ha_sweep_print(input->sweep, &settings) < 0) {
        ha_buffer_clear(&settings);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    r = ha_output_text(&settings, err);
    return r < 0 ? r : print_previews(input, err);
}

static int add_previews(struct ha_json *previews, const struct ha_grid_input *input,
                        struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < input->sweep->judge_count; i++) {
        struct ha_json *preview;

        r = ha_judge_preview(&input->sweep->judges[i], &preview, err);
        if (r == 0 && ha_json_append(previews, preview) < 0)
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return r;
}

/* {MODEL: what ha-attempt plan says}, of the models whose files are here. */
static int add_plans(struct ha_json *plans, const struct ha_grid_input *input,
                     const char *gpu_memory, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < input->sweep->model_count; i++) {
        struct ha_json *plan;

        if (!input->models[i].dir)
            continue;
        r = ha_plan_preview(input, i, gpu_memory, &plan, err);
        if (r == 0 && ha_json_set(plans, input->sweep->models[i].name, plan) < 0)
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return r;
}

static int add_cells(struct ha_json *cells, const struct ha_grid_input *input)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < input->grid->cell_count; i++) {
        const struct ha_grid_cell *cell = &input->grid->cells[i];
        struct ha_json *object = ha_json_new_object();
        char *layers = ha_grid_cell_layers(cell);

        r = ha_json_append(cells, object);
        if (r == 0)
            r = ha_json_set(object, "name", ha_json_new_string(cell->name));
        if (r == 0)
            r = ha_json_set(object, "layers", layers ? ha_json_new_string(layers) : NULL);
        if (r == 0)
            r = ha_json_set(object, "settings", ha_grid_cell_json(input->grid, cell));
        free(layers);
    }
    return r;
}

int ha_dry_run_json(const struct ha_grid_input *input, const char *gpu_memory, struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object(), *cells = ha_json_new_array();
    struct ha_json *previews = ha_json_new_array(), *plans = ha_json_new_object();
    struct counts n = count(input);
    int r = ha_json_set(json, "cells", cells);

    if (ha_json_set(json, "judge_requests", previews) < 0 || ha_json_set(json, "plans", plans) < 0)
        r = -ENOMEM;

    if (r == 0)
        r = add_cells(cells, input);
    if (r == 0 && n.probes < 0)
        r = -ENOMEM;
    if (r == 0)
        r = ha_json_set(json, "probe_jobs", ha_json_new_int(n.probes));
    if (r == 0)
        r = ha_json_set(json, "train_stages", ha_json_new_int(n.trains));
    if (r == 0)
        r = ha_json_set(json, "generate_stages", ha_json_new_int(n.generates));
    if (r == 0)
        r = ha_json_set(json, "answers", ha_json_new_int(n.answers));
    if (r == 0)
        r = ha_json_set(json, "evaluator_calls", ha_json_new_int(n.calls));
    if (r == 0)
        r = ha_json_set(json, "settings", ha_sweep_json(input->sweep));
    if (r < 0) {
        ha_json_destroy(json);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    r = add_previews(previews, input, err);
    if (r == 0)
        r = add_plans(plans, input, gpu_memory, err);
    if (r < 0) {
        ha_json_destroy(json);
        return r;
    }
    return ha_output_json(json, err);
}
