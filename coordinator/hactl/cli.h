/* cli.h - verbs, and how hactl ends
 *
 * A verb is one file: a table of options and a function. */
#ifndef HA_COORDINATOR_HACTL_CLI_H
#define HA_COORDINATOR_HACTL_CLI_H

#include "common/base/arguments.h"

enum ha_exit {
    HA_EXIT_DONE = 0,
    HA_EXIT_FAILED = 1,
    HA_EXIT_USAGE = 2,       /* the command line or a file of the user's is wrong */
    HA_EXIT_UNREACHABLE = 3, /* no coordinator answers */
    HA_EXIT_GAPS = 4         /* finished, but something has no result */
};

struct ha_verb {
    const char *name;
    struct ha_command command;
    /* Returns an enum ha_exit, or a negative errno with err set: -ENOTCONN ends
     * hactl with UNREACHABLE, -EINVAL with USAGE, others with FAILED. */
    int (*run)(const struct ha_arguments *arguments, struct ha_error *err);
};

/* The options that find a coordinator, for the verbs that talk to one. */
extern const struct ha_option ha_remote_options[];
enum { HA_REMOTE_OPTIONS = 5 };

#endif
