/* runner.h - one attempt process: its start, its lines, its end
 *
 *   working --its job is done, and it may serve--> waiting --runner_resume--> working
 *   either --its process ends--> ended */
#ifndef HA_WORKER_DAEMON_RUNNER_H
#define HA_WORKER_DAEMON_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

/* The name of an attempt's log in its folder. */
#define RUNNER_LOG "attempt.log"

struct contract_line;
struct groups;
struct ha_error;
struct ha_loop;
struct runner;

struct runner_options {
    struct ha_loop *loop;
    const char *program;          /* ha-attempt */
    const char *folder;           /* of the attempt; holds job.json; its log is RUNNER_LOG there */
    int64_t grace_ms;             /* between SIGTERM and SIGKILL */
    int64_t log_bytes, log_files; /* of its log (log_file.h) */
    const char *const *environment; /* "NAME=value" for it, ended by NULL; may be NULL */
    struct groups *groups;          /* where it gets a control group (groups.h); NULL: none */
    int rank, ranks; /* of a gang; 1 (or 0): alone.  Ranks but 0 have "attempt-RANK.log" */
    bool serves;     /* alone: it may do further jobs (worker/contract.h, --serve) */
    void (*line)(void *context, const struct contract_line *line);
    /* It sent something that is no line of the contract; it is being stopped. */
    void (*broken)(void *context, const char *reason);
    /* Its job is done, the log is complete, and it waits for another; NULL where it does not serve.
     * Whoever has it now calls runner_rest, or destroys it. */
    void (*waits)(void *context);
    /* It ended, after its last line, which is an error where the kernel killed it for memory.
     * Whatever it had started is dead, as far as groups reach.  The runner may be destroyed here.
     */
    void (*ended)(void *context, int status);
    void *context;
};

/* The log of a rank in its attempt's folder; the caller frees it.  NULL: no memory. */
char *runner_log_path(const char *folder, int rank);

/* Start the process in its own group; it gets SIGKILL when this thread ends. */
int runner_create(const struct runner_options *options, struct runner **ret_runner,
                  struct ha_error *err);

/* Kills what still runs, without calling ended. */
void runner_destroy(struct runner *runner);

/* It waits for another owner's sake, who is told when it ends. */
void runner_rest(struct runner *runner, void (*ended)(void *context, int status), void *context);

/* The next job of one that waits: folder, log and calls are those of options, the rest stays.
 * Fails where it cannot be told; it is of no use then. */
int runner_resume(struct runner *runner, const struct runner_options *options,
                  struct ha_error *err);

/* One that waits: let it end. */
void runner_dismiss(struct runner *runner);

/* SIGTERM now, SIGKILL after the grace time. */
void runner_stop(struct runner *runner);

void runner_signal(struct runner *runner, int signal);

/* Write a line to a rank's standard input. */
int runner_tell(struct runner *runner, const char *line);

/* SIGCHLD came: look whether it was this one. */
void runner_check(struct runner *runner);

#endif
