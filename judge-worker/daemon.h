/* daemon.h - the running judge worker: session, evaluators, spool, sockets */
#ifndef HA_JUDGE_WORKER_DAEMON_H
#define HA_JUDGE_WORKER_DAEMON_H

struct ha_error;
struct ha_judge_config;

/* Work until SIGTERM or SIGINT, or until watch_fd (-1: none) closes, then finish
 * as JUDGE.md says: no new calls, wait for those in flight at most stop_grace,
 * deliver what came.  Returns 0 after such an end. */
int ha_judge_daemon_run(const struct ha_judge_config *config, int watch_fd, struct ha_error *err);

#endif
