/* Communicators: what they give, in which order they add, and how they end.  Ranks are processes,
 * forked before they open anything. */
#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "kernels/collective.h"
#include "tests/unit/rank.h"

enum { MOST = 5, LARGE = 400001 };

struct rank {
    int rank, size;
    struct ha_comm_id id;
    struct ha_backend *backend;
    struct ha_comm *comm;
    struct ha_error err;
    int64_t timeout_ms;
    volatile sig_atomic_t abort;
};

/* "cuda" where HA_KERNEL_TEST_BACKEND asks for it: sums are then over a device's memory. */
static const char *backend_name(void)
{
    const char *given = getenv("HA_KERNEL_TEST_BACKEND");

    return given && *given ? given : "cpu";
}

static int open_rank(struct rank *rank)
{
    const struct ha_backend_options options_of_backend = {.name = backend_name(), .threads = 1};
    struct ha_comm_options options = {.kind = "shm",
                                      .id = &rank->id,
                                      .rank = rank->rank,
                                      .size = rank->size,
                                      .timeout_ms = rank->timeout_ms,
                                      .abort = &rank->abort};

    CHECK(ha_backend_open(&options_of_backend, &rank->backend, &rank->err) == 0);
    options.backend = rank->backend;
    return ha_comm_create(&options, &rank->comm, &rank->err);
}

static pid_t start_rank(struct rank *rank, void (*body)(struct rank *rank))
{
    pid_t pid = fork();

    if (pid == 0) {
        body(rank);
        ha_comm_destroy(rank->comm);
        ha_backend_close(rank->backend);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

/* The ranks' processes; those with a bit in `killed` end by a signal, the others well. */
static void run_ranks(int size, void (*body)(struct rank *rank), unsigned killed)
{
    struct rank rank = {.size = size, .timeout_ms = 20000};
    pid_t pids[MOST];

    assert_ok(ha_comm_make_id("shm", size, &rank.id, &rank.err));
    for (rank.rank = 0; rank.rank < size; rank.rank++)
        pids[rank.rank] = start_rank(&rank, body);
    for (int i = 0; i < size; i++) {
        int status = -1;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (killed >> i & 1)
            assert_true(WIFSIGNALED(status));
        else
            assert_int_equal(status, 0);
    }
}

static float value_of(int rank, int64_t i)
{
    return (float)sin((double)(i * 7 + rank * 131)) * (rank % 2 ? 1e4f : 1.0f);
}

/* ---- what they give ---- */

static void gathers(struct rank *rank)
{
    static const size_t sizes[] = {1, 24, 512 << 10, (512 << 10) + 1, 1300007};

    CHECK(open_rank(rank) == 0);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        size_t n = sizes[k];
        unsigned char *own = malloc(n), *all = malloc(n * (size_t)rank->size);

        for (size_t i = 0; i < n; i++)
            own[i] = (unsigned char)(i * 13 + (size_t)rank->rank);
        CHECK(ha_comm_gather(rank->comm, all, own, n, &rank->err) == 0);
        for (int r = 0; r < rank->size; r++)
            for (size_t i = 0; i < n; i++)
                CHECK(all[(size_t)r * n + i] == (unsigned char)(i * 13 + (size_t)r));
        CHECK(ha_comm_gather(rank->comm, NULL, NULL, 0, &rank->err) == 0);
        free(own);
        free(all);
    }
}

/* Of the backend's memory; other work goes on while it is on its way. */
static void gathers_there(struct rank *rank)
{
    static const size_t sizes[] = {256, 512 << 10, (512 << 10) + 256, 1300224};

    CHECK(open_rank(rank) == 0);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        size_t n = sizes[k], total = n * (size_t)rank->size;
        unsigned char *own = malloc(n), *all = malloc(total);
        void *there, *all_there;

        for (size_t i = 0; i < n; i++)
            own[i] = (unsigned char)(i * 13 + (size_t)rank->rank);
        CHECK(ha_backend_alloc(rank->backend, n, &there, &rank->err) == 0);
        CHECK(ha_backend_alloc(rank->backend, total, &all_there, &rank->err) == 0);
        CHECK(ha_backend_upload(rank->backend, there, own, n, &rank->err) == 0);
        CHECK(ha_comm_start_gather_device(rank->comm, all_there, there, n, &rank->err) == 0);
        CHECK(ha_backend_upload(rank->backend, there, own, n, &rank->err) == 0);
        CHECK(ha_comm_wait(rank->comm, &rank->err) == 0);
        CHECK(ha_backend_download(rank->backend, all, all_there, total, &rank->err) == 0);
        CHECK(ha_backend_sync(rank->backend, &rank->err) == 0);
        for (int r = 0; r < rank->size; r++)
            for (size_t i = 0; i < n; i++)
                CHECK(all[(size_t)r * n + i] == (unsigned char)(i * 13 + (size_t)r));
        ha_backend_free(rank->backend, there);
        ha_backend_free(rank->backend, all_there);
        free(own);
        free(all);
    }
}

/* A sum whose values are in the backend's memory meanwhile. */
static int sum_there(struct rank *rank, float *x, int64_t n, const struct ha_comm_add *adds,
                     int n_adds)
{
    size_t bytes = (size_t)n * sizeof(*x);
    void *there;
    int r;

    CHECK(ha_backend_alloc(rank->backend, bytes, &there, &rank->err) == 0);
    CHECK(ha_backend_upload(rank->backend, there, x, bytes, &rank->err) == 0);
    r = ha_comm_sum(rank->comm, there, n, adds, n_adds, &rank->err);
    CHECK(ha_backend_download(rank->backend, x, there, bytes, &rank->err) == 0);
    CHECK(ha_backend_sync(rank->backend, &rank->err) == 0);
    ha_backend_free(rank->backend, there);
    return r;
}

/* Of 5 ranks: ((0 + 1) + (3 + 4)), without 2. */
static const struct ha_comm_add tree[] = {{0, 1}, {3, 4}, {0, 3}};

static void sums(struct rank *rank)
{
    static const int64_t sizes[] = {1, 1023, 131072, LARGE};

    CHECK(open_rank(rank) == 0);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        int64_t n = sizes[k];
        float *x = malloc((size_t)n * sizeof(*x));

        for (int64_t i = 0; i < n; i++)
            x[i] = value_of(rank->rank, i);
        CHECK(sum_there(rank, x, n, NULL, 0) == 0);
        for (int64_t i = 0; i < n; i++) {
            float want = value_of(0, i);

            for (int r = 1; r < rank->size; r++)
                want += value_of(r, i);
            CHECK(memcmp(&x[i], &want, sizeof(want)) == 0);
        }
        for (int64_t i = 0; i < n; i++)
            x[i] = value_of(rank->rank, i);
        CHECK(sum_there(rank, x, n, tree, 3) == (rank->size == 5 ? 0 : -EINVAL));
        for (int64_t i = 0; rank->size == 5 && i < n; i++) {
            float left = value_of(0, i) + value_of(1, i), right = value_of(3, i) + value_of(4, i);
            float want = left + right;

            CHECK(memcmp(&x[i], &want, sizeof(want)) == 0);
        }
        free(x);
    }
}

static void gives(void **state)
{
    (void)state;
    for (int size = 1; size <= MOST; size += size < 2 ? 1 : 3) {
        run_ranks(size, gathers, 0);
        run_ranks(size, gathers_there, 0);
        run_ranks(size, sums, 0);
    }
}

/* A rank that comes late, or is slow, changes nothing. */
static void slow_ranks(struct rank *rank)
{
    float x[3];

    (void)usleep((useconds_t)(rank->rank * 30000));
    CHECK(open_rank(rank) == 0);
    for (int k = 0; k < 20; k++) {
        for (int i = 0; i < 3; i++)
            x[i] = value_of(rank->rank, k + i);
        (void)usleep((useconds_t)((rank->rank + k) % 4 * 3000));
        CHECK(ha_comm_start_sum(rank->comm, x, 3, NULL, 0, &rank->err) == 0);
        while (ha_comm_poll(rank->comm, &rank->err) == -EINPROGRESS)
            (void)usleep(500);
        CHECK(x[0] == value_of(0, k) + value_of(1, k) + value_of(2, k));
    }
}

static void speeds_may_differ(void **state)
{
    (void)state;
    run_ranks(3, slow_ranks, 0);
}

/* ---- how they end ---- */

static void one_dies(struct rank *rank)
{
    float *x = calloc(LARGE, sizeof(*x));
    int r = 0;

    CHECK(open_rank(rank) == 0);
    for (int k = 0; r == 0 && k < 100; k++) {
        if (rank->rank == 1 && k == 3) {
            CHECK(ha_comm_start_sum(rank->comm, x, LARGE, NULL, 0, &rank->err) == 0);
            CHECK(ha_comm_poll(rank->comm, &rank->err) == -EINPROGRESS || 1);
            (void)raise(SIGKILL);
        }
        r = ha_comm_sum(rank->comm, x, LARGE, NULL, 0, &rank->err);
    }
    CHECK(r == -ECONNABORTED);
    CHECK(strstr(ha_error_text(&rank->err), "rank 1") || strstr(ha_error_text(&rank->err), "gave"));
    /* The failure stays. */
    CHECK(ha_comm_gather(rank->comm, NULL, NULL, 0, NULL) == -ECONNABORTED);
    free(x);
}

static void one_never_comes(struct rank *rank)
{
    if (rank->rank == 2)
        (void)raise(SIGKILL);
    rank->timeout_ms = 700;
    CHECK(open_rank(rank) == -ETIMEDOUT || rank->err.code == ECONNABORTED);
}

static void one_hangs(struct rank *rank)
{
    int64_t start_ms;

    CHECK(open_rank(rank) == 0);
    CHECK(ha_comm_gather(rank->comm, NULL, NULL, 0, &rank->err) == 0);
    if (rank->rank == 2) {
        (void)usleep(2000000);
        (void)raise(SIGKILL);
    }
    ha_comm_set_timeout(rank->comm, 300);
    start_ms = ha_clock_boot_ms();
    CHECK(ha_comm_gather(rank->comm, NULL, NULL, 0, &rank->err) < 0);
    CHECK(strstr(ha_error_text(&rank->err), "rank 2"));
    CHECK(ha_clock_boot_ms() - start_ms < 1500);
}

struct ring {
    int n;
    char last[HA_COMM_LINE_BYTES];
};

static void keep_line(void *context, const char *text)
{
    struct ring *ring = context;

    ring->n++;
    (void)snprintf(ring->last, sizeof(ring->last), "%s", text);
}

static void one_gives_up(struct rank *rank)
{
    int64_t started, finished;
    struct ring ring = {0};
    char none;

    CHECK(open_rank(rank) == 0);
    for (int i = 0; i < 70; i++)
        CHECK(ha_comm_gather(rank->comm, NULL, NULL, 0, &rank->err) == 0);
    if (rank->rank == 1)
        ha_comm_abort(rank->comm, "the device is sick");
    if (rank->rank == 0)
        rank->abort = 1;
    CHECK(ha_comm_gather(rank->comm, &none, &none, 0, &rank->err) ==
              (rank->rank == 1 ? -ECANCELED : -ECONNABORTED) ||
          (rank->rank == 0 && rank->err.code == ECANCELED) ||
          (rank->rank == 2 && rank->err.code == ECONNABORTED));
    if (rank->rank == 2)
        CHECK(strstr(ha_error_text(&rank->err), "the device is sick") ||
              strstr(ha_error_text(&rank->err), "told to give up"));
    ha_comm_count(rank->comm, &started, &finished);
    CHECK(finished == 70 && started == (rank->rank == 1 ? 70 : 71));
    ha_comm_dump(rank->comm, keep_line, &ring);
    CHECK(ring.n == HA_COMM_RING);
    if (rank->rank == 2)
        CHECK(strstr(ring.last, "collective 71: gather of 0 bytes") &&
              strstr(ring.last, "not done"));
}

static void nobody_waits_for_ever(void **state)
{
    (void)state;
    run_ranks(3, one_dies, 1u << 1);
    run_ranks(3, one_never_comes, 1u << 2);
    run_ranks(3, one_hangs, 1u << 2);
    run_ranks(3, one_gives_up, 0);
}

/* ---- what is refused ---- */

static void refuses(void **state)
{
    struct ha_backend_options cpu = {.name = "cpu", .threads = 1};
    struct ha_comm_id id;
    struct ha_comm_options options = {.kind = "shm", .id = &id, .size = 2, .timeout_ms = 100};
    struct ha_comm *comm;
    struct ha_error why;

    (void)state;
    assert_ok(ha_backend_open(&cpu, &options.backend, &err));
    assert_string_equal(ha_comm_kind_for(options.backend), "shm");
    assert_int_equal(ha_comm_make_id("mpi", 2, &id, &why), -EINVAL);
    assert_int_equal(ha_comm_make_id("shm", 0, &id, &why), -EINVAL);
    assert_int_equal(ha_comm_make_id("shm", HA_COMM_MAX_RANKS + 1, &id, &why), -EINVAL);
    assert_ok(ha_comm_make_id("shm", 2, &id, &err));
    options.rank = 2;
    assert_int_equal(ha_comm_create(&options, &comm, &why), -EINVAL);
    options.rank = 1;
    options.size = 3;
    assert_int_equal(ha_comm_create(&options, &comm, &why), -EINVAL);
    options.size = 2;
    assert_int_equal(ha_comm_create(&options, &comm, &why), -ETIMEDOUT);
    assert_non_null(strstr(ha_error_text(&why), "no sign of rank 0"));
    assert_int_equal(ha_comm_create(&options, &comm, &why), -EINVAL);
    assert_non_null(strstr(ha_error_text(&why), "rank 1 of the gang is there already"));
    id.bytes[20] ^= 1; /* of another attempt */
    assert_int_equal(ha_comm_create(&options, &comm, &why), -EINVAL);
    id.bytes[20] ^= 1;
    id.bytes[40] ^= 1; /* of another boot, which another machine has */
    assert_int_equal(ha_comm_create(&options, &comm, &why), -ENOTSUP);
    assert_non_null(strstr(ha_error_text(&why), "rank 0 of the gang runs on another machine"));
    memset(&id, 0, sizeof(id));
    assert_int_equal(ha_comm_create(&options, &comm, &why), -EINVAL);
    options.kind = "nccl";
    assert_true(ha_comm_create(&options, &comm, &why) < 0);
    ha_backend_close(options.backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives),
        cmocka_unit_test(speeds_may_differ),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(refuses),
    };

    const struct CMUnitTest on_device[] = {cmocka_unit_test(gives)};
    const struct ha_backend_options options = {.name = backend_name(), .threads = 1};
    struct ha_backend *backend;
    pid_t pid;
    int status = 0;

    if (strcmp(options.name, "cpu") == 0)
        return cmocka_run_group_tests(tests, NULL, NULL);
    /* A device is opened behind a fork only. */
    pid = fork();
    if (pid == 0)
        _exit(ha_backend_open(&options, &backend, NULL) == 0 ? 0 : 77);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        return 77;
    return cmocka_run_group_tests(on_device, NULL, NULL);
}
