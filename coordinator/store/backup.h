/* backup.h - copies of the database
 *
 * A copy is made with SQLite's backup API on the one connection there is, some
 * pages between turns: what turns change meanwhile goes into the copy as well, so
 * it is the database as it was at the end of the last step.  A rollback of a turn
 * may make it begin anew; it then takes longer and is no less right. */
#ifndef HA_COORDINATOR_STORE_BACKUP_H
#define HA_COORDINATOR_STORE_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_store;
struct ha_store_copy;

/* Begin a copy into a new file (mode 0600); one that is there is replaced. */
int ha_store_copy_begin(struct ha_store *store, const char *path, struct ha_store_copy **ret_copy,
                        struct ha_error *err);

/* Between turns only: copy pages until end_ns (boot time), at least some.
 * Returns 1 when the copy is complete (closed, but not synced), 0 when there is more. */
int ha_store_copy_step(struct ha_store_copy *copy, int64_t end_ns, struct ha_error *err);

/* Pages so far and in all, as of the last step. */
void ha_store_copy_progress(const struct ha_store_copy *copy, int64_t *ret_done,
                            int64_t *ret_total);

/* Before the store is closed; an incomplete file stays. */
void ha_store_copy_end(struct ha_store_copy *copy);

/* ---- a file that nobody writes -------------------------------------------------- */

/* Open a copy for reading; its schema may be an earlier one, and no log beside
 * the file is looked at.  Errors as of ha_store_open; closed with ha_store_close. */
int ha_store_open_copy(const char *path, struct ha_store **ret_store, struct ha_error *err);

/* Read all of it: every page, every index against its table, every reference of a
 * row to another.  -EBADMSG names what is wrong. */
int ha_store_check_whole(struct ha_store *store, struct ha_error *err);

struct ha_store_facts {
    int64_t schema, generation, created_ms;
    int64_t sweeps, events, last_event_ms; /* events: the newest one's id */
    int64_t artifacts, artifact_bytes;
};

int ha_store_facts(struct ha_store *store, struct ha_store_facts *ret_facts, struct ha_error *err);

/* "3.40.1" */
const char *ha_store_library(void);

/* ---- after a restore --------------------------------------------------------------- */

/* In a turn: epochs of before are over, and no call's number is given twice. */
int ha_store_new_life(struct ha_store *store, struct ha_error *err);

/* Move all of the log into the file, so that the file alone is the database. */
int ha_store_fold(struct ha_store *store, struct ha_error *err);

#endif
