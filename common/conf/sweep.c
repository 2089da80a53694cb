/* sweep.c - reading a grid: sections, overrides, names, checks across keys
 *
 * Order: the file's sections, the overrides, defaults that depend on other
 * values, [vary], and last the checks that need the whole.  A value is checked
 * by its row as soon as it is read, and refused there if its effect is not
 * built (refusals.h). */
#include "common/conf/sweep.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/blocks.h"
#include "common/conf/refusals.h"
#include "common/conf/sweep_private.h"

enum { NAME_BYTES_MAX = 100, ELEMENTS_MAX = 10000 };

/* A section that stands once, and where its struct is. */
struct single {
    const struct ha_section *section;
    size_t offset;
};

static const struct single singles[] = {
    {&ha_sweep_general_section, offsetof(struct ha_sweep, general)},
    {&ha_sweep_strategies_section, offsetof(struct ha_sweep, use)},
    {&ha_sweep_data_section, offsetof(struct ha_sweep, data)},
    {&ha_sweep_train_section, offsetof(struct ha_sweep, train)},
    {&ha_sweep_probe_section, offsetof(struct ha_sweep, probe)},
    {&ha_sweep_generate_section, offsetof(struct ha_sweep, generate)},
    {&ha_sweep_resources_section, offsetof(struct ha_sweep, resources)},
    {&ha_sweep_retry_section, offsetof(struct ha_sweep, retry)},
    {&ha_sweep_schedule_section, offsetof(struct ha_sweep, schedule)},
    {&ha_sweep_notify_section, offsetof(struct ha_sweep, notify)},
};

/* A section that stands once per element, [[model]]. */
struct several {
    const struct ha_section *section;
    size_t array, count; /* offsets of the array and of its length */
};

static const struct several severals[] = {
    {&ha_sweep_model_section, offsetof(struct ha_sweep, models),
     offsetof(struct ha_sweep, model_count)},
    {&ha_sweep_strategy_section, offsetof(struct ha_sweep, strategies),
     offsetof(struct ha_sweep, strategy_count)},
    {&ha_sweep_judge_section, offsetof(struct ha_sweep, judges),
     offsetof(struct ha_sweep, judge_count)},
};

enum {
    SINGLES = sizeof(singles) / sizeof(singles[0]),
    SEVERALS = sizeof(severals) / sizeof(severals[0])
};

static void *single_values(struct ha_sweep *sweep, const struct single *single)
{
    return (char *)sweep + single->offset;
}

static char **several_array(struct ha_sweep *sweep, const struct several *several)
{
    return (char **)((char *)sweep + several->array);
}

static int64_t *several_count(struct ha_sweep *sweep, const struct several *several)
{
    return (int64_t *)((char *)sweep + several->count);
}

static void *several_at(struct ha_sweep *sweep, const struct several *several, int64_t index)
{
    return *several_array(sweep, several) + (size_t)index * several->section->bytes;
}

/* --- names of sections ---------------------------------------------------- */

static const struct single *find_single(const char *name)
{
    for (int i = 0; i < SINGLES; i++)
        if (strcmp(singles[i].section->name, name) == 0)
            return &singles[i];
    return NULL;
}

static const struct several *find_several(const char *name)
{
    for (int i = 0; i < SEVERALS; i++)
        if (strcmp(severals[i].section->name, name) == 0)
            return &severals[i];
    return NULL;
}

static int unknown_section(const char *where, const char *name, struct ha_error *err)
{
    const char *names[SINGLES + SEVERALS + 1], *nearest;
    int count = 0;

    for (int i = 0; i < SINGLES; i++)
        names[count++] = singles[i].section->name;
    for (int i = 0; i < SEVERALS; i++)
        names[count++] = severals[i].section->name;
    names[count++] = "vary";
    nearest = ha_settings_nearest(name, names, count);
    if (nearest)
        return ha_error_set(err, EINVAL, "%s: unknown section [%.60s]; did you mean %s%s%s?", where,
                            name, find_several(nearest) ? "[[" : "[", nearest,
                            find_several(nearest) ? "]]" : "]");
    return ha_error_set(err, EINVAL, "%s: unknown section [%.60s]", where, name);
}

/* Every member of the root is a section that is known, in its form. */
static int check_sections(const struct ha_toml *root, const char *file, struct ha_error *err)
{
    for (int64_t i = 0; i < ha_toml_size(root); i++) {
        const struct ha_toml *node = ha_toml_at(root, i);
        const char *name = ha_toml_key(node);
        bool several = find_several(name), table = ha_toml_is(node, HA_TOML_TABLE);
        char where[HA_ERROR_TEXT_BYTES];

        (void)snprintf(where, sizeof(where), "%s:%lld", file, (long long)ha_toml_key_line(node));
        if (!several && !find_single(name) && strcmp(name, "vary") != 0) {
            if (!table && !ha_toml_is(node, HA_TOML_ARRAY))
                return ha_error_set(err, EINVAL, "%s: key %.60s stands in no section", where, name);
            return unknown_section(where, name, err);
        }
        if (several && !ha_toml_is(node, HA_TOML_ARRAY))
            return ha_error_set(err, EINVAL, "%s: write [[%s]], one for each", where, name);
        if (!several && !table)
            return ha_error_set(err, EINVAL, "%s: write [%s], once", where, name);
    }
    return 0;
}

/* --- reading -------------------------------------------------------------- */

static int read_table(const struct ha_section *section, const struct ha_toml *table,
                      const char *file, void *values, struct ha_error *err)
{
    int r = ha_section_read(section, table, file, NULL, values, err);

    for (int64_t i = 0; r == 0 && i < ha_toml_size(table); i++) {
        const struct ha_toml *node = ha_toml_at(table, i);

        r = ha_refusals_check(section, ha_section_find(section, ha_toml_key(node)), values, err);
        if (r < 0)
            r = ha_error_prefix(err, "%s:%lld", file, (long long)ha_toml_key_line(node));
    }
    return r;
}

static int read_elements(struct ha_sweep *sweep, const struct several *several,
                         const struct ha_toml *array, const char *file, struct ha_error *err)
{
    int64_t count = ha_toml_size(array);
    int r = 0;

    if (count > ELEMENTS_MAX)
        return ha_error_set(err, E2BIG, "%s:%lld: more than %d [[%s]]", file,
                            (long long)ha_toml_line(array), ELEMENTS_MAX, several->section->name);
    *several_array(sweep, several) = ha_calloc(count, several->section->bytes);
    if (!*several_array(sweep, several))
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; r == 0 && i < count; i++) {
        const struct ha_toml *table = ha_toml_at(array, i);
        void *values = several_at(sweep, several, i);

        if (!ha_toml_is(table, HA_TOML_TABLE))
            return ha_error_set(err, EINVAL, "%s:%lld: write [[%s]], one for each", file,
                                (long long)ha_toml_line(table), several->section->name);
        *several_count(sweep, several) = i + 1;
        r = ha_section_init(several->section, values, err);
        if (r == 0)
            r = read_table(several->section, table, file, values, err);
        if (r == 0)
            r = ha_section_check_required(several->section, values, file, ha_toml_line(table), err);
    }
    return r;
}

static int read_sections(struct ha_sweep *sweep, const struct ha_toml *root, const char *file,
                         struct ha_error *err)
{
    int r = check_sections(root, file, err);

    for (int i = 0; r == 0 && i < SINGLES; i++) {
        void *values = single_values(sweep, &singles[i]);

        r = ha_section_init(singles[i].section, values, err);
        if (r == 0)
            r = read_table(singles[i].section, ha_toml_get(root, singles[i].section->name), file,
                           values, err);
    }
    for (int i = 0; r == 0 && i < SEVERALS; i++)
        r = read_elements(sweep, &severals[i], ha_toml_get(root, severals[i].section->name), file,
                          err);
    return r;
}

/* --- names ---------------------------------------------------------------- */

bool ha_sweep_name_valid(const char *name)
{
    size_t length =
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+");

    return length > 0 && length <= NAME_BYTES_MAX && name[length] == '\0' && name[0] != '.';
}

/* What is not allowed in a name becomes '-'. */
static char *name_from(const char *text)
{
    char *name = ha_strndup(text, strnlen(text, NAME_BYTES_MAX));

    for (char *at = name; at && *at; at++) {
        char one[2] = {*at, '\0'};

        if (!ha_sweep_name_valid(one) && !(*at == '.' && at > name))
            *at = '-';
    }
    return name;
}

/* The default of sweep.name: "demo" for demo.toml and for demo/grid.toml. */
static char *default_sweep_name(const char *file, const char *base_dir)
{
    const char *last = ha_path_basename(file);
    size_t length = strlen(last);
    char *stem, *name;

    if (length > 5 && strcmp(last + length - 5, ".toml") == 0)
        length -= 5;
    stem = ha_strndup(last, length);
    if (stem && strcmp(stem, "grid") == 0 && ha_sweep_name_valid(ha_path_basename(base_dir))) {
        free(stem);
        stem = ha_strdup(ha_path_basename(base_dir));
    }
    name = stem ? name_from(*stem ? stem : "grid") : NULL;
    free(stem);
    return name;
}

static int fill_text(char **text, char *value, struct ha_error *err)
{
    if (*text) {
        free(value);
        return 0;
    }
    *text = value;
    return value ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

static int fill_names(struct ha_sweep *sweep, const char *file, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < sweep->model_count; i++) {
        struct ha_sweep_model *model = &sweep->models[i];
        size_t length = strlen(model->path);
        char *path;

        while (length > 1 && model->path[length - 1] == '/')
            length--;
        path = ha_strndup(model->path, length);
        r = path ? fill_text(&model->name, name_from(ha_path_basename(path)), err)
                 : ha_error_set(err, ENOMEM, "out of memory");
        free(path);
    }
    for (int64_t i = 0; r == 0 && i < sweep->judge_count; i++)
        r = fill_text(&sweep->judges[i].name, name_from(sweep->judges[i].model), err);
    if (r == 0)
        r = fill_text(&sweep->general.name, default_sweep_name(file, sweep->base_dir), err);
    return r;
}

/* All elements begin with `given` and have their name where the row says. */
static const char *element_name(const struct several *several, const void *values)
{
    return *(char *const *)((const char *)values +
                            ha_section_find(several->section, "name")->offset);
}

static int check_names(struct ha_sweep *sweep, const struct several *several,
                       const struct ha_toml *root, const char *file, struct ha_error *err)
{
    const struct ha_toml *array = ha_toml_get(root, several->section->name);

    for (int64_t i = 0; i < *several_count(sweep, several); i++) {
        const char *name = element_name(several, several_at(sweep, several, i));
        int64_t line = ha_toml_line(ha_toml_at(array, i));

        if (!ha_sweep_name_valid(name))
            return ha_error_set(err, EINVAL,
                                "%s:%lld: %s.name \"%.60s\" must be 1 to %d letters, digits, "
                                "\".\", \"_\", \"-\" or \"+\" and not begin with \".\"",
                                file, (long long)line, several->section->name, name,
                                NAME_BYTES_MAX);
        for (int64_t j = 0; j < i; j++)
            if (strcmp(name, element_name(several, several_at(sweep, several, j))) == 0)
                return ha_error_set(err, EINVAL,
                                    "%s:%lld: a second %s \"%s\"; give it another name", file,
                                    (long long)line, several->section->name, name);
    }
    return 0;
}

/* --- overrides ------------------------------------------------------------ */

static int set_row(const struct ha_section *section, const char *key, const char *text,
                   const char *where, void *values, struct ha_error *err)
{
    const struct ha_setting *row = ha_section_find(section, key);
    const char *keys[64], *nearest;
    int r;

    if (row) {
        r = ha_section_set(section, row, text, where, values, err);
        if (r == 0 && ha_refusals_check(section, row, values, err) < 0)
            r = ha_error_prefix(err, "%s", where);
        return r;
    }
    for (int64_t i = 0; i < section->count; i++)
        keys[i] = section->rows[i].key;
    nearest = ha_settings_nearest(key, keys, section->count);
    if (nearest)
        return ha_error_set(err, EINVAL, "%s: unknown key %s.%.60s; did you mean %s?", where,
                            section->name, key, nearest);
    return ha_error_set(err, EINVAL, "%s: unknown key %s.%.60s", where, section->name, key);
}

/* "NAME.key": names may hold dots, keys do not. */
static int set_element(struct ha_sweep *sweep, const struct several *several, const char *path,
                       const char *text, const char *where, struct ha_error *err)
{
    const char *dot = strrchr(path, '.');
    size_t length = dot ? (size_t)(dot - path) : 0;

    if (length == 0)
        return ha_error_set(err, EINVAL, "%s: write %s.NAME.key=value", where,
                            several->section->name);
    for (int64_t i = 0; i < *several_count(sweep, several); i++) {
        void *values = several_at(sweep, several, i);
        const char *name = element_name(several, values);

        if (strlen(name) == length && memcmp(name, path, length) == 0)
            return set_row(several->section, dot + 1, text, where, values, err);
    }
    return ha_error_set(err, ENOENT, "%s: no [[%s]] is called \"%.*s\"", where,
                        several->section->name, (int)(length < 60 ? length : 60), path);
}

static int apply_override(struct ha_sweep *sweep, const char *override, struct ha_error *err)
{
    const char *equals = strchr(override, '=');
    char *key = ha_strndup(override, equals ? (size_t)(equals - override) : strlen(override));
    char *dot = key ? strchr(key, '.') : NULL;
    char *where = key ? ha_format("--set %s", key) : NULL;
    const struct single *single = NULL;
    const struct several *several = NULL;
    int r;

    if (!key || !where) {
        r = ha_error_set(err, ENOMEM, "out of memory");
        goto out;
    }
    if (!equals || !dot) {
        r = ha_error_set(err, EINVAL, "%s: write section.key=value", where);
        goto out;
    }
    *dot = '\0';
    single = find_single(key);
    several = find_several(key);
    if (single)
        r = set_row(single->section, dot + 1, equals + 1, where, single_values(sweep, single), err);
    else if (several)
        r = set_element(sweep, several, dot + 1, equals + 1, where, err);
    else if (strcmp(key, "vary") == 0)
        r = ha_error_set(err, EINVAL, "%s: axes are set in the file only", where);
    else
        r = unknown_section(where, key, err);
out:
    free(where);
    free(key);
    return r;
}

/* --- defaults that depend on other values --------------------------------- */

static void fill_seed(const struct ha_section *from, const void *from_values, const char *key,
                      const struct ha_section *section, const struct ha_setting *row, void *values)
{
    const struct ha_setting *origin = ha_section_find(from, key);
    int64_t row_bit = row - section->rows;

    *(int64_t *)((char *)values + row->offset) =
        *(const int64_t *)((const char *)from_values + origin->offset);
    if (ha_section_given(from, origin, from_values))
        *(uint64_t *)values |= UINT64_C(1) << row_bit;
}

void ha_sweep_fill_seeds(const struct ha_sweep_general *general, struct ha_sweep_data *data,
                         struct ha_sweep_train *train, struct ha_sweep_generate *generate)
{
    const struct {
        const struct ha_section *section;
        void *values;
    } to[] = {{&ha_sweep_data_section, data},
              {&ha_sweep_train_section, train},
              {&ha_sweep_generate_section, generate}};

    /* data comes first: train's order_seed refers to it. */
    for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++)
        for (int64_t j = 0; j < to[i].section->count; j++) {
            const struct ha_setting *row = &to[i].section->rows[j];

            if (!row->otherwise || ha_section_given(to[i].section, row, to[i].values))
                continue;
            if (strcmp(row->otherwise, "@sweep.seed") == 0)
                fill_seed(&ha_sweep_general_section, general, "seed", to[i].section, row,
                          to[i].values);
            else if (strcmp(row->otherwise, "@data.seed") == 0)
                fill_seed(&ha_sweep_data_section, data, "seed", to[i].section, row, to[i].values);
        }
}

/* The host of "https://host:port/v1", without the port: a label that stays. */
static size_t url_host(const char *url, const char **ret_host)
{
    const char *host = strstr(url, "://");
    size_t length;

    if (!host)
        return 0;
    host += 3;
    length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
    *ret_host = host;
    return length <= strlen(host) ? length : 0;
}

/* --- strategies ----------------------------------------------------------- */

static int check_strategy(const struct ha_sweep_strategy *strategy, const char *file, int64_t line,
                          struct ha_error *err)
{
    struct ha_layers layers = {0};
    int64_t count;
    bool builtin = ha_blocks_builtin(strategy->name);
    int r;

    if (strcmp(strategy->name, "base") == 0)
        return ha_error_set(err, EINVAL, "%s:%lld: strategy base trains nothing; remove it", file,
                            (long long)line);
    if (builtin && strategy->layers)
        return ha_error_set(err, EINVAL,
                            "%s:%lld: strategy %s has the paper's layers; give it another name to "
                            "choose them",
                            file, (long long)line, strategy->name);
    if (builtin)
        return 0;
    if (!strategy->layers)
        return ha_error_set(err, EINVAL,
                            "%s:%lld: strategy \"%s\" needs layers, \"18-27\", [18, 20] or "
                            "\"auto:8\"",
                            file, (long long)line, strategy->name);
    r = ha_layers_are_auto(strategy->layers)
            ? ha_layers_parse_auto(strategy->layers, 0, &count, err)
            : ha_layers_parse(strategy->layers, 0, &layers, err);
    if (r < 0)
        return ha_error_prefix(err, "%s:%lld: strategy.layers", file, (long long)line);
    ha_layers_clear(&layers);
    return 0;
}

static int64_t find_strategy(const struct ha_sweep *sweep, const char *name)
{
    for (int64_t i = 0; i < sweep->strategy_count; i++)
        if (strcmp(sweep->strategies[i].name, name) == 0)
            return i;
    return -1;
}

static int unknown_strategy(const struct ha_sweep *sweep, const char *name, const char *file,
                            int64_t line, struct ha_error *err)
{
    static const char *const builtins[] = {"base", "local", "mid", "global", "full"};
    const char *nearest = ha_settings_nearest(name, builtins, 5);

    for (int64_t i = 0; !nearest && i < sweep->strategy_count; i++) {
        const char *own = sweep->strategies[i].name;

        nearest = ha_settings_nearest(name, &own, 1);
    }
    return ha_error_set(err, EINVAL,
                        "%s:%lld: strategies.use names \"%.60s\", which is neither base, local, "
                        "mid, global, full nor a [[strategy]]%s%s%s",
                        file, (long long)line, name, nearest ? "; did you mean " : "",
                        nearest ? nearest : "", nearest ? "?" : "");
}

static int check_use(const struct ha_sweep *sweep, const char *file, int64_t line,
                     struct ha_error *err)
{
    const struct ha_text_list *use = &sweep->use.use;

    for (int64_t i = 0; i < use->count; i++) {
        for (int64_t j = 0; j < i; j++)
            if (strcmp(use->items[i], use->items[j]) == 0)
                return ha_error_set(err, EINVAL, "%s:%lld: strategies.use names \"%s\" twice", file,
                                    (long long)line, use->items[i]);
        if (find_strategy(sweep, use->items[i]) < 0 && !ha_blocks_builtin(use->items[i]))
            return unknown_strategy(sweep, use->items[i], file, line, err);
    }
    if (use->count + sweep->strategy_count == 0)
        return ha_error_set(err, EINVAL, "%s:%lld: no strategies are given", file, (long long)line);
    return 0;
}

/* Put the strategies into the order of `use`, own ones that it does not name
 * behind. */
static int order_strategies(struct ha_sweep *sweep, const char *file, int64_t line,
                            struct ha_error *err)
{
    const struct ha_section *section = &ha_sweep_strategy_section;
    const struct ha_text_list *use = &sweep->use.use;
    struct ha_sweep_strategy *ordered = NULL;
    int64_t count = 0;
    int r = check_use(sweep, file, line, err);

    if (r < 0)
        return r;
    ordered = ha_calloc(use->count + sweep->strategy_count, sizeof(*ordered));
    if (!ordered)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; r == 0 && i < use->count; i++) {
        int64_t own = find_strategy(sweep, use->items[i]);

        if (own >= 0)
            r = ha_section_copy(section, &sweep->strategies[own], &ordered[count++], err);
        else
            r = fill_text(&ordered[count++].name, ha_strdup(use->items[i]), err);
    }
    for (int64_t i = 0; r == 0 && i < sweep->strategy_count; i++)
        if (!ha_text_list_has(use, sweep->strategies[i].name))
            r = ha_section_copy(section, &sweep->strategies[i], &ordered[count++], err);
    if (r == 0) {
        struct ha_sweep_strategy *read = sweep->strategies;
        int64_t read_count = sweep->strategy_count;

        sweep->strategies = ordered;
        sweep->strategy_count = count;
        ordered = read;
        count = read_count;
    }
    for (int64_t i = 0; i < count; i++)
        ha_section_clear(section, &ordered[i]);
    free(ordered);
    return r;
}

/* --- checks of the whole -------------------------------------------------- */

static bool judge_gives(const struct ha_sweep_judge *judge, const char *key)
{
    return ha_section_given(&ha_sweep_judge_section, ha_section_find(&ha_sweep_judge_section, key),
                            judge);
}

static int check_judge(const struct ha_sweep *sweep, struct ha_sweep_judge *judge, const char *file,
                       int64_t line, struct ha_error *err)
{
    bool priced = judge_gives(judge, "price_input") && judge_gives(judge, "price_output");
    int keys =
        (judge->api_key != NULL) + (judge->api_key_env != NULL) + (judge->api_key_file != NULL);
    bool local = strcmp(judge->provider, "ha-evaluator") == 0;
    bool automatic = local && strcmp(judge->base_url, "auto") == 0;
    const char *host = NULL;
    size_t length;

    if (!automatic && strncmp(judge->base_url, "http://", 7) != 0 &&
        strncmp(judge->base_url, "https://", 8) != 0)
        return ha_error_set(err, EINVAL,
                            "%s:%lld: judge.base_url must begin with https:// or http://", file,
                            (long long)line);
    if (keys > 1)
        return ha_error_set(err, EINVAL,
                            "%s:%lld: judge \"%s\" has more than one of api_key_env, api_key_file "
                            "and api_key",
                            file, (long long)line, judge->name);
    if ((judge->budget > 0 || sweep->general.budget > 0) && !priced)
        return ha_error_set(err, EINVAL,
                            "%s:%lld: a budget needs judge.price_input and judge.price_output of "
                            "\"%s\"",
                            file, (long long)line, judge->name);
    if (judge->endpoint)
        return 0;
    if (local)
        return fill_text(&judge->endpoint, ha_strdup(judge->provider), err);
    length = url_host(judge->base_url, &host);
    if (length == 0)
        return ha_error_set(err, EINVAL, "%s:%lld: judge.base_url names no host", file,
                            (long long)line);
    return fill_text(&judge->endpoint, ha_strndup(host, length), err);
}

static int check_whole(struct ha_sweep *sweep, const struct ha_toml *root, const char *file,
                       struct ha_error *err)
{
    const struct ha_toml *judges = ha_toml_get(root, "judge"), *own = ha_toml_get(root, "strategy");
    int64_t data_line = ha_toml_line(ha_toml_get(root, "data"));
    int64_t name_line = ha_toml_key_line(ha_toml_get(ha_toml_get(root, "sweep"), "name"));
    int r = 0;

    if (sweep->model_count == 0)
        return ha_error_set(err, EINVAL, "%s:1: no [[model]] is given", file);
    r = ha_section_check_required(&ha_sweep_data_section, &sweep->data, file,
                                  data_line ? data_line : 1, err);
    if (r == 0 && (sweep->data.train.count == 0 || sweep->data.eval.count == 0))
        return ha_error_set(err, EINVAL, "%s:%lld: data.train and data.eval need a file each", file,
                            (long long)(data_line ? data_line : 1));
    if (r == 0 && !ha_sweep_name_valid(sweep->general.name))
        return ha_error_set(err, EINVAL,
                            "%s:%lld: sweep.name \"%.60s\" must be 1 to %d letters, digits, \".\", "
                            "\"_\", \"-\" or \"+\" and not begin with \".\"",
                            file, (long long)(name_line ? name_line : 1), sweep->general.name,
                            NAME_BYTES_MAX);
    for (int i = 0; r == 0 && i < SEVERALS; i++)
        r = check_names(sweep, &severals[i], root, file, err);
    for (int64_t i = 0; r == 0 && i < sweep->strategy_count; i++)
        r = check_strategy(&sweep->strategies[i], file, ha_toml_line(ha_toml_at(own, i)), err);
    for (int64_t i = 0; r == 0 && i < sweep->judge_count; i++)
        r = check_judge(sweep, &sweep->judges[i], file, ha_toml_line(ha_toml_at(judges, i)), err);
    return r;
}

/* Whether the sweep has a probe, once its strategies are in order. */
static int find_probe(struct ha_sweep *sweep, const struct ha_toml *root, const char *file,
                      struct ha_error *err)
{
    const struct ha_toml *section = ha_toml_get(root, "probe");
    bool trains = false;

    sweep->probes = section || sweep->probe.given != 0;
    for (int64_t i = 0; i < sweep->strategy_count; i++) {
        trains = trains || strcmp(sweep->strategies[i].name, "base") != 0;
        sweep->probes = sweep->probes || ha_layers_are_auto(sweep->strategies[i].layers);
    }
    if (!sweep->probes || trains)
        return 0;
    return ha_error_set(err, EINVAL,
                        "%s:%lld: [probe] is a stage of cells that train, and no strategy does; "
                        "add one to strategies.use",
                        file, (long long)(section ? ha_toml_key_line(section) : 1));
}

static int parse_root(struct ha_sweep *sweep, const struct ha_toml *root, const char *file,
                      const char *const *overrides, int64_t count, struct ha_error *err)
{
    int64_t use_line = ha_toml_key_line(ha_toml_get(ha_toml_get(root, "strategies"), "use"));
    int r = read_sections(sweep, root, file, err);

    if (r == 0)
        r = fill_names(sweep, file, err);
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = apply_override(sweep, overrides[i], err);
    if (r == 0)
        r = check_whole(sweep, root, file, err);
    if (r == 0)
        r = order_strategies(sweep, file, use_line ? use_line : 1, err);
    if (r == 0)
        r = find_probe(sweep, root, file, err);
    if (r < 0)
        return r;
    ha_sweep_fill_seeds(&sweep->general, &sweep->data, &sweep->train, &sweep->generate);
    return ha_sweep_read_vary(sweep, ha_toml_get(root, "vary"), file, err);
}

/* --- the interface -------------------------------------------------------- */

static int parse_toml(const struct ha_toml *root, const char *name, const char *base_dir,
                      const char *const *overrides, int64_t count, struct ha_sweep **ret_sweep,
                      struct ha_error *err)
{
    struct ha_sweep *sweep = ha_calloc(1, sizeof(*sweep));
    int r = -ENOMEM;

    if (sweep)
        sweep->base_dir = ha_strdup(base_dir);
    if (!sweep || !sweep->base_dir)
        (void)ha_error_set(err, ENOMEM, "%s: out of memory", name);
    else
        r = parse_root(sweep, root, name, overrides, count, err);
    if (r < 0)
        ha_sweep_destroy(sweep);
    else
        *ret_sweep = sweep;
    return r;
}

int ha_sweep_parse(const char *text, size_t size, const char *name, const char *base_dir,
                   const char *const *overrides, int64_t count, struct ha_sweep **ret_sweep,
                   struct ha_error *err)
{
    struct ha_toml *root = NULL;
    int r = ha_toml_parse(text, size, name, &root, err);

    if (r == 0)
        r = parse_toml(root, name, base_dir, overrides, count, ret_sweep, err);
    ha_toml_destroy(root);
    return r;
}

int ha_sweep_load(const char *path, const char *const *overrides, int64_t count,
                  struct ha_sweep **ret_sweep, struct ha_error *err)
{
    struct ha_toml *root = NULL;
    char *dir = ha_path_dirname(path), *whole = NULL;
    int r = dir ? ha_toml_load(path, &root, err) : ha_error_set(err, ENOMEM, "out of memory");

    if (r == 0) {
        whole = realpath(dir, NULL);
        r = whole ? parse_toml(root, path, whole, overrides, count, ret_sweep, err)
                  : ha_error_set(err, errno, "%s: %s", dir, strerror(errno));
    }
    ha_toml_destroy(root);
    free(whole);
    free(dir);
    return r;
}

void ha_sweep_destroy(struct ha_sweep *sweep)
{
    if (!sweep)
        return;
    for (int i = 0; i < SINGLES; i++)
        ha_section_clear(singles[i].section, single_values(sweep, &singles[i]));
    for (int i = 0; i < SEVERALS; i++) {
        for (int64_t j = 0; j < *several_count(sweep, &severals[i]); j++)
            ha_section_clear(severals[i].section, several_at(sweep, &severals[i], j));
        free(*several_array(sweep, &severals[i]));
    }
    ha_sweep_clear_vary(sweep);
    free(sweep->base_dir);
    free(sweep);
}

char *ha_sweep_path(const struct ha_sweep *sweep, const char *path)
{
    return ha_path_join(sweep->base_dir, path);
}
