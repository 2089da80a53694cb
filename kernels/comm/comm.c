#include "kernels/comm/comm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/memory.h"
#include "kernels/backend.h"

static const struct ha_comm_table *find_table(const char *kind, struct ha_error *err)
{
    static const struct ha_comm_table *const tables[] = {&ha_comm_shm, &ha_comm_nccl};

    for (size_t i = 0; kind && i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (strcmp(tables[i]->name, kind) == 0)
            return tables[i];
    }
    (void)ha_error_set(err, EINVAL, "unknown kind of communicator \"%s\"; known: shm, nccl",
                       kind ? kind : "");
    return NULL;
}

const char *ha_comm_kind_for(const struct ha_backend *backend)
{
    return strcmp(ha_backend_name(backend), "cuda") == 0 ? "nccl" : "shm";
}

static int check_size(int size, struct ha_error *err)
{
    if (size < 1 || size > HA_COMM_MAX_RANKS)
        return ha_error_set(err, EINVAL, "a gang of %d ranks; 1 to %d are possible", size,
                            HA_COMM_MAX_RANKS);
    return 0;
}

int ha_comm_make_id(const char *kind, int size, struct ha_comm_id *ret_id, struct ha_error *err)
{
    const struct ha_comm_table *table = find_table(kind, err);
    struct ha_comm_id id = {{0}};
    int r;

    if (!table)
        return -EINVAL;
    r = check_size(size, err);
    if (r == 0)
        r = table->make_id(size, &id, err);
    if (r == 0)
        *ret_id = id;
    return r;
}

/* ---- the first failure stays ---- */

static int sticky(const struct ha_comm *comm, struct ha_error *err)
{
    if (err)
        *err = comm->failure;
    return -comm->failure.code;
}

static void give_up(struct ha_comm *comm, const char *reason)
{
    if (comm->aborted)
        return;
    comm->aborted = true;
    comm->table->cancel(comm, reason);
}

static int fail(struct ha_comm *comm, const struct ha_error *why, struct ha_error *err)
{
    comm->failure = *why;
    if (comm->failure.code <= 0)
        comm->failure.code = EIO;
    give_up(comm, ha_error_text(&comm->failure));
    return sticky(comm, err);
}

void ha_comm_abort(struct ha_comm *comm, const char *reason)
{
    struct ha_error why;

    if (comm->failure.code == 0) {
        (void)ha_error_set(&why, ECANCELED, "%s", reason);
        (void)fail(comm, &why, NULL);
    }
}

/* ---- waiting ---- */

static int out_of_time(struct ha_comm *comm, struct ha_error *err)
{
    char missing[HA_COMM_LINE_BYTES] = "";
    struct ha_error why;

    comm->table->missing(comm, missing, sizeof(missing));
    if (comm->opened)
        (void)ha_error_set(&why, ETIMEDOUT,
                           "the gang's collective %" PRId64 " was not done within %" PRId64
                           " ms%s%s",
                           comm->started, comm->timeout_ms, missing[0] ? ": " : "", missing);
    else
        (void)ha_error_set(&why, ETIMEDOUT,
                           "the %d ranks of the gang were not together within %" PRId64 " ms%s%s",
                           comm->size, comm->timeout_ms, missing[0] ? ": " : "", missing);
    return fail(comm, &why, err);
}

static int wait_for(struct ha_comm *comm, int (*poll)(struct ha_comm *comm, struct ha_error *err),
                    struct ha_error *err)
{
    int64_t start_ms = ha_clock_boot_ms();

    for (;;) {
        struct ha_error why = {0};
        int r = poll(comm, &why);

        if (r != -EINPROGRESS) {
            if (r < 0 && err)
                *err = why;
            return r;
        }
        if (comm->abort && *comm->abort) {
            (void)ha_error_set(&why, ECANCELED, "the gang was told to give up");
            return fail(comm, &why, err);
        }
        if (comm->timeout_ms > 0 && ha_clock_boot_ms() - start_ms >= comm->timeout_ms)
            return out_of_time(comm, err);
        comm->table->nap(comm);
    }
}

/* ---- opening and closing ---- */

static int poll_open(struct ha_comm *comm, struct ha_error *err)
{
    struct ha_error why = {0};
    int r = comm->table->poll_open(comm, &why);

    return r == 0 || r == -EINPROGRESS ? r : fail(comm, &why, err);
}

static int set_up(struct ha_comm *comm, const struct ha_comm_options *options,
                  const struct ha_comm_table *table, struct ha_error *err)
{
    comm->table = table;
    comm->backend = options->backend;
    comm->abort = options->abort;
    comm->rank = options->rank;
    comm->size = options->size;
    comm->timeout_ms = options->timeout_ms;
    comm->chain = ha_calloc(comm->size, sizeof(*comm->chain));
    if (!comm->chain)
        return ha_error_set(err, ENOMEM, "no memory for a communicator");
    for (int i = 1; i < comm->size; i++)
        comm->chain[i - 1] = (struct ha_comm_add){0, i};
    return 0;
}

int ha_comm_create(const struct ha_comm_options *options, struct ha_comm **ret_comm,
                   struct ha_error *err)
{
    const struct ha_comm_table *table = find_table(options->kind, err);
    struct ha_comm *comm = NULL;
    int r;

    if (!table)
        return -EINVAL;
    r = check_size(options->size, err);
    if (r < 0)
        return r;
    if (options->rank < 0 || options->rank >= options->size)
        return ha_error_set(err, EINVAL, "rank %d of a gang of %d; they count from 0",
                            options->rank, options->size);
    r = table->open(options, &comm, err);
    if (r < 0)
        return r;
    r = set_up(comm, options, table, err);
    if (r == 0)
        r = wait_for(comm, poll_open, err);
    if (r < 0) {
        ha_comm_destroy(comm);
        return r;
    }
    comm->opened = true;
    *ret_comm = comm;
    return 0;
}

void ha_comm_destroy(struct ha_comm *comm)
{
    if (!comm)
        return;
    HA_CRASH_POINT("attempt.gang_end");
    if (comm->working || !comm->opened)
        give_up(comm, "a rank of the gang has ended");
    free(comm->chain);
    comm->table->close(comm);
}

int ha_comm_rank(const struct ha_comm *comm)
{
    return comm->rank;
}

int ha_comm_size(const struct ha_comm *comm)
{
    return comm->size;
}

const char *ha_comm_kind(const struct ha_comm *comm)
{
    return comm->table->name;
}

void ha_comm_set_timeout(struct ha_comm *comm, int64_t timeout_ms)
{
    comm->timeout_ms = timeout_ms;
}

/* ---- collectives ---- */

static int start(struct ha_comm *comm, const struct ha_comm_work *work, struct ha_error *err)
{
    if (comm->failure.code != 0)
        return sticky(comm, err);
    if (comm->working)
        return ha_error_set(err, EBUSY, "a collective is under way already");
    comm->work = *work;
    comm->working = true;
    comm->ring[comm->started % HA_COMM_RING] =
        (struct ha_comm_record){.sequence = comm->started + 1,
                                .kind = work->kind,
                                .bytes = (int64_t)work->bytes,
                                .start_ns = ha_clock_boot_ns()};
    comm->started++;
    return 0;
}

static int start_gather(struct ha_comm *comm, enum ha_comm_work_kind kind, void *all,
                        const void *own, size_t bytes, struct ha_error *err)
{
    size_t total;

    if (__builtin_mul_overflow(bytes, (size_t)comm->size, &total) || total > INT64_MAX)
        return ha_error_set(err, EOVERFLOW, "%zu bytes of each rank are more than can be addressed",
                            bytes);
    return start(comm, &(struct ha_comm_work){.kind = kind, .all = all, .own = own, .bytes = bytes},
                 err);
}

int ha_comm_start_gather(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                         struct ha_error *err)
{
    return start_gather(comm, HA_COMM_GATHER, all, own, bytes, err);
}

int ha_comm_start_gather_device(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                                struct ha_error *err)
{
    int r = start_gather(comm, HA_COMM_GATHER_DEVICE, all, own, bytes, err);

    if (r == 0)
        r = ha_comm_poll(comm, err);
    return r == -EINPROGRESS ? 0 : r;
}

static int check_adds(const struct ha_comm *comm, const struct ha_comm_add *adds, int n_adds,
                      struct ha_error *err)
{
    for (int i = 0; i < n_adds; i++) {
        if (adds[i].into < 0 || adds[i].into >= adds[i].from || adds[i].from >= comm->size)
            return ha_error_set(err, EINVAL, "a sum over %d ranks adds rank %d to rank %d",
                                comm->size, adds[i].from, adds[i].into);
    }
    return 0;
}

int ha_comm_start_sum(struct ha_comm *comm, float *x, int64_t n, const struct ha_comm_add *adds,
                      int n_adds, struct ha_error *err)
{
    struct ha_comm_work work = {.kind = HA_COMM_SUM,
                                .x = x,
                                .adds = adds ? adds : comm->chain,
                                .n_adds = adds ? n_adds : comm->size - 1};
    int r;

    if (n < 0 || n > INT64_MAX / (int64_t)sizeof(float))
        return ha_error_set(err, EINVAL, "a sum of %" PRId64 " values", n);
    work.bytes = (size_t)n * sizeof(float);
    r = check_adds(comm, work.adds, work.n_adds, err);
    return r < 0 ? r : start(comm, &work, err);
}

int ha_comm_poll(struct ha_comm *comm, struct ha_error *err)
{
    struct ha_error why = {0};
    int r;

    if (comm->failure.code != 0)
        return sticky(comm, err);
    if (!comm->working)
        return 0;
    r = comm->table->poll(comm, &why);
    if (r == -EINPROGRESS)
        return r;
    if (r < 0)
        return fail(comm, &why, err);
    comm->ring[(comm->started - 1) % HA_COMM_RING].end_ns = ha_clock_boot_ns();
    comm->finished++;
    comm->working = false;
    return 0;
}

int ha_comm_wait(struct ha_comm *comm, struct ha_error *err)
{
    HA_CRASH_POINT("attempt.gang_collective");
    return wait_for(comm, ha_comm_poll, err);
}

int ha_comm_gather(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                   struct ha_error *err)
{
    int r = ha_comm_start_gather(comm, all, own, bytes, err);

    return r < 0 ? r : ha_comm_wait(comm, err);
}

int ha_comm_sum(struct ha_comm *comm, float *x, int64_t n, const struct ha_comm_add *adds,
                int n_adds, struct ha_error *err)
{
    int r = ha_comm_start_sum(comm, x, n, adds, n_adds, err);

    return r < 0 ? r : ha_comm_wait(comm, err);
}

/* ---- what was done ---- */

void ha_comm_count(const struct ha_comm *comm, int64_t *ret_started, int64_t *ret_finished)
{
    *ret_started = comm->started;
    *ret_finished = comm->finished;
}

void ha_comm_dump(const struct ha_comm *comm, void (*line)(void *context, const char *text),
                  void *context)
{
    static const char *const names[] = {"gather", "device gather", "sum"};
    int64_t first = comm->started > HA_COMM_RING ? comm->started - HA_COMM_RING : 0;
    int64_t now_ns = ha_clock_boot_ns();
    char text[HA_COMM_LINE_BYTES];

    for (int64_t i = first; i < comm->started; i++) {
        const struct ha_comm_record *record = &comm->ring[i % HA_COMM_RING];
        int64_t end_ns = record->end_ns ? record->end_ns : now_ns;

        (void)snprintf(text, sizeof(text),
                       "collective %" PRId64 ": %s of %" PRId64 " bytes, begun %.3f s ago, %s %.3f "
                       "s",
                       record->sequence, names[record->kind], record->bytes,
                       (double)(now_ns - record->start_ns) / 1e9,
                       record->end_ns ? "took" : "not done after",
                       (double)(end_ns - record->start_ns) / 1e9);
        line(context, text);
    }
}
