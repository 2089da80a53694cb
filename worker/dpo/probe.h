/* probe.h - where in a model the loss has its gradient, before anything is trained
 *
 * For one pair, with the policy equal to the reference (no adapter, or B = 0), G(l, m) is the
 * gradient of that pair's loss with respect to the frozen weight m of layer l, m one of q_proj,
 * k_proj, v_proj, o_proj; biases are not counted.  The loss is the job's, over a micro-batch of
 * this pair alone.  (An adapter's own gradient would say nothing: at B = 0 dA is 0, and dB depends
 * on the draw of A.)
 *
 * A norm is the mean over the pairs of
 *
 *     one module of a layer     || G(l, m) ||                     Frobenius
 *     the four of a layer       sqrt(sum over m of || G(l, m) ||^2)
 *     a range of layers         sqrt(sum over its layers of the squares), for each m and for all
 *
 * so it is the mean of norms, not the norm of the mean.  To compare layers or blocks of different
 * size, divide by sqrt(parameters).
 *
 * G = dy^T x is formed in full, in tiles of a few MiB, in f32, and its squares are summed in
 * double: in * out * T multiply-adds for each weight, a tenth of what the passes cost beside it
 * with grouped heads, a sixth without.  The Gram form, sum over t, t' of (dy_t . dy_t') (x_t .
 * x_t'), would save most of that for packs of T < in * out / (in + out) tokens, but rounding in it
 * grows with the square of the cancellation.  Where the sum of |dy_t| |x_t| is 10 to 15 times || G
 * ||, as in the demo models, both are right within 1e-7; of two nearly equal answers the product
 * leaves 1e-7 of that sum, the Gram form 3e-4. */
#ifndef HA_WORKER_DPO_PROBE_H
#define HA_WORKER_DPO_PROBE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/data/pairs.h"
#include "worker/dpo/loss.h"
#include "worker/dpo/plan.h"
#include "worker/model/model.h"

struct ha_comm;
struct ha_error;

/* The modules of the attention in the order of enum ha_module, then the four together. */
enum { HA_DPO_PROBE_ALL = HA_MODULE_O + 1, HA_DPO_PROBE_MODULES };

/* "q_proj", ..., "all". */
const char *ha_dpo_probe_module_name(int module);

/* Layers [first, first + count). */
struct ha_dpo_probe_range {
    int64_t first, count;
};

struct ha_dpo_probe_settings {
    int64_t pairs; /* the first of the set; all where it has fewer; >= 1 */
    bool share_prompt;
    bool round_logits_bf16; /* train.precision = "bf16" */
    /* What it may use in all, as plan.h adds it up: where the longest pair needs more, layers are
     * run again in the backward pass. */
    int threads;              /* of the CPU backend, for the plan; 0: one per core */
    int64_t memory_bytes;     /* 0: no limit */
    const char *memory_limit; /* where it comes from, for people; NULL: "the limit" */
    struct ha_dpo_loss_settings loss;
    const struct ha_dpo_probe_range *ranges; /* asked for beside the single layers; may be none */
    int64_t n_ranges;
    /* Of a gang, whose ranks take the pairs in turn and may share the frozen weights; every rank
     * comes to the result that one process does.  All are given the same pairs and settings. */
    int ranks;                     /* 0 or 1: alone */
    int64_t comm_bytes;            /* that its communicator holds of the device */
    struct ha_comm *comm;          /* NULL: alone, or a plan */
    enum ha_dpo_sharding sharding; /* for ha_dpo_probe_foresee; later the model says it */
};

struct ha_dpo_probe_norms {
    struct ha_dpo_probe_range range;
    double norm[HA_DPO_PROBE_MODULES];
    int64_t parameters[HA_DPO_PROBE_MODULES];
};

struct ha_dpo_probe_result {
    int64_t n_norms;
    struct ha_dpo_probe_norms *norms; /* one for each layer from 0 on, then for each range */
    int64_t n_pairs;                  /* that were taken */
    int64_t n_tokens;                 /* of their packs; flops are of all ranks, too */
    int64_t pass_bytes;               /* activations and scratch */
    int64_t planned_bytes;            /* of all (plan.h) */
    int64_t recomputed_layers;        /* run again in the backward pass */
    int64_t elapsed_ns;
    double flops;
};

/* After each pair: pairs and tokens done so far.  A negative return ends the probe. */
typedef int (*ha_dpo_probe_progress)(void *user, int64_t done, int64_t total, int64_t tokens,
                                     int64_t elapsed_ns, struct ha_error *err);

/* The memory of a probe before the weights of its model are there: whether ranks share them. */
int ha_dpo_probe_foresee(struct ha_model *model, const struct ha_pair_set *pairs,
                         const struct ha_dpo_probe_settings *settings, struct ha_dpo_plan *ret_plan,
                         struct ha_error *err);

/* progress and stop may be NULL; *stop is looked at between pairs.  Returns 0, -EINTR when stopped,
 * or another rank of the gang was (nothing is kept: a probe takes minutes), -EINVAL for settings
 * out of range, -EFBIG where memory_bytes do not do (before anything is computed), -ERANGE (naming
 * the pair's row) where a loss or a gradient is not finite, or another negative errno. */
int ha_dpo_probe(struct ha_model *model, const struct ha_pair_set *pairs,
                 const struct ha_dpo_probe_settings *settings, ha_dpo_probe_progress progress,
                 void *user, const volatile sig_atomic_t *stop,
                 struct ha_dpo_probe_result **ret_result, struct ha_error *err);
void ha_dpo_probe_result_destroy(struct ha_dpo_probe_result *result);

#endif
