#include "worker/daemon/model_find.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/settings.h"
#include "common/io/digest.h"

/* Does a resolved path lie below a resolved folder, or is it the folder? */
static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static bool has_config(const char *folder)
{
    char *path = ha_path_join(folder, "config.json");
    bool there = path && ha_path_exists(path);

    free(path);
    return there;
}

/* The resolved folder when it is a model below the root, else NULL. */
static char *try_folder(const char *folder, const char *root)
{
    char *resolved = realpath(folder, NULL), *resolved_root = realpath(root, NULL);

    if (resolved &&
        (!resolved_root || !is_below(resolved, resolved_root) || !has_config(resolved))) {
        free(resolved);
        resolved = NULL;
    }
    free(resolved_root);
    return resolved;
}

/* Is this the model that was meant?  1: yes; 0: another; negative: error. */
static int compare(const char *folder, const char *digest, const char *cache, struct ha_error *err)
{
    char model[HA_SHA256_HEX_BYTES], tokenizer[HA_SHA256_HEX_BYTES];
    int r;

    if (digest[0] == '\0')
        return 1;
    r = ha_digest_model(folder, cache, model, tokenizer, err);
    return r < 0 ? r : strcmp(model, digest) == 0;
}

/* Candidates below one root: path, or the root with an ever shorter end of it. */
static int search_root(const char *root, const char *path, const char *digest, const char *cache,
                       char **ret_path, char **other, struct ha_error *err)
{
    const char *end = path;
    int r = 0;

    for (bool whole = path[0] == '/'; end && r == 0; whole = false) {
        char *candidate = whole ? ha_strdup(end) : ha_format("%s/%s", root, end);
        char *found = candidate ? try_folder(candidate, root) : NULL;

        free(candidate);
        if (found) {
            r = compare(found, digest, cache, err);
            if (r == 1) {
                *ret_path = found;
                return 1;
            }
            free(*other);
            *other = found;
        }
        end += strspn(end, "/");
        if (whole)
            continue; /* next: the root followed by all of it */
        end = strchr(end, '/');
        if (end && end[strspn(end, "/")] == '\0')
            end = NULL;
        else if (end)
            end += strspn(end, "/");
    }
    return r;
}

int model_find(const struct ha_text_list *roots, const char *path, const char *digest,
               const char *cache, char **ret_path, struct ha_error *err)
{
    char *other = NULL;
    int r = 0;

    if (path[0] == '\0')
        return ha_error_set(err, ENOENT, "the job names no model");
    for (int64_t i = 0; i < roots->count && r == 0; i++)
        r = search_root(roots->items[i], path, digest, cache, ret_path, &other, err);
    if (r == 0 && other)
        r = ha_error_set(err, ESTALE,
                         "the model at %s has another content than the one at submit (%s); copy "
                         "it anew",
                         other, path);
    else if (r == 0)
        r = ha_error_set(err, ENOENT,
                         "model %s is not below this worker's model_roots (%lld of them, the "
                         "first %s)",
                         path, (long long)roots->count,
                         roots->count > 0 ? roots->items[0] : "missing");
    free(other);
    return r < 0 ? r : 0;
}
