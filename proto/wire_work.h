/* wire_work.h - the messages of workers, judge workers and artifacts, part of wire.h */
#ifndef HA_PROTO_WIRE_WORK_H
#define HA_PROTO_WIRE_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HA_WIRE_PROTOCOL = 1, HA_WIRE_CHUNK_BYTES = 1 << 20 };

struct ha_wire_bytes {
    const uint8_t *data;
    size_t size;
};

enum ha_wire_role {
    HA_WIRE_ROLE_UNKNOWN = 0,
    HA_WIRE_ROLE_CLIENT = 1,
    HA_WIRE_ROLE_WORKER = 2,
    HA_WIRE_ROLE_JUDGE = 3
};

/* A request that could not be done.  code: positive errno.  EPROTO = "hello again" (the coordinator
 * does not know this peer). */
struct ha_wire_error {
    uint32_t code;
    const char *text;
};

/* The fencing token of an attempt: compared for equality only. */
struct ha_wire_epoch {
    uint64_t generation; /* of the store; a restore makes a new one */
    uint64_t number;     /* rises with every lease that is granted */
};

struct ha_wire_hello {
    enum ha_wire_role role;
    const char *name;     /* of the worker or judge worker; "" for clients */
    const char *instance; /* random, new at every start of the program */
    /* machine id; a new instance on the same machine voids the old attempts at once */
    const char *machine;
    const char *version; /* of the program */
    uint32_t slots;      /* attempts that may run side by side */
    const char *backend; /* the backend's one-line description */
    int64_t pid;
    const char *host;     /* host name, for people */
    int64_t memory_bytes; /* that one attempt may use; 0: not known */
    /* What [resources] of a grid is matched against; each for one attempt. */
    const char **labels;
    int64_t n_labels;
    uint32_t cpus;
    int64_t host_memory_bytes;
    uint32_t gpus;
    int64_t gpu_memory_bytes; /* of each */
    /* Attempts of an earlier process of this worker that have ended and whose last reports it
     * kept: a new instance does not void them. */
    struct ha_wire_job_ref *kept;
    int64_t n_kept;
};

struct ha_wire_hello_reply {
    const char *version;
    uint64_t generation;
    uint32_t heartbeat_ms;
    uint32_t lost_ms;
    /* the artifact socket; "" in replies to peers that may not use it */
    const char *files_endpoint;
    const char *name; /* the name this peer has now */
};

struct ha_wire_running {
    uint64_t job;
    struct ha_wire_epoch epoch;
    const char *phase; /* fetch, load, step, evaluate, measure, probe, generate, upload */
    int64_t step;      /* of the phase */
    int64_t steps;
    double tokens_per_second;
    double utilisation; /* part of the backend's peak; 0: not known */
};

/* A GPU of a worker, or a MIG instance of one.  Numbers are -1 where the driver does not tell
 * them. */
struct ha_wire_device {
    int64_t index; /* of the GPU on its machine, in the order of PCI addresses */
    const char *name;
    const char *uuid;
    int64_t memory_bytes;
    int64_t memory_used_bytes;
    int64_t utilisation_percent;
    int64_t temperature_c;
    int64_t ecc_uncorrected;
    /* "free" | "busy" | "held" (its memory is not free) | "aside"; of a ha_wire_worker_row also the
     * worker's, of one that is free and not to be had */
    const char *state;
    const char *reason; /* of held and aside; of others, what speaks against it */
    int64_t since_ms;   /* wall clock, when it came into this state; 0: not told */
};

/* A model that a worker has, and what a next job of it would find. */
struct ha_wire_held_model {
    const char *digest; /* as a grant named it */
    const char *name;   /* of its folder */
    int64_t bytes;      /* of its weights */
    /* "loaded" (by a process that waits for such a job) | "cached" (page cache) | "disk" */
    const char *where;
    int64_t load_ms; /* until the weights are where an attempt needs them */
};

struct ha_wire_heartbeat {
    uint32_t free_slots;
    bool draining;
    struct ha_wire_running *running;
    int64_t n_running;
    int64_t wall_ms; /* the sender's clock; 0: not told */
    struct ha_wire_device *devices;
    int64_t n_devices;
    /* where devices are told: how many attempts they allow now, with those that run */
    uint32_t places;
    uint32_t gpus;                     /* that each of these has */
    struct ha_wire_held_model *models; /* used last first */
    int64_t n_models;
};

struct ha_wire_job_ref {
    uint64_t job;
    struct ha_wire_epoch epoch;
};

/* The (job, epoch) set that this worker should be running.  A worker stops an attempt that is not
 * in it, and asks (GrantRequest) for one that it lacks. */
struct ha_wire_heartbeat_reply {
    struct ha_wire_job_ref *should_run;
    int64_t n_should_run;
    uint64_t generation;
    /* when a person last undrained it: devices that were set aside are well; 0: never */
    int64_t undrained_ms;
    uint32_t rest_ms; /* from heartbeat to heartbeat while it has no attempt; 0: heartbeat_ms */
};

struct ha_wire_grant_request {
    uint64_t job;
    struct ha_wire_epoch epoch;
};

struct ha_wire_input {
    const char *sha256;
    int64_t size;
    const char *path; /* relative to the attempt's folder, below inputs/ */
};

/* The ranks of a gang that one worker runs.  Part 0 has rank 0, and its worker alone reports. */
struct ha_wire_gang {
    uint32_t part;
    uint32_t parts; /* workers; 0: no gang */
    uint32_t first_rank;
    uint32_t ranks; /* of this part */
    uint32_t world; /* of all parts */
};

/* Pushed to a worker when a lease is given; sent again on GrantRequest. */
struct ha_wire_grant {
    uint64_t job;
    struct ha_wire_epoch epoch;
    const char *kind; /* "probe" | "train" | "generate" */
    const char *sweep;
    const char *spec_json; /* see worker/contract.h */
    struct ha_wire_input *inputs;
    int64_t n_inputs;
    /* where the submitter saw the model; resolved below the worker's model_roots */
    const char *model_path;
    const char *model_digest;
    int64_t time_limit_s; /* of the attempt; 0: none */
    struct ha_wire_gang gang;
};

/* Collectives of a rank that told them at its end. */
struct ha_wire_rank_count {
    uint32_t rank;
    int64_t started, finished;
};

/* Where the rank that failed has its log, on its worker; of one that failed by itself the end, too.
 */
struct ha_wire_rank_log {
    const char *path, *tail;
};

/* How far the ranks of a part are.  Sent whenever that changes, and with every heartbeat until an
 * order answers what is waited for: it says all there is to say, so one that is lost or comes twice
 * does no harm. */
struct ha_wire_gang_state {
    uint64_t job;
    struct ha_wire_epoch epoch;
    uint32_t *ready; /* ranks that are prepared */
    int64_t n_ready;
    const char *id; /* the communicator's, in hexadecimal; of rank 0's part, once it is ready */
    bool ended;     /* all ranks of this part have; what follows says how */
    const char *outcome; /* as ha_wire_attempt_end's */
    const char *reason;
    bool followed; /* it failed because others had */
    struct ha_wire_rank_count *counts;
    int64_t n_counts;
    struct ha_wire_rank_log log;
    const char *cause; /* as ha_wire_attempt_end's; "" also of a worker that does not tell */
};

enum ha_wire_gang_step {
    HA_WIRE_GANG_WAIT = 0,    /* for the others */
    HA_WIRE_GANG_GO = 1,      /* all are ready: id is the communicator's */
    HA_WIRE_GANG_ABORT = 2,   /* one has failed: give up at once */
    HA_WIRE_GANG_SETTLED = 3, /* all have ended, or are not waited for: part 0 reports the end */
    HA_WIRE_GANG_STALE = 4    /* the attempt is over */
};

/* The answer to a gang's state; also pushed. */
struct ha_wire_gang_order {
    uint64_t job;
    struct ha_wire_epoch epoch;
    enum ha_wire_gang_step step;
    const char *id;
    const char *reason;
};

struct ha_wire_attempt_metric {
    uint64_t cell;
    int64_t step;     /* optimizer step, from 1 */
    const char *name; /* as TRL logs it, e.g. "rewards/margins" */
    double value;
};

struct ha_wire_attempt_answer {
    uint64_t cell;
    int64_t prompt; /* index among the sweep's held-out prompts */
    uint32_t sample;
    const char *prompt_text; /* the whole dialogue the model saw, without special tokens */
    const char *text;        /* cut at the stop string, outer spaces removed */
    const char *raw;         /* as generated */
    const char *finish;      /* "stop" | "eos" | "length" */
    int64_t prompt_tokens;
    int64_t tokens;
};

struct ha_wire_attempt_artifact {
    uint64_t cell;    /* 0: the attempt as a whole */
    const char *kind; /* "adapter" | "checkpoint" | "log" | "reference" */
    const char *name; /* file name, e.g. "adapter_model.safetensors" */
    const char *sha256;
    int64_t size;
    int64_t step; /* of a checkpoint */
};

/* A cell of the job is final: done with a summary, or failed with a reason. */
struct ha_wire_attempt_cell {
    uint64_t cell;
    bool done;
    const char *reason;
    bool permanent;           /* another attempt cannot mend it */
    const char *summary_json; /* trainable parameters, seconds, tokens, FLOPs, eval metrics … */
};

struct ha_wire_attempt_end {
    const char *outcome; /* "done" | "stopped" (checkpointed) | "failed" | "refused" (permanent) */
    const char *reason;  /* in words: "killed by signal 9 (SIGKILL)" */
    int32_t exit_code;
    const char *cause; /* of "stopped": "time_limit", "lost" (its daemon died); of "failed":
                          "memory" (it ran out); else "" */
    struct ha_wire_rank_log log; /* of a gang on this worker alone */
};

/* Of a probe: the mean over pairs of the norm of the loss's gradient with respect to frozen weights
 * (worker/dpo/probe.h). */
struct ha_wire_attempt_norm {
    uint64_t cell;
    const char *block; /* "" for one layer, else "local", "mid", "global", "full" */
    int64_t layer;     /* from 0; the first of `layers` */
    int64_t layers;
    const char *module; /* "q_proj", "k_proj", "v_proj", "o_proj", or "all" four together */
    double norm;
    int64_t parameters; /* weights under it */
    int64_t pairs;
};

enum ha_wire_attempt_event_kind {
    HA_WIRE_ATTEMPT_EVENT_UNKNOWN = 0,
    HA_WIRE_ATTEMPT_EVENT_METRIC = 1,
    HA_WIRE_ATTEMPT_EVENT_ANSWER = 2,
    HA_WIRE_ATTEMPT_EVENT_ARTIFACT = 3,
    HA_WIRE_ATTEMPT_EVENT_CELL = 4,
    HA_WIRE_ATTEMPT_EVENT_END = 5,
    HA_WIRE_ATTEMPT_EVENT_NORM = 6,
};

struct ha_wire_attempt_event {
    enum ha_wire_attempt_event_kind kind;
    union {
        struct ha_wire_attempt_metric metric;
        struct ha_wire_attempt_answer answer;
        struct ha_wire_attempt_artifact artifact;
        struct ha_wire_attempt_cell cell;
        struct ha_wire_attempt_end end;
        struct ha_wire_attempt_norm norm;
    } event;
};

/* What happened in an attempt, in order.  sequence counts the reports of one (job, epoch) from 1; a
 * report that was already taken is acknowledged again. */
struct ha_wire_report {
    uint64_t job;
    struct ha_wire_epoch epoch;
    uint64_t sequence;
    struct ha_wire_attempt_event *events;
    int64_t n_events;
};

struct ha_wire_report_reply {
    uint64_t job;
    struct ha_wire_epoch epoch;
    uint64_t sequence; /* everything up to here is durable */
    bool stale;        /* this epoch is over: stop the attempt, drop its reports */
    /* artifacts (SHA-256) that must be uploaded before this report can be taken */
    const char **missing;
    int64_t n_missing;
};

/* Pushed: stop this attempt (a checkpoint is welcome). */
struct ha_wire_revoke {
    uint64_t job;
    struct ha_wire_epoch epoch;
    const char *reason;
};

struct ha_wire_item_ref {
    uint64_t item;
    struct ha_wire_epoch epoch;
};

/* Counts once, in the order of request ids: an older or repeated one gets nothing. */
struct ha_wire_items_request {
    uint32_t max_items; /* free places; 0 is legal (asks for nothing) */
    /* a grant may have been lost: what is leased to this judge worker and not in held is free
     * again */
    bool lists_held;
    struct ha_wire_item_ref *held;
    int64_t n_held;
};

struct ha_wire_judge_spec {
    uint64_t judge;
    const char *sweep;
    const char *settings_json; /* the [[judge]] table with every value filled in */
};

struct ha_wire_item {
    uint64_t item;
    struct ha_wire_epoch epoch;
    uint64_t judge;
    uint32_t sample;
    const char *prompt_text;
    const char *answer_text;
    uint32_t reasks;            /* replies of this item that could not be read so far */
    const char *last_fault;     /* why, stated to the evaluator when asked again */
    struct ha_wire_bytes reply; /* of reply_call */
    /* not 0: this call's reply is stored but nobody read it yet; read it and report its outcome
     * instead of asking again */
    uint64_t reply_call;
};

struct ha_wire_items_grant {
    struct ha_wire_judge_spec *judges;
    int64_t n_judges;
    struct ha_wire_item *items;
    int64_t n_items;
};

/* "I am about to send": recorded with its money reservation before the call. */
struct ha_wire_items_begin {
    struct ha_wire_item_ref *items;
    int64_t n_items;
    double *reserve; /* money reserved for each, in the judge's currency */
    int64_t n_reserve;
};

struct ha_wire_begun_call {
    uint64_t item;
    uint64_t call;
};

struct ha_wire_refused_item {
    uint64_t item;
    const char *reason;
};

struct ha_wire_items_begin_reply {
    struct ha_wire_begun_call *calls; /* those that may be sent now */
    int64_t n_calls;
    struct ha_wire_refused_item *refused; /* stale lease, or no budget left */
    int64_t n_refused;
};

struct ha_wire_judge_reply {
    uint64_t item;
    struct ha_wire_epoch epoch;
    uint64_t call;
    uint32_t http_status; /* 0: no reply came */
    struct ha_wire_bytes raw;
    const char *host;
    int64_t latency_ms;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    double cost;
    bool possibly_paid; /* sent, outcome unknown */
    const char *error;
};

/* Raw replies: stored before they are parsed.  Also offered again from the
 * spool after a restart. */
struct ha_wire_judge_replies {
    struct ha_wire_judge_reply *replies;
    int64_t n_replies;
};

struct ha_wire_score {
    const char *dimension;
    uint32_t value; /* 1..5 */
    const char *reason;
};

struct ha_wire_judge_outcome {
    uint64_t item;
    struct ha_wire_epoch epoch;
    uint64_t call;
    const char *kind;             /* "scored" | "reask" | "retry" | "failed" | "release" */
    struct ha_wire_score *scores; /* exactly 16 when scored */
    int64_t n_scores;
    const char **repairs;
    int64_t n_repairs;
    const char *fault; /* for reask, retry and failed */
    int64_t retry_after_ms;
    bool flagged;         /* the judged text holds array-like or instruction-like text */
    const char *identity; /* SHA-256 of the judge identity */
};

struct ha_wire_judge_outcomes {
    struct ha_wire_judge_outcome *outcomes;
    int64_t n_outcomes;
};

struct ha_wire_judge_ack {
    uint64_t *calls; /* replies or outcomes of these calls are durable */
    int64_t n_calls;
    uint64_t *stale; /* items whose lease is over */
    int64_t n_stale;
};

struct ha_wire_artifact_open {
    const char *sha256;
    int64_t size;
};

struct ha_wire_artifact_chunk {
    const char *sha256;
    int64_t size; /* of the whole artifact */
    int64_t offset;
    struct ha_wire_bytes data; /* at most 1 MiB */
};

/* have: bytes from the start that are on disk; complete: hash seen to match, file and folder
 * synced, row committed. */
struct ha_wire_artifact_state {
    const char *sha256;
    int64_t have;
    bool complete;
    const char *error;
};

struct ha_wire_artifact_read {
    const char *sha256;
    int64_t offset;
    int64_t length; /* at most 1 MiB */
};

struct ha_wire_artifact_data {
    const char *sha256;
    int64_t offset;
    int64_t size; /* of the whole artifact */
    struct ha_wire_bytes data;
    const char *error; /* "" or why it cannot be read */
};

#endif
