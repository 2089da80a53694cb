/* console_reporter.h - the reporter of commands that a person runs
 *
 * Phases and progress go to standard error, metrics and answers as JSON Lines to
 * the files that were asked for; norms are kept for the caller. */
#ifndef HA_WORKER_ATTEMPT_CONSOLE_REPORTER_H
#define HA_WORKER_ATTEMPT_CONSOLE_REPORTER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "worker/attempt/reporter.h"

/* Paths are set by the caller, NULL for what is not wanted, "-" for standard output. */
struct ha_console_reporter {
    const char *metrics_path; /* {"step", NAME: value, ...} per line */
    const char *answers_path; /* {"prompt", "sample", "text", ...} per line */
    bool append;              /* to what the files hold, else they are emptied when work begins */
    bool emptied;
    FILE *metrics, *answers;
    const char *const *names; /* names[cell - 1] is put into answers as "adapter"; may be NULL */
    int64_t next_progress_ms;
    bool failed;                    /* a cell has failed */
    struct ha_reported_norm *norms; /* all of them, for the caller; until it is closed */
    int64_t n_norms, norm_capacity;
};

int ha_console_reporter_open(struct ha_console_reporter *context, struct ha_error *err);

/* Closes the files; r is the result of what was done in between.  Returns r, or the error of
 * closing where r is none. */
int ha_console_reporter_close(struct ha_console_reporter *context, int r, struct ha_error *err);

struct ha_reporter ha_console_reporter(struct ha_console_reporter *context);

#endif
