/* doctor_local.c - what can be looked at on this machine (doctor.h) */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/net/curve.h"
#include "coordinator/hactl/doctor.h"
#include "coordinator/hactl/snapshot.h"
#include "proto/wire.h"

/* ---- keys ------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *tail)
{
    size_t length = strlen(name), end = strlen(tail);

    return length > end && strcmp(name + length - end, tail) == 0;
}

static int64_t check_key_files(struct ha_doctor *doctor, const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    int64_t n = 0;

    while (dir && (entry = readdir(dir)) != NULL) {
        char *path = ends_with(entry->d_name, ".key") ? ha_path_join(folder, entry->d_name) : NULL;
        struct ha_curve_key key;
        struct ha_error err = {0};

        if (path && ha_curve_key_load(path, &key, &err) < 0)
            ha_doctor_say(doctor, HA_FINDING_PROBLEM, "keys", "", "%s", ha_error_text(&err));
        explicit_bzero(&key, sizeof(key));
        n += path != NULL;
        free(path);
    }
    if (dir)
        closedir(dir);
    return n;
}

static void check_allow_list(struct ha_doctor *doctor, const char *folder, int64_t key_files)
{
    char *clients = ha_path_join(folder, "clients");
    int64_t of[HA_NET_ROLE_ADMIN + 1] = {0};
    struct ha_allow_list *list;
    struct ha_error err = {0};
    struct stat st;

    if (!clients)
        return;
    if (ha_allow_list_load(clients, &list, &err) < 0) {
        ha_doctor_say(doctor, HA_FINDING_PROBLEM, "keys", "mend or remove that file", "%s",
                      ha_error_text(&err));
        free(clients);
        return;
    }
    for (int64_t i = 0; i < list->n_entries; i++)
        of[list->entries[i].role]++;
    if (stat(clients, &st) == 0 && (st.st_mode & 022) != 0)
        ha_doctor_say(doctor, HA_FINDING_PROBLEM, "keys", "chmod 700 it",
                      "others may add keys to %s (mode %03o)", clients,
                      (unsigned)(st.st_mode & 0777));
    ha_doctor_say(doctor, HA_FINDING_OK, "keys", "",
                  "%" PRId64 " key files in %s; allowed: %" PRId64 " admin, %" PRId64
                  " submit, %" PRId64 " worker, %" PRId64 " judge, %" PRId64 " read",
                  key_files, folder, of[HA_NET_ROLE_ADMIN], of[HA_NET_ROLE_SUBMIT],
                  of[HA_NET_ROLE_WORKER], of[HA_NET_ROLE_JUDGE], of[HA_NET_ROLE_READ]);
    ha_allow_list_destroy(list);
    free(clients);
}

void ha_doctor_keys(struct ha_doctor *doctor, const char *folder)
{
    struct stat st;

    if (stat(folder, &st) < 0) {
        ha_doctor_say(doctor, HA_FINDING_PROBLEM, "keys", "hactl keys init makes it", "%s: %s",
                      folder, strerror(errno));
        return;
    }
    if ((st.st_mode & 022) != 0)
        ha_doctor_say(doctor, HA_FINDING_PROBLEM, "keys", "chmod 700 it",
                      "others may change %s (mode %03o)", folder, (unsigned)(st.st_mode & 0777));
    check_allow_list(doctor, folder, check_key_files(doctor, folder));
}

/* ---- orphans ---------------------------------------------------------------------------- */

static bool read_attempt_name(const char *name, uint64_t numbers[3])
{
    int end = 0;

    return sscanf(name, "%" SCNu64 "-%" SCNu64 "-%" SCNu64 "%n", &numbers[0], &numbers[1],
                  &numbers[2], &end) == 3 &&
           name[end] == '\0';
}

static bool runs(const struct ha_wire_workers_reply *workers, const uint64_t numbers[3])
{
    for (int64_t i = 0; workers && i < workers->n_workers; i++) {
        for (int64_t k = 0; k < workers->workers[i].n_running; k++) {
            const struct ha_wire_running *running = &workers->workers[i].running[k];

            if (running->job == numbers[0] && running->epoch.generation == numbers[1] &&
                running->epoch.number == numbers[2])
                return true;
        }
    }
    return false;
}

void ha_doctor_work_dir(struct ha_doctor *doctor, const char *folder,
                        const struct ha_wire_workers_reply *workers)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    int64_t n = 0, left = 0;

    if (!dir) {
        ha_doctor_say(doctor, HA_FINDING_NOTE, "attempts", "", "%s: %s", folder, strerror(errno));
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        uint64_t numbers[3];

        if (!read_attempt_name(entry->d_name, numbers))
            continue;
        n++;
        if (runs(workers, numbers))
            continue;
        left++;
        ha_doctor_say(doctor, HA_FINDING_NOTE, "attempts",
                      "kept for a look at failed ones; the worker removes it at its next start",
                      "nothing runs in %s/%s", folder, entry->d_name);
    }
    closedir(dir);
    if (left == 0)
        ha_doctor_say(doctor, HA_FINDING_OK, "attempts", "",
                      "%" PRId64 " folders in %s, each of an attempt that runs", n, folder);
}

/* The first bytes of a file of /proc; "" when it cannot be read. */
static void read_proc(const char *pid, const char *name, char *text, size_t size)
{
    char *path = ha_format("/proc/%s/%s", pid, name);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);

    if (fd >= 0)
        close(fd);
    free(path);
    text[n > 0 ? n : 0] = '\0';
    for (ssize_t i = 0; i + 1 < n; i++) {
        if (text[i] == '\0')
            text[i] = ' ';
    }
}

static void look_at_process(struct ha_doctor *doctor, const char *pid)
{
    char comm[64], command[512], status[1024], parent[64], parent_comm[64];
    const char *line;

    read_proc(pid, "comm", comm, sizeof(comm));
    if (strncmp(comm, "ha-attempt", 10) != 0)
        return;
    read_proc(pid, "cmdline", command, sizeof(command));
    read_proc(pid, "status", status, sizeof(status));
    line = strstr(status, "\nPPid:");
    if (!strstr(command, " --contract-fd ") || !line)
        return; /* somebody's own: no worker started it */
    (void)snprintf(parent, sizeof(parent), "%ld", strtol(line + 6, NULL, 10));
    read_proc(parent, "comm", parent_comm, sizeof(parent_comm));
    /* Whoever lost its parent has the first process, or one that collects children. */
    if (strcmp(parent, "1") == 0 || strncmp(parent_comm, "systemd", 7) == 0)
        ha_doctor_say(doctor, HA_FINDING_PROBLEM, "attempts", "end it with kill",
                      "process %s (%.200s) has lost its worker", pid, command);
}

void ha_doctor_processes(struct ha_doctor *doctor)
{
    DIR *dir = opendir("/proc");
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            look_at_process(doctor, entry->d_name);
    }
    if (dir)
        closedir(dir);
}

/* ---- artifacts ------------------------------------------------------------------------------ */

struct artifacts {
    struct ha_doctor *doctor;
    const char *folder, *scratch;
    struct ha_snapshot *snapshot;
    bool here;
    int64_t bad, read;
};

static const char restore_mend[] =
    "bring it back from a backup (its bytes are in artifacts/ there)";

static void check_bytes(struct artifacts *a, const struct ha_inventory_item *item, const char *path)
{
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_error err = {0};
    int64_t size = 0;
    int r;

    a->read++;
    if (a->here) {
        r = ha_file_sha256(path, hex, &size, &err);
        if (r == 0 && (size != item->size || strcmp(hex, item->sha256) != 0))
            r = ha_error_set(&err, EBADMSG, "%s is damaged: its bytes have hash %s", path, hex);
    } else {
        r = ha_snapshot_get_artifact(a->snapshot, item->sha256, item->size, a->scratch, false,
                                     &err);
        (void)unlink(a->scratch);
    }
    if (r == 0)
        return;
    a->bad++;
    ha_doctor_say(a->doctor, HA_FINDING_PROBLEM, "artifacts", restore_mend, "%s",
                  ha_error_text(&err));
}

static void check_artifact(struct artifacts *a, const struct ha_inventory_item *item, bool bytes)
{
    char *path = ha_format("%s/%.2s/%s", a->folder, item->sha256, item->sha256);
    struct stat st;

    if (!path)
        return;
    if (a->here && (stat(path, &st) < 0 || st.st_size != item->size)) {
        a->bad++;
        ha_doctor_say(a->doctor, HA_FINDING_PROBLEM, "artifacts", restore_mend,
                      "%s is missing or cut short", path);
    } else if (bytes) {
        check_bytes(a, item, path);
    }
    free(path);
}

int ha_doctor_artifacts(struct ha_doctor *doctor, struct ha_snapshot *snapshot,
                        const struct ha_inventory_item *items, int64_t count, int64_t sample,
                        const char *scratch, struct ha_error *err)
{
    struct artifacts a = {.doctor = doctor,
                          .folder = ha_snapshot_folder(snapshot),
                          .scratch = scratch,
                          .snapshot = snapshot};
    int64_t every = sample < 0 || sample >= count ? 1 : sample == 0 ? 0 : count / sample;

    (void)err;
    a.here = ha_snapshot_is_here(snapshot);
    for (int64_t i = 0; i < count; i++)
        check_artifact(&a, &items[i], every > 0 && i % every == 0);
    if (a.bad == 0)
        ha_doctor_say(doctor, HA_FINDING_OK, "artifacts", "",
                      "%" PRId64 " %s; the bytes of %" PRId64 " were read and are right", count,
                      a.here ? "are there" : "are named", a.read);
    return 0;
}
