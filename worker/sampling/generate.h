/* generate.h - answers to many prompts, several sequences at once
 *
 * Prompts wait in the order given; one enters as soon as there is a free place
 * and room for its whole KV cache (prompt + max_new_tokens).  Prompts that enter
 * together go through the model in one pack; then all running sequences advance
 * by one token per step.  Each finished answer is handed over at once and its
 * place given to the next prompt.
 *
 * An answer depends on its prompt, adapter, settings and prompt number, not on
 * what runs beside it, where the backend's rows are independent (the CPU's are). */
#ifndef HA_WORKER_SAMPLING_GENERATE_H
#define HA_WORKER_SAMPLING_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/model.h"
#include "worker/sampling/sampler.h"

struct ha_error;

struct ha_generate_request {
    const int32_t *ids; /* the prompt, >= 1 token */
    int64_t n_ids;
    const struct ha_adapter *adapter; /* NULL: the base model */
    uint64_t prompt; /* its number for the random numbers: row of the prompt in its file */
};

struct ha_generate_settings {
    struct ha_sampler_settings sampler;
    uint64_t seed;
    int64_t max_new_tokens; /* >= 1 */
    const int32_t *eos;     /* any of them ends an answer */
    int64_t n_eos;
    int64_t max_sequences; /* running at once, >= 1 */
    int64_t max_kv_bytes;  /* of all caches together; 0: as much as max_sequences need */
};

enum ha_generate_finish { HA_FINISH_EOS, HA_FINISH_STOP, HA_FINISH_LENGTH };

const char *ha_generate_finish_name(enum ha_generate_finish finish); /* "eos", "stop", "length" */

struct ha_generate_answer {
    int64_t request;    /* index of the request */
    const int32_t *ids; /* new tokens, without the end token; valid during the call */
    int64_t n_ids;
    enum ha_generate_finish finish;
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
    /* Called once per step; true: give up with -ECANCELED.  May be NULL. */
    bool (*cancelled)(void *context);
};

struct ha_generate_counts {
    int64_t prompt_tokens, new_tokens; /* end tokens are not counted */
    int64_t steps;
    int64_t most_sequences; /* at once */
};

/* Bytes on the backend, KV caches included, for these requests. */
int ha_generate_plan_bytes(struct ha_model *model, const struct ha_generate_request *requests,
                           int64_t n_requests, const struct ha_generate_settings *settings,
                           int64_t *ret_bytes, struct ha_error *err);

/* Returns 0 when every request was finished, -EINVAL for a setting or a request
 * that cannot work (named, before anything runs), -EDOM for logits that are not
 * numbers, -ECANCELED, or what a hook or the model returned.  ret_counts may be
 * NULL; it is filled in on failure as well. */
int ha_generate(struct ha_model *model, const struct ha_generate_request *requests,
                int64_t n_requests, const struct ha_generate_settings *settings,
                const struct ha_generate_hooks *hooks, struct ha_generate_counts *ret_counts,
                struct ha_error *err);

#endif
