/* pair_files.h - preference pairs of a job's files, with what happened to them said in the log */
#ifndef HA_WORKER_ATTEMPT_PAIR_FILES_H
#define HA_WORKER_ATTEMPT_PAIR_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf/run_settings.h"
#include "worker/data/pairs.h"

struct ha_chat;
struct ha_error;
struct ha_json;

struct ha_pair_files {
    const char *what; /* begins the log's lines: "training pairs" */
    const char *const *paths;
    int64_t n_paths;                        /* >= 1 */
    int64_t samples;                        /* rows to select; 0: all */
    const struct ha_run_settings *settings; /* data.seed, data.split, train.max_length */
    const struct ha_chat *chat;             /* chat template; NULL: texts as they stand */
    bool prompts_allowed;                   /* rows of prompts alone: no set, and a line says so */
};

/* *ret_set is NULL for rows of prompts alone where they are allowed.  Errors name file, line or
 * row. */
int ha_pair_files_load(const struct ha_pair_files *files, struct ha_tokenizer *tokenizer,
                       struct ha_pair_set **ret_set, struct ha_error *err);

/* Put the counts and the files' digest into a summary.  Returns 0 or -ENOMEM. */
int ha_pair_files_summary(const struct ha_pair_set *set, struct ha_json *summary);

#endif
