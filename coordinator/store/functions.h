/* functions.h - pure functions of coordinator/core that SQL may call
 *
 *   ha_turn(seed, model, prompt, cell, sample, judge_sample) -> integer (order.h) */
#ifndef HA_COORDINATOR_STORE_FUNCTIONS_H
#define HA_COORDINATOR_STORE_FUNCTIONS_H

struct ha_error;
struct ha_store;

int ha_store_functions(struct ha_store *store, struct ha_error *err);

#endif
