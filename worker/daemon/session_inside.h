/* session_inside.h - what the files of the session share
 *
 * session.c has the connection, time and what the coordinator says;
 * session_attempt.c the life of an attempt, session_gang.c what its ranks say of a gang. */
#ifndef HA_WORKER_DAEMON_SESSION_INSIDE_H
#define HA_WORKER_DAEMON_SESSION_INSIDE_H

#include "worker/daemon/reports.h"
#include "worker/daemon/session.h"

enum {
    SESSION_REMEMBERED = 256, /* finished attempts */
    SESSION_RESEND_BEATS = 2  /* heartbeats until a report is sent again */
};

enum attempt_state { WAITING, RUNNING, ENDED };

struct attempt {
    struct attempt *next;
    struct attempt_id id;
    enum attempt_state state;
    uint64_t since;                /* heartbeats with at least this request id list it */
    struct ha_wire_message *grant; /* until it is started */
    bool stopping;                 /* the stop effect was called */
    int64_t time_limit_ms;         /* 0: none */
    int64_t started_ms;
    bool limited;   /* it is stopped for its time limit */
    bool over;      /* its epoch is: no further reports */
    bool recovered; /* from an earlier process */
    bool asks;      /* of a recovered one: which report comes next is not known yet */
    bool starved;   /* it failed because memory ran out */
    bool cut_short; /* of a recovered one: it died with its daemon */
    char phase[32];
    struct attempt_progress progress; /* of the phase */
    int64_t progress_ms;              /* when the last one was seen */
    struct reports reports;
    int64_t sent_ms;         /* of the report on its way */
    bool blocked;            /* that report waits for a file to be uploaded again */
    uint64_t report_request; /* id of its last sending */
    bool rejected;           /* the coordinator found a report wrong; only the end is left to say */
    char *stop_reason;       /* why it is being stopped; NULL: nobody asked */
    char *failure;           /* why it fails, whatever its process says */
    char *end_reason;        /* of an ended one, until the end is queued */
    enum attempt_outcome outcome;
    int32_t exit_code;
    bool end_queued;
    int64_t log_number;       /* of its log among its artifacts; -1 */
    struct ha_wire_gang gang; /* no parts: none */
    uint32_t *gang_ready;     /* ranks of ours that are prepared */
    uint32_t gang_ready_count;
    char *gang_id;     /* rank 0's */
    bool gang_gone;    /* all are ready */
    bool gang_aborted; /* it was told to give up */
    bool gang_settled; /* its end may be told */
    bool gang_followed;
    struct ha_wire_rank_count *gang_counts;
    int64_t gang_n_counts;
    char *gang_log_path, *gang_log_tail; /* of the rank that failed; NULL: none */
};

struct finished {
    struct attempt_id id;
    uint64_t next_sequence;
};

struct session {
    struct session_options options; /* texts owned */
    struct session_effects effects;
    void *context;
    bool known;
    bool draining;
    uint64_t next_request;
    uint64_t hello_request, heartbeat_request; /* ids of the last ones */
    int64_t next_beat_ms;                      /* hello or heartbeat */
    int64_t rest_ms; /* between heartbeats while there is no attempt; 0: heartbeat_ms */
    int unanswered;
    char *last_note; /* of an Error, to say the same only once */
    struct attempt *attempts, **last;
    struct finished finished[SESSION_REMEMBERED];
    int64_t n_finished; /* ever */
};

void session_note(struct session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Send as a new request; returns its id. */
uint64_t session_send(struct session *session, struct ha_wire_message *message);

/* Send the report that may go now, if any. */
void session_send_reports(struct session *session, struct attempt *attempt, int64_t now_ms);

/* ---- session_attempt.c ----------------------------------------------------------------- */

struct attempt *session_find(const struct session *session, const struct attempt_id *id);
const struct finished *session_find_finished(const struct session *session,
                                             const struct attempt_id *id);
int64_t session_count(const struct session *session, enum attempt_state state);

/* Take a grant that is not known yet. */
void session_add_attempt(struct session *session, const struct attempt_id *id,
                         const struct ha_wire_message *grant, int64_t now_ms);

/* Stop an attempt that goes on being reported; one that was not started ends. */
void session_stop(struct session *session, struct attempt *attempt, const char *reason,
                  int64_t now_ms);

/* An attempt cannot go on, for a reason of our own. */
void session_fail(struct session *session, struct attempt *attempt, const char *reason,
                  int64_t now_ms);

/* The coordinator no longer wants to hear of this attempt.  It may be gone when
 * this returns. */
void session_end_epoch(struct session *session, struct attempt *attempt, const char *reason);

/* Queue the end once every file is uploaded, and send what may go. */
void session_finish(struct session *session, struct attempt *attempt, int64_t now_ms);

/* Remove an attempt about which nothing is left to say. */
void session_forget(struct session *session, struct attempt *attempt);

void session_free_attempt(struct attempt *attempt);

const char *session_outcome_name(enum attempt_outcome outcome);

/* Of one that ended: an AttemptEnd's. */
const char *session_cause(const struct attempt *attempt);

/* ---- session_gang.c -------------------------------------------------------------------- */

/* Room for the ranks of a grant: 0, or -1 without memory. */
int session_gang_begin(struct attempt *attempt, const struct ha_wire_gang *gang);
void session_gang_clear(struct attempt *attempt);

/* Keep the log of the rank that failed; and what of it is to be told. */
void session_gang_keep_log(struct attempt *attempt, const struct ha_wire_rank_log *log);
struct ha_wire_rank_log session_gang_log(const struct attempt *attempt);

/* Tell how far its ranks are, if anybody waits to hear it. */
void session_gang_send(struct session *session, const struct attempt *attempt);

/* Are our ranks ready, and others not?  Then nothing stalls here. */
bool session_gang_waits(const struct attempt *attempt);

/* Is its end not (yet) to be reported from here? */
bool session_gang_holds_end(const struct attempt *attempt);

void session_gang_take_order(struct session *session, const struct ha_wire_gang_order *order,
                             int64_t now_ms);

/* Replace *text by a copy; without memory the older text stays. */
void session_set_text(char **text, const char *value);

#endif
