/* generation_cell.h - one cell of a generation: its rules, its prompts, what became of it */
#ifndef HA_WORKER_ATTEMPT_GENERATION_CELL_H
#define HA_WORKER_ATTEMPT_GENERATION_CELL_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/attempt/generation.h"
#include "worker/data/prompts.h"
#include "worker/sampling/generate.h"
#include "worker/sampling/plain.h"

struct ha_json;

/* What a set of prompts depends on, beside the files of the generation. */
struct ha_prompts_key {
    int64_t room; /* ids that a prompt may have; 0: any number */
    int64_t eval_samples, train_samples, seed;
};

/* A set that cells share; a list. */
struct ha_shared_prompts {
    struct ha_shared_prompts *next;
    struct ha_prompts_key key;
    struct ha_prompt_set *set;
};

void ha_shared_prompts_destroy(struct ha_shared_prompts *list);

/* A cell at work. */
struct ha_answering {
    const struct ha_generation_cell *cell;
    struct ha_generate_rules rules;
    int32_t eos[HA_MODEL_MAX_EOS];
    const char **stops;
    int64_t n_stops;
    size_t longest_stop;
    const struct ha_prompt_set *prompts; /* of a shared set */
    struct ha_adapter *adapter;          /* or NULL */
    struct ha_plain_answer *made;        /* (samples, prompts) of this attempt */
    bool ended;                          /* reported as done or failed */
    int64_t total, done;                 /* answers; done: those that were there already too */
    int64_t tokens, prompt_tokens, limited;
    struct ha_generate_cost cost;
};

/* Read the settings and find the prompts (in *list, or new there) and the adapter.  On failure
 * what was made is left for ha_answering_close. */
int ha_answering_open(const struct ha_generation *generation, const struct ha_engine *engine,
                      const struct ha_generation_cell *cell, struct ha_shared_prompts **list,
                      struct ha_answering *answering, struct ha_error *err);
void ha_answering_close(struct ha_answering *answering);

/* True where the answer is there already. */
bool ha_answering_skips(const struct ha_answering *answering, int64_t prompt, int64_t sample);

/* Count an answer that was made now. */
void ha_answering_count(struct ha_answering *answering, int64_t prompt, int64_t sample,
                        const struct ha_generate_answer *answer);

/* What the plain method needs for the answers that were made now. */
double ha_answering_plain_flops(const struct ha_answering *answering,
                                const struct ha_engine *engine);

/* What a summary says of the job. */
struct ha_answering_record {
    const struct ha_engine *engine;
    int64_t cells_in_job;
    bool batch_invariant; /* no answer could hang on those beside it */
    int ranks;
    double wall_seconds;
    int64_t planned_bytes, peak_bytes; /* of the process's own memory */
};

/* The cell's summary (worker/contract.h); NULL when memory is short. */
struct ha_json *ha_answering_summary(const struct ha_answering *answering,
                                     const struct ha_answering_record *record);

#endif
