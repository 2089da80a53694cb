/* places.h - what the worker's GPUs make of its offer: devices joined to settings and to the wire
 *
 * Without GPUs that count (no CUDA backend and no `devices` in worker.toml, or no driver's library)
 * places_devices is NULL and slots alone decide.
 *
 * A driver that hangs does not hold the worker up.  Until it answers, the management library's
 * thread and then a process that is started every driver_answer to multiply on the device, the GPUs
 * are told as set aside:
 *
 *   hung --both have answered--> as if the worker had begun now; the daemon tells it (places_news)
 *
 * Meanwhile the worker has no place (places_wait), or, with backend = "auto" and without_driver =
 * "cpu", computes on the CPU (places_on_cpu); attempts that began there go on there. */
#ifndef HA_WORKER_DAEMON_PLACES_H
#define HA_WORKER_DAEMON_PLACES_H

#include <stdbool.h>
#include <stdint.h>

struct daemon_options;
struct ha_devices;
struct ha_error;
struct ha_loop;
struct ha_wire_heartbeat;
struct ha_wire_heartbeat_reply;
struct ha_worker_config;
struct places;

/* work_dir exists; config and options are borrowed until destroy; changed: devices may have become
 * free. */
int places_create(struct ha_loop *loop, const struct ha_worker_config *config,
                  const struct daemon_options *options, void (*changed)(void *context),
                  void *context, struct places **ret_places, struct ha_error *err);
void places_destroy(struct places *places); /* NULL is legal; after all attempts */

/* Attempts compute on the CPU because the driver hung at the start. */
bool places_on_cpu(const struct places *places);

/* None may begin: the driver has not answered yet. */
bool places_wait(const struct places *places);

/* True once when the driver has answered after all: what follows here is other than it was. */
bool places_news(struct places *places);

/* SIGCHLD came: look whether it was for the process that asks the driver. */
void places_check(struct places *places);

/* What attempts compute on: the description, and the setting that they are given. */
const char *places_backend(const struct places *places);
const char *places_setting(const struct places *places);

/* NULL: no attempt has any. */
struct ha_devices *places_devices(const struct places *places);

/* "NAME=value" for the environment of attempts (orphan.h). */
const char *places_mark(const struct places *places);

/* What hello says of GPUs: of one attempt, and the memory of each; 0: not known. */
uint32_t places_gpus(const struct places *places);
int64_t places_gpu_memory_bytes(const struct places *places);

/* Attempts on the CPU share the machine's memory.  What a GPU has, its attempts find out: 0. */
int64_t places_attempt_memory(const struct places *places);

/* Fill in devices and places; they belong to places, until the next call. */
void places_tell(struct places *places, struct ha_wire_heartbeat *beat);

/* An undraining since the last reply means that the devices are well. */
void places_take_reply(struct places *places, const struct ha_wire_heartbeat_reply *reply,
                       int64_t now_ms);

#endif
