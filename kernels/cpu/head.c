/* head.c - log-probabilities over the vocabulary and their hidden gradient
 *
 * A chunk of rows at a time: logits by one product, statistics row by row, the
 * logits turned in place into onehot - p, the gradient by a second product.  The
 * chunk is bounded by CHUNK_BYTES; each row's result does not depend on where
 * chunks end. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "common/base/error.h"

#define CHUNK_BYTES ((int64_t)64 << 20)

static int check(const struct ha_head *head, struct ha_error *err)
{
    if (head->weight.cols != head->width || head->weight.rows < 1)
        return ha_error_set(err, EINVAL,
                            "head: weight is %" PRId64 " x %" PRId64 ", hidden width %" PRId64,
                            head->weight.rows, head->weight.cols, head->width);
    for (int64_t i = 0; i < head->n_rows; i++)
        if (head->targets[i] < 0 || head->targets[i] >= head->weight.rows)
            return ha_error_set(err, EINVAL,
                                "head: target %" PRId32 " of row %" PRId64
                                " is outside the vocabulary of %" PRId64,
                                head->targets[i], i, head->weight.rows);
    return 0;
}

/* The first largest element that is a number; 0 where none is.  top is the largest where the row
 * is known to have numbers alone. */
static int32_t first_largest(const float *z, float top, bool numbers_alone, int64_t n)
{
    int64_t best = 0;

    for (int64_t i = 0; numbers_alone && i < n; i++)
        if (z[i] == top)
            return (int32_t)i;
    for (int64_t i = 1; i < n; i++)
        if (z[i] > z[best] || (isnan(z[best]) && !isnan(z[i])))
            best = i;
    return isnan(z[best]) ? 0 : (int32_t)best;
}

/* Fill in the outputs of one row; z becomes d logp / d z when a gradient is wanted. */
static void finish_row(const struct ha_leaf *leaf, const struct ha_head *head, int64_t row,
                       float *z)
{
    int64_t n = head->weight.rows;
    int32_t target = head->targets[row];
    double sum, lse;
    float top, logp;

    if (head->round_logits_bf16)
        leaf->round_bf16(z, n);
    top = leaf->largest(z, n);
    sum = leaf->exp_sum(z, 1.0f, top, n);
    lse = (double)top + log(sum);
    logp = (float)((double)z[target] - lse);
    head->logp[row] = logp;
    if (head->logsumexp)
        head->logsumexp[row] = (float)lse;
    if (head->entropy)
        head->entropy[row] = (float)(log(sum) - leaf->exp_moment(z, top, n) / sum);
    if (head->mean_logit)
        head->mean_logit[row] = (float)(leaf->sum(z, n) / (double)n);
    if (head->logsumexp2)
        head->logsumexp2[row] = (float)(2.0 * (double)top + log(leaf->exp_sum(z, 2.0f, top, n)));
    if (head->argmax)
        head->argmax[row] = first_largest(z, top, !isnan(sum), n);
    if (head->dhidden) {
        leaf->negative_exp(z, (float)lse, n);
        z[target] = -expm1f(logp); /* 1 - p without cancellation */
    }
}

/* A chunk: rows `row` and following, whose logits lie at z. */
struct chunk {
    const struct ha_leaf *leaf;
    const struct ha_head *head;
    int64_t row;
    float *z;
};

static void finish_rows(const void *context, int64_t begin, int64_t end)
{
    const struct chunk *chunk = context;

    for (int64_t i = begin; i < end; i++)
        finish_row(chunk->leaf, chunk->head, chunk->row + i,
                   chunk->z + i * chunk->head->weight.rows);
}

static struct ha_matrix view(const void *data, int64_t rows, int64_t cols, int64_t stride)
{
    union {
        const void *given;
        void *kept;
    } pointer = {data};

    return (struct ha_matrix){pointer.kept, HA_DTYPE_F32, rows, cols, stride};
}

/* Whole register tiles. */
int64_t ha_cpu_head_chunk(const struct ha_leaf *leaf, int64_t vocabulary, int64_t n_rows)
{
    int64_t rows = CHUNK_BYTES / (vocabulary * (int64_t)sizeof(float));

    if (rows > leaf->mr)
        rows = rows / leaf->mr * leaf->mr;
    return ha_cpu_min(rows > 0 ? rows : 1, n_rows);
}

int ha_cpu_op_head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t chunk, vocabulary = head->weight.rows;
    int rc = check(head, err);

    if (rc < 0 || head->n_rows == 0)
        return rc;
    chunk = ha_cpu_head_chunk(&cpu->leaf, vocabulary, head->n_rows);
    rc = ha_cpu_work(cpu, (size_t)(chunk * vocabulary) * sizeof(float), err);
    for (int64_t row = 0; rc == 0 && row < head->n_rows; row += chunk) {
        int64_t n = ha_cpu_min(chunk, head->n_rows - row);
        float *z = (float *)(void *)cpu->work;
        struct ha_matrix logits = view(z, n, vocabulary, vocabulary);
        struct ha_matrix hidden = view((const float *)head->hidden + row * head->hidden_stride, n,
                                       head->width, head->hidden_stride);

        rc = ha_cpu_op_gemm(backend, &logits, &hidden, false, &head->weight, true, 1.0f, 0.0f, err);
        if (rc < 0)
            break;
        ha_cpu_for_rows(cpu, n, vocabulary, finish_rows, &(struct chunk){&cpu->leaf, head, row, z});
        if (head->dhidden) {
            struct ha_matrix gradient =
                view(head->dhidden + row * head->width, n, head->width, head->width);

            rc = ha_cpu_op_gemm(backend, &gradient, &logits, false, &head->weight, false, 1.0f,
                                0.0f, err);
        }
    }
    return rc;
}

int ha_cpu_op_logits(struct ha_backend *backend, float *logits, const void *hidden,
                     const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                     struct ha_error *err)
{
    struct ha_matrix c = view(logits, n_rows, weight->rows, weight->rows);
    struct ha_matrix a = view(hidden, n_rows, weight->cols, hidden_stride);

    return ha_cpu_op_gemm(backend, &c, &a, false, weight, true, 1.0f, 0.0f, err);
}
