/* rehearse.h - every product with frozen weights, over packs of several lengths
 *
 * A backend that chooses by the clock how to multiply (ha_backend_time_choices) makes its choices
 * here, before a run, which then finds them made: they depend on model and lengths, not on data, on
 * the cells of a job, or on how far a run got.  Among them are those with LoRA's columns, which
 * have one shape for all ranks; other products with A and B are left out: they are small, and which
 * there are is the cells' affair. */
#ifndef HA_WORKER_MODEL_REHEARSE_H
#define HA_WORKER_MODEL_REHEARSE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/model/model.h"

/* Packs of max_tokens tokens and down to half of them, forward, backward and head, with made-up
 * ids; nothing is left but the backend's choices.  Takes the memory of a pass that trains the two
 * highest layers.  Returns 0, -EINTR when *stop (may be NULL) is set, or what a pass returns. */
int ha_model_rehearse(struct ha_model *model, int64_t max_tokens, bool round_logits_bf16,
                      const volatile sig_atomic_t *stop, struct ha_error *err);

#endif
