#include "coordinator/server/space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"

struct ha_space {
    char *dir, *path;
    int64_t reserve_bytes;
    char why[256];
};

static int64_t free_bytes(const struct ha_space *space)
{
    struct statvfs fs;

    if (statvfs(space->dir, &fs) < 0)
        return INT64_MAX;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

static bool has_reserve(const struct ha_space *space)
{
    struct stat st;

    return stat(space->path, &st) == 0 && st.st_size == space->reserve_bytes;
}

/* posix_fallocate, so that the blocks are really there. */
static void make_reserve(const struct ha_space *space)
{
    int fd = open(space->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    if (posix_fallocate(fd, 0, space->reserve_bytes) != 0)
        unlink(space->path);
    close(fd);
}

int ha_space_create(const char *dir, int64_t reserve_bytes, struct ha_space **ret_space,
                    struct ha_error *err)
{
    struct ha_space *space = ha_calloc(1, sizeof *space);

    if (space) {
        space->dir = ha_strdup(dir);
        space->path = ha_path_join(dir, "reserve");
        space->reserve_bytes = reserve_bytes;
    }
    if (!space || !space->dir || !space->path) {
        ha_space_destroy(space);
        return ha_error_set(err, ENOMEM, "no memory");
    }
    *ret_space = space;
    return 0;
}

void ha_space_destroy(struct ha_space *space)
{
    if (!space)
        return;
    free(space->dir);
    free(space->path);
    free(space);
}

void ha_space_give_up(struct ha_space *space)
{
    unlink(space->path);
}

/* Made anew only with twice the room, so that it does not come and go. */
const char *ha_space_look(struct ha_space *space)
{
    int64_t bytes = free_bytes(space);

    if (has_reserve(space)) {
        if (bytes >= space->reserve_bytes / 4)
            return NULL;
    } else if (bytes >= 2 * space->reserve_bytes) {
        make_reserve(space);
        return NULL;
    }
    snprintf(space->why, sizeof space->why,
             "the disk of %.150s is nearly full (%lld MiB left); free some space", space->dir,
             (long long)(bytes >> 20));
    return space->why;
}
