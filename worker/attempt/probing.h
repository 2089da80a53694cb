/* probing.h - one probe of a model: data, norms per layer and block, report
 *
 * The norms depend on model, data and loss alone, not on strategies: one probe
 * serves all cells of a model. */
#ifndef HA_WORKER_ATTEMPT_PROBING_H
#define HA_WORKER_ATTEMPT_PROBING_H

#include <signal.h>

#include "common/conf/run_settings.h"
#include "worker/attempt/engine.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/reporter.h"

struct ha_probing {
    struct ha_engine_options engine;
    const char *const *train; /* files of pairs */
    int64_t n_train;
    int64_t cell; /* its number in reports */
    /* [data], probe.pairs, and of [train] loss, max_length, precision, memory_limit */
    const struct ha_run_settings *settings;
    const struct ha_gang *gang; /* this process is one rank of several, which divide the pairs and,
                                   where they do not fit otherwise, the weights (gang.h): all are
                                   given the same job, and rank 0 reports.  NULL: alone */
};

/* Reports the norms of every layer, then of the blocks local, mid, global and full, then the cell.
 * Returns 0, -EINTR when *stop was set, for any rank of a gang (nothing is kept), or another
 * negative errno. */
int ha_probing_run(const struct ha_probing *probing, const struct ha_reporter *reporter,
                   const volatile sig_atomic_t *stop, struct ha_error *err);

#endif
