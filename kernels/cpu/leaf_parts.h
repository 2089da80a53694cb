/* leaf_parts.h - joins the leaf_*.c files of one instruction set
 *
 * Each of them is compiled with -DHA_LEAF_SUFFIX=..., so that the same function
 * exists once per instruction set under its own name. */
#ifndef HA_KERNELS_CPU_LEAF_PARTS_H
#define HA_KERNELS_CPU_LEAF_PARTS_H

#include "kernels/cpu/leaf.h"

#define HA_LEAF_JOIN2(name, suffix) name##_##suffix
#define HA_LEAF_JOIN(name, suffix) HA_LEAF_JOIN2(name, suffix)
#define HA_LEAF_NAME(name) HA_LEAF_JOIN(name, HA_LEAF_SUFFIX)

/* Each fills its entries of the table. */
void HA_LEAF_NAME(ha_leaf_set_matrix)(struct ha_leaf *leaf);
void HA_LEAF_NAME(ha_leaf_set_rows)(struct ha_leaf *leaf);
void HA_LEAF_NAME(ha_leaf_set_exp)(struct ha_leaf *leaf);
void HA_LEAF_NAME(ha_leaf_set_dropout)(struct ha_leaf *leaf);

#endif
