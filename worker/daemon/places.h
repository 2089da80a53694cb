/* places.h - what the worker's GPUs make of its offer: devices joined to settings and to the wire
 *
 * Without GPUs that count (no CUDA backend and no `devices` in worker.toml, or no driver's library)
 * places_devices is NULL and slots alone decide. */
#ifndef HA_WORKER_DAEMON_PLACES_H
#define HA_WORKER_DAEMON_PLACES_H

#include <stdint.h>

struct ha_devices;
struct ha_error;
struct ha_loop;
struct ha_wire_heartbeat;
struct ha_wire_heartbeat_reply;
struct ha_worker_config;
struct places;

/* backend: its one-line description; work_dir exists; changed: devices may have become free. */
int places_create(struct ha_loop *loop, const struct ha_worker_config *config, const char *backend,
                  void (*changed)(void *context), void *context, struct places **ret_places,
                  struct ha_error *err);
void places_destroy(struct places *places); /* NULL is legal; after all attempts */

struct ha_devices *places_devices(const struct places *places);

/* "NAME=value" for the environment of attempts (orphan.h). */
const char *places_mark(const struct places *places);

/* What hello says of GPUs: of one attempt, and the memory of each; 0: not known. */
uint32_t places_gpus(const struct places *places);
int64_t places_gpu_memory_bytes(const struct places *places);

/* Fill in devices and places; they belong to places, until the next call. */
void places_tell(struct places *places, struct ha_wire_heartbeat *beat);

/* An undraining since the last reply means that the devices are well. */
void places_take_reply(struct places *places, const struct ha_wire_heartbeat_reply *reply,
                       int64_t now_ms);

#endif
