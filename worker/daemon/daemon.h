/* daemon.h - the worker daemon: the session joined to sockets, processes and files */
#ifndef HA_WORKER_DAEMON_DAEMON_H
#define HA_WORKER_DAEMON_DAEMON_H

#include <stdbool.h>

struct daemon;
struct ha_error;
struct ha_worker_config;

struct daemon_options {
    const struct ha_worker_config *config; /* borrowed until destroy */
    const char *program;                   /* ha-attempt */
    const char *backend;                   /* its one-line description, for people */
    bool silent;  /* the CUDA driver did not answer when it was asked for that */
    int watch_fd; /* the daemon ends at once when this descriptor does; -1: none */
};

/* Open everything that can fail: work_dir, keys, sockets.  Before any thread is
 * started: signals are blocked here. */
int daemon_create(const struct daemon_options *options, struct daemon **ret_daemon,
                  struct ha_error *err);
void daemon_destroy(struct daemon *daemon);

/* The description of the backend that attempts compute on. */
const char *daemon_backend(const struct daemon *daemon);

/* Work until SIGTERM or SIGINT (drains; a second one ends it at once) or the end
 * of watch_fd. */
int daemon_run(struct daemon *daemon, struct ha_error *err);

#endif
