/* Layers forward over a pack.  A layer that keeps activations writes its output
 * to the next buffer of the residual stream; one that does not adds in place.
 * Both do the same arithmetic. */
#include "worker/model/pass.h"

#include <errno.h>

#include "common/base/error.h"
#include "worker/model/shards.h"

static int attention_forward(const struct ha_pass *pass, const struct ha_layer_context *context,
                             struct ha_pass_kept *kept, void *x, struct ha_error *err)
{
    struct ha_attention shape = ha_pass_attention(pass);
    void *q = pass->q_rotated ? pass->q_rotated : kept->q;
    void *k = pass->k_rotated ? pass->k_rotated : kept->k;
    int r = ha_layer_norm(context, false, pass->norm, kept->rstd, x, err);

    if (r == 0)
        r = ha_layer_qkv(context, kept->q, kept->k, kept->v, pass->norm, err);
    if (r == 0)
        r = ha_layer_rotate(context, q, k, kept->q_rstd, kept->k_rstd, kept->q, kept->k, err);
    if (r == 0)
        r = context->ops->attention_forward(context->backend, kept->attention, kept->logsumexp, q,
                                            k, kept->v, &shape, err);
    return r;
}

/* x -> mid, the residual stream after attention, and the norm of mid. */
static int attention_half(const struct ha_pass *pass, const struct ha_layer_context *context,
                          struct ha_pass_kept *kept, void *mid, void *x, struct ha_error *err)
{
    int r = attention_forward(pass, context, kept, x, err);

    if (r == 0 && mid != x)
        r = ha_backend_copy(pass->backend, mid, x, ha_pass_act_bytes(pass, pass->config->width),
                            err);
    if (r == 0)
        r = ha_layer_attention_out(context, mid, kept->attention, err);
    if (r == 0)
        r = ha_layer_norm(context, true, pass->norm, kept->post_rstd, mid, err);
    return r;
}

static int layer_forward(const struct ha_pass *pass, const struct ha_adapter *adapter,
                         int64_t layer, struct ha_error *err)
{
    struct ha_layer_context context = ha_pass_context(pass, adapter, layer);
    struct ha_pass_kept *kept = ha_pass_kept(pass, layer);
    bool keep = layer >= pass->limits.lowest_layer;
    void *x = ha_pass_x(pass, layer), *out = ha_pass_x(pass, layer + 1);
    void *mid = keep ? kept->mid : x;
    size_t bytes = ha_pass_act_bytes(pass, pass->config->width);
    int r = attention_half(pass, &context, kept, mid, x, err);

    if (r == 0 && out != mid)
        r = ha_backend_copy(pass->backend, out, mid, bytes, err);
    if (r == 0)
        r = ha_layer_mlp(&context, out, kept->gate, kept->up, pass->inner, pass->norm, err);
    return r;
}

int ha_pass_recompute(const struct ha_pass *pass, const struct ha_adapter *adapter, int64_t layer,
                      struct ha_error *err)
{
    struct ha_layer_context context = ha_pass_context(pass, adapter, layer);
    struct ha_pass_kept *kept = ha_pass_kept(pass, layer);
    struct ha_matrix product =
        ha_layer_act(&context, pass->inner, context.n_rows, pass->config->inner);
    int64_t inner = pass->config->inner;
    void *x = ha_pass_x(pass, layer);
    int r;

    if (layer >= pass->limits.lowest_layer + pass->limits.recomputed_layers)
        return 0;
    r = attention_half(pass, &context, kept, kept->mid, x, err);
    if (r == 0)
        r = ha_layer_gate_up(&context, kept->gate, kept->up, pass->norm, err);
    if (r < 0 || !adapter || !ha_adapter_lora(adapter, layer, HA_MODULE_DOWN)->a.data)
        return r;
    r = context.ops->swiglu_forward(context.backend, product.data, kept->gate, kept->up,
                                    context.n_rows, inner, inner, context.strides.inner, err);
    return r < 0 ? r : ha_layer_lora_input(&context, HA_MODULE_DOWN, &product, err);
}

static int64_t widest_input(const struct ha_adapter *adapter)
{
    return ha_adapter_widest_input(ha_adapter_geometry(adapter),
                                   ha_adapter_settings(adapter)->modules);
}

int ha_pass_layers(struct ha_pass *pass, const struct ha_adapter *adapter, int64_t from, int64_t to,
                   struct ha_error *err)
{
    struct ha_shards *shards = ha_model_shards(pass->model);
    int r;

    if (from != pass->border || to < from || to > pass->config->n_layers)
        return ha_error_set(err, EINVAL, "layers %lld to %lld cannot run after layer %lld",
                            (long long)from, (long long)to, (long long)pass->border - 1);
    if (adapter && ha_adapter_settings(adapter)->rank > pass->limits.max_rank)
        return ha_error_set(err, EINVAL, "an adapter of rank %lld does not fit a pass of rank %lld",
                            (long long)ha_adapter_settings(adapter)->rank,
                            (long long)pass->limits.max_rank);
    if (adapter && pass->drops && widest_input(adapter) > pass->limits.dropout_width)
        return ha_error_set(err, EINVAL,
                            "an adapter of inputs %lld wide does not fit a pass with dropout of "
                            "%lld",
                            (long long)widest_input(adapter),
                            (long long)pass->limits.dropout_width);
    r = ha_shards_begin(shards, HA_WALK_UP, from, to, err);
    for (int64_t layer = from; r == 0 && layer < to; layer++) {
        r = ha_shards_take(shards, layer, err);
        if (r == 0)
            r = layer_forward(pass, adapter, layer, err);
        if (r == 0)
            pass->border = layer + 1;
    }
    return r;
}

int ha_pass_forward(struct ha_pass *pass, const struct ha_pack *pack,
                    const struct ha_adapter *adapter, bool gradient, struct ha_pass_rows *ret_rows,
                    struct ha_error *err)
{
    int r = ha_pass_begin(pass, pack, err);

    if (r == 0)
        r = ha_pass_embed(pass, err);
    if (r == 0)
        r = ha_pass_layers(pass, adapter, 0, pass->config->n_layers, err);
    if (r == 0)
        r = ha_pass_head(pass, gradient, ret_rows, err);
    return r;
}
