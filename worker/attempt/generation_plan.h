/* generation_plan.h - the memory of a generation before it starts */
#ifndef HA_WORKER_ATTEMPT_GENERATION_PLAN_H
#define HA_WORKER_ATTEMPT_GENERATION_PLAN_H

#include "worker/attempt/engine.h"
#include "worker/sampling/generate.h"

struct ha_error;

struct ha_generation_plan_request {
    const struct ha_engine *engine;
    int threads; /* 0: one per core */
    const struct ha_generate_request *requests;
    int64_t n_requests;
    int64_t weight_bytes;  /* of weights in memory that is not taken yet, or not by the backend */
    int neighbours;        /* other ranks that answer on this machine's CPUs */
    int64_t comm_bytes;    /* of a gang's communicator on a GPU */
    int64_t adapter_bytes; /* of all cells */
    int64_t text_bytes;    /* of prompts and answers in the making */
    int64_t memory_bytes;  /* that may be used in all; 0: no limit */
    const char *memory_limit; /* where it comes from, for people */
    int64_t max_kv_bytes;     /* asked for by name; 0: as much as there is room for */
};

struct ha_generation_plan {
    struct ha_generate_sizes sizes;
    int64_t total_bytes; /* everything that the process has of its own; on a GPU, there */
};

/* Sets settings->max_kv_bytes: what was asked for, or else what the rest of the
 * plan leaves of the memory, on the CPU at most a quarter of it where no amount was stated (of a
 * rank its part of that), and always enough for the longest request; and lowers
 * settings->max_sequences where that is too much.  Answers depend on neither, on a GPU but for
 * roundings (generate.h). -EFBIG where not even one answer at a time fits.  n_requests is at
 * least 1. */
int ha_generation_plan_make(const struct ha_generation_plan_request *request,
                            struct ha_generate_settings *settings,
                            struct ha_generation_plan *ret_plan, struct ha_error *err);

/* What a GPU takes for products whose rows it keeps separate: generate.batch_invariant. */
int64_t ha_generation_separate_bytes(const struct ha_model_config *config);

#endif
