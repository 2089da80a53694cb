/* set: settings of a sweep that change no result */
#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/change.h"
#include "coordinator/hactl/verbs.h"
#include "proto/wire.h"

enum { SETTINGS = 64 };

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *settings[SETTINGS];
    struct ha_wire_change change = {
        .verb = "set", .sweep = ha_arguments_at(arguments, 0, ""), .settings = settings};

    for (int64_t i = 0; i < SETTINGS; i++) {
        settings[i] = ha_arguments_at(arguments, i + 1, NULL);
        if (!settings[i])
            break;
        change.n_settings = i + 1;
    }
    return ha_change_send(arguments, &change, err);
}

const struct ha_verb ha_verb_set = {
    .name = "set",
    .command =
        {
            .name = "hactl set",
            .synopsis = "SWEEP KEY=VALUE...",
            .summary = "change priority, budget, limits of judges, [retry] or [resources] of a "
                       "sweep as it runs; a later submit brings back what its grid says",
            .example = "hactl set demo priority=5 judge.gpt.concurrency=16 budget=20",
            .min_positional = 2,
            .max_positional = SETTINGS + 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
