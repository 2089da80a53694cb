#include "common/base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/memory.h"

char *ha_path_join(const char *dir, const char *name)
{
    size_t length = dir ? strlen(dir) : 0;

    if (name[0] == '/' || length == 0)
        return ha_strdup(name);
    return ha_format("%s%s%s", dir, dir[length - 1] == '/' ? "" : "/", name);
}

char *ha_path_dirname(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return ha_strdup(".");
    return ha_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

const char *ha_path_basename(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

bool ha_path_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

bool ha_path_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Put the name of a folder on the disk; one whose parent may not be read is left. */
static int sync_name(const char *path, struct ha_error *err)
{
    char *parent = ha_path_dirname(path);
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int r = parent ? 0 : ha_error_set(err, ENOMEM, "%s: out of memory", path);

    /* EINVAL: the filesystem has no such call for folders; EROFS: nobody made anything there. */
    if (fd >= 0 && fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
        r = ha_error_set(err, errno, "cannot sync folder %s: %s", parent, strerror(errno));
    if (fd >= 0)
        close(fd);
    free(parent);
    return r;
}

/* sync_all: names that are there are synced as well. */
static int make_folders(const char *path, bool sync_all, unsigned mode, struct ha_error *err)
{
    char *copy = ha_strdup(path);
    int r = 0;

    if (!copy)
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    for (char *at = copy + 1; r == 0; at++) {
        bool there;
        char kept = *at;

        if (kept != '/' && kept != '\0')
            continue;
        *at = '\0';
        there = mkdir(copy, (mode_t)mode) < 0;
        if (there && (errno != EEXIST || !ha_path_is_dir(copy)))
            r = ha_error_set(err, errno, "cannot make folder %s: %s", copy, strerror(errno));
        if (!there)
            HA_CRASH_POINT("file.folder_made");
        if (r == 0 && (!there || sync_all))
            r = sync_name(copy, err);
        *at = kept;
        if (kept == '\0')
            break;
    }
    free(copy);
    return r;
}

int ha_path_make_dirs(const char *path, unsigned mode, struct ha_error *err)
{
    return make_folders(path, false, mode, err);
}

int ha_path_make_durable(const char *path, unsigned mode, struct ha_error *err)
{
    return make_folders(path, true, mode, err);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path) < 0 && errno != ENOENT ? errno : 0;
}

int ha_path_remove_tree(const char *path, struct ha_error *err)
{
    int r = nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS);

    if (r == 0 || (r < 0 && errno == ENOENT))
        return 0;
    r = r > 0 ? r : errno;
    return ha_error_set(err, r, "cannot remove %s: %s", path, strerror(r));
}

char *ha_path_program_dir(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (n < 0)
        return NULL;
    path[n] = '\0';
    return ha_path_dirname(path);
}
