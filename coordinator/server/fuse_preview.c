#include "coordinator/server/fuse_preview.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/core/fuse.h"

enum { FILE_BYTES = 64 << 20, DEVICES_MAX = 1 << 20 };

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for a preview");
}

static int64_t number(const struct ha_json *json, const char *key)
{
    return ha_json_int(ha_json_get(json, key), 0);
}

/* The names of the cells in one set. */
static struct ha_json *job_json(const struct ha_json *cells, const int64_t *set_of, int64_t set)
{
    struct ha_json *job = ha_json_new_array();

    for (int64_t i = 0; job && i < ha_json_size(cells); i++) {
        const char *name = ha_json_string(ha_json_get(ha_json_at(cells, i), "name"), "");

        if (set_of[i] == set && ha_json_append(job, ha_json_new_string(name)) < 0) {
            ha_json_destroy(job);
            job = NULL;
        }
    }
    return job;
}

static int add_choice(const struct ha_fuse_group *group, const struct ha_json *cells,
                      int64_t devices, struct ha_json *choices, struct ha_error *err)
{
    int64_t *set_of = ha_calloc(group->count, sizeof *set_of), sets = -1;
    struct ha_json *choice = ha_json_new_object(), *jobs = ha_json_new_array();
    double finish = 0;
    int r = ha_json_append(choices, choice);

    if (set_of)
        sets = ha_fuse_choose(group, devices, set_of, &finish);
    if (r < 0 || sets < 0 || ha_json_set(choice, "jobs", jobs) < 0 ||
        ha_json_set(choice, "devices", ha_json_new_int(devices)) < 0 ||
        ha_json_set(choice, "finish", ha_json_new_real(finish)) < 0)
        r = no_memory(err);
    for (int64_t s = 0; r == 0 && s < sets; s++)
        if (ha_json_append(jobs, job_json(cells, set_of, s)) < 0)
            r = no_memory(err);
    free(set_of);
    return r;
}

static int read_needs(const struct ha_json *json, const struct ha_json *models,
                      struct ha_fuse_need *needs, struct ha_error *err)
{
    const struct ha_json *cells = ha_json_get(json, "cells");
    const struct ha_json *model = ha_json_at(models, number(json, "model"));
    const char *text = ha_json_string(ha_json_get(model, "plan"), "");
    struct ha_fuse_model costs;
    struct ha_json *plan = NULL;

    if (text[0] && ha_json_parse(text, strlen(text), "plan", &plan, err) < 0)
        return -EINVAL;
    ha_fuse_model_read(plan, number(model, "layers"), &costs);
    ha_json_destroy(plan);
    for (int64_t i = 0; i < ha_json_size(cells); i++) {
        const struct ha_json *cell = ha_json_at(cells, i);

        needs[i] = ha_fuse_train_need(&costs, number(cell, "lowest"), number(cell, "layers"),
                                      number(cell, "rank"));
    }
    return 0;
}

static int add_group(const struct ha_json *root, const struct ha_json *json, struct ha_json *groups,
                     struct ha_error *err)
{
    const struct ha_json *cells = ha_json_get(json, "cells"), *devices;
    struct ha_json *out = ha_json_new_object(), *choices = ha_json_new_array();
    struct ha_fuse_need *needs = ha_calloc(ha_json_size(cells), sizeof *needs);
    struct ha_fuse_group group = {
        .cells = needs, .count = ha_json_size(cells), .memory_bytes = number(root, "memory_bytes")};
    int r = ha_json_append(groups, out);

    if (r < 0 || !needs || ha_json_set(out, "choices", choices) < 0)
        r = no_memory(err);
    else if (group.count < 1 ||
             !ha_fuse_mode_parse(ha_json_string(ha_json_get(json, "fuse"), ""), &group.mode))
        r = ha_error_set(err, EINVAL, "a group has no cells, or no mode");
    else
        r = read_needs(json, ha_json_get(root, "models"), needs, err);
    devices = ha_json_get(root, "devices");
    for (int64_t i = 0; r == 0 && i < ha_json_size(devices); i++) {
        int64_t count = ha_json_int(ha_json_at(devices, i), 0);

        if (count < 1 || count > DEVICES_MAX)
            r = ha_error_set(err, EINVAL, "devices must be 1 to %d", DEVICES_MAX);
        else
            r = add_choice(&group, cells, count, choices, err);
    }
    free(needs);
    return r;
}

int ha_fuse_preview(const char *file, struct ha_error *err)
{
    struct ha_json *root = NULL, *out = ha_json_new_object(), *groups = ha_json_new_array();
    const struct ha_json *list;
    char *text = NULL;
    int r = ha_json_load(file, FILE_BYTES, &root, err);

    if (ha_json_set(out, "groups", groups) < 0 && r == 0)
        r = no_memory(err);
    list = ha_json_get(root, "groups");
    for (int64_t i = 0; r == 0 && i < ha_json_size(list); i++)
        r = add_group(root, ha_json_at(list, i), groups, err);
    if (r == 0) {
        text = ha_json_dump(out, HA_JSON_COMPACT);
        r = text ? 0 : no_memory(err);
    }
    if (r == 0 && puts(text) == EOF)
        r = ha_error_set(err, errno, "standard output cannot be written");
    free(text);
    ha_json_destroy(out);
    ha_json_destroy(root);
    return r;
}
