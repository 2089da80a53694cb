#include "worker/daemon/runner.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/groups.h"
#include "worker/daemon/log_file.h"

enum {
    READ_BYTES = 1 << 16,
    LINE_BYTES = 16 << 20, /* an answer of a whole context, raw and cut, fits */
    STACKS_MS = 1000,      /* for one that hangs to say where it stands */
    READS_PER_TURN = 16,
    VMSTAT_BYTES = 1 << 20
};

static const char contract_fd_text[] = "3";

_Static_assert(HA_SPAWN_CONTRACT_FD == 3, "contract_fd_text says it too");

struct runner {
    struct runner_options options;
    struct ha_child child;
    struct ha_loop_fd *watch, *log_watch;
    struct log_file *log;
    struct ha_loop_timer *kill_timer;
    struct ha_buffer pending; /* the beginning of a line */
    struct group *group;      /* NULL: none */
    int64_t machine_kills;    /* for memory, before it began; -1: not known */
    bool stopping, asked, broken, killed;
    bool waiting, told; /* it said that it waits; and its owner knows */
    char piece[READ_BYTES];
};

/* It did not end in its time: where it stands is to be in its log. */
static void kill_it(void *context)
{
    struct runner *runner = context;

    if (runner->asked) {
        runner_signal(runner, SIGKILL);
        return;
    }
    runner->asked = true;
    ha_child_signal(&runner->child, SIGURG);
    ha_loop_timer_set_after(runner->kill_timer, STACKS_MS);
}

void runner_stop(struct runner *runner)
{
    if (runner->stopping || runner->child.pid <= 0)
        return;
    runner->stopping = true;
    ha_child_signal(&runner->child, SIGTERM);
    ha_loop_timer_set_after(runner->kill_timer, runner->options.grace_ms);
}

void runner_signal(struct runner *runner, int signal)
{
    if (signal == SIGKILL) {
        runner->killed = true;
        group_kill(runner->group);
    }
    ha_child_signal(&runner->child, signal);
}

/* What is told is shorter than a pipe's room. */
int runner_tell(struct runner *runner, const char *line)
{
    char *text = ha_format("%s\n", line);
    int r = text ? ha_file_write_all(runner->child.input_fd, text, strlen(text)) : -ENOMEM;

    free(text);
    return r;
}

static void break_contract(struct runner *runner, const char *reason)
{
    if (runner->broken)
        return;
    runner->broken = true;
    if (runner->options.broken)
        runner->options.broken(runner->options.context, reason);
    runner_stop(runner);
}

static void take_line(struct runner *runner, const char *bytes, size_t size)
{
    struct contract_line line;
    struct ha_error err = {0};

    if (runner->broken || size == 0)
        return;
    if (contract_line_parse(bytes, size, &line, &err) < 0) {
        break_contract(runner, ha_error_text(&err));
        return;
    }
    if (runner->waiting)
        break_contract(runner, "the attempt sent a line between two jobs");
    else if (line.kind == CONTRACT_WAITS && runner->options.serves)
        runner->waiting = true; /* told when what was read is gone through */
    else
        runner->options.line(runner->options.context, &line);
    contract_line_clear(&line);
}

static void take_bytes(struct runner *runner, const char *bytes, size_t size)
{
    struct ha_buffer *pending = &runner->pending;

    while (size > 0) {
        const char *newline = memchr(bytes, '\n', size);
        size_t n = newline ? (size_t)(newline - bytes) : size;

        if (ha_buffer_append(pending, bytes, n) < 0) {
            break_contract(runner, "the attempt sent a line that is too long");
            ha_buffer_reset(pending);
        }
        bytes += n;
        size -= n;
        if (!newline)
            return;
        take_line(runner, ha_buffer_text(pending), pending->size);
        ha_buffer_reset(pending);
        bytes++;
        size--;
    }
}

enum pipe_state { PIPE_MORE, PIPE_EMPTY, PIPE_ENDED };

static enum pipe_state read_pipe(struct runner *runner)
{
    char *bytes = runner->piece;

    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t n = read(runner->child.contract_fd, bytes, READ_BYTES);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? PIPE_EMPTY : PIPE_ENDED;
        if (n == 0)
            return PIPE_ENDED;
        take_bytes(runner, bytes, (size_t)n);
    }
    return PIPE_MORE;
}

/* What it prints, standard error too. */
static enum pipe_state read_output(struct runner *runner)
{
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t n = read(runner->child.output_fd, runner->piece, READ_BYTES);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? PIPE_EMPTY : PIPE_ENDED;
        if (n == 0)
            return PIPE_ENDED;
        if (runner->log)
            log_file_write(runner->log, runner->piece, (size_t)n);
    }
    return PIPE_MORE;
}

static void on_output(void *context, int fd, unsigned events)
{
    struct runner *runner = context;

    (void)fd;
    (void)events;
    if (read_output(runner) == PIPE_ENDED) {
        ha_loop_fd_end(runner->log_watch);
        runner->log_watch = NULL;
    }
}

static void end_log(struct runner *runner)
{
    while (runner->log_watch && read_output(runner) == PIPE_MORE)
        ;
    log_file_close(runner->log);
    runner->log = NULL;
}

/* How many processes the kernel has killed for memory on this machine; -1: it does not tell. */
static int64_t machine_kills(void)
{
    char *text = NULL, *at = NULL;
    size_t size;
    int64_t n = -1;

    if (ha_file_read("/proc/vmstat", VMSTAT_BYTES, &text, &size, NULL) == 0)
        at = strstr(text, "\noom_kill ");
    if (at)
        n = strtoll(at + strlen("\noom_kill "), NULL, 10);
    free(text);
    return n;
}

/* A SIGKILL that nobody here sent: was it the kernel's, for memory? */
static void say_starved(struct runner *runner, int status)
{
    struct contract_line line = {.kind = CONTRACT_ERROR};
    char peak[HA_MEMORY_TEXT_BYTES], text[160];
    int starved = group_starved(runner->group);

    if (!runner->options.line || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL ||
        runner->killed)
        return;
    if (starved == 0 ||
        (starved < 0 && (runner->machine_kills < 0 || machine_kills() <= runner->machine_kills)))
        return;
    (void)snprintf(text, sizeof(text), "%s" CONTRACT_STARVED " when it had %s%s",
                   starved > 0 ? "" : CONTRACT_PERHAPS,
                   ha_memory_text(runner->child.peak_bytes, peak),
                   starved > 0 ? ""
                               : ": it killed some process of this machine meanwhile, and "
                                 "tells not which");
    line.text = text;
    runner->options.line(runner->options.context, &line);
}

/* All that it printed for its job is in the pipe. */
static void tell_waits(struct runner *runner)
{
    enum pipe_state state = PIPE_MORE;

    runner->told = true;
    while (runner->log_watch && state == PIPE_MORE)
        state = read_output(runner);
    log_file_close(runner->log);
    runner->log = NULL;
    runner->options.waits(runner->options.context);
}

static void on_pipe(void *context, int fd, unsigned events)
{
    struct runner *runner = context;

    (void)fd;
    (void)events;
    if (read_pipe(runner) == PIPE_ENDED) {
        ha_loop_fd_end(runner->watch);
        runner->watch = NULL;
    }
    if (runner->waiting && !runner->told && !runner->broken)
        tell_waits(runner);
}

void runner_check(struct runner *runner)
{
    int status;

    if (!ha_child_poll(&runner->child, &status))
        return;
    group_kill(runner->group); /* what left the process group */
    /* Its group is dead: what it wrote is in the pipe, and no more will come. */
    while (runner->watch && read_pipe(runner) == PIPE_MORE)
        ;
    end_log(runner);
    /* What it had to do was done, whatever became of it then. */
    if (runner->waiting && !runner->told && !runner->broken)
        status = 0;
    say_starved(runner, status);
    runner->options.ended(runner->options.context, status);
}

char *runner_log_path(const char *folder, int rank)
{
    if (rank == 0)
        return ha_path_join(folder, RUNNER_LOG);
    return ha_format("%s/attempt-%d.log", folder, rank);
}

/* In a group of its own if that can be. */
static int spawn(struct runner *runner, struct ha_spawn_options *options, struct ha_error *err)
{
    const char *slash = strrchr(runner->options.folder, '/');
    const char *name = slash ? slash + 1 : runner->options.folder;
    struct ha_error why = {0};
    char *own =
        runner->options.rank > 0 ? ha_format("%s.%d", name, runner->options.rank) : ha_strdup(name);
    int r;

    if (!own)
        return ha_error_set(err, ENOMEM, "out of memory");
    runner->machine_kills = machine_kills();
    runner->group = group_create(runner->options.groups, own);
    free(own);
    options->group_procs = group_procs(runner->group);
    if (!runner->group)
        return ha_child_spawn(options, &runner->child, err);
    r = ha_child_spawn(options, &runner->child, &why);
    if (r == 0)
        return 0;
    ha_log_warning("without a control group: %s", ha_error_text(&why));
    group_destroy(runner->group);
    runner->group = NULL;
    options->group_procs = NULL;
    return ha_child_spawn(options, &runner->child, err);
}

static int open_log(struct runner *runner, struct ha_error *err)
{
    char *log = runner_log_path(runner->options.folder, runner->options.rank);
    int r = log ? log_file_open(log, runner->options.log_bytes, runner->options.log_files,
                                &runner->log, err)
                : ha_error_set(err, ENOMEM, "out of memory");

    free(log);
    return r;
}

static int start(struct runner *runner, struct ha_error *err)
{
    bool gang = runner->options.ranks > 1, serves = runner->options.serves;
    char rank[16];
    const char *arguments[] = {"ha-attempt",
                               "job",
                               "--dir",
                               runner->options.folder,
                               "--contract-fd",
                               contract_fd_text,
                               gang     ? "--rank"
                               : serves ? "--serve"
                                        : NULL,
                               gang ? rank : NULL,
                               NULL};
    struct ha_spawn_options options = {.program = runner->options.program,
                                       .arguments = arguments,
                                       .dir = runner->options.folder,
                                       .environment = runner->options.environment,
                                       .output_pipe = true,
                                       .error_to_pipe = true,
                                       .contract_pipe = true,
                                       .input_pipe = gang || serves,
                                       .own_group = true,
                                       .death_signal = SIGKILL};
    int r;

    (void)snprintf(rank, sizeof(rank), "%d", runner->options.rank);
    r = open_log(runner, err);
    if (r == 0)
        r = spawn(runner, &options, err);
    if (r == 0)
        r = ha_loop_watch_fd(runner->options.loop, runner->child.output_fd, HA_LOOP_READ, on_output,
                             runner, &runner->log_watch, err);
    if (r == 0)
        r = ha_loop_watch_fd(runner->options.loop, runner->child.contract_fd, HA_LOOP_READ, on_pipe,
                             runner, &runner->watch, err);
    return r;
}

int runner_create(const struct runner_options *options, struct runner **ret_runner,
                  struct ha_error *err)
{
    struct runner *runner = ha_calloc(1, sizeof(*runner));
    int r;

    if (!runner)
        return ha_error_set(err, ENOMEM, "out of memory");
    runner->options = *options;
    runner->child = (struct ha_child){.input_fd = -1, .output_fd = -1, .contract_fd = -1};
    ha_buffer_init(&runner->pending, LINE_BYTES);
    r = ha_loop_timer_create(options->loop, kill_it, runner, &runner->kill_timer, err);
    if (r == 0)
        r = start(runner, err);
    if (r < 0) {
        runner_destroy(runner);
        return r;
    }
    runner->options.folder = runner->options.program = NULL; /* not ours to keep */
    runner->options.environment = NULL;
    *ret_runner = runner;
    return 0;
}

/* ---- between two jobs
 * ---------------------------------------------------------------------------- */

void runner_rest(struct runner *runner, void (*ended)(void *context, int status), void *context)
{
    runner->options.line = NULL; /* a line now breaks the contract */
    runner->options.broken = NULL;
    runner->options.waits = NULL;
    runner->options.ended = ended;
    runner->options.context = context;
}

int runner_resume(struct runner *runner, const struct runner_options *options, struct ha_error *err)
{
    int r;

    if (runner->broken || runner->stopping)
        return ha_error_set(err, ESRCH, "the process is about to end");
    runner->options = *options;
    r = open_log(runner, err);
    if (r == 0 && (r = runner_tell(runner, options->folder)) < 0)
        r = ha_error_set(err, -r, "the process cannot be told of its job: %s", strerror(-r));
    runner->options.folder = runner->options.program = NULL; /* not ours to keep */
    runner->options.environment = NULL;
    runner->waiting = runner->told = r < 0;
    runner->machine_kills = machine_kills();
    return r;
}

void runner_dismiss(struct runner *runner)
{
    if (runner->child.input_fd >= 0)
        (void)close(runner->child.input_fd);
    runner->child.input_fd = -1;
    runner_stop(runner);
}

void runner_destroy(struct runner *runner)
{
    if (!runner)
        return;
    runner_signal(runner, SIGKILL);
    (void)ha_child_stop(&runner->child, 0);
    group_destroy(runner->group);
    if (runner->log)
        end_log(runner);
    ha_loop_fd_end(runner->watch);
    ha_loop_fd_end(runner->log_watch);
    ha_loop_timer_destroy(runner->kill_timer);
    ha_child_close(&runner->child);
    ha_buffer_clear(&runner->pending);
    free(runner);
}
