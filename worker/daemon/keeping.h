/* keeping.h - the models that stay here: processes and files joined to settings and to the wire */
#ifndef HA_WORKER_DAEMON_KEEPING_H
#define HA_WORKER_DAEMON_KEEPING_H

#include <stdbool.h>

#include "worker/daemon/holdings.h"
#include "worker/daemon/residents.h"

struct ha_wire_heartbeat;
struct ha_worker_config;

struct keeping_options {
    struct ha_loop *loop;
    const struct ha_worker_config *config;
    struct ha_devices *devices;     /* that attempts get; NULL: none count */
    void (*changed)(void *context); /* there may be room for an attempt */
    /* Is an attempt with this model at work? */
    bool (*works_with)(void *context, const char *path, const char *digest);
    void *context;
};

struct keeping {
    struct keeping_options options;
    struct residents *residents;
    struct holdings *holdings;
};

/* What was opened stays with keeping where it fails. */
int keeping_open(const struct keeping_options *options, struct keeping *keeping,
                 struct ha_error *err);
void keeping_close(struct keeping *keeping); /* after all attempts; zeroed is legal */

/* What attempts get has changed (residents_set_devices). */
void keeping_set_devices(struct keeping *keeping, struct ha_devices *devices);

/* Fill in models; they belong to keeping, until the next call. */
void keeping_tell(struct keeping *keeping, struct ha_wire_heartbeat *beat);

#endif
