#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <string.h>

#include "kernels/cpu/cores.h"
#include "kernels/peak.h"

static struct ha_backend *open_backend(const char *name, int threads, int64_t limit)
{
    struct ha_backend_options options = {name, threads, 0, limit};
    struct ha_backend *backend = NULL;

    assert_ok(ha_backend_open(&options, &backend, &err));
    return backend;
}

static void says_what_and_why(void **state)
{
    struct ha_backend *backend = open_backend("cpu", 2, 0);

    (void)state;
    assert_string_equal(ha_backend_name(backend), "cpu");
    assert_non_null(strstr(ha_backend_description(backend), "cpu: 2 threads, "));
    assert_non_null(strstr(ha_backend_description(backend), "(asked for)"));
    assert_int_equal(ha_backend_activation_dtype(backend), HA_DTYPE_F32);
    ha_backend_close(backend);
    backend = open_backend("auto", 0, 0);
    assert_non_null(strstr(ha_backend_description(backend), "cpu: "));
    assert_true(strstr(ha_backend_description(backend), "(no CUDA module beside the program)") ||
                strstr(ha_backend_description(backend), "(built with -Dcuda=disabled)"));
    ha_backend_close(backend);
    backend = open_backend(NULL, 1, 0);
    assert_non_null(strstr(ha_backend_description(backend), "1 thread,"));
    ha_backend_close(backend);
    ha_backend_close(NULL);
}

/* The matrices do not stay, only what the backend keeps for any product. */
static void peak_is_measured(void **state)
{
    struct ha_backend *backend = open_backend("cpu", 1, 0);
    struct ha_error why = {0};
    double peak = 0;

    (void)state;
    assert_ok(ha_backend_measure_peak(backend, &peak, &err));
    assert_true(peak > 1e7 && peak < 1e15);
    assert_true(ha_backend_allocated_bytes(backend) < 3 * 512 * 512 * 4);
    assert_true(ha_backend_peak_bytes(backend) >= 3 * 512 * 512 * 4);
    assert_true(ha_backend_flops(backend) >= 2.0 * 2 * 512 * 512 * 512);
    ha_backend_close(backend);
    backend = open_backend("cpu", 1, 1 << 20); /* one matrix fits */
    peak = -1;
    assert_int_equal(ha_backend_measure_peak(backend, &peak, &why), -ENOMEM);
    assert_true(peak == -1);
    assert_int_equal(ha_backend_allocated_bytes(backend), 0);
    ha_backend_close(backend);
}

static void quotas_are_read(void **state)
{
    (void)state;
    assert_int_equal(ha_cpu_quota_parse("200000 100000"), 2);
    assert_int_equal(ha_cpu_quota_parse("250000 100000\n"), 3);
    assert_int_equal(ha_cpu_quota_parse("5000 100000"), 1);
    assert_int_equal(ha_cpu_quota_parse("max 100000"), 0);
    assert_int_equal(ha_cpu_quota_parse("-1 100000"), 0);
    assert_int_equal(ha_cpu_quota_parse("1 0"), 0);
    assert_int_equal(ha_cpu_quota_parse(""), 0);
    assert_true(ha_cpu_cores() >= 1);
}

/* Threads change no bit, so they are not in the fingerprint; the instruction set is. */
static void fingerprint_names_what_bits_depend_on(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int v = 0; v < n; v++) {
        const char *fingerprint = ha_backend_fingerprint(variants[v].backend);
        int other = v;

        while (variants[other].threads != 1)
            other--;
        assert_non_null(strstr(fingerprint, variants[v].leaf));
        assert_string_equal(fingerprint, ha_backend_fingerprint(variants[other].backend));
    }
    variants_close(variants, n);
}

static void refuses_what_it_cannot_do(void **state)
{
    struct ha_backend_options options = {"cuda", 0, 0, 0};
    struct ha_backend *backend = NULL;
    struct ha_error why;

    (void)state;
    assert_int_equal(ha_backend_open(&options, &backend, &why), -ENODEV);
    assert_non_null(strstr(why.text, "the CUDA backend cannot run here"));
    options.name = "tpu";
    assert_int_equal(ha_backend_open(&options, &backend, &why), -EINVAL);
    assert_non_null(strstr(why.text, "known: auto, cpu, cuda"));
    options = (struct ha_backend_options){"cpu", -1, 0, 0};
    assert_int_equal(ha_backend_open(&options, &backend, &why), -EINVAL);
    options = (struct ha_backend_options){"cpu", 1, 0, -1};
    assert_int_equal(ha_backend_open(&options, &backend, &why), -EINVAL);
    assert_null(backend);
}

static void memory_is_counted_and_limited(void **state)
{
    struct ha_backend *backend = open_backend("cpu", 1, 1000);
    void *first, *second;
    struct ha_error why;

    (void)state;
    assert_ok(ha_backend_alloc(backend, 600, &first, &err));
    assert_int_equal((uintptr_t)first % 256, 0);
    for (int i = 0; i < 600; i++)
        assert_int_equal(((const char *)first)[i], 0);
    assert_int_equal(ha_backend_alloc(backend, 401, &second, &why), -ENOMEM);
    assert_non_null(strstr(why.text, "401"));
    assert_non_null(strstr(why.text, "600"));
    assert_non_null(strstr(why.text, "1000"));
    assert_ok(ha_backend_alloc(backend, 400, &second, &err));
    assert_int_equal(ha_backend_allocated_bytes(backend), 1000);
    ha_backend_free(backend, first);
    ha_backend_free(backend, NULL);
    assert_int_equal(ha_backend_allocated_bytes(backend), 400);
    assert_int_equal(ha_backend_peak_bytes(backend), 1000);
    ha_backend_free(backend, second);
    assert_int_equal(ha_backend_alloc(backend, SIZE_MAX, &first, &why), -ENOMEM);
    ha_backend_close(backend);
}

/* An operation whose scratch does not fit says so and works again with smaller work. */
static void scratch_obeys_the_limit(void **state)
{
    enum { N = 300 };
    struct ha_backend *backend = open_backend("cpu", 1, 200 << 10);
    static float x[N * N], y[N * N];
    struct ha_matrix a = matrix_of(x, HA_DTYPE_F32, N, N, N);
    struct ha_matrix c = matrix_of(y, HA_DTYPE_F32, N, N, N);
    struct ha_error why;

    (void)state;
    assert_int_equal(
        ha_backend_ops(backend)->gemm(backend, &c, &a, false, &a, false, 1.0f, 0.0f, &why),
        -ENOMEM);
    assert_non_null(strstr(why.text, "scratch"));
    a.rows = a.cols = c.rows = c.cols = 16;
    assert_ok(ha_backend_ops(backend)->gemm(backend, &c, &a, false, &a, false, 1.0f, 0.0f, &err));
    ha_backend_close(backend);
}

static void copies_both_ways(void **state)
{
    struct ha_backend *backend = open_backend("cpu", 1, 0);
    char text[8] = "abcdefg", back[8];
    const void *imported;
    void *memory;

    (void)state;
    assert_ok(ha_backend_alloc(backend, 16, &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, text, 8, &err));
    assert_ok(ha_backend_copy(backend, (char *)memory + 8, memory, 8, &err));
    assert_false(ha_backend_copies_weights(backend));
    assert_int_equal(ha_backend_load_weight(backend, memory, memory, HA_DTYPE_F32, 1, NULL),
                     -ENOTSUP);
    assert_ok(ha_backend_zero(backend, memory, 8, &err));
    assert_ok(ha_backend_download(backend, back, (char *)memory + 8, 8, &err));
    assert_ok(ha_backend_sync(backend, &err));
    assert_string_equal(back, "abcdefg");
    assert_ok(ha_backend_import_host(backend, text, 8, &imported, &err));
    assert_ptr_equal(imported, text);
    ha_backend_release_host(backend, imported);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_and_why),
        cmocka_unit_test(peak_is_measured),
        cmocka_unit_test(quotas_are_read),
        cmocka_unit_test(fingerprint_names_what_bits_depend_on),
        cmocka_unit_test(refuses_what_it_cannot_do),
        cmocka_unit_test(memory_is_counted_and_limited),
        cmocka_unit_test(scratch_obeys_the_limit),
        cmocka_unit_test(copies_both_ways),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
