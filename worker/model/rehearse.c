#include "worker/model/rehearse.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/shards.h"

/* Lengths are sixteenths of the longest pack, as far apart as a GPU's choices are
 * (kernels/cuda/gemm_choice.h); pairs are about as long as real ones. */
enum { PARTS = 16, FEWEST_PARTS = 8, PAIR_TOKENS = 256, TRAINED_LAYERS = 2 };

/* n tokens as pairs of a prompt and one answer of equal length. */
static int make_pack(int64_t n, int64_t vocab, int32_t **ret_ids, struct ha_pack **ret_pack,
                     struct ha_error *err)
{
    int64_t n_pairs = (n + PAIR_TOKENS - 1) / PAIR_TOKENS;
    struct ha_pack_pair *pairs = ha_calloc(n_pairs, sizeof(*pairs));
    int32_t *ids = ha_calloc(n, sizeof(*ids));
    int r = pairs && ids ? 0 : ha_error_set(err, ENOMEM, "no memory to rehearse");

    for (int64_t i = 0; r == 0 && i < n; i++)
        ids[i] = (int32_t)(i % vocab);
    for (int64_t i = 0; r == 0 && i < n_pairs; i++) {
        int64_t begin = i * PAIR_TOKENS, left = n - begin;
        int64_t count = left < PAIR_TOKENS ? left : PAIR_TOKENS;

        pairs[i] = (struct ha_pack_pair){.prompt = ids + begin,
                                         .n_prompt = count - count / 2,
                                         .chosen = ids + begin + count - count / 2,
                                         .n_chosen = count / 2,
                                         .rejected = ids};
    }
    if (r == 0)
        r = ha_pack_create_pairs(pairs, NULL, n_pairs, true, ret_pack, err);
    free(pairs);
    if (r < 0)
        free(ids);
    else
        *ret_ids = ids;
    return r;
}

static int take_nothing(void *user, int64_t layer, enum ha_module module,
                        const struct ha_matrix *dy, const struct ha_matrix *x, struct ha_error *err)
{
    (void)user;
    (void)layer;
    (void)module;
    (void)dy;
    (void)x;
    (void)err;
    return 0;
}

/* What is run over every pack. */
struct rehearsal {
    struct ha_pass *pass;
    float *coefficient;
    struct ha_adapter *adapter; /* NULL: the weights have no columns for LoRA */
    void *gradient;
};

static int run_pack(const struct rehearsal *rehearsal, int64_t n_tokens, int64_t vocab,
                    struct ha_error *err)
{
    const struct ha_adapter *adapter = rehearsal->adapter;
    struct ha_pass *pass = rehearsal->pass;
    struct ha_pack *pack = NULL;
    struct ha_pass_rows rows;
    int32_t *ids = NULL;
    int r = make_pack(n_tokens, vocab, &ids, &pack, err);

    if (r == 0)
        r = ha_pass_forward(pass, pack, NULL, true, &rows, err);
    if (r == 0)
        r = ha_pass_backward_frozen(pass, rehearsal->coefficient, take_nothing, NULL, err);
    if (r == 0 && adapter)
        r = ha_pass_forward(pass, pack, adapter, true, &rows, err);
    if (r == 0 && adapter)
        r = ha_pass_backward(pass, adapter, rehearsal->coefficient, rehearsal->gradient, err);
    ha_pack_destroy(pack);
    free(ids);
    return r;
}

/* One of q, k, v, o in the layers that the pass trains, and room for its gradient. */
static int make_adapter(struct ha_model *model, int64_t lowest, struct rehearsal *rehearsal,
                        struct ha_error *err)
{
    struct ha_backend *backend = ha_model_backend(model);
    int64_t layers[TRAINED_LAYERS], n = ha_model_config(model)->n_layers - lowest;
    struct ha_adapter_settings settings = {
        .rank = 1, .alpha = 1, .modules = 0xf, .layers = layers, .n_layers = n};
    struct ha_adapter_geometry geometry;
    int r;

    for (int64_t i = 0; i < n; i++)
        layers[i] = lowest + i;
    ha_model_config_geometry(ha_model_config(model), &geometry);
    r = ha_adapter_create(backend, &geometry, &settings, &rehearsal->adapter, err);
    if (r == 0)
        r = ha_backend_alloc(backend,
                             (size_t)ha_adapter_n_params(rehearsal->adapter) * sizeof(float),
                             &rehearsal->gradient, err);
    return r;
}

int ha_model_rehearse(struct ha_model *model, int64_t max_tokens, bool round_logits_bf16,
                      const volatile sig_atomic_t *stop, struct ha_error *err)
{
    const struct ha_model_config *config = ha_model_config(model);
    struct ha_pass_limits limits = {.max_tokens = max_tokens,
                                    .max_rows = max_tokens / 2 + 1,
                                    .recomputed_layers = config->n_layers > 1,
                                    .round_logits_bf16 = round_logits_bf16};
    struct rehearsal rehearsal = {.coefficient =
                                      ha_calloc(max_tokens, sizeof(*rehearsal.coefficient))};
    int64_t last = 0;
    int r = rehearsal.coefficient ? 0 : ha_error_set(err, ENOMEM, "no memory to rehearse");

    if (config->n_layers > TRAINED_LAYERS)
        limits.lowest_layer = config->n_layers - TRAINED_LAYERS;
    if (r == 0 && ha_model_weights(model)->lora_columns > 0) {
        limits.max_rank = 1;
        r = make_adapter(model, limits.lowest_layer, &rehearsal, err);
    }
    if (r == 0)
        r = ha_pass_create(model, &limits, &rehearsal.pass, err);
    ha_shards_rehearse(ha_model_shards(model), true);
    for (int64_t part = PARTS; r == 0 && part >= FEWEST_PARTS; part--) {
        int64_t n_tokens = max_tokens * part / PARTS;

        if (stop && *stop)
            r = ha_error_set(err, EINTR, "stopped");
        else if (n_tokens > 0 && n_tokens != last)
            r = run_pack(&rehearsal, n_tokens, config->vocab, err);
        last = n_tokens;
    }
    if (r == 0)
        r = ha_backend_sync(ha_model_backend(model), err);
    ha_shards_rehearse(ha_model_shards(model), false);
    ha_pass_destroy(rehearsal.pass);
    ha_backend_free(ha_model_backend(model), rehearsal.gradient);
    ha_adapter_destroy(rehearsal.adapter);
    free(rehearsal.coefficient);
    return r;
}
