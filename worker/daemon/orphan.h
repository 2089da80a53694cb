/* orphan.h - processes that an attempt left behind, told from everybody else's
 *
 * Attempts get a mark in their environment, which their children inherit, also those that left the
 * process group.  A process is killed only where it bears the mark of this worker's folder, which
 * one worker at a time owns. */
#ifndef HA_WORKER_DAEMON_ORPHAN_H
#define HA_WORKER_DAEMON_ORPHAN_H

#include <stdbool.h>
#include <stdint.h>

/* "NAME=" of the mark; its value is the worker's folder. */
#define HA_ORPHAN_MARK "HA_ATTEMPT_OF="

/* Kill the process if it bears this mark ("NAME=value"); true if it was killed.  The process
 * that is looked at is the one that is killed, also when its number is used again. */
bool ha_orphan_kill(int64_t pid, const char *mark);

#endif
