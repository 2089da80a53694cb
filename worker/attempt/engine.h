/* engine.h - backend, model and tokenizer of an attempt */
#ifndef HA_WORKER_ATTEMPT_ENGINE_H
#define HA_WORKER_ATTEMPT_ENGINE_H

#include <stdbool.h>

#include "worker/data/chat.h"
#include "worker/model/model.h"
#include "worker/tokenizer/tokenizer.h"

struct ha_error;
struct ha_shelf;

/* What an opened engine cost. */
struct ha_engine_loaded {
    int64_t bytes;        /* of the weights, as they are stored */
    int64_t read_bytes;   /* of these, opened or copied now; 0: the job before had left them */
    int64_t device_bytes; /* that the GPU holds for it; 0: the weights lie in mapped files */
    double seconds;
};

struct ha_engine_options {
    const char *model_dir;
    const char *backend;         /* "auto", "cpu", "cuda" */
    int threads;                 /* 0: one per core */
    int device;                  /* index of the GPU */
    const char *prompt_template; /* "hh" (also NULL), "chat", or a format of chat.h */
    bool weights_later;          /* ha_engine_load reads them; nothing comes from a shelf then */
    struct ha_shelf
        *shelf; /* shelf.h: where engines come from and go to; NULL: opened and closed */
    /* Told once when the engine is there; may be NULL. */
    int (*loaded)(void *context, const struct ha_engine_loaded *loaded, struct ha_error *err);
    void *context;
};

struct ha_engine {
    struct ha_backend *backend;
    struct ha_model *model;
    struct ha_tokenizer *tokenizer;
    struct ha_chat chat;
    bool has_chat;
    double peak_flops_per_second; /* ha_engine_measure; 0: not known */
    struct ha_shelf *shelf;       /* it goes back there; NULL: it is closed */
    char *key;                    /* what the shelf tells it by; NULL: it does not serve again */
};

/* Opens all three, or takes them from the shelf, and logs in one line which backend is used and
 * why, and in another the chat template.  -EINVAL where the tokenizer has ids that the model's
 * embedding has not, -ENOTSUP for a chat template that is not known. */
int ha_engine_open(const struct ha_engine_options *options, struct ha_engine *ret_engine,
                   struct ha_error *err);
/* The weights of an engine that was opened without them: of one rank of several that share them, or
 * whole (NULL).  -EFBIG where a GPU cannot hold them whole. */
int ha_engine_load(const struct ha_engine_options *options, struct ha_engine *engine,
                   const struct ha_model_shard *shard, struct ha_error *err);

/* The chat template; NULL: dialogues as they stand. */
const struct ha_chat *ha_engine_chat(const struct ha_engine *engine);

/* Reads the setting for a tokenizer: *ret_has is false for "hh" and NULL. */
int ha_engine_open_chat(const struct ha_engine_options *options,
                        const struct ha_tokenizer *tokenizer, struct ha_chat *ret_chat,
                        bool *ret_has, struct ha_error *err);

/* To the shelf, where there is one. */
void ha_engine_close(struct ha_engine *engine);

/* Find out what the backend does at best (kernels/peak.h), by which utilisation is said; before
 * the work, while the device has nothing else to do.  What cannot be measured is logged and not
 * known. */
void ha_engine_measure(struct ha_engine *engine);

/* Part of the peak that so many FLOP/s are; 0: not known. */
double ha_engine_utilisation(const struct ha_engine *engine, double flops_per_second);

/* What the engine computes in when train.precision asks for `precision`: "bf16",
 * "fp32", or "fp32 (cpu)" when bf16 was asked of the CPU. */
const char *ha_engine_precision(const struct ha_engine *engine, const char *precision);

#endif
