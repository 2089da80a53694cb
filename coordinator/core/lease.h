/* lease.h - who is alive, whose report counts
 *
 * Times are boot-time milliseconds that the caller passes in.  A worker that is
 * silent is "late" after late_ms (it gets no new work) and "lost" after lost_ms
 * and at least HA_LEASE_MISSED heartbeats: unknown counts as alive until then.
 * After a start, and after any turn longer than one heartbeat, the coordinator
 * itself may be the one who did not listen: every lease gets a full new period
 * (ha_lease_renew). */
#ifndef HA_COORDINATOR_CORE_LEASE_H
#define HA_COORDINATOR_CORE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

enum { HA_LEASE_MISSED = 3 };

/* The fencing token of an attempt.  Compared for equality only. */
struct ha_epoch {
    int64_t generation;
    int64_t number;
};

bool ha_epoch_equal(struct ha_epoch a, struct ha_epoch b);

struct ha_lease_rules {
    int64_t heartbeat_ms, late_ms, lost_ms;
};

enum ha_liveness { HA_ALIVE, HA_LATE, HA_LOST };

const char *ha_liveness_name(enum ha_liveness liveness);

/* heard_ms: when the peer was last heard, or its lease was last renewed. */
enum ha_liveness ha_lease_liveness(const struct ha_lease_rules *rules, int64_t heard_ms,
                                   int64_t now_ms);

/* From heartbeat to heartbeat of a worker that has nothing to do: as long as two fit into late_ms
 * with a fifth of a heartbeat to spare, and at least heartbeat_ms. */
int64_t ha_lease_rest_ms(const struct ha_lease_rules *rules);

/* True when a turn of the loop that began at turn_ms, after one that ended at
 * before_ms, was so long that silence proves nothing. */
bool ha_lease_renew(const struct ha_lease_rules *rules, int64_t before_ms, int64_t turn_ms);

/* A program that says hello under a name that somebody may hold. */
struct ha_lease_holder {
    const char *machine, *instance;
    enum ha_liveness liveness;
};

enum ha_hello_verdict {
    HA_HELLO_NEW,    /* nobody holds the name */
    HA_HELLO_SAME,   /* the same process again: its leases go on */
    HA_HELLO_VOIDS,  /* a new process in the place of the old one: the old leases are void */
    HA_HELLO_REFUSED /* another machine's program holds the name and still beats */
};

/* holder NULL: the name is new. */
enum ha_hello_verdict ha_lease_hello(const struct ha_lease_holder *holder, const char *machine,
                                     const char *instance);

#endif
