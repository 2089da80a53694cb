#include "common/conf/run_settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/refusals.h"
#include "common/conf/sweep_private.h"

/* The sections and where they are. */
static const struct {
    const struct ha_section *section;
    size_t offset;
} parts[] = {
    {&ha_sweep_data_section, offsetof(struct ha_run_settings, data)},
    {&ha_sweep_train_section, offsetof(struct ha_run_settings, train)},
    {&ha_sweep_probe_section, offsetof(struct ha_run_settings, probe)},
    {&ha_sweep_generate_section, offsetof(struct ha_run_settings, generate)},
};

enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

static void *part_values(struct ha_run_settings *settings, int part)
{
    return (char *)settings + parts[part].offset;
}

void ha_run_settings_destroy(struct ha_run_settings *settings)
{
    if (!settings)
        return;
    for (int i = 0; i < PARTS; i++)
        ha_section_clear(parts[i].section, part_values(settings, i));
    free(settings);
}

static int create_defaults(struct ha_run_settings **ret_settings, struct ha_error *err)
{
    struct ha_run_settings *settings = ha_calloc(1, sizeof(*settings));
    int r = settings ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    for (int i = 0; r == 0 && i < PARTS; i++)
        r = ha_section_init(parts[i].section, part_values(settings, i), err);
    if (r < 0)
        ha_run_settings_destroy(settings);
    else
        *ret_settings = settings;
    return r;
}

static int unknown_key(const struct ha_section *section, const char *key, const char *where,
                       struct ha_error *err)
{
    const char *keys[64], *nearest;

    for (int64_t i = 0; i < section->count; i++)
        keys[i] = section->rows[i].key;
    nearest = ha_settings_nearest(key, keys, section->count);
    return ha_error_set(err, EINVAL, "%s: unknown key %s.%.60s%s%s%s", where, section->name, key,
                        nearest ? "; did you mean " : "", nearest ? nearest : "",
                        nearest ? "?" : "");
}

static int apply_override(struct ha_run_settings *settings, struct ha_sweep_general *general,
                          const char *override, struct ha_error *err)
{
    const char *equals = strchr(override, '='), *dot = strchr(override, '.');
    const struct ha_section *section = NULL;
    void *values = NULL;
    char *where, *key = NULL;
    int r = 0;

    if (!equals || !dot || dot > equals)
        return ha_error_set(err, EINVAL, "--set %.80s: write section.key=value", override);
    for (int i = 0; i < PARTS; i++)
        if (strncmp(override, parts[i].section->name, (size_t)(dot - override)) == 0 &&
            parts[i].section->name[dot - override] == '\0') {
            section = parts[i].section;
            values = part_values(settings, i);
        }
    if (strncmp(override, "sweep.", 6) == 0) {
        section = &ha_sweep_general_section;
        values = general;
    }
    if (!section)
        return ha_error_set(
            err, EINVAL, "--set %.80s: the section must be data, train, probe, generate or sweep",
            override);
    where = ha_format("--set %.*s", (int)(equals - override), override);
    key = ha_strndup(dot + 1, (size_t)(equals - dot - 1));
    if (!where || !key) {
        r = ha_error_set(err, ENOMEM, "out of memory");
    } else {
        const struct ha_setting *row = ha_section_find(section, key);

        r = row ? ha_section_set(section, row, equals + 1, where, values, err)
                : unknown_key(section, key, where, err);
        if (r == 0 && ha_refusals_check(section, row, values, err) < 0)
            r = ha_error_prefix(err, "%s", where);
    }
    free(key);
    free(where);
    return r;
}

int ha_run_settings_create(const char *const *overrides, int64_t count,
                           struct ha_run_settings **ret_settings, struct ha_error *err)
{
    struct ha_run_settings *settings = NULL;
    struct ha_sweep_general general = {0};
    int r = ha_section_init(&ha_sweep_general_section, &general, err);

    if (r == 0)
        r = create_defaults(&settings, err);
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = apply_override(settings, &general, overrides[i], err);
    if (r == 0) {
        ha_sweep_fill_seeds(&general, &settings->data, &settings->train, &settings->generate);
        *ret_settings = settings;
        settings = NULL;
    }
    ha_section_clear(&ha_sweep_general_section, &general);
    ha_run_settings_destroy(settings);
    return r;
}

int ha_run_settings_merge(struct ha_run_settings *settings, const struct ha_json *object,
                          const char *where, struct ha_error *err)
{
    struct ha_json *member;
    const char *key;
    void *at = NULL;
    int r = 0;

    if (object && !ha_json_is(object, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: the settings must be an object", where);
    while (r == 0 && ha_json_next(object, &at, &key, &member)) {
        int part = 0;

        while (part < PARTS && strcmp(parts[part].section->name, key) != 0)
            part++;
        if (part == PARTS)
            return ha_error_set(err, EINVAL, "%s: unknown section %.60s", where, key);
        r = ha_section_from_json(parts[part].section, member, where, part_values(settings, part),
                                 err);
    }
    return r;
}

int ha_run_settings_from_json(const struct ha_json *object, const char *where,
                              struct ha_run_settings **ret_settings, struct ha_error *err)
{
    struct ha_run_settings *settings = NULL;
    struct ha_sweep_general general = {0};
    int r = ha_section_init(&ha_sweep_general_section, &general, err);

    if (r == 0)
        r = create_defaults(&settings, err);
    if (r == 0)
        r = ha_run_settings_merge(settings, object, where, err);
    if (r == 0) {
        ha_sweep_fill_seeds(&general, &settings->data, &settings->train, &settings->generate);
        *ret_settings = settings;
        settings = NULL;
    }
    ha_section_clear(&ha_sweep_general_section, &general);
    ha_run_settings_destroy(settings);
    return r;
}

struct ha_json *ha_run_settings_json(const struct ha_run_settings *settings)
{
    struct ha_json *json = ha_json_new_object();

    if (json &&
        ha_json_set(json, "data", ha_section_json(&ha_sweep_data_section, &settings->data, 0)) ==
            0 &&
        ha_json_set(json, "train", ha_section_json(&ha_sweep_train_section, &settings->train, 0)) ==
            0 &&
        ha_json_set(json, "probe", ha_section_json(&ha_sweep_probe_section, &settings->probe, 0)) ==
            0 &&
        ha_json_set(json, "generate", ha_sweep_generate_json(&settings->generate, 0)) == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}
