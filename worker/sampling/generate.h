/* generate.h - answers to many prompts, several sequences at once
 *
 * Requests wait in the order given; they enter as soon as there are free places
 * and room for their whole KV caches (prompt + max_new_tokens).  Requests of one
 * prompt that stand side by side - variants of a model, samples - enter together,
 * so that what their adapters have in common is computed once (decode.h).  Prompts
 * that enter go through the model in packs; then all running sequences advance by
 * one token per step, those of one adapter side by side.
 *
 * Tokens are drawn on the backend (kernels/ops.h, sample), which also keeps last tokens,
 * positions, rules and states: they pass to it when a sequence comes or goes.  In between a
 * burst of steps is made without the host (struct ha_generate_settings); then the tokens come
 * to it, each finished answer is handed over and its place given to the next request.  A
 * sequence that ends within a burst draws nothing more and touches nothing but the place of
 * its last token; what one draws behind a stop is dropped and not counted as a token, though
 * its share of the work is charged.  The hooks see tokens and answers step by step, as one
 * step at a time shows them; the length of bursts changes only when a place is given away.
 *
 * An answer depends on its prompt, adapter, rules and number.  Whether it hangs on what
 * runs beside it too, and by that on the length of bursts, is a question of rounding, and of
 * products alone:
 *
 *   products     of a CPU: a row's bits are its own.  Of a GPU: how a product is made is
 *                chosen by its number of rows: of the prompts of a pack, of the sequences of a
 *                step, of those with one adapter.  That changes the order of its sums and so
 *                the last bits of q, k, v, of hidden states and of logits.
 *   attention    of prompts: its tiles begin with the prompt, wherever that stands in its pack.
 *                Of a step: chunks of keys are joined in one order, however they are divided
 *                among blocks.  Both see their own sequence only.
 *   the rest     norms, RoPE, embeddings, biases, copies: each row by itself.  A draw is exact,
 *                and its random number depends on seed, number and position.
 *   what is      below the lowest layer of each adapter the same rows go through the same
 *   shared       operations, once instead of often; above it, a row is one of its adapter's.
 *
 * So on a GPU an answer differs with the batch from the first token on whose two best logits
 * (or whose random number and the border between two tokens) are as near as that rounding.
 * With `batch_invariant` products keep their rows separate as well (kernels/backend.h:
 * ha_backend_separate_rows; kernels/cuda/gemm.c says why that holds), and nothing is left
 * that could: neither the other requests, nor their order, nor the settings below, nor how much
 * memory there is.  A kind of device and a version of its libraries still have bits of their
 * own. */
#ifndef HA_WORKER_SAMPLING_GENERATE_H
#define HA_WORKER_SAMPLING_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/model.h"
#include "worker/sampling/sampler.h"

struct ha_error;

/* How an answer is drawn and when it ends. */
struct ha_generate_rules {
    struct ha_sampler_settings sampler;
    uint64_t seed;
    int64_t max_new_tokens; /* >= 1 */
    const int32_t *eos;     /* any of them ends an answer */
    int64_t n_eos;
};

struct ha_generate_request {
    const int32_t *ids; /* the prompt, >= 1 token; one array for all requests of one prompt */
    int64_t n_ids;
    const struct ha_adapter *adapter; /* NULL: the base model */
    const struct ha_generate_rules *rules;
    uint64_t number; /* of prompt and sample, for the random numbers */
};

struct ha_generate_settings {
    int64_t max_sequences; /* running at once, >= 1 */
    int64_t max_kv_bytes;  /* of all caches together; 0: as much as max_sequences need */
    bool batch_invariant;  /* no bit of an answer hangs on the others; costs time on a GPU */
    int64_t burst;         /* most steps between two looks at what was drawn; 0: as below */
};

/* Steps of a burst, unless a sequence comes to its last token before: on the CPU 1, else 16 for
 * few sequences and for many so few that 1,024 rows are run at most.  Before a look is over the
 * device has waited some 50 us, 1 % of a step that reads the weights of 8B for few sequences and
 * far more of one of a small model.  An ended sequence's rows are run in vain until the look, half
 * a burst in the mean: free while a step waits for weights, and from about 200 sequences on their
 * full share of it, while the wait comes to less and less. */
enum { HA_GENERATE_BURST = 16, HA_GENERATE_BURST_ROWS = 1024, HA_GENERATE_BURST_MOST = 4096 };

/* Up to so many sequences a device's steps are recorded and replayed (ha_decoder_record), where so
 * many are left of the burst: with more of them each kernel works longer than the next takes to be
 * launched; and to record takes about as long as to launch some steps.  Replays change no bit. */
enum { HA_GENERATE_RECORDED = 64, HA_GENERATE_REPLAYS = 4 };

enum ha_generate_finish { HA_FINISH_EOS, HA_FINISH_STOP, HA_FINISH_LENGTH };

const char *ha_generate_finish_name(enum ha_generate_finish finish); /* "eos", "stop", "length" */

/* What was done for an answer: work that it shared with others counts in equal parts
 * (bursts that it began) or by tokens of the prompts (packs of prompts). */
struct ha_generate_cost {
    double seconds, flops, bytes_moved;
};

struct ha_generate_answer {
    int64_t request;    /* index of the request */
    const int32_t *ids; /* new tokens, without the end token; valid during the call */
    int64_t n_ids;
    enum ha_generate_finish finish;
    struct ha_generate_cost cost;
};

struct ha_generate_hooks {
    void *context;
    /* Called after each new token that is not an end token, with all new tokens of
     * the request so far.  1: the answer ends here (a stop string is in its text);
     * 0: go on; negative errno with err: give up.  NULL: nothing stops. */
    int (*stop)(void *context, int64_t request, const int32_t *ids, int64_t n_ids,
                struct ha_error *err);
    /* Called once for each request, in the order in which they finish.  A negative
     * errno gives up. */
    int (*finished)(void *context, const struct ha_generate_answer *answer, struct ha_error *err);
    /* The logits of a request are no numbers (-EDOM in err): its model has diverged.  0: go
     * on without this request; a negative errno gives up.  NULL: give up. */
    int (*failed)(void *context, int64_t request, struct ha_error *err);
    /* True: the request is not wanted (any more): it is left out, or dropped as it runs.
     * Asked before it enters and whenever one has failed.  NULL: all are wanted. */
    bool (*unwanted)(void *context, int64_t request);
    /* Called once per burst; true: give up with -ECANCELED.  May be NULL. */
    bool (*cancelled)(void *context);
};

struct ha_generate_counts {
    int64_t prompt_tokens, new_tokens; /* end tokens are not counted */
    int64_t steps;
    int64_t replayed;       /* of them, from a recording */
    int64_t most_sequences; /* at once */
};

/* The parts of what generation holds on the backend beside the model. */
struct ha_generate_sizes {
    int64_t decoder; /* activations of a pack of prompts or a step, logits, draws */
    int64_t kv;      /* all caches, at most */
    int64_t largest; /* cache of one request */
    int64_t total;   /* decoder + kv */
};

/* Arithmetic for these requests; -EINVAL as ha_generate. */
int ha_generate_plan(struct ha_model *model, const struct ha_generate_request *requests,
                     int64_t n_requests, const struct ha_generate_settings *settings,
                     struct ha_generate_sizes *ret_sizes, struct ha_error *err);

/* Returns 0 when every request was finished, failed or unwanted, -EINVAL for a
 * setting or a request that cannot work (named, before anything runs), -EDOM for
 * logits that are not numbers where no hook takes it, -ECANCELED, or what a hook or
 * the model returned.  ret_counts may be NULL; it is filled in on failure as well. */
int ha_generate(struct ha_model *model, const struct ha_generate_request *requests,
                int64_t n_requests, const struct ha_generate_settings *settings,
                const struct ha_generate_hooks *hooks, struct ha_generate_counts *ret_counts,
                struct ha_error *err);

#endif
