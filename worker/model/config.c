#include "worker/model/config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"

enum { CONFIG_LIMIT_BYTES = 16 << 20 };

/* The largest value of any width or count; products of three stay in 63 bits. */
#define MAX_WIDTH (INT64_C(1) << 20)
#define MAX_VOCAB (INT64_C(1) << 24)
#define MAX_POSITION (INT64_C(1) << 30)

/* A file being read: its object and its name for errors. */
struct source {
    const struct ha_json *json;
    const char *path;
};

const char *ha_model_family_name(enum ha_model_family family)
{
    static const char *const names[] = {"llama", "qwen2", "qwen3"};

    return names[family];
}

static int refuse(const struct source *source, const char *key, const char *what,
                  struct ha_error *err)
{
    return ha_error_set(err, EINVAL, "%s: %s %s", source->path, key, what);
}

static bool is_set(const struct source *source, const char *key)
{
    return ha_json_type(ha_json_get(source->json, key)) != HA_JSON_NULL;
}

/* otherwise < minimum: the field is required. */
static int get_int(const struct source *source, const char *key, int64_t minimum, int64_t maximum,
                   int64_t otherwise, int64_t *ret_value, struct ha_error *err)
{
    const struct ha_json *field = ha_json_get(source->json, key);
    int64_t value = ha_json_int(field, minimum - 1);

    if (ha_json_type(field) == HA_JSON_NULL) {
        if (otherwise < minimum)
            return refuse(source, key, "is missing", err);
        value = otherwise;
    }
    if (value < minimum || value > maximum)
        return ha_error_set(err, EINVAL, "%s: %s must be a whole number from %lld to %lld",
                            source->path, key, (long long)minimum, (long long)maximum);
    *ret_value = value;
    return 0;
}

/* A positive, finite number; otherwise 0: the field is required. */
static int get_positive(const struct source *source, const char *key, double otherwise,
                        double *ret_value, struct ha_error *err)
{
    const struct ha_json *field = ha_json_get(source->json, key);
    double value = ha_json_real(field, NAN);

    if (ha_json_type(field) == HA_JSON_NULL) {
        if (otherwise == 0)
            return refuse(source, key, "is missing", err);
        value = otherwise;
    }
    if (!isfinite(value) || value <= 0)
        return refuse(source, key, "must be a positive number", err);
    *ret_value = value;
    return 0;
}

static int get_bool(const struct source *source, const char *key, bool otherwise, bool *ret_value,
                    struct ha_error *err)
{
    const struct ha_json *field = ha_json_get(source->json, key);

    if (ha_json_type(field) == HA_JSON_NULL)
        *ret_value = otherwise;
    else if (ha_json_is(field, HA_JSON_BOOL))
        *ret_value = ha_json_bool(field, otherwise);
    else
        return refuse(source, key, "must be true or false", err);
    return 0;
}

/* A switch that must be off (or missing). */
static int must_be_off(const struct source *source, const char *key, struct ha_error *err)
{
    bool on;
    int r = get_bool(source, key, false, &on, err);

    if (r == 0 && on)
        r = refuse(source, key, "= true is not supported", err);
    return r;
}

static int read_family(const struct source *source, enum ha_model_family *ret_family,
                       struct ha_error *err)
{
    static const char *const names[] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"};
    const struct ha_json *list = ha_json_get(source->json, "architectures");
    const char *name = ha_json_string(ha_json_at(list, 0), NULL);

    if (!name)
        return refuse(source, "architectures", "is missing; is this a Hugging Face model?", err);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0 && ha_json_size(list) == 1) {
            *ret_family = (enum ha_model_family)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL,
                        "%s: architectures [\"%s\"] is not supported; these are: LlamaForCausalLM, "
                        "Qwen2ForCausalLM, Qwen3ForCausalLM",
                        source->path, name);
}

static int read_llama3(const struct source *rope, int64_t max_position, struct ha_rope *ret_rope,
                       struct ha_error *err)
{
    int r = get_positive(rope, "factor", 0, &ret_rope->factor, err);

    if (r == 0)
        r = get_positive(rope, "low_freq_factor", 0, &ret_rope->low_freq_factor, err);
    if (r == 0)
        r = get_positive(rope, "high_freq_factor", 0, &ret_rope->high_freq_factor, err);
    if (r == 0)
        r = get_int(rope, "original_max_position_embeddings", 1, MAX_POSITION, max_position,
                    &ret_rope->original_max_position, err);
    if (r == 0 && ret_rope->high_freq_factor <= ret_rope->low_freq_factor)
        r = refuse(rope, "high_freq_factor", "must be larger than low_freq_factor", err);
    ret_rope->llama3 = true;
    return r;
}

/* rope_parameters (Transformers 5), or rope_scaling (4; "type" or "rope_type"),
 * and rope_theta inside or beside them. */
static int read_rope(const struct source *source, int64_t max_position, struct ha_rope *ret_rope,
                     struct ha_error *err)
{
    struct ha_rope rope = {.theta = 10000.0};
    bool v5 = is_set(source, "rope_parameters");
    const char *key = v5 ? "rope_parameters" : "rope_scaling";
    struct source inside = {ha_json_get(source->json, key), source->path};
    const char *type = "default";
    int r;

    r = get_positive(source, "rope_theta", rope.theta, &rope.theta, err);
    if (r < 0)
        return r;
    if (is_set(source, "partial_rotary_factor") &&
        ha_json_real(ha_json_get(source->json, "partial_rotary_factor"), 0) != 1.0)
        return refuse(source, "partial_rotary_factor", "other than 1 is not supported", err);
    if (ha_json_type(inside.json) != HA_JSON_NULL) {
        if (!ha_json_is(inside.json, HA_JSON_OBJECT) || is_set(&inside, "full_attention"))
            return refuse(source, key, "must be null or one object for all layers", err);
        type = ha_json_string(ha_json_get(inside.json, "rope_type"),
                              ha_json_string(ha_json_get(inside.json, "type"), type));
        r = get_positive(&inside, "rope_theta", rope.theta, &rope.theta, err);
        if (r < 0)
            return r;
        if (is_set(&inside, "partial_rotary_factor") &&
            ha_json_real(ha_json_get(inside.json, "partial_rotary_factor"), 0) != 1.0)
            return refuse(source, key, ".partial_rotary_factor other than 1 is not supported", err);
    }
    if (strcmp(type, "llama3") == 0)
        r = read_llama3(&inside, max_position, &rope, err);
    else if (strcmp(type, "default") != 0)
        r = ha_error_set(err, EINVAL,
                         "%s: %s.rope_type \"%s\" is not supported; \"llama3\" and null are",
                         source->path, key, type);
    if (r == 0)
        *ret_rope = rope;
    return r;
}

static int read_sizes(const struct source *source, struct ha_model_config *config,
                      struct ha_error *err)
{
    double eps;
    int r =
        get_int(source, "num_hidden_layers", 1, HA_ADAPTER_MAX_LAYERS, 0, &config->n_layers, err);

    if (r == 0)
        r = get_int(source, "hidden_size", 1, MAX_WIDTH, 0, &config->width, err);
    if (r == 0)
        r = get_int(source, "intermediate_size", 1, MAX_WIDTH, 0, &config->inner, err);
    if (r == 0)
        r = get_int(source, "num_attention_heads", 1, MAX_WIDTH, 0, &config->n_heads, err);
    if (r == 0)
        r = get_int(source, "num_key_value_heads", 1, MAX_WIDTH, config->n_heads,
                    &config->n_kv_heads, err);
    if (r == 0)
        r = get_int(source, "vocab_size", 1, MAX_VOCAB, 0, &config->vocab, err);
    if (r == 0)
        r = get_int(source, "max_position_embeddings", 1, MAX_POSITION, 2048, &config->max_position,
                    err);
    if (r == 0)
        r = get_positive(source, "rms_norm_eps", 1e-6, &eps, err);
    if (r < 0)
        return r;
    config->rms_eps = (float)eps;
    if (config->n_heads % config->n_kv_heads != 0)
        return refuse(source, "num_key_value_heads", "must divide num_attention_heads", err);
    if (!is_set(source, "head_dim") && config->family != HA_FAMILY_QWEN3 &&
        config->width % config->n_heads != 0)
        return refuse(source, "hidden_size", "is not a multiple of num_attention_heads", err);
    r = get_int(source, "head_dim", 2, 1024,
                config->family == HA_FAMILY_QWEN3 ? 128 : config->width / config->n_heads,
                &config->head_dim, err);
    if (r < 0)
        return r;
    if (config->head_dim % 2 != 0)
        return refuse(source, "head_dim", "must be even", err);
    if (config->n_heads * config->head_dim > MAX_WIDTH)
        return refuse(source, "num_attention_heads", "times head_dim is out of range", err);
    return 0;
}

static int check_layer_types(const struct source *source, struct ha_error *err)
{
    const struct ha_json *types = ha_json_get(source->json, "layer_types");

    for (int64_t i = 0; i < ha_json_size(types); i++) {
        if (strcmp(ha_json_string(ha_json_at(types, i), ""), "full_attention") != 0)
            return refuse(source, "layer_types", "other than \"full_attention\" are not supported",
                          err);
    }
    return 0;
}

static int read_switches(const struct source *source, struct ha_model_config *config,
                         struct ha_error *err)
{
    static const char *const off[] = {"use_sliding_window", "mlp_bias"};
    const char *act = ha_json_string(ha_json_get(source->json, "hidden_act"), "silu");
    bool bias;
    int r;

    if (strcmp(act, "silu") != 0)
        return ha_error_set(err, EINVAL, "%s: hidden_act \"%s\" is not supported; \"silu\" is",
                            source->path, act);
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        r = must_be_off(source, off[i], err);
        if (r < 0)
            return r;
    }
    if (ha_json_real(ha_json_get(source->json, "attention_dropout"), 0) != 0)
        return refuse(source, "attention_dropout", "other than 0 is not supported", err);
    if (is_set(source, "quantization_config"))
        return refuse(source, "quantization_config",
                      "is not supported: use bf16, fp16 or fp32 weights", err);
    r = check_layer_types(source, err);
    if (r == 0)
        r = get_bool(source, "tie_word_embeddings", false, &config->tied, err);
    if (r == 0)
        r = get_bool(source, "attention_bias", false, &bias, err);
    if (r < 0)
        return r;
    /* Qwen2 has its q, k, v biases without a field that says so. */
    config->qkv_bias = config->family == HA_FAMILY_QWEN2 || bias;
    config->o_bias = config->family != HA_FAMILY_QWEN2 && bias;
    config->qk_norm = config->family == HA_FAMILY_QWEN3;
    return 0;
}

static int read_dtype(const struct source *source, enum ha_dtype *ret_dtype, struct ha_error *err)
{
    const char *key = is_set(source, "dtype") ? "dtype" : "torch_dtype";
    const char *name = ha_json_string(ha_json_get(source->json, key), "float32");

    if (strcmp(name, "float32") == 0)
        *ret_dtype = HA_DTYPE_F32;
    else if (strcmp(name, "bfloat16") == 0)
        *ret_dtype = HA_DTYPE_BF16;
    else if (strcmp(name, "float16") == 0)
        *ret_dtype = HA_DTYPE_F16;
    else
        return ha_error_set(err, EINVAL, "%s: %s \"%s\" is not supported", source->path, key, name);
    return 0;
}

static int read_config(const struct source *source, struct ha_model_config *ret_config,
                       struct ha_error *err)
{
    struct ha_model_config config = {0};
    int64_t bos = -1;
    int r;

    if (!ha_json_is(source->json, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: not a JSON object", source->path);
    r = read_family(source, &config.family, err);
    if (r == 0)
        r = read_sizes(source, &config, err);
    if (r == 0)
        r = read_rope(source, config.max_position, &config.rope, err);
    if (r == 0)
        r = read_switches(source, &config, err);
    if (r == 0)
        r = read_dtype(source, &config.dtype, err);
    if (r == 0 && is_set(source, "bos_token_id")) {
        r = get_int(source, "bos_token_id", 0, config.vocab - 1, 0, &bos, err);
        config.has_bos = true;
        config.bos = (int32_t)bos;
    }
    if (r == 0)
        *ret_config = config;
    return r;
}

int ha_model_config_load(const char *dir, struct ha_model_config *ret_config, struct ha_error *err)
{
    char *path = ha_path_join(dir, "config.json");
    struct ha_json *json = NULL;
    int r;

    if (!path)
        return ha_error_set(err, ENOMEM, "no memory to read config.json");
    r = ha_json_load(path, CONFIG_LIMIT_BYTES, &json, err);
    if (r == 0)
        r = read_config(&(struct source){json, path}, ret_config, err);
    ha_json_destroy(json);
    free(path);
    return r;
}

void ha_model_config_geometry(const struct ha_model_config *config,
                              struct ha_adapter_geometry *ret_geometry)
{
    int64_t q = config->n_heads * config->head_dim, kv = config->n_kv_heads * config->head_dim;

    *ret_geometry = (struct ha_adapter_geometry){
        .n_layers = config->n_layers,
        .in = {config->width, config->width, config->width, q, config->width, config->width,
               config->inner},
        .out = {q, kv, kv, config->width, config->inner, config->inner, config->width},
    };
}

int64_t ha_model_config_layer_linear_params(const struct ha_model_config *config)
{
    struct ha_adapter_geometry geometry;
    int64_t sum = 0;

    ha_model_config_geometry(config, &geometry);
    for (int module = 0; module < HA_MODULE_COUNT; module++)
        sum += geometry.in[module] * geometry.out[module];
    return sum;
}

int64_t ha_model_config_head_params(const struct ha_model_config *config)
{
    return config->vocab * config->width;
}

int64_t ha_model_config_n_params(const struct ha_model_config *config)
{
    int64_t q = config->n_heads * config->head_dim, kv = config->n_kv_heads * config->head_dim;
    int64_t layer = ha_model_config_layer_linear_params(config) + 2 * config->width;
    int64_t head = ha_model_config_head_params(config);

    if (config->qkv_bias)
        layer += q + 2 * kv;
    if (config->o_bias)
        layer += config->width;
    if (config->qk_norm)
        layer += 2 * config->head_dim;
    return config->n_layers * layer + config->width + (config->tied ? head : 2 * head);
}

/* In f32 where Transformers computes in f32, so that large positions turn by
 * the same angles. */
void ha_model_config_inverse_frequencies(const struct ha_model_config *config, float *frequencies)
{
    const struct ha_rope *rope = &config->rope;
    float dim = (float)config->head_dim;

    for (int64_t i = 0; i < config->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / dim;
        float frequency = 1.0f / (float)pow((double)(float)rope->theta, (double)exponent);

        if (rope->llama3) {
            float wavelength = (float)(2.0 * M_PI) / frequency;
            float original = (float)rope->original_max_position;
            float low = (float)rope->low_freq_factor, high = (float)rope->high_freq_factor;
            float factor = (float)rope->factor;

            if (wavelength > original / low) {
                frequency /= factor;
            } else if (wavelength >= original / high) {
                float smooth = (original / wavelength - low) / (high - low);

                frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
            }
        }
        frequencies[i] = frequency;
    }
}

/* ---- generation_config.json ---- */

static int read_eos(const struct source *source, struct ha_generation_config *config,
                    struct ha_error *err)
{
    const struct ha_json *field = ha_json_get(source->json, "eos_token_id");
    bool list = ha_json_is(field, HA_JSON_ARRAY);
    int64_t n = list ? ha_json_size(field) : 1;

    if (ha_json_type(field) == HA_JSON_NULL)
        return 0;
    if (n < 1 || n > HA_MODEL_MAX_EOS)
        return refuse(source, "eos_token_id", "must be one id or a list of 1 to 16", err);
    for (int64_t i = 0; i < n; i++) {
        int64_t id = ha_json_int(list ? ha_json_at(field, i) : field, -1);

        if (id < 0 || id >= MAX_VOCAB)
            return refuse(source, "eos_token_id", "must be a token id or a list of them", err);
        config->eos[i] = (int32_t)id;
    }
    config->n_eos = n;
    return 0;
}

static int read_generation(const struct source *source, struct ha_generation_config *config,
                           struct ha_error *err)
{
    int r;

    if (!ha_json_is(source->json, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: not a JSON object", source->path);
    r = read_eos(source, config, err);
    if (r == 0)
        r = get_bool(source, "do_sample", false, &config->do_sample, err);
    if (r == 0 && is_set(source, "temperature") &&
        ha_json_real(ha_json_get(source->json, "temperature"), -1) == 0)
        config->temperature = 0;
    else if (r == 0)
        r = get_positive(source, "temperature", 1.0, &config->temperature, err);
    if (r == 0)
        r = get_positive(source, "top_p", 1.0, &config->top_p, err);
    if (r == 0)
        r = get_int(source, "top_k", 0, MAX_VOCAB, 50, &config->top_k, err);
    if (r == 0)
        r = get_positive(source, "repetition_penalty", 1.0, &config->repetition_penalty, err);
    if (r == 0)
        r = get_int(source, "max_new_tokens", 0, MAX_POSITION, 0, &config->max_new_tokens, err);
    if (r == 0 && config->top_p > 1.0)
        r = refuse(source, "top_p", "must not be above 1", err);
    return r;
}

int ha_generation_config_load(const char *dir, struct ha_generation_config *ret_config,
                              struct ha_error *err)
{
    struct ha_generation_config config = {
        .temperature = 1.0, .top_p = 1.0, .top_k = 50, .repetition_penalty = 1.0};
    char *path = ha_path_join(dir, "generation_config.json");
    char *model_path = ha_path_join(dir, "config.json");
    struct ha_json *json = NULL, *model_json = NULL;
    int r = 0;

    if (!path || !model_path) {
        r = ha_error_set(err, ENOMEM, "no memory to read generation_config.json");
        goto out;
    }
    if (ha_path_exists(path)) {
        r = ha_json_load(path, CONFIG_LIMIT_BYTES, &json, err);
        if (r == 0)
            r = read_generation(&(struct source){json, path}, &config, err);
    }
    if (r == 0 && config.n_eos == 0) {
        r = ha_json_load(model_path, CONFIG_LIMIT_BYTES, &model_json, err);
        if (r == 0)
            r = read_eos(&(struct source){model_json, model_path}, &config, err);
    }
    if (r == 0)
        *ret_config = config;
out:
    ha_json_destroy(model_json);
    ha_json_destroy(json);
    free(model_path);
    free(path);
    return r;
}
