#include "common/conf/model_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"

enum { REVISION_BYTES_MAX = 256 };

static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

bool ha_model_path_is_hub_id(const char *path)
{
    size_t org = strspn(path, name_letters);
    size_t name = path[org] == '/' ? strspn(path + org + 1, name_letters) : 0;

    return org > 0 && name > 0 && path[org + 1 + name] == '\0' && path[0] != '.' &&
           path[org + 1] != '.';
}

/* The folder of the cache, by the variables that huggingface_hub reads. */
static char *cache_folder(void)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    const char *xdg = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");

    if (hub && *hub)
        return ha_strdup(hub);
    if (home && *home)
        return ha_path_join(home, "hub");
    if (xdg && *xdg)
        return ha_path_join(xdg, "huggingface/hub");
    return ha_format("%s/.cache/huggingface/hub", user ? user : "");
}

/* No part may leave the folder that it is put into. */
static bool revision_valid(const char *revision)
{
    return *revision && strlen(revision) < REVISION_BYTES_MAX && revision[0] != '/' &&
           !strstr(revision, "..");
}

/* The commit that a branch or tag names; NULL when there is no such file. */
static char *read_ref(const char *repository, const char *revision)
{
    char *path = ha_format("%s/refs/%s", repository, revision);
    FILE *file = path ? fopen(path, "re") : NULL;
    char commit[REVISION_BYTES_MAX] = "";

    free(path);
    if (!file)
        return NULL;
    if (!fgets(commit, sizeof(commit), file))
        commit[0] = '\0';
    (void)fclose(file);
    commit[strcspn(commit, " \r\n")] = '\0';
    return revision_valid(commit) ? ha_strdup(commit) : NULL;
}

static char *repository_folder(const char *cache, const char *id)
{
    const char *slash = strchr(id, '/');

    return ha_format("%s/models--%.*s--%s", cache, (int)(slash - id), id, slash + 1);
}

static int find_snapshot(const char *repository, const char *id, const char *revision,
                         char **ret_dir, struct ha_error *err)
{
    const char *wanted = revision ? revision : "main";
    char *commit, *dir;

    if (!ha_path_is_dir(repository))
        return ha_error_set(err, ENOENT,
                            "model %s is neither a folder nor in the Hugging Face cache (%s); give "
                            "its folder, or fetch it with `huggingface-cli download %s`",
                            id, repository, id);
    if (!revision_valid(wanted))
        return ha_error_set(err, EINVAL, "model %s: \"%.60s\" is no revision", id, wanted);
    commit = read_ref(repository, wanted);
    dir = ha_format("%s/snapshots/%s", repository, commit ? commit : wanted);
    free(commit);
    if (!dir)
        return ha_error_set(err, ENOMEM, "out of memory");
    if (!ha_path_is_dir(dir)) {
        int r = ha_error_set(err, ENOENT,
                             "model %s: revision %s is not in the Hugging Face cache (no folder "
                             "%s)",
                             id, wanted, dir);

        free(dir);
        return r;
    }
    *ret_dir = dir;
    return 0;
}

int ha_model_path_resolve(const char *base_dir, const char *path, const char *revision,
                          char **ret_dir, struct ha_error *err)
{
    char *dir = ha_path_join(base_dir, path), *cache = NULL, *repository = NULL;
    int r;

    if (!dir)
        return ha_error_set(err, ENOMEM, "out of memory");
    if (ha_path_is_dir(dir)) {
        *ret_dir = dir;
        return 0;
    }
    if (!ha_model_path_is_hub_id(path)) {
        r = ha_error_set(err, ENOENT, "model folder %s does not exist", dir);
        free(dir);
        return r;
    }
    cache = cache_folder();
    repository = cache ? repository_folder(cache, path) : NULL;
    r = repository ? find_snapshot(repository, path, revision, ret_dir, err)
                   : ha_error_set(err, ENOMEM, "out of memory");
    free(repository);
    free(cache);
    free(dir);
    return r;
}
