/* store.h - the coordinator's database
 *
 * Exactly one connection exists (locking_mode=EXCLUSIVE, then WAL), owned by one
 * thread.  Durability: synchronous=FULL; a change is durable when
 * ha_store_commit has returned 0, and only then may anybody be told of it.
 *
 * A turn is one transaction, a request inside it one savepoint:
 *
 *   ha_store_begin
 *     ha_store_mark .. changes .. ha_store_keep or ha_store_undo     per request
 *   ha_store_commit or ha_store_rollback
 *
 * A constraint that fails is one request's error (undo).  A full disk, an I/O
 * error or no memory breaks the whole turn: ha_store_broken is true, the turn
 * must be rolled back and everybody in it told "not stored".  After a failed
 * sync ha_store_fatal is true and the process must end.
 *
 * The functions on rows are in one header per aggregate; they may be called
 * only inside a turn, except those that only read.  Texts that a row holds are
 * valid during the call that hands the row out. */
#ifndef HA_COORDINATOR_STORE_STORE_H
#define HA_COORDINATOR_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_store;

enum { HA_STORE_APPLICATION_ID = 0x4841636f }; /* "HAco" */

/* Open or make the database, bring its schema up to date (one of an earlier schema N stays as a
 * copy, PATH.schemaN).  Errors name the path: -EBADMSG (another program's file, or damaged),
 * -EPROTONOSUPPORT (made by a newer version), -EBUSY (another process has it), -ENOSPC, -EACCES. */
int ha_store_open(const char *path, struct ha_store **ret_store, struct ha_error *err);
void ha_store_close(struct ha_store *store);

/* Read every page and say whether the file is sound. */
int ha_store_check(struct ha_store *store, struct ha_error *err);

/* Of the epochs that this store grants. */
int64_t ha_store_generation(const struct ha_store *store);

int ha_store_begin(struct ha_store *store, struct ha_error *err);
int ha_store_commit(struct ha_store *store, struct ha_error *err);
void ha_store_rollback(struct ha_store *store);

int ha_store_mark(struct ha_store *store, struct ha_error *err);
int ha_store_keep(struct ha_store *store, struct ha_error *err);
void ha_store_undo(struct ha_store *store);

/* Rises with every row that is changed: equal values say that nothing was. */
int64_t ha_store_changes(const struct ha_store *store);

bool ha_store_broken(const struct ha_store *store);
bool ha_store_fatal(const struct ha_store *store);

/* How much time there is between two turns. */
enum ha_leisure {
    HA_LEISURE_NONE, /* input waits */
    HA_LEISURE_TURN, /* nobody waits, and the next may come at once */
    HA_LEISURE_REST  /* nobody has asked for a while */
};

/* Between turns: move the log into the database when it is worth it, which takes as long as the
 * disk does.  The longer the log the less a page of it costs, as it holds the same ones again and
 * again: so a short one is moved at rest only, and one that has grown very long whatever waits. */
int ha_store_tidy(struct ha_store *store, enum ha_leisure leisure, struct ha_error *err);

/* A rest would be used for that. */
bool ha_store_wants_rest(const struct ha_store *store);

/* What that took since the store was opened. */
struct ha_store_tidied {
    int64_t times, pages, all_ns, longest_ns;
};
struct ha_store_tidied ha_store_tidied(const struct ha_store *store);

#endif
