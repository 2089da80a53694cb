/* generation.h - answers of one model's cells to the held-out prompts */
#ifndef HA_WORKER_ATTEMPT_GENERATION_H
#define HA_WORKER_ATTEMPT_GENERATION_H

#include <signal.h>

#include "common/conf/run_settings.h"
#include "worker/attempt/engine.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/reporter.h"

/* Ranks share the weights (train.shard_weights = "auto") where a GPU that holds them whole has room
 * for fewer answers at once. */
enum { HA_GENERATION_FEWEST = 16 };

struct ha_generation_skip {
    int64_t prompt, sample;
};

struct ha_generation_cell {
    int64_t id;
    const char *name;
    const char *adapter; /* PEFT folder; NULL: the base model */
    const struct ha_run_settings *settings;
    const struct ha_generation_skip *skip; /* answers that are there already */
    int64_t n_skip;
};

struct ha_generation {
    struct ha_engine_options engine;
    const char *const *prompts; /* files of held-out rows */
    int64_t n_prompts;
    const char *const *train; /* to count prompts also seen in training; may be none */
    int64_t n_train;
    bool in_file_order; /* every row in its place instead of the selection by seed */
    const struct ha_generation_cell *cells;
    int64_t n_cells;
    int64_t max_sequences;      /* at once; 0: 256 */
    int64_t max_kv_bytes;       /* of all KV caches; 0: a quarter of the machine's memory */
    const struct ha_gang *gang; /* this process is one rank of several, which divide the prompts
                                   and, where they do not fit otherwise, the weights (gang.h): all
                                   are given the same job, and rank 0 reports.  NULL: alone */
};

/* Generate to the end, all cells in one queue; each answer is reported as it is finished, of
 * another rank soon after, each cell when all of its answers are, or when its adapter cannot give
 * them.  Returns 0, or -EINTR when *stop was set, for any rank of a gang. */
int ha_generation_run(const struct ha_generation *generation, const struct ha_reporter *reporter,
                      const volatile sig_atomic_t *stop, struct ha_error *err);

#endif
