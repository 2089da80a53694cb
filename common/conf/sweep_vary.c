/* sweep_vary.c - [vary]: the axes of the grid and the points taken out
 *
 * Values become the text that ha_section_set reads, once and in one spelling
 * ("1e-4" for 0.0001), so that names of cells and excludes compare as text. */
#include "common/conf/sweep_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/refusals.h"
#include "common/conf/settings_value.h"

/* Other spellings of keys of [train], and short names for cells. */
static const struct {
    const char *key, *row, *label;
} spellings[] = {
    {"rank", "lora_rank", "rank"},
    {"lora_rank", "lora_rank", "rank"},
    {"alpha", "lora_alpha", "alpha"},
    {"lora_alpha", "lora_alpha", "alpha"},
    {"learning_rate", "learning_rate", "lr"},
};

/* A copy of the sweep's values, to try one value in. */
union scratch {
    struct ha_sweep_train train;
    struct ha_sweep_generate generate;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

static const char *row_name(const char *key)
{
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++)
        if (strcmp(spellings[i].key, key) == 0)
            return spellings[i].row;
    return key;
}

static const char *label_of(const char *key)
{
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++)
        if (strcmp(spellings[i].key, key) == 0)
            return spellings[i].label;
    return key;
}

static const char *nearest_axis(const char *key)
{
    const char *keys[128];
    int64_t count = 0;

    for (int64_t i = 0; i < ha_sweep_train_section.count; i++)
        keys[count++] = ha_sweep_train_section.rows[i].key;
    for (int64_t i = 0; i < ha_sweep_generate_section.count; i++)
        keys[count++] = ha_sweep_generate_section.rows[i].key;
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++)
        keys[count++] = spellings[i].key;
    keys[count++] = "exclude";
    return ha_settings_nearest(key, keys, count);
}

/* Which section and row an axis varies.  only: "train", "generate", "strategy"
 * or NULL for any of them. */
static int find_row(const char *key, const char *only, struct ha_sweep_axis *axis,
                    struct ha_error *err)
{
    const char *name = row_name(key), *nearest;

    if (strcmp(key, "layers") == 0)
        return ha_error_set(err, EINVAL,
                            "vary.layers: write one [[strategy]] for each choice of layers");
    if (!only || strcmp(only, "generate") != 0) {
        axis->section = &ha_sweep_train_section;
        axis->row = ha_section_find(axis->section, name);
    }
    if (!axis->row && (!only || strcmp(only, "generate") == 0)) {
        axis->section = &ha_sweep_generate_section;
        axis->row = ha_section_find(axis->section, name);
    }
    if (axis->row && axis->section == &ha_sweep_generate_section && strcmp(name, "seed") == 0)
        return ha_error_set(err, EINVAL, "vary.generate.seed: write vary.seed");
    if (axis->row && axis->row->reads == HA_READ_NONE)
        return ha_error_set(err, EINVAL, "vary.%s: %s changes no result and cannot be varied", key,
                            key);
    if (axis->row)
        return 0;
    nearest = nearest_axis(key);
    return ha_error_set(err, EINVAL, "unknown key vary.%.60s%s%s%s", key,
                        nearest ? "; did you mean "
                                : " (keys of [train], [[strategy]] and "
                                  "[generate] can be varied, and seed)",
                        nearest ? nearest : "", nearest ? "?" : "");
}

/* One value in its one spelling; the caller frees it. */
static int value_text(const struct ha_sweep *sweep, const struct ha_sweep_axis *axis,
                      const struct ha_toml *node, char **ret_text, struct ha_error *err)
{
    static const struct ha_setting seed = {"seed", HA_SETTING_INT, 0, .minimum = 0,
                                           .maximum = 9007199254740992.0};
    const void *values = axis->section == &ha_sweep_train_section ? (const void *)&sweep->train
                                                                  : (const void *)&sweep->generate;
    struct ha_setting_value value = {0};
    union scratch scratch = {0};
    int64_t number = 0;
    int r = ha_setting_value_from_toml(node, &value, err);

    if (r < 0)
        return r;
    if (!axis->row) {
        r = ha_setting_store(&seed, &value, &number, err);
        *ret_text = r == 0 ? ha_format("%lld", (long long)number) : NULL;
    } else {
        r = ha_section_copy(axis->section, values, &scratch, err);
        if (r == 0)
            r = ha_setting_store(axis->row, &value, &scratch, err);
        if (r == 0)
            r = ha_refusals_check(axis->section, axis->row, &scratch, err);
        *ret_text = r == 0 ? ha_section_text(axis->row, &scratch) : NULL;
        ha_section_clear(axis->section, &scratch);
    }
    ha_setting_value_clear(&value);
    return r == 0 && !*ret_text ? no_memory(err) : r;
}

static int compare_texts(const void *a, const void *b)
{
    const char *const *x = *(const char *const *const *)a;
    const char *const *y = *(const char *const *const *)b;
    int r = strcmp(*x, *y);

    return r != 0 ? r : x < y ? -1 : x > y;
}

/* The first value that was there before, or NULL; an axis may have many.  -ENOMEM. */
static int find_twice(const struct ha_text_list *list, const char **ret_text)
{
    char *const **sorted = ha_calloc(list->count, sizeof(*sorted));
    int64_t first = list->count;

    if (!sorted)
        return -ENOMEM;
    for (int64_t i = 0; i < list->count; i++)
        sorted[i] = &list->items[i];
    qsort(sorted, (size_t)list->count, sizeof(*sorted), compare_texts);
    for (int64_t i = 1; i < list->count; i++)
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0 && sorted[i] - list->items < first)
            first = sorted[i] - list->items;
    free(sorted);
    *ret_text = first < list->count ? list->items[first] : NULL;
    return 0;
}

static int read_values(const struct ha_sweep *sweep, struct ha_sweep_axis *axis,
                       const struct ha_toml *node, struct ha_error *err)
{
    const char *twice = NULL;
    int r = 0;

    if (!ha_toml_is(node, HA_TOML_ARRAY) || ha_toml_size(node) == 0)
        return ha_error_set(err, EINVAL, "vary.%s must be an array of values", axis->key);
    for (int64_t i = 0; r == 0 && i < ha_toml_size(node); i++) {
        char *text = NULL;

        r = value_text(sweep, axis, ha_toml_at(node, i), &text, err);
        if (r < 0)
            return ha_error_prefix(err, "vary.%s", axis->key);
        r = ha_text_list_append(&axis->values, text, err);
        free(text);
    }
    if (r == 0 && find_twice(&axis->values, &twice) < 0)
        r = no_memory(err);
    if (r == 0 && twice)
        r = ha_error_set(err, EINVAL, "vary.%s has %.60s twice", axis->key, twice);
    return r;
}

/* A strategy's own rank would be overruled by an axis without a word. */
static int check_strategies(const struct ha_sweep *sweep, const struct ha_sweep_axis *axis,
                            struct ha_error *err)
{
    static const struct {
        const char *row, *key;
    } own[] = {
        {"lora_rank", "rank"}, {"lora_alpha", "alpha"}, {"target_modules", "target_modules"}};

    for (size_t i = 0; axis->row && i < sizeof(own) / sizeof(own[0]); i++) {
        const struct ha_setting *row = ha_section_find(&ha_sweep_strategy_section, own[i].key);

        if (strcmp(axis->row->key, own[i].row) != 0)
            continue;
        for (int64_t j = 0; j < sweep->strategy_count; j++)
            if (ha_section_given(&ha_sweep_strategy_section, row, &sweep->strategies[j]))
                return ha_error_set(err, EINVAL,
                                    "vary.%s: strategy \"%s\" has its own %s; remove one of them",
                                    axis->key, sweep->strategies[j].name, own[i].key);
    }
    return 0;
}

static int read_axis(struct ha_sweep *sweep, const struct ha_toml *node, const char *only,
                     struct ha_error *err)
{
    struct ha_sweep_axis *axes =
        ha_realloc(sweep->axes, sweep->axis_count + 1, sizeof(*sweep->axes));
    struct ha_sweep_axis *axis;
    const char *key = ha_toml_key(node);
    int r = 0;

    if (!axes)
        return no_memory(err);
    sweep->axes = axes;
    axis = &axes[sweep->axis_count];
    *axis = (struct ha_sweep_axis){.key = ha_strdup(key), .label = ha_strdup(label_of(key))};
    sweep->axis_count++;
    if (!axis->key || !axis->label)
        return no_memory(err);
    if (only || strcmp(key, "seed") != 0)
        r = find_row(key, only, axis, err);
    for (int64_t i = 0; r == 0 && i < sweep->axis_count - 1; i++)
        if (axes[i].row == axis->row)
            r = ha_error_set(err, EINVAL, "vary.%s is given twice", key);
    if (r == 0)
        r = read_values(sweep, axis, node, err);
    return r < 0 ? r : check_strategies(sweep, axis, err);
}

/* --- exclude -------------------------------------------------------------- */

static bool names_exist(const struct ha_sweep *sweep, const char *key, const char *name)
{
    if (strcmp(key, "model") == 0) {
        for (int64_t i = 0; i < sweep->model_count; i++)
            if (strcmp(sweep->models[i].name, name) == 0)
                return true;
        return false;
    }
    for (int64_t i = 0; i < sweep->strategy_count; i++)
        if (strcmp(sweep->strategies[i].name, name) == 0)
            return true;
    return false;
}

static int exclude_value(const struct ha_sweep *sweep, const struct ha_toml *node, char **ret_text,
                         struct ha_error *err)
{
    const char *key = ha_toml_key(node);
    const struct ha_sweep_axis *axis = NULL;
    int r;

    if (strcmp(key, "model") == 0 || strcmp(key, "strategy") == 0) {
        const char *name = ha_toml_string(node, NULL);

        if (!name || !names_exist(sweep, key, name))
            return ha_error_set(err, EINVAL, "vary.exclude: no %s is called %s%.60s%s", key,
                                name ? "\"" : "", name ? name : "that", name ? "\"" : "");
        *ret_text = ha_strdup(name);
        return *ret_text ? 0 : no_memory(err);
    }
    for (int64_t i = 0; !axis && i < sweep->axis_count; i++)
        if (strcmp(sweep->axes[i].key, key) == 0)
            axis = &sweep->axes[i];
    if (!axis)
        return ha_error_set(err, EINVAL,
                            "vary.exclude: %.60s is no axis of [vary], nor model or strategy", key);
    r = value_text(sweep, axis, node, ret_text, err);
    if (r < 0)
        return ha_error_prefix(err, "vary.exclude: %s", key);
    if (ha_text_list_has(&axis->values, *ret_text))
        return 0;
    r = ha_error_set(err, EINVAL, "vary.exclude: %s = %.60s is not among vary.%s", key, *ret_text,
                     key);
    free(*ret_text);
    *ret_text = NULL;
    return r;
}

static int read_exclude(struct ha_sweep *sweep, const struct ha_toml *table, struct ha_error *err)
{
    struct ha_sweep_exclude *excludes =
        ha_realloc(sweep->excludes, sweep->exclude_count + 1, sizeof(*excludes));
    struct ha_sweep_exclude *exclude;
    int r = 0;

    if (!excludes)
        return no_memory(err);
    sweep->excludes = excludes;
    exclude = &excludes[sweep->exclude_count++];
    *exclude = (struct ha_sweep_exclude){0};
    if (!ha_toml_is(table, HA_TOML_TABLE) || ha_toml_size(table) == 0)
        return ha_error_set(err, EINVAL, "vary.exclude must be an array of {key = value, ...}");
    for (int64_t i = 0; r == 0 && i < ha_toml_size(table); i++) {
        const struct ha_toml *node = ha_toml_at(table, i);
        char *text = NULL;

        r = exclude_value(sweep, node, &text, err);
        if (r == 0)
            r = ha_text_list_append(&exclude->keys, ha_toml_key(node), err);
        if (r == 0)
            r = ha_text_list_append(&exclude->values, text, err);
        free(text);
    }
    return r;
}

static int read_member(struct ha_sweep *sweep, const struct ha_toml *node, struct ha_error *err)
{
    const char *key = ha_toml_key(node);
    int r = 0;

    if (strcmp(key, "exclude") == 0)
        return 0; /* read once the axes are known */
    if (strcmp(key, "train") != 0 && strcmp(key, "strategy") != 0 && strcmp(key, "generate") != 0)
        return read_axis(sweep, node, NULL, err);
    if (!ha_toml_is(node, HA_TOML_TABLE))
        return ha_error_set(err, EINVAL, "vary.%s must be a table of keys", key);
    for (int64_t i = 0; r == 0 && i < ha_toml_size(node); i++)
        r = read_axis(sweep, ha_toml_at(node, i), key, err);
    return r;
}

static const struct ha_sweep_axis *find_axis(const struct ha_sweep *sweep, const char *row)
{
    for (int64_t i = 0; i < sweep->axis_count; i++)
        if (sweep->axes[i].row && strcmp(sweep->axes[i].row->key, row) == 0)
            return &sweep->axes[i];
    return NULL;
}

/* Cells that differ in a dropout that is off would be the same training, several times. */
static int check_dropout(const struct ha_sweep *sweep, struct ha_error *err)
{
    static const char *const rows[] = {"lora_dropout", "dropout_seed"};

    if (!sweep->train.disable_dropout || find_axis(sweep, "disable_dropout"))
        return 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (find_axis(sweep, rows[i]))
            return ha_error_set(err, EINVAL,
                                "vary.%s changes nothing while train.disable_dropout is true; set "
                                "it to false",
                                rows[i]);
    return 0;
}

int ha_sweep_read_vary(struct ha_sweep *sweep, const struct ha_toml *vary, const char *file,
                       struct ha_error *err)
{
    const struct ha_toml *excludes = ha_toml_get(vary, "exclude"), *node = NULL;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < ha_toml_size(vary); i++) {
        node = ha_toml_at(vary, i);
        r = read_member(sweep, node, err);
    }
    if (r == 0) {
        node = vary;
        r = check_dropout(sweep, err);
    }
    if (r == 0 && excludes && !ha_toml_is(excludes, HA_TOML_ARRAY)) {
        node = excludes;
        r = ha_error_set(err, EINVAL, "vary.exclude must be an array of {key = value, ...}");
    }
    for (int64_t i = 0; r == 0 && i < ha_toml_size(excludes); i++) {
        node = ha_toml_at(excludes, i);
        r = read_exclude(sweep, node, err);
    }
    return r < 0 ? ha_error_prefix(err, "%s:%lld", file, (long long)ha_toml_key_line(node)) : 0;
}

void ha_sweep_clear_vary(struct ha_sweep *sweep)
{
    for (int64_t i = 0; i < sweep->axis_count; i++) {
        free(sweep->axes[i].key);
        free(sweep->axes[i].label);
        ha_text_list_clear(&sweep->axes[i].values);
    }
    for (int64_t i = 0; i < sweep->exclude_count; i++) {
        ha_text_list_clear(&sweep->excludes[i].keys);
        ha_text_list_clear(&sweep->excludes[i].values);
    }
    free(sweep->axes);
    free(sweep->excludes);
}
