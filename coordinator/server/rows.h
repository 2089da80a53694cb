/* rows.h - rows of the store as replies show them */
#ifndef HA_COORDINATOR_SERVER_ROWS_H
#define HA_COORDINATOR_SERVER_ROWS_H

#include "proto/arena.h"
#include "proto/wire.h"

struct ha_sweep_row;

/* -ENOMEM. */
int ha_row_sweep(struct ha_arena *arena, const struct ha_sweep_row *row,
                 struct ha_wire_sweep_row *ret_row);

#endif
