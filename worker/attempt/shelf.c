#include "worker/attempt/shelf.h"

#include <dirent.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "kernels/check.h"

/* A line for each file; links lead to what is read. */
static int append_file(struct ha_buffer *key, const char *dir, const char *name)
{
    char *path = ha_path_join(dir, name);
    struct stat st;
    int r = path && stat(path, &st) == 0 ? 0 : -1;

    free(path);
    if (r < 0 || S_ISDIR(st.st_mode))
        return r;
    return ha_buffer_printf(key, "%s %llu %llu %lld %lld.%09ld\n", name,
                            (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
                            (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                            st.st_mtim.tv_nsec);
}

static int append_files(struct ha_buffer *key, const char *dir)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, alphasort), r = n < 0 ? -1 : 0;

    for (int i = 0; i < n; i++) {
        if (r == 0 && names[i]->d_name[0] != '.')
            r = append_file(key, dir, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return r;
}

char *ha_shelf_key(const struct ha_engine_options *options)
{
    struct ha_buffer key;
    char *text = NULL;

    ha_buffer_init(&key, 0);
    if (ha_buffer_printf(&key, "%s %d %d\n%s\n", options->backend ? options->backend : "auto",
                         options->threads, options->device, options->model_dir) == 0 &&
        append_files(&key, options->model_dir) == 0)
        text = ha_buffer_detach(&key);
    ha_buffer_clear(&key);
    return text;
}

bool ha_shelf_take(struct ha_shelf *shelf, const char *key, struct ha_engine *ret_engine)
{
    if (!shelf->full)
        return false;
    if (!key || !shelf->engine.key || strcmp(key, shelf->engine.key) != 0) {
        ha_shelf_clear(shelf);
        return false;
    }
    *ret_engine = shelf->engine;
    *shelf = (struct ha_shelf){.full = false};
    return true;
}

void ha_shelf_put(struct ha_shelf *shelf, const struct ha_engine *engine)
{
    ha_shelf_clear(shelf);
    shelf->engine = *engine;
    shelf->engine.shelf = NULL;
    shelf->full = true;
}

int ha_shelf_rest(struct ha_shelf *shelf, struct ha_error *err)
{
    int r = 0;

    if (shelf->full) {
        ha_model_rest(shelf->engine.model);
        r = ha_backend_renew(shelf->engine.backend, err);
    }
    (void)malloc_trim(0);
    return r;
}

int ha_shelf_wake(struct ha_shelf *shelf, struct ha_error *err)
{
    int r = shelf->full ? ha_backend_check(shelf->engine.backend, err) : 0;

    return r == 0 && shelf->full ? ha_backend_renew(shelf->engine.backend, err) : r;
}

void ha_shelf_clear(struct ha_shelf *shelf)
{
    if (shelf->full)
        ha_engine_close(&shelf->engine);
    *shelf = (struct ha_shelf){.full = false};
}
