/* commands.h - the subcommands of ha-attempt, one file each */
#ifndef HA_WORKER_ATTEMPT_COMMANDS_H
#define HA_WORKER_ATTEMPT_COMMANDS_H

#include <signal.h>

#include "common/base/arguments.h"

struct ha_error;

struct ha_subcommand {
    const char *name;
    struct ha_command command;
    /* Returns an enum ha_attempt_exit, or a negative errno with err set: -EINVAL
     * ends the program with HA_ATTEMPT_USAGE, others with HA_ATTEMPT_FAILED. */
    int (*run)(const struct ha_arguments *arguments, struct ha_error *err);
};

extern const struct ha_subcommand ha_subcommand_tokenize, ha_subcommand_score, ha_subcommand_train,
    ha_subcommand_generate, ha_subcommand_plan, ha_subcommand_backend, ha_subcommand_job;

/* Set by SIGTERM and SIGINT: stop after a checkpoint. */
extern volatile sig_atomic_t ha_attempt_stop;

#endif
