#include "coordinator/core/resubmit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/settings.h"
#include "common/conf/sweep.h"

/* A setting that enters no stage key never makes results differ, but it may
 * stand before the one that does. */
static bool changes_nothing(const struct ha_section *section, const char *key)
{
    const struct ha_setting *row = section ? ha_section_find(section, key) : NULL;

    return row && row->reads == HA_READ_NONE;
}

static const struct ha_section *find_section(const char *name)
{
    static const struct ha_section *const sections[] = {
        &ha_sweep_data_section, &ha_sweep_train_section, &ha_sweep_probe_section,
        &ha_sweep_generate_section};

    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (strcmp(sections[i]->name, name) == 0)
            return sections[i];
    }
    return NULL;
}

/* A value as a person would write it: 0.1, not its seventeen digits. */
static char *shown(const struct ha_json *value)
{
    char text[HA_REAL_TEXT_BYTES];

    if (!value)
        return ha_strdup("unset");
    if (ha_json_type(value) == HA_JSON_REAL)
        return ha_strdup(ha_real_text(ha_json_real(value, 0), text));
    return ha_json_dump(value, HA_JSON_CANONICAL);
}

/* Append "prefix.key (old -> new)" for the first member that differs.
 * Returns 1 when one was found, 0, or a negative errno. */
static int object_difference(const char *prefix, const struct ha_section *rows,
                             const struct ha_json *before, const struct ha_json *after,
                             struct ha_buffer *out)
{
    void *at = NULL;
    const char *key;
    struct ha_json *value;

    while (ha_json_next(after, &at, &key, &value)) {
        char *old, *new;
        int r = 0;

        if (changes_nothing(rows, key))
            continue;
        old = shown(ha_json_get(before, key));
        new = shown(value);
        if (!old || !new)
            r = -ENOMEM;
        else if (strcmp(old, new) != 0)
            r = ha_buffer_printf(out, "%s.%s (%s -> %s)", prefix, key, old, new);
        if (r == 0 && old && new &&strcmp(old, new) != 0)
            r = 1;
        free(old);
        free(new);
        if (r != 0)
            return r;
    }
    return 0;
}

static int settings_difference(const struct ha_json *before, const struct ha_json *after,
                               struct ha_buffer *out)
{
    void *at = NULL;
    const char *section;
    struct ha_json *values;

    while (ha_json_next(after, &at, &section, &values)) {
        int r = object_difference(section, find_section(section), ha_json_get(before, section),
                                  values, out);

        if (r != 0)
            return r;
    }
    return 0;
}

static int parse_pair(const char *before, const char *after, struct ha_json **ret_before,
                      struct ha_json **ret_after, struct ha_error *err)
{
    int r = ha_json_parse(before, strlen(before), "stored settings", ret_before, err);

    if (r < 0)
        return r;
    r = ha_json_parse(after, strlen(after), "settings", ret_after, err);
    if (r < 0) {
        ha_json_destroy(*ret_before);
        *ret_before = NULL;
    }
    return r;
}

static int other_difference(const struct ha_resubmit_cell *before,
                            const struct ha_resubmit_cell *after, struct ha_buffer *out)
{
    if (strcmp(before->layers, after->layers) != 0)
        return ha_buffer_printf(out, "layers (%s -> %s)", before->layers, after->layers);
    if (strcmp(before->model_digest, after->model_digest) != 0)
        return ha_buffer_append_text(out, "the model's files");
    if (strcmp(before->tokenizer_digest, after->tokenizer_digest) != 0)
        return ha_buffer_append_text(out, "the tokenizer's files");
    if (strcmp(before->data_digest, after->data_digest) != 0)
        return ha_buffer_append_text(out, "the data files");
    return ha_buffer_append_text(out, "the form of the keys");
}

int ha_resubmit_difference(const struct ha_resubmit_cell *before,
                           const struct ha_resubmit_cell *after, struct ha_buffer *out,
                           struct ha_error *err)
{
    struct ha_json *old = NULL, *new = NULL;
    int r = parse_pair(before->settings, after->settings, &old, &new, err);

    if (r < 0)
        return r;
    r = settings_difference(old, new, out);
    if (r == 0)
        r = other_difference(before, after, out);
    ha_json_destroy(old);
    ha_json_destroy(new);
    return r < 0 ? ha_error_set(err, -r, "no memory to compare two grids") : 0;
}

int ha_resubmit_judge_difference(const char *prefix, const char *before, const char *after,
                                 struct ha_buffer *out, struct ha_error *err)
{
    struct ha_json *old = NULL, *new = NULL;
    int r = parse_pair(before, after, &old, &new, err);

    if (r < 0)
        return r;
    r = object_difference(prefix, &ha_sweep_judge_section, old, new, out);
    if (r == 0)
        r = ha_buffer_append_text(out, prefix);
    ha_json_destroy(old);
    ha_json_destroy(new);
    return r < 0 ? ha_error_set(err, -r, "no memory to compare two grids") : 0;
}
