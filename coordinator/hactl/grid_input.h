/* grid_input.h - a grid file with everything that its submission needs
 *
 * The text, the parsed sweep, where its models are and how many layers they
 * have (asked from ha-attempt plan), and its cells. */
#ifndef HA_COORDINATOR_HACTL_GRID_INPUT_H
#define HA_COORDINATOR_HACTL_GRID_INPUT_H

#include "common/base/hash.h"
#include "common/conf/grid.h"

struct ha_error;
struct ha_json;

struct ha_input_model {
    char *dir;            /* NULL: the files are not here */
    struct ha_json *plan; /* of ha-attempt plan --json; NULL without files */
    int64_t layers;
    const char *family; /* "" when nothing tells; borrowed from plan or sweep */
    char digest[HA_SHA256_HEX_BYTES], tokenizer_digest[HA_SHA256_HEX_BYTES];
};

struct ha_input_file {
    const char *name; /* as the grid names it */
    const char *split;
    char *path;
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
};

struct ha_grid_input {
    char *text;     /* of the file */
    char *base_dir; /* absolute */
    const char *const *overrides;
    int64_t n_overrides;
    struct ha_sweep *sweep;
    struct ha_grid *grid;
    struct ha_input_model *models; /* one per sweep->models */
    struct ha_input_file *files;   /* after ha_grid_input_hash */
    int64_t n_files;
};

/* Read the grid.  dry: models whose files are not here are accepted when the grid
 * gives their layers.  overrides are borrowed. */
int ha_grid_input_load(const char *path, const char *const *overrides, int64_t n_overrides,
                       bool dry, struct ha_grid_input **ret_input, struct ha_error *err);

/* Fill in the digests of models and data files. */
int ha_grid_input_hash(struct ha_grid_input *input, struct ha_error *err);

void ha_grid_input_destroy(struct ha_grid_input *input);

#endif
