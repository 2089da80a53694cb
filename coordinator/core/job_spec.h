/* job_spec.h - job.json, the text in which an attempt gets its work
 *
 * Its form is worker/contract.h's.  Paths are relative to the attempt's folder;
 * the same functions name them for the grant's list of inputs. */
#ifndef HA_COORDINATOR_CORE_JOB_SPEC_H
#define HA_COORDINATOR_CORE_JOB_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/state.h"

struct ha_error;

struct ha_spec_cell {
    int64_t id;
    const char *name;
    const char *layers;     /* "0-10", "0-3,7"; "" for base and a probe */
    const char *settings;   /* JSON of ha_grid_cell_json */
    const char *adapter;    /* folder, or NULL */
    const char *checkpoint; /* file, or NULL */
};

struct ha_spec_skip {
    int64_t cell, prompt, sample;
};

struct ha_spec {
    enum ha_stage_kind kind; /* not judge */
    const char *sweep;
    int64_t job;
    const char *model_name, *model_path, *hub_id, *prompt_template;
    const char *const *train, *const *eval; /* paths below inputs/ */
    int64_t train_count, eval_count;
    const char *reference;            /* file below inputs/, or NULL */
    int64_t ranks;                    /* of its gang; 0 or 1: none */
    int64_t time_alone_steps;         /* [schedule] time_alone_steps */
    const struct ha_spec_cell *cells; /* at least one */
    int64_t cell_count;
    const struct ha_spec_skip *skip; /* grouped by cell */
    int64_t skip_count;
};

/* The text is the caller's to free.  -EINVAL: settings or layers of a cell
 * cannot be read; -ENOMEM. */
int ha_spec_json(const struct ha_spec *spec, char **ret_text, struct ha_error *err);

/* Where inputs lie; the caller frees them; NULL when memory is short.
 * "inputs/data/train-0.jsonl.gz": path is the file as the grid names it. */
char *ha_spec_data_path(const char *split, int64_t index, const char *path);

/* "inputs/adapter/7"; with name "inputs/adapter/7/adapter_model.safetensors". */
char *ha_spec_adapter_path(int64_t cell, const char *name);

/* "inputs/reference". */
char *ha_spec_reference_path(void);

/* "inputs/checkpoint/7". */
char *ha_spec_checkpoint_path(int64_t cell);

#endif
