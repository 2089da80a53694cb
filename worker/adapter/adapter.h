/* adapter.h - a LoRA adapter on a backend, and its PEFT files
 *
 * For each adapted linear layer y = W x (W frozen, out x in) the adapter adds
 *     y += scale * B (A x)      A (rank, in), B (out, rank), f32
 * with scale = alpha / rank, or alpha / sqrt(rank) with rslora (PEFT 0.20).
 *
 * All A and B of one adapter lie in one block of f32 on the backend, layer by
 * layer, in a layer in the order of enum ha_module, A before B, so that the
 * optimizer and the gradient norm are one call over n_params values.  A
 * gradient or a moment is another block of the same layout.
 *
 * This library knows nothing of the model but the widths in struct
 * ha_adapter_geometry. */
#ifndef HA_WORKER_ADAPTER_ADAPTER_H
#define HA_WORKER_ADAPTER_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/ops.h"

struct ha_error;

/* The linear layers of a decoder layer, in the order of PEFT's named_modules. */
enum ha_module {
    HA_MODULE_Q,
    HA_MODULE_K,
    HA_MODULE_V,
    HA_MODULE_O,
    HA_MODULE_GATE,
    HA_MODULE_UP,
    HA_MODULE_DOWN,
    HA_MODULE_COUNT
};

/* "q_proj", ... "down_proj". */
const char *ha_module_name(enum ha_module module);

/* "self_attn.q_proj", ... "mlp.down_proj": the path inside a decoder layer. */
const char *ha_module_path(enum ha_module module);

/* Name -> module.  Returns 0 or -EINVAL (the text lists the names). */
int ha_module_parse(const char *name, enum ha_module *ret_module, struct ha_error *err);

/* Widths of the model's linear layers (ha_model_config_geometry fills it). */
struct ha_adapter_geometry {
    int64_t n_layers;
    int64_t in[HA_MODULE_COUNT], out[HA_MODULE_COUNT];
};

/* n_layers of a geometry is at most this. */
enum { HA_ADAPTER_MAX_LAYERS = 1024, HA_ADAPTER_MAX_RANK = 4096 };

struct ha_adapter_settings {
    int64_t rank;          /* 1 .. HA_ADAPTER_MAX_RANK */
    double alpha;          /* > 0, finite */
    bool rslora;           /* scale alpha / sqrt(rank) */
    double dropout;        /* for adapter_config.json; who trains says what is dropped */
    uint32_t modules;      /* bit 1u << enum ha_module; at least one */
    const int64_t *layers; /* ascending, 0-based decoder layers; at least one */
    int64_t n_layers;
};

/* One adapted linear layer; a.data is NULL where the module is not adapted. */
struct ha_lora {
    struct ha_matrix a;         /* (rank, in) */
    struct ha_matrix b;         /* (out, rank) */
    int64_t a_offset, b_offset; /* of the two in a block of n_params values */
};

struct ha_adapter;

/* A and B are zero: an adapter that changes nothing.  Returns 0, -EINVAL (the
 * text names the setting) or -ENOMEM. */
int ha_adapter_create(struct ha_backend *backend, const struct ha_adapter_geometry *geometry,
                      const struct ha_adapter_settings *settings, struct ha_adapter **ret_adapter,
                      struct ha_error *err);
void ha_adapter_destroy(struct ha_adapter *adapter);

/* A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0.  The numbers are those of PEFT 0.20
 * with torch.manual_seed(seed) right before get_peft_model on a CPU: MT19937
 * through all adapted modules in order, with the draws of the discarded first
 * initialisation (reference: numerics, section 3.1). */
int ha_adapter_init(struct ha_adapter *adapter, uint64_t seed, struct ha_error *err);

const struct ha_adapter_settings *ha_adapter_settings(const struct ha_adapter *adapter);
const struct ha_adapter_geometry *ha_adapter_geometry(const struct ha_adapter *adapter);
struct ha_backend *ha_adapter_backend(const struct ha_adapter *adapter);
float ha_adapter_scale(const struct ha_adapter *adapter);

/* Never NULL for layer in [0, n_layers of the geometry). */
const struct ha_lora *ha_adapter_lora(const struct ha_adapter *adapter, int64_t layer,
                                      enum ha_module module);

/* The lowest adapted layer. */
int64_t ha_adapter_lowest_layer(const struct ha_adapter *adapter);

/* The block of all parameters on the backend, and its length in values. */
float *ha_adapter_params(const struct ha_adapter *adapter);
int64_t ha_adapter_n_params(const struct ha_adapter *adapter);

/* The widest input of these modules (bits as in settings.modules); 0 for none. */
int64_t ha_adapter_widest_input(const struct ha_adapter_geometry *geometry, uint32_t bits);

/* n_params without making an adapter; -EINVAL as ha_adapter_create. */
int ha_adapter_count_params(const struct ha_adapter_geometry *geometry,
                            const struct ha_adapter_settings *settings, int64_t *ret_n_params,
                            struct ha_error *err);

/* Write DIR/adapter_config.json and DIR/adapter_model.safetensors as PEFT 0.20
 * reads them (DIR is made; each file is replaced atomically).  base_model goes
 * into base_model_name_or_path; may be NULL. */
int ha_adapter_save(const struct ha_adapter *adapter, const char *dir, const char *base_model,
                    struct ha_error *err);

/* Read a PEFT directory.  Every tensor that the configuration announces must be
 * there with its shape, and no other may be; what this engine does not do
 * (DoRA, rank_pattern, modules_to_save, ...) is refused by the field's name. */
int ha_adapter_load(struct ha_backend *backend, const struct ha_adapter_geometry *geometry,
                    const char *dir, struct ha_adapter **ret_adapter, struct ha_error *err);

#endif
