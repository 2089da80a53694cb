/* generate_plan.h - what requests need, and what is refused, before anything runs; for this
 * folder only */
#ifndef HA_WORKER_SAMPLING_GENERATE_PLAN_H
#define HA_WORKER_SAMPLING_GENERATE_PLAN_H

#include "worker/model/decode.h"
#include "worker/sampling/generate.h"

/* Positions of a request's cache: the last new token is never read. */
int64_t ha_generate_positions(const struct ha_generate_request *request);

int64_t ha_generate_kv_bytes(struct ha_model *model, const struct ha_generate_request *request);

/* True where both are one prompt. */
bool ha_generate_same_prompt(const struct ha_generate_request *a,
                             const struct ha_generate_request *b);

int ha_generate_check(struct ha_model *model, const struct ha_generate_request *requests,
                      int64_t n_requests, const struct ha_generate_settings *settings,
                      struct ha_error *err);

/* n_requests >= 1. */
struct ha_decoder_limits ha_generate_limits(const struct ha_generate_request *requests,
                                            int64_t n_requests,
                                            const struct ha_generate_settings *settings);

/* Steps of a burst of so many sequences; never more for more of them. */
int64_t ha_generate_burst(struct ha_model *model, const struct ha_generate_settings *settings,
                          int64_t n_sequences);

/* Bytes that the caches may take together: no more than the requests can use. */
int64_t ha_generate_kv_limit(struct ha_model *model, const struct ha_generate_request *requests,
                             int64_t n_requests, const struct ha_generate_settings *settings);

#endif
