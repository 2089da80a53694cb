/* NCCL's side of communicators, over a library that only looks like NCCL.  Nothing here says how
 * the real one behaves. */
#include "tests/unit/kernels/support.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/collective.h"
#include "kernels/comm/nccl_api.h"
#include "tests/unit/kernels/fake_nccl.h"

enum { MOST = 4, LARGE = 5000003 }; /* more than two chunks of f32 */

static struct fake_nccl *plan;

struct rank {
    int rank, size;
    struct ha_comm_id id;
    struct ha_error err;
    int64_t n;
    float *x;
    int result;
    bool comes;
};

static float value_of(int rank, int64_t i)
{
    return (float)sin((double)(i * 7 + rank * 131)) * (rank % 2 ? 1e4f : 1.0f);
}

/* The backend is the CPU, so its memory is ours. */
static int gather_there(struct rank *rank, struct ha_comm *comm)
{
    size_t bytes = (size_t)rank->n * sizeof(float);
    float *own = malloc(bytes), *all = malloc((size_t)rank->size * bytes);
    int r;

    for (int64_t i = 0; i < rank->n; i++)
        own[i] = value_of(rank->rank + MOST, i);
    r = ha_comm_start_gather_device(comm, all, own, bytes, &rank->err);
    /* It is on its way, and nothing else may be. */
    if (r == 0 && ha_comm_start_gather(comm, all, own, 1, NULL) != -EBUSY)
        r = -EBADMSG;
    if (r == 0)
        r = ha_comm_wait(comm, &rank->err);
    for (int64_t i = 0; r == 0 && i < rank->n * rank->size; i++) {
        float want = value_of((int)(i / rank->n) + MOST, i % rank->n);

        r = memcmp(&all[i], &want, sizeof(want)) == 0 ? 0 : -EBADMSG;
    }
    free(all);
    free(own);
    return r;
}

static int use(struct rank *rank, struct ha_comm *comm)
{
    static const struct ha_comm_add tree[] = {{2, 3}, {0, 1}, {0, 2}};
    int64_t own[3] = {rank->rank, 7, -rank->rank}, all[3 * MOST];
    int r = ha_comm_gather(comm, NULL, NULL, 0, &rank->err);

    if (r == 0)
        r = ha_comm_gather(comm, all, own, sizeof(own), &rank->err);
    for (int i = 0; r == 0 && i < rank->size; i++)
        r = all[3 * i] == i && all[3 * i + 1] == 7 && all[3 * i + 2] == -i ? 0 : -EBADMSG;
    if (r == 0)
        r = gather_there(rank, comm);
    return r < 0 ? r : ha_comm_sum(comm, rank->x, rank->n, tree, 3, &rank->err);
}

static void *run(void *context)
{
    const struct ha_backend_options cpu = {.name = "cpu", .threads = 1};
    struct rank *rank = context;
    struct ha_comm *comm = NULL;
    struct ha_comm_options options = {
        .kind = "nccl", .id = &rank->id, .rank = rank->rank, .size = rank->size, .timeout_ms = 400};

    if (!rank->comes)
        return NULL;
    rank->result = ha_backend_open(&cpu, &options.backend, &rank->err);
    if (rank->result == 0)
        rank->result = ha_comm_create(&options, &comm, &rank->err);
    if (rank->result == 0)
        ha_comm_set_timeout(comm, 20000);
    if (rank->result == 0)
        rank->result = use(rank, comm);
    ha_comm_destroy(comm);
    ha_backend_close(options.backend);
    return NULL;
}

static void run_gang(struct rank ranks[MOST], int64_t n, int missing)
{
    pthread_t threads[MOST];
    struct ha_comm_id id;

    assert_ok(ha_comm_make_id("nccl", MOST, &id, &err));
    for (int i = 0; i < MOST; i++) {
        ranks[i] = (struct rank){.rank = i,
                                 .size = MOST,
                                 .id = id,
                                 .n = n,
                                 .x = malloc((size_t)n * sizeof(float)),
                                 .comes = i != missing};
        for (int64_t k = 0; k < n; k++)
            ranks[i].x[k] = value_of(i, k);
    }
    for (int i = 0; i < MOST; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, &ranks[i]), 0);
    for (int i = 0; i < MOST; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void forget(struct rank ranks[MOST])
{
    for (int i = 0; i < MOST; i++)
        free(ranks[i].x);
}

static void gathers_and_adds(void **state)
{
    static const int64_t sizes[] = {1, 1000, LARGE};
    struct rank ranks[MOST];

    (void)state;
    for (int k = 0; k < 3; k++) {
        plan->destroyed = 0;
        run_gang(ranks, sizes[k], -1);
        for (int i = 0; i < MOST; i++) {
            if (ranks[i].result < 0)
                fail_msg("rank %d: %s", i, ha_error_text(&ranks[i].err));
            for (int64_t j = 0; j < sizes[k]; j += sizes[k] / 1000 + 1) {
                float right = value_of(2, j) + value_of(3, j);
                float want = (value_of(0, j) + value_of(1, j)) + right;

                assert_memory_equal(&ranks[i].x[j], &want, sizeof(want));
            }
        }
        assert_int_equal(plan->destroyed, MOST);
        forget(ranks);
    }
}

static void says_what_is_wrong(void **state)
{
    struct rank ranks[MOST];
    struct ha_comm_id id;
    struct ha_error why;

    (void)state;
    plan->aborted = 0;
    run_gang(ranks, 10, 2);
    assert_int_equal(ranks[0].result, -ETIMEDOUT);
    assert_non_null(strstr(ha_error_text(&ranks[0].err), "were not together within 400 ms"));
    assert_int_equal(plan->aborted, MOST - 1);
    forget(ranks);
    plan->version = 21805;
    assert_int_equal(ha_comm_make_id("nccl", 2, &id, &why), -ENODEV);
    assert_non_null(strstr(ha_error_text(&why), "2.19"));
    plan->version = 22005;
}

/* By NCCL's own numbers.  What another rank's death may look like is never this rank's fault. */
static void knows_whose_fault_it_is(void **state)
{
    static const struct {
        int code, blame;
    } table[] = {
        {1, EIO},          /* ncclUnhandledCudaError: this device */
        {2, ECONNRESET},   /* ncclSystemError: its socket, closed by the other's end? */
        {3, ECONNRESET},   /* ncclInternalError: its proxy, cut off by the other's end? */
        {4, EIO},          /* ncclInvalidArgument: ours */
        {5, EIO},          /* ncclInvalidUsage: ours */
        {6, ECONNABORTED}, /* ncclRemoteError: another's */
        {99, EIO},         /* of a later NCCL */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_int_equal(ha_nccl_blame(table[i].code), table[i].blame);
}

/* One rank alone, so that nobody waits for it. */
static void meet_an_error(int code, int result, const char *text)
{
    const struct ha_backend_options cpu = {.name = "cpu", .threads = 1};
    struct ha_comm_id id;
    struct ha_comm_options options = {.kind = "nccl", .id = &id, .size = 1, .timeout_ms = 5000};
    struct ha_comm *comm = NULL;
    struct ha_error why;

    assert_ok(ha_backend_open(&cpu, &options.backend, &err));
    assert_ok(ha_comm_make_id("nccl", 1, &id, &err));
    assert_ok(ha_comm_create(&options, &comm, &err));
    assert_ok(ha_comm_gather(comm, NULL, NULL, 0, &err));
    plan->aborted = 0;
    plan->fails_at = 1;
    plan->fails_rank = 0;
    plan->fails_code = code;
    assert_int_equal(ha_comm_gather(comm, NULL, NULL, 0, &why), result);
    assert_non_null(strstr(ha_error_text(&why), text));
    assert_int_equal(plan->aborted, 1);
    ha_comm_destroy(comm);
    plan->fails_at = plan->fails_code = 0;
    ha_backend_close(options.backend);
}

static void takes_an_error(void **state)
{
    (void)state;
    meet_an_error(HA_NCCL_CUDA_ERROR, -EIO, "NCCL: a collective: some error: the cable is out");
    meet_an_error(HA_NCCL_SYSTEM_ERROR, -ECONNRESET, "some error: the cable is out");
    meet_an_error(HA_NCCL_INTERNAL_ERROR, -ECONNRESET, "some error: the cable is out");
    meet_an_error(HA_NCCL_REMOTE_ERROR, -ECONNABORTED, "remote process exited: the cable is out");
}

static int open_library(void **state)
{
    const char *name = getenv("HA_NCCL_LIBRARY");
    void *library = name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : NULL;
    struct fake_nccl *(*get)(void);
    void *symbol = library ? dlsym(library, "fake_nccl_plan") : NULL;

    (void)state;
    if (!symbol)
        return -1;
    memcpy(&get, &symbol, sizeof(get));
    plan = get();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_and_adds),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(knows_whose_fault_it_is),
        cmocka_unit_test(takes_an_error),
    };

    return cmocka_run_group_tests(tests, open_library, NULL);
}
