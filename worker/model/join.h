/* join.h - ranks of a gang find that they do the same, and share the model from then on */
#ifndef HA_WORKER_MODEL_JOIN_H
#define HA_WORKER_MODEL_JOIN_H

#include "kernels/collective.h"

struct ha_backend;
struct ha_error;
struct ha_model;

enum { HA_MODEL_JOIN_PARTS = 2 }; /* at most */

/* What all ranks must have in common: its name for a person, and a text that tells, as a hash. */
struct ha_model_join_part {
    const char *what, *value;
};

/* Compares n parts of this rank with the other ranks', and, of itself, the backend's fingerprint
 * and how the weights are divided; then the model joins the communicator (ha_model_join).  All
 * ranks call it.  Returns 0, -ESTALE (what differs, and on which rank), -ENOMEM or what the
 * collective says. */
int ha_model_join_same(struct ha_model *model, const struct ha_backend *backend,
                       const struct ha_model_join_part *parts, int n, struct ha_comm *comm,
                       struct ha_error *err);

#endif
