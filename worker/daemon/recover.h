/* recover.h - what attempts of an earlier daemon told and the coordinator has not taken
 *
 * Their processes are dead.  Each that left a journal becomes a piece of work that has ended, and
 * an attempt of the session, which tells what is in the journal and then forgets it. */
#ifndef HA_WORKER_DAEMON_RECOVER_H
#define HA_WORKER_DAEMON_RECOVER_H

#include <stdint.h>

struct folders;
struct ha_error;
struct session;
struct work;
struct work_options;

/* add takes a piece of work before the session asks for uploads of its files; -ENOMEM.  A journal
 * that cannot be read is left out with a line in the log, and its folder removed. */
int recover_all(struct session *session, struct folders *folders,
                const struct work_options *options, int64_t now_ms,
                int (*add)(void *context, struct work *work), void *context, struct ha_error *err);

#endif
