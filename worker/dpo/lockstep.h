/* lockstep.h - the pass that the cells of a job share
 *
 * Below its lowest adapted layer a policy is the base model.  So one pass of the
 * base model per pack, from the embedding up, gives the hidden states at every
 * cell's border (its lowest adapted layer, if that is above 0), from which the cell
 * goes on by itself, and, as long as the references of the pack's pairs are not
 * known, the head's log-probs, which are the references.
 *
 * Each distinct border has a buffer of max_tokens hidden states, planned before
 * the run. */
#ifndef HA_WORKER_DPO_LOCKSTEP_H
#define HA_WORKER_DPO_LOCKSTEP_H

#include <stdint.h>

#include "worker/model/config.h"
#include "worker/model/model.h"

struct ha_error;

/* Bytes of the buffers for cells with these lowest adapted layers.  -EOVERFLOW
 * where they cannot be addressed. */
int ha_dpo_border_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                        int64_t max_tokens, const int64_t *lowest_layers, int64_t n_cells,
                        int64_t *ret_bytes, struct ha_error *err);

#endif
