/* change.h - sending a change of state and printing what became of it */
#ifndef HA_COORDINATOR_HACTL_CHANGE_H
#define HA_COORDINATOR_HACTL_CHANGE_H

struct ha_arguments;
struct ha_error;
struct ha_wire_change;

/* Fills in the request's key and, from --reason, its reason. */
int ha_change_send(const struct ha_arguments *arguments, const struct ha_wire_change *change,
                   struct ha_error *err);

#endif
