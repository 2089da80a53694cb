/* work.h - one attempt on its way through the daemon: inputs, model, process
 *
 *   fetching --all inputs and the model are there--> running --> ended
 *
 * Whatever happens is told by the calls below; the owner asks work_take_end
 * after each of them and at turn ends. */
#ifndef HA_WORKER_DAEMON_WORK_H
#define HA_WORKER_DAEMON_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/daemon/journal.h"
#include "worker/daemon/session.h"

struct contract_line;
struct folders;
struct groups;
struct ha_devices;
struct ha_error;
struct ha_loop;
struct residents;
struct work;

struct work_options {
    struct ha_loop *loop;
    struct folders *folders;
    const char *program;
    const char *backend; /* "auto", "cpu", "cuda" */
    int64_t threads, grace_ms;
    int64_t log_bytes, log_files; /* of an attempt's log (log_file.h) */
    int64_t prepare_ms;           /* until all ranks of a gang must be ready */
    int64_t gang_wait_ms;         /* that a rank waits for the others */
    struct ha_devices *devices;   /* an attempt gets its own of them; NULL: none count */
    struct groups *groups;        /* for its processes; NULL: none */
    struct residents *residents;  /* processes that keep a model from one job to the next */
    const char *mark;             /* for its environment (orphan.h) */
    /* Fetch this content into the cache; answered by work_fetched. */
    void (*fetch)(void *context, struct work *work, const char *sha256, int64_t size);
    /* Find the model; answered by work_model_found. */
    void (*find_model)(void *context, struct work *work, const char *path, const char *digest);
    void (*line)(void *context, struct work *work, const struct contract_line *line);
    /* A rank of a gang is ready (crew.h). */
    void (*gang_ready)(void *context, struct work *work, int rank, const char *id);
    void *context;
};

/* Take a grant; never fails for the caller: what goes wrong becomes the end.
 * NULL only without memory. */
struct work *work_create(const struct work_options *options, const struct attempt_id *id,
                         const struct ha_wire_grant *grant);

/* One of an earlier daemon, which has ended: only its folder and what was kept in it are there.
 * fn is called for each event that was kept. */
int work_recover(const struct work_options *options, const struct attempt_id *id,
                 const char *folder, journal_fn fn, void *context, struct work **ret_work,
                 struct ha_error *err);

/* Kills its process.  The folder is left; keep it or not with folders_end_attempt. */
void work_destroy(struct work *work);

const struct attempt_id *work_id(const struct work *work);

/* The model of one that has not ended, as it was found; false: it is not known. */
bool work_model(const struct work *work, const char **ret_path, const char **ret_digest);
const char *work_folder(const struct work *work); /* NULL: it could not be made */

/* text: why not, or NULL. */
void work_fetched(struct work *work, const char *sha256, const char *text);
void work_model_found(struct work *work, const char *path, const char *text);

/* Devices may have become free, or a process that waited has ended. */
void work_room_changed(struct work *work);

void work_stop(struct work *work);

/* All ranks of its gang are ready, with this id; NULL: another one has failed. */
void work_gang(struct work *work, const char *id);
void work_check_child(struct work *work); /* SIGCHLD came */

/* Remember and recall the file of an upload; path relative to the folder, the
 * answer absolute and the caller's; NULL: no such number, or no memory. */
char *work_upload_path(struct work *work, int64_t number, const char *path);

/* What it tells, kept in its folder until it is delivered (journal.h). */
void work_keep(struct work *work, const struct ha_wire_attempt_event *event, const char *path);
void work_sync_kept(struct work *work);
void work_delivered(struct work *work, int64_t number);
void work_drop_kept(struct work *work);

struct work_end {
    enum attempt_outcome outcome;
    const char *reason; /* belongs to work */
    int32_t exit_code;
    const char *log_path; /* relative, or NULL */
    /* of a gang: it failed because others had; collectives of the ranks that told them */
    bool followed;
    const struct ha_wire_rank_count *counts; /* belongs to work */
    int64_t n_counts;
    struct ha_wire_rank_log log; /* of its rank that failed; belongs to work */
};

/* True once, when the work has ended. */
bool work_take_end(struct work *work, struct work_end *ret_end);

#endif
