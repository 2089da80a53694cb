/* events.h - TensorBoard event files
 *
 * A file is a sequence of records: length (8 bytes, little-endian), masked
 * CRC-32C of the length, an Event message of TensorFlow's event.proto, masked
 * CRC-32C of the message.  The first one carries the version "brain.Event:2",
 * each later one a single scalar. */
#ifndef HA_COMMON_IO_EVENTS_H
#define HA_COMMON_IO_EVENTS_H

#include <stdint.h>

struct ha_error;
struct ha_events;

/* Make dir when it is not there and a new file in it, named as TensorBoard looks
 * for it (events.out.tfevents.SECONDS.ha). */
int ha_events_create(const char *dir, int64_t wall_ms, struct ha_events **ret_events,
                     struct ha_error *err);

/* Append one scalar; it is on its way to the disk when this returns. */
int ha_events_scalar(struct ha_events *events, int64_t wall_ms, int64_t step, const char *tag,
                     float value, struct ha_error *err);

/* Flushes; NULL is allowed. */
void ha_events_destroy(struct ha_events *events);

#endif
