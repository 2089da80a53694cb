/* devices.h - the GPUs of this worker: found, watched, given to attempts
 *
 * A thread finds and reads them (device_reader.h), because the driver can hang; everything else
 * happens in the loop's thread.  What a reading means is device_policy.h's.
 *
 * Devices that appear while the worker runs (a GPU, the instances of one that was split otherwise)
 * are added if the settings take them.  One that goes is not given any more; what runs on it is
 * left alone.  It leaves the list when its GPU is there in other parts, and is aside when its GPU
 * is gone. */
#ifndef HA_WORKER_DAEMON_DEVICES_H
#define HA_WORKER_DAEMON_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf/settings.h"
#include "worker/daemon/device_policy.h"

struct ha_devices;
struct ha_error;
struct ha_loop;

struct ha_devices_options {
    struct ha_loop *loop;
    const char *visible;               /* CUDA_VISIBLE_DEVICES; NULL: all */
    const struct ha_text_list *chosen; /* of those (ha_device_select); empty: all */
    struct ha_device_rules rules;
    int64_t poll_ms;   /* between two readings */
    int64_t anew_ms;   /* between two searches for GPUs that appeared or fell off */
    int64_t answer_ms; /* that ha_devices_create waits for the driver */
    int64_t stuck_ms;  /* of a call of the driver that counts as never returning; 0: none does */
    int64_t max_lost;  /* threads that are stuck so at a time (device_reader.h) */
    const char *mark;  /* of the attempts' processes (orphan.h); outlives the devices */
    void (*changed)(void *context); /* a reading was taken */
    void *context;
};

/* Find them.  Their first readings are there; none is free before the loop ran.  Where the driver
 * does not answer in time there are none until it does (ha_devices_silence).
 * -ENOENT and -ENODEV as ha_nvml_open, also where the settings leave none; -EINVAL: chosen names a
 * device that is not there. */
int ha_devices_create(const struct ha_devices_options *options, struct ha_devices **ret_devices,
                      struct ha_error *err);

/* NULL is legal; before the loop's end. */
void ha_devices_destroy(struct ha_devices *devices);

/* Why the driver has told of no device yet, and since when it is asked; NULL: it has. */
const char *ha_devices_silence(const struct ha_devices *devices, int64_t *ret_since_ms);

/* Threads that are stuck in the driver and were given up. */
int64_t ha_devices_lost(const struct ha_devices *devices);

/* Valid until a call that is not const. */
const struct ha_device *ha_devices_list(const struct ha_devices *devices, int64_t *ret_n);

/* Judge them anew; readings come by themselves. */
void ha_devices_poll(struct ha_devices *devices, int64_t now_ms);

/* Devices that are free or have an attempt. */
int64_t ha_devices_usable(const struct ha_devices *devices);

/* The smallest memory of a device; -1: not known. */
int64_t ha_devices_memory_bytes(const struct ha_devices *devices);

/* Give n free devices to an attempt: their UUIDs as CUDA_VISIBLE_DEVICES takes them, to be freed,
 * and a number for ha_devices_release.  -EAGAIN: there are not so many; err says what is with the
 * others. */
int ha_devices_take(struct ha_devices *devices, int64_t n, int64_t now_ms, uint64_t *ret_claim,
                    char **ret_uuids, struct ha_error *err);

/* All processes of the attempt have ended; see ha_device_end. */
void ha_devices_release(struct ha_devices *devices, uint64_t claim, uint64_t job, bool spoke,
                        bool failed, int64_t now_ms);

/* An attempt came to a good end, and its process keeps the devices for the next one. */
void ha_devices_pass(struct ha_devices *devices, uint64_t claim, uint64_t job, int64_t now_ms);

/* True while nothing speaks against the devices of an attempt. */
bool ha_devices_are_well(const struct ha_devices *devices, uint64_t claim);

/* A check before an attempt found that this one does not compute (ha_device_condemn).  False: as
 * many as may be are set aside already. */
bool ha_devices_condemn(struct ha_devices *devices, const char *uuid, const char *why);

/* The operator says that all are well. */
void ha_devices_accept(struct ha_devices *devices, int64_t now_ms);

#endif
