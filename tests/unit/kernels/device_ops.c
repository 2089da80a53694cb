#include "tests/unit/kernels/device_ops.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"
#include "tests/unit/kernels/support.h"

enum { ZONE = 64, MOST = 128 };
static const uint8_t zone_mark = 0xda;

/* How an element lies on the host and on the device. */
enum form { ACT, F32, TWO_BYTES, I32, EIGHT_BYTES };

static size_t host_bytes(enum form form)
{
    return form == EIGHT_BYTES ? 8 : form == TWO_BYTES ? 2 : 4;
}

static size_t device_bytes(enum form form)
{
    return form == ACT ? 2 : host_bytes(form);
}

/* Rows of an operand; a result where `out` is set. */
struct operand {
    char *host;
    enum form form;
    int64_t rows, cols, stride;
    bool out;
    int region;
};

/* Host memory of one or more operands that overlap, and its copy on the device. */
struct region {
    char *begin, *end; /* host */
    enum form form;
    bool out;
    char *device, *sent; /* what was sent, zones included */
    int64_t n;           /* elements without zones */
};

struct call {
    struct ha_backend *backend;
    struct operand operands[MOST];
    struct region regions[MOST];
    int n_operands, n_regions;
};

static int64_t extent(const struct operand *o)
{
    return o->rows > 0 && o->cols > 0 ? (o->rows - 1) * o->stride + o->cols : 0;
}

/* Returns the operand's number; -1 for NULL. */
static int take(struct call *call, const void *host, enum form form, int64_t rows, int64_t cols,
                int64_t stride, bool out)
{
    struct operand *o = &call->operands[call->n_operands];

    if (!host)
        return -1;
    assert_true(call->n_operands < MOST);
    *o = (struct operand){(char *)(uintptr_t)host, form, rows, cols, stride, out, -1};
    return call->n_operands++;
}

static int take_vector(struct call *call, const void *host, enum form form, int64_t n, bool out)
{
    return take(call, host, form, 1, n, n, out);
}

static enum form form_of(enum ha_dtype dtype)
{
    return dtype == HA_DTYPE_F32 ? F32 : TWO_BYTES;
}

static int take_matrix(struct call *call, const struct ha_matrix *m, bool out)
{
    return take(call, m->data, form_of(m->dtype), m->rows, m->cols, m->stride, out);
}

/* ---- regions ---- */

static void join(struct call *call, int number)
{
    struct operand *o = &call->operands[number];
    char *begin = o->host, *end = begin + (size_t)extent(o) * host_bytes(o->form);
    int home = -1;

    for (int r = 0; r < call->n_regions; r++) {
        struct region *region = &call->regions[r];

        if (!region->begin || begin >= region->end || end <= region->begin)
            continue;
        if (region->form != o->form) { /* two readings of the same input */
            assert_false(o->out || region->out);
            continue;
        }
        if (home < 0) {
            home = r;
        } else { /* the operand reaches into two: make them one */
            begin = region->begin < begin ? region->begin : begin;
            end = region->end > end ? region->end : end;
            for (int i = 0; i < call->n_operands; i++)
                if (call->operands[i].region == r)
                    call->operands[i].region = home;
            region->begin = NULL;
        }
    }
    if (home < 0) {
        home = call->n_regions++;
        call->regions[home] = (struct region){.begin = begin, .end = end, .form = o->form};
    }
    call->regions[home].out |= o->out;
    if (begin < call->regions[home].begin)
        call->regions[home].begin = begin;
    if (end > call->regions[home].end)
        call->regions[home].end = end;
    o->region = home;
}

static void encode(char *to, const char *from, enum form form, int64_t n)
{
    if (form != ACT) {
        memcpy(to, from, (size_t)n * host_bytes(form));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float value;
        uint16_t half;

        memcpy(&value, from + i * 4, sizeof(value));
        half = ha_half_to_bf16(value);
        memcpy(to + i * 2, &half, sizeof(half));
    }
}

static void decode(char *to, const char *from, enum form form, int64_t n)
{
    if (form != ACT) {
        memcpy(to, from, (size_t)n * host_bytes(form));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        float value;

        memcpy(&half, from + i * 2, sizeof(half));
        value = ha_half_from_bf16(half);
        memcpy(to + i * 4, &value, sizeof(value));
    }
}

static size_t bytes_with_zones(const struct region *region)
{
    return (size_t)(region->n + 2 * ZONE) * device_bytes(region->form);
}

static void send(struct call *call)
{
    for (int i = 0; i < call->n_operands; i++)
        join(call, i);
    for (int r = 0; r < call->n_regions; r++) {
        struct region *region = &call->regions[r];
        size_t element = device_bytes(region->form);
        void *memory;

        if (!region->begin)
            continue;
        region->n = (region->end - region->begin) / (int64_t)host_bytes(region->form);
        region->sent = malloc(bytes_with_zones(region));
        assert_non_null(region->sent);
        memset(region->sent, zone_mark, bytes_with_zones(region));
        encode(region->sent + ZONE * element, region->begin, region->form, region->n);
        assert_ok(ha_backend_alloc(call->backend, bytes_with_zones(region), &memory, &err));
        region->device = memory;
        assert_ok(
            ha_backend_upload(call->backend, memory, region->sent, bytes_with_zones(region), &err));
    }
}

static void *at(const struct call *call, int number)
{
    const struct operand *o;
    const struct region *region;
    int64_t offset;

    if (number < 0)
        return NULL;
    o = &call->operands[number];
    region = &call->regions[o->region];
    offset = ZONE + (o->host - region->begin) / (int64_t)host_bytes(o->form);
    return region->device + (size_t)offset * device_bytes(o->form);
}

/* Take the rows of a result out of what came back, and put what was sent in their place, so that
 * only what nobody may write to is left to compare. */
static void take_result(const struct call *call, const struct operand *o, char *got)
{
    const struct region *region = &call->regions[o->region];
    size_t element = device_bytes(o->form);
    int64_t first = ZONE + (o->host - region->begin) / (int64_t)host_bytes(o->form);

    if (!o->out || extent(o) == 0)
        return;
    for (int64_t row = 0; row < o->rows; row++) {
        size_t where = (size_t)(first + row * o->stride) * element;

        decode(o->host + (size_t)(row * o->stride) * host_bytes(o->form), got + where, o->form,
               o->cols);
        memcpy(got + where, region->sent + where, (size_t)o->cols * element);
    }
}

static int receive(struct call *call, int rc, struct ha_error *err)
{
    if (rc == 0)
        rc = ha_backend_sync(call->backend, err);
    for (int r = 0; r < call->n_regions; r++) {
        struct region *region = &call->regions[r];
        char *got;

        if (!region->begin)
            continue;
        if (rc == 0) {
            got = malloc(bytes_with_zones(region));
            assert_non_null(got);
            rc = ha_backend_download(call->backend, got, region->device, bytes_with_zones(region),
                                     err);
            for (int i = 0; rc == 0 && i < call->n_operands; i++)
                if (call->operands[i].region == r)
                    take_result(call, &call->operands[i], got);
            if (rc == 0 && memcmp(got, region->sent, bytes_with_zones(region)) != 0)
                fail_msg("the device wrote beside its results");
            free(got);
        }
        ha_backend_free(call->backend, region->device);
        free(region->sent);
    }
    return rc;
}

static const struct ha_ops *real(const struct call *call)
{
    return ha_backend_ops(call->backend);
}

/* ---- the operations ---- */

static int gemm(struct ha_backend *backend, const struct ha_matrix *c, const struct ha_matrix *a,
                bool transpose_a, const struct ha_matrix *b, bool transpose_b, float alpha,
                float beta, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_c = take_matrix(&call, c, true), n_a = take_matrix(&call, a, false);
    int n_b = take_matrix(&call, b, false);
    struct ha_matrix device_c = *c, device_a = *a, device_b = *b;

    send(&call);
    device_c.data = at(&call, n_c);
    device_a.data = at(&call, n_a);
    device_b.data = at(&call, n_b);
    return receive(&call,
                   real(&call)->gemm(backend, &device_c, &device_a, transpose_a, &device_b,
                                     transpose_b, alpha, beta, err),
                   err);
}

static int add_bias(struct ha_backend *backend, void *x, const void *bias, enum ha_dtype bias_dtype,
                    int64_t n_rows, int64_t cols, int64_t stride, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_x = take(&call, x, ACT, n_rows, cols, stride, true);
    int n_bias = take_vector(&call, bias, form_of(bias_dtype), cols, false);

    send(&call);
    return receive(&call,
                   real(&call)->add_bias(backend, at(&call, n_x), at(&call, n_bias), bias_dtype,
                                         n_rows, cols, stride, err),
                   err);
}

static int embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                         const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_out = take(&call, out, ACT, n_tokens, table->cols, table->cols, true);
    int n_table = take_matrix(&call, table, false);
    int n_ids = take_vector(&call, ids, I32, n_tokens, false);
    struct ha_matrix device = *table;

    send(&call);
    device.data = at(&call, n_table);
    return receive(&call,
                   real(&call)->embed_forward(backend, at(&call, n_out), &device, at(&call, n_ids),
                                              n_tokens, err),
                   err);
}

static int rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                           const void *weight, enum ha_dtype weight_dtype, float eps,
                           int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                           int64_t x_stride, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_out = take(&call, out, ACT, n_rows, groups * cols, out_stride, true);
    int n_rstd = take_vector(&call, rstd, F32, n_rows * groups, true);
    int n_x = take(&call, x, ACT, n_rows, groups * cols, x_stride, false);
    int n_weight = take_vector(&call, weight, form_of(weight_dtype), cols, false);

    send(&call);
    return receive(&call,
                   real(&call)->rmsnorm_forward(backend, at(&call, n_out), at(&call, n_rstd),
                                                at(&call, n_x), at(&call, n_weight), weight_dtype,
                                                eps, n_rows, groups, cols, out_stride, x_stride,
                                                err),
                   err);
}

static int rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout, const void *x,
                            const float *rstd, const void *weight, enum ha_dtype weight_dtype,
                            int64_t n_rows, int64_t groups, int64_t cols, int64_t dx_stride,
                            int64_t dout_stride, int64_t x_stride, bool accumulate,
                            struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_dx = take(&call, dx, ACT, n_rows, groups * cols, dx_stride, true);
    int n_dout = take(&call, dout, ACT, n_rows, groups * cols, dout_stride, false);
    int n_x = take(&call, x, ACT, n_rows, groups * cols, x_stride, false);
    int n_rstd = take_vector(&call, rstd, F32, n_rows * groups, false);
    int n_weight = take_vector(&call, weight, form_of(weight_dtype), cols, false);

    send(&call);
    return receive(&call,
                   real(&call)->rmsnorm_backward(
                       backend, at(&call, n_dx), at(&call, n_dout), at(&call, n_x),
                       at(&call, n_rstd), at(&call, n_weight), weight_dtype, n_rows, groups, cols,
                       dx_stride, dout_stride, x_stride, accumulate, err),
                   err);
}

static int rope(struct ha_backend *backend, void *x, const float *cos_sin, const int32_t *positions,
                int64_t n_tokens, int64_t n_heads, int64_t head_dim, int64_t stride, bool inverse,
                struct ha_error *err)
{
    struct call call = {.backend = backend};
    int64_t n_positions = 0;
    int n_x = take(&call, x, ACT, n_tokens, n_heads * head_dim, stride, true), n_table,
        n_positions_at;

    for (int64_t t = 0; t < n_tokens; t++)
        if (positions[t] >= n_positions)
            n_positions = positions[t] + 1;
    n_table = take_vector(&call, cos_sin, F32, n_positions * head_dim, false);
    n_positions_at = take_vector(&call, positions, I32, n_tokens, false);
    send(&call);
    return receive(&call,
                   real(&call)->rope(backend, at(&call, n_x), at(&call, n_table),
                                     at(&call, n_positions_at), n_tokens, n_heads, head_dim, stride,
                                     inverse, err),
                   err);
}

static int swiglu_forward(struct ha_backend *backend, void *out, const void *gate, const void *up,
                          int64_t n_rows, int64_t cols, int64_t out_stride, int64_t in_stride,
                          struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_out = take(&call, out, ACT, n_rows, cols, out_stride, true);
    int n_gate = take(&call, gate, ACT, n_rows, cols, in_stride, false);
    int n_up = take(&call, up, ACT, n_rows, cols, in_stride, false);

    send(&call);
    return receive(&call,
                   real(&call)->swiglu_forward(backend, at(&call, n_out), at(&call, n_gate),
                                               at(&call, n_up), n_rows, cols, out_stride, in_stride,
                                               err),
                   err);
}

static int swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                           const void *gate, const void *up, int64_t n_rows, int64_t cols,
                           int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_dgate = take(&call, dgate, ACT, n_rows, cols, in_stride, true);
    int n_dup = take(&call, dup, ACT, n_rows, cols, in_stride, true);
    int n_dout = take(&call, dout, ACT, n_rows, cols, out_stride, false);
    int n_gate = take(&call, gate, ACT, n_rows, cols, in_stride, false);
    int n_up = take(&call, up, ACT, n_rows, cols, in_stride, false);

    send(&call);
    return receive(&call,
                   real(&call)->swiglu_backward(backend, at(&call, n_dgate), at(&call, n_dup),
                                                at(&call, n_dout), at(&call, n_gate),
                                                at(&call, n_up), n_rows, cols, out_stride,
                                                in_stride, err),
                   err);
}

static int dropout(struct ha_backend *backend, void *out, const void *x,
                   const struct ha_dropout *settings, int64_t n_rows, int64_t cols,
                   int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct call call = {.backend = backend};
    struct ha_dropout device = *settings;
    int n_out = take(&call, out, ACT, n_rows, cols, out_stride, true);
    int n_x = take(&call, x, ACT, n_rows, cols, x_stride, false);
    int n_places = take_vector(&call, settings->places, I32, 2 * n_rows, false);

    send(&call);
    device.places = at(&call, n_places);
    return receive(&call,
                   real(&call)->dropout(backend, at(&call, n_out), at(&call, n_x), &device, n_rows,
                                        cols, out_stride, x_stride, accumulate, err),
                   err);
}

static int lora_columns(struct ha_backend *backend, const struct ha_lora_columns *columns,
                        struct ha_error *err)
{
    struct call call = {.backend = backend};
    struct ha_lora_columns device = *columns;
    int n_b = take(&call, columns->b.data, ACT, columns->b.rows, columns->b.cols, columns->b.stride,
                   true);
    int n_a = take(&call, columns->a.data, ACT, columns->a.rows, columns->a.cols, columns->a.stride,
                   true);
    int masters[HA_LORA_MAX_PARTS][2];

    for (int i = 0; i < columns->n_parts; i++) {
        const struct ha_lora_part *part = &columns->parts[i];

        masters[i][0] = take_vector(&call, part->a, F32, part->rank * columns->a.cols, false);
        masters[i][1] = take_vector(&call, part->b, F32, part->out * part->rank, false);
    }
    send(&call);
    device.b.data = at(&call, n_b);
    device.b.dtype = device.a.dtype = HA_DTYPE_BF16;
    device.a.data = at(&call, n_a);
    for (int i = 0; i < columns->n_parts; i++) {
        device.parts[i].a = at(&call, masters[i][0]);
        device.parts[i].b = at(&call, masters[i][1]);
    }
    return receive(&call, real(&call)->lora_columns(backend, &device, err), err);
}

static int64_t most(const int64_t *index, int64_t n)
{
    int64_t largest = -1;

    for (int64_t i = 0; i < n; i++)
        largest = index[i] > largest ? index[i] : largest;
    return largest;
}

static int gather_rows(struct ha_backend *backend, void *out, const void *x, const int64_t *index,
                       int64_t n_rows, int64_t cols, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_out = take(&call, out, ACT, n_rows, cols, cols, true);
    int n_x = take(&call, x, ACT, most(index, n_rows) + 1, cols, cols, false);

    send(&call);
    return receive(&call,
                   real(&call)->gather_rows(backend, at(&call, n_out), at(&call, n_x), index,
                                            n_rows, cols, err),
                   err);
}

static int scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                            const int64_t *index, const float *coefficient, int64_t n_rows,
                            int64_t cols, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_x = take(&call, x, ACT, most(index, n_rows) + 1, cols, cols, true);
    int n_rows_at = take(&call, rows, F32, n_rows, cols, cols, false);

    send(&call);
    return receive(&call,
                   real(&call)->scatter_rows_add(backend, at(&call, n_x), at(&call, n_rows_at),
                                                 index, coefficient, n_rows, cols, err),
                   err);
}

static int head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err)
{
    struct call call = {.backend = backend};
    struct ha_head device = *head;
    int64_t n = head->n_rows;
    int n_hidden = take(&call, head->hidden, ACT, n, head->width, head->hidden_stride, false);
    int n_weight = take_matrix(&call, &head->weight, false);
    int n_targets = take_vector(&call, head->targets, I32, n, false);
    int n_logp = take_vector(&call, head->logp, F32, n, true);
    int n_lse = take_vector(&call, head->logsumexp, F32, n, true);
    int n_entropy = take_vector(&call, head->entropy, F32, n, true);
    int n_mean = take_vector(&call, head->mean_logit, F32, n, true);
    int n_lse2 = take_vector(&call, head->logsumexp2, F32, n, true);
    int n_argmax = take_vector(&call, head->argmax, I32, n, true);
    int n_dhidden = take(&call, head->dhidden, F32, n, head->width, head->width, true);

    send(&call);
    device.hidden = at(&call, n_hidden);
    device.weight.data = at(&call, n_weight);
    device.targets = at(&call, n_targets);
    device.logp = at(&call, n_logp);
    device.logsumexp = at(&call, n_lse);
    device.entropy = at(&call, n_entropy);
    device.mean_logit = at(&call, n_mean);
    device.logsumexp2 = at(&call, n_lse2);
    device.argmax = at(&call, n_argmax);
    device.dhidden = at(&call, n_dhidden);
    return receive(&call, real(&call)->head(backend, &device, err), err);
}

static int logits(struct ha_backend *backend, float *logits, const void *hidden,
                  const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                  struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_logits = take(&call, logits, F32, n_rows, weight->rows, weight->rows, true);
    int n_hidden = take(&call, hidden, ACT, n_rows, weight->cols, hidden_stride, false);
    int n_weight = take_matrix(&call, weight, false);
    struct ha_matrix device = *weight;

    send(&call);
    device.data = at(&call, n_weight);
    return receive(&call,
                   real(&call)->logits(backend, at(&call, n_logits), at(&call, n_hidden), &device,
                                       n_rows, hidden_stride, err),
                   err);
}

static int attention_forward(struct ha_backend *backend, void *out, float *logsumexp, const void *q,
                             const void *k, const void *v, const struct ha_attention *s,
                             struct ha_error *err)
{
    struct call call = {.backend = backend};
    int64_t n = s->n_tokens, width = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    int n_out = take(&call, out, ACT, n, width, s->out_stride, true);
    int n_lse = take_vector(&call, logsumexp, F32, n * s->n_heads, true);
    int n_q = take(&call, q, ACT, n, width, s->q_stride, false);
    int n_k = take(&call, k, ACT, n, kv, s->k_stride, false);
    int n_v = take(&call, v, ACT, n, kv, s->v_stride, false);

    send(&call);
    return receive(&call,
                   real(&call)->attention_forward(backend, at(&call, n_out), at(&call, n_lse),
                                                  at(&call, n_q), at(&call, n_k), at(&call, n_v), s,
                                                  err),
                   err);
}

static int attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                              const void *dout, const void *out, const float *logsumexp,
                              const void *q, const void *k, const void *v,
                              const struct ha_attention *s, struct ha_error *err)
{
    struct call call = {.backend = backend};
    int64_t n = s->n_tokens, width = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    int n_dq = take(&call, dq, ACT, n, width, s->q_stride, true);
    int n_dk = take(&call, dk, ACT, n, kv, s->k_stride, true);
    int n_dv = take(&call, dv, ACT, n, kv, s->v_stride, true);
    int n_dout = take(&call, dout, ACT, n, width, s->out_stride, false);
    int n_out = take(&call, out, ACT, n, width, s->out_stride, false);
    int n_lse = take_vector(&call, logsumexp, F32, n * s->n_heads, false);
    int n_q = take(&call, q, ACT, n, width, s->q_stride, false);
    int n_k = take(&call, k, ACT, n, kv, s->k_stride, false);
    int n_v = take(&call, v, ACT, n, kv, s->v_stride, false);

    send(&call);
    return receive(
        &call,
        real(&call)->attention_backward(backend, at(&call, n_dq), at(&call, n_dk), at(&call, n_dv),
                                        at(&call, n_dout), at(&call, n_out), at(&call, n_lse),
                                        at(&call, n_q), at(&call, n_k), at(&call, n_v), s, err),
        err);
}

/* The caches of a sequence are one operand each, from the layer's keys and values on; their device
 * addresses go into an array there. */
struct caches {
    int n_k[MOST], n_v[MOST];
    void *device;
};

static void send_caches(struct call *call, struct caches *caches, const struct ha_kv_rows *host,
                        int64_t layer, int64_t n)
{
    struct ha_kv_rows rows[MOST];

    send(call);
    for (int64_t i = 0; i < n; i++) {
        int64_t before = layer * host[i].layer_stride * (int64_t)device_bytes(ACT);

        rows[i] =
            (struct ha_kv_rows){(char *)at(call, caches->n_k[i]) - before,
                                (char *)at(call, caches->n_v[i]) - before, host[i].layer_stride};
    }
    assert_ok(ha_backend_alloc(call->backend, (size_t)n * sizeof(*rows), &caches->device, &err));
    assert_ok(
        ha_backend_upload(call->backend, caches->device, rows, (size_t)n * sizeof(*rows), &err));
}

static void *layer_of(void *memory, const struct ha_kv_rows *rows, int64_t layer)
{
    return (float *)memory + layer * rows->layer_stride;
}

static int kv_append(struct ha_backend *backend, const struct ha_kv_rows *host,
                     const int32_t *positions, int64_t layer, const void *k, const void *v,
                     int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err)
{
    struct call call = {.backend = backend};
    struct caches caches;
    int n_k = take(&call, k, ACT, n_rows, width, stride, false);
    int n_v = take(&call, v, ACT, n_rows, width, stride, false);
    int n_positions = take_vector(&call, positions, I32, n_rows, false), r;

    assert_true(2 * n_rows + 3 <= MOST);
    for (int64_t i = 0; i < n_rows; i++) {
        int64_t end = (positions[i] + 1) * width;

        caches.n_k[i] = take_vector(&call, layer_of(host[i].k, &host[i], layer), ACT, end, true);
        caches.n_v[i] = take_vector(&call, layer_of(host[i].v, &host[i], layer), ACT, end, true);
    }
    send_caches(&call, &caches, host, layer, n_rows);
    r = receive(&call,
                real(&call)->kv_append(backend, caches.device, at(&call, n_positions), layer,
                                       at(&call, n_k), at(&call, n_v), n_rows, width, stride, err),
                err);
    ha_backend_free(backend, caches.device);
    return r;
}

static int decode_attention(struct ha_backend *backend, void *out, const void *q,
                            const struct ha_decode_attention *s, struct ha_error *err)
{
    struct call call = {.backend = backend};
    struct ha_decode_attention device = *s;
    struct caches caches;
    int64_t width = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    int n_out = take(&call, out, ACT, s->n_rows, width, s->out_stride, true);
    int n_q = take(&call, q, ACT, s->n_rows, width, s->q_stride, false);
    int n_positions = take_vector(&call, s->positions, I32, s->n_rows, false), r;

    assert_true(2 * s->n_rows + 3 <= MOST);
    for (int64_t i = 0; i < s->n_rows; i++) {
        const struct ha_kv_rows *rows = &s->caches[i];
        int64_t n = s->positions[i] + 1;

        caches.n_k[i] = take(&call, layer_of(rows->k, rows, s->layer), ACT, n, kv, kv, false);
        caches.n_v[i] = take(&call, layer_of(rows->v, rows, s->layer), ACT, n, kv, kv, false);
    }
    send_caches(&call, &caches, s->caches, s->layer, s->n_rows);
    device.caches = caches.device;
    device.positions = at(&call, n_positions);
    r = receive(
        &call,
        real(&call)->decode_attention(backend, at(&call, n_out), at(&call, n_q), &device, err),
        err);
    ha_backend_free(backend, caches.device);
    return r;
}

static int sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                          struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_sum = take_vector(&call, sum, EIGHT_BYTES, 1, true);
    int n_x = take_vector(&call, x, F32, n, false);

    send(&call);
    return receive(
        &call, real(&call)->sum_of_squares(backend, at(&call, n_sum), at(&call, n_x), n, err), err);
}

static int add(struct ha_backend *backend, float *sum, const float *x, int64_t n,
               struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_sum = take_vector(&call, sum, F32, n, true), n_x = take_vector(&call, x, F32, n, false);

    send(&call);
    return receive(&call, real(&call)->add(backend, at(&call, n_sum), at(&call, n_x), n, err), err);
}

static int adamw(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                 int64_t n, const double *grad_square_sum, const struct ha_adamw *settings,
                 struct ha_error *err)
{
    struct call call = {.backend = backend};
    int n_param = take_vector(&call, param, F32, n, true);
    int n_m = take_vector(&call, m, F32, n, true), n_v = take_vector(&call, v, F32, n, true);
    int n_grad = take_vector(&call, grad, F32, n, false);
    int n_sum = take_vector(&call, grad_square_sum, EIGHT_BYTES, 1, false);

    send(&call);
    return receive(&call,
                   real(&call)->adamw(backend, at(&call, n_param), at(&call, n_m), at(&call, n_v),
                                      at(&call, n_grad), n, at(&call, n_sum), settings, err),
                   err);
}

const struct ha_ops *device_ops(void)
{
    static const struct ha_ops ops = {
        .gemm = gemm,
        .add_bias = add_bias,
        .embed_forward = embed_forward,
        .rmsnorm_forward = rmsnorm_forward,
        .rmsnorm_backward = rmsnorm_backward,
        .rope = rope,
        .attention_forward = attention_forward,
        .attention_backward = attention_backward,
        .swiglu_forward = swiglu_forward,
        .swiglu_backward = swiglu_backward,
        .dropout = dropout,
        .lora_columns = lora_columns,
        .gather_rows = gather_rows,
        .scatter_rows_add = scatter_rows_add,
        .head = head,
        .logits = logits,
        .kv_append = kv_append,
        .decode_attention = decode_attention,
        .sum_of_squares = sum_of_squares,
        .add = add,
        .adamw = adamw,
    };

    return &ops;
}
