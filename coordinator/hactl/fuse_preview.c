#include "coordinator/hactl/fuse_preview.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/conf/json.h"
#include "common/conf/stage_key.h"
#include "common/io/file.h"
#include "coordinator/hactl/capture.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/report/table.h"

enum { CELLS_MAX = 2048 }; /* of a grid that is looked at; more have nobody to read them */

static const int64_t devices[] = {1, 2, 4, 8};
enum { N_DEVICES = sizeof(devices) / sizeof(devices[0]) };

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

/* Cells of one key may share a job. */
struct group {
    char key[HA_SHA256_HEX_BYTES];
    int64_t model, count;
    struct ha_json *cells; /* in the question */
};

struct question {
    const struct ha_grid_input *input;
    int64_t memory_bytes;
    struct ha_stage_digests digests;
    const char **files;
    struct group *groups;
    int64_t n_groups;
    struct ha_json *root, *list;
};

/* The files are not read for a dry run; whatever they are, the cells have them in common. */
static int set_digests(struct question *q, struct ha_error *err)
{
    static const char any[] = "0000000000000000000000000000000000000000000000000000000000000000";
    const struct ha_sweep_data *data = &q->input->sweep->data;
    int64_t most = data->train.count > data->eval.count ? data->train.count : data->eval.count;

    q->files = ha_calloc(most, sizeof(*q->files));
    q->groups = ha_calloc(q->input->grid->cell_count, sizeof(*q->groups));
    if (!q->files || !q->groups)
        return out_of_memory(err);
    for (int64_t i = 0; i < most; i++)
        q->files[i] = any;
    q->digests = (struct ha_stage_digests){.model = any,
                                           .tokenizer = any,
                                           .train = q->files,
                                           .train_count = data->train.count,
                                           .eval = q->files,
                                           .eval_count = data->eval.count};
    return 0;
}

static int new_group(struct question *q, const char *key, int64_t model, struct group **ret_group)
{
    struct group *group = &q->groups[q->n_groups];
    struct ha_json *json = ha_json_new_object();

    group->cells = ha_json_new_array();
    group->model = model;
    memcpy(group->key, key, sizeof(group->key));
    if (ha_json_append(q->list, json) < 0) {
        ha_json_destroy(group->cells);
        return -ENOMEM;
    }
    *ret_group = group;
    q->n_groups++;
    if (ha_json_set(json, "cells", group->cells) < 0)
        return -ENOMEM;
    if (ha_json_set(json, "model", ha_json_new_int(model)) < 0)
        return -ENOMEM;
    return ha_json_set(json, "fuse", ha_json_new_string(q->input->sweep->schedule.fuse));
}

static int add_cell(struct question *q, const struct ha_grid_cell *cell, struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object();
    /* Those that a probe will choose may begin at the lowest. */
    int64_t layers = cell->auto_layers > 0 ? cell->auto_layers : cell->layers.count;
    char key[HA_SHA256_HEX_BYTES];
    struct group *group = NULL;
    int r = ha_stage_key_train_together(q->input->grid, cell, &q->digests, key, err);

    for (int64_t g = 0; r == 0 && !group && g < q->n_groups; g++)
        if (strcmp(q->groups[g].key, key) == 0)
            group = &q->groups[g];
    if (r == 0 && !group && new_group(q, key, cell->model, &group) < 0)
        r = out_of_memory(err);
    if (r < 0) {
        ha_json_destroy(json);
        return r;
    }
    group->count++;
    if (ha_json_append(group->cells, json) < 0 ||
        ha_json_set(json, "name", ha_json_new_string(cell->name)) < 0 ||
        ha_json_set(json, "lowest",
                    ha_json_new_int(cell->layers.count > 0 ? cell->layers.items[0] : 0)) < 0 ||
        ha_json_set(json, "layers", ha_json_new_int(layers)) < 0 ||
        ha_json_set(json, "rank", ha_json_new_int(cell->train->lora_rank)) < 0)
        return out_of_memory(err);
    return 0;
}

static int add_models(struct question *q, struct ha_error *err)
{
    struct ha_json *models = ha_json_new_array(), *list = ha_json_new_array();
    int r = ha_json_set(q->root, "models", models);

    if (ha_json_set(q->root, "devices", list) < 0)
        r = -ENOMEM;
    for (int i = 0; r == 0 && i < N_DEVICES; i++)
        r = ha_json_append(list, ha_json_new_int(devices[i]));
    if (r == 0)
        r = ha_json_set(q->root, "memory_bytes", ha_json_new_int(q->memory_bytes));
    for (int64_t i = 0; r == 0 && i < q->input->sweep->model_count; i++) {
        const struct ha_json *plan = q->input->models[i].plan;
        struct ha_json *model = ha_json_new_object();
        char *text = plan ? ha_json_dump(plan, HA_JSON_COMPACT) : ha_strdup("");

        r = ha_json_append(models, model);
        if (r == 0)
            r = ha_json_set(model, "layers", ha_json_new_int(q->input->grid->layers[i]));
        if (r == 0)
            r = text ? ha_json_set(model, "plan", ha_json_new_string(text)) : -ENOMEM;
        free(text);
    }
    return r < 0 ? out_of_memory(err) : 0;
}

static int make_question(struct question *q, struct ha_error *err)
{
    const struct ha_grid *grid = q->input->grid;
    int r = set_digests(q, err);

    q->root = ha_json_new_object();
    q->list = ha_json_new_array();
    if (ha_json_set(q->root, "groups", q->list) < 0 && r == 0)
        r = out_of_memory(err);
    if (r == 0)
        r = add_models(q, err);
    for (int64_t i = 0; r == 0 && i < grid->cell_count && i < CELLS_MAX; i++)
        if (grid->cells[i].trains)
            r = add_cell(q, &grid->cells[i], err);
    return r;
}

static int ask(const char *file, struct ha_json **ret_answer, struct ha_error *err)
{
    const char *arguments[] = {"ha-coordinator", "--fuse", file, NULL};
    char *text;
    int r = ha_capture(arguments, &text, err);

    if (r < 0)
        return r;
    r = ha_json_parse(text, strlen(text), "ha-coordinator --fuse", ret_answer, err);
    free(text);
    return r;
}

static int ask_in_file(const struct question *q, struct ha_json **ret_answer, struct ha_error *err)
{
    char dir[] = "/tmp/ha-fuse-XXXXXX", *text = ha_json_dump(q->root, HA_JSON_COMPACT);
    char *file = NULL;
    int r;

    if (!text)
        return out_of_memory(err);
    if (!mkdtemp(dir)) {
        free(text);
        return ha_error_set(err, errno, "cannot make a folder in /tmp: %s", strerror(errno));
    }
    file = ha_format("%s/grid.json", dir);
    r = file ? ha_file_write(file, text, strlen(text), 0600, err) : out_of_memory(err);
    if (r == 0)
        r = ask(file, ret_answer, err);
    if (file)
        (void)unlink(file);
    (void)rmdir(dir);
    free(file);
    free(text);
    return r;
}

/* "local+mid, full": jobs with their cells, without the model's name before each. */
static int put_jobs(struct ha_buffer *out, const struct ha_json *jobs, const char *model)
{
    size_t length = strlen(model);
    int r = 0;

    for (int64_t j = 0; r == 0 && j < ha_json_size(jobs); j++) {
        const struct ha_json *job = ha_json_at(jobs, j);

        for (int64_t i = 0; r == 0 && i < ha_json_size(job); i++) {
            const char *name = ha_json_string(ha_json_at(job, i), "");

            if (strncmp(name, model, length) == 0 && name[length] == '/')
                name += length + 1;
            r = ha_buffer_printf(out, "%s%s", i > 0 ? " + " : j > 0 ? ", " : "", name);
        }
    }
    return r;
}

static int put_choices(struct ha_table *table, const struct ha_json *choices, const char *model)
{
    double one = ha_json_real(ha_json_get(ha_json_at(choices, 0), "finish"), 0);
    struct ha_buffer text;
    int r = 0;

    ha_buffer_init(&text, 0);
    for (int64_t i = 0; r == 0 && i < ha_json_size(choices); i++) {
        const struct ha_json *choice = ha_json_at(choices, i);
        double finish = ha_json_real(ha_json_get(choice, "finish"), 0);

        ha_buffer_reset(&text);
        r = put_jobs(&text, ha_json_get(choice, "jobs"), model);
        ha_table_text(table, model);
        ha_table_format(table, "%lld", (long long)ha_json_int(ha_json_get(choice, "devices"), 0));
        ha_table_text(table, ha_buffer_text(&text));
        ha_table_real(table, one > 0 ? finish / one : 0, 2);
    }
    ha_buffer_clear(&text);
    return r;
}

static struct ha_table *make_table(const struct question *q, const struct ha_json *answer)
{
    struct ha_table *table = ha_table_create("Train jobs by the number of idle devices");
    const struct ha_json *groups = ha_json_get(answer, "groups");
    char memory[HA_MEMORY_TEXT_BYTES];

    ha_table_column_text(table, "Model");
    ha_table_column_number(table, "Devices");
    ha_table_column_text(table, "Jobs (cells that train in lock-step)");
    ha_table_column_number(table, "Time");
    for (int64_t g = 0; g < q->n_groups; g++) {
        const struct ha_json *choices = ha_json_get(ha_json_at(groups, g), "choices");

        if (q->groups[g].count > 1 &&
            put_choices(table, choices, q->input->sweep->models[q->groups[g].model].name) < 0) {
            ha_table_destroy(table);
            return NULL;
        }
    }
    ha_table_note(table,
                  "schedule.fuse = \"%s\", devices with %s of memory; Time: the estimated end, one "
                  "device = 1.",
                  q->input->sweep->schedule.fuse, ha_memory_text(q->memory_bytes, memory));
    return table;
}

int ha_fuse_preview_table(const struct ha_grid_input *input, const char *gpu_memory,
                          struct ha_table **ret_table, struct ha_error *err)
{
    struct question q = {.input = input, .memory_bytes = ha_memory_total()};
    struct ha_json *answer = NULL;
    int r = gpu_memory ? ha_memory_parse("--gpu-memory", gpu_memory, &q.memory_bytes, err) : 0;

    if (r == 0)
        r = make_question(&q, err);

    if (r == 0)
        r = ask_in_file(&q, &answer, err);
    if (r == 0) {
        *ret_table = make_table(&q, answer);
        r = *ret_table ? 0 : out_of_memory(err);
    }
    ha_json_destroy(answer);
    ha_json_destroy(q.root);
    free(q.files);
    free(q.groups);
    return r;
}
