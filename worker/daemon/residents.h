/* residents.h - attempt processes that have done their job and keep its model for the next one
 *
 * They hold their GPU as an attempt does, so that it is offered to nobody else, and give it back
 * when they have ended.  Which goes when is resident_policy.h's. */
#ifndef HA_WORKER_DAEMON_RESIDENTS_H
#define HA_WORKER_DAEMON_RESIDENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/daemon/resident_policy.h"

struct ha_devices;
struct ha_error;
struct ha_loop;
struct residents;
struct runner;

struct residents_options {
    struct ha_loop *loop;
    struct resident_rules rules;
    struct ha_devices *devices;     /* that attempts get; NULL: none count */
    void (*changed)(void *context); /* one has ended: there may be room */
    void *context;
};

/* What an attempt's process has. */
struct resident_place {
    uint64_t claim; /* of GPUs (ha_devices_take); 0: none */
    char *uuids;    /* of these, to be freed; or NULL */
};

int residents_create(const struct residents_options *options, struct residents **ret_residents,
                     struct ha_error *err);

/* Kills them. NULL is legal. */
void residents_destroy(struct residents *residents);

/* What processes are told apart by: the model's folder and what its files are.  The caller's;
 * NULL: no memory. */
char *resident_key(const char *path, const char *digest);

/* Does one that waits keep this? */
bool residents_have(const struct residents *residents, const char *key);

/* Are processes kept at all? */
bool residents_keeps(const struct residents *residents);

/* Keep a process that waits, with its place; takes both.  It ends at once where none is kept, or
 * its GPUs are not well. */
void residents_put(struct residents *residents, struct runner *runner, const char *key,
                   uint64_t job, struct resident_place *place);

/* One that keeps this: the caller's, and its place.  NULL: there is none. */
struct runner *residents_take(struct residents *residents, const char *key,
                              struct resident_place *ret_place);

/* May a new process begin?  True: it counts as an attempt until residents_leave.  False: some that
 * wait are ended for its sake; ask again when `changed` is called. */
bool residents_admit(struct residents *residents, int64_t ranks);
void residents_leave(struct residents *residents);

/* GPUs are short: end one that holds some, all for a gang.  False: none does. */
bool residents_yield(struct residents *residents, int64_t ranks);

/* Attempts get GPUs from now on, or none (NULL) and share the memory of the machine.  Processes
 * that have their place otherwise end with their job. */
void residents_set_devices(struct residents *residents, struct ha_devices *devices);
struct ha_devices *residents_devices(const struct residents *residents);

/* SIGCHLD came: look whether one of them has ended. */
void residents_check(struct residents *residents);

/* GPUs were looked at: those that are not well are given back. */
void residents_look(struct residents *residents);

/* The worker is leaving: all end, and none is kept any more. */
void residents_end(struct residents *residents);

#endif
