/* small_trainer.h - a trainer of one cell on a small random model, for the target
 * of checkpoints and the program that makes its seeds */
#ifndef HA_TESTS_FUZZ_SMALL_TRAINER_H
#define HA_TESTS_FUZZ_SMALL_TRAINER_H

#include "worker/dpo/trainer.h"

/* Always the same; ends the process where it cannot be made, and never ends. */
struct ha_dpo_trainer *small_trainer_create(void);

#endif
