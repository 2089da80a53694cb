#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/net/curve.h"

static const char suffix[] = ".pub";

static int compare_keys(const void *left, const void *right)
{
    const struct ha_allow_entry *a = left, *b = right;

    return strcmp(a->public_key, b->public_key);
}

/* The length of NAME in "NAME.pub"; 0 for other files. */
static size_t entry_name_length(const char *file_name)
{
    size_t length = strlen(file_name), tail = sizeof(suffix) - 1;

    if (length <= tail || strcmp(file_name + length - tail, suffix) != 0 || file_name[0] == '.')
        return 0;
    return length - tail;
}

static int add_entry(struct ha_allow_list *list, int64_t *capacity, const char *folder,
                     const char *file_name, struct ha_error *err)
{
    size_t length = entry_name_length(file_name);
    struct ha_allow_entry entry = {.name = NULL};
    char *path;
    int r;

    if (length == 0)
        return 0;
    entry.name = ha_strndup(file_name, length);
    if (!entry.name)
        return ha_error_set(err, ENOMEM, "out of memory");
    if (!ha_curve_name_valid(entry.name)) {
        free(entry.name);
        return 0;
    }
    path = ha_path_join(folder, file_name);
    if (!path ||
        ha_grow((void **)&list->entries, capacity, list->n_entries + 1, sizeof(*list->entries)) < 0)
        r = ha_error_set(err, ENOMEM, "out of memory");
    else
        r = ha_curve_public_load(path, entry.public_key, &entry.role, err);
    if (r == 0 && entry.role == HA_NET_ROLE_NONE)
        r = ha_error_set(err, EINVAL, "%s has no role line", path);
    free(path);
    if (r < 0) {
        free(entry.name);
        return r;
    }
    list->entries[list->n_entries++] = entry;
    return 0;
}

static int sort_entries(struct ha_allow_list *list, struct ha_error *err)
{
    if (list->n_entries > 0)
        qsort(list->entries, (size_t)list->n_entries, sizeof(*list->entries), compare_keys);
    for (int64_t i = 1; i < list->n_entries; i++) {
        if (compare_keys(&list->entries[i - 1], &list->entries[i]) == 0)
            return ha_error_set(err, EINVAL, "%s.pub and %s.pub hold the same key; remove one",
                                list->entries[i - 1].name, list->entries[i].name);
    }
    return 0;
}

int ha_allow_list_load(const char *folder, struct ha_allow_list **ret_list, struct ha_error *err)
{
    struct ha_allow_list *list = ha_calloc(1, sizeof(*list));
    const struct dirent *entry;
    int64_t capacity = 0;
    DIR *dir;
    int r = 0;

    if (!list)
        return ha_error_set(err, ENOMEM, "out of memory");
    dir = opendir(folder);
    if (!dir)
        r = ha_error_set(err, errno, "cannot read the allow-list %s: %s", folder, strerror(errno));
    while (r == 0 && (entry = readdir(dir)) != NULL)
        r = add_entry(list, &capacity, folder, entry->d_name, err);
    if (dir)
        closedir(dir);
    if (r == 0)
        r = sort_entries(list, err);
    if (r < 0) {
        ha_allow_list_destroy(list);
        return r;
    }
    *ret_list = list;
    return 0;
}

void ha_allow_list_destroy(struct ha_allow_list *list)
{
    if (!list)
        return;
    for (int64_t i = 0; i < list->n_entries; i++)
        free(list->entries[i].name);
    free(list->entries);
    free(list);
}

const struct ha_allow_entry *ha_allow_list_find(const struct ha_allow_list *list,
                                                const char *public_key)
{
    struct ha_allow_entry key = {.role = HA_NET_ROLE_NONE};

    if (list->n_entries == 0 || strlen(public_key) >= sizeof(key.public_key))
        return NULL;
    (void)snprintf(key.public_key, sizeof(key.public_key), "%s", public_key);
    return bsearch(&key, list->entries, (size_t)list->n_entries, sizeof(key), compare_keys);
}
