/* journal.h - what an attempt has told and the coordinator has not taken yet, on the disk
 *
 * A file in the attempt's folder, so that results outlive the daemon: written before a report that
 * has them is sent, shortened when they are acknowledged, read by the next daemon.  Records are
 * numbered from 0 in the order in which they were appended.  Of a record that was taken already
 * nothing is lost when it is told again.
 *
 *   record: frame bytes, path bytes (4 each, little-endian), the first 8 bytes of the SHA-256 over
 *           those two and what follows; the frame: a report of one event as on the wire (proto);
 *           the path of an artifact below the folder, or nothing
 *
 * The file ends with the first record that is not whole.  After an error it is removed and the
 * journal keeps nothing more: half of what happened would pass for all of it. */
#ifndef HA_WORKER_DAEMON_JOURNAL_H
#define HA_WORKER_DAEMON_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_wire_attempt_event;
struct journal;

#define JOURNAL_FILE "journal"

enum { JOURNAL_BYTES = 64 << 20 }; /* undelivered, before it is given up */

/* One for a folder that has none yet; the file is made with the first record. */
int journal_create(const char *folder, struct journal **ret_journal, struct ha_error *err);

/* Called for each record; belongs to the journal and is valid during the call.  path: NULL for
 * what is not an artifact. */
typedef int (*journal_fn)(void *context, const struct ha_wire_attempt_event *event,
                          const char *path);

/* One that an earlier daemon left, and what is in it.  -ENOENT: none. */
int journal_open(const char *folder, journal_fn fn, void *context, struct journal **ret_journal,
                 struct ha_error *err);

/* Leaves the file. */
void journal_destroy(struct journal *journal);

/* Path NULL: not an artifact.  It is on the disk after journal_sync. */
int journal_append(struct journal *journal, const struct ha_wire_attempt_event *event,
                   const char *path, struct ha_error *err);

int journal_sync(struct journal *journal, struct ha_error *err);

/* Records before this number are delivered. */
int journal_keep_from(struct journal *journal, int64_t number, struct ha_error *err);

/* Nothing in it is wanted any more. */
void journal_remove(struct journal *journal);

#endif
