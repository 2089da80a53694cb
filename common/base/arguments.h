/* arguments.h - command lines: options, switches, positional arguments, help
 *
 * Options are given as --name VALUE or --name=VALUE, in any order with the
 * positional arguments; "--" ends them.  --help and -h are known to every
 * command. */
#ifndef HA_COMMON_BASE_ARGUMENTS_H
#define HA_COMMON_BASE_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct ha_error;

struct ha_option {
    const char *name;  /* "out" for --out */
    const char *value; /* name of its value in the help; NULL: a switch */
    const char *help;
};

struct ha_command {
    const char *name;     /* as it is typed: "hactl status" */
    const char *synopsis; /* positional arguments, "[SWEEP]"; "" for none */
    const char *summary;  /* one line */
    const char *example;  /* one command line */
    const struct ha_option *options;
    int64_t n_options;
    const struct ha_option *shared_options; /* those of several commands; may be NULL */
    int64_t n_shared_options;
    int64_t min_positional, max_positional;
};

struct ha_arguments;

/* Parse argv[from..argc).  With --help the numbers of positional arguments are
 * not checked.  Returns 0, -EINVAL (the text says what is wrong) or -ENOMEM. */
int ha_arguments_parse(const struct ha_command *command, int argc, const char *const *argv,
                       int from, struct ha_arguments **ret_arguments, struct ha_error *err);
void ha_arguments_destroy(struct ha_arguments *arguments);

/* True when --help was given. */
bool ha_arguments_help(const struct ha_arguments *arguments);

bool ha_arguments_given(const struct ha_arguments *arguments, const char *option);

/* The last value of an option; otherwise when it was not given. */
const char *ha_arguments_value(const struct ha_arguments *arguments, const char *option,
                               const char *otherwise);

/* All values of an option that may be repeated, *ret_count of them; valid as long as the
 * arguments. */
const char *const *ha_arguments_values(const struct ha_arguments *arguments, const char *option,
                                       int64_t *ret_count);

/* A whole number of at least minimum; otherwise when it was not given. */
int ha_arguments_int(const struct ha_arguments *arguments, const char *option, int64_t minimum,
                     int64_t otherwise, int64_t *ret_value, struct ha_error *err);

/* The positional argument, or otherwise. */
const char *ha_arguments_at(const struct ha_arguments *arguments, int64_t index,
                            const char *otherwise);

/* Usage, summary, options and example on standard output, no line wider than HA_FOLD_COLUMNS
 * (common/base/fold.h) but for a word that is. */
void ha_command_print_help(const struct ha_command *command);

/* "  NAME SUMMARY" for a list of commands, the name in so many columns; folded. */
void ha_command_print_summary(const struct ha_command *command, const char *name, int columns,
                              FILE *out);

#endif
