/* session.h - what a judge worker says to its coordinator, and when it asks
 *
 * A pure automaton: events come in by the functions below, effects go out
 * through a table.  It has no clock (now_ms comes with what happens), no socket
 * and no file; daemon.c has.  Effects may be called from inside any function
 * below; they must not call back into the session.
 *
 *   connection:  unknown --hello reply--> known
 *                known   --"hello again", silence--> unknown
 *
 *   item:        queued -> beginning -> sending -> (delivery)
 *   delivery:    new --spool synced--> kept --begun to be reported-->
 *                replying --acknowledged--> read -> reporting --acknowledged--> (gone)
 *
 * queued: leased to us.  beginning: the coordinator is asked whether it may be
 * sent; only its answer permits that.  sending: a call is in flight.  A reply is
 * on our disk before anything else happens with it, at the coordinator before
 * it is read for scores, and in our spool until its outcome is stored too.
 * While the coordinator is away nothing new is sent, and replies wait. */
#ifndef HA_JUDGE_WORKER_SESSION_H
#define HA_JUDGE_WORKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/log.h"
#include "proto/wire.h"

struct ha_error;
struct ha_judge_record;
struct ha_judge_request;
struct ha_judge_response;
struct ha_judge_session;
struct ha_sweep_judge;

struct ha_judge_effects {
    /* Encode and send; it may be lost. */
    void (*send)(void *context, const struct ha_wire_message *message);
    /* Close the connection and open it anew. */
    void (*reconnect)(void *context);
    /* Begin an HTTP call; ha_judge_session_replied with the same handle follows,
     * exactly once and later.  request is valid until then.  Negative, with the
     * reason in err, when it cannot be made: a person has to mend that. */
    int (*call)(void *context, void *handle, const struct ha_sweep_judge *judge,
                const struct ha_judge_request *request, struct ha_error *err);
    /* Keep a record; ha_judge_session_synced follows when it is on disk.  Negative: it is not
     * kept. */
    int (*keep)(void *context, const struct ha_judge_record *record, struct ha_error *err);
    void (*drop)(void *context, uint64_t call);
    /* [0, 1). */
    double (*random)(void *context);
    /* A line for the operator. */
    void (*note)(void *context, enum ha_log_level level, const char *text);
};

struct ha_judge_session_options {
    const char *name, *instance, *machine, *version, *host; /* of Hello */
    int64_t pid;
    int64_t concurrency; /* calls in flight at most, over all judges */
};

/* Texts of options are borrowed.  Sends nothing before ha_judge_session_tick. */
int ha_judge_session_create(const struct ha_judge_session_options *options,
                            const struct ha_judge_effects *effects, void *context, int64_t now_ms,
                            struct ha_judge_session **ret_session, struct ha_error *err);

/* No call may be in flight any more. */
void ha_judge_session_destroy(struct ha_judge_session *session);

/* Do what is due; the next call is due at ha_judge_session_next_ms. */
void ha_judge_session_tick(struct ha_judge_session *session, int64_t now_ms);
int64_t ha_judge_session_next_ms(const struct ha_judge_session *session);

/* A message of the coordinator. */
void ha_judge_session_receive(struct ha_judge_session *session,
                              const struct ha_wire_message *message, int64_t now_ms);

/* A call has ended.  host: that was asked.  The body is copied. */
void ha_judge_session_replied(struct ha_judge_session *session, void *handle,
                              const struct ha_judge_response *response, const char *host,
                              int64_t now_ms);

/* All that was kept is on disk. */
void ha_judge_session_synced(struct ha_judge_session *session, int64_t now_ms);

/* A record that an earlier process left in the spool. */
int ha_judge_session_restore(struct ha_judge_session *session, const struct ha_judge_record *record,
                             struct ha_error *err);

/* Take and send nothing new; give back what is not sent. */
void ha_judge_session_drain(struct ha_judge_session *session, int64_t now_ms);

int64_t ha_judge_session_in_flight(const struct ha_judge_session *session);

/* True when nothing is in flight or waits to be delivered. */
bool ha_judge_session_is_empty(const struct ha_judge_session *session);

#endif
