/* lora.h - what both backends check of LoRA's columns (internal to kernels) */
#ifndef HA_KERNELS_LORA_H
#define HA_KERNELS_LORA_H

struct ha_error;
struct ha_lora_columns;

/* -EINVAL for parts that do not fill the rows of b, or that have more columns than there are. */
int ha_lora_columns_check(const struct ha_lora_columns *columns, struct ha_error *err);

#endif
