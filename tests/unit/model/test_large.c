/* One layer and the head of each real shape, with random bf16 weights: forward,
 * and gradients against a central difference. */
#include "tests/unit/model/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/memory.h"

struct shape {
    const char *name;
    enum ha_model_family family;
    int64_t width, inner, n_heads, n_kv_heads, vocab;
    double theta;
};

static struct shape shapes[] = {
    {"Llama-2-7B", HA_FAMILY_LLAMA, 4096, 11008, 32, 32, 32000, 1e4},
    {"Llama-3.1-8B", HA_FAMILY_LLAMA, 4096, 14336, 32, 8, 128256, 5e5},
    {"Qwen2.5-7B", HA_FAMILY_QWEN2, 3584, 18944, 28, 4, 152064, 1e6},
    {"Qwen3-8B", HA_FAMILY_QWEN3, 4096, 12288, 32, 8, 151936, 1e6},
};

/* Random bf16 of unit gain, from a block that repeats at a length that divides no row. */
static struct ha_matrix random_matrix(int64_t rows, int64_t cols, float mean, float scale)
{
    enum { BLOCK = 65521 };
    static uint16_t block[BLOCK];
    struct random random = {(uint64_t)rows};
    struct ha_matrix matrix = {.dtype = HA_DTYPE_BF16, .rows = rows, .cols = cols, .stride = cols};
    int64_t n = rows * cols;
    uint16_t *data =
        mmap(NULL, (size_t)n * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(data != MAP_FAILED);
    for (int i = 0; i < BLOCK; i++) {
        float value = mean + scale * random_uniform(&random);
        uint32_t bits;

        memcpy(&bits, &value, sizeof(bits));
        block[i] = (uint16_t)(bits >> 16);
    }
    for (int64_t i = 0; i < n; i += BLOCK)
        memcpy(data + i, block, (size_t)(n - i < BLOCK ? n - i : BLOCK) * 2);
    matrix.data = data;
    return matrix;
}

static void release(struct ha_matrix *matrix)
{
    if (matrix->data)
        munmap(matrix->data, (size_t)(matrix->rows * matrix->cols) * 2);
}

static void make_weights(const struct ha_model_config *config, struct ha_weights *weights)
{
    struct ha_layer_weights *layer = weights->layers;
    struct ha_adapter_geometry geometry;

    ha_model_config_geometry(config, &geometry);
    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        layer->linear[module] = random_matrix(geometry.out[module], geometry.in[module], 0,
                                              1.7f / sqrtf((float)geometry.in[module]));
        if (config->qkv_bias && module <= HA_MODULE_V)
            layer->bias[module] = random_matrix(1, geometry.out[module], 0, 0.3f);
    }
    layer->input_norm = random_matrix(1, config->width, 1, 0.2f);
    layer->post_norm = random_matrix(1, config->width, 1, 0.2f);
    if (config->qk_norm) {
        layer->q_norm = random_matrix(1, config->head_dim, 1, 0.2f);
        layer->k_norm = random_matrix(1, config->head_dim, 1, 0.2f);
    }
    weights->final_norm = random_matrix(1, config->width, 1, 0.2f);
    weights->head = random_matrix(config->vocab, config->width, 0, 0.05f);
    weights->embedding = weights->head;
}

static void free_weights(struct ha_weights *weights)
{
    struct ha_layer_weights *layer = weights->layers;

    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        release(&layer->linear[module]);
        release(&layer->bias[module]);
    }
    release(&layer->input_norm);
    release(&layer->post_norm);
    release(&layer->q_norm);
    release(&layer->k_norm);
    release(&weights->final_norm);
    release(&weights->head);
}

static double sum_logp(struct ha_pass *pass, const struct ha_pack *pack,
                       const struct ha_adapter *adapter, bool gradient)
{
    struct ha_pass_rows rows;
    double sum = 0;

    assert_ok(ha_pass_forward(pass, pack, adapter, gradient, &rows, &err));
    for (int64_t i = 0; i < rows.n_rows; i++) {
        assert_true(isfinite(rows.logp[i]) && rows.logp[i] < 0);
        sum += (double)rows.logp[i];
    }
    return sum;
}

/* Along the gradient itself, so that the slope is its squared norm. */
static void check_gradient(struct ha_pass *pass, const struct ha_pack *pack,
                           struct ha_adapter *adapter)
{
    int64_t n = ha_adapter_n_params(adapter);
    float *coefficient = ha_calloc(pack->n_rows, sizeof(float)), *params = ha_calloc(n, 4);
    float *gradient = ha_calloc(n, sizeof(float));
    double norm = 0, step, sums[2];

    assert_non_null(coefficient);
    assert_non_null(gradient);
    assert_non_null(params);
    for (int64_t i = 0; i < pack->n_rows; i++)
        coefficient[i] = 1.0f;
    (void)sum_logp(pass, pack, adapter, true);
    assert_ok(ha_pass_backward(pass, adapter, coefficient, gradient, &err));
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(gradient[i]));
        norm += (double)gradient[i] * (double)gradient[i];
    }
    assert_true(norm > 0);
    step = 0.02 / norm; /* the sum moves by 0.02 */
    memcpy(params, ha_adapter_params(adapter), (size_t)n * sizeof(float));
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            ha_adapter_params(adapter)[i] = params[i] + (float)(side ? -step : step) * gradient[i];
        sums[side] = sum_logp(pass, pack, adapter, false);
    }
    assert_true(fabs((sums[0] - sums[1]) / 0.04 - 1) < 0.02);
    free(gradient);
    free(params);
    free(coefficient);
}

static void layer_and_head(void **state)
{
    const struct shape *shape = *state;
    struct ha_model_config config = {
        .family = shape->family,
        .n_layers = 1,
        .width = shape->width,
        .inner = shape->inner,
        .n_heads = shape->n_heads,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = 128,
        .vocab = shape->vocab,
        .max_position = 4096,
        .rms_eps = 1e-5f,
        .rope = {.theta = shape->theta},
        .qkv_bias = shape->family == HA_FAMILY_QWEN2,
        .qk_norm = shape->family == HA_FAMILY_QWEN3,
        .tied = true,
    };
    struct ha_layer_weights layer = {.input_norm = {.data = NULL}};
    struct ha_weights weights = {.layers = &layer};
    struct ha_backend *backend = open_cpu(2);
    struct ha_model *model = NULL;
    struct ha_adapter *adapter;
    struct ha_pack *pack = NULL;
    struct ha_pass *pass = NULL;
    struct ha_pass_limits limits = {.max_rank = 16};
    int32_t ids[16];
    struct ha_pack_pair pair = {ids, ids + 6, ids + 11, 6, 5, 4};

    for (int i = 0; i < 16; i++)
        ids[i] = (int32_t)((int64_t)i * 7919 * 13 % shape->vocab);
    make_weights(&config, &weights);
    assert_ok(ha_model_create(backend, &config, &weights, &model, &err));
    adapter = random_adapter(backend, &config, 0, 0, (1u << HA_MODULE_COUNT) - 1, 16, 0.02f, 1);
    assert_ok(ha_pack_create_pairs(&pair, NULL, 1, true, &pack, &err));
    limits.max_tokens = pack->n_tokens;
    limits.max_rows = pack->n_rows;
    assert_ok(ha_pass_create(model, &limits, &pass, &err));
    check_gradient(pass, pack, adapter);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    ha_adapter_destroy(adapter);
    ha_model_destroy(model);
    ha_backend_close(backend);
    free_weights(&weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"Llama-2-7B", layer_and_head, NULL, NULL, &shapes[0]},
        {"Llama-3.1-8B", layer_and_head, NULL, NULL, &shapes[1]},
        {"Qwen2.5-7B", layer_and_head, NULL, NULL, &shapes[2]},
        {"Qwen3-8B", layer_and_head, NULL, NULL, &shapes[3]},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
