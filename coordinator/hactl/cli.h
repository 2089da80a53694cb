/* cli.h - verbs, their options, and how hactl ends
 *
 * A verb is one file: a table of options and a function.  Options are given as
 * --name VALUE or --name=VALUE, in any order with the positional arguments;
 * "--" ends them.  Every verb has --help. */
#ifndef HA_COORDINATOR_HACTL_CLI_H
#define HA_COORDINATOR_HACTL_CLI_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

enum ha_exit {
    HA_EXIT_DONE = 0,
    HA_EXIT_FAILED = 1,
    HA_EXIT_USAGE = 2,       /* the command line or a file of the user's is wrong */
    HA_EXIT_UNREACHABLE = 3, /* no coordinator answers */
    HA_EXIT_GAPS = 4         /* finished, but something has no result */
};

struct ha_option {
    const char *name;  /* "out" for --out */
    const char *value; /* name of its value in the help; NULL: a switch */
    const char *help;
};

struct ha_arguments;

struct ha_verb {
    const char *name;
    const char *synopsis; /* positional arguments, "[SWEEP]" */
    const char *summary;  /* one line */
    const char *example;  /* one command line */
    const struct ha_option *options;
    int64_t n_options;
    int64_t min_positional, max_positional;
    bool remote; /* talks to a coordinator: has the options that find one */
    /* Returns an enum ha_exit, or a negative errno with err set: -ENOTCONN ends
     * hactl with UNREACHABLE, -EINVAL with USAGE, others with FAILED. */
    int (*run)(const struct ha_arguments *arguments, struct ha_error *err);
};

/* Parse argv[from..] for a verb.  Returns 0, -EINVAL (the text says what is
 * wrong) or -ENOMEM. */
int ha_arguments_parse(const struct ha_verb *verb, int argc, const char *const *argv, int from,
                       struct ha_arguments **ret_arguments, struct ha_error *err);
void ha_arguments_destroy(struct ha_arguments *arguments);

/* True when --help was given. */
bool ha_arguments_help(const struct ha_arguments *arguments);

bool ha_arguments_given(const struct ha_arguments *arguments, const char *option);

/* The last value of an option; otherwise when it was not given. */
const char *ha_arguments_value(const struct ha_arguments *arguments, const char *option,
                               const char *otherwise);

/* All values of an option that may be repeated; borrowed, *ret_count of them. */
const char *const *ha_arguments_values(const struct ha_arguments *arguments, const char *option,
                                       int64_t *ret_count);

/* A whole number of at least minimum; otherwise when it was not given. */
int ha_arguments_int(const struct ha_arguments *arguments, const char *option, int64_t minimum,
                     int64_t otherwise, int64_t *ret_value, struct ha_error *err);

/* The positional argument, or otherwise. */
const char *ha_arguments_at(const struct ha_arguments *arguments, int64_t index,
                            const char *otherwise);
int64_t ha_arguments_count(const struct ha_arguments *arguments);

/* Usage, summary, options and example on standard output. */
void ha_verb_print_help(const struct ha_verb *verb);

#endif
