/* gemm_choice.h - which algorithm of cuBLASLt does which product
 *
 * A table from the shape of a product to an opaque algorithm of the library, for one
 * kind of device and one version of the library, and its form on disk.  Nothing here
 * needs a device.
 *
 * Rows and depth of a key are rounded up to a coarser grid, so that packs of like
 * length share a choice, and bits do not change with every token more.
 *
 * The blob, little endian: "HACUGEMM", u32 version, u32 length of the kind, u32 number
 * of entries, the kind, the entries in ascending order of their keys, SHA-256 of all
 * before it.  An entry: i64 rows, cols, depth, u8 in, out, transpose_a, transpose_b,
 * align_a, align_b, align_c, accumulate, u64 algorithm[8], u8 1 (it was timed), 7 zero bytes. */
#ifndef HA_KERNELS_CUDA_GEMM_CHOICE_H
#define HA_KERNELS_CUDA_GEMM_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

struct ha_error;

enum { HA_CUDA_ALGORITHM_WORDS = 8, HA_CUDA_MOST_CHOICES = 1 << 16 };

struct ha_cuda_product {
    int64_t rows, cols, depth;
    uint8_t in, out; /* enum ha_dtype: of both operands, of the result */
    uint8_t transpose_a, transpose_b;
    uint8_t align_a, align_b,
        align_c;        /* bytes that address and row stride are multiples of, 1..16 */
    uint8_t accumulate; /* beta is not 0 */
    uint8_t separate;   /* rows are kept separate: rows and depth are exact; never timed */
};

struct ha_cuda_choice {
    struct ha_cuda_product product;
    uint64_t algorithm[HA_CUDA_ALGORITHM_WORDS];
    uint8_t timed; /* else the library's own first suggestion */
};

/* In ascending order of products. */
struct ha_cuda_choices {
    struct ha_cuda_choice *list;
    int64_t n, capacity;
};

/* The type that both operands of a product are brought to:
 *   a result in the activation type is a product of bf16 operands;
 *   a result in f32 keeps equal types; where one operand is bf16 the other is rounded
 *   to it, and f16 is widened beside f32.
 * Returns -EINVAL for a result in f16. */
int ha_cuda_product_type(enum ha_dtype a, enum ha_dtype b, enum ha_dtype c, enum ha_dtype *ret_in,
                         struct ha_error *err);

/* The key of a product of these views, whose operands have been brought to `in`. */
struct ha_cuda_product ha_cuda_product_of(const struct ha_matrix *c, const struct ha_matrix *a,
                                          bool transpose_a, const struct ha_matrix *b,
                                          bool transpose_b, float beta);

/* n on the grid: itself up to 16, then the next multiple of a sixteenth to an eighth of n. */
int64_t ha_cuda_product_rounded(int64_t n);

/* NULL when the table has none. */
const struct ha_cuda_choice *ha_cuda_choices_find(const struct ha_cuda_choices *choices,
                                                  const struct ha_cuda_product *product);

/* Put a choice in, in place of an equal product's.  Returns 0, -ENOMEM or -ENOSPC. */
int ha_cuda_choices_put(struct ha_cuda_choices *choices, const struct ha_cuda_choice *choice,
                        struct ha_error *err);

void ha_cuda_choices_clear(struct ha_cuda_choices *choices);

/* Those that were timed: the others are functions of kind, library and product, and each run finds
 * them for itself.  New memory, the caller's to free. */
int ha_cuda_choices_export(const struct ha_cuda_choices *choices, const char *kind, void **ret_blob,
                           size_t *ret_bytes, struct ha_error *err);

/* Put all entries of a blob in.  Returns 0, -EINVAL for what is no such blob, -ESTALE for one of
 * another kind of device or library version, or -ENOMEM; the table is then as it was. */
int ha_cuda_choices_import(struct ha_cuda_choices *choices, const char *kind, const void *blob,
                           size_t bytes, struct ha_error *err);

#endif
