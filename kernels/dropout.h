/* dropout.h - what a kernel reads of a dropout (internal to kernels) */
#ifndef HA_KERNELS_DROPOUT_H
#define HA_KERNELS_DROPOUT_H

#include <stdint.h>

struct ha_dropout;
struct ha_error;

struct ha_dropout_mask {
    uint32_t key[2];
    uint32_t stream;
    uint32_t threshold; /* elements with a smaller word are dropped */
    float scale;        /* of those kept */
};

/* -EINVAL for p or a width out of range. */
int ha_dropout_mask_make(const struct ha_dropout *dropout, int64_t cols,
                         struct ha_dropout_mask *ret_mask, struct ha_error *err);

#endif
