/* device_reader.h - the thread that asks the GPU driver, and the next one where a call never
 * returns
 *
 * Calls of the driver can hang for ever (nvml.h).  A thread that has been in one for stuck_ms is
 * given up, and another one begins anew, so that a driver that works again is seen again.  A thread
 * cannot be ended while it is in the driver: those that were given up stay until their call
 * returns, and are then told and freed.  At most max_lost are there at a time, each given up after
 * twice the time of the one before, so that a driver that never works again costs this many threads
 * and no more.
 *
 * While a thread that was given up is in the library, the driver is not shut for a search anew
 * (NVML counts who has opened it): GPUs that are plugged in meanwhile are seen after its end. */
#ifndef HA_WORKER_DAEMON_DEVICE_READER_H
#define HA_WORKER_DAEMON_DEVICE_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/daemon/nvml.h"

struct ha_device_reader;
struct ha_error;
struct ha_loop;

enum { HA_DEVICE_READERS_LOST = 16 };

struct ha_device_reader_options {
    struct ha_loop *loop;
    int64_t poll_ms;  /* between two readings */
    int64_t anew_ms;  /* between two searches for GPUs that appeared or fell off */
    int64_t stuck_ms; /* of a call that counts as never returning; 0: none does */
    int64_t max_lost; /* threads that are given up at a time; at most HA_DEVICE_READERS_LOST */
    void (*told)(void *context); /* in the loop: there is an answer to take */
    void (*anew)(void *context); /* in the loop: another thread has begun, and counts XIDs from 0 */
    void *context;
};

/* Begins to ask. */
int ha_device_reader_create(const struct ha_device_reader_options *options,
                            struct ha_device_reader **ret_reader, struct ha_error *err);

/* NULL is legal; before the loop's end.  Threads that are stuck in the driver keep what they use:
 * the process is about to end. */
void ha_device_reader_destroy(struct ha_device_reader *reader);

/* Wait for the first answer, for so long.  False: there is none. */
bool ha_device_reader_wait(struct ha_device_reader *reader, int64_t ms);

/* Copy the last answer of the thread that asks: readings has room for HA_DEVICES_LIMIT, *ret_ms is
 * when the asking began.  1; 0: it has not answered yet; -ENOENT and -ENODEV: why it has no
 * devices. */
int ha_device_reader_take(struct ha_device_reader *reader, struct ha_device_reading *readings,
                          int64_t *ret_n, int64_t *ret_ms, struct ha_error *err);

/* The next reading begins now, and not after poll_ms. */
void ha_device_reader_hurry(struct ha_device_reader *reader);

/* Threads that were given up and are still in the driver. */
int64_t ha_device_reader_lost(const struct ha_device_reader *reader);

#endif
