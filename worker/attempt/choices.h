/* choices.h - how a GPU multiplies: chosen by the clock once, kept for later runs
 *
 * What a backend chose (ha_backend_export_choices) is part of what its bits depend on, so that it
 * is fixed before the first step of a training and never changes after it:
 *
 *   1. A run that goes on from a checkpoint takes the choices that lie in it, wherever it runs.
 *      Where they are of another kind of device or other libraries they are left aside, with a
 *      warning; the checkpoint then names another backend and is refused or left aside itself
 *      (trainer.h).
 *   2. Any other run takes those of a folder, one file for each model's shapes, longest pack, kind
 *      of device and versions of the libraries.  Where there is none, or one that cannot be read,
 *      the products are timed (rehearse.h) and the file is written: under a lock, so that attempts
 *      that start together time once, complete or not at all, and the MOST_FILES used last stay.
 *   3. Without a folder nothing is timed: the library's own suggestions stand, which are the same
 *      in every run.
 *
 * Shapes that are in no table get the library's suggestion in every run. */
#ifndef HA_WORKER_ATTEMPT_CHOICES_H
#define HA_WORKER_ATTEMPT_CHOICES_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/attempt/engine.h"

struct ha_choices {
    const char *dir;        /* made where it is not there; NULL: nothing is timed */
    const char *checkpoint; /* of a training that goes on; NULL: a new one */
    int64_t max_tokens;     /* of a pack */
    bool round_logits_bf16;
    const volatile sig_atomic_t *stop; /* or NULL */
};

/* Does nothing on a backend that has nothing to choose.  Returns 0, -EINTR after a stop, or what
 * keeps the model from running at all; a folder that cannot be used costs a warning. */
int ha_choices_prepare(const struct ha_choices *choices, struct ha_engine *engine,
                       struct ha_error *err);

#endif
