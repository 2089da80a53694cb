/* reports.h - what an attempt has to tell the coordinator, until it is durable
 *
 * A queue of events in the order in which they happened.  Events leave in
 * reports: at most one report is on its way at a time, and it stays the same
 * until it is acknowledged.  An artifact is held back until it is uploaded, the
 * end of a cell or of the attempt until every artifact before it is; metrics
 * and answers pass waiting artifacts, but nothing passes a waiting end. */
#ifndef HA_WORKER_DAEMON_REPORTS_H
#define HA_WORKER_DAEMON_REPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct ha_error;
struct report_entry;

struct reports {
    struct report_entry *first, **last;
    uint64_t sequence; /* of the report on its way, or of the next one */
    bool on_its_way;
    int64_t n_artifacts; /* added so far; numbers them from 0 */
    int64_t n_added;     /* the same for all events */
};

void reports_init(struct reports *reports);
void reports_clear(struct reports *reports);
bool reports_is_empty(const struct reports *reports);

/* Events with lower numbers are durable or dropped. */
int64_t reports_oldest(const struct reports *reports);

/* Add a copy of an event that is not an artifact.  Returns 0, -EINVAL (the event
 * cannot be sent; the text names the field) or -ENOMEM. */
int reports_add(struct reports *reports, const struct ha_wire_attempt_event *event,
                struct ha_error *err);

/* Add a copy of an artifact whose digest and size are not known yet; returns its
 * number in ret_number. */
int reports_add_artifact(struct reports *reports, const struct ha_wire_attempt_artifact *artifact,
                         int64_t *ret_number, struct ha_error *err);

/* The artifact is uploaded.  Returns 0, -ENOENT or -ENOMEM. */
int reports_artifact_ready(struct reports *reports, int64_t number, const char *sha256,
                           int64_t size);

/* Is an artifact not uploaded yet? */
bool reports_artifact_waits(const struct reports *reports);

/* The artifact cannot be uploaded: forget it, and the ends of cells behind it,
 * which rest on it. */
void reports_drop_artifact(struct reports *reports, int64_t number);

/* An artifact with this digest has to be uploaded again: it, and a report that
 * holds it, wait for reports_artifact_ready.  True and its number when there is
 * one. */
bool reports_artifact_missing(struct reports *reports, const char *sha256, int64_t *ret_number);

/* The report to send now: the one on its way again, or a new one.  False when
 * there is nothing that may go.  events (at most max_events, and about
 * max_bytes) point into the queue and are valid until it changes. */
bool reports_next(struct reports *reports, struct ha_wire_attempt_event *events, int64_t max_events,
                  size_t max_bytes, int64_t *ret_n);

/* Everything up to this sequence is durable.  True when that finished the report
 * on its way; ret_ended: it held the end of the attempt. */
bool reports_acknowledge(struct reports *reports, uint64_t sequence, bool *ret_ended);

#endif
