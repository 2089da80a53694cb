/* attention.h - what the forward and the backward attention share */
#ifndef HA_KERNELS_CPU_ATTENTION_H
#define HA_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/segments.h"

/* Tiles start at a segment's first token: the cut depends on no other segment. */
enum {
    HA_ATTENTION_QUERIES = 96, /* a multiple of every mr */
    HA_ATTENTION_KEYS = 256,   /* a multiple of every nr */
};

/* f32 elements of scratch of one thread. */
int64_t ha_attention_forward_elements(const struct ha_leaf *leaf, int64_t n_heads,
                                      int64_t n_kv_heads, int64_t head_dim);
int64_t ha_attention_backward_elements(const struct ha_leaf *leaf, int64_t head_dim);

/* Of q, k, v and the output. */
double ha_attention_bytes(const struct ha_attention *shape);

#endif
