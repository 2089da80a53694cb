/* identity.h - which judge gave a score
 *
 * The SHA-256 of the canonical JSON over everything that can change a score:
 * the prompt's bytes with the dimensions, model, parameters, provider profile,
 * parser version and the endpoint's label (not the host, which is kept per
 * call).  It stands on every row; rows of different identities are never
 * averaged together. */
#ifndef HA_JUDGE_WORKER_IDENTITY_H
#define HA_JUDGE_WORKER_IDENTITY_H

#include "common/base/hash.h"

struct ha_error;
struct ha_json;
struct ha_sweep_judge;

/* The object that is hashed; the caller destroys it. */
int ha_judge_identity_json(const struct ha_sweep_judge *judge, struct ha_json **ret_json,
                           struct ha_error *err);

int ha_judge_identity(const struct ha_sweep_judge *judge, char ret_hex[HA_SHA256_HEX_BYTES],
                      struct ha_error *err);

#endif
