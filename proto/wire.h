/* wire.h - the messages of ha.proto as plain C structs
 *
 * Message Foo of ha.proto is struct ha_wire_foo with fields of the same names:
 *
 *   string           const char *; never NULL after decode; NULL encodes as ""
 *   bytes            struct ha_wire_bytes
 *   repeated X xs    X *xs; int64_t n_xs
 *   message          embedded; one that was not sent decodes as zeros and ""
 *   oneof            kind (the field's number, 0 = none or unknown) and a union
 *
 * What each message means, and who answers it, stands in ha.proto.  Both
 * directions check: text is UTF-8 (a zero byte ends it), sizes and counts are not
 * negative, digests are 64 lower-case hexadecimal digits or "", paths are
 * relative without "..", a chunk is at most HA_WIRE_CHUNK_BYTES. */
#ifndef HA_PROTO_WIRE_H
#define HA_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/wire_operate.h"
#include "proto/wire_work.h"

struct ha_buffer;
struct ha_error;

struct ha_wire_submit_model {
    const char *name;
    const char *path;
    const char *digest; /* of config.json, generation_config.json and weights */
    uint32_t layers;
    const char *family;
    const char *tokenizer_digest;
    const char *plan_json; /* what `ha-attempt plan --json` says of it; "" where it was not asked */
};

struct ha_wire_submit_file {
    const char *path; /* as the grid names it */
    const char *sha256;
    int64_t size;
    const char *split; /* "train" | "eval" */
};

/* The grid crosses the wire as its text.  Data files are uploaded as artifacts before this is sent.
 */
struct ha_wire_submit {
    const char *key;  /* idempotency key */
    const char *name; /* overrides sweep.name when not "" */
    const char *toml;
    const char *base_dir;
    const char **overrides; /* "section.key=value" */
    int64_t n_overrides;
    struct ha_wire_submit_model *models;
    int64_t n_models;
    struct ha_wire_submit_file *files;
    int64_t n_files;
    bool extend;
    int64_t limit_prompts; /* 0: as the grid says */
};

struct ha_wire_submit_reply {
    uint64_t sweep;
    const char *name;
    const char *outcome; /* "created" | "resumed" | "changed" | "refused" */
    int64_t cells;
    const char **notes; /* what was kept, added, stopped; or why it was refused */
    int64_t n_notes;
};

struct ha_wire_list_sweeps {
    char none; /* always 0; C has no empty structs */
};

struct ha_wire_sweep_row {
    uint64_t sweep;
    const char *name;
    const char *state; /* running | paused | done | gaps | cancelled */
    int64_t cells;
    int64_t stages;
    int64_t stages_done;
    int64_t stages_failed;
    int64_t created_ms;
    int64_t finished_ms; /* 0: not yet */
    const char *reason;  /* why it is paused, cancelled or has gaps, where that is known */
};

struct ha_wire_sweep_list {
    struct ha_wire_sweep_row *sweeps;
    int64_t n_sweeps;
};

struct ha_wire_status_request {
    const char *sweep;   /* name or id; "" is allowed when there is exactly one */
    uint64_t after_cell; /* paging */
    uint32_t limit;      /* 0: as many as fit one reply */
    const char *cell;    /* name or id; "": all */
};

struct ha_wire_stage_row {
    const char *stage; /* "probe" | "train" | "generate" | "judge:NAME" */
    const char *state; /* waiting | ready | leased | running | done | failed | cancelled | reused */
    const char *reason; /* why it stands where it stands, in words */
    int64_t done;       /* pairs, steps, answers or scored items */
    int64_t total;
    int64_t failed;
    double tokens_per_second;
    uint32_t attempts;
    const char *worker;
    uint64_t job;
    int64_t started_ms;
    int64_t finished_ms;
    const char *summary_json;
    struct ha_wire_attempt_artifact *artifacts; /* only when asked for one cell */
    int64_t n_artifacts;
    const char **mates; /* names of the other cells that its job works on; asked for one cell:
                           worked on, when it has ended */
    int64_t n_mates;
    double utilisation;   /* of a running job: part of the backend's peak; 0: not known */
    const char *category; /* of the reason: "busy now", "can never run here" ... */
    const char *mend;     /* what to do about it; "" */
};

/* The layers of a cell whose strategy has the rule "auto:K", and why these. */
struct ha_wire_choice {
    int64_t count;       /* K; 0: the cell has no rule */
    const char *measure; /* "norm" | "per_sqrt_parameters" */
    const char *layers;  /* "3-4"; "" until the probe is done */
    double share;        /* of these layers in the measure's sum over all */
    uint64_t probe;      /* ha_wire_norm_row.probe of the numbers */
};

struct ha_wire_cell_row {
    uint64_t cell;
    const char *model;
    const char *strategy;
    const char *name;
    const char *layers; /* "0-10", "" for base, "auto:2" until a probe has chosen them */
    struct ha_wire_stage_row *stages;
    int64_t n_stages;
    /* effective values with their sources; only when asked for one cell */
    const char *settings_json;
    bool in_grid; /* false: no longer in the grid */
    struct ha_wire_choice choice;
};

struct ha_wire_status_reply {
    struct ha_wire_sweep_row sweep;
    struct ha_wire_cell_row *cells;
    int64_t n_cells;
    bool more;
    const char *judge_label; /* "" or what the report must say about the evaluator */
    int64_t now_ms;
    double spent;
    double reserved;
    double budget;
    int64_t possibly_paid;
    int64_t workers;
    int64_t judges;
    const char *toml;                    /* the stored grid; first page only */
    struct ha_wire_submit_model *models; /* first page only */
    int64_t n_models;
};

/* Answers with their scores, for results, show and report. */
struct ha_wire_answers_request {
    const char *sweep;
    const char *cell; /* name or id; "": all */
    int64_t prompt;   /* -1: all */
    uint64_t after_answer;
    uint32_t limit; /* 0: 500 */
    bool with_text;
    bool with_reasons;
};

struct ha_wire_score_set {
    const char *judge;
    uint32_t sample;
    const char *state; /* ready | leased | scored | failed */
    struct ha_wire_score *scores;
    int64_t n_scores;
    const char *fault;
    bool flagged;
    const char *identity;
};

struct ha_wire_answer_row {
    uint64_t answer;
    uint64_t cell;
    int64_t prompt;
    uint32_t sample;
    const char *prompt_text;
    const char *text;
    const char *finish;
    int64_t tokens;
    const char *prompt_sha256;
    struct ha_wire_score_set *scores;
    int64_t n_scores;
};

struct ha_wire_answers_reply {
    struct ha_wire_answer_row *answers;
    int64_t n_answers;
    bool more;
};

struct ha_wire_log_request {
    const char *sweep; /* name or id; "": all */
    uint64_t job;      /* 0: all */
    uint64_t after_event;
    uint32_t limit;
};

struct ha_wire_event_row {
    uint64_t event;
    int64_t time_ms;
    const char *subject; /* "sweep 1", "job 7", "cell 3 train", "worker w1" */
    const char *from;
    const char *to;
    const char *reason;
    const char *actor;
};

struct ha_wire_log_reply {
    struct ha_wire_event_row *events;
    int64_t n_events;
    bool more;
};

/* verb: "cancel" | "retry" | "pause" | "resume" | "set" of a sweep, "drain" | "undrain" of a
 * worker. */
struct ha_wire_change {
    const char *key;
    const char *verb;
    const char *sweep;
    const char *cell; /* "": the whole sweep */
    const char *reason;
    bool failed_only;
    const char *model;     /* of pause and resume: this row; "": every model */
    const char *strategy;  /* this column; "": every strategy */
    bool finish;           /* of pause: what runs may end by itself */
    const char **settings; /* of set: "priority=3", "judge.NAME.budget=20" */
    int64_t n_settings;
    const char *worker;  /* of drain and undrain */
    int64_t deadline_ms; /* of drain: so long attempts may go on; 0: to their end */
};

struct ha_wire_change_reply {
    int64_t changed;
    const char *text;
};

struct ha_wire_workers_request {
    char none; /* always 0; C has no empty structs */
};

struct ha_wire_worker_row {
    const char *name;
    const char *role;  /* "worker" | "judge" */
    const char *state; /* alive | late | lost | draining | drained */
    const char *host;
    const char *backend;
    uint32_t slots;
    struct ha_wire_running *running;
    int64_t n_running;
    int64_t last_seen_ms; /* wall clock */
    const char *version;
    const char *note; /* who drains it, since when and why */
    int64_t clock_ms; /* its clock less the coordinator's, as its last heartbeat showed */
    bool clock_known;
    struct ha_wire_device *devices;
    int64_t n_devices;
    const char *key; /* the one that its name belongs to; "": to none */
    struct ha_wire_held_model *models;
    int64_t n_models;
};

struct ha_wire_workers_reply {
    struct ha_wire_worker_row *workers;
    int64_t n_workers;
};

struct ha_wire_metrics_request {
    const char *sweep;
    const char *cell; /* name or id; "": all */
    const char *name; /* "": all */
    uint64_t after;
    uint32_t limit;
};

struct ha_wire_metric_row {
    uint64_t metric;
    uint64_t cell;
    int64_t step;
    const char *name;
    double value;
};

struct ha_wire_metrics_reply {
    struct ha_wire_metric_row *rows;
    int64_t n_rows;
    bool more;
};

/* What the probes of a sweep found. */
struct ha_wire_norms_request {
    const char *sweep;
    const char *cell; /* name or id; "": all */
    uint64_t after;   /* ha_wire_norm_row.row */
    uint32_t limit;
};

struct ha_wire_norm_row {
    uint64_t row;
    uint64_t probe; /* equal for the rows of one probe, which cells may share */
    const char *model;
    struct ha_wire_attempt_norm norm; /* its cell: the first that shows this probe */
};

struct ha_wire_norms_reply {
    struct ha_wire_norm_row *rows;
    int64_t n_rows;
    bool more;
};

enum ha_wire_body {
    HA_WIRE_UNKNOWN = 0, /* a body that this version does not know, or none */
    HA_WIRE_ERROR = 10,
    HA_WIRE_HELLO = 11,
    HA_WIRE_HELLO_REPLY = 12,
    HA_WIRE_HEARTBEAT = 13,
    HA_WIRE_HEARTBEAT_REPLY = 14,
    HA_WIRE_GRANT_REQUEST = 20,
    HA_WIRE_GRANT = 21,
    HA_WIRE_REPORT = 22,
    HA_WIRE_REPORT_REPLY = 23,
    HA_WIRE_REVOKE = 24,
    HA_WIRE_GANG_STATE = 25,
    HA_WIRE_GANG_ORDER = 26,
    HA_WIRE_ITEMS_REQUEST = 30,
    HA_WIRE_ITEMS_GRANT = 31,
    HA_WIRE_ITEMS_BEGIN = 32,
    HA_WIRE_ITEMS_BEGIN_REPLY = 33,
    HA_WIRE_JUDGE_REPLIES = 34,
    HA_WIRE_JUDGE_OUTCOMES = 35,
    HA_WIRE_JUDGE_ACK = 36,
    HA_WIRE_ARTIFACT_OPEN = 40,
    HA_WIRE_ARTIFACT_CHUNK = 41,
    HA_WIRE_ARTIFACT_STATE = 42,
    HA_WIRE_ARTIFACT_READ = 43,
    HA_WIRE_ARTIFACT_DATA = 44,
    HA_WIRE_SUBMIT = 50,
    HA_WIRE_SUBMIT_REPLY = 51,
    HA_WIRE_LIST_SWEEPS = 52,
    HA_WIRE_SWEEP_LIST = 53,
    HA_WIRE_STATUS_REQUEST = 54,
    HA_WIRE_STATUS_REPLY = 55,
    HA_WIRE_ANSWERS_REQUEST = 56,
    HA_WIRE_ANSWERS_REPLY = 57,
    HA_WIRE_LOG_REQUEST = 58,
    HA_WIRE_LOG_REPLY = 59,
    HA_WIRE_CHANGE = 60,
    HA_WIRE_CHANGE_REPLY = 61,
    HA_WIRE_WORKERS_REQUEST = 62,
    HA_WIRE_WORKERS_REPLY = 63,
    HA_WIRE_METRICS_REQUEST = 64,
    HA_WIRE_METRICS_REPLY = 65,
    HA_WIRE_NORMS_REQUEST = 66,
    HA_WIRE_NORMS_REPLY = 67,
    HA_WIRE_BACKUP = 80,
    HA_WIRE_BACKUP_REPLY = 81,
    HA_WIRE_GC = 82,
    HA_WIRE_GC_REPLY = 83,
    HA_WIRE_HEALTH_REQUEST = 84,
    HA_WIRE_HEALTH_REPLY = 85,
};

struct ha_wire_message {
    uint32_t protocol;   /* HA_WIRE_PROTOCOL */
    uint64_t request_id; /* chosen by the sender of a request; a push has 0 */
    enum ha_wire_body kind;
    union {
        struct ha_wire_error error;
        struct ha_wire_hello hello;
        struct ha_wire_hello_reply hello_reply;
        struct ha_wire_heartbeat heartbeat;
        struct ha_wire_heartbeat_reply heartbeat_reply;
        struct ha_wire_grant_request grant_request;
        struct ha_wire_grant grant;
        struct ha_wire_report report;
        struct ha_wire_report_reply report_reply;
        struct ha_wire_revoke revoke;
        struct ha_wire_gang_state gang_state;
        struct ha_wire_gang_order gang_order;
        struct ha_wire_items_request items_request;
        struct ha_wire_items_grant items_grant;
        struct ha_wire_items_begin items_begin;
        struct ha_wire_items_begin_reply items_begin_reply;
        struct ha_wire_judge_replies judge_replies;
        struct ha_wire_judge_outcomes judge_outcomes;
        struct ha_wire_judge_ack judge_ack;
        struct ha_wire_artifact_open artifact_open;
        struct ha_wire_artifact_chunk artifact_chunk;
        struct ha_wire_artifact_state artifact_state;
        struct ha_wire_artifact_read artifact_read;
        struct ha_wire_artifact_data artifact_data;
        struct ha_wire_submit submit;
        struct ha_wire_submit_reply submit_reply;
        struct ha_wire_list_sweeps list_sweeps;
        struct ha_wire_sweep_list sweep_list;
        struct ha_wire_status_request status_request;
        struct ha_wire_status_reply status_reply;
        struct ha_wire_answers_request answers_request;
        struct ha_wire_answers_reply answers_reply;
        struct ha_wire_log_request log_request;
        struct ha_wire_log_reply log_reply;
        struct ha_wire_change change;
        struct ha_wire_change_reply change_reply;
        struct ha_wire_workers_request workers_request;
        struct ha_wire_workers_reply workers_reply;
        struct ha_wire_metrics_request metrics_request;
        struct ha_wire_metrics_reply metrics_reply;
        struct ha_wire_norms_request norms_request;
        struct ha_wire_norms_reply norms_reply;
        struct ha_wire_backup backup;
        struct ha_wire_backup_reply backup_reply;
        struct ha_wire_gc gc;
        struct ha_wire_gc_reply gc_reply;
        struct ha_wire_health_request health_request;
        struct ha_wire_health_reply health_reply;
    } body;
};
struct ha_wire_limits {
    size_t frame_bytes;  /* longest frame that is looked at */
    size_t memory_bytes; /* most memory that one decoded message may take */
};

/* Frames up to 8 MiB, 64 MiB decoded. */
extern const struct ha_wire_limits ha_wire_default_limits;

/* Append the encoded message to buffer.  Nothing of message is kept.
 * Returns 0, -EINVAL (a field breaks the rules above; the text names it),
 * -EMSGSIZE (the buffer's limit) or -ENOMEM. */
int ha_wire_encode(const struct ha_wire_message *message, struct ha_buffer *buffer,
                   struct ha_error *err);

/* Decode one frame.  The message and all it points to are one piece of memory
 * that ha_wire_message_destroy ends; nothing of bytes is kept.
 * Returns 0, -EBADMSG (not a message, or a field breaks the rules; the text
 * names it), -EMSGSIZE (over a limit) or -ENOMEM. */
int ha_wire_decode(const void *bytes, size_t size, const struct ha_wire_limits *limits,
                   struct ha_wire_message **ret_message, struct ha_error *err);

void ha_wire_message_destroy(struct ha_wire_message *message);

/* A message of its own with the same content, made by way of the wire: so it can
 * be sent.  ret_bytes (may be NULL): its size there.  Errors as of encode. */
int ha_wire_copy(const struct ha_wire_message *message, struct ha_wire_message **ret_copy,
                 size_t *ret_bytes, struct ha_error *err);

/* The request id of a frame that did not decode, so that it can be answered;
 * 0 when it cannot be found. */
uint64_t ha_wire_peek_request_id(const void *bytes, size_t size);

/* "Heartbeat", or "unknown". */
const char *ha_wire_body_name(enum ha_wire_body kind);

#endif
