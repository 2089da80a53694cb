/* session_inside.h - what the files of the session share
 *
 * session.c has the connection, time and requests; session_items.c leads items
 * to their calls; session_delivery.c leads replies to the coordinator. */
#ifndef HA_JUDGE_WORKER_SESSION_INSIDE_H
#define HA_JUDGE_WORKER_SESSION_INSIDE_H

#include "judge-worker/lane.h"
#include "judge-worker/outcome.h"
#include "judge-worker/record.h"
#include "judge-worker/request.h"
#include "judge-worker/session.h"

/* The requests of which one of each kind may be unanswered. */
enum request_kind { ASK_ITEMS, ASK_BEGIN, ASK_REPLIES, ASK_OUTCOMES, ASKS };

struct ask {
    uint64_t request_id; /* 0: none is unanswered */
    int64_t sent_ms;
    int64_t not_before_ms; /* after an error */
};

enum item_state { QUEUED, BEGINNING, SENDING };

struct item {
    struct item *next;
    struct ha_judge_session *session;
    enum item_state state;
    uint64_t id, call;
    struct ha_wire_epoch epoch;
    struct ha_judge *judge;
    char *prompt, *answer, *fault;
    int64_t reasks;
    bool flagged;
    bool given_up; /* it is not sent: nobody is there */
    struct ha_judge_request request;
    int64_t tokens; /* taken from the lane's bucket */
};

enum delivery_state { NEW, KEPT, REPLYING, READ, REPORTING };

struct delivery {
    struct delivery *next;
    enum delivery_state state;
    bool kept; /* in the spool */
    struct ha_judge_record record;
    bool read; /* outcome is there */
    struct ha_judge_outcome outcome;
    int64_t wait_ms; /* until its item should be sent again */
    double cost;
    struct ha_judge_lane *lane; /* NULL: of an earlier process, or not sent by us */
    bool given_up;              /* it was not sent: nobody is there */
    int64_t tokens;             /* taken from the lane's bucket */
    int64_t retry_after_ms;
};

struct ha_judge_session {
    struct ha_judge_session_options options;
    struct ha_judge_effects effects;
    void *context;

    bool known, draining;
    uint64_t next_request;
    uint64_t hello_request, beat_request;
    int64_t heartbeat_ms, next_beat_ms, heard_ms;
    int64_t next_poll_ms, poll_wait_ms; /* for items */
    int64_t next_send_ms;               /* when a limit lets the next item go */
    bool grant_lost;                    /* a request for items was not answered */
    int64_t unkept_until_ms;            /* the spool could not be written: nothing is sent before */
    char last_note[256];

    struct ask asks[ASKS];
    struct ha_judge_table table;
    struct item *items, **last_item; /* in order of lease */
    int64_t n_items, n_sending;
    struct delivery *deliveries, **last_delivery;
    int64_t n_deliveries;
};

/* ---- session.c ------------------------------------------------------------------------- */

void session_note(struct ha_judge_session *session, enum ha_log_level level, const char *format,
                  ...) __attribute__((format(printf, 3, 4)));

/* Send as a new request; returns its id. */
uint64_t session_send(struct ha_judge_session *session, struct ha_wire_message *message);

/* May a request of this kind go now? */
bool session_may_ask(const struct ha_judge_session *session, enum request_kind kind,
                     int64_t now_ms);
void session_ask(struct ha_judge_session *session, enum request_kind kind,
                 struct ha_wire_message *message, int64_t now_ms);

/* Send what may go. */
void session_pump(struct ha_judge_session *session, int64_t now_ms);

/* ---- session_items.c ---------------------------------------------------------------------- */

void items_take_grant(struct ha_judge_session *session, const struct ha_wire_items_grant *grant,
                      int64_t now_ms);
void items_request(struct ha_judge_session *session, int64_t now_ms);
void items_begin(struct ha_judge_session *session, int64_t now_ms);
void items_begun(struct ha_judge_session *session, const struct ha_wire_items_begin_reply *reply,
                 int64_t now_ms);

/* Items that wait for the answer of a begin request wait anew. */
void items_begin_lost(struct ha_judge_session *session);

/* Give back what is not begun. */
void items_release(struct ha_judge_session *session);
void items_remove(struct ha_judge_session *session, struct item *item);

/* ---- session_delivery.c --------------------------------------------------------------------- */

/* A new one at the end of the list; its record is the caller's to fill.  NULL
 * when memory is short. */
struct delivery *delivery_add(struct ha_judge_session *session);

/* What stands about an item in a record; -ENOMEM. */
int delivery_describe(struct delivery *delivery, const struct item *item, uint64_t call);

/* An outcome without a reply: the item goes back. */
void delivery_release(struct ha_judge_session *session, const struct item *item, uint64_t call,
                      const char *why, int64_t wait_ms);

/* A reply that is stored at the coordinator but was never read. */
void delivery_read_stored(struct ha_judge_session *session, const struct item *item, uint64_t call,
                          const struct ha_wire_bytes *raw, int64_t now_ms);
void delivery_send(struct ha_judge_session *session, int64_t now_ms);
void delivery_acknowledged(struct ha_judge_session *session, enum request_kind kind,
                           const struct ha_wire_judge_ack *ack, int64_t now_ms);

/* What was on its way when a request failed is sent again. */
void delivery_lost(struct ha_judge_session *session, enum request_kind kind);
void delivery_clear(struct ha_judge_session *session);

#endif
