/* Layers backward over a pack: gradients for LoRA, or the factors of those of frozen weights.
 *
 * Notation: d... is the derivative of the weighted sum of log-probs.  pass->dx
 * (T, H) is the gradient of the residual stream and walks down the layers; W
 * are frozen, so a linear layer y = W x + s B A (m x), m the dropout's mask or 1, gives
 *     u  = s dy B            (T, rank)
 *     dB += s dy^T (A m x)   dA += u^T (m x)
 *     dx (+)= dy W + m (u A)
 * Where weights are joined (weights.h) their dy W is one product, of dy that lie side by side;
 * where they have LoRA's columns (layer.h) it is dy [W | s B], which gives dy W and u.
 * A layer that kept only its input is run forward again first.
 * Norm outputs are computed again from the kept residual stream; the swiglu
 * product likewise where down_proj is adapted.  Gate and up are overwritten by
 * their gradients, pass->inner by that of the product. */
#include "worker/model/pass.h"

#include <errno.h>

#include "common/base/error.h"
#include "worker/model/shards.h"

/* What the functions below share. */
struct walk {
    const struct ha_pass *pass;
    struct ha_layer_context context;
    struct ha_pass_kept *kept;
    float *gradient;         /* the adapter's layout */
    ha_pass_factors factors; /* in place of an adapter: wants those of q, k, v, o; or NULL */
    void *user;
    bool go_on; /* a lower layer is asked for: dx must come out */
};

static const struct ha_lora *lora_of(const struct walk *walk, enum ha_module module)
{
    return ha_layer_lora_of(&walk->context, walk->context.adapter, module);
}

/* Has one of these modules a gradient to give? */
static bool any_asked(const struct walk *walk, enum ha_module first, enum ha_module last)
{
    if (walk->factors && first <= HA_MODULE_O)
        return true;
    for (int module = (int)first; module <= (int)last; module++) {
        if (lora_of(walk, (enum ha_module)module))
            return true;
    }
    return false;
}

/* dB, dA of one adapted module; leaves u in pass->dlora. */
static int lora_backward(const struct walk *walk, enum ha_module module, const struct ha_lora *lora,
                         const struct ha_matrix *dy, const struct ha_matrix *x,
                         struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    struct ha_backend *backend = context->backend;
    float scale = ha_adapter_scale(context->adapter);
    int64_t rank = lora->a.rows;
    struct ha_matrix ax = ha_layer_act(context, context->lora[module], context->n_rows, rank);
    struct ha_matrix u = ha_layer_act(context, walk->pass->dlora, context->n_rows, rank);
    struct ha_matrix da = lora->a, db = lora->b, input;
    int r;

    da.data = walk->gradient + lora->a_offset;
    db.data = walk->gradient + lora->b_offset;
    r = context->ops->gemm(backend, &db, dy, true, &ax, false, scale, 1.0f, err);
    if (r == 0)
        r = context->ops->gemm(backend, &u, dy, false, &lora->b, false, scale, 0.0f, err);
    if (r == 0)
        r = ha_layer_drop(context, module, x, &input, err);
    if (r == 0)
        r = context->ops->gemm(backend, &da, &u, true, &input, false, 1.0f, 1.0f, err);
    return r;
}

/* What one linear layer gives besides dx: LoRA gradients if it is adapted, factors if someone takes
 * them. */
static int give(const struct walk *walk, enum ha_module module, const struct ha_matrix *dy,
                const struct ha_matrix *x, struct ha_error *err)
{
    const struct ha_lora *lora = lora_of(walk, module);
    int r = lora ? lora_backward(walk, module, lora, dy, x, err) : 0;

    if (r == 0 && walk->factors && module <= HA_MODULE_O)
        r = walk->factors(walk->user, walk->context.layer, module, dy, x, err);
    return r;
}

/* dx += m (u A) of a module that has just given. */
static int add_lora_dx(const struct walk *walk, enum ha_module module, const struct ha_matrix *dx,
                       struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    const struct ha_lora *lora = lora_of(walk, module);
    struct ha_matrix u;

    if (!lora)
        return 0;
    u = ha_layer_act(context, walk->pass->dlora, context->n_rows, lora->a.rows);
    return ha_layer_drop_backward(context, module, dx, &u, &lora->a, err);
}

/* ---- where LoRA's columns are part of the products ---- */

/* dB, dA of one module from its part of u; then dx += m (u A) of it, where dropout makes that a
 * matter of each module and dx is wanted. */
static int columns_module(const struct walk *walk, enum ha_module first, enum ha_module module,
                          const struct ha_matrix *dy, const struct ha_matrix *x,
                          const struct ha_matrix *ax, const struct ha_matrix *u,
                          const struct ha_matrix *a, const struct ha_matrix *dx,
                          struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    const struct ha_lora *lora = lora_of(walk, module);
    struct ha_matrix ax_part = ha_layer_column_part(context, first, module, ax);
    struct ha_matrix u_part = ha_layer_column_part(context, first, module, u);
    struct ha_matrix a_part = ha_layer_row_part(context, first, module, a);
    struct ha_matrix da = lora->a, db = lora->b, input;
    int r;

    da.data = walk->gradient + lora->a_offset;
    db.data = walk->gradient + lora->b_offset;
    r = context->ops->gemm(context->backend, &db, dy, true, &ax_part, false,
                           ha_adapter_scale(context->adapter), 1.0f, err);
    if (r == 0)
        r = ha_layer_drop(context, module, x, &input, err);
    if (r == 0)
        r = context->ops->gemm(context->backend, &da, &u_part, true, &input, false, 1.0f, 1.0f,
                               err);
    if (r == 0 && dx && context->dropout)
        r = ha_layer_drop_backward(context, module, dx, &u_part, &a_part, err);
    return r;
}

/* Modules first..last, all in one product with columns that fit.  dy is theirs side by side, ax
 * what the columns of x were.  dx is a view with room for columns behind it; where it is not
 * wanted, only those are made. */
static int columns_backward(const struct walk *walk, enum ha_module first, enum ha_module last,
                            const struct ha_matrix *dx, bool wanted, const struct ha_matrix *dy,
                            const struct ha_matrix *x, const struct ha_matrix *ax,
                            struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    struct ha_matrix weight = first == HA_MODULE_O ? context->weights->linear[first]
                                                   : ha_layer_joined(context, first, last);
    struct ha_matrix b = ha_layer_columns_of(context, &weight), a;
    struct ha_matrix u = ha_layer_columns_of(context, dx), out = wanted ? *dx : u;
    struct ha_matrix part = *dy;
    int r = ha_layer_load_columns(context, first, last, &weight, &a, err);

    if (wanted) {
        out.cols += u.cols;
        weight.cols += b.cols;
    } else {
        weight = b;
    }
    if (r == 0)
        r = context->ops->gemm(context->backend, &out, dy, false, &weight, false, 1.0f, 0.0f, err);
    for (int i = (int)first; r == 0 && i <= (int)last; i++) {
        enum ha_module module = (enum ha_module)i;

        part.cols = context->weights->linear[module].rows;
        if (lora_of(walk, module))
            r = columns_module(walk, first, module, &part, x, ax, &u, &a, wanted ? dx : NULL, err);
        part.data = (char *)part.data + (size_t)part.cols * ha_dtype_bytes(part.dtype);
    }
    if (r == 0 && wanted && !context->dropout)
        r = context->ops->gemm(context->backend, dx, &u, false, &a, false, 1.0f, 1.0f, err);
    return r;
}

/* ---- where they are not ---- */

/* One linear layer; dx if asked for (NULL: not). */
static int linear_backward(const struct walk *walk, enum ha_module module,
                           const struct ha_matrix *dx, const struct ha_matrix *dy,
                           const struct ha_matrix *x, float beta, struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    int r = give(walk, module, dy, x, err);

    if (r < 0 || !dx)
        return r;
    r = context->ops->gemm(context->backend, dx, dy, false, &context->weights->linear[module],
                           false, 1.0f, beta, err);
    return r < 0 ? r : add_lora_dx(walk, module, dx, err);
}

/* Modules first..last, which read x and have their outputs' gradients at dy; dx = (NULL: not asked
 * for) the sum of what they give. */
static int linears_backward(const struct walk *walk, enum ha_module first, enum ha_module last,
                            const struct ha_matrix *dx, void *const dy[], const struct ha_matrix *x,
                            struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    struct ha_matrix joined = ha_layer_joined(context, first, last);
    int r = 0;

    if (joined.data && dx) {
        struct ha_matrix all = ha_layer_out(context, first, dy[0]);

        all.cols = joined.rows;
        r = context->ops->gemm(context->backend, dx, &all, false, &joined, false, 1.0f, 0.0f, err);
    }
    for (int i = (int)first; r == 0 && i <= (int)last; i++) {
        enum ha_module module = (enum ha_module)i;
        struct ha_matrix one = ha_layer_out(context, module, dy[module - first]);

        if (!joined.data) {
            r = linear_backward(walk, module, dx, &one, x, module == first ? 0.0f : 1.0f, err);
            continue;
        }
        r = give(walk, module, &one, x, err);
        if (r == 0 && dx)
            r = add_lora_dx(walk, module, dx, err);
    }
    return r;
}

/* pass->dx += gradient through the norm of x, whose output has gradient pass->dnorm. */
static int norm_backward(const struct walk *walk, bool post, const void *x, const float *rstd,
                         struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    const struct ha_matrix *weight =
        post ? &context->weights->post_norm : &context->weights->input_norm;
    int64_t width = context->config->width;

    return context->ops->rmsnorm_backward(context->backend, walk->pass->dx, walk->pass->dnorm, x,
                                          rstd, weight->data, weight->dtype, context->n_rows, 1,
                                          width, width, context->strides.norm, width, true, err);
}

/* dx of the layer's output -> dx of the residual stream after attention. */
static int mlp_backward(const struct walk *walk, bool need_dx, struct ha_error *err)
{
    const struct ha_pass *pass = walk->pass;
    const struct ha_layer_context *context = &walk->context;
    int64_t n = context->n_rows, inner = context->config->inner, width = context->config->width;
    struct ha_matrix dout = ha_layer_act(context, pass->dx, n, width);
    struct ha_matrix product = ha_layer_act(context, pass->inner, n, inner);
    void *const gate_up[] = {walk->kept->gate, walk->kept->up}; /* then their gradients */
    struct ha_matrix norm = ha_layer_normed(context, pass->norm);
    struct ha_matrix dnorm = ha_layer_normed(context, pass->dnorm);
    bool adapted = any_asked(walk, HA_MODULE_GATE, HA_MODULE_UP);
    int r = 0;

    if (lora_of(walk, HA_MODULE_DOWN))
        r = context->ops->swiglu_forward(context->backend, product.data, gate_up[0], gate_up[1], n,
                                         inner, inner, context->strides.inner, err);
    /* The product's memory takes its gradient once dA has been read from it. */
    if (r == 0)
        r = linear_backward(walk, HA_MODULE_DOWN, need_dx || adapted ? &product : NULL, &dout,
                            &product, 0.0f, err);
    if (r < 0 || !(need_dx || adapted))
        return r;
    r = context->ops->swiglu_backward(context->backend, gate_up[0], gate_up[1], product.data,
                                      gate_up[0], gate_up[1], n, inner, inner,
                                      context->strides.inner, err);
    if (r == 0 && adapted)
        r = ha_layer_norm(context, true, norm.data, NULL, walk->kept->mid, err);
    if (r == 0)
        r = linears_backward(walk, HA_MODULE_GATE, HA_MODULE_UP, need_dx ? &dnorm : NULL, gate_up,
                             &norm, err);
    if (r == 0 && need_dx)
        r = norm_backward(walk, true, walk->kept->mid, walk->kept->post_rstd, err);
    return r;
}

/* Undo RoPE and QK-norm on the gradient of q or k, in place. */
static int rotate_backward(const struct walk *walk, void *dx, const void *x, const float *rstd,
                           const struct ha_matrix *norm, int64_t n_heads, int64_t stride,
                           struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    int64_t head_dim = context->config->head_dim;
    int r = context->ops->rope(context->backend, dx, context->cos_sin, context->positions,
                               context->n_rows, n_heads, head_dim, stride, true, err);

    if (r == 0 && norm->data)
        r = context->ops->rmsnorm_backward(context->backend, dx, dx, x, rstd, norm->data,
                                           norm->dtype, context->n_rows, n_heads, head_dim, stride,
                                           stride, stride, false, err);
    return r;
}

/* dq, dk, dv of the projections from the gradient of the attention's output. */
static int scores_backward(const struct walk *walk, struct ha_error *err)
{
    const struct ha_pass *pass = walk->pass;
    const struct ha_layer_context *context = &walk->context;
    const struct ha_pass_kept *kept = walk->kept;
    struct ha_attention shape = ha_pass_attention(pass);
    const void *q = kept->q, *k = kept->k;
    int r = 0;

    if (pass->q_rotated) {
        q = pass->q_rotated;
        k = pass->k_rotated;
        r = ha_layer_rotate(context, pass->q_rotated, pass->k_rotated, NULL, NULL, kept->q, kept->k,
                            err);
    }
    if (r == 0)
        r = context->ops->attention_backward(context->backend, pass->dq, pass->dk, pass->dv,
                                             pass->dattention, kept->attention, kept->logsumexp, q,
                                             k, kept->v, &shape, err);
    if (r == 0)
        r = rotate_backward(walk, pass->dq, kept->q, kept->q_rstd, &context->weights->q_norm,
                            context->config->n_heads, context->strides.q, err);
    if (r == 0)
        r = rotate_backward(walk, pass->dk, kept->k, kept->k_rstd, &context->weights->k_norm,
                            context->config->n_kv_heads, context->strides.kv, err);
    return r;
}

/* The gradient of the attention's output, if anything below wants it. */
static int output_backward(const struct walk *walk, bool wanted, struct ha_error *err)
{
    const struct ha_layer_context *context = &walk->context;
    struct ha_matrix dout =
        ha_layer_act(context, walk->pass->dx, context->n_rows, context->config->width);
    struct ha_matrix attention = ha_layer_attended(context, walk->kept->attention);
    struct ha_matrix dattention = ha_layer_attended(context, walk->pass->dattention), ax;

    if (!ha_layer_columns_fit(context, HA_MODULE_O, HA_MODULE_O))
        return linear_backward(walk, HA_MODULE_O, wanted ? &dattention : NULL, &dout, &attention,
                               0.0f, err);
    ax = ha_layer_columns_of(context, &attention);
    return columns_backward(walk, HA_MODULE_O, HA_MODULE_O, &dattention, wanted, &dout, &attention,
                            &ax, err);
}

/* What q, k, v give, from the gradients at dq, dk, dv; into pass->dnorm if anything below wants
 * it. */
static int inputs_backward(const struct walk *walk, bool wanted, struct ha_error *err)
{
    const struct ha_pass *pass = walk->pass;
    const struct ha_layer_context *context = &walk->context;
    void *const dqkv[] = {pass->dq, pass->dk, pass->dv};
    struct ha_matrix norm = ha_layer_normed(context, pass->norm);
    struct ha_matrix dnorm = ha_layer_normed(context, pass->dnorm);
    struct ha_matrix all, ax;

    if (!ha_layer_columns_fit(context, HA_MODULE_Q, HA_MODULE_V))
        return linears_backward(walk, HA_MODULE_Q, HA_MODULE_V, wanted ? &dnorm : NULL, dqkv, &norm,
                                err);
    all = ha_layer_out(context, HA_MODULE_Q, pass->dq);
    all.cols = context->weights->qkv.rows;
    ax = ha_layer_act(context, walk->kept->lora_qkv, context->n_rows, context->lora_columns);
    return columns_backward(walk, HA_MODULE_Q, HA_MODULE_V, &dnorm, wanted, &all, &norm, &ax, err);
}

/* dx of the residual stream after attention -> dx of the layer's input x. */
static int attention_backward(const struct walk *walk, const void *x, struct ha_error *err)
{
    bool inputs = any_asked(walk, HA_MODULE_Q, HA_MODULE_V), below = walk->go_on || inputs;
    int r = output_backward(walk, below, err);

    if (r < 0 || !below)
        return r;
    r = scores_backward(walk, err);
    if (r == 0 && inputs)
        r = ha_layer_norm(&walk->context, false, walk->pass->norm, NULL, x, err);
    if (r == 0)
        r = inputs_backward(walk, walk->go_on, err);
    if (r == 0 && walk->go_on)
        r = norm_backward(walk, false, x, walk->kept->rstd, err);
    return r;
}

static int layer_backward(struct walk *walk, struct ha_error *err)
{
    bool attention = walk->go_on || any_asked(walk, HA_MODULE_Q, HA_MODULE_O);
    int r = ha_pass_recompute(walk->pass, walk->context.adapter, walk->context.layer, err);

    if (r == 0)
        r = mlp_backward(walk, attention, err);
    if (r == 0 && attention)
        r = attention_backward(walk, ha_pass_x(walk->pass, walk->context.layer), err);
    return r;
}

/* pass->dx from the rows' gradients and coefficients, through the final norm. */
static int head_backward(const struct ha_pass *pass, const float *coefficient, struct ha_error *err)
{
    const struct ha_matrix *weight = &ha_model_weights(pass->model)->final_norm;
    int64_t n = pass->pack->n_tokens, width = pass->config->width;
    int r = ha_backend_zero(pass->backend, pass->dnorm, ha_pass_act_bytes(pass, width), err);

    if (r == 0)
        r = pass->ops->scatter_rows_add(pass->backend, pass->dnorm, pass->drows,
                                        pass->pack->row_token, coefficient, pass->pack->n_rows,
                                        width, err);
    if (r == 0)
        r = pass->ops->rmsnorm_backward(pass->backend, pass->dx, pass->dnorm,
                                        ha_pass_x(pass, pass->config->n_layers), pass->final_rstd,
                                        weight->data, weight->dtype, n, 1, width, width, width,
                                        width, false, err);
    return r;
}

/* From the head down to layer `lowest`; `walk` says who wants what. */
static int walk_down(struct ha_pass *pass, const struct ha_adapter *adapter, int64_t lowest,
                     const float *coefficient, struct walk walk, struct ha_error *err)
{
    struct ha_shards *shards = ha_model_shards(pass->model);
    int r;

    if (!pass->has_gradient)
        return ha_error_set(err, EINVAL, "the head has not kept gradients for a backward pass");
    pass->has_gradient = false;
    pass->border = -1;
    walk.pass = pass;
    r = head_backward(pass, coefficient, err);
    if (r == 0)
        r = ha_shards_begin(shards, HA_WALK_DOWN, lowest, pass->config->n_layers, err);
    for (int64_t layer = pass->config->n_layers - 1; r == 0 && layer >= lowest; layer--) {
        walk.context = ha_pass_context(pass, adapter, layer);
        walk.kept = ha_pass_kept(pass, layer);
        walk.go_on = layer > lowest;
        r = ha_shards_take(shards, layer, err);
        if (r == 0)
            r = layer_backward(&walk, err);
    }
    return r;
}

int ha_pass_backward(struct ha_pass *pass, const struct ha_adapter *adapter,
                     const float *coefficient, float *gradient, struct ha_error *err)
{
    int64_t lowest = ha_adapter_lowest_layer(adapter);

    if (lowest < pass->limits.lowest_layer)
        return ha_error_set(err, EINVAL,
                            "the adapter's lowest layer %lld keeps no activations in this pass",
                            (long long)lowest);
    return walk_down(pass, adapter, lowest, coefficient, (struct walk){.gradient = gradient}, err);
}

int ha_pass_backward_frozen(struct ha_pass *pass, const float *coefficient, ha_pass_factors factors,
                            void *user, struct ha_error *err)
{
    struct walk walk = {.factors = factors, .user = user};

    return walk_down(pass, NULL, pass->limits.lowest_layer, coefficient, walk, err);
}
