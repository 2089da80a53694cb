/* block.h - which answers may be judged yet
 *
 * A block is one (model, prompt, sample) of a sweep.  Its items are ready when
 * every open cell of the model has answered it, where a cell is open while its
 * generate stage is not final.  model.open_cells and block.answered count only
 * open cells; a block's items become ready when the two are equal. */
#ifndef HA_COORDINATOR_STORE_BLOCK_H
#define HA_COORDINATOR_STORE_BLOCK_H

#include <stdint.h>

struct ha_error;
struct ha_store;

/* A cell's generate stage with this result was created, or begins again. */
int ha_store_block_open_cell(struct ha_store *store, int64_t model, int64_t result,
                             struct ha_error *err);

/* It became final, or left the grid. */
int ha_store_block_close_cell(struct ha_store *store, int64_t model, int64_t result,
                              struct ha_error *err);

/* An open cell of the model answered. */
int ha_store_block_answered(struct ha_store *store, int64_t model, int64_t prompt, int64_t sample,
                            struct ha_error *err);

/* Make the items of every complete block of a model ready.  Nothing while the
 * sweep is still being expanded: not all its cells are known then. */
int ha_store_block_release(struct ha_store *store, int64_t model, struct ha_error *err);

#endif
