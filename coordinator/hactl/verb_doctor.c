/* doctor: is everything in order? */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/doctor.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/snapshot.h"
#include "coordinator/hactl/verbs.h"

enum { CLOCK_MS = 5000, SAMPLE = 32 };

static const int64_t low_bytes = INT64_C(1) << 30;

struct visit {
    const struct ha_arguments *arguments;
    struct ha_doctor *doctor;
    struct ha_session *session;
    struct ha_link *link;
    struct ha_wire_message *health, *workers;
};

/* ---- what the coordinator says ----------------------------------------------------- */

static void check_space(struct visit *v, const struct ha_wire_health_reply *health)
{
    const struct {
        const char *what, *path;
        int64_t free, need;
    } disks[] = {
        {"the database", health->database, health->database_free, 2 * health->database_bytes},
        {"the artifacts", health->artifacts, health->artifacts_free, 0}};

    if (health->disk_low[0])
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "space", "submits are refused until then",
                      "%s", health->disk_low);
    for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
        bool low = disks[i].free < low_bytes || disks[i].free < disks[i].need;

        ha_doctor_say(v->doctor, low ? HA_FINDING_WARNING : HA_FINDING_OK, "space",
                      low ? "free some, or run hactl gc" : "", "%" PRId64 " MiB free for %s (%s)",
                      disks[i].free >> 20, disks[i].what, disks[i].path);
    }
}

static void check_versions(struct visit *v, const struct ha_wire_health_reply *health)
{
    bool same = strcmp(health->version, HA_VERSION) == 0;

    ha_doctor_say(v->doctor, same ? HA_FINDING_OK : HA_FINDING_WARNING, "versions",
                  same ? "" : "use the same version everywhere",
                  "coordinator %s, hactl %s, schema %" PRId64 ", %s", health->version, HA_VERSION,
                  health->schema, health->libraries);
    if (health->refused > 0)
        ha_doctor_say(v->doctor, HA_FINDING_NOTE, "keys",
                      "who knocks is in the firewall's log; hactl keys list shows who may",
                      "%" PRId64 " messages were refused since the coordinator's start",
                      health->refused);
}

static void check_worker(struct visit *v, const struct ha_wire_worker_row *row, const char *version)
{
    if (strcmp(row->state, "lost") == 0) {
        ha_doctor_say(v->doctor, HA_FINDING_WARNING, "workers", "see its log on that machine",
                      "%s (%s) was lost", row->name, row->host);
        return;
    }
    if (strcmp(row->version, version) != 0)
        ha_doctor_say(v->doctor, HA_FINDING_WARNING, "versions", "use the same version everywhere",
                      "%s has version %s, the coordinator %s", row->name, row->version, version);
    if (row->clock_known && (row->clock_ms > CLOCK_MS || row->clock_ms < -CLOCK_MS))
        ha_doctor_say(v->doctor, HA_FINDING_WARNING, "clocks",
                      "let both follow a time server (timedatectl set-ntp true)",
                      "the clock of %s is %" PRId64 ".%03d s %s the coordinator's", row->name,
                      (int64_t)imaxabs(row->clock_ms) / 1000, (int)(imaxabs(row->clock_ms) % 1000),
                      row->clock_ms > 0 ? "ahead of" : "behind");
}

static void check_workers(struct visit *v, const char *version, int64_t now_ms, int64_t asked_ms)
{
    struct ha_wire_message request = {.kind = HA_WIRE_WORKERS_REQUEST};
    const struct ha_wire_workers_reply *reply;
    int64_t off = asked_ms - now_ms, known = 0;
    struct ha_error err = {0};

    if (off > CLOCK_MS || off < -CLOCK_MS)
        ha_doctor_say(v->doctor, HA_FINDING_WARNING, "clocks",
                      "let both follow a time server (timedatectl set-ntp true)",
                      "this machine's clock is %" PRId64 " s %s the coordinator's",
                      (int64_t)imaxabs(off) / 1000, off > 0 ? "ahead of" : "behind");
    if (ha_link_call(v->link, &request, HA_WIRE_WORKERS_REPLY, 0, &v->workers, &err) < 0) {
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "workers", "", "%s", ha_error_text(&err));
        return;
    }
    reply = &v->workers->body.workers_reply;
    for (int64_t i = 0; i < reply->n_workers; i++) {
        check_worker(v, &reply->workers[i], version);
        known += reply->workers[i].clock_known;
    }
    ha_doctor_say(v->doctor, HA_FINDING_OK, "workers", "",
                  "%" PRId64 " are known, the clocks of %" PRId64 " were compared",
                  reply->n_workers, known);
}

/* Without an answer the rest is looked at all the same: it may tell why there is none. */
static void ask_health(struct visit *v)
{
    struct ha_wire_message request = {.kind = HA_WIRE_HEALTH_REQUEST};
    const struct ha_wire_health_reply *health;
    int64_t asked_ms = ha_clock_wall_ms();
    struct ha_error err = {0};
    int r = ha_link_call(v->link, &request, HA_WIRE_HEALTH_REPLY, 0, &v->health, &err);

    if (r < 0) {
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "coordinator",
                      r == -ENOSYS ? "use the same version everywhere" : "", "%s",
                      ha_error_text(&err));
        return;
    }
    health = &v->health->body.health_reply;
    check_versions(v, health);
    check_space(v, health);
    check_workers(v, health->version, health->now_ms, asked_ms);
}

/* ---- the database and what it names ------------------------------------------------------ */

static int read_sample(const struct ha_arguments *arguments, int64_t *ret_sample,
                       struct ha_error *err)
{
    if (strcmp(ha_arguments_value(arguments, "artifacts", ""), "all") == 0) {
        *ret_sample = -1;
        return 0;
    }
    return ha_arguments_int(arguments, "artifacts", 0, SAMPLE, ret_sample, err);
}

static int look_into(struct visit *v, struct ha_snapshot *snapshot, const char *folder,
                     int64_t sample)
{
    char *copy = ha_path_join(folder, "coordinator.db"), *scratch = ha_path_join(folder, "file");
    struct ha_inventory inventory = {.count = 0};
    struct ha_error err = {0};
    int r = copy && scratch ? ha_snapshot_get(snapshot, copy, &err) : -ENOMEM;

    if (r == 0)
        r = ha_inventory_read(copy, &inventory, &err);
    if (r == 0) {
        ha_doctor_say(v->doctor, HA_FINDING_OK, "database", "",
                      "every page, index and reference of a copy was read and is sound (%" PRId64
                      " KiB, %" PRId64 " sweeps)",
                      ha_snapshot_size(snapshot) >> 10, inventory.sweeps);
        r = ha_doctor_artifacts(v->doctor, snapshot, inventory.items, inventory.count, sample,
                                scratch, &err);
    } else {
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "database", "", "%s", ha_error_text(&err));
    }
    ha_inventory_clear(&inventory);
    free(copy);
    free(scratch);
    return r;
}

static void check_store(struct visit *v, int64_t sample)
{
    const char *base = getenv("TMPDIR");
    char *folder = ha_format("%s/ha-doctor-XXXXXX", base && base[0] ? base : "/tmp");
    struct ha_snapshot *snapshot = NULL;
    struct ha_error err = {0};
    int r = folder && mkdtemp(folder) ? 0
                                      : ha_error_set(&err, errno ? errno : ENOMEM,
                                                     "cannot make a folder: %s", strerror(errno));

    if (r == 0)
        r = ha_snapshot_take(v->link, NULL, &snapshot, &err);
    if (r == -EACCES)
        ha_doctor_say(v->doctor, HA_FINDING_NOTE, "database", "", "not looked at: %s",
                      ha_error_text(&err));
    else if (r < 0)
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "database", "", "%s", ha_error_text(&err));
    else
        (void)look_into(v, snapshot, folder, sample);
    ha_snapshot_end(snapshot);
    if (folder && ha_path_is_dir(folder))
        (void)ha_path_remove_tree(folder, NULL);
    free(folder);
}

/* What gc would take: rows that nothing names, and files without a row. */
static void check_garbage(struct visit *v)
{
    struct ha_wire_message request = {.kind = HA_WIRE_GC, .body.gc = {.dry_run = true}}, *reply;
    int64_t files = 0, bytes = 0;
    char phase[32] = "", after[80] = "";
    struct ha_error err = {0};

    do {
        request.body.gc.phase = phase;
        request.body.gc.after = after;
        if (ha_link_call(v->link, &request, HA_WIRE_GC_REPLY, 0, &reply, &err) < 0)
            return;
        files += reply->body.gc_reply.artifacts;
        bytes += reply->body.gc_reply.bytes;
        (void)snprintf(phase, sizeof(phase), "%s", reply->body.gc_reply.phase);
        (void)snprintf(after, sizeof(after), "%s", reply->body.gc_reply.after);
        ha_wire_message_destroy(reply);
    } while (phase[0]);
    if (files > 0)
        ha_doctor_say(v->doctor, HA_FINDING_NOTE, "artifacts", "hactl gc removes them",
                      "nothing needs %" PRId64 " files (%" PRId64 " MiB)", files, bytes >> 20);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void check_here(struct visit *v)
{
    const char *keys = ha_arguments_value(v->arguments, "keys", NULL);
    const char *work = ha_arguments_value(v->arguments, "work-dir", NULL);
    const char *dir =
        v->session ? ha_session_dir(v->session) : ha_arguments_value(v->arguments, "dir", NULL);
    char *own = !work && dir ? ha_path_join(dir, "work") : NULL;

    if (!keys && v->health && v->health->body.health_reply.keys[0] &&
        ha_path_is_dir(v->health->body.health_reply.keys))
        keys = v->health->body.health_reply.keys;
    if (keys)
        ha_doctor_keys(v->doctor, keys);
    if (own && ha_path_is_dir(own))
        work = own;
    if (work)
        ha_doctor_work_dir(v->doctor, work, v->workers ? &v->workers->body.workers_reply : NULL);
    ha_doctor_processes(v->doctor);
    free(own);
}

static void look(struct visit *v, int64_t sample)
{
    struct ha_error err = {0};

    if (ha_session_open(v->arguments, &v->session, &err) < 0) {
        ha_doctor_say(v->doctor, HA_FINDING_PROBLEM, "coordinator", "", "%s", ha_error_text(&err));
        v->session = NULL;
    } else {
        v->link = ha_session_link(v->session);
        ask_health(v);
        if (!ha_arguments_given(v->arguments, "quick")) {
            check_store(v, sample);
            check_garbage(v);
        }
    }
    check_here(v);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct visit v = {.arguments = arguments};
    int64_t sample = SAMPLE, problems = 0;
    int r = read_sample(arguments, &sample, err);

    if (r == 0)
        r = ha_doctor_create(&v.doctor, err);
    if (r == 0) {
        look(&v, sample);
        problems = ha_doctor_print(v.doctor, ha_arguments_given(arguments, "json"), err);
        r = problems < 0 ? (int)problems : problems > 0 ? HA_EXIT_FAILED : HA_EXIT_DONE;
    }
    ha_wire_message_destroy(v.health);
    ha_wire_message_destroy(v.workers);
    ha_session_close(v.session);
    ha_doctor_destroy(v.doctor);
    return r;
}

static const struct ha_option options[] = {
    {"quick", NULL, "do not read the database and the artifacts"},
    {"artifacts", "N", "read the bytes of so many artifacts, or of all (default: 32)"},
    {"keys", "DIR", "folder of keys to be looked at (default: the coordinator's, if it is here)"},
    {"work-dir", "DIR", "a worker's work_dir on this machine"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_doctor = {
    .name = "doctor",
    .command =
        {
            .name = "hactl doctor",
            .synopsis = "",
            .summary = "look whether database, artifacts, disks, versions, keys and clocks are in "
                       "order; exit code 1 when there is a problem",
            .example = "hactl doctor --dir runs/demo --artifacts all",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
