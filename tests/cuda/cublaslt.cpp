/* cublaslt.cpp - the part of cuBLASLt that kernels/cuda calls, on the CPU
 *
 * Products of column-major matrices, one chain of multiply-adds over the depth in
 * f32.  It refuses what the library refuses (types that do not go together, leading
 * dimensions below the rows, an algorithm made for better aligned addresses), and
 * offers ALGORITHMS that differ in the order of the sum, so that a change of the
 * choice shows in bits.
 *
 * Which of them is suggested first hangs on the number of rows that kernels/cuda asks for (the
 * columns here), as the library's choice does; and so does, by more than any real one does, the
 * order of every algorithm's sum.  The algorithm SPLIT adds up parts of the depth, of
 * which fewer rows have more. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/cuda/device_memory.hpp"
#include "tests/cuda/queue.hpp"

struct cublasLtContext {
    int unused;
};

namespace
{

enum { ALGORITHMS = 4, SPLIT = 3, FEW = 64 };
const uint64_t MAGIC = 0x68612d656d756c61u;

struct layout {
    uint64_t type, rows, cols, ld;
};

struct operation {
    uint64_t compute, scale, transpose_a, transpose_b;
};

struct preference {
    uint64_t workspace, reduction, alignment[4];
};

struct algorithm {
    uint64_t magic, index, alignment[4];
};

static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "");
static_assert(sizeof(operation) <= sizeof(cublasLtMatmulDescOpaque_t), "");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "");
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "");

template <typename T, typename Opaque> T read(const Opaque *opaque)
{
    T value;

    memcpy(&value, opaque, sizeof(value));
    return value;
}

template <typename T, typename Opaque> void write(Opaque *opaque, const T &value)
{
    memcpy(opaque, &value, sizeof(value));
}

float element(const void *data, uint64_t type, uint64_t at)
{
    switch (type) {
    case CUDA_R_16BF:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[at]);
    case CUDA_R_16F:
        return __half2float(static_cast<const __half *>(data)[at]);
    default:
        return static_cast<const float *>(data)[at];
    }
}

void set_element(void *data, uint64_t type, uint64_t at, float value)
{
    switch (type) {
    case CUDA_R_16BF:
        static_cast<__nv_bfloat16 *>(data)[at] = __float2bfloat16(value);
        break;
    case CUDA_R_16F:
        static_cast<__half *>(data)[at] = __float2half(value);
        break;
    default:
        static_cast<float *>(data)[at] = value;
    }
}

/* op(matrix) as f32, the lines of one step of the depth contiguous. */
std::vector<float> widen(const void *data, const layout &l, bool depth_is_rows, uint64_t lines,
                         uint64_t depth)
{
    std::vector<float> wide(lines * depth);

    for (uint64_t k = 0; k < depth; k++)
        for (uint64_t i = 0; i < lines; i++)
            wide[k * lines + i] =
                element(data, l.type, depth_is_rows ? i * l.ld + k : k * l.ld + i);
    return wide;
}

struct product {
    operation op;
    layout a, b, c, d;
    const void *a_data, *b_data, *c_data;
    void *d_data;
    float alpha, beta;
    uint64_t index;
};

/* The steps of the depth in the order in which an algorithm adds them to the sums of n columns. */
std::vector<uint64_t> steps_of(uint64_t depth, uint64_t index, uint64_t n)
{
    std::vector<uint64_t> steps(depth);

    for (uint64_t k = 0; k < depth; k++) {
        uint64_t step = index == 2   ? (k % 2 ? depth - 1 - k / 2 : k / 2)
                        : index == 1 ? depth - 1 - k
                                     : k;

        steps[k] = (step + n % 5) % depth;
    }
    return steps;
}

/* Parts of the depth, each with a sum of its own. */
uint64_t parts_of(uint64_t index, uint64_t n)
{
    return index != SPLIT ? 1 : n <= 16 ? 4 : 2;
}

/* sums += x * y, for each by itself.  Within vectors of this file, n of which the callers have:
 * sanitizers look at what comes from the outside and goes there, in element and set_element. */
__attribute__((no_sanitize("address", "undefined"))) void add_scaled(float *sums, const float *x,
                                                                     float y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        sums[i] += x[i] * y;
}

void multiply(const product &p)
{
    bool ta = p.op.transpose_a != CUBLAS_OP_N, tb = p.op.transpose_b != CUBLAS_OP_N;
    uint64_t m = p.d.rows, n = p.d.cols, depth = ta ? p.a.rows : p.a.cols;
    std::vector<float> a = widen(p.a_data, p.a, ta, m, depth);
    std::vector<float> b = widen(p.b_data, p.b, !tb, n, depth);
    std::vector<uint64_t> steps = steps_of(depth, p.index, n);
    uint64_t parts = parts_of(p.index, n);
    std::vector<float> sums(m), part(m);

    for (uint64_t j = 0; j < n; j++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (uint64_t i = 0; i < parts; i++) {
            std::fill(part.begin(), part.end(), 0.0f);
            for (uint64_t k = depth * i / parts; k < depth * (i + 1) / parts; k++)
                add_scaled(part.data(), &a[steps[k] * m], b[steps[k] * n + j], m);
            add_scaled(sums.data(), part.data(), 1.0f, m);
        }
        for (uint64_t i = 0; i < m; i++) {
            float sum = p.alpha * sums[i];

            if (p.beta != 0.0f)
                sum += p.beta * element(p.c_data, p.c.type, j * p.c.ld + i);
            set_element(p.d_data, p.d.type, j * p.d.ld + i, sum);
        }
    }
}

bool types_go_together(uint64_t in, uint64_t out)
{
    return out == CUDA_R_32F || (in == out && in != CUDA_R_32F);
}

cublasStatus_t check(const operation &op, const layout &a, const layout &b, const layout &c,
                     const layout &d)
{
    bool ta = op.transpose_a != CUBLAS_OP_N, tb = op.transpose_b != CUBLAS_OP_N;
    const layout *all[] = {&a, &b, &c, &d};

    for (const layout *l : all)
        if (l->rows == 0 || l->cols == 0 || l->ld < l->rows)
            return CUBLAS_STATUS_INVALID_VALUE;
    if ((ta ? a.cols : a.rows) != d.rows || (tb ? b.rows : b.cols) != d.cols ||
        (ta ? a.rows : a.cols) != (tb ? b.cols : b.rows) || c.rows != d.rows || c.cols != d.cols)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (op.compute != CUBLAS_COMPUTE_32F || op.scale != CUDA_R_32F || a.type != b.type ||
        c.type != d.type || !types_go_together(a.type, d.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

size_t workspace_of(uint64_t index)
{
    return index == 1 || index == SPLIT ? (size_t)1 << 20 : 0;
}

/* Algorithms for n columns, best first. */
std::vector<uint64_t> suggested(uint64_t n, const preference &p)
{
    std::vector<uint64_t> all, allowed;

    if (n <= FEW)
        all = {SPLIT, 0, 1, 2};
    else
        all = n / FEW % 2 ? std::vector<uint64_t>{0, 1, 2, SPLIT}
                          : std::vector<uint64_t>{2, 1, 0, SPLIT};
    for (uint64_t index : all)
        if (workspace_of(index) <= p.workspace &&
            (index != SPLIT || (p.reduction & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)))
            allowed.push_back(index);
    return allowed;
}

/* The bytes from the first element to the last. */
void expect_matrix(const void *data, const layout &l)
{
    size_t element = l.type == CUDA_R_32F ? 4 : 2;

    emulator::expect_device("cublasLtMatmul", data, ((l.cols - 1) * l.ld + l.rows) * element);
}

bool aligned(const void *address, uint64_t alignment)
{
    return alignment == 0 || reinterpret_cast<uintptr_t>(address) % alignment == 0;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return 1;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED   ? "the product is not supported"
           : status == CUBLAS_STATUS_INVALID_VALUE ? "an argument is wrong"
                                                   : "an error of the emulated library";
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    memset(desc, 0, size);
    write(desc, operation{(uint64_t)compute, (uint64_t)scale, CUBLAS_OP_N, CUBLAS_OP_N});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size)
{
    operation op = read<operation>(desc);

    if (size != sizeof(int32_t))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (name == CUBLASLT_MATMUL_DESC_TRANSA)
        op.transpose_a = (uint64_t) * static_cast<const int32_t *>(value);
    else if (name == CUBLASLT_MATMUL_DESC_TRANSB)
        op.transpose_b = (uint64_t) * static_cast<const int32_t *>(value);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    write(desc, op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t opaque, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    memset(opaque, 0, size);
    write(opaque, layout{(uint64_t)type, rows, cols, (uint64_t)ld});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t opaque, size_t size)
{
    memset(opaque, 0, size);
    write(opaque, preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size)
{
    preference p = read<preference>(opaque);
    uint32_t word = 0;

    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && size == sizeof(p.workspace)) {
        memcpy(&p.workspace, value, size);
        write(opaque, p);
        return CUBLAS_STATUS_SUCCESS;
    }
    if (size != sizeof(word))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&word, value, size);
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        p.reduction = word;
    else if (name >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
             name <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
        p.alignment[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = word;
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    write(opaque, p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preferred, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    preference p = read<preference>(preferred);
    cublasStatus_t status = check(read<operation>(desc), read<layout>(a), read<layout>(b),
                                  read<layout>(c), read<layout>(d));

    *found = 0;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    /* Sums in an order that differs from run to run are not allowed here. */
    if (p.reduction & CUBLASLT_REDUCTION_SCHEME_INPLACE)
        return CUBLAS_STATUS_INTERNAL_ERROR;
    for (uint64_t index : suggested(read<layout>(d).cols, p)) {
        algorithm made = {MAGIC, index, {}};
        int i = *found;

        if (i == wanted)
            break;

        memcpy(made.alignment, p.alignment, sizeof(made.alignment));
        results[i] = cublasLtMatmulHeuristicResult_t();
        write(&results[i].algo, made);
        results[i].state = CUBLAS_STATUS_SUCCESS;
        results[i].workspaceSize = workspace_of(index);
        (*found)++;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    algorithm chosen = read<algorithm>(algo);

    if (chosen.magic != MAGIC || chosen.index >= ALGORITHMS)
        return CUBLAS_STATUS_INVALID_VALUE;
    *result = cublasLtMatmulHeuristicResult_t();
    result->workspaceSize = workspace_of(chosen.index);
    result->state = CUBLAS_STATUS_SUCCESS;
    return check(read<operation>(desc), read<layout>(a), read<layout>(b), read<layout>(c),
                 read<layout>(d));
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t name,
                                                    void *value, size_t size, size_t *written)
{
    bool split = read<algorithm>(algo).index == SPLIT;
    uint32_t word;

    if (name == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)
        word = split ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
    else if (name == CUBLASLT_ALGO_CONFIG_SPLITK_NUM)
        word = split ? 2 : 1;
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size != sizeof(word))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(value, &word, size);
    *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    algorithm chosen = read<algorithm>(algo);
    product p = {read<operation>(desc),
                 read<layout>(a_layout),
                 read<layout>(b_layout),
                 read<layout>(c_layout),
                 read<layout>(d_layout),
                 a,
                 b,
                 c,
                 d,
                 *static_cast<const float *>(alpha),
                 *static_cast<const float *>(beta),
                 chosen.index};
    cublasStatus_t status = check(p.op, p.a, p.b, p.c, p.d);

    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (chosen.magic != MAGIC || chosen.index >= ALGORITHMS || !stream ||
        !aligned(a, chosen.alignment[0]) || !aligned(b, chosen.alignment[1]) ||
        !aligned(c, chosen.alignment[2]) || !aligned(d, chosen.alignment[3]) ||
        (!workspace && workspace_of(chosen.index)) || workspace_bytes < workspace_of(chosen.index))
        return CUBLAS_STATUS_INVALID_VALUE;
    /* Time is counted in pieces of work: the library's first suggestion is the slowest. */
    for (uint64_t i = 0; i < (chosen.index == 0 ? 2 : chosen.index - 1); i++)
        emulator::enqueue(
            stream, [] {}, [] {});
    emulator::enqueue(
        stream,
        [=] {
            expect_matrix(a, p.a);
            expect_matrix(b, p.b);
            expect_matrix(d, p.d);
            if (p.beta != 0.0f)
                expect_matrix(c, p.c);
            if (workspace_of(chosen.index))
                emulator::expect_device("cublasLtMatmul", workspace, workspace_bytes);
        },
        [=] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}
}
