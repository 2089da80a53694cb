/* config.h - config.json and generation_config.json of a model directory
 *
 * Families: LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, in the key
 * forms of Transformers 4 (rope_theta + rope_scaling) and 5 (rope_parameters).
 * What the engine does not do is refused by file and field, never guessed. */
#ifndef HA_WORKER_MODEL_CONFIG_H
#define HA_WORKER_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "worker/adapter/adapter.h"

struct ha_error;

enum ha_model_family { HA_FAMILY_LLAMA, HA_FAMILY_QWEN2, HA_FAMILY_QWEN3 };

const char *ha_model_family_name(enum ha_model_family family); /* "llama", "qwen2", "qwen3" */

/* Rotary embedding: inverse frequency i is theta^(-2i/D), then scaled by the
 * llama3 rule if llama3 is set (numerics, section 4.2). */
struct ha_rope {
    double theta;
    bool llama3;
    double factor, low_freq_factor, high_freq_factor;
    int64_t original_max_position;
};

struct ha_model_config {
    enum ha_model_family family;
    int64_t n_layers;
    int64_t width;      /* H: hidden_size */
    int64_t inner;      /* intermediate_size */
    int64_t n_heads;    /* query heads */
    int64_t n_kv_heads; /* divides n_heads */
    int64_t head_dim;   /* D, even; n_heads * D need not be H */
    int64_t vocab;      /* V: rows of the embedding and the head */
    int64_t max_position;
    float rms_eps;
    struct ha_rope rope;
    bool qkv_bias; /* biases on q, k, v */
    bool o_bias;   /* bias on o */
    bool qk_norm;  /* RMSNorm over each head of q and k before RoPE */
    bool tied;     /* the head is the embedding */
    bool has_bos;
    int32_t bos;         /* where has_bos */
    enum ha_dtype dtype; /* dtype or torch_dtype; F32 where the file says none */
};

/* Read DIR/config.json. */
int ha_model_config_load(const char *dir, struct ha_model_config *ret_config, struct ha_error *err);

/* The widths that an adapter needs. */
void ha_model_config_geometry(const struct ha_model_config *config,
                              struct ha_adapter_geometry *ret_geometry);

/* Parameters by arithmetic: all of them, those of one decoder layer's linear
 * layers, those of the output head. */
int64_t ha_model_config_n_params(const struct ha_model_config *config);
int64_t ha_model_config_layer_linear_params(const struct ha_model_config *config);
int64_t ha_model_config_head_params(const struct ha_model_config *config);

/* D/2 inverse frequencies as Transformers computes them. */
void ha_model_config_inverse_frequencies(const struct ha_model_config *config, float *frequencies);

enum { HA_MODEL_MAX_EOS = 16 };

/* generation_config.json; a missing file or field gives Transformers' defaults
 * (greedy, temperature 1, top_k 50, top_p 1, repetition_penalty 1), and the
 * end tokens then come from config.json. */
struct ha_generation_config {
    int32_t eos[HA_MODEL_MAX_EOS];
    int64_t n_eos;
    bool do_sample;
    double temperature;
    double top_p;
    int64_t top_k;
    double repetition_penalty;
    int64_t max_new_tokens; /* 0: the file says none */
};

int ha_generation_config_load(const char *dir, struct ha_generation_config *ret_config,
                              struct ha_error *err);

#endif
