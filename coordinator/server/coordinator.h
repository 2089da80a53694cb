/* coordinator.h - the coordinator without sockets
 *
 * Decoded messages go in, encoded ones come out through a hook after the turn
 * is durable; times are passed in.  So the whole of it runs in a test.
 *
 * A turn: any number of ha_coordinator_message and ha_coordinator_artifact, then
 * one ha_coordinator_turn_end, which works a slice of what is too long for one
 * turn, plans, commits, and sends.  A turn without changes costs no sync. */
#ifndef HA_COORDINATOR_SERVER_COORDINATOR_H
#define HA_COORDINATOR_SERVER_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/curve.h"
#include "coordinator/core/lease.h"

struct ha_coordinator;
struct ha_error;
struct ha_store;
struct ha_wire_message;

struct ha_coordinator_hooks {
    /* Send bytes to a peer.  Returns 0 or a negative errno (-EHOSTUNREACH: the peer is gone). */
    int (*send)(void *context, uint64_t peer, const void *data, size_t size);
    /* The row of an artifact is durable. */
    void (*artifact_stored)(void *context, const char *sha256);
    /* It could not be stored; may be NULL. */
    void (*artifact_not_stored)(void *context, const char *sha256, const struct ha_error *why);
    /* Nothing needs this artifact any more; its row is gone. */
    void (*artifact_orphan)(void *context, const char *sha256);
    /* A turn could not be stored because the disk is full. */
    void (*disk_full)(void *context);
    /* A copy of the database is written: sync and hash it, give it the name of its hash, then call
     * ha_coordinator_snapshot. */
    void (*snapshot_copied)(void *context, int64_t number, const char *path);
    /* Nobody needs that file any more. */
    void (*snapshot_end)(void *context, const char *sha256);
    /* The role that the key of this name has in the allow-list; NULL: keys are never revoked. */
    enum ha_net_role (*key_role)(void *context, const char *name);
    void *context;
};

enum { HA_COORDINATOR_REST_MS = 100 }; /* nobody has asked for so long: that is a rest */

struct ha_coordinator_options {
    struct ha_lease_rules rules;
    const char *version;
    const char *files_endpoint; /* told to those who may use it */
    int64_t slice_us;           /* of long work per turn; 0: 2,000 */
    const char
        *artifacts; /* their folder, which has a folder "snapshot"; NULL: no backups, no gc */
    const char *database, *keys, *libraries; /* for people; NULL: not known */
    int64_t gc_after_ms;     /* gc leaves younger things, unless it is told another age */
    int64_t max_sweep_bytes; /* of a sweep's artifacts and rows; 0: any */
    int64_t max_grids, max_grids_per_client; /* submitted ones that are read or compared over
                                                several turns at a time; 0: any */
    int64_t preempt_ms; /* that an attempt runs before one of higher priority may take its
                           place; 0: never */
    struct {
        int64_t ready_ms; /* from the lease until all ranks of a gang must be ready; 0: no limit */
        int64_t abort_ms; /* that the others of a gang have to end when one has failed; 0: 60 s */
    } gang;
    int64_t suspect_jobs; /* different ones that fail on a worker in a row, and not elsewhere,
                             before it is set aside; 0: it never is */
};

/* The store is borrowed.  boot_ms: now; every lease that the store holds begins
 * a full period then. */
int ha_coordinator_create(const struct ha_coordinator_options *options,
                          const struct ha_coordinator_hooks *hooks, struct ha_store *store,
                          int64_t boot_ms, int64_t wall_ms, struct ha_coordinator **ret_coordinator,
                          struct ha_error *err);
void ha_coordinator_destroy(struct ha_coordinator *c);

/* Time of the turn that begins: before the first message of every turn. */
void ha_coordinator_turn_begin(struct ha_coordinator *c, int64_t boot_ms, int64_t wall_ms);

/* The allow-list may be another one: workers whose key is gone lose what they hold in this turn. */
void ha_coordinator_keys_changed(struct ha_coordinator *c);

struct ha_origin {
    uint64_t peer;
    const char *key;       /* name in the allow-list, or "local" */
    enum ha_net_role role; /* of the key; ADMIN for "local" */
};

void ha_coordinator_message(struct ha_coordinator *c, const struct ha_origin *origin,
                            const struct ha_wire_message *message);

/* A frame that could not be decoded: answered with an error. */
void ha_coordinator_garbage(struct ha_coordinator *c, const struct ha_origin *origin,
                            uint64_t request_id, const struct ha_error *why);

/* A send found the peer gone. */
void ha_coordinator_peer_gone(struct ha_coordinator *c, uint64_t peer);

/* A file of this hash is complete and synced: make its row. */
void ha_coordinator_artifact(struct ha_coordinator *c, const char *sha256, int64_t size);

/* What became of a copy of the database (hooks.snapshot_copied); why NULL: sha256 names it. */
void ha_coordinator_snapshot(struct ha_coordinator *c, int64_t number, const char *sha256,
                             int64_t size, const struct ha_error *why);

/* Messages that the sockets refused so far. */
void ha_coordinator_set_refused(struct ha_coordinator *c, int64_t count);

/* why NULL: the disk has room again. */
void ha_coordinator_set_disk_low(struct ha_coordinator *c, const char *why);

/* input_pending: there was more to read, so silence proves nothing yet.
 * Returns 0; a negative errno only when the process has to end (a failed sync,
 * a damaged database). */
int ha_coordinator_turn_end(struct ha_coordinator *c, bool input_pending, struct ha_error *err);

/* How long the next turn may be away, in ms; 0 while slices wait. */
int64_t ha_coordinator_idle_ms(const struct ha_coordinator *c);

/* Nobody has asked anything for a while, and nothing is to be done. */
bool ha_coordinator_at_rest(const struct ha_coordinator *c);

/* How long input may lie before it is read, in ms: not 0 only while nobody works, nothing waits and
 * many workers tell of nothing but that they live.  One turn then reads what several would have. */
int64_t ha_coordinator_rest_ms(const struct ha_coordinator *c);

#endif
