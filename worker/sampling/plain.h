/* plain.h - what the plain way of generating would have done
 *
 * Each variant alone, prompts in their order in batches of so many rows, padded to
 * the longest prompt of the batch and run until its longest answer ends: Transformers'
 * generate() as most scripts call it.  Only matrix products and attention count, 2
 * operations per multiply-add, as in the engine's own count. */
#ifndef HA_WORKER_SAMPLING_PLAIN_H
#define HA_WORKER_SAMPLING_PLAIN_H

#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/config.h"

enum { HA_PLAIN_BATCH = 8 };

/* An answer that was made; drawn counts its end token too. */
struct ha_plain_answer {
    int64_t prompt_tokens, drawn; /* drawn <= 0: none was made */
};

/* FLOPs for the answers [n] in their order; adapter may be NULL. */
double ha_plain_flops(const struct ha_model_config *config, const struct ha_adapter *adapter,
                      const struct ha_plain_answer *answers, int64_t n, int64_t batch);

#endif
