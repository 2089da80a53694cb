/* What the commands of ranks that are started by hand have in common. */
#include <errno.h>

#include "common/base/error.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/gang.h"

enum { MINUTE_MS = 60 * 1000, JOIN_MINUTES = 10 };

int ha_call_read_gang(const struct ha_arguments *arguments, struct ha_gang_file *file,
                      struct ha_gang *ret_gang, struct ha_error *err)
{
    int64_t rank = 0, ranks = 0, minutes = JOIN_MINUTES;
    int r = ha_arguments_int(arguments, "ranks", 1, 0, &ranks, err);

    if (r == 0)
        r = ha_arguments_int(arguments, "rank", 0, 0, &rank, err);
    if (r == 0)
        r = ha_arguments_int(arguments, "gang-minutes", 1, JOIN_MINUTES, &minutes, err);
    if (r < 0)
        return r;
    if (ranks == 0)
        return ha_arguments_given(arguments, "rank") || ha_arguments_given(arguments, "comm")
                   ? ha_error_set(err, EINVAL, "--rank and --comm need --ranks")
                   : 0;
    if (ranks > HA_COMM_MAX_RANKS || rank >= ranks)
        return ha_error_set(err, EINVAL, "--ranks %lld --rank %lld: ranks count from 0, at most %d",
                            (long long)ranks, (long long)rank, HA_COMM_MAX_RANKS);
    file->path = ha_arguments_value(arguments, "comm", NULL);
    if (!file->path)
        return ha_error_set(err, EINVAL, "--ranks needs --comm FILE, the same one for all ranks");
    file->rank = (int)rank;
    file->timeout_ms = minutes * MINUTE_MS;
    *ret_gang = (struct ha_gang){.rank = (int)rank,
                                 .ranks = (int)ranks,
                                 .collective = ha_arguments_value(arguments, "collective", "auto"),
                                 .join_ms = file->timeout_ms,
                                 .step_ms = file->timeout_ms,
                                 .abort = &ha_attempt_abort,
                                 .meet = ha_gang_file_meet,
                                 .met = ha_gang_file_met,
                                 .context = file};
    return 0;
}
