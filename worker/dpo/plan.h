/* plan.h - the memory of a training job, by arithmetic, before anything runs
 *
 * A job trains one or several cells of one model, in lock-step if several.  What
 * it allocates is the sum of the parts below; everything is laid out before the
 * first step and nothing grows after it.
 *
 * On the CPU the frozen weights are read where the files are mapped: no copy of
 * them is ever made, in any type, so they are no part of the plan (a product
 * widens a tile at a time, which is in KERNELS).  On a GPU they are held once, in
 * bf16: they stream from the mapped files through pinned buffers into place, q, k, v
 * of a layer into one matrix and gate and up into another; nothing is ever there
 * twice.
 *
 * What changes no bit of any result may depend on the memory: how many layers
 * are run again in the backward pass.  The batch plan may not: it depends on
 * settings alone, the stated limit among them. */
#ifndef HA_WORKER_DPO_PLAN_H
#define HA_WORKER_DPO_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/config.h"

struct ha_error;

enum { HA_DPO_MAX_CELLS = 1024 }; /* of one job */

/* What trains. */
struct ha_dpo_device {
    bool gpu;             /* weights and activations in bf16 in its own memory */
    int threads;          /* of the CPU backend; 0: one per core */
    int64_t memory_bytes; /* that may be used; 0: no limit */
};

/* Whether the ranks of a gang share the frozen weights (worker/model/shard_layout.h). */
enum ha_dpo_sharding {
    HA_DPO_SHARD_NEVER,
    HA_DPO_SHARD_AUTO, /* on GPUs, where the job does not fit otherwise */
    HA_DPO_SHARD_ALWAYS,
};

enum ha_dpo_part {
    HA_DPO_WEIGHTS,  /* frozen; on the CPU 0 unless they are shared */
    HA_DPO_RESIDUAL, /* activations: the input of every trained layer */
    HA_DPO_KEPT,     /* activations: what the backward pass reads, of layers not run again */
    HA_DPO_WORK,     /* of the layer in work, forward and backward */
    HA_DPO_HEAD,     /* of the scored rows */
    HA_DPO_BORDERS,  /* hidden states where cells begin above the embedding */
    HA_DPO_KERNELS,  /* a chunk of logits, scratch of products and attention, rotary table */
    HA_DPO_ADAPTERS, /* f32 masters; a reference adapter */
    HA_DPO_GRADIENTS,
    HA_DPO_MOMENTS,
    HA_DPO_CHECKPOINT, /* host: one cell's state on its way to a file */
    HA_DPO_DATA,       /* host: token ids, order, references, results */
    HA_DPO_PROGRAM,    /* host: program, threads, tokenizer */
    HA_DPO_MARGIN,     /* GPU: 5 % for what the driver and its allocator take */
    HA_DPO_PARTS
};

/* "weights", "kept_activations", ... as in JSON; for people. */
const char *ha_dpo_part_name(enum ha_dpo_part part);
const char *ha_dpo_part_text(enum ha_dpo_part part);

/* True for what stays on the host beside a GPU. */
bool ha_dpo_part_of_host(enum ha_dpo_part part);

struct ha_dpo_plan_request {
    const struct ha_model_config *config;
    struct ha_dpo_device device;
    const struct ha_adapter_settings *adapters; /* (n_adapters) of the job's cells */
    int64_t n_adapters;     /* 0: a probe, which passes through all layers and trains nothing */
    int64_t probe_bytes;    /* of its gradient's tile and sums: in HA_DPO_GRADIENTS */
    bool dropout;           /* of the inputs of any of them */
    int64_t lora_columns;   /* of the model's weights (weights.h) */
    int64_t reference_rank; /* of a reference adapter like the first one; 0: none */
    int64_t stored_bytes;   /* of the weights as they lie in files; 0: 2 bytes a parameter */
    /* Of the largest pack; ha_dpo_plan_worst_pack before the data is read. */
    int64_t max_tokens, max_rows;
    int64_t max_positions; /* tokens of the longest sequence */
    bool f32_logits;       /* GPU: they are not rounded to bf16 */
    /* Data: pairs, held-out pairs, ids of both, pairs of an optimizer step. */
    int64_t n_train, n_eval, n_ids, n_window;
    /* Of a rank of a gang: gradients that it adds up side by side (0: one), and what its
     * communicator holds of the device. */
    int64_t n_gradients, comm_bytes;
    int ranks; /* of the gang; 0: no gang */
    enum ha_dpo_sharding sharding;
};

struct ha_dpo_plan {
    int64_t n_params;    /* of the model */
    int64_t n_trainable; /* LoRA values of all cells */
    int64_t lowest_layer;
    int shards;                /* ranks that share the frozen weights; 1: they are whole */
    int64_t gathered_bytes;    /* that a rank then gets from the others in a pass forward */
    bool sharing_fits;         /* it does not fit, and would if weights were shared */
    int64_t recomputed_layers; /* as ha_pass_limits has it: the fewest that fit */
    int64_t part[HA_DPO_PARTS];
    int64_t total_bytes;  /* on the device that trains: all parts, on a GPU without the host's */
    int64_t host_bytes;   /* GPU: of the host, with the staging buffer */
    int64_t mapped_bytes; /* files that are read where they are mapped: page cache, not memory */
    int64_t memory_bytes; /* the request's */
    bool fits;
};

/* Bytes of frozen weights that a rank holds when so many share them (1: they are whole), beside
 * files that it reads where they are mapped; stored_bytes as above. */
struct ha_dpo_weights {
    int64_t bytes;
    int64_t gathered_bytes; /* that it gets from the others in a pass forward */
};

struct ha_dpo_weights ha_dpo_plan_weights(const struct ha_model_config *config, bool gpu,
                                          int shards, int64_t lora_columns, int64_t stored_bytes);

/* The largest pack that data of this length can need: two sides that share
 * nothing, or the token budget. */
void ha_dpo_plan_worst_pack(int64_t max_length, int64_t tokens_per_microbatch,
                            struct ha_dpo_plan_request *request);

/* Where it does not fit with any number of layers run again, the plan is the one
 * with all of them (and shared weights, where they may be shared) and fits is false.  Returns 0,
 * -EINVAL for an adapter or sizes out of range, -EOVERFLOW, -ENOMEM. */
int ha_dpo_plan_make(const struct ha_dpo_plan_request *request, struct ha_dpo_plan *ret_plan,
                     struct ha_error *err);

/* 0 for a plan that fits; else -EFBIG with needed, available and what to lower.
 * limit says where the limit comes from: "train.memory_limit". */
int ha_dpo_plan_check(const struct ha_dpo_plan *plan, const char *limit, struct ha_error *err);

/* HA_DPO_PROGRAM of any job: program, threads (0: one per core), tokenizer. */
int64_t ha_dpo_program_bytes(const struct ha_model_config *config, int threads);

/* train.tokens_per_microbatch for "automatic": the most of 1024, 2048, ... 16384
 * with which one cell that trains every layer at rank 16 without dropout keeps all
 * activations within device->memory_bytes, at least 1024; 4096 where there is no limit.  A
 * function of model and settings: it is the same whatever cells share a job. */
int ha_dpo_plan_tokens(const struct ha_model_config *config, const struct ha_dpo_device *device,
                       int64_t max_length, int64_t *ret_tokens, struct ha_error *err);

#endif
