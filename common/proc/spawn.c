#include "common/proc/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"

enum { SAFE_FD = 10, LAST_FD = 65535, POLL_MS = 10, DEAD_MS = 10000 };

/* What the child needs; made before the fork, because little may be called
 * after it. */
struct plan {
    const struct ha_spawn_options *options;
    pid_t parent;
    char **environment;
    int input_fd, output_fd, error_fd, contract_fd; /* the child's ends; -1: keep */
    int report_fd;                                  /* where an error of exec is written */
};

enum step { STEP_EXEC, STEP_FOLDER, STEP_GROUP };

/* What went wrong in the child. */
struct failure {
    int code;
    enum step step;
};

/* ---- in the child: async-signal-safe calls only ------------------------------------------- */

static void fail_child(const struct plan *plan, enum step step)
{
    struct failure failure = {.code = errno, .step = step};

    if (write(plan->report_fd, &failure, sizeof(failure)) != sizeof(failure))
        _exit(126);
    _exit(127);
}

/* Every signal as a fresh program expects it. */
static void reset_signals(void)
{
    struct sigaction normal = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        (void)sigaction(number, &normal, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int move_up(int fd)
{
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SAFE_FD);
}

/* Put the child's descriptors in place; all others close at exec. */
static void place_descriptors(struct plan *plan)
{
    int ends[4] = {plan->input_fd, plan->output_fd, plan->error_fd, plan->contract_fd};
    int first = plan->contract_fd >= 0 ? HA_SPAWN_CONTRACT_FD + 1 : HA_SPAWN_CONTRACT_FD;

    plan->report_fd = move_up(plan->report_fd);
    for (int i = 0; i < 4; i++)
        ends[i] = move_up(ends[i]);
    for (int i = 0; i < 4; i++) {
        if (ends[i] >= 0 && dup2(ends[i], i) < 0)
            fail_child(plan, STEP_EXEC);
    }
    if (close_range((unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    for (int fd = first; fd <= LAST_FD; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* What it starts later is in the group as well. */
static void enter_group(const struct plan *plan, const char *procs)
{
    int fd = open(procs, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "0", 1) != 1)
        fail_child(plan, STEP_GROUP);
    (void)close(fd);
}

static void run_child(struct plan *plan)
{
    const struct ha_spawn_options *options = plan->options;

    if (options->own_group)
        (void)setpgid(0, 0);
    reset_signals();
    if (options->death_signal) {
        (void)prctl(PR_SET_PDEATHSIG, options->death_signal);
        if (getppid() != plan->parent) /* it ended before the line above */
            _exit(125);
    }
    place_descriptors(plan);
    if (options->group_procs)
        enter_group(plan, options->group_procs);
    if (options->dir && chdir(options->dir) < 0)
        fail_child(plan, STEP_FOLDER);
    execve(options->program, (char *const *)(uintptr_t)options->arguments, plan->environment);
    fail_child(plan, STEP_EXEC);
}

/* ---- in the parent -------------------------------------------------------------------------- */

static bool names_same(const char *a, const char *b)
{
    size_t length = strcspn(a, "=");

    return strncmp(a, b, length + 1) == 0;
}

/* The parent's variables without those that are set anew, then the new ones.
 * The texts are shared, the array is the caller's. */
static char **make_environment(const char *const *added)
{
    int64_t n_old = 0, n_added = 0, n = 0;
    char **list;

    while (environ[n_old])
        n_old++;
    while (added && added[n_added])
        n_added++;
    list = ha_calloc(n_old + n_added + 1, sizeof(*list));
    if (!list)
        return NULL;
    for (int64_t i = 0; i < n_old; i++) {
        bool replaced = false;

        for (int64_t k = 0; k < n_added && !replaced; k++)
            replaced = names_same(added[k], environ[i]);
        if (!replaced)
            list[n++] = environ[i];
    }
    for (int64_t k = 0; k < n_added; k++)
        list[n++] = (char *)(uintptr_t)added[k];
    return list;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A pipe: the parent's end does not block and, like the other, closes at exec. */
static int make_pipe(bool parent_reads, int *ret_parent, int *ret_child, struct ha_error *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return ha_error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    *ret_parent = ends[parent_reads ? 0 : 1];
    *ret_child = ends[parent_reads ? 1 : 0];
    if (parent_reads)
        (void)fcntl(*ret_parent, F_SETFL, O_NONBLOCK);
    return 0;
}

static int open_ends(const struct ha_spawn_options *options, struct plan *plan,
                     struct ha_child *child, struct ha_error *err)
{
    int r = 0;

    if (options->log_path) {
        plan->error_fd = open(options->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (plan->error_fd < 0)
            return ha_error_set(err, errno, "cannot write %s: %s", options->log_path,
                                strerror(errno));
    }
    if (options->output_pipe)
        r = make_pipe(true, &child->output_fd, &plan->output_fd, err);
    if (r == 0 && options->output_pipe && options->error_to_pipe) {
        close_fd(&plan->error_fd);
        plan->error_fd = fcntl(plan->output_fd, F_DUPFD_CLOEXEC, 0);
    }
    if (!options->output_pipe && plan->error_fd >= 0)
        plan->output_fd = fcntl(plan->error_fd, F_DUPFD_CLOEXEC, 0);
    if (r == 0 && options->contract_pipe)
        r = make_pipe(true, &child->contract_fd, &plan->contract_fd, err);
    if (r == 0 && options->input_pipe)
        return make_pipe(false, &child->input_fd, &plan->input_fd, err);
    if (r == 0) {
        plan->input_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (plan->input_fd < 0)
            r = ha_error_set(err, errno, "cannot open /dev/null: %s", strerror(errno));
    }
    return r;
}

static int fail_spawn(const struct ha_spawn_options *options, const struct failure *failure,
                      struct ha_error *err)
{
    static const char *const tried[] = {
        [STEP_EXEC] = "start", [STEP_FOLDER] = "enter folder", [STEP_GROUP] = "enter by"};
    const char *const names[] = {[STEP_EXEC] = options->program,
                                 [STEP_FOLDER] = options->dir,
                                 [STEP_GROUP] = options->group_procs};

    return ha_error_set(err, failure->code, "cannot %s %s: %s", tried[failure->step],
                        names[failure->step], strerror(failure->code));
}

/* Fork, and wait until the child runs the program or says why not. */
static int fork_child(struct plan *plan, struct ha_child *child, struct ha_error *err)
{
    const struct ha_spawn_options *options = plan->options;
    struct failure failure;
    int report = -1;
    ssize_t n;
    int r = make_pipe(true, &report, &plan->report_fd, err);

    if (r < 0)
        return r;
    (void)fcntl(report, F_SETFL, 0);
    plan->parent = getpid();
    child->pid = fork();
    if (child->pid == 0)
        run_child(plan);
    if (child->pid < 0) {
        r = ha_error_set(err, errno, "cannot start %s: %s", options->program, strerror(errno));
        child->pid = 0;
        goto out;
    }
    if (options->own_group)
        (void)setpgid(child->pid, child->pid); /* whoever is first */
    close_fd(&plan->report_fd);
    do
        n = read(report, &failure, sizeof(failure));
    while (n < 0 && errno == EINTR);
    if (n == sizeof(failure)) {
        (void)waitpid(child->pid, NULL, 0);
        child->pid = 0;
        r = fail_spawn(options, &failure, err);
    }
out:
    close_fd(&plan->report_fd);
    close_fd(&report);
    return r;
}

int ha_child_spawn(const struct ha_spawn_options *options, struct ha_child *ret_child,
                   struct ha_error *err)
{
    struct plan plan = {.options = options,
                        .input_fd = -1,
                        .output_fd = -1,
                        .error_fd = -1,
                        .contract_fd = -1,
                        .report_fd = -1};
    struct ha_child child = {.input_fd = -1, .output_fd = -1, .contract_fd = -1};
    int r;

    child.own_group = options->own_group;
    plan.environment = make_environment(options->environment);
    if (!plan.environment)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = open_ends(options, &plan, &child, err);
    if (r == 0)
        r = fork_child(&plan, &child, err);
    close_fd(&plan.input_fd);
    close_fd(&plan.output_fd);
    close_fd(&plan.error_fd);
    close_fd(&plan.contract_fd);
    free(plan.environment);
    if (r < 0) {
        ha_child_close(&child);
        return r;
    }
    *ret_child = child;
    return 0;
}

void ha_child_close(struct ha_child *child)
{
    close_fd(&child->input_fd);
    close_fd(&child->output_fd);
    close_fd(&child->contract_fd);
}

void ha_child_signal(const struct ha_child *child, int signal)
{
    if (child->pid <= 0)
        return;
    (void)kill(child->own_group ? -child->pid : child->pid, signal);
}

bool ha_child_poll(struct ha_child *child, int *ret_status)
{
    siginfo_t info = {0};
    struct rusage usage;
    int status;

    if (child->pid <= 0)
        return false;
    /* Look first: while its leader is a zombie, the group's number is its own. */
    if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        info.si_pid != child->pid)
        return false;
    if (child->own_group)
        ha_child_signal(child, SIGKILL);
    if (wait4(child->pid, &status, 0, &usage) != child->pid)
        return false;
    child->pid = 0;
    child->peak_bytes = (int64_t)usage.ru_maxrss * 1024;
    *ret_status = status;
    return true;
}

int ha_child_stop(struct ha_child *child, int64_t grace_ms)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000000};
    int64_t deadline = ha_clock_boot_ms() + grace_ms;
    bool killed = false;
    int status = 0;

    ha_child_signal(child, SIGTERM);
    while (child->pid > 0 && !ha_child_poll(child, &status)) {
        if (ha_clock_boot_ms() >= deadline) {
            if (killed)
                break;
            ha_child_signal(child, SIGKILL);
            killed = true;
            deadline += DEAD_MS;
        }
        (void)nanosleep(&pause, NULL);
    }
    child->pid = 0;
    return status;
}

const char *ha_exit_words(int status, char words[HA_EXIT_WORDS_BYTES])
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));

        (void)snprintf(words, HA_EXIT_WORDS_BYTES, "killed by signal %d (%s%s)%s", WTERMSIG(status),
                       name ? "SIG" : "real-time", name ? name : "",
                       WCOREDUMP(status) ? ", core dumped" : "");
    } else {
        (void)snprintf(words, HA_EXIT_WORDS_BYTES, "exit code %d", WEXITSTATUS(status));
    }
    return words;
}
