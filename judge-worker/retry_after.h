/* retry_after.h - how long a server asks to wait
 *
 * libcurl's own reading of the header is wrong for fractions, durations and
 * dates that are past, so it is read here. */
#ifndef HA_JUDGE_WORKER_RETRY_AFTER_H
#define HA_JUDGE_WORKER_RETRY_AFTER_H

#include <stdint.h>

/* Longer waits are cut to a week. */
enum { HA_JUDGE_RETRY_AFTER_MAX_S = 7 * 86400 };

/* value: seconds ("3", "0.5"), a duration ("1m30s", "500ms"), an HTTP date or an
 * ISO 8601 time in UTC.  now_ms: Unix time.  Returns milliseconds, 0 for what is
 * past, -1 for what cannot be read. */
int64_t ha_judge_retry_after(const char *value, int64_t now_ms);

#endif
