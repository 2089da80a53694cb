/* submission.h - bringing a grid to a coordinator */
#ifndef HA_COORDINATOR_HACTL_SUBMISSION_H
#define HA_COORDINATOR_HACTL_SUBMISSION_H

#include <stdbool.h>

struct ha_error;
struct ha_grid_input;
struct ha_link;
struct ha_wire_message;

/* The sweep's name: given (--name), or the grid's when that is NULL.  -EINVAL for
 * one that cannot be a folder's name. */
int ha_submission_name(const struct ha_grid_input *input, const char *given, const char **ret_name,
                       struct ha_error *err);

/* Upload what the coordinator lacks of the data, then submit.  The reply (kind SUBMIT_REPLY) is the
 * caller's to destroy.  -EINVAL when the coordinator refuses the grid, with its reason. */
int ha_submission_send(struct ha_link *link, const struct ha_grid_input *input, const char *name,
                       bool extend, struct ha_wire_message **ret_reply, struct ha_error *err);

/* Print what was created, kept, added or stopped. */
void ha_submission_print(const struct ha_wire_message *reply);

#endif
