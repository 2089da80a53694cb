/* What the CUDA backend says and does when a driver, a device or cuBLASLt fails: on the emulated
 * device, whose calls fail on demand (tests/cuda/faults.cpp). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/kernels/support.h"

#include "common/base/error.h"
#include "kernels/ops.h"

enum { SIZE = 16 };

static void fault(const char *text)
{
    if (text)
        (void)setenv("HA_EMULATED_FAULT", text, 1);
    else
        (void)unsetenv("HA_EMULATED_FAULT");
}

static int open_device(int device, struct ha_backend **ret_backend, struct ha_error *err)
{
    struct ha_backend_options options = {.name = "cuda", .device = device};

    return ha_backend_open(&options, ret_backend, err);
}

/* A device that does not open is refused with the reason, and "auto" takes the CPU. */
static void refuses_to_open(void **state)
{
    static const struct {
        const char *fault, *text;
        int device;
    } cases[] = {
        {"cudaGetDeviceCount:1:35", "no NVIDIA driver", 0},
        {"cudaGetDeviceCount:1:100", "no NVIDIA GPU on this machine", 0},
        {"cudaGetDeviceCount:1:3", "the NVIDIA driver does not start", 0},
        {NULL, "GPU 5 asked for; this machine has 1", 5},
        {"cudaGetDeviceProperties:1:46", "GPU 0 does not answer", 0},
        {"cudaMalloc:1:2", "no memory left", 0},
        {"cublasLtCreate:1:1", "cuBLASLt", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_backend_options options = {
            .name = "auto", .threads = 1, .device = cases[i].device};
        struct ha_backend *backend = NULL;
        struct ha_error err = {0};

        fault(cases[i].fault);
        assert_int_not_equal(open_device(cases[i].device, &backend, &err), 0);
        assert_null(backend);
        if (!strstr(ha_error_text(&err), cases[i].text))
            fail_msg("%s: %s", cases[i].fault, ha_error_text(&err));
        assert_int_equal(ha_backend_open(&options, &backend, &err), 0);
        assert_string_equal(ha_backend_name(backend), "cpu");
        assert_non_null(strstr(ha_backend_description(backend), cases[i].text));
        ha_backend_close(backend);
    }
    fault(NULL);
}

struct side {
    struct ha_backend *backend;
    void *memory;
};

static struct side start(void)
{
    struct ha_error err = {0};
    struct side side = {0};

    fault(NULL);
    assert_int_equal(open_device(0, &side.backend, &err), 0);
    assert_int_equal(ha_backend_alloc(side.backend, SIZE * SIZE * 4, &side.memory, &err), 0);
    assert_int_equal(ha_backend_sync(side.backend, &err), 0);
    return side;
}

static void stop(struct side *side)
{
    fault(NULL);
    ha_backend_free(side->backend, side->memory);
    ha_backend_close(side->backend);
}

static int multiply(struct side *side, struct ha_error *err)
{
    struct ha_matrix m = {side->memory, HA_DTYPE_F32, SIZE, SIZE, SIZE};
    struct ha_matrix other = m;
    void *memory = NULL;
    int r = ha_backend_alloc(side->backend, SIZE * SIZE * 4, &memory, err);

    if (r < 0)
        return r;
    other.data = memory;
    r = ha_backend_ops(side->backend)
            ->gemm(side->backend, &other, &m, false, &m, true, 1.0f, 0.0f, err);
    ha_backend_free(side->backend, memory);
    return r;
}

/* After a failure of the device nothing that it holds can be trusted: every later call is refused
 * with the first failure's text, also when the device answers again. */
static void a_failure_stays(void **state)
{
    static const char *const faults[] = {"cudaStreamSynchronize:1:700", "cudaMemcpyAsync:1:719",
                                         "cublasLtMatmul:1:14"};

    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct side side = start();
        struct ha_error err = {0}, later = {0};
        float host[SIZE] = {0};
        int r = 0;

        fault(faults[i]);
        r = multiply(&side, &err);
        if (r == 0)
            r = ha_backend_upload(side.backend, side.memory, host, sizeof(host), &err);
        if (r == 0)
            r = ha_backend_sync(side.backend, &err);
        if (r != -EIO)
            fail_msg("%s: %d %s", faults[i], r, ha_error_text(&err));
        fault(NULL);
        assert_int_equal(ha_backend_sync(side.backend, &later), -EIO);
        if (!strstr(ha_error_text(&later), "failed before") ||
            !strstr(ha_error_text(&later), ha_error_text(&err)))
            fail_msg("%s: %s, then %s", faults[i], ha_error_text(&err), ha_error_text(&later));
        assert_int_equal(multiply(&side, &later), -EIO);
        stop(&side);
    }
}

/* What is refused, or has no room, leaves the device as good as it was. */
static void a_refusal_passes(void **state)
{
    static const struct {
        const char *fault;
        int error;
    } cases[] = {
        {"cudaMalloc:1:2", -ENOMEM},
        {"cublasLtMatmul:1:3", -ENOMEM},
        {"cublasLtMatmul:1:15", -EINVAL},
        {"cublasLtMatmulAlgoGetHeuristic:1:15", -EINVAL},
        {"cublasLtMatmulAlgoGetHeuristic:1:7", -EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = cases[i / 2].fault;
        struct side side = start();
        int64_t held = ha_backend_allocated_bytes(side.backend);
        bool separate = i % 2 != 0;
        struct ha_error err = {0};
        int r;

        ha_backend_separate_rows(side.backend, separate);
        fault(text);
        r = multiply(&side, &err);
        if (r != cases[i / 2].error)
            fail_msg("%s: %d %s", text, r, ha_error_text(&err));
        if (separate && strstr(text, "Heuristic:1:15"))
            assert_non_null(strstr(ha_error_text(&err), "rows cannot be kept separate"));
        if (!separate) /* else it has memory for a tile */
            assert_int_equal(ha_backend_allocated_bytes(side.backend), held);
        fault(NULL);
        assert_int_equal(multiply(&side, &err), 0);
        assert_int_equal(ha_backend_sync(side.backend, &err), 0);
        stop(&side);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_to_open),
        cmocka_unit_test(a_failure_stays),
        cmocka_unit_test(a_refusal_passes),
    };

    if (!getenv("HA_CUDA_MODULE"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
