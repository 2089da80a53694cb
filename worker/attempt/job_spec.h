/* job_spec.h - job.json of worker/contract.h as a struct */
#ifndef HA_WORKER_ATTEMPT_JOB_SPEC_H
#define HA_WORKER_ATTEMPT_JOB_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf/run_settings.h"
#include "worker/attempt/generation.h"

struct ha_error;

struct ha_job_cell {
    int64_t id;
    const char *name; /* borrowed from the document, as all texts */
    int64_t *layers;
    int64_t n_layers;
    struct ha_run_settings *settings; /* the common ones with the cell's own over them */
    const char *adapter, *checkpoint; /* or NULL */
    struct ha_generation_skip *skip;
    int64_t n_skip;
};

enum ha_job_kind { HA_JOB_TRAIN, HA_JOB_PROBE, HA_JOB_GENERATE };

struct ha_job_spec {
    struct ha_json *document;
    enum ha_job_kind kind;
    const char *model_path, *hub_id /* or NULL */, *prompt_template;
    const char **train, **eval;
    int64_t n_train, n_eval;
    int threads;
    int ranks;            /* of the gang; 1: no gang */
    int first_rank;       /* of those on this machine; its device is the first */
    int64_t gang_wait_ms; /* that a rank waits for the others; 0: no limit */
    int64_t time_alone_steps;
    const char *backend;
    const char *digests, *choices, *reference; /* or NULL */
    struct ha_job_cell *cells;
    int64_t n_cells;
};

/* -EINVAL names the member that is missing or of a wrong kind. */
int ha_job_spec_load(const char *path, struct ha_job_spec **ret_spec, struct ha_error *err);
void ha_job_spec_destroy(struct ha_job_spec *spec);

#endif
