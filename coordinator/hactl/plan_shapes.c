#include "coordinator/hactl/plan_shapes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"

/* What the memory of a training depends on, beside its layers. */
static const char *const keys[] = {
    "lora_rank",       "target_modules",        "max_length",
    "batch_size",      "gradient_accumulation", "memory_limit",
    "shard_weights",   "tokens_per_microbatch", "plan_memory",
    "disable_dropout", "lora_dropout",
};
enum { N_KEYS = sizeof(keys) / sizeof(keys[0]) };

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

static bool counts(const struct ha_sweep_axis *axis)
{
    for (int i = 0; axis->section == &ha_sweep_train_section && axis->row && i < N_KEYS; i++)
        if (strcmp(axis->row->key, keys[i]) == 0)
            return true;
    return false;
}

/* "mid, rank=64": the strategy, and the varied values that count. */
static char *label_of(const struct ha_sweep *sweep, const struct ha_grid_cell *cell)
{
    struct ha_buffer text;
    char *label = NULL;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_buffer_append_text(&text, sweep->strategies[cell->strategy].name);
    for (int64_t i = 0; r == 0 && i < sweep->axis_count; i++)
        if (cell->axis_values.items[i] && counts(&sweep->axes[i]))
            r = ha_buffer_printf(&text, ", %s=%s", sweep->axes[i].label,
                                 cell->axis_values.items[i]);
    if (r == 0)
        label = ha_buffer_detach(&text);
    ha_buffer_clear(&text);
    return label;
}

static int read_settings(const struct ha_sweep_train *train, struct ha_text_list *settings,
                         struct ha_error *err)
{
    const struct ha_section *section = &ha_sweep_train_section;
    int r = 0;

    for (int i = 0; r == 0 && i < N_KEYS; i++) {
        const struct ha_setting *row = ha_section_find(section, keys[i]);
        char *value, *text;

        if (!ha_section_has(section, row, train))
            continue;
        value = ha_section_text(row, train);
        text = value ? ha_format("%s.%s=%s", section->name, row->key, value) : NULL;
        r = text ? ha_text_list_append(settings, text, err) : no_memory(err);
        free(text);
        free(value);
    }
    return r;
}

bool ha_plan_shapes_agree(const struct ha_plan_shape *a, const struct ha_plan_shape *b)
{
    bool same = a->settings.count == b->settings.count;

    for (int64_t i = 0; same && i < a->settings.count; i++)
        same = strcmp(a->settings.items[i], b->settings.items[i]) == 0;
    return same;
}

static void clear_shape(struct ha_plan_shape *shape)
{
    free(shape->label);
    free(shape->layers);
    ha_text_list_clear(&shape->settings);
}

static bool known(const struct ha_plan_shapes *shapes, const char *label)
{
    for (int64_t i = 0; i < shapes->count; i++)
        if (strcmp(shapes->items[i].label, label) == 0)
            return true;
    return false;
}

static int add_cell(struct ha_plan_shapes *shapes, const struct ha_grid *grid,
                    const struct ha_grid_cell *cell, const struct ha_plan_shape *base,
                    struct ha_error *err)
{
    struct ha_plan_shape shape = {.label = label_of(grid->sweep, cell), .train = cell->train};
    int r = shape.label ? 0 : no_memory(err);

    if (r == 0 && !known(shapes, shape.label) && shapes->count == HA_PLAN_SHAPES_MAX)
        shapes->left_out++;
    if (r < 0 || shapes->count == HA_PLAN_SHAPES_MAX || known(shapes, shape.label)) {
        clear_shape(&shape);
        return r;
    }
    shape.layers = ha_grid_cell_layers(cell);
    r = shape.layers ? read_settings(cell->train, &shape.settings, err) : no_memory(err);
    shape.built_in =
        !grid->sweep->strategies[cell->strategy].layers && ha_plan_shapes_agree(&shape, base);
    shapes->items[shapes->count++] = shape;
    return r;
}

int ha_plan_shapes_find(const struct ha_grid *grid, int64_t model,
                        struct ha_plan_shapes *ret_shapes, struct ha_error *err)
{
    struct ha_plan_shapes shapes = {.items = ha_calloc(HA_PLAN_SHAPES_MAX, sizeof(*shapes.items))};
    struct ha_plan_shape base = {0};
    int r = shapes.items ? read_settings(&grid->sweep->train, &base.settings, err) : no_memory(err);

    for (int64_t i = 0; r == 0 && i < grid->cell_count; i++) {
        const struct ha_grid_cell *cell = &grid->cells[i];

        if (cell->model == model && cell->trains &&
            (cell->layers.count > 0 || cell->auto_layers > 0))
            r = add_cell(&shapes, grid, cell, &base, err);
    }
    clear_shape(&base);
    if (r < 0) {
        ha_plan_shapes_clear(&shapes);
        return r;
    }
    *ret_shapes = shapes;
    return 0;
}

void ha_plan_shapes_clear(struct ha_plan_shapes *shapes)
{
    for (int64_t i = 0; i < shapes->count; i++)
        clear_shape(&shapes->items[i]);
    free(shapes->items);
    *shapes = (struct ha_plan_shapes){0};
}
