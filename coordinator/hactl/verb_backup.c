/* backup and restore (the format: coordinator/server/restore.h) */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "common/proc/spawn.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/snapshot.h"
#include "coordinator/hactl/verbs.h"

struct backup {
    const struct ha_arguments *arguments;
    char *target, *part; /* the finished folder, and its name until then */
    struct ha_session *session;
    struct ha_snapshot *snapshot;
    struct ha_inventory inventory;
    bool links;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

/* On a terminal only; a line is overwritten by the next. */
static void show(const char *what, int64_t done, int64_t total)
{
    if (!isatty(STDERR_FILENO) || total <= 0)
        return;
    fprintf(stderr, "\r%s: %" PRId64 " of %" PRId64 " %s  ", what, done, total,
            strcmp(what, "database") == 0 ? "pages" : "files");
    if (done == total)
        fputc('\n', stderr);
}

/* ---- the folder ------------------------------------------------------------------------- */

static char *default_name(void)
{
    char text[64];
    time_t now = time(NULL);
    struct tm parts;

    gmtime_r(&now, &parts);
    (void)strftime(text, sizeof(text), "backup-%Y%m%dT%H%M%SZ", &parts);
    return ha_strdup(text);
}

static int choose_folder(struct backup *b, struct ha_error *err)
{
    const char *given = ha_arguments_at(b->arguments, 0, NULL);
    size_t length;

    b->target = given ? ha_strdup(given) : default_name();
    if (!b->target)
        return no_memory(err);
    length = strlen(b->target);
    while (length > 1 && b->target[length - 1] == '/')
        b->target[--length] = '\0';
    b->part = ha_format("%s.part", b->target);
    if (!b->part)
        return no_memory(err);
    if (ha_path_exists(b->target))
        return ha_error_set(err, EEXIST, "%s is there already; a backup overwrites nothing",
                            b->target);
    if (ha_path_exists(b->part))
        return ha_error_set(err, EEXIST,
                            "%s is there: a backup that is under way, or was cut off; remove it or "
                            "choose another name",
                            b->part);
    return 0;
}

static char *inside(const struct backup *b, const char *name)
{
    return ha_path_join(b->part, name);
}

/* ---- its files ------------------------------------------------------------------------------ */

static int get_database(struct backup *b, struct ha_error *err)
{
    char *path = inside(b, "coordinator.db");
    int r = path ? ha_snapshot_get(b->snapshot, path, err) : no_memory(err);

    if (r == 0)
        r = ha_inventory_read(path, &b->inventory, err);
    free(path);
    return r;
}

static int get_artifact(struct backup *b, const struct ha_inventory_item *item,
                        struct ha_error *err)
{
    char *folder = ha_format("%s/artifacts/%.2s", b->part, item->sha256);
    char *path = folder ? ha_path_join(folder, item->sha256) : NULL;
    int r = path ? ha_path_make_dirs(folder, 0700, err) : no_memory(err);

    if (r == 0)
        r = ha_snapshot_get_artifact(b->snapshot, item->sha256, item->size, path, b->links, err);
    if (r < 0 && r != -ENOMEM)
        ha_error_prefix(err, "the backup is not complete and was removed");
    if (r == 0)
        r = ha_file_sync_dir(folder, err);
    free(folder);
    free(path);
    return r;
}

static int get_artifacts(struct backup *b, struct ha_error *err)
{
    char *folder = inside(b, "artifacts");
    int r = folder ? ha_path_make_dirs(folder, 0700, err) : no_memory(err);

    for (int64_t i = 0; r == 0 && i < b->inventory.count; i++) {
        r = get_artifact(b, &b->inventory.items[i], err);
        show("artifacts", i + 1, b->inventory.count);
    }
    if (r == 0)
        r = ha_file_sync_dir(folder, err);
    free(folder);
    return r;
}

static struct ha_json *describe(const struct backup *b)
{
    struct ha_json *json = ha_json_new_object(), *database = ha_json_new_object();
    char stamp[HA_CLOCK_STAMP_BYTES];

    ha_clock_stamp(ha_clock_wall_ms(), stamp);
    if (ha_json_set(database, "sha256", ha_json_new_string(ha_snapshot_sha256(b->snapshot))) < 0 ||
        ha_json_set(database, "size", ha_json_new_int(ha_snapshot_size(b->snapshot))) < 0 ||
        ha_json_set(database, "schema", ha_json_new_int(b->inventory.schema)) < 0) {
        ha_json_destroy(database);
        database = NULL;
    }
    if (ha_json_set(json, "format", ha_json_new_int(1)) < 0 ||
        ha_json_set(json, "version", ha_json_new_string(HA_VERSION)) < 0 ||
        ha_json_set(json, "taken", ha_json_new_string(stamp)) < 0 ||
        ha_json_set(json, "sweeps", ha_json_new_int(b->inventory.sweeps)) < 0 ||
        ha_json_set(json, "artifacts", ha_json_new_int(b->inventory.count)) < 0 ||
        ha_json_set(json, "artifact_bytes", ha_json_new_int(b->inventory.bytes)) < 0 ||
        ha_json_set(json, "without",
                    ha_json_new_string("keys, settings, folders of workers and judge workers")) <
            0 ||
        ha_json_set(json, "database", database) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int write_description(struct backup *b, struct ha_error *err)
{
    struct ha_json *json = describe(b);
    char *text = json ? ha_json_dump(json, HA_JSON_PRETTY) : NULL, *path = inside(b, "backup.json");
    int r = text && path ? ha_file_write(path, text, strlen(text), 0600, err) : no_memory(err);

    ha_json_destroy(json);
    free(text);
    free(path);
    return r;
}

/* The name appears with all that is in it, and never over something. */
static int finish(struct backup *b, struct ha_error *err)
{
    char *parent = ha_path_dirname(b->target);
    int r = parent ? ha_file_sync_dir(b->part, err) : no_memory(err);

    if (r == 0 && renameat2(AT_FDCWD, b->part, AT_FDCWD, b->target, RENAME_NOREPLACE) < 0) {
        /* Not every file system knows the flag. */
        if (errno != EINVAL || ha_path_exists(b->target) || rename(b->part, b->target) < 0)
            r = ha_error_set(err, errno, "cannot rename %s: %s", b->part, strerror(errno));
    }
    if (r == 0)
        r = ha_file_sync_dir(parent, err);
    free(parent);
    return r;
}

static int take(struct backup *b, struct ha_error *err)
{
    int r = ha_session_open(b->arguments, &b->session, err);

    if (r == 0)
        r = ha_snapshot_take(ha_session_link(b->session), show, &b->snapshot, err);
    if (r == 0)
        r = ha_path_make_durable(b->part, 0700, err);
    if (r < 0)
        return r;
    r = get_database(b, err);
    if (r == 0)
        r = get_artifacts(b, err);
    if (r == 0)
        r = write_description(b, err);
    if (r == 0)
        r = finish(b, err);
    if (r < 0)
        (void)ha_path_remove_tree(b->part, NULL);
    return r;
}

static int print(const struct backup *b, struct ha_error *err)
{
    struct ha_json *json;

    if (!ha_arguments_given(b->arguments, "json")) {
        printf("%s: %" PRId64 " sweeps, database of %" PRId64 " KiB, %" PRId64
               " artifacts (%" PRId64 " MiB), all checked; without keys and settings\n",
               b->target, b->inventory.sweeps, ha_snapshot_size(b->snapshot) >> 10,
               b->inventory.count, b->inventory.bytes >> 20);
        return 0;
    }
    json = describe(b);
    if (json && ha_json_set(json, "folder", ha_json_new_string(b->target)) < 0) {
        ha_json_destroy(json);
        json = NULL;
    }
    return ha_output_json(json, err);
}

static int run_backup(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct backup b = {.arguments = arguments, .links = ha_arguments_given(arguments, "link")};
    int r = choose_folder(&b, err);

    if (r == 0)
        r = take(&b, err);
    if (r == 0)
        r = print(&b, err);
    ha_snapshot_end(b.snapshot);
    ha_inventory_clear(&b.inventory);
    ha_session_close(b.session);
    free(b.target);
    free(b.part);
    return r;
}

/* ---- restore --------------------------------------------------------------------------------- */

static int run_restore(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *dir = ha_arguments_value(arguments, "dir", NULL);
    const char *config = ha_arguments_value(arguments, "config", NULL);
    const char *words[9] = {"ha-coordinator", "--restore", ha_arguments_at(arguments, 0, "")};
    struct ha_spawn_options options = {.arguments = words};
    int status = 0, n = 3, r;
    struct ha_child child;
    char *program;

    if (!dir == !config)
        return ha_error_set(err, EINVAL,
                            "hactl restore: name the coordinator's folder with --dir, or its "
                            "settings with --config");
    words[n++] = dir ? "--dir" : "--config";
    words[n++] = dir ? dir : config;
    if (ha_arguments_given(arguments, "discard-newer"))
        words[n++] = "--discard-newer";
    r = ha_program_find("ha-coordinator", &program, err);
    if (r < 0)
        return r;
    options.program = program;
    r = ha_child_spawn(&options, &child, err);
    free(program);
    if (r < 0)
        return r;
    while (!ha_child_poll(&child, &status))
        usleep(20000);
    ha_child_close(&child);
    return status == 0 ? HA_EXIT_DONE : HA_EXIT_FAILED;
}

static const struct ha_option backup_options[] = {
    {"link", NULL,
     "give artifacts on the same disk a second name instead of a copy: takes no "
     "room and no time, but what damages the one damages the other"},
    {"json", NULL, "print JSON"},
};

static const struct ha_option restore_options[] = {
    {"dir", "DIR", "the coordinator's folder (runs/NAME of an embedded run)"},
    {"config", "FILE", "or its coordinator.toml"},
    {"discard-newer", NULL, "also over a database that knows more; it is kept beside the new one"},
};

const struct ha_verb ha_verb_backup = {
    .name = "backup",
    .command =
        {
            .name = "hactl backup",
            .synopsis = "[FOLDER]",
            .summary = "copy a coordinator's database and artifacts into a new folder, while it "
                       "works, and check them",
            .example = "hactl backup /mnt/backups/grid-$(date +%F)",
            .max_positional = 1,
            .options = backup_options,
            .n_options = sizeof(backup_options) / sizeof(backup_options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_backup,
};

const struct ha_verb ha_verb_restore = {
    .name = "restore",
    .command =
        {
            .name = "hactl restore",
            .synopsis = "BACKUP",
            .summary = "bring a coordinator that is not running back to a backup",
            .example = "hactl restore /mnt/backups/grid-2026-01-31 --dir runs/grid",
            .min_positional = 1,
            .max_positional = 1,
            .options = restore_options,
            .n_options = sizeof(restore_options) / sizeof(restore_options[0]),
        },
    .run = run_restore,
};
