#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/proc/spawn.h"

/* Where programs lie in a build tree, seen from its top. */
static const char *const folders[] = {"", "tests/evaluator"};

enum { MAX_LEVELS = 3 }; /* how deep a program lies below that top */

/* dir/middle/name in new memory when it can be run; "" when it cannot, NULL
 * when memory is short. */
static char *try_path(const char *dir, const char *middle, const char *name)
{
    char *path = ha_format("%s/%s%s%s", dir, middle, middle[0] ? "/" : "", name);

    if (path && (access(path, X_OK) < 0 || ha_path_is_dir(path)))
        path[0] = '\0';
    return path;
}

static char *try_build_tree(const char *dir, const char *name)
{
    char *top = ha_strdup(dir), *none = NULL;

    for (int level = 0; top && level < MAX_LEVELS; level++) {
        char *up = ha_path_dirname(top);

        free(top);
        top = up;
        for (size_t i = 0; top && i < sizeof(folders) / sizeof(folders[0]); i++) {
            char *path = try_path(top, folders[i], name);

            if (!path || path[0]) {
                free(top);
                return path;
            }
            free(path);
        }
    }
    if (top)
        none = ha_strdup("");
    free(top);
    return none;
}

static char *try_search_path(const char *name)
{
    const char *list = getenv("PATH");

    while (list && *list) {
        size_t length = strcspn(list, ":");
        char *dir = ha_strndup(list, length);
        char *path = dir ? try_path(length ? dir : ".", "", name) : NULL;

        free(dir);
        if (!path || path[0])
            return path;
        free(path);
        list += length + (list[length] == ':');
    }
    return ha_strdup("");
}

int ha_program_find(const char *name, char **ret_path, struct ha_error *err)
{
    char *dir = ha_path_program_dir();
    char *path = dir ? try_path(dir, "", name) : NULL;
    int r = 0;

    if (path && path[0] == '\0') {
        free(path);
        path = try_build_tree(dir, name);
    }
    if (path && path[0] == '\0') {
        free(path);
        path = try_search_path(name);
    }
    if (!path) {
        r = ha_error_set(err, ENOMEM, "out of memory");
    } else if (path[0] == '\0') {
        r = ha_error_set(err, ENOENT,
                         "cannot find the program %s: not in %s, not beside it in a build tree, "
                         "not in PATH",
                         name, dir);
        free(path);
    } else {
        *ret_path = path;
    }
    free(dir);
    return r;
}
