#include "worker/attempt/choices.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "worker/dpo/trainer.h"
#include "worker/model/rehearse.h"

enum { MOST_FILES = 64, MOST_BYTES = 16 << 20, LOOK_AGAIN_MS = 100 };

#define LOCK_FILE "lock"
#define SUFFIX ".choices"

/* ---- the folder ---- */

/* DIR/DIGEST.choices, of everything that the rehearsed products depend on. */
static char *path_of(const struct ha_choices *choices, const struct ha_engine *engine)
{
    const struct ha_model_config *config = ha_model_config(engine->model);
    char *text = ha_format("choices 2: %s; %lld layers %lld wide, %lld inside, heads %lld %lld of "
                           "%lld, vocabulary %lld; packs of %lld, bf16 logits %d, %lld columns",
                           ha_backend_fingerprint(engine->backend), (long long)config->n_layers,
                           (long long)config->width, (long long)config->inner,
                           (long long)config->n_heads, (long long)config->n_kv_heads,
                           (long long)config->head_dim, (long long)config->vocab,
                           (long long)choices->max_tokens, choices->round_logits_bf16,
                           (long long)ha_model_weights(engine->model)->lora_columns);
    char hex[HA_SHA256_HEX_BYTES], *path;
    uint8_t digest[HA_SHA256_BYTES];

    if (!text)
        return NULL;
    ha_sha256(text, strlen(text), digest);
    ha_sha256_hex(digest, hex);
    path = ha_format("%s/%s%s", choices->dir, hex, SUFFIX);
    free(text);
    return path;
}

/* Wait for the folder's lock.  Returns a descriptor, -EINTR after a stop, or why there is none. */
static int lock_folder(const struct ha_choices *choices, struct ha_error *err)
{
    char *path = ha_path_join(choices->dir, LOCK_FILE);
    int fd = -1, r = path ? ha_path_make_dirs(choices->dir, 0700, err) : -ENOMEM;

    if (r == 0)
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (r == 0 && fd < 0)
        r = ha_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
    while (r == 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        struct timespec pause = {.tv_nsec = LOOK_AGAIN_MS * 1000000L};

        if (errno != EWOULDBLOCK && errno != EINTR)
            r = ha_error_set(err, errno, "cannot lock %s: %s", path, strerror(errno));
        else if (choices->stop && *choices->stop)
            r = ha_error_set(err, EINTR, "stopped");
        else
            (void)nanosleep(&pause, NULL);
    }
    if (r < 0 && fd >= 0)
        (void)close(fd);
    free(path);
    return r < 0 ? r : fd;
}

struct kept {
    char *path;
    struct timespec used;
};

static int by_use(const void *left, const void *right)
{
    const struct kept *a = left, *b = right;

    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec > b->used.tv_sec ? -1 : 1;
    return (a->used.tv_nsec < b->used.tv_nsec) - (a->used.tv_nsec > b->used.tv_nsec);
}

/* Remove what was used longest ago.  What cannot be listed or removed stays. */
static void trim_folder(const char *dir)
{
    struct kept *list = NULL;
    const struct dirent *entry;
    int64_t n = 0, capacity = 0;
    DIR *folder = opendir(dir);

    while (folder && (entry = readdir(folder)) != NULL) {
        size_t length = strlen(entry->d_name);
        bool ours = length >= sizeof(SUFFIX) &&
                    strcmp(entry->d_name + length - (sizeof(SUFFIX) - 1), SUFFIX) == 0;
        char *path = ours ? ha_path_join(dir, entry->d_name) : NULL;
        struct stat st;

        if (!path || stat(path, &st) < 0 ||
            ha_grow((void **)&list, &capacity, n + 1, sizeof(*list)) < 0) {
            free(path);
            continue;
        }
        list[n++] = (struct kept){path, st.st_mtim};
    }
    if (folder)
        (void)closedir(folder);
    if (n > 0)
        qsort(list, (size_t)n, sizeof(*list), by_use);
    for (int64_t i = 0; i < n; i++) {
        if (i >= MOST_FILES)
            (void)unlink(list[i].path);
        free(list[i].path);
    }
    free(list);
}

/* 1 where the file was there and its choices hold now, 0 where they are to be made. */
static int take_file(struct ha_engine *engine, const char *path)
{
    struct ha_error why = {0};
    char *blob = NULL;
    size_t bytes = 0;
    int r = ha_file_read(path, MOST_BYTES, &blob, &bytes, &why);

    if (r == 0)
        r = ha_backend_import_choices(engine->backend, blob, bytes, &why);
    free(blob);
    if (r == 0) {
        (void)utimensat(AT_FDCWD, path, NULL, 0);
        ha_log_info("products are multiplied as %s says", path);
        return 1;
    }
    if (r != -ENOENT)
        ha_log_warning("%s is left aside, products are timed anew: %s", path, ha_error_text(&why));
    return 0;
}

static void keep_file(const struct ha_choices *choices, const struct ha_engine *engine,
                      const char *path)
{
    struct ha_error why = {0};
    void *blob = NULL;
    size_t bytes = 0;
    int r = ha_backend_export_choices(engine->backend, &blob, &bytes, &why);

    if (r == 0)
        r = ha_file_write(path, blob, bytes, 0600, &why);
    free(blob);
    if (r < 0)
        ha_log_warning("the choices of products are not kept: %s", ha_error_text(&why));
    else
        trim_folder(choices->dir);
}

/* ---- choosing ---- */

/* Returns 1 where all are made, 0 where memory was too short for it. */
static int time_products(const struct ha_choices *choices, struct ha_engine *engine,
                         struct ha_error *err)
{
    int64_t begin = ha_clock_work_ns();
    int r;

    ha_backend_time_choices(engine->backend, true);
    r = ha_model_rehearse(engine->model, choices->max_tokens, choices->round_logits_bf16,
                          choices->stop, err);
    ha_backend_time_choices(engine->backend, false);
    if (r == -ENOMEM) {
        ha_log_warning("products are not timed for want of memory: %s", ha_error_text(err));
        return 0;
    }
    if (r == 0)
        ha_log_info("products are timed, in %.1f s", (double)(ha_clock_work_ns() - begin) / 1e9);
    return r < 0 ? r : 1;
}

static int take_from_folder(const struct ha_choices *choices, struct ha_engine *engine,
                            struct ha_error *err)
{
    struct ha_error why = {0};
    char *path = path_of(choices, engine);
    int lock, r;

    if (!path)
        return ha_error_set(err, ENOMEM, "no memory for the choices of products");
    lock = lock_folder(choices, &why);
    if (lock == -EINTR) {
        *err = why;
        free(path);
        return lock;
    }
    if (lock < 0) { /* others could not go on with what is not kept */
        ha_log_warning("%s: products are not timed: %s", choices->dir, ha_error_text(&why));
        free(path);
        return 0;
    }
    r = take_file(engine, path);
    if (r == 0) {
        r = time_products(choices, engine, err);
        if (r > 0)
            keep_file(choices, engine, path);
    }
    (void)close(lock);
    free(path);
    return r < 0 ? r : 0;
}

/* 1 where the checkpoint's choices hold now; 0 where it has none that can be used. */
static int take_from_checkpoint(const struct ha_choices *choices, struct ha_engine *engine,
                                struct ha_error *err)
{
    struct ha_error why = {0};
    void *blob = NULL;
    size_t bytes = 0;
    int r = ha_dpo_checkpoint_choices(choices->checkpoint, &blob, &bytes, &why);

    if (r == 0)
        r = ha_backend_import_choices(engine->backend, blob, bytes, &why);
    free(blob);
    if (r == -ENOMEM) {
        *err = why;
        return r;
    }
    if (r < 0)
        ha_log_warning("the choices of products in %s are left aside: %s", choices->checkpoint,
                       ha_error_text(&why));
    return r == 0;
}

int ha_choices_prepare(const struct ha_choices *choices, struct ha_engine *engine,
                       struct ha_error *err)
{
    void *blob = NULL;
    size_t bytes = 0;
    int r = ha_backend_export_choices(engine->backend, &blob, &bytes, err);

    free(blob);
    if (r < 0 || bytes == 0) /* nothing to choose */
        return r;
    if (choices->checkpoint) {
        r = take_from_checkpoint(choices, engine, err);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return choices->dir ? take_from_folder(choices, engine, err) : 0;
}
