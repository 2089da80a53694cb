/* lockstep.h - the pass that the cells of a job share
 *
 * Below its lowest adapted layer a policy is the base model.  So one pass of the
 * base model per pack, from the embedding up, gives the hidden states at every
 * cell's border (its lowest adapted layer, if that is above 0), from which the cell
 * goes on by itself, and, as long as the references of the pack's pairs are not
 * known, the head's log-probs, which are the references.  Where these are known
 * the pass ends at the highest border, and is left out where fewer than two cells
 * would start from it: one cell runs the layers below its border itself.
 *
 * Each distinct border has a buffer of max_tokens hidden states, planned before
 * the run.  States that were kept and states that were just computed are the same
 * bits, so a cell's numbers do not depend on the cells beside it. */
#ifndef HA_WORKER_DPO_LOCKSTEP_H
#define HA_WORKER_DPO_LOCKSTEP_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/dpo/packs.h"
#include "worker/model/config.h"
#include "worker/model/model.h"

struct ha_dpo_cell_work;
struct ha_dpo_reference;
struct ha_dpo_trainer;
struct ha_error;

/* Bytes of the buffers for cells with these lowest adapted layers.  -EOVERFLOW
 * where they cannot be addressed. */
int ha_dpo_border_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                        int64_t max_tokens, const int64_t *lowest_layers, int64_t n_cells,
                        int64_t *ret_bytes, struct ha_error *err);

/* ---- for this folder ---- */

/* The states of the pack in work where some cells begin. */
struct ha_dpo_border {
    int64_t layer;
    void *hidden; /* device: act (max_tokens, width) */
    bool filled;
};

/* The trainer's borders, ascending, for packs of max_tokens; adds their bytes to pass_bytes. */
int ha_dpo_borders_create(struct ha_dpo_trainer *trainer, int64_t max_tokens, struct ha_error *err);
void ha_dpo_borders_destroy(struct ha_dpo_trainer *trainer);

/* The shared pass over a pack of the pairs at positions first, first + 1, ... of the order, for
 * the cells that take_part: borders, and references that are not known.  charge: its cost goes to
 * these cells in equal parts. */
int ha_dpo_share_pack(struct ha_dpo_trainer *trainer, const struct ha_dpo_packs *packs,
                      int64_t first, const struct ha_pack *pack,
                      struct ha_dpo_reference *references, bool charge, struct ha_error *err);

/* After that: the cell's own forward pass over the pack; dropout NULL: none. */
int ha_dpo_cell_forward(struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell,
                        const struct ha_pack *pack, const struct ha_pass_dropout *dropout,
                        bool gradient, struct ha_pass_rows *ret_rows, struct ha_error *err);

#endif
