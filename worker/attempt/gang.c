#include "worker/attempt/gang.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "worker/attempt/contract_reporter.h"
#include "worker/attempt/engine.h"
#include "worker/model/join.h"

enum { LOOK_NS = 20 * 1000 * 1000, LOOK_MS = 100 };

const char *ha_gang_collective(const struct ha_gang *gang, const struct ha_backend *backend)
{
    bool given = gang->collective && strcmp(gang->collective, "auto") != 0;

    return given ? gang->collective : ha_comm_kind_for(backend);
}

static void log_line(void *context, const char *text)
{
    (void)context;
    ha_log_info("%s", text);
}

bool ha_gang_followed(const struct ha_error *why)
{
    switch (why->code) {
    case ECONNABORTED: /* one is gone */
    case ECONNRESET:   /* probably */
    case ETIMEDOUT:    /* one is silent */
    case ECANCELED:    /* the gang was told to give up */
        return true;
    default:
        return false;
    }
}

void ha_gang_fail(const struct ha_gang *gang, struct ha_comm *comm, const struct ha_error *why)
{
    int64_t started, finished;

    ha_comm_abort(comm, ha_error_text(why));
    ha_comm_count(comm, &started, &finished);
    ha_log_info("rank %d of %d has begun %lld collectives and finished %lld", ha_comm_rank(comm),
                ha_comm_size(comm), (long long)started, (long long)finished);
    ha_comm_dump(comm, log_line, NULL);
    if (gang->failed)
        gang->failed(gang->context, started, finished, ha_gang_followed(why));
}

static int open_comm(const struct ha_gang *gang, struct ha_backend *backend,
                     const volatile sig_atomic_t *stop, struct ha_comm **ret_comm,
                     struct ha_error *err)
{
    struct ha_comm_id id = {{0}};
    struct ha_comm_options options = {.kind = ha_gang_collective(gang, backend),
                                      .id = &id,
                                      .rank = gang->rank,
                                      .size = gang->ranks,
                                      .backend = backend,
                                      .timeout_ms = gang->join_ms,
                                      .abort = gang->abort};
    int r = gang->rank == 0 ? ha_comm_make_id(options.kind, gang->ranks, &id, err) : 0;

    if (r == 0)
        r = gang->meet(gang->context, &id, stop, err);
    if (r == 0)
        r = ha_comm_create(&options, ret_comm, err);
    if (r == 0 && gang->met)
        gang->met(gang->context);
    return r;
}

int ha_gang_join(const struct ha_gang *gang, struct ha_backend *backend,
                 int (*join)(void *what, struct ha_comm *comm, struct ha_error *err), void *what,
                 const volatile sig_atomic_t *stop, struct ha_comm **ret_comm, struct ha_error *err)
{
    struct ha_comm *comm = NULL;
    struct ha_error why = {0};
    int r = open_comm(gang, backend, stop, &comm, &why);

    if (r == 0) {
        ha_log_info("rank %d of a gang of %d, by %s", gang->rank, gang->ranks, ha_comm_kind(comm));
        r = join(what, comm, &why);
    }
    if (r < 0) {
        if (comm)
            ha_gang_fail(gang, comm, &why);
        else if (gang->failed && r != -EINTR)
            gang->failed(gang->context, 0, 0, ha_gang_followed(&why));
        ha_comm_destroy(comm);
        *err = why;
        return r;
    }
    ha_comm_set_timeout(comm, gang->step_ms);
    *ret_comm = comm;
    return 0;
}

/* ---- the same work ---- */

int ha_gang_join_same(void *same, struct ha_comm *comm, struct ha_error *err)
{
    const struct ha_gang_same *what = same;
    struct ha_model_join_part job = {"job (model, data, adapters or settings)", what->job};

    return ha_model_join_same(what->engine->model, what->engine->backend, &job, 1, comm, err);
}

/* ---- by a file ---- */

static int wait_for_file(const struct ha_gang_file *file, const volatile sig_atomic_t *stop,
                         struct ha_error *err)
{
    const struct timespec nap = {.tv_nsec = LOOK_NS};
    int64_t start_ms = ha_clock_boot_ms();

    while (!ha_path_exists(file->path)) {
        if (stop && *stop)
            return ha_error_set(err, EINTR, "stopped before the gang was together");
        if (file->timeout_ms > 0 && ha_clock_boot_ms() - start_ms >= file->timeout_ms)
            return ha_error_set(err, ETIMEDOUT, "%s: rank 0 did not write it within %lld ms",
                                file->path, (long long)file->timeout_ms);
        (void)nanosleep(&nap, NULL);
    }
    return 0;
}

int ha_gang_file_meet(void *context, struct ha_comm_id *id, const volatile sig_atomic_t *stop,
                      struct ha_error *err)
{
    const struct ha_gang_file *file = context;
    char *bytes = NULL;
    size_t size = 0;
    int r;

    if (file->rank == 0) {
        if (ha_path_exists(file->path))
            return ha_error_set(err, EEXIST,
                                "%s: is there already; it is of another gang: end that, or remove "
                                "it",
                                file->path);
        return ha_file_write(file->path, id->bytes, sizeof(id->bytes), 0600, err);
    }
    r = wait_for_file(file, stop, err);
    if (r == 0)
        r = ha_file_read(file->path, sizeof(id->bytes), &bytes, &size, err);
    if (r == 0 && size != sizeof(id->bytes))
        r = ha_error_set(err, EINVAL, "%s: not the id of a gang", file->path);
    if (r == 0)
        memcpy(id->bytes, bytes, size);
    free(bytes);
    return r;
}

void ha_gang_file_met(void *context)
{
    const struct ha_gang_file *file = context;

    if (file->rank == 0)
        (void)unlink(file->path);
}

/* ---- by the daemon ---- */

/* One line of standard input, without its end. */
static int read_line(const struct ha_gang_daemon *daemon, char *line, size_t line_bytes,
                     const volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    size_t used = 0;

    while (used + 1 < line_bytes) {
        ssize_t n;

        if (*daemon->abort)
            return ha_error_set(err, ECANCELED, "the gang was told to give up");
        if (*stop)
            return ha_error_set(err, EINTR, "stopped before the gang was together");
        if (poll(&input, 1, LOOK_MS) <= 0)
            continue;
        n = read(STDIN_FILENO, line + used, 1);
        if (n == 0 || (n < 0 && errno != EINTR))
            return ha_error_set(err, ECONNABORTED, "the daemon did not send the gang's id");
        if (n == 1 && line[used] == '\n')
            break;
        used += n == 1;
    }
    line[used] = '\0';
    return 0;
}

static int parse_id(const char *text, struct ha_comm_id *id)
{
    if (strlen(text) != (size_t)2 * HA_COMM_ID_BYTES)
        return -EINVAL;
    for (int i = 0; i < HA_COMM_ID_BYTES; i++) {
        unsigned value;

        if (!isxdigit((unsigned char)text[2 * i]) || !isxdigit((unsigned char)text[2 * i + 1]) ||
            sscanf(text + (size_t)2 * i, "%2x", &value) != 1)
            return -EINVAL;
        id->bytes[i] = (unsigned char)value;
    }
    return 0;
}

int ha_gang_daemon_meet(void *context, struct ha_comm_id *id, const volatile sig_atomic_t *stop,
                        struct ha_error *err)
{
    const struct ha_gang_daemon *daemon = context;
    char line[2 * HA_COMM_ID_BYTES + 2];
    int r;

    HA_CRASH_POINT("attempt.gang_prepared");
    r = ha_contract_gang_ready(daemon->reporter, daemon->rank == 0 ? id : NULL, err);
    HA_CRASH_POINT("attempt.gang_ready");
    if (r == 0)
        r = read_line(daemon, line, sizeof(line), stop, err);
    if (daemon->rank == 0)
        HA_CRASH_POINT("attempt.gang_owner");
    HA_CRASH_POINT("attempt.gang_go");
    if (r == 0 && parse_id(line, id) < 0)
        r = ha_error_set(err, EBADMSG, "the daemon sent something else than the gang's id");
    return r;
}

void ha_gang_daemon_failed(void *context, int64_t started, int64_t finished, bool followed)
{
    const struct ha_gang_daemon *daemon = context;

    (void)ha_contract_gang_failed(daemon->reporter, started, finished, followed);
}
