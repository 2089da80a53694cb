/* session.h - what a worker daemon says to its coordinator, and when
 *
 * A pure automaton: events come in by the functions below, effects go out
 * through a table.  It has no clock (now_ms comes with what happens), no
 * socket, no process and no file; daemon.c has.  Effects may be called from
 * inside any function below; they must not call back into the session.
 *
 *   connection:  unknown --hello reply--> known
 *                known   --"hello again", three silent heartbeats--> unknown
 *
 *   attempt:     waiting -> running -> ended -> (forgotten)
 *
 * waiting: no slot is free yet.  running: between the start effect and
 * session_attempt_ended; fetching inputs counts.  ended: the process is gone,
 * reports and uploads are not.  One of an earlier process (session_recover) begins there, and
 * first asks which report the coordinator waits for.  An attempt whose epoch is over (the
 * coordinator says so, or does not list it any more) is stopped and forgotten without further
 * reports. */
#ifndef HA_WORKER_DAEMON_SESSION_H
#define HA_WORKER_DAEMON_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf/settings.h"
#include "proto/wire.h"

struct ha_error;
struct session;

struct attempt_id {
    uint64_t job;
    struct ha_wire_epoch epoch;
};

bool attempt_id_equal(const struct attempt_id *a, const struct attempt_id *b);

struct session_effects {
    /* Encode and send; it may be lost. */
    void (*send)(void *context, const struct ha_wire_message *message);
    /* Close the connection and open it anew. */
    void (*reconnect)(void *context);
    /* The artifact socket lies here. */
    void (*files_endpoint)(void *context, const char *endpoint);
    /* Fetch the inputs and start the process; ends with session_attempt_ended,
     * exactly once, whatever happens. */
    void (*start)(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant);
    /* Stop it: SIGTERM, grace, SIGKILL.  Called once or more. */
    void (*stop)(void *context, const struct attempt_id *id);
    /* Upload a file of the attempt's folder; answered by session_uploaded or
     * session_upload_failed with the same number.  path NULL: the file of this
     * number once more. */
    void (*upload)(void *context, const struct attempt_id *id, int64_t number, const char *path);
    /* Write an event down, so that it outlives this process; path: the file of an artifact, or
     * NULL.  They are numbered from 0 for each attempt.  What is sent was given here before. */
    void (*keep)(void *context, const struct attempt_id *id,
                 const struct ha_wire_attempt_event *event, const char *path);
    /* Events with lower numbers are durable at the coordinator. */
    void (*delivered)(void *context, const struct attempt_id *id, int64_t number);
    /* Nothing more will be asked about it; failed: its folder is worth keeping. */
    void (*forget)(void *context, const struct attempt_id *id, bool failed);
    /* To the ranks of a gang: the communicator's id, as all are ready; NULL: give up at once. */
    void (*gang)(void *context, const struct attempt_id *id, const char *comm_id);
    /* A line for the operator. */
    void (*note)(void *context, const char *text);
};

struct session_options {
    const char *name, *instance, *machine, *version, *backend, *host; /* of Hello */
    int64_t pid;
    uint32_t slots;
    int64_t memory_bytes;              /* that one attempt may use; 0: not known */
    const struct ha_text_list *labels; /* outlives the session; NULL: none */
    uint32_t cpus, gpus;               /* of one attempt, as what follows */
    int64_t host_memory_bytes, gpu_memory_bytes;
    int64_t stop_grace_ms; /* between SIGTERM and SIGKILL of an attempt */
    int64_t heartbeat_ms;  /* until the coordinator says another */
    /* Silence of an attempt after which it is ended as stuck, per phase. */
    int64_t stall_load_ms, stall_step_ms, stall_generate_ms;
};

/* Texts of options are copied.  Sends nothing before session_tick. */
int session_create(const struct session_options *options, const struct session_effects *effects,
                   void *context, int64_t now_ms, struct session **ret_session,
                   struct ha_error *err);
void session_destroy(struct session *session);

/* What an earlier process kept of an event. */
struct session_kept {
    const struct ha_wire_attempt_event *event;
    const char *path; /* of an artifact */
};

/* An attempt that ended before this process began, with what was kept of it in order: it is told
 * if its lease was not given away.  One whose end was not kept ended with the process.  Copies all;
 * before the first session_tick. */
int session_recover(struct session *session, const struct attempt_id *id,
                    const struct session_kept *kept, int64_t n_kept, int64_t now_ms,
                    struct ha_error *err);

/* Do what is due; the next call is due at session_next_ms. */
void session_tick(struct session *session, int64_t now_ms);
int64_t session_next_ms(const struct session *session);

/* What the worker offers has changed, as in options: a hello tells it.  -ENOMEM: nothing has. */
int session_describe(struct session *session, const char *backend, int64_t memory_bytes,
                     uint32_t gpus, int64_t gpu_memory_bytes, int64_t now_ms);

/* A message of the coordinator. */
void session_receive(struct session *session, const struct ha_wire_message *message,
                     int64_t now_ms);

/* ---- from an attempt; ids that are not known are ignored --------------------------- */

void session_attempt_phase(struct session *session, const struct attempt_id *id, const char *phase,
                           int64_t now_ms);

/* What a line "progress" tells. */
struct attempt_progress {
    int64_t step, steps;
    double tokens_per_second, utilisation;
};

void session_attempt_progress(struct session *session, const struct attempt_id *id,
                              const struct attempt_progress *progress, int64_t now_ms);

/* A metric, an answer or the end of a cell. */
void session_attempt_event(struct session *session, const struct attempt_id *id,
                           const struct ha_wire_attempt_event *event, int64_t now_ms);

/* A file (path below the attempt's folder) to be uploaded and reported. */
void session_attempt_artifact(struct session *session, const struct attempt_id *id,
                              const struct ha_wire_attempt_artifact *artifact, const char *path,
                              int64_t now_ms);

/* A rank of a gang is prepared; comm_id: rank 0's communicator's, "" of the others. */
void session_gang_ready(struct session *session, const struct attempt_id *id, int rank,
                        const char *comm_id);

/* Before session_attempt_ended, of a gang: did it fail because others had, what its ranks told of
 * their collectives, and the log of the one that failed. */
void session_gang_ended(struct session *session, const struct attempt_id *id, bool followed,
                        const struct ha_wire_rank_count *counts, int64_t n_counts,
                        const struct ha_wire_rank_log *log);

/* How an attempt ended, as far as the process tells.  Starved: failed because memory ran out. */
enum attempt_outcome {
    ATTEMPT_DONE,
    ATTEMPT_STOPPED,
    ATTEMPT_FAILED,
    ATTEMPT_REFUSED,
    ATTEMPT_STARVED
};

/* log_path: its log below the attempt's folder, or NULL. */
void session_attempt_ended(struct session *session, const struct attempt_id *id,
                           enum attempt_outcome outcome, const char *reason, int32_t exit_code,
                           const char *log_path, int64_t now_ms);

void session_uploaded(struct session *session, const struct attempt_id *id, int64_t number,
                      const char *sha256, int64_t size, int64_t now_ms);

/* The file cannot be read: the attempt fails. */
void session_upload_failed(struct session *session, const struct attempt_id *id, int64_t number,
                           const char *reason, int64_t now_ms);

/* ---- leaving ------------------------------------------------------------------------- */

/* Take nothing new, stop what runs, report it. */
void session_drain(struct session *session, int64_t now_ms);

/* True when no attempt is left. */
bool session_is_empty(const struct session *session);

#endif
