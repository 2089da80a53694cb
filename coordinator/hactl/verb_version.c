#include <stdio.h>

#include "coordinator/hactl/verbs.h"

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    (void)arguments;
    (void)err;
    puts("hactl " HA_VERSION);
    return HA_EXIT_DONE;
}

const struct ha_verb ha_verb_version = {
    .name = "version",
    .command =
        {
            .name = "hactl version",
            .synopsis = "",
            .summary = "print this program's version",
            .example = "hactl version",
        },
    .run = run,
};
