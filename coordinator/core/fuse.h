/* fuse.h - which cells of a model go together in one job, and which side by side
 *
 * A job that holds several cells runs the base model's pass once for all of
 * them; each cell then has passes of its own.  So one job for all cells does the
 * least work, and one job for each cell on a device of its own may still end
 * sooner.  ha_fuse_choose weighs the two, and what lies between, by one model of
 * time:
 *
 *     a set of cells        takes  shared + sum of the cells' cost
 *     on a device           of speed v that is load / v
 *     the sets, heaviest first, go one after the other to the device where they end soonest
 *     finish                is when the last device is done
 *
 * It takes the division with the earliest finish; of equal ones the one with less
 * work in all, so fewer sets.  The two extremes are always among those that it
 * weighs, so that it is never worse than the better one of them.  Pure, and the
 * same for the same input.
 *
 * Memory of a set: shared_bytes + the largest pass_bytes (cells take turns) +
 * the sum of bytes.  A set of more than one cell fits; a cell that does not fit
 * by itself stays by itself, and its attempt says so.
 *
 * Costs have any unit, the same for all.  With FLOPs and speeds in FLOP/s, as records of
 * finished work tell them (speed.h), a finish is in seconds; without speeds devices
 * count as equally fast. */
#ifndef HA_COORDINATOR_CORE_FUSE_H
#define HA_COORDINATOR_CORE_FUSE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_json;

enum {
    HA_FUSE_CELLS = 64,      /* of one job */
    HA_FUSE_CELLS_BLIND = 8, /* where bytes or the devices' memory are not known */
};

enum ha_fuse_mode { HA_FUSE_AUTO, HA_FUSE_ALWAYS, HA_FUSE_NEVER, HA_FUSE_MODES };

const char *ha_fuse_mode_name(enum ha_fuse_mode mode);
bool ha_fuse_mode_parse(const char *name, enum ha_fuse_mode *ret_mode);

/* What a stage of a cell takes. */
struct ha_fuse_need {
    double shared, cost;
    int64_t shared_bytes, pass_bytes, bytes; /* 0: not known */
};

/* All cells of a group have the same shared and shared_bytes; the first one's count. */
struct ha_fuse_group {
    const struct ha_fuse_need *cells;
    int64_t count;        /* at least 1 */
    int64_t memory_bytes; /* of the smallest device; 0: not known */
    bool blind;           /* a set may go to a device whose memory is not known */
    enum ha_fuse_mode mode;
    const double *speeds; /* of the devices, all > 0, the fastest first; NULL: equal, 1 each */
    int64_t *work;        /* steps of a few ns that were made are added; NULL: nobody counts them */
};

/* Divide the cells into sets for so many idle devices (at least 1).
 * set_of[count]: the number of each cell's set; sets count from 0, the heaviest
 * first.  Returns the number of sets, or -ENOMEM.  ret_finish may be NULL. */
int64_t ha_fuse_choose(const struct ha_fuse_group *group, int64_t devices, int64_t *set_of,
                       double *ret_finish);

/* Where these sets go on so many devices, and when the last one ends: device_of[sets] (may be
 * NULL) is the number of each set's device; the first set that names a device begins at once.
 * Returns 0 or -ENOMEM. */
int ha_fuse_place(const struct ha_fuse_group *group, const int64_t *set_of, int64_t sets,
                  int64_t devices, int64_t *device_of, double *ret_finish);

/* What a model's cells need, as `ha-attempt plan --json` tells it: FLOPs of a pair. */
struct ha_fuse_model {
    int64_t layers;
    double reference;  /* the base model's pass */
    double cost;       /* a cell's own passes from the first layer up */
    double cost_layer; /* what one layer less saves of it */
    int64_t weight_bytes, pass_bytes, adapter_bytes; /* of training all layers; 0: not known */
};

/* plan NULL, or without what is asked for: only the number of layers counts, and
 * bytes are not known. */
void ha_fuse_model_read(const struct ha_json *plan, int64_t layers,
                        struct ha_fuse_model *ret_model);

/* For one pair: a cell that trains n_layers layers from `lowest` up, with adapters of `rank`. */
struct ha_fuse_need ha_fuse_train_need(const struct ha_fuse_model *model, int64_t lowest,
                                       int64_t n_layers, int64_t rank);

/* For one answer, as if it took what a pair's pass takes: a cell that answers prompts.  What cells
 * of one queue share is little: the weights are read once, and the tail of the queue is waited for
 * once. */
struct ha_fuse_need ha_fuse_generate_need(const struct ha_fuse_model *model);

#endif
