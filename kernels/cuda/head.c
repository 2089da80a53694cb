/* head.c - log-probabilities over the vocabulary and their hidden gradient; logits and draws
 *
 * A chunk of rows at a time: logits by one product, then one kernel (head.cu) that
 * takes the statistics and writes onehot - p over the logits, then the gradient by a
 * second product.  Where logits are to be rounded to bf16 the product writes them so. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "common/base/error.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"
#include "kernels/sample.h"

static struct ha_matrix view(const void *data, enum ha_dtype dtype, int64_t rows, int64_t cols,
                             int64_t stride)
{
    return (struct ha_matrix){(void *)(uintptr_t)data, dtype, rows, cols, stride};
}

static float *part(float *values, int64_t row)
{
    return values ? values + row : NULL;
}

/* Rows row .. row + n. */
static int do_chunk(struct ha_cuda *cuda, const struct ha_head *head, void *z, int64_t stride,
                    int64_t row, int64_t n, struct ha_error *err)
{
    bool half = head->round_logits_bf16;
    int64_t vocabulary = head->weight.rows;
    struct ha_matrix logits = view(z, half ? HA_DTYPE_BF16 : HA_DTYPE_F32, n, vocabulary, stride);
    struct ha_matrix hidden = view((const char *)head->hidden + row * head->hidden_stride * 2,
                                   HA_DTYPE_BF16, n, head->width, head->hidden_stride);
    struct ha_matrix slopes = view(z, HA_DTYPE_BF16, n, vocabulary, half ? stride : 2 * stride);
    struct ha_cuda_head_chunk chunk = {.logits = z,
                                       .logits_bf16 = half,
                                       .dlogits = head->dhidden != NULL,
                                       .n_rows = n,
                                       .vocabulary = vocabulary,
                                       .stride = stride,
                                       .first_row = row,
                                       .targets = head->targets + row,
                                       .logp = head->logp + row,
                                       .logsumexp = part(head->logsumexp, row),
                                       .entropy = part(head->entropy, row),
                                       .mean_logit = part(head->mean_logit, row),
                                       .logsumexp2 = part(head->logsumexp2, row),
                                       .argmax = head->argmax ? head->argmax + row : NULL,
                                       .fault_word = ha_cuda_fault_word(cuda)};
    int rc =
        ha_cuda_op_gemm(&cuda->base, &logits, &hidden, false, &head->weight, true, 1.0f, 0.0f, err);

    if (rc == 0)
        rc = ha_cuda_check(cuda, ha_cuda_launch_head(cuda->stream, &chunk), "head", err);
    if (rc == 0 && head->dhidden) {
        struct ha_matrix gradient =
            view(head->dhidden + row * head->width, HA_DTYPE_F32, n, head->width, head->width);

        rc = ha_cuda_op_gemm(&cuda->base, &gradient, &slopes, false, &head->weight, false, 1.0f,
                             0.0f, err);
    }
    return rc;
}

int ha_cuda_op_head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int64_t vocabulary = head->weight.rows, stride, row_bytes, chunk;
    void *z;
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0)
        return rc;
    if (head->weight.cols != head->width || vocabulary < 1 || vocabulary > INT_MAX / 2)
        return ha_error_set(err, EINVAL,
                            "head: weight is %" PRId64 " x %" PRId64 ", hidden width %" PRId64,
                            vocabulary, head->weight.cols, head->width);
    if (head->n_rows == 0)
        return 0;
    stride = ha_cuda_head_stride(vocabulary);
    row_bytes = stride * (head->round_logits_bf16 ? 2 : 4);
    chunk = ha_cuda_head_rows(vocabulary, !head->round_logits_bf16, head->n_rows);
    rc = ha_cuda_scratch(cuda, HA_CUDA_SCRATCH_LOGITS, (size_t)(chunk * row_bytes), &z, err);
    for (int64_t row = 0; rc == 0 && row < head->n_rows; row += chunk)
        rc = do_chunk(cuda, head, z, stride, row, ha_cuda_min(chunk, head->n_rows - row), err);
    return rc;
}

int ha_cuda_op_logits(struct ha_backend *backend, float *logits, const void *hidden,
                      const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                      struct ha_error *err)
{
    struct ha_matrix c = view(logits, HA_DTYPE_F32, n_rows, weight->rows, weight->rows);
    struct ha_matrix a = view(hidden, HA_DTYPE_BF16, n_rows, weight->cols, hidden_stride);

    return ha_cuda_op_gemm(backend, &c, &a, false, weight, true, 1.0f, 0.0f, err);
}

int ha_cuda_op_sample(struct ha_backend *backend, const struct ha_sample *sample,
                      struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_sample_check(sample, err);
    if (rc < 0 || sample->n_rows == 0)
        return rc;
    return ha_cuda_check(cuda, ha_cuda_launch_sample(cuda->stream, sample), "sample", err);
}
