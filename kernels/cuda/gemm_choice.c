#include "kernels/cuda/gemm_choice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"

enum {
    VERSION = 1,
    MAGIC_BYTES = 8,
    HEAD_BYTES = MAGIC_BYTES + 3 * 4,
    ENTRY_BYTES = 3 * 8 + 8 + 8 * HA_CUDA_ALGORITHM_WORDS + 8,
    MOST_KIND_BYTES = 256,
    MOST_ALIGNMENT = 16,
};

static const char magic[] = "HACUGEMM";

/* ---- keys ---- */

int ha_cuda_product_type(enum ha_dtype a, enum ha_dtype b, enum ha_dtype c, enum ha_dtype *ret_in,
                         struct ha_error *err)
{
    if (c == HA_DTYPE_F16)
        return ha_error_set(err, EINVAL, "gemm: the result must be F32 or BF16 on a GPU, not %s",
                            ha_dtype_name(c));
    if (c == HA_DTYPE_BF16 || a == HA_DTYPE_BF16 || b == HA_DTYPE_BF16)
        *ret_in = HA_DTYPE_BF16;
    else
        *ret_in = a == b ? a : HA_DTYPE_F32;
    return 0;
}

int64_t ha_cuda_product_rounded(int64_t n)
{
    int64_t step = 1;

    while (n > 16 * step)
        step *= 2;
    return (n + step - 1) / step * step;
}

static uint8_t alignment_of(const struct ha_matrix *matrix)
{
    uint64_t both = (uint64_t)(uintptr_t)matrix->data |
                    (uint64_t)matrix->stride * ha_dtype_bytes(matrix->dtype) | MOST_ALIGNMENT;

    return (uint8_t)(both & ~(both - 1));
}

struct ha_cuda_product ha_cuda_product_of(const struct ha_matrix *c, const struct ha_matrix *a,
                                          bool transpose_a, const struct ha_matrix *b,
                                          bool transpose_b, float beta)
{
    return (struct ha_cuda_product){
        .rows = ha_cuda_product_rounded(c->rows),
        .cols = c->cols,
        .depth = ha_cuda_product_rounded(transpose_a ? a->rows : a->cols),
        .in = (uint8_t)a->dtype,
        .out = (uint8_t)c->dtype,
        .transpose_a = transpose_a,
        .transpose_b = transpose_b,
        .align_a = alignment_of(a),
        .align_b = alignment_of(b),
        .align_c = alignment_of(c),
        .accumulate = beta != 0.0f,
    };
}

static int compare_numbers(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare(const struct ha_cuda_product *a, const struct ha_cuda_product *b)
{
    const uint8_t bytes_a[] = {a->in,      a->out,     a->transpose_a, a->transpose_b, a->align_a,
                               a->align_b, a->align_c, a->accumulate,  a->separate};
    const uint8_t bytes_b[] = {b->in,      b->out,     b->transpose_a, b->transpose_b, b->align_a,
                               b->align_b, b->align_c, b->accumulate,  b->separate};
    int order = compare_numbers(a->rows, b->rows);

    if (order == 0)
        order = compare_numbers(a->cols, b->cols);
    if (order == 0)
        order = compare_numbers(a->depth, b->depth);
    return order ? order : memcmp(bytes_a, bytes_b, sizeof(bytes_a));
}

/* ---- the table ---- */

/* Where the product is, or where it belongs. */
static int64_t place_of(const struct ha_cuda_choices *choices,
                        const struct ha_cuda_product *product)
{
    int64_t low = 0, high = choices->n;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (compare(&choices->list[middle].product, product) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct ha_cuda_choice *ha_cuda_choices_find(const struct ha_cuda_choices *choices,
                                                  const struct ha_cuda_product *product)
{
    int64_t at = place_of(choices, product);

    return at < choices->n && compare(&choices->list[at].product, product) == 0 ? &choices->list[at]
                                                                                : NULL;
}

static int make_room(struct ha_cuda_choices *choices, int64_t n, struct ha_error *err)
{
    void *list = choices->list;

    if (n > HA_CUDA_MOST_CHOICES)
        return ha_error_set(err, ENOSPC, "more than %d products of different shapes",
                            HA_CUDA_MOST_CHOICES);
    if (ha_grow(&list, &choices->capacity, n, sizeof(*choices->list)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for the choices of products");
    choices->list = list;
    return 0;
}

int ha_cuda_choices_put(struct ha_cuda_choices *choices, const struct ha_cuda_choice *choice,
                        struct ha_error *err)
{
    int64_t at = place_of(choices, &choice->product);
    int rc;

    if (at < choices->n && compare(&choices->list[at].product, &choice->product) == 0) {
        choices->list[at] = *choice;
        return 0;
    }
    rc = make_room(choices, choices->n + 1, err);
    if (rc < 0)
        return rc;
    memmove(&choices->list[at + 1], &choices->list[at],
            (size_t)(choices->n - at) * sizeof(*choices->list));
    choices->list[at] = *choice;
    choices->n++;
    return 0;
}

void ha_cuda_choices_clear(struct ha_cuda_choices *choices)
{
    free(choices->list);
    *choices = (struct ha_cuda_choices){0};
}

/* ---- the blob ---- */

static uint8_t *put_number(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
    return to + bytes;
}

static uint64_t get_number(const uint8_t *from, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static uint8_t *put_entry(uint8_t *to, const struct ha_cuda_choice *choice)
{
    const struct ha_cuda_product *p = &choice->product;
    const uint8_t bytes[] = {p->in,      p->out,     p->transpose_a, p->transpose_b,
                             p->align_a, p->align_b, p->align_c,     p->accumulate};

    to = put_number(to, (uint64_t)p->rows, 8);
    to = put_number(to, (uint64_t)p->cols, 8);
    to = put_number(to, (uint64_t)p->depth, 8);
    memcpy(to, bytes, sizeof(bytes));
    to += sizeof(bytes);
    for (int i = 0; i < HA_CUDA_ALGORITHM_WORDS; i++)
        to = put_number(to, choice->algorithm[i], 8);
    return put_number(to, choice->timed, 8);
}

int ha_cuda_choices_export(const struct ha_cuda_choices *choices, const char *kind, void **ret_blob,
                           size_t *ret_bytes, struct ha_error *err)
{
    size_t kind_bytes = strlen(kind), n = 0, bytes;
    uint8_t *blob, *to;

    if (kind_bytes > MOST_KIND_BYTES)
        return ha_error_set(err, EINVAL, "a kind of device of %zu letters", kind_bytes);
    for (int64_t i = 0; i < choices->n; i++)
        n += choices->list[i].timed;
    bytes = HEAD_BYTES + kind_bytes + n * ENTRY_BYTES + HA_SHA256_BYTES;
    blob = ha_calloc((int64_t)bytes, 1);
    if (!blob)
        return ha_error_set(err, ENOMEM, "no memory for the choices of products");
    memcpy(blob, magic, MAGIC_BYTES);
    to = put_number(blob + MAGIC_BYTES, VERSION, 4);
    to = put_number(to, kind_bytes, 4);
    to = put_number(to, n, 4);
    memcpy(to, kind, kind_bytes);
    to += kind_bytes;
    for (int64_t i = 0; i < choices->n; i++)
        if (choices->list[i].timed)
            to = put_entry(to, &choices->list[i]);
    ha_sha256(blob, (size_t)(to - blob), to);
    *ret_blob = blob;
    *ret_bytes = bytes;
    return 0;
}

static bool is_alignment(uint8_t n)
{
    return n >= 1 && n <= MOST_ALIGNMENT && (n & (n - 1)) == 0;
}

static bool get_entry(const uint8_t *from, struct ha_cuda_choice *ret_choice)
{
    const uint8_t *bytes = from + 24;
    struct ha_cuda_product *p = &ret_choice->product;
    uint64_t timed = get_number(bytes + 8 + 8 * HA_CUDA_ALGORITHM_WORDS, 8);

    *p = (struct ha_cuda_product){.rows = (int64_t)get_number(from, 8),
                                  .cols = (int64_t)get_number(from + 8, 8),
                                  .depth = (int64_t)get_number(from + 16, 8),
                                  .in = bytes[0],
                                  .out = bytes[1],
                                  .transpose_a = bytes[2],
                                  .transpose_b = bytes[3],
                                  .align_a = bytes[4],
                                  .align_b = bytes[5],
                                  .align_c = bytes[6],
                                  .accumulate = bytes[7]};
    for (int i = 0; i < HA_CUDA_ALGORITHM_WORDS; i++)
        ret_choice->algorithm[i] = get_number(bytes + 8 + 8 * i, 8);
    ret_choice->timed = 1;
    return p->rows > 0 && p->cols > 0 && p->depth > 0 && p->in <= HA_DTYPE_F16 &&
           p->out <= HA_DTYPE_BF16 && p->transpose_a <= 1 && p->transpose_b <= 1 &&
           is_alignment(p->align_a) && is_alignment(p->align_b) && is_alignment(p->align_c) &&
           p->accumulate <= 1 && timed == 1;
}

/* The head and the check sum; the number of entries fits the size. */
static int check_blob(const uint8_t *blob, size_t bytes, const char *kind, size_t *ret_entries_at,
                      int64_t *ret_n, struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    uint64_t kind_bytes, n;

    if (bytes < HEAD_BYTES + HA_SHA256_BYTES || memcmp(blob, magic, MAGIC_BYTES) != 0)
        return ha_error_set(err, EINVAL, "choices of products: not such a file");
    if (get_number(blob + MAGIC_BYTES, 4) != VERSION)
        return ha_error_set(err, EINVAL, "choices of products: version %" PRIu64 ", %d is read",
                            get_number(blob + MAGIC_BYTES, 4), VERSION);
    kind_bytes = get_number(blob + MAGIC_BYTES + 4, 4);
    n = get_number(blob + MAGIC_BYTES + 8, 4);
    if (kind_bytes > MOST_KIND_BYTES || n > HA_CUDA_MOST_CHOICES ||
        bytes != HEAD_BYTES + kind_bytes + n * ENTRY_BYTES + HA_SHA256_BYTES)
        return ha_error_set(err, EINVAL,
                            "choices of products: %zu bytes do not hold %" PRIu64 " entries", bytes,
                            n);
    ha_sha256(blob, bytes - HA_SHA256_BYTES, digest);
    if (memcmp(digest, blob + bytes - HA_SHA256_BYTES, HA_SHA256_BYTES) != 0)
        return ha_error_set(err, EINVAL, "choices of products: the check sum does not fit");
    if (kind_bytes != strlen(kind) || memcmp(blob + HEAD_BYTES, kind, kind_bytes) != 0)
        return ha_error_set(err, ESTALE, "choices of products: made on %.*s; this is %s",
                            (int)kind_bytes, (const char *)blob + HEAD_BYTES, kind);
    *ret_entries_at = HEAD_BYTES + (size_t)kind_bytes;
    *ret_n = (int64_t)n;
    return 0;
}

int ha_cuda_choices_import(struct ha_cuda_choices *choices, const char *kind, const void *blob,
                           size_t bytes, struct ha_error *err)
{
    struct ha_cuda_choices both = {0};
    struct ha_cuda_product before = {0};
    size_t at = 0;
    int64_t n = 0;
    int rc = check_blob(blob, bytes, kind, &at, &n, err);

    for (int64_t i = 0; rc == 0 && i < choices->n; i++)
        rc = ha_cuda_choices_put(&both, &choices->list[i], err);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        struct ha_cuda_choice choice;

        /* In another order every entry would move all others. */
        if (get_entry((const uint8_t *)blob + at + (size_t)i * ENTRY_BYTES, &choice) &&
            compare(&before, &choice.product) < 0)
            rc = ha_cuda_choices_put(&both, &choice, err);
        else
            rc = ha_error_set(err, EINVAL, "choices of products: entry %" PRId64 " makes no sense",
                              i);
        before = choice.product;
    }
    if (rc < 0) {
        ha_cuda_choices_clear(&both);
        return rc;
    }
    ha_cuda_choices_clear(choices);
    *choices = both;
    return 0;
}
