/* spawn.h - child processes
 *
 * A child starts with all signals unblocked and at their defaults, umask and
 * environment as the parent's, and no descriptor but 0, 1, 2 and the contract
 * pipe. */
#ifndef HA_COMMON_PROC_SPAWN_H
#define HA_COMMON_PROC_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct ha_error;

/* The descriptor that a child finds its contract pipe at. */
enum { HA_SPAWN_CONTRACT_FD = 3 };

struct ha_spawn_options {
    const char *program;          /* path; not searched */
    const char *const *arguments; /* argv, ended by NULL; [0] is the name shown by ps */
    const char *dir;              /* working directory; NULL: the parent's */
    const char *const
        *environment;        /* "NAME=value" added to the parent's, ended by NULL; may be NULL */
    const char *log_path;    /* standard output and error are appended here; NULL: the parent's */
    bool output_pipe;        /* standard output to a pipe instead (error still as above) */
    bool error_to_pipe;      /* with output_pipe: standard error goes there as well */
    bool input_pipe;         /* standard input from a pipe; else /dev/null */
    bool contract_pipe;      /* a pipe that the child writes to at HA_SPAWN_CONTRACT_FD */
    bool own_group;          /* a process group of its own, which ha_child_signal reaches */
    const char *group_procs; /* "cgroup.procs" of a control group that it enters; NULL: none */
    int death_signal;        /* sent when the thread that spawned it ends; 0: none */
};

struct ha_child {
    pid_t pid;          /* 0: none, or reaped */
    int64_t peak_bytes; /* of memory, files mapped by it too; known when it is reaped */
    bool own_group;
    int input_fd;    /* write end, or -1 */
    int output_fd;   /* read end, non-blocking, or -1 */
    int contract_fd; /* read end, non-blocking, or -1 */
};

/* Start a program.  Failing to start it (no such file, not executable, no such
 * working directory, a control group that cannot be entered) is reported here, not by the child's
 * exit. */
int ha_child_spawn(const struct ha_spawn_options *options, struct ha_child *ret_child,
                   struct ha_error *err);

/* Signal the child, and its whole group when it has one.  A child that is gone
 * is not an error. */
void ha_child_signal(const struct ha_child *child, int signal);

/* Reap without waiting: true when it ended (status as waitpid gives it; its
 * group gets SIGKILL so that nothing stays behind), false while it runs. */
bool ha_child_poll(struct ha_child *child, int *ret_status);

/* SIGTERM, wait up to grace_ms, SIGKILL, reap.  Returns the status; 0 when there
 * is no child.  One that hangs in the kernel (a device's driver) and does not end within 10 s of
 * SIGKILL is left behind: nobody else shall hang with it. */
int ha_child_stop(struct ha_child *child, int64_t grace_ms);

/* Close the pipes that are open.  The child is not touched. */
void ha_child_close(struct ha_child *child);

enum { HA_EXIT_WORDS_BYTES = 64 };

/* "exit code 3", "killed by signal 9 (SIGKILL)"; returns words. */
const char *ha_exit_words(int status, char words[HA_EXIT_WORDS_BYTES]);

/* The path of one of the project's programs: beside the running one, in a
 * sibling folder of the build tree, then in PATH.  The caller frees.
 * -ENOENT when it is nowhere, with the places that were looked at. */
int ha_program_find(const char *name, char **ret_path, struct ha_error *err);

/* ---- one owner per folder --------------------------------------------------------- */

struct ha_lock;

/* Take an exclusive lock on a file (made when it is not there) that ends with
 * the process.  -EWOULDBLOCK when another process has it; the text names the
 * process that the holder wrote into the file, and its machine when that is another. */
int ha_lock_take(const char *path, struct ha_lock **ret_lock, struct ha_error *err);
void ha_lock_release(struct ha_lock *lock);

#endif
