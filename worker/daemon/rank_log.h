/* rank_log.h - the log of a gang's rank that failed: where it is, and how it ends */
#ifndef HA_WORKER_DAEMON_RANK_LOG_H
#define HA_WORKER_DAEMON_RANK_LOG_H

#include <limits.h>
#include <stdbool.h>

enum { RANK_LOG_TAIL_BYTES = 2048 };

struct rank_log {
    char path[PATH_MAX];            /* absolute where it can be told; "": there is none */
    char tail[RANK_LOG_TAIL_BYTES]; /* whole lines, UTF-8; "": not asked for, or nothing printed */
};

/* Of a rank (of -1: none) whose attempt has the folder; its log is complete. */
void rank_log_read(const char *folder, int rank, bool tail, struct rank_log *ret_log);

#endif
