/* holdings.h - the models that this worker has, and how long a next job of each would load it
 *
 * Known are those of the jobs since the start, the last ones first.  How much of their weights the
 * page cache has is sampled now and then, by a thread, as a disk may hang: a few bytes at places
 * that are spread evenly are asked for without waiting (RWF_NOWAIT), so nothing is read for it.
 * Speeds are those of worker.toml until a GPU was loaded from there. */
#ifndef HA_WORKER_DAEMON_HOLDINGS_H
#define HA_WORKER_DAEMON_HOLDINGS_H

#include <stdbool.h>
#include <stdint.h>

struct contract_model;
struct ha_error;
struct ha_wire_heartbeat;
struct holdings;

enum { HOLDINGS_MOST = 8 }; /* as a coordinator's plan looks at */

/* Bytes per second. */
struct holding_speeds {
    double disk, cache;
};

/* Until so many bytes are there, of which the cache has `cached` (below 0: not known, as none). */
int64_t holding_load_ms(const struct holding_speeds *speeds, int64_t bytes, int64_t cached);

/* So many were loaded in so many seconds, `cached` of them from the cache, as sampled before: a
 * speed is learned where nearly all came from one of the two. */
void holding_learn(struct holding_speeds *speeds, int64_t bytes, int64_t cached, double seconds);

/* How much of the weights of a folder (*.safetensors) the page cache has, by samples; -1: it cannot
 * be asked.  ret_bytes: of all. */
int64_t holding_sample(const char *folder, int64_t *ret_bytes);

int holdings_create(const struct holding_speeds *speeds, struct holdings **ret_holdings,
                    struct ha_error *err);
void holdings_destroy(struct holdings *holdings); /* NULL is legal */

/* A job's model was found at path. */
void holdings_add(struct holdings *holdings, const char *path, const char *digest);

/* An attempt has loaded it ("model" of worker/contract.h). */
void holdings_loaded(struct holdings *holdings, const char *path,
                     const struct contract_model *model);

/* Fill in models; they belong to holdings, until the next call.  is_loaded: does a process keep the
 * model for the next job of it? */
void holdings_tell(struct holdings *holdings,
                   bool (*is_loaded)(void *context, const char *path, const char *digest),
                   void *context, struct ha_wire_heartbeat *beat);

#endif
