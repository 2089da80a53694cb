/* weights.h - the frozen weights of a model, mapped from safetensors files
 *
 * DIR/model.safetensors, or the shards of DIR/model.safetensors.index.json.
 * The files are mapped and made readable for the backend tensor by tensor: on
 * the CPU nothing is copied; on a GPU each goes to its place and is there once.  F32, BF16 and F16
 * are read, each tensor in its own type.  Each tensor must be there once with the shape that
 * config.json implies; unknown tensors are refused by name (old rotary_emb.inv_freq entries are
 * ignored). */
#ifndef HA_WORKER_MODEL_WEIGHTS_H
#define HA_WORKER_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "worker/adapter/adapter.h"
#include "worker/model/config.h"

struct ha_error;
struct ha_safetensors;
struct ha_shards;

/* The list of shards, beside them where there are several. */
#define HA_WEIGHT_INDEX_FILE "model.safetensors.index.json"

/* Where the backend copies weights, the rows of q, k, v and those of o have so many columns behind
 * them, which are 0 until a pass puts an adapter's scale * B there (layer.h): one product then
 * makes W x + scale B (A x).
 *
 * It is the same number whatever is trained.  So the base model, every cell of a job and the same
 * cell in a job of its own multiply the same shapes by the same algorithms: margins are exactly 0
 * at step 0, and no bit depends on the ranks or modules of the cells beside.  What does not fit
 * (rank times adapted modules of the matrix: above 21 for q, k, v, above 64 for o) and what is
 * adapted elsewhere is added to W x by a product of its own, as on the CPU, where weights are
 * mapped.  64 is what tensor cores take at a time: fewer would cost as much. */
enum { HA_WEIGHTS_LORA_COLUMNS = 64 };

/* The number for a backend that copies weights, or not. */
int64_t ha_weights_lora_columns(bool copies_weights);

/* Do adapters of up to this rank fit the columns of the module's product, whatever they adapt? */
bool ha_weights_lora_fits(int64_t columns, enum ha_module module, int64_t max_rank);

/* Bytes that the columns of a model take. */
int64_t ha_weights_lora_bytes(const struct ha_model_config *config, int64_t columns);

/* This process is rank `rank` of `ranks` that share the weights of the layers. */
struct ha_model_shard {
    int rank, ranks;
};

/* Vectors are matrices of one row; data NULL where the model has no such tensor.
 *
 * Where the backend copies weights, q, k, v lie below each other in one matrix, so that one
 * product makes them all, and so do gate and up; linear and bias are then views of their rows.
 * Elsewhere the joined ones are NULL.  The columns above are no part of a view, but of its
 * stride. */
struct ha_layer_weights {
    struct ha_matrix linear[HA_MODULE_COUNT]; /* (out, in) */
    struct ha_matrix bias[HA_MODULE_COUNT];   /* (1, out), or NULL data */
    struct ha_matrix qkv;                     /* (q + k + v out, H), or NULL data */
    struct ha_matrix qkv_bias;                /* (1, q + k + v out), or NULL data */
    struct ha_matrix gate_up;                 /* (2 inner, H), or NULL data */
    struct ha_matrix input_norm;              /* (1, H) */
    struct ha_matrix post_norm;               /* (1, H): post_attention_layernorm */
    struct ha_matrix q_norm, k_norm;          /* (1, D), or NULL data */
};

struct ha_weights {
    struct ha_matrix embedding;      /* (V, H) */
    struct ha_layer_weights *layers; /* (n_layers) */
    struct ha_matrix final_norm;     /* (1, H) */
    struct ha_matrix head;           /* (V, H); the embedding's memory where tied */
    int64_t bytes;                   /* of all tensors as stored */
    int64_t lora_columns;            /* behind qkv and linear[HA_MODULE_O]; 0: none */
};

/* Files and views that belong together. */
struct ha_weight_files;

/* Map the files of a directory.  The views stay valid until ha_weight_files_close. */
int ha_weight_files_open(struct ha_backend *backend, const struct ha_model_config *config,
                         const char *dir, struct ha_weight_files **ret_files, struct ha_error *err);

/* The same for one of several ranks (shards.h): its share alone is read and copied to the backend's
 * memory, on the CPU too, and the views of layers, and those of embedding and head where they are
 * divided, point to buffers.  The ranks must be given the same files. */
int ha_weight_files_open_shard(struct ha_backend *backend, const struct ha_model_config *config,
                               const char *dir, const struct ha_model_shard *shard,
                               struct ha_weight_files **ret_files, struct ha_error *err);

/* NULL for files that were opened whole. */
struct ha_shards *ha_weight_files_shards(const struct ha_weight_files *files);
void ha_weight_files_close(struct ha_weight_files *files);

const struct ha_weights *ha_weight_files_weights(const struct ha_weight_files *files);

/* The files themselves, in the order of opening; `index` below the count.  Owned by files. */
int64_t ha_weight_files_count(const struct ha_weight_files *files);
const char *ha_weight_files_name(const struct ha_weight_files *files, int64_t index);
const struct ha_safetensors *ha_weight_files_at(const struct ha_weight_files *files, int64_t index);

#endif
