/* engine.h - backend, model and tokenizer of an attempt */
#ifndef HA_WORKER_ATTEMPT_ENGINE_H
#define HA_WORKER_ATTEMPT_ENGINE_H

#include "worker/model/model.h"
#include "worker/tokenizer/tokenizer.h"

struct ha_error;

struct ha_engine_options {
    const char *model_dir;
    const char *backend; /* "auto", "cpu", "cuda" */
    int threads;         /* 0: one per core */
};

struct ha_engine {
    struct ha_backend *backend;
    struct ha_model *model;
    struct ha_tokenizer *tokenizer;
};

/* Opens all three and logs in one line which backend is used and why.  -EINVAL
 * where the tokenizer has ids that the model's embedding has not. */
int ha_engine_open(const struct ha_engine_options *options, struct ha_engine *ret_engine,
                   struct ha_error *err);
void ha_engine_close(struct ha_engine *engine);

/* What the engine computes in when train.precision asks for `precision`: "bf16",
 * "fp32", or "fp32 (cpu)" when bf16 was asked of the CPU. */
const char *ha_engine_precision(const struct ha_engine *engine, const char *precision);

#endif
