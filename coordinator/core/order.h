/* order.h - the order in which items are judged
 *
 * Blocks of one (model, prompt) come one after the other in an order that
 * depends on the seed only, and the answers inside a block too, so that drift
 * of the evaluator cancels in paired comparisons. */
#ifndef HA_COORDINATOR_CORE_ORDER_H
#define HA_COORDINATOR_CORE_ORDER_H

#include <stdint.h>

/* Not negative: 39 bits of the block, then 24 bits of the answer.  Lower turns
 * come first. */
int64_t ha_order_turn(int64_t seed, const char *model, int64_t prompt, const char *cell,
                      int64_t sample, int64_t judge_sample);

#endif
