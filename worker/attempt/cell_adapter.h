/* cell_adapter.h - the adapter that a cell trains */
#ifndef HA_WORKER_ATTEMPT_CELL_ADAPTER_H
#define HA_WORKER_ATTEMPT_CELL_ADAPTER_H

#include "worker/attempt/training.h"

struct ha_adapter;
struct ha_error;

/* A new adapter as the cell's settings say, or that of cell->init_adapter, whose rank, alpha,
 * modules and layers must then be the cell's: -EINVAL names what differs. */
int ha_cell_adapter_create(const struct ha_training_cell *cell, const struct ha_engine *engine,
                           struct ha_adapter **ret_adapter, struct ha_error *err);

#endif
