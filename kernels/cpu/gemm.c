/* gemm.c - the matrix product for any transposition and weight type
 *
 * For each chunk of rows and each group of depth slices: all of a's part is
 * packed once, by all threads; then tiles of c (TILE_ROWS x HA_GEMM_TILE_COLS, or all
 * rows where columns alone make enough tiles) pack their part of b, which turns
 * bf16 into f32 on the way, and multiply.  No weight is ever held in f32 beyond
 * one tile's slice. */
#include "kernels/cpu/gemm.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"

enum {
    TILE_ROWS = 480, /* a multiple of every mr; with DEPTH it fits a second-level cache */
    CHUNK_ROWS = 8 * TILE_ROWS,
    ENOUGH_TILES = 64,
    PANELS = 8,     /* of a, packed by one thread at a time */
    PACK_WORK = 16, /* multiply-adds that packing one element is worth */
};

void ha_gemm_pack_a(const struct ha_leaf *leaf, float *out, const float *a, int64_t stride,
                    bool transpose, int64_t rows, int64_t depth)
{
    for (int64_t i = 0; i < rows; i += leaf->mr)
        leaf->pack_a(out + i * depth, a + (transpose ? i : i * stride), stride, transpose,
                     ha_cpu_min(leaf->mr, rows - i), depth);
}

void ha_gemm_pack_b(const struct ha_leaf *leaf, float *out, const void *b, enum ha_dtype dtype,
                    int64_t stride, bool transpose, int64_t depth, int64_t cols)
{
    for (int64_t j = 0; j < cols; j += leaf->nr) {
        int64_t at = transpose ? j * stride : j;

        leaf->pack_b(out + j * depth, (const char *)b + (size_t)at * ha_dtype_bytes(dtype), dtype,
                     stride, transpose, depth, ha_cpu_min(leaf->nr, cols - j));
    }
}

void ha_gemm_packed_product(const struct ha_leaf *leaf, float *c, int64_t c_stride, const float *a,
                            const float *b, int64_t rows, int64_t cols, int64_t depth, float alpha,
                            float beta)
{
    for (int64_t j = 0; j < cols; j += leaf->nr)
        for (int64_t i = 0; i < rows; i += leaf->mr)
            leaf->multiply(c + i * c_stride + j, c_stride, a + i * depth, b + j * depth, depth,
                           ha_cpu_min(leaf->mr, rows - i), ha_cpu_min(leaf->nr, cols - j), alpha,
                           beta);
}

/* A product op(a) op(b) of rows x depth and depth x cols, and how it is cut. */
struct product {
    const struct ha_leaf *leaf;
    const struct ha_matrix *c, *a, *b;
    bool transpose_a, transpose_b;
    int64_t rows, cols, depth;
    float alpha, beta;
    int64_t row0, chunk_rows; /* the chunk of rows being done */
    int64_t slice0, n_slices; /* the group of depth slices being done */
    int64_t tile_rows;        /* rows of a tile of c */
    float *packed_a;          /* [slice][panel][HA_GEMM_DEPTH][mr] */
};

static int64_t slice_depth(const struct product *p, int64_t slice)
{
    return ha_cpu_min(HA_GEMM_DEPTH, p->depth - slice * HA_GEMM_DEPTH);
}

static float *packed_slice(const struct product *p, int64_t slice)
{
    return p->packed_a + slice * ha_gemm_packed(p->chunk_rows, p->leaf->mr, HA_GEMM_DEPTH);
}

/* One panel of a: mr rows of one slice.  A matrix of 16-bit floats is widened first. */
static void pack_panel(const struct product *p, int64_t slice, int64_t panel, float *wide)
{
    const struct ha_leaf *leaf = p->leaf;
    int64_t depth = slice_depth(p, p->slice0 + slice);
    int64_t row = panel * leaf->mr, rows = ha_cpu_min(leaf->mr, p->chunk_rows - row);
    int64_t depth0 = (p->slice0 + slice) * HA_GEMM_DEPTH;
    int64_t stride = p->a->stride;
    int64_t at =
        p->transpose_a ? depth0 * stride + p->row0 + row : (p->row0 + row) * stride + depth0;
    const char *from = (const char *)p->a->data + (size_t)at * ha_dtype_bytes(p->a->dtype);

    if (p->a->dtype != HA_DTYPE_F32) {
        int64_t lines = p->transpose_a ? depth : rows, length = p->transpose_a ? rows : depth;

        for (int64_t i = 0; i < lines; i++)
            leaf->convert(wide + i * length,
                          from + (size_t)(i * stride) * ha_dtype_bytes(p->a->dtype), p->a->dtype,
                          length);
        from = (const char *)wide;
        stride = length;
    }
    leaf->pack_a(packed_slice(p, slice) + row * depth, (const float *)(const void *)from, stride,
                 p->transpose_a, rows, depth);
}

static void multiply_tile(const struct product *p, int64_t row, int64_t col, float *packed_b)
{
    int64_t rows = ha_cpu_min(p->tile_rows, p->chunk_rows - row);
    int64_t cols = ha_cpu_min(HA_GEMM_TILE_COLS, p->cols - col);
    float *c = (float *)p->c->data + (p->row0 + row) * p->c->stride + col;

    for (int64_t s = 0; s < p->n_slices; s++) {
        int64_t depth = slice_depth(p, p->slice0 + s), depth0 = (p->slice0 + s) * HA_GEMM_DEPTH;
        int64_t at = p->transpose_b ? col * p->b->stride + depth0 : depth0 * p->b->stride + col;

        ha_gemm_pack_b(p->leaf, packed_b,
                       (const char *)p->b->data + (size_t)at * ha_dtype_bytes(p->b->dtype),
                       p->b->dtype, p->b->stride, p->transpose_b, depth, cols);
        for (int64_t i = 0; i < rows; i += TILE_ROWS)
            ha_gemm_packed_product(p->leaf, c + i * p->c->stride, p->c->stride,
                                   packed_slice(p, s) + (row + i) * depth, packed_b,
                                   ha_cpu_min(TILE_ROWS, rows - i), cols, depth, p->alpha,
                                   p->slice0 + s == 0 ? p->beta : 1.0f);
    }
}

static void pack_tile(const void *context, int64_t tile, void *scratch)
{
    const struct product *p = context;
    int64_t panels = ha_cpu_ceil_div(p->chunk_rows, p->leaf->mr);
    int64_t slice = tile / ha_cpu_ceil_div(panels, PANELS);
    int64_t first = tile % ha_cpu_ceil_div(panels, PANELS) * PANELS;

    for (int64_t i = first; i < ha_cpu_min(first + PANELS, panels); i++)
        pack_panel(p, slice, i, scratch);
}

static int64_t row_tiles(const struct product *p)
{
    return ha_cpu_ceil_div(p->chunk_rows, p->tile_rows);
}

static void product_tile(const void *context, int64_t tile, void *scratch)
{
    const struct product *p = context;

    multiply_tile(p, tile % row_tiles(p) * p->tile_rows, tile / row_tiles(p) * HA_GEMM_TILE_COLS,
                  scratch);
}

static void multiply_group(struct ha_cpu *cpu, const struct product *p)
{
    int64_t panel_tiles = ha_cpu_ceil_div(ha_cpu_ceil_div(p->chunk_rows, p->leaf->mr), PANELS);
    double area = (double)p->chunk_rows * (double)ha_cpu_min(p->n_slices * HA_GEMM_DEPTH, p->depth);

    ha_cpu_for_tiles(cpu, panel_tiles * p->n_slices, area * PACK_WORK, pack_tile, p);
    ha_cpu_for_tiles(cpu, row_tiles(p) * ha_cpu_ceil_div(p->cols, HA_GEMM_TILE_COLS),
                     area * (double)p->cols, product_tile, p);
}

/* c = beta * c, for a product without depth. */
static void scale_only(const struct ha_matrix *c, float beta)
{
    for (int64_t i = 0; i < c->rows; i++)
        for (int64_t j = 0; j < c->cols; j++) {
            float *element = (float *)c->data + i * c->stride + j;

            *element = beta == 0.0f ? 0.0f : *element * beta;
        }
}

static int check(const struct product *p, struct ha_error *err)
{
    const struct ha_matrix *a = p->a, *b = p->b, *c = p->c;
    int64_t b_depth = p->transpose_b ? b->cols : b->rows;
    int64_t b_cols = p->transpose_b ? b->rows : b->cols;

    if (c->dtype != HA_DTYPE_F32)
        return ha_error_set(err, EINVAL, "gemm: the result must be F32 on the CPU, not %s",
                            ha_dtype_name(c->dtype));
    if (p->rows != c->rows || b_cols != c->cols || p->depth != b_depth)
        return ha_error_set(err, EINVAL,
                            "gemm: %" PRId64 " x %" PRId64 " times %" PRId64 " x %" PRId64
                            " does not give %" PRId64 " x %" PRId64,
                            p->rows, p->depth, b_depth, b_cols, c->rows, c->cols);
    if (a->stride < a->cols || b->stride < b->cols || c->stride < c->cols)
        return ha_error_set(err, EINVAL, "gemm: a row stride is below the number of columns");
    return 0;
}

static double bytes_of(const struct product *p)
{
    double c_times = p->beta == 0.0f ? 1.0 : 2.0;

    return (double)p->rows * (double)p->depth * (double)ha_dtype_bytes(p->a->dtype) +
           (double)p->depth * (double)p->cols * (double)ha_dtype_bytes(p->b->dtype) +
           c_times * (double)p->rows * (double)p->cols * (double)ha_dtype_bytes(p->c->dtype);
}

int ha_cpu_op_gemm(struct ha_backend *backend, const struct ha_matrix *c, const struct ha_matrix *a,
                   bool transpose_a, const struct ha_matrix *b, bool transpose_b, float alpha,
                   float beta, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct product p = {.leaf = &cpu->leaf,
                        .c = c,
                        .a = a,
                        .b = b,
                        .transpose_a = transpose_a,
                        .transpose_b = transpose_b,
                        .rows = transpose_a ? a->cols : a->rows,
                        .cols = c->cols,
                        .depth = transpose_a ? a->rows : a->cols,
                        .alpha = alpha,
                        .beta = beta};
    /* A slice of CHUNK_ROWS fits HA_GEMM_SHARED_BYTES. */
    int64_t slices = ha_cpu_ceil_div(p.depth, HA_GEMM_DEPTH), slice_elements, group;
    int rc = check(&p, err);

    if (rc < 0 || p.rows == 0 || p.cols == 0)
        return rc;
    if (p.depth == 0) {
        scale_only(c, beta);
        return 0;
    }
    slice_elements = ha_gemm_packed(ha_cpu_min(p.rows, CHUNK_ROWS), cpu->leaf.mr,
                                    ha_cpu_min(p.depth, HA_GEMM_DEPTH));
    group = HA_GEMM_SHARED_BYTES / (slice_elements * (int64_t)sizeof(float));
    group = ha_cpu_min(group > 0 ? group : 1, slices);
    rc = ha_cpu_scratch(cpu, (size_t)(group * slice_elements) * sizeof(float),
                        HA_GEMM_THREAD_ELEMENTS * sizeof(float), err);
    if (rc < 0)
        return rc;
    p.packed_a = (float *)(void *)cpu->shared;
    for (p.row0 = 0; p.row0 < p.rows; p.row0 += CHUNK_ROWS) {
        p.chunk_rows = ha_cpu_min(CHUNK_ROWS, p.rows - p.row0);
        p.tile_rows =
            ha_cpu_ceil_div(p.cols, HA_GEMM_TILE_COLS) >= ENOUGH_TILES ? CHUNK_ROWS : TILE_ROWS;
        for (p.slice0 = 0; p.slice0 < slices; p.slice0 += group) {
            p.n_slices = ha_cpu_min(group, slices - p.slice0);
            multiply_group(cpu, &p);
        }
    }
    backend->flops += 2.0 * (double)p.rows * (double)p.cols * (double)p.depth;
    backend->bytes_moved += bytes_of(&p);
    return 0;
}
