/* commands.h - the subcommands of ha-attempt, one file each */
#ifndef HA_WORKER_ATTEMPT_COMMANDS_H
#define HA_WORKER_ATTEMPT_COMMANDS_H

#include <signal.h>

#include "common/base/arguments.h"
#include "worker/attempt/engine.h"

struct ha_error;
struct ha_gang;
struct ha_gang_file;
struct ha_run_settings;

/* What main has read of the command line before a subcommand runs. */
struct ha_call {
    const struct ha_arguments *arguments;
    const struct ha_run_settings *settings; /* defaults under the values of --set */
    struct ha_engine_options engine;        /* --model, --backend, --threads, --template */
};

struct ha_subcommand {
    const char *name;
    struct ha_command command;
    const char *const *required; /* options that must be given, ended by NULL; NULL: none */
    bool stops;                  /* SIGTERM and SIGINT set ha_attempt_stop; else they end it */
    /* Returns an enum ha_attempt_exit, or a negative errno with err set: -EINTR is
     * HA_ATTEMPT_STOPPED, others are HA_ATTEMPT_FAILED. */
    int (*run)(const struct ha_call *call, struct ha_error *err);
};

extern const struct ha_subcommand ha_subcommand_tokenize, ha_subcommand_rows, ha_subcommand_score,
    ha_subcommand_train, ha_subcommand_generate, ha_subcommand_merge, ha_subcommand_plan,
    ha_subcommand_backend, ha_subcommand_probe, ha_subcommand_job;

/* --template, which read_call of main.c takes, in the options of a command. */
#define HA_OPTION_TEMPLATE                                                                         \
    {                                                                                              \
        "template", "NAME",                                                                        \
            "hh (default): dialogues as they stand; chat: the model's own chat template; or a "    \
            "format: llama-2, llama-3, llama-3.1, chatml, qwen2.5, qwen3"                          \
    }

/* Options of a command that ranks can be started of by hand: this process is one rank of a gang,
 * whose context is *file; *ret_gang has 0 ranks where it is not. */
int ha_call_read_gang(const struct ha_arguments *arguments, struct ha_gang_file *file,
                      struct ha_gang *ret_gang, struct ha_error *err);
#define HA_OPTIONS_GANG                                                                            \
    {"device", "N", "index of the GPU (default: 0)"},                                              \
        {"ranks", "N",                                                                             \
         "this process is one of N that do it together; each is given the same command"},          \
        {"rank", "R", "which one: 0 to N - 1; 0 writes the files"},                                \
        {"comm", "FILE", "where the ranks find each other: a new file, which rank 0 makes"},       \
        {"collective", "NAME", "auto, shm (one machine) or nccl (GPUs)"},                          \
    {                                                                                              \
        "gang-minutes", "N", "how long a rank waits for the others (default: 10)"                  \
    }

/* Set by SIGTERM and SIGINT: stop after a checkpoint. */
extern volatile sig_atomic_t ha_attempt_stop;

/* Set by SIGUSR1: a rank of a gang gives up at once, without a checkpoint. */
extern volatile sig_atomic_t ha_attempt_abort;

#endif
