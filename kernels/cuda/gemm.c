/* gemm.c - the matrix product through cuBLASLt
 *
 * The library's matrices are column-major, so a row-major c = op(a) op(b) is asked for
 * as c' = op(b)' op(a)', where a view of ours with `stride` is the library's transpose
 * with that leading dimension: b comes first, and the flags stay.
 *
 * Each shape's algorithm is chosen once (gemm_choice.h): the library's first
 * suggestion for the rounded shape, a pure function of device, library and shape, or
 * the fastest of its suggestions by the clock where that was asked for.  Only
 * algorithms whose sums have a fixed order are let in: none that adds up parts of the
 * depth by atomics.
 *
 * Where rows are kept separate (ha_backend_separate_rows), all products of one weight are
 * one product, of HA_CUDA_SEPARATE_ROWS rows, however many are asked for: same sizes, types
 * and alignments, same algorithm.  More rows are several such products; of the last the rest
 * is whatever stands there, and thrown away.  So nothing depends on how many rows there are.
 * Nor does it on which row of the product one is, or on what the others hold: the algorithm
 * neither splits the depth nor has memory to put parts of sums into (no reduction scheme, no
 * workspace), so that each element is made by one block of threads, "in one sequence" over
 * the depth; blocks, and the warps of one, run the same code over other rows; and a matrix
 * instruction makes each element of its tile from one row and one column, in the same way for
 * all elements.  The last is how devices are built, not what a manual promises:
 * tests/unit/kernels/test_gemm.c asks the device that it runs on. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/error.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/gemm_choice.h"
#include "kernels/cuda/launch.h"

enum { CANDIDATES = 8, TIMED_RUNS = 4, MOST_ALIGNMENT = 16 };

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(((struct ha_cuda_choice *)0)->algorithm),
               "an algorithm of the library has the size that choices keep");

struct product {
    struct ha_matrix c, d; /* what is added to and the result; mostly the same memory */
    struct ha_matrix a, b; /* in one type */
    bool transpose_a, transpose_b;
    int64_t rows, cols, depth;
    float alpha, beta;
};

/* The library's descriptions of a product. */
struct description {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, c, d;
};

static cudaDataType_t type_of(enum ha_dtype dtype)
{
    return dtype == HA_DTYPE_F32 ? CUDA_R_32F : dtype == HA_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static cublasStatus_t describe_matrix(cublasLtMatrixLayoutOpaque_t *layout, enum ha_dtype dtype,
                                      int64_t rows, int64_t cols, int64_t stride)
{
    /* A single row's stride is never used; the library wants it to reach over the columns. */
    return cublasLtMatrixLayoutInit(layout, type_of(dtype), (uint64_t)cols, (uint64_t)rows, stride);
}

/* Of a product of rows x depth x cols with the views' types and strides. */
static cublasStatus_t describe(struct description *d, const struct product *p, int64_t rows,
                               int64_t cols, int64_t depth)
{
    int32_t first = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int32_t second = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    int64_t a_cols = p->transpose_a ? rows : depth, b_cols = p->transpose_b ? depth : cols;
    cublasStatus_t status = cublasLtMatmulDescInit(&d->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                                sizeof(first));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                                sizeof(second));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe_matrix(&d->a, p->a.dtype, p->transpose_a ? depth : rows, a_cols,
                                 p->a.stride > a_cols ? p->a.stride : a_cols);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = describe_matrix(&d->b, p->b.dtype, p->transpose_b ? cols : depth, b_cols,
                                 p->b.stride > b_cols ? p->b.stride : b_cols);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            describe_matrix(&d->c, p->c.dtype, rows, cols, p->c.stride > cols ? p->c.stride : cols);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            describe_matrix(&d->d, p->d.dtype, rows, cols, p->d.stride > cols ? p->d.stride : cols);
    return status;
}

static cublasStatus_t multiply(const struct ha_cuda *cuda, const struct product *p,
                               struct description *d, const cublasLtMatmulAlgo_t *algorithm,
                               void *result)
{
    return cublasLtMatmul(cuda->lt, &d->operation, &p->alpha, p->b.data, &d->b, p->a.data, &d->a,
                          &p->beta, p->c.data, &d->c, result, &d->d, algorithm, cuda->workspace,
                          HA_CUDA_WORKSPACE_BYTES, cuda->stream);
}

/* ---- choosing ---- */

static cublasStatus_t prefer(cublasLtMatmulPreferenceOpaque_t *preference,
                             const struct ha_cuda_product *key)
{
    static const cublasLtMatmulPreferenceAttributes_t names[] = {
        CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    };
    /* Parts of the depth may be summed by a kernel of its own from the workspace, in order; not
     * where rows are separate. */
    const uint32_t values[] = {key->separate ? CUBLASLT_REDUCTION_SCHEME_NONE
                                             : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                               key->align_b, key->align_a, key->align_c, key->align_c};
    uint64_t workspace = key->separate ? 0 : HA_CUDA_WORKSPACE_BYTES;
    cublasStatus_t status = cublasLtMatmulPreferenceInit(preference);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace));
    for (size_t i = 0; status == CUBLAS_STATUS_SUCCESS && i < sizeof(names) / sizeof(names[0]); i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &values[i],
                                                      sizeof(values[i]));
    return status;
}

/* Is each element of the result made by one sum over the whole depth? */
static bool sums_at_once(const cublasLtMatmulAlgo_t *algorithm)
{
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_MASK;
    int32_t splits = 0;
    size_t written;

    return cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                                &reduction, sizeof(reduction),
                                                &written) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                                sizeof(splits),
                                                &written) == CUBLAS_STATUS_SUCCESS &&
           reduction == CUBLASLT_REDUCTION_SCHEME_NONE && (splits == 0 || splits == 1);
}

static bool may_use(const struct ha_cuda_product *key, const cublasLtMatmulHeuristicResult_t *found)
{
    if (found->state != CUBLAS_STATUS_SUCCESS)
        return false;
    return key->separate ? found->workspaceSize == 0 && sums_at_once(&found->algo)
                         : found->workspaceSize <= HA_CUDA_WORKSPACE_BYTES;
}

/* The library's suggestions, best first. */
static int suggest(struct ha_cuda *cuda, const struct ha_cuda_product *key, struct description *d,
                   cublasLtMatmulHeuristicResult_t results[CANDIDATES], int *ret_n,
                   struct ha_error *err)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasStatus_t status = prefer(&preference, key);
    int n = 0, usable = 0;

    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(cuda->lt, &d->operation, &d->b, &d->a, &d->c, &d->d,
                                                &preference, CANDIDATES, results, &n);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < n; i++)
        if (may_use(key, &results[i]))
            results[usable++] = results[i];
    if (status == CUBLAS_STATUS_SUCCESS && usable == 0)
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status != CUBLAS_STATUS_SUCCESS)
        return ha_cuda_check_lt(cuda, (int)status, "gemm: asking for an algorithm", err);
    *ret_n = usable;
    return 0;
}

/* Milliseconds of the fastest of some runs; FLT_MAX when the algorithm does not run. */
static float time_of(struct ha_cuda *cuda, const struct product *p, struct description *d,
                     const cublasLtMatmulAlgo_t *algorithm, void *result, cudaEvent_t begin,
                     cudaEvent_t end)
{
    float best = FLT_MAX;

    for (int run = 0; run <= TIMED_RUNS; run++) {
        float ms = FLT_MAX;

        if (cudaEventRecord(begin, cuda->stream) != cudaSuccess ||
            multiply(cuda, p, d, algorithm, result) != CUBLAS_STATUS_SUCCESS ||
            cudaEventRecord(end, cuda->stream) != cudaSuccess ||
            cudaEventSynchronize(end) != cudaSuccess ||
            cudaEventElapsedTime(&ms, begin, end) != cudaSuccess)
            return FLT_MAX;
        if (run > 0 && ms < best) /* the first loads code and fills caches */
            best = ms;
    }
    return best;
}

/* Put the fastest of n first.  The trials write to memory of their own, as c may be added to;
 * where the device has none left, the library's order stays and -ENOMEM is returned. */
static int time_all(struct ha_cuda *cuda, const struct product *p, struct description *d,
                    cublasLtMatmulHeuristicResult_t *results, int n, struct ha_error *err)
{
    size_t bytes = (size_t)(p->rows * p->d.stride) * ha_dtype_bytes(p->d.dtype);
    cudaEvent_t begin = NULL, end = NULL;
    void *result = NULL;
    float best = FLT_MAX;
    int rc = ha_backend_alloc_counted(&cuda->base, bytes, ha_cuda_alloc, &result, err);

    if (rc < 0)
        return rc;
    rc = ha_cuda_check(cuda, (int)cudaEventCreate(&begin), "creating an event", err);
    if (rc == 0)
        rc = ha_cuda_check(cuda, (int)cudaEventCreate(&end), "creating an event", err);
    for (int i = 0; rc == 0 && i < n; i++) {
        float ms = time_of(cuda, p, d, &results[i].algo, result, begin, end);

        if (ms < best) {
            best = ms;
            results[0].algo = results[i].algo;
        }
    }
    if (rc == 0)
        rc = ha_cuda_check(cuda, (int)cudaGetLastError(), "gemm: timing algorithms", err);
    if (begin)
        (void)cudaEventDestroy(begin);
    if (end)
        (void)cudaEventDestroy(end);
    ha_backend_unreserve(&cuda->base, ha_cuda_free(&cuda->base, result));
    return rc;
}

static int choose(struct ha_cuda *cuda, const struct product *p, const struct ha_cuda_product *key,
                  struct ha_cuda_choice *ret_choice, struct ha_error *err)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    struct ha_cuda_choice choice = {.product = *key};
    struct description d;
    cublasStatus_t status = describe(&d, p, key->rows, key->cols, key->depth);
    int n = 0, rc;

    if (status != CUBLAS_STATUS_SUCCESS)
        return ha_cuda_check_lt(cuda, (int)status, "gemm: describing a product", err);
    rc = suggest(cuda, key, &d, results, &n, err);
    if (rc == 0 && cuda->time_products && n > 1) {
        status = describe(&d, p, p->rows, p->cols, p->depth);
        rc = status == CUBLAS_STATUS_SUCCESS
                 ? time_all(cuda, p, &d, results, n, err)
                 : ha_cuda_check_lt(cuda, (int)status, "gemm: describing a product", err);
        choice.timed = rc == 0;
        if (rc == -ENOMEM)
            rc = 0;
    }
    if (rc < 0)
        return rc;
    memcpy(choice.algorithm, &results[0].algo, sizeof(choice.algorithm));
    *ret_choice = choice;
    return ha_cuda_choices_put(&cuda->choices, &choice, err);
}

/* Does the algorithm do this very shape? */
static bool does(const struct ha_cuda *cuda, struct description *d,
                 const cublasLtMatmulAlgo_t *algorithm)
{
    cublasLtMatmulHeuristicResult_t result;

    return cublasLtMatmulAlgoCheck(cuda->lt, &d->operation, &d->b, &d->a, &d->c, &d->d, algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= HA_CUDA_WORKSPACE_BYTES;
}

/* The algorithm for this product: from the table, or chosen now.  One that does the rounded
 * shape but not this one gives way to the library's first suggestion for this one, which is
 * as much a pure function of device, library and shape. */
static int algorithm_of(struct ha_cuda *cuda, const struct product *p, struct description *d,
                        cublasLtMatmulAlgo_t *ret_algorithm, struct ha_error *err)
{
    struct ha_cuda_product key =
        ha_cuda_product_of(&p->c, &p->a, p->transpose_a, &p->b, p->transpose_b, p->beta);
    const struct ha_cuda_choice *found = ha_cuda_choices_find(&cuda->choices, &key);
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    struct ha_cuda_choice chosen;
    int rc = 0, n;

    if (!found) {
        rc = choose(cuda, p, &key, &chosen, err);
        found = &chosen;
    }
    if (rc < 0)
        return rc;
    memcpy(ret_algorithm, found->algorithm, sizeof(*ret_algorithm));
    if (does(cuda, d, ret_algorithm))
        return 0;
    rc = suggest(cuda, &key, d, results, &n, err);
    if (rc == 0)
        *ret_algorithm = results[0].algo;
    return rc;
}

/* ---- the operation ---- */

static int check(const struct product *p, const struct ha_matrix *a, const struct ha_matrix *b,
                 struct ha_error *err)
{
    const struct ha_matrix *c = &p->c;
    int64_t b_depth = p->transpose_b ? b->cols : b->rows;
    int64_t b_cols = p->transpose_b ? b->rows : b->cols;

    if (p->rows != c->rows || b_cols != c->cols || p->depth != b_depth)
        return ha_error_set(err, EINVAL,
                            "gemm: %" PRId64 " x %" PRId64 " times %" PRId64 " x %" PRId64
                            " does not give %" PRId64 " x %" PRId64,
                            p->rows, p->depth, b_depth, b_cols, c->rows, c->cols);
    if (a->stride < a->cols || b->stride < b->cols || c->stride < c->cols)
        return ha_error_set(err, EINVAL, "gemm: a row stride is below the number of columns");
    return 0;
}

/* The view in another type, packed into scratch memory; itself where it has that type. */
static int bring_to(struct ha_cuda *cuda, enum ha_cuda_scratch use, enum ha_dtype dtype,
                    const struct ha_matrix *from, struct ha_matrix *ret_matrix,
                    struct ha_error *err)
{
    struct ha_matrix to = *from;
    size_t row_bytes;
    int rc;

    if (from->dtype == dtype) {
        *ret_matrix = *from;
        return 0;
    }
    to.dtype = dtype;
    to.stride = (from->cols + 7) / 8 * 8;
    row_bytes = (size_t)to.stride * ha_dtype_bytes(dtype);
    rc = ha_cuda_scratch(cuda, use, (size_t)to.rows * row_bytes, &to.data, err);
    if (rc == 0)
        rc = ha_cuda_check(cuda,
                           ha_cuda_launch_convert(cuda->stream, to.data, dtype, to.stride,
                                                  from->data, from->dtype, from->stride, from->rows,
                                                  from->cols),
                           "gemm: converting an operand", err);
    if (rc == 0)
        *ret_matrix = to;
    return rc;
}

static double bytes_of(const struct product *p)
{
    double c_times = p->beta == 0.0f ? 1.0 : 2.0;

    return (double)p->rows * (double)p->depth * (double)ha_dtype_bytes(p->a.dtype) +
           (double)p->depth * (double)p->cols * (double)ha_dtype_bytes(p->b.dtype) +
           c_times * (double)p->rows * (double)p->cols * (double)ha_dtype_bytes(p->c.dtype);
}

static void count_work(struct ha_cuda *cuda, const struct product *p)
{
    cuda->base.flops += 2.0 * (double)p->rows * (double)p->cols * (double)p->depth;
    cuda->base.bytes_moved += bytes_of(p);
}

/* ---- at once, or with its rows separate ---- */

static int multiply_at_once(struct ha_cuda *cuda, const struct product *p, struct ha_error *err)
{
    cublasLtMatmulAlgo_t algorithm;
    struct description d;
    cublasStatus_t status = describe(&d, p, p->rows, p->cols, p->depth);
    int rc;

    if (status != CUBLAS_STATUS_SUCCESS)
        return ha_cuda_check_lt(cuda, (int)status, "gemm: describing a product", err);
    rc = algorithm_of(cuda, p, &d, &algorithm, err);
    if (rc == 0)
        rc = ha_cuda_check_lt(cuda, (int)multiply(cuda, p, &d, &algorithm, p->d.data),
                              "gemm: multiplying", err);
    if (rc == 0)
        count_work(cuda, p);
    return rc;
}

/* The shortest stride of rows that are aligned as a key says and no better. */
static int64_t shortest_stride(int64_t cols, enum ha_dtype dtype, int alignment)
{
    int64_t step = (int64_t)alignment / (int64_t)ha_dtype_bytes(dtype);
    int64_t steps = step > 1 ? (cols + step - 1) / step : cols;

    step = step > 1 ? step : 1;
    if (alignment < MOST_ALIGNMENT && (int64_t)ha_dtype_bytes(dtype) <= alignment)
        steps += steps % 2 == 0;
    return steps * step;
}

/* The algorithm for separate rows of b's products.  It is asked for with strides of its own, so
 * that it does not hang on whose product comes first. */
static int separate_algorithm(struct ha_cuda *cuda, const struct product *p,
                              cublasLtMatmulAlgo_t *ret_algorithm, struct ha_error *err)
{
    struct ha_cuda_product key =
        ha_cuda_product_of(&p->c, &p->a, p->transpose_a, &p->b, p->transpose_b, p->beta);
    const struct ha_cuda_choice *found;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    struct ha_cuda_choice choice;
    struct product plain = *p;
    struct description d;
    cublasStatus_t status;
    int rc, n;

    key.rows = HA_CUDA_SEPARATE_ROWS;
    key.depth = p->depth;
    key.separate = 1;
    found = ha_cuda_choices_find(&cuda->choices, &key);
    if (found) {
        memcpy(ret_algorithm, found->algorithm, sizeof(*ret_algorithm));
        return 0;
    }
    plain.a.stride = shortest_stride(p->a.cols, p->a.dtype, key.align_a);
    plain.b.stride = shortest_stride(p->b.cols, p->b.dtype, key.align_b);
    plain.c.stride = shortest_stride(p->c.cols, p->c.dtype, key.align_c);
    plain.d.stride = plain.c.stride;
    status = describe(&d, &plain, key.rows, key.cols, key.depth);
    if (status != CUBLAS_STATUS_SUCCESS)
        return ha_cuda_check_lt(cuda, (int)status, "gemm: describing a product", err);
    rc = suggest(cuda, &key, &d, results, &n, err);
    if (rc < 0)
        return ha_error_prefix(err,
                               "rows cannot be kept separate in a product of %d x %" PRId64
                               " and %" PRId64 " columns",
                               HA_CUDA_SEPARATE_ROWS, key.depth, key.cols);
    choice = (struct ha_cuda_choice){.product = key};
    memcpy(choice.algorithm, &results[0].algo, sizeof(choice.algorithm));
    *ret_algorithm = results[0].algo;
    return ha_cuda_choices_put(&cuda->choices, &choice, err);
}

static struct ha_matrix part_of(const struct ha_matrix *matrix, int64_t row, int64_t rows,
                                int64_t col, int64_t cols)
{
    struct ha_matrix part = *matrix;

    part.data =
        (char *)matrix->data + (size_t)(row * matrix->stride + col) * ha_dtype_bytes(matrix->dtype);
    part.rows = rows;
    part.cols = cols;
    return part;
}

static int copy_rows(struct ha_cuda *cuda, const struct ha_matrix *to, const struct ha_matrix *from,
                     int64_t n_rows, struct ha_error *err)
{
    size_t bytes = ha_dtype_bytes(from->dtype);

    return ha_cuda_copy_rows(&cuda->base, to->data, (size_t)to->stride * bytes, from->data,
                             (size_t)from->stride * bytes, (size_t)from->cols * bytes, n_rows, err);
}

/* A view of scratch memory for a whole tile like `like`. */
static int tile_room(struct ha_cuda *cuda, enum ha_cuda_scratch use, const struct ha_matrix *like,
                     struct ha_matrix *ret_room, struct ha_error *err)
{
    struct ha_matrix room = *like;

    room.rows = HA_CUDA_SEPARATE_ROWS;
    room.stride = (like->cols + 7) / 8 * 8;
    *ret_room = room;
    return ha_cuda_scratch(cuda, use,
                           (size_t)(room.rows * room.stride) * ha_dtype_bytes(room.dtype),
                           &ret_room->data, err);
}

/* Where a whole tile may be read though the view has fewer rows: what stands behind them does not
 * matter. */
static bool reaches(struct ha_cuda *cuda, const struct ha_matrix *view)
{
    int64_t n = (HA_CUDA_SEPARATE_ROWS - 1) * view->stride + view->cols;

    return ha_cuda_holds(cuda, view->data, (size_t)n * ha_dtype_bytes(view->dtype));
}

/* Give a product of fewer rows operands of a whole tile, and memory for the result. */
static int pad_tile(struct ha_cuda *cuda, struct product *p, int64_t n_rows, struct ha_error *err)
{
    struct ha_matrix room;
    int rc = tile_room(cuda, HA_CUDA_SCRATCH_TILE_C, &p->c, &p->d, err);

    if (rc == 0 && (p->beta == 0.0f || !reaches(cuda, &p->c))) {
        if (p->beta != 0.0f)
            rc = copy_rows(cuda, &p->d, &p->c, n_rows, err);
        p->c = p->d;
    }
    if (rc < 0 || reaches(cuda, &p->a))
        return rc;
    rc = tile_room(cuda, HA_CUDA_SCRATCH_TILE_A, &p->a, &room, err);
    if (rc == 0)
        rc = copy_rows(cuda, &room, &p->a, n_rows, err);
    p->a = room;
    return rc;
}

/* Rows row .. row + n_rows, at most a tile. */
static int multiply_tile(struct ha_cuda *cuda, const struct product *all, int64_t row,
                         int64_t n_rows, const cublasLtMatmulAlgo_t *algorithm,
                         struct ha_error *err)
{
    struct product p = *all;
    struct ha_matrix c = part_of(&all->c, row, n_rows, 0, all->cols);
    struct description d;
    cublasStatus_t status;
    int rc = 0;

    p.rows = n_rows;
    count_work(cuda, &p);
    p.rows = HA_CUDA_SEPARATE_ROWS;
    p.a = part_of(&all->a, row, p.rows, 0, all->depth);
    p.c = p.d = c;
    if (n_rows < p.rows)
        rc = pad_tile(cuda, &p, n_rows, err);
    if (rc < 0)
        return rc;
    status = describe(&d, &p, p.rows, p.cols, p.depth);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = multiply(cuda, &p, &d, algorithm, p.d.data);
    rc = ha_cuda_check_lt(cuda, (int)status, "gemm: multiplying separate rows", err);
    if (rc == 0 && n_rows < p.rows)
        rc = copy_rows(cuda, &c, &p.d, n_rows, err);
    return rc;
}

/* Columns col .. col + n_cols of the result. */
static int multiply_columns(struct ha_cuda *cuda, const struct product *all, int64_t col,
                            int64_t n_cols, struct ha_error *err)
{
    struct product p = *all;
    cublasLtMatmulAlgo_t algorithm;
    int rc;

    p.cols = n_cols;
    p.c = p.d = part_of(&all->c, 0, all->rows, col, n_cols);
    p.b = all->transpose_b ? part_of(&all->b, col, n_cols, 0, all->depth)
                           : part_of(&all->b, 0, all->depth, col, n_cols);
    rc = separate_algorithm(cuda, &p, &algorithm, err);
    for (int64_t row = 0; rc == 0 && row < p.rows; row += HA_CUDA_SEPARATE_ROWS)
        rc = multiply_tile(cuda, &p, row, ha_cuda_min(HA_CUDA_SEPARATE_ROWS, p.rows - row),
                           &algorithm, err);
    return rc;
}

/* In tiles of one shape for each part of b's columns: wide results in several, so that the memory
 * for a tile of them stays small. */
static int multiply_separate(struct ha_cuda *cuda, const struct product *p, struct ha_error *err)
{
    int rc = 0;

    for (int64_t col = 0; rc == 0 && col < p->cols; col += HA_CUDA_SEPARATE_COLS)
        rc = multiply_columns(cuda, p, col, ha_cuda_min(HA_CUDA_SEPARATE_COLS, p->cols - col), err);
    return rc;
}

int ha_cuda_op_gemm(struct ha_backend *backend, const struct ha_matrix *c,
                    const struct ha_matrix *a, bool transpose_a, const struct ha_matrix *b,
                    bool transpose_b, float alpha, float beta, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    struct product p = {.c = *c,
                        .d = *c,
                        .transpose_a = transpose_a,
                        .transpose_b = transpose_b,
                        .rows = transpose_a ? a->cols : a->rows,
                        .cols = c->cols,
                        .depth = transpose_a ? a->rows : a->cols,
                        .alpha = alpha,
                        .beta = beta};
    enum ha_dtype in;
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_product_type(a->dtype, b->dtype, c->dtype, &in, err);
    if (rc == 0)
        rc = check(&p, a, b, err);
    if (rc < 0 || p.rows == 0 || p.cols == 0)
        return rc;
    if (p.depth == 0)
        return ha_cuda_check(cuda,
                             ha_cuda_launch_scale(cuda->stream, c->data, c->dtype, c->rows, c->cols,
                                                  c->stride, beta),
                             "gemm: scaling the result", err);
    rc = bring_to(cuda, HA_CUDA_SCRATCH_A, in, a, &p.a, err);
    if (rc == 0)
        rc = bring_to(cuda, HA_CUDA_SCRATCH_B, in, b, &p.b, err);
    if (rc < 0)
        return rc;
    return cuda->separate_rows && !transpose_a ? multiply_separate(cuda, &p, err)
                                               : multiply_at_once(cuda, &p, err);
}
