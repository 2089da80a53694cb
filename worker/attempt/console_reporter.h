/* console_reporter.h - the reporter of commands that a person runs
 *
 * Phases and progress go to standard error, metrics and answers as JSON Lines to
 * the files that were asked for. */
#ifndef HA_WORKER_ATTEMPT_CONSOLE_REPORTER_H
#define HA_WORKER_ATTEMPT_CONSOLE_REPORTER_H

#include <stdio.h>

#include "worker/attempt/reporter.h"

struct ha_console_reporter {
    FILE *metrics;            /* {"step", NAME: value, ...} per line; NULL: none */
    FILE *answers;            /* {"prompt", "sample", "text", ...} per line; NULL: none */
    const char *const *names; /* names[cell - 1] is put into answers as "adapter"; may be NULL */
    int64_t next_progress_ms;
    bool failed; /* a cell has failed */
};

struct ha_reporter ha_console_reporter(struct ha_console_reporter *context);

#endif
