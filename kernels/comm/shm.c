/* shm.c - a gang of processes of one machine, through shared memory
 *
 * The id names a memory file of the process that made it (/proc/PID/fd/N), with a random number
 * that tells it from any other; the file has no name of its own, so that nothing is left behind
 * however the processes end.  The id also has the machine and its boot, so that a process of
 * another machine does not look there for a file of its own.  The memory holds
 *
 *     struct shared             at 0
 *     slot (size, 2, CHUNK)     at HEADER_BYTES: what a rank gives in even and in odd rounds
 *
 * A collective is cut into rounds of at most CHUNK bytes a rank.  In each round a rank writes
 * its slot, says so by raising arrived[rank], waits until all have, and reads all slots.
 * Two slots are enough: a rank writes slot r % 2 again in round r + 2, after all have
 * arrived in round r + 1, that is after all have read those of round r.
 *
 * Every rank holds a lock on the byte of its number, which ends with its process: that is how
 * the others see that it is gone. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "kernels/backend.h"
#include "kernels/comm/comm.h"

enum {
    HEADER_BYTES = 1 << 16,
    CHUNK_BYTES = 512 << 10,
    BLOCK = 1024, /* values that are added at a time */
    NONCE_BYTES = 16,
    BOOT_BYTES = 16,
    HOST_BYTES = 48,
    REASON_BYTES = 256,
    NAP_NS = 20 * 1000 * 1000,
    DEATH_CHECK_MS = 100
};

static const char magic[8] = "HACOMM1";

struct shared {
    char magic[sizeof(magic)];
    unsigned char nonce[NONCE_BYTES];
    int32_t size;
    _Atomic uint32_t bell;              /* rung whenever something has changed */
    _Atomic uint32_t aborting, aborted; /* rank + 1 of the first that gave up */
    char reason[REASON_BYTES];          /* valid once aborted is set */
    _Atomic uint32_t joined[HA_COMM_MAX_RANKS];
    _Atomic uint64_t arrived[HA_COMM_MAX_RANKS]; /* rounds in which the rank has given */
};

_Static_assert(sizeof(struct shared) <= HEADER_BYTES, "the slots begin behind it");

/* What an id holds. */
struct name {
    char magic[sizeof(magic)];
    unsigned char nonce[NONCE_BYTES];
    int32_t pid, fd, size;
    unsigned char boot[BOOT_BYTES]; /* of the machine: random, new whenever it starts */
    char host[HOST_BYTES];          /* its name, for people */
};

_Static_assert(sizeof(struct name) <= HA_COMM_ID_BYTES, "an id has room for it");

struct shm {
    struct ha_comm base;
    int fd, made_fd; /* made_fd: of the id, where this process made it; else -1 */
    struct shared *shared;
    char *slots;
    size_t map_bytes;
    uint64_t round;  /* that is under way */
    bool given;      /* our part of it */
    uint32_t heard;  /* bell before the last look */
    int64_t dead_ms; /* when the locks were looked at last */
    float *sum;      /* (size, BLOCK) */
    char *chunk;     /* a sum on its way back to the device */
};

static struct shm *shm_of(struct ha_comm *comm)
{
    return (struct shm *)comm;
}

static size_t file_bytes(int size)
{
    return HEADER_BYTES + (size_t)size * 2 * CHUNK_BYTES;
}

/* The boot of this machine; all zero where it cannot be read. */
static void read_boot(unsigned char boot[BOOT_BYTES])
{
    char text[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    int n = 0;

    memset(boot, 0, BOOT_BYTES);
    if (file && !fgets(text, sizeof(text), file))
        text[0] = '\0';
    if (file)
        (void)fclose(file);
    for (const char *at = text; *at && n < 2 * BOOT_BYTES; at++) {
        int digit = *at >= '0' && *at <= '9'   ? *at - '0'
                    : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10
                                               : -1;

        if (digit >= 0) {
            boot[n / 2] = (unsigned char)(boot[n / 2] << 4 | digit);
            n++;
        }
    }
}

static void name_machine(struct name *name)
{
    struct utsname uts;

    read_boot(name->boot);
    if (uname(&uts) == 0)
        (void)snprintf(name->host, sizeof(name->host), "%.*s", HOST_BYTES - 1, uts.nodename);
}

/* Refused at once: it cannot heal, and waiting for the others would only hide it. */
static int check_machine(const struct name *name, struct ha_error *err)
{
    struct name own = {.pid = 0};

    name_machine(&own);
    if (memcmp(own.boot, name->boot, BOOT_BYTES) == 0)
        return 0;
    return ha_error_set(
        err, ENOTSUP,
        "rank 0 of the gang runs on another machine (%.*s, this is %s): a gang over "
        "machines needs GPUs and NCCL; without them give resources.nodes = 1",
        HOST_BYTES - 1, name->host, own.host);
}

static int make_id(int size, struct ha_comm_id *ret_id, struct ha_error *err)
{
    struct name name = {.pid = (int32_t)getpid(), .size = size};
    int fd = memfd_create("ha-comm", MFD_CLOEXEC), r;
    struct shared *shared;

    if (fd < 0)
        return ha_error_set(err, errno, "shared memory for a gang: %s", strerror(errno));
    /* Allocated now: memory that runs out later would end a process by a signal. */
    r = posix_fallocate(fd, 0, (off_t)file_bytes(size));
    if (r != 0) {
        (void)close(fd);
        return ha_error_set(err, r, "shared memory of %zu bytes for a gang of %d: %s",
                            file_bytes(size), size, strerror(r));
    }
    shared = mmap(NULL, HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED ||
        getrandom(name.nonce, sizeof(name.nonce), 0) != (ssize_t)sizeof(name.nonce)) {
        r = ha_error_set(err, errno, "shared memory for a gang: %s", strerror(errno));
        if (shared != MAP_FAILED)
            (void)munmap(shared, HEADER_BYTES);
        (void)close(fd);
        return r;
    }
    name.fd = fd;
    memcpy(name.magic, magic, sizeof(magic));
    name_machine(&name);
    memcpy(shared->magic, magic, sizeof(magic));
    memcpy(shared->nonce, name.nonce, sizeof(name.nonce));
    shared->size = size;
    (void)munmap(shared, HEADER_BYTES);
    memcpy(ret_id->bytes, &name, sizeof(name));
    return 0;
}

static void ring_bell(struct shm *shm)
{
    atomic_fetch_add(&shm->shared->bell, 1);
    (void)syscall(SYS_futex, &shm->shared->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void nap(struct ha_comm *comm)
{
    struct shm *shm = shm_of(comm);
    const struct timespec time = {.tv_nsec = NAP_NS};

    (void)syscall(SYS_futex, &shm->shared->bell, FUTEX_WAIT, shm->heard, &time, NULL, 0);
}

/* ---- opening ---- */

static int map_file(struct shm *shm, const struct name *name, struct ha_error *err)
{
    struct stat st;
    void *map;

    if (fstat(shm->fd, &st) < 0 || st.st_size != (off_t)file_bytes(name->size))
        return ha_error_set(err, EINVAL,
                            "the gang's id names something else by now; each attempt "
                            "needs an id of its own");
    shm->map_bytes = file_bytes(name->size);
    map = mmap(NULL, shm->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shm->fd, 0);
    if (map == MAP_FAILED)
        return ha_error_set(err, errno, "shared memory of the gang: %s", strerror(errno));
    shm->shared = map;
    shm->slots = (char *)map + HEADER_BYTES;
    if (memcmp(shm->shared->magic, magic, sizeof(magic)) != 0 ||
        memcmp(shm->shared->nonce, name->nonce, sizeof(name->nonce)) != 0)
        return ha_error_set(err, EINVAL,
                            "the gang's id names something else by now; each attempt "
                            "needs an id of its own");
    return 0;
}

static struct flock lock_of(int rank, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1};
}

static int join(struct shm *shm, const struct name *name, int rank, struct ha_error *err)
{
    struct flock lock = lock_of(rank, F_WRLCK);
    char path[64];
    int r;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)name->pid, (int)name->fd);
    shm->fd = open(path, O_RDWR | O_CLOEXEC);
    if (shm->fd < 0)
        return ha_error_set(err, ECONNABORTED,
                            "the gang's shared memory is not there: %s (rank 0 has ended, or runs "
                            "in another container)",
                            strerror(errno));
    r = map_file(shm, name, err);
    if (r < 0)
        return r;
    if (fcntl(shm->fd, F_OFD_SETLK, &lock) < 0 || shm->shared->joined[rank] != 0)
        return ha_error_set(err, EINVAL, "rank %d of the gang is there already", rank);
    atomic_store(&shm->shared->joined[rank], 1);
    ring_bell(shm);
    return 0;
}

static void close_shm(struct ha_comm *comm)
{
    struct shm *shm = shm_of(comm);

    if (shm->shared)
        (void)munmap(shm->shared, shm->map_bytes);
    if (shm->fd >= 0)
        (void)close(shm->fd);
    if (shm->made_fd >= 0)
        (void)close(shm->made_fd);
    free(shm->sum);
    free(shm->chunk);
    free(shm);
}

static int open_shm(const struct ha_comm_options *options, struct ha_comm **ret_comm,
                    struct ha_error *err)
{
    struct shm *shm = ha_calloc(1, sizeof(*shm));
    struct name name;
    int r = 0;

    memcpy(&name, options->id->bytes, sizeof(name));
    if (!shm)
        return ha_error_set(err, ENOMEM, "no memory for a communicator");
    shm->fd = shm->made_fd = -1;
    if (memcmp(name.magic, magic, sizeof(magic)) != 0 || name.pid <= 0 || name.fd < 0)
        r = ha_error_set(err, EINVAL, "not the id of a gang in shared memory");
    else if (name.size != options->size)
        r = ha_error_set(err, EINVAL, "the id is of a gang of %d ranks, not of %d", (int)name.size,
                         options->size);
    if (r == 0)
        r = check_machine(&name, err);
    if (r == 0 && name.pid == (int32_t)getpid() && options->rank == 0)
        shm->made_fd = name.fd;
    if (r == 0) {
        shm->sum = ha_calloc((int64_t)options->size * BLOCK, sizeof(float));
        shm->chunk = ha_calloc(CHUNK_BYTES, 1);
        if (!shm->sum || !shm->chunk)
            r = ha_error_set(err, ENOMEM, "no memory for a communicator");
    }
    if (r == 0)
        r = join(shm, &name, options->rank, err);
    if (r < 0) {
        close_shm(&shm->base);
        return r;
    }
    *ret_comm = &shm->base;
    return 0;
}

/* ---- the others ---- */

static bool has_come(const struct shm *shm, int rank)
{
    if (!shm->base.opened)
        return atomic_load(&shm->shared->joined[rank]) != 0;
    return atomic_load(&shm->shared->arrived[rank]) > shm->round;
}

static bool all_have_come(const struct shm *shm)
{
    for (int i = 0; i < shm->base.size; i++) {
        if (!has_come(shm, i))
            return false;
    }
    return true;
}

static bool is_dead(const struct shm *shm, int rank)
{
    struct flock lock = lock_of(rank, F_WRLCK);

    return rank != shm->base.rank && atomic_load(&shm->shared->joined[rank]) != 0 &&
           fcntl(shm->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

/* A rank that is gone, or has given up, and is still waited for. */
static int check_others(struct shm *shm, struct ha_error *err)
{
    uint32_t aborted = atomic_load(&shm->shared->aborted);
    int64_t now_ms = ha_clock_boot_ms();

    if (aborted != 0)
        return ha_error_set(err, ECONNABORTED, "rank %u of the gang gave up: %.*s", aborted - 1,
                            REASON_BYTES - 1, shm->shared->reason);
    if (now_ms - shm->dead_ms < DEATH_CHECK_MS)
        return -EINPROGRESS;
    shm->dead_ms = now_ms;
    for (int i = 0; i < shm->base.size; i++) {
        /* A rank that has come meanwhile and then ended is no loss to this round. */
        if (!has_come(shm, i) && is_dead(shm, i) && !has_come(shm, i))
            return ha_error_set(err, ECONNABORTED, "rank %d of the gang is gone", i);
    }
    return -EINPROGRESS;
}

static int poll_open(struct ha_comm *comm, struct ha_error *err)
{
    struct shm *shm = shm_of(comm);

    shm->heard = atomic_load(&shm->shared->bell);
    if (!all_have_come(shm))
        return check_others(shm, err);
    if (shm->made_fd >= 0)
        (void)close(shm->made_fd);
    shm->made_fd = -1;
    return 0;
}

static void missing(const struct ha_comm *comm, char *text, size_t text_bytes)
{
    const struct shm *shm = (const struct shm *)comm;
    size_t used = 0;

    for (int i = 0; i < comm->size && used + 1 < text_bytes; i++) {
        if (!has_come(shm, i))
            used += (size_t)snprintf(text + used, text_bytes - used, "%srank %d",
                                     used == 0 ? "no sign of " : ", ", i);
    }
}

static void cancel_shm(struct ha_comm *comm, const char *reason)
{
    struct shm *shm = shm_of(comm);
    uint32_t none = 0;

    if (!atomic_compare_exchange_strong(&shm->shared->aborting, &none, (uint32_t)comm->rank + 1))
        return;
    (void)snprintf(shm->shared->reason, REASON_BYTES, "%s", reason);
    atomic_store(&shm->shared->aborted, (uint32_t)comm->rank + 1);
    ring_bell(shm);
}

/* ---- rounds ---- */

static char *slot_of(const struct shm *shm, int rank)
{
    return shm->slots + ((size_t)rank * 2 + shm->round % 2) * CHUNK_BYTES;
}

static size_t round_bytes(const struct ha_comm_work *work)
{
    size_t left = work->bytes - work->at;

    return left < CHUNK_BYTES ? left : CHUNK_BYTES;
}

static int give(struct shm *shm, struct ha_error *err)
{
    const struct ha_comm_work *work = &shm->base.work;
    size_t bytes = round_bytes(work);
    char *slot = slot_of(shm, shm->base.rank);
    int r = 0;

    if (work->kind != HA_COMM_GATHER)
        r = ha_backend_download(
            shm->base.backend, slot,
            (work->kind == HA_COMM_SUM ? (const char *)work->x : (const char *)work->own) +
                work->at,
            bytes, err);
    else if (bytes > 0)
        memcpy(slot, (const char *)work->own + work->at, bytes);
    if (r == 0 && work->kind != HA_COMM_GATHER)
        r = ha_backend_sync(shm->base.backend, err);
    if (r < 0)
        return r;
    atomic_store(&shm->shared->arrived[shm->base.rank], shm->round + 1);
    shm->given = true;
    ring_bell(shm);
    return 0;
}

/* The sum of the values [first, first + n) of all slots, into shm->sum's first row. */
static void sum_block(struct shm *shm, size_t first, size_t n)
{
    const struct ha_comm_work *work = &shm->base.work;

    for (int i = 0; i < shm->base.size; i++)
        memcpy(shm->sum + (size_t)i * BLOCK, slot_of(shm, i) + first * sizeof(float),
               n * sizeof(float));
    for (int i = 0; i < work->n_adds; i++) {
        float *into = shm->sum + (size_t)work->adds[i].into * BLOCK;
        const float *from = shm->sum + (size_t)work->adds[i].from * BLOCK;

        for (size_t j = 0; j < n; j++)
            into[j] += from[j];
    }
}

static int take_sum(struct shm *shm, struct ha_error *err)
{
    const struct ha_comm_work *work = &shm->base.work;
    size_t bytes = round_bytes(work), values = bytes / sizeof(float);
    int r;

    for (size_t i = 0; i < values; i += BLOCK) {
        size_t n = values - i < BLOCK ? values - i : BLOCK;

        sum_block(shm, i, n);
        memcpy(shm->chunk + i * sizeof(float), shm->sum, n * sizeof(float));
    }
    r = ha_backend_upload(shm->base.backend, (char *)work->x + work->at, shm->chunk, bytes, err);
    return r < 0 ? r : ha_backend_sync(shm->base.backend, err);
}

/* Through the backend's one stream, behind what it was given before. */
static int take_device(struct shm *shm, struct ha_error *err)
{
    const struct ha_comm_work *work = &shm->base.work;
    size_t bytes = round_bytes(work);
    int r = 0;

    for (int i = 0; r == 0 && i < shm->base.size; i++)
        r = ha_backend_upload(shm->base.backend,
                              (char *)work->all + (size_t)i * work->bytes + work->at,
                              slot_of(shm, i), bytes, err);
    return r < 0 ? r : ha_backend_sync(shm->base.backend, err);
}

static int take(struct shm *shm, struct ha_error *err)
{
    const struct ha_comm_work *work = &shm->base.work;
    size_t bytes = round_bytes(work);

    if (work->kind == HA_COMM_SUM)
        return take_sum(shm, err);
    if (work->kind == HA_COMM_GATHER_DEVICE)
        return take_device(shm, err);
    for (int i = 0; bytes > 0 && i < shm->base.size; i++)
        memcpy((char *)work->all + (size_t)i * work->bytes + work->at, slot_of(shm, i), bytes);
    return 0;
}

static int poll_shm(struct ha_comm *comm, struct ha_error *err)
{
    struct shm *shm = shm_of(comm);
    struct ha_comm_work *work = &comm->work;
    int r = 0;

    do {
        shm->heard = atomic_load(&shm->shared->bell);
        if (!shm->given)
            r = give(shm, err);
        if (r == 0 && !all_have_come(shm))
            return check_others(shm, err);
        if (r == 0)
            r = take(shm, err);
        if (r < 0)
            return r;
        work->at += round_bytes(work);
        shm->round++;
        shm->given = false;
    } while (work->at < work->bytes);
    return 0;
}

const struct ha_comm_table ha_comm_shm = {.name = "shm",
                                          .make_id = make_id,
                                          .open = open_shm,
                                          .poll_open = poll_open,
                                          .poll = poll_shm,
                                          .nap = nap,
                                          .cancel = cancel_shm,
                                          .missing = missing,
                                          .close = close_shm};
