/* resubmit.h - a grid that is submitted again under the same name
 *
 * Compares one cell as it is stored with the same cell of the new grid and says
 * which setting makes their results differ. */
#ifndef HA_COORDINATOR_CORE_RESUBMIT_H
#define HA_COORDINATOR_CORE_RESUBMIT_H

#include <stdbool.h>

struct ha_buffer;
struct ha_error;

struct ha_resubmit_cell {
    const char *settings; /* JSON of ha_grid_cell_json */
    const char *layers;
    const char *model_digest, *tokenizer_digest;
    const char *data_digest; /* of the list of data files */
};

/* Append the name of the first thing that differs: "train.beta (0.1 -> 0.5)",
 * "layers (0-2 -> 0-3)", "the model's files", "the tokenizer's files", "the data
 * files"; "the form of the keys" when nothing else does.  -EINVAL: settings that
 * cannot be read. */
int ha_resubmit_difference(const struct ha_resubmit_cell *before,
                           const struct ha_resubmit_cell *after, struct ha_buffer *out,
                           struct ha_error *err);

/* The same for two judges' settings; prefix begins the name ("judge.NAME"). */
int ha_resubmit_judge_difference(const char *prefix, const char *before, const char *after,
                                 struct ha_buffer *out, struct ha_error *err);

#endif
