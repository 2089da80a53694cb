/* grid.c - expansion
 *
 * A variant is one strategy at one point of [vary]: its resolved settings are
 * made once and shared by the cells of all models. */
#include "common/conf/grid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "common/conf/sweep_private.h"

struct variant {
    int64_t strategy;
    bool trains;
    struct ha_sweep_train train; /* zero for base */
    struct ha_sweep_generate generate;
    struct ha_text_list values; /* one per axis; NULL: the axis does not touch it */
    char *suffix;               /* "lr=1e-4,beta=0.2"; NULL without axes */
};

struct ha_grid_shared {
    struct variant *variants;
    int64_t variant_count, variant_capacity;
    struct ha_layers *layers; /* [model][strategy] */
    int64_t layers_count;
    const struct ha_grid_cell **by_name; /* open addressing */
    uint64_t mask;                       /* its places, less one */
    /* what comes next: a strategy at a point, then a model's cell of a variant */
    int64_t strategy, *indices, model, variant;
    bool complete;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

/* --- variants ------------------------------------------------------------- */

static void variant_clear(struct variant *variant)
{
    ha_section_clear(&ha_sweep_train_section, &variant->train);
    ha_section_clear(&ha_sweep_generate_section, &variant->generate);
    ha_text_list_clear(&variant->values);
    free(variant->suffix);
}

/* Move a value from one section's row to another's, by its text. */
static int carry(const struct ha_section *from, const char *from_key, const void *from_values,
                 const struct ha_section *to, const char *to_key, void *to_values,
                 struct ha_error *err)
{
    const struct ha_setting *row = ha_section_find(from, from_key);
    char *text;
    int r;

    if (!ha_section_given(from, row, from_values))
        return 0;
    text = ha_section_text(row, from_values);
    if (!text)
        return no_memory(err);
    r = ha_section_set(to, ha_section_find(to, to_key), text, to_key, to_values, err);
    free(text);
    return r;
}

static int apply_strategy(const struct ha_sweep_strategy *strategy, struct ha_sweep_train *train,
                          struct ha_error *err)
{
    static const char *const keys[][2] = {
        {"rank", "lora_rank"}, {"alpha", "lora_alpha"}, {"target_modules", "target_modules"}};
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(keys) / sizeof(keys[0]); i++)
        r = carry(&ha_sweep_strategy_section, keys[i][0], strategy, &ha_sweep_train_section,
                  keys[i][1], train, err);
    return r;
}

static int set_key(const struct ha_section *section, const char *key, const char *text,
                   void *values, struct ha_error *err)
{
    return ha_section_set(section, ha_section_find(section, key), text, key, values, err);
}

/* A replicate: everything random, except which rows are selected. */
static int apply_seed(const char *text, struct variant *variant, struct ha_error *err)
{
    static const char *const seeds[] = {"init_seed", "order_seed", "dropout_seed"};
    int r = set_key(&ha_sweep_generate_section, "seed", text, &variant->generate, err);

    for (size_t i = 0; r == 0 && variant->trains && i < sizeof(seeds) / sizeof(seeds[0]); i++)
        r = set_key(&ha_sweep_train_section, seeds[i], text, &variant->train, err);
    return r;
}

static int apply_axis(const struct ha_sweep_axis *axis, const char *text, struct variant *variant,
                      struct ha_error *err)
{
    if (!axis->row)
        return apply_seed(text, variant, err);
    if (axis->section == &ha_sweep_generate_section)
        return ha_section_set(axis->section, axis->row, text, axis->key, &variant->generate, err);
    return ha_section_set(axis->section, axis->row, text, axis->key, &variant->train, err);
}

/* Base ignores the axes of training, and replicates of a greedy answer are the
 * same answer. */
static bool touches(const struct ha_sweep_axis *axis, const struct variant *variant)
{
    if (variant->trains)
        return true;
    if (!axis->row)
        return !ha_sweep_generate_greedy(&variant->generate);
    return axis->section == &ha_sweep_generate_section;
}

/* "[\"q_proj\",\"v_proj\"]" -> "q_proj+v_proj"; nothing that a path minds. */
static int append_value(struct ha_buffer *out, const char *text)
{
    int r = 0;

    for (; r == 0 && *text; text++) {
        if (strchr("[]{}\"' ", *text))
            continue;
        r = *text == ','                ? ha_buffer_append_text(out, "+")
            : strchr("/\\=:", *text)    ? ha_buffer_append_text(out, "-")
            : (unsigned char)*text < 33 ? 0
                                        : ha_buffer_append(out, text, 1);
    }
    return r;
}

static int make_suffix(const struct ha_sweep *sweep, struct variant *variant, struct ha_error *err)
{
    struct ha_buffer text;
    int r = 0;

    ha_buffer_init(&text, 0);
    for (int64_t i = 0; r == 0 && i < sweep->axis_count; i++) {
        if (!variant->values.items[i])
            continue;
        r = ha_buffer_printf(&text, "%s%s=", text.size ? "," : "", sweep->axes[i].label);
        if (r == 0)
            r = append_value(&text, variant->values.items[i]);
    }
    if (r == 0 && text.size) {
        variant->suffix = ha_buffer_detach(&text);
        r = variant->suffix ? 0 : -ENOMEM;
    }
    ha_buffer_clear(&text);
    return r < 0 ? no_memory(err) : 0;
}

/* The settings of one strategy at one point.  indices: a value's index per
 * axis.  *ret_same: a variant that a lower point has made already. */
static int make_variant(const struct ha_sweep *sweep, int64_t strategy, const int64_t *indices,
                        struct variant *variant, bool *ret_same, struct ha_error *err)
{
    int r;

    variant->strategy = strategy;
    variant->trains = strcmp(sweep->strategies[strategy].name, "base") != 0;
    variant->values.items = ha_calloc(sweep->axis_count, sizeof(*variant->values.items));
    if (!variant->values.items)
        return no_memory(err);
    variant->values.count = sweep->axis_count;
    r = ha_section_copy(&ha_sweep_generate_section, &sweep->generate, &variant->generate, err);
    if (r == 0 && variant->trains) {
        r = ha_section_copy(&ha_sweep_train_section, &sweep->train, &variant->train, err);
        if (r == 0)
            r = apply_strategy(&sweep->strategies[strategy], &variant->train, err);
    }
    /* Sections first: whether a seed matters depends on the temperature. */
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; r == 0 && i < sweep->axis_count; i++) {
            const struct ha_sweep_axis *axis = &sweep->axes[i];
            const char *text = axis->values.items[indices[i]];

            if ((pass == 0) != (axis->row != NULL))
                continue;
            if (!touches(axis, variant)) {
                *ret_same = *ret_same || indices[i] > 0;
                continue;
            }
            r = apply_axis(axis, text, variant, err);
            variant->values.items[i] = r == 0 ? ha_strdup(text) : NULL;
            if (r == 0 && !variant->values.items[i])
                r = no_memory(err);
        }
    if (r == 0 && variant->trains)
        r = ha_loss_rules_check(&variant->train, err);
    if (r == 0 && variant->trains && sweep->resources.gpus > 1 &&
        sweep->resources.gpus > variant->train.gradient_accumulation)
        r = ha_error_set(
            err, EINVAL,
            "resources.gpus = %lld: an optimizer step has train.gradient_accumulation = %lld "
            "micro-batches for them to share; ask for no more GPUs than that",
            (long long)sweep->resources.gpus, (long long)variant->train.gradient_accumulation);
    if (r == 0 && sweep->resources.nodes > 1 &&
        (sweep->resources.gpus == 0 || sweep->resources.gpus % sweep->resources.nodes != 0))
        r = ha_error_set(err, EINVAL,
                         "resources.nodes = %lld: each node has an equal part of resources.gpus "
                         "(%lld); give a multiple of %lld",
                         (long long)sweep->resources.nodes, (long long)sweep->resources.gpus,
                         (long long)sweep->resources.nodes);
    return r < 0 ? r : make_suffix(sweep, variant, err);
}

static int add_variant(struct ha_grid *grid, int64_t strategy, const int64_t *indices,
                       struct ha_error *err)
{
    struct ha_grid_shared *shared = grid->shared;
    struct variant variant = {0};
    bool same = false;
    int r = make_variant(grid->sweep, strategy, indices, &variant, &same, err);

    if (r == 0 && !same) {
        r = ha_grow((void **)&shared->variants, &shared->variant_capacity,
                    shared->variant_count + 1, sizeof(*shared->variants));
        if (r == 0) {
            shared->variants[shared->variant_count++] = variant;
            return 0;
        }
        r = no_memory(err);
    }
    variant_clear(&variant);
    return r;
}

/* The next point, last axis fastest; false after the last. */
static bool next_point(const struct ha_sweep *sweep, int64_t *indices)
{
    for (int64_t i = sweep->axis_count - 1; i >= 0; i--) {
        if (++indices[i] < sweep->axes[i].values.count)
            return true;
        indices[i] = 0;
    }
    return false;
}

/* One that fails is tried again by the next call. */
static int next_variant(struct ha_grid *grid, struct ha_error *err)
{
    struct ha_grid_shared *shared = grid->shared;
    int r = add_variant(grid, shared->strategy, shared->indices, err);

    if (r == 0 && !next_point(grid->sweep, shared->indices))
        shared->strategy++;
    return r;
}

/* --- models --------------------------------------------------------------- */

static int check_size(const struct ha_sweep *sweep, int64_t *ret_points, struct ha_error *err)
{
    int64_t cells = sweep->model_count;
    bool over = __builtin_mul_overflow(cells, sweep->strategy_count, &cells);

    for (int64_t i = 0; !over && i < sweep->axis_count; i++)
        over = __builtin_mul_overflow(cells, sweep->axes[i].values.count, &cells);
    if (over || cells > HA_GRID_CELLS_MAX)
        return ha_error_set(err, E2BIG, "the grid has more than %d cells; shorten [vary]",
                            HA_GRID_CELLS_MAX);
    *ret_points = cells;
    return 0;
}

static int find_layers(struct ha_grid *grid, const int64_t *layers, struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_grid_shared *shared = grid->shared;

    grid->layers = ha_calloc(sweep->model_count, sizeof(*grid->layers));
    shared->layers = ha_calloc(sweep->model_count * sweep->strategy_count, sizeof(*shared->layers));
    if (!grid->layers || !shared->layers)
        return no_memory(err);
    for (int64_t i = 0; i < sweep->model_count; i++) {
        const struct ha_sweep_model *model = &sweep->models[i];
        int64_t read = layers ? layers[i] : 0;

        if (read && model->layers && read != model->layers)
            return ha_error_set(err, EINVAL,
                                "model %s: the grid says %lld layers, its config.json %lld",
                                model->name, (long long)model->layers, (long long)read);
        grid->layers[i] = read ? read : model->layers;
        if (!grid->layers[i])
            return ha_error_set(err, EINVAL,
                                "model %s: the number of layers is not known; give its files, or "
                                "layers in [[model]]",
                                model->name);
        for (int64_t j = 0; j < sweep->strategy_count; j++) {
            const struct ha_sweep_strategy *strategy = &sweep->strategies[j];
            int r = ha_layers_of(strategy->name, strategy->layers, grid->layers[i],
                                 &shared->layers[shared->layers_count], err);

            if (r < 0)
                return ha_error_prefix(err, "model %s, strategy %s", model->name, strategy->name);
            shared->layers_count++;
        }
    }
    return 0;
}

/* --- cells ---------------------------------------------------------------- */

static bool excludes(const struct ha_sweep *sweep, const struct ha_sweep_exclude *exclude,
                     int64_t model, const struct variant *variant)
{
    for (int64_t i = 0; i < exclude->keys.count; i++) {
        const char *key = exclude->keys.items[i], *value = NULL;

        if (strcmp(key, "model") == 0)
            value = sweep->models[model].name;
        else if (strcmp(key, "strategy") == 0)
            value = sweep->strategies[variant->strategy].name;
        for (int64_t j = 0; !value && j < sweep->axis_count; j++)
            if (strcmp(sweep->axes[j].key, key) == 0)
                value = variant->values.items[j];
        if (!value || strcmp(value, exclude->values.items[i]) != 0)
            return false;
    }
    return true;
}

static bool is_excluded(const struct ha_sweep *sweep, int64_t model, const struct variant *variant)
{
    for (int64_t i = 0; i < sweep->exclude_count; i++)
        if (excludes(sweep, &sweep->excludes[i], model, variant))
            return true;
    return false;
}

static int add_cell(struct ha_grid *grid, int64_t model, const struct variant *variant,
                    struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_grid_cell *cell = &grid->cells[grid->cell_count];
    const char *strategy = sweep->strategies[variant->strategy].name;
    const char *layers = sweep->strategies[variant->strategy].layers;

    cell->name = ha_format("%s/%s%s%s", sweep->models[model].name, strategy,
                           variant->suffix ? "/" : "", variant->suffix ? variant->suffix : "");
    if (!cell->name)
        return no_memory(err);
    cell->model = model;
    cell->strategy = variant->strategy;
    cell->trains = variant->trains;
    cell->layers = grid->shared->layers[model * sweep->strategy_count + variant->strategy];
    if (ha_layers_are_auto(layers))
        (void)ha_layers_parse_auto(layers, 0, &cell->auto_layers, NULL); /* read before */
    cell->train = variant->trains ? &variant->train : NULL;
    cell->generate = &variant->generate;
    cell->axis_values = variant->values;
    grid->cell_count++;
    return 0;
}

/* The place of a name: where it is, or where it would be. */
static const struct ha_grid_cell **place_of(const struct ha_grid_shared *shared, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (const char *at = name; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
    hash ^= hash >> 32;
    while (shared->by_name[hash & shared->mask] &&
           strcmp(shared->by_name[hash & shared->mask]->name, name) != 0)
        hash++;
    return &shared->by_name[hash & shared->mask];
}

static int begin_cells(struct ha_grid *grid, struct ha_error *err)
{
    struct ha_grid_shared *shared = grid->shared;
    int64_t most = grid->sweep->model_count * shared->variant_count, places = 2;

    while (places < 2 * most)
        places *= 2;
    free(shared->by_name);
    shared->mask = (uint64_t)places - 1;
    shared->by_name = ha_calloc(places, sizeof(*shared->by_name));
    /* Cells say that both are there. */
    grid->cells = shared->by_name ? ha_calloc(most, sizeof(*grid->cells)) : NULL;
    return grid->cells ? 0 : no_memory(err);
}

static int next_cell(struct ha_grid *grid, struct ha_error *err)
{
    struct ha_grid_shared *shared = grid->shared;
    const struct variant *variant = &shared->variants[shared->variant];
    const struct ha_grid_cell *cell = &grid->cells[grid->cell_count], **place;
    int r;

    if (!is_excluded(grid->sweep, shared->model, variant)) {
        r = add_cell(grid, shared->model, variant, err);
        if (r < 0)
            return r;
        place = place_of(shared, cell->name);
        if (*place) {
            free(grid->cells[--grid->cell_count].name);
            return ha_error_set(err, EINVAL, "two cells would be called %s", (*place)->name);
        }
        *place = cell;
    }
    if (++shared->variant == shared->variant_count) {
        shared->variant = 0;
        shared->model++;
    }
    return 0;
}

/* --- the interface -------------------------------------------------------- */

int ha_grid_begin(const struct ha_sweep *sweep, const int64_t *layers, struct ha_grid **ret_grid,
                  struct ha_error *err)
{
    struct ha_grid *grid = ha_calloc(1, sizeof(*grid));
    int r;

    if (grid)
        grid->shared = ha_calloc(1, sizeof(*grid->shared));
    if (!grid || !grid->shared) {
        free(grid);
        return no_memory(err);
    }
    grid->sweep = sweep;
    r = check_size(sweep, &grid->points, err);
    if (r == 0)
        r = find_layers(grid, layers, err);
    if (r == 0) {
        grid->shared->indices = ha_calloc(sweep->axis_count, sizeof(*grid->shared->indices));
        r = grid->shared->indices ? 0 : no_memory(err);
    }
    if (r < 0)
        ha_grid_destroy(grid);
    else
        *ret_grid = grid;
    return r;
}

int ha_grid_step(struct ha_grid *grid, int64_t most, struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_grid_shared *shared = grid->shared;
    int r = 0;

    for (; r == 0 && most > 0 && shared->strategy < sweep->strategy_count; most--)
        r = next_variant(grid, err);
    if (r == 0 && most > 0 && !grid->cells)
        r = begin_cells(grid, err);
    for (; r == 0 && most > 0 && !shared->complete; most--) {
        if (shared->variant_count == 0 || shared->model == sweep->model_count)
            shared->complete = true;
        else
            r = next_cell(grid, err);
    }
    if (r == 0 && shared->complete && grid->cell_count == 0)
        r = ha_error_set(err, EINVAL, "vary.exclude takes out every cell");
    return r < 0 ? r : shared->complete;
}

int ha_grid_create(const struct ha_sweep *sweep, const int64_t *layers, struct ha_grid **ret_grid,
                   struct ha_error *err)
{
    struct ha_grid *grid;
    int r = ha_grid_begin(sweep, layers, &grid, err);

    if (r < 0)
        return r;
    r = ha_grid_step(grid, INT64_MAX, err);
    if (r < 0) {
        ha_grid_destroy(grid);
        return r;
    }
    *ret_grid = grid;
    return 0;
}

void ha_grid_destroy(struct ha_grid *grid)
{
    if (!grid)
        return;
    for (int64_t i = 0; i < grid->cell_count; i++)
        free(grid->cells[i].name);
    for (int64_t i = 0; i < grid->shared->variant_count; i++)
        variant_clear(&grid->shared->variants[i]);
    for (int64_t i = 0; i < grid->shared->layers_count; i++)
        ha_layers_clear(&grid->shared->layers[i]);
    free(grid->shared->variants);
    free(grid->shared->layers);
    free(grid->shared->by_name);
    free(grid->shared->indices);
    free(grid->shared);
    free(grid->cells);
    free(grid->layers);
    free(grid);
}

const struct ha_grid_cell *ha_grid_find(const struct ha_grid *grid, const char *name)
{
    return *place_of(grid->shared, name);
}

char *ha_grid_cell_layers(const struct ha_grid_cell *cell)
{
    if (cell->auto_layers > 0)
        return ha_format("auto:%lld", (long long)cell->auto_layers);
    return cell->trains ? ha_layers_text(&cell->layers) : ha_strdup("");
}

struct ha_json *ha_grid_cell_json(const struct ha_grid *grid, const struct ha_grid_cell *cell)
{
    const struct ha_sweep *sweep = grid->sweep;
    const struct ha_sweep_train *train = cell->train ? cell->train : &sweep->train;
    const unsigned read = HA_READ_TRAIN | HA_READ_GENERATE; /* all but the names of files */
    struct ha_json *json = ha_json_new_object();
    bool probes = sweep->probes && cell->trains;

    if (json &&
        ha_json_set(json, "data", ha_section_json(&ha_sweep_data_section, &sweep->data, read)) ==
            0 &&
        ha_json_set(json, "train", ha_section_json(&ha_sweep_train_section, train, 0)) == 0 &&
        (!probes || ha_json_set(json, "probe",
                                ha_section_json(&ha_sweep_probe_section, &sweep->probe, 0)) == 0) &&
        ha_json_set(json, "generate", ha_sweep_generate_json(cell->generate, 0)) == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}
