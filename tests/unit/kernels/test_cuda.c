/* What stands under the operations of the CUDA backend: memory, copies, arguments, faults, the
 * choice of algorithms.  On a GPU, or on the emulated device, which does work as late as it may. */
#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"

static struct ha_backend *open_device(int64_t limit)
{
    struct ha_backend_options options = {"cuda", 0, 0, limit};
    struct ha_backend *backend = NULL;

    assert_ok(ha_backend_open(&options, &backend, &err));
    return backend;
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 2654435761u >> 29); /* differs from one buffer to the next */
}

static void says_what_it_is(void **state)
{
    struct ha_backend *backend = open_device(0);

    (void)state;
    assert_string_equal(ha_backend_name(backend), "cuda");
    assert_non_null(strstr(ha_backend_description(backend), "cuda: GPU 0, "));
    assert_non_null(strstr(ha_backend_fingerprint(backend), "cuda kernels "));
    assert_non_null(strstr(ha_backend_fingerprint(backend), " sm_"));
    assert_int_equal(ha_backend_activation_dtype(backend), HA_DTYPE_BF16);
    ha_backend_close(backend);
}

static void other_devices_are_refused(void **state)
{
    struct ha_backend_options options = {"cuda", 0, 1000, 0};
    struct ha_backend *backend = NULL;
    struct ha_error why;

    (void)state;
    assert_int_equal(ha_backend_open(&options, &backend, &why), -ENODEV);
    assert_non_null(strstr(why.text, "GPU 1000 asked for"));
    options.device = 0;
    assert_int_equal(setenv("HA_GPU_MEMORY_LIMIT", "much", 1), 0);
    assert_int_equal(ha_backend_open(&options, &backend, &why), -EINVAL);
    assert_int_equal(unsetenv("HA_GPU_MEMORY_LIMIT"), 0);
    assert_null(backend);
}

/* "auto" takes a device where there is one, and says which and why. */
static void auto_takes_the_device(void **state)
{
    struct ha_backend_options options = {"auto", 1, 0, 0};
    struct ha_backend *backend = NULL;

    (void)state;
    assert_ok(ha_backend_open(&options, &backend, &err));
    assert_string_equal(ha_backend_name(backend), "cuda");
    assert_non_null(strstr(ha_backend_description(backend), "module, driver and device found"));
    ha_backend_close(backend);
}

/* Sizes around the pinned buffers and past the number of threads; the host's memory is used
 * again at once. */
static void bytes_come_back(void **state)
{
    static const size_t sizes[] = {
        1, 255, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, (31 << 20) + 5, ((size_t)75 << 20) + 3};
    struct ha_backend *backend = open_device(0);

    (void)state;
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++)
        for (int imported = 0; imported < 2; imported++) {
            size_t n = sizes[k];
            uint8_t *host = malloc(n);
            const void *memory = NULL;
            void *allocated = NULL;

            assert_non_null(host);
            for (size_t i = 0; i < n; i++)
                host[i] = byte_at(i + k);
            if (imported) {
                assert_ok(ha_backend_import_host(backend, host, n, &memory, &err));
            } else {
                assert_ok(ha_backend_alloc(backend, n, &allocated, &err));
                assert_ok(ha_backend_upload(backend, allocated, host, n, &err));
                memory = allocated;
            }
            memset(host, 0, n);
            assert_ok(ha_backend_download(backend, host, memory, n, &err));
            for (size_t i = 0; i < n; i++)
                if (host[i] != byte_at(i + k))
                    fail_msg("byte %zu of %zu is wrong", i, n);
            if (imported)
                ha_backend_release_host(backend, memory);
            else
                ha_backend_free(backend, allocated);
            free(host);
        }
    ha_backend_close(backend);
}

/* Weights of any type lie on the device as bf16, rounded as files are; more than one piece of
 * the conversion. */
static void weights_become_bf16(void **state)
{
    static const enum ha_dtype types[] = {HA_DTYPE_F32, HA_DTYPE_F16, HA_DTYPE_BF16};
    enum { N = (17 << 20) + 5 };
    struct ha_backend *backend = open_device(0);
    uint16_t *got = malloc(N * sizeof(*got));
    uint32_t *host = malloc(N * sizeof(*host));

    (void)state;
    assert_true(got && host);
    for (int k = 0; k < 3; k++) {
        int64_t n = types[k] == HA_DTYPE_F32 ? N : 1 << 16;
        int64_t before = ha_backend_allocated_bytes(backend);
        enum ha_dtype dtype = HA_DTYPE_F32;
        const void *memory;

        for (int64_t i = 0; i < n; i++) {
            if (types[k] == HA_DTYPE_F32) /* no NaN, whose bits may change */
                host[i] = (uint32_t)(i * 2654435761u) & 0xbfffffffu;
            else
                ((uint16_t *)host)[i] = (uint16_t)i;
        }
        assert_ok(ha_backend_import_weight(backend, host, types[k], n, &memory, &dtype, &err));
        assert_int_equal(dtype, HA_DTYPE_BF16);
        assert_true(ha_backend_allocated_bytes(backend) - before <= 2 * n + (64 << 20));
        assert_ok(ha_backend_download(backend, got, memory, (size_t)n * 2, &err));
        for (int64_t i = 0; i < n; i++) {
            uint16_t half = ((uint16_t *)host)[i];
            float value = ha_half_from_f16(half);
            uint16_t want;

            if (types[k] == HA_DTYPE_F32)
                memcpy(&value, &host[i], sizeof(value));
            want = types[k] == HA_DTYPE_BF16 ? half : ha_half_to_bf16(value);
            if ((want & 0x7fff) > 0x7f80 ? (got[i] & 0x7fff) <= 0x7f80 : got[i] != want)
                fail_msg("%s %lld is %04x, expected %04x", ha_dtype_name(types[k]), (long long)i,
                         got[i], want);
        }
        ha_backend_release_host(backend, memory);
    }
    free(got);
    free(host);
    ha_backend_close(backend);
}

static void copies_and_zeroes(void **state)
{
    struct ha_backend *backend = open_device(0);
    char text[8] = "abcdefg", back[8];
    const void *nothing;
    void *memory;

    (void)state;
    assert_ok(ha_backend_alloc(backend, 16, &memory, &err));
    assert_int_equal((uintptr_t)memory % 256, 0);
    assert_ok(ha_backend_download(backend, back, (char *)memory + 8, 8, &err));
    for (int i = 0; i < 8; i++)
        assert_int_equal(back[i], 0);
    assert_ok(ha_backend_upload(backend, memory, text, 8, &err));
    assert_ok(ha_backend_copy(backend, (char *)memory + 8, memory, 8, &err));
    assert_ok(ha_backend_zero(backend, memory, 8, &err));
    assert_ok(ha_backend_download(backend, back, (char *)memory + 8, 8, &err));
    assert_string_equal(back, "abcdefg");
    assert_ok(ha_backend_download(backend, back, memory, 8, &err));
    assert_int_equal(back[0], 0);
    assert_ok(ha_backend_import_host(backend, text, 0, &nothing, &err));
    ha_backend_release_host(backend, nothing);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

/* Two columns of a 4 x 3 table of letters into one of rows of two, and back into rows of four; what
 * lies between stays. */
static void rows_are_copied(void **state)
{
    static const char table[] = "abcdefghijkl", want[] = "bc..ef..hi..kl..";
    struct ha_backend *backend = open_device(0);
    char back[16] = "................";
    void *memory;
    char *narrow, *wide;

    (void)state;
    assert_ok(ha_backend_alloc(backend, 64, &memory, &err));
    narrow = (char *)memory + 16;
    wide = (char *)memory + 32;
    assert_ok(ha_backend_upload(backend, memory, table, 12, &err));
    assert_ok(ha_backend_upload(backend, wide, back, 16, &err));
    assert_ok(ha_backend_copy_rows(backend, narrow, 2, (char *)memory + 1, 3, 2, 4, &err));
    assert_ok(ha_backend_copy_rows(backend, wide, 4, narrow, 2, 2, 4, &err));
    assert_ok(ha_backend_copy_rows(backend, wide, 4, narrow, 2, 0, 4, &err));
    assert_ok(ha_backend_copy_rows(backend, wide, 4, narrow, 2, 2, 0, &err));
    assert_ok(ha_backend_download(backend, back, narrow, 8, &err));
    assert_memory_equal(back, "bcefhikl", 8);
    assert_ok(ha_backend_download(backend, back, wide, 16, &err));
    assert_memory_equal(back, want, 16);
    assert_ok(ha_backend_zero_rows(backend, wide + 1, 4, 2, 3, &err));
    assert_ok(ha_backend_zero_rows(backend, wide, 4, 0, 3, &err));
    assert_ok(ha_backend_download(backend, back, wide, 16, &err));
    assert_memory_equal(back, "b\0\0.e\0\0.h\0\0.kl..", 16);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

/* Weights of several types side by side in one block, from bytes of any alignment. */
static void weights_are_loaded_side_by_side(void **state)
{
    static const enum ha_dtype types[] = {HA_DTYPE_BF16, HA_DTYPE_F32, HA_DTYPE_F16};
    static const float values[] = {1.5f, -2.0f, 0.25f};
    struct ha_backend *backend = open_device(0);
    unsigned char host[16];
    uint16_t back[9];
    void *memory;
    int64_t held;

    (void)state;
    assert_true(ha_backend_copies_weights(backend));
    assert_ok(ha_backend_alloc(backend, sizeof(back), &memory, &err));
    held = ha_backend_allocated_bytes(backend);
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 3; i++) {
            uint16_t half = k ? ha_half_to_f16(values[i]) : ha_half_to_bf16(values[i]);

            if (types[k] == HA_DTYPE_F32)
                memcpy(host + 1 + 4 * i, &values[i], 4);
            else
                memcpy(host + 1 + 2 * i, &half, 2);
        }
        assert_ok(ha_backend_load_weight(backend, (uint16_t *)memory + 3 * k, host + 1, types[k], 3,
                                         &err));
    }
    assert_int_equal(ha_backend_allocated_bytes(backend), held);
    assert_ok(ha_backend_download(backend, back, memory, sizeof(back), &err));
    for (int i = 0; i < 9; i++)
        assert_int_equal(back[i], ha_half_to_bf16(values[i % 3]));
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

/* Rows with room behind them that is left as it is. */
static void weights_are_loaded_with_room(void **state)
{
    static const enum ha_dtype types[] = {HA_DTYPE_BF16, HA_DTYPE_F32};
    enum { ROWS = 5, COLS = 3, STRIDE = 4 };
    struct ha_backend *backend = open_device(0);
    uint16_t half[ROWS * COLS], back[ROWS * STRIDE];
    float whole[ROWS * COLS];
    void *memory;
    int64_t held;

    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) {
        whole[i] = (float)i - 4.5f;
        half[i] = ha_half_to_bf16(whole[i]);
    }
    assert_ok(ha_backend_alloc(backend, sizeof(back), &memory, &err));
    held = ha_backend_allocated_bytes(backend);
    for (int k = 0; k < 2; k++) {
        memset(back, 0x11, sizeof(back));
        assert_ok(ha_backend_upload(backend, memory, back, sizeof(back), &err));
        assert_ok(ha_backend_load_weight_rows(
            backend, memory, STRIDE, k ? (const void *)whole : half, types[k], ROWS, COLS, &err));
        assert_int_equal(ha_backend_allocated_bytes(backend), held);
        assert_ok(ha_backend_download(backend, back, memory, sizeof(back), &err));
        for (int i = 0; i < ROWS * STRIDE; i++)
            assert_int_equal(back[i],
                             i % STRIDE < COLS ? half[i / STRIDE * COLS + i % STRIDE] : 0x1111);
    }
    assert_int_equal(ha_backend_load_weight_rows(backend, memory, COLS - 1, half, HA_DTYPE_BF16,
                                                 ROWS, COLS, NULL),
                     -EINVAL);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

/* Weights, activations and scratch all count; what does not fit is refused, and what was there
 * before goes on. */
static void memory_is_counted_and_limited(void **state)
{
    struct ha_backend *backend = open_device((int64_t)64 << 20);
    int64_t own = ha_backend_allocated_bytes(backend), room = ((int64_t)64 << 20) - own;
    const void *imported;
    void *first, *second, *host = calloc(1, 1 << 20);
    struct ha_error why;

    (void)state;
    assert_non_null(host);
    assert_true(own >= 32 << 20 && room > 4 << 20);
    assert_ok(ha_backend_alloc(backend, (size_t)room - (1 << 20), &first, &err));
    assert_ok(ha_backend_import_host(backend, host, 1 << 20, &imported, &err));
    assert_int_equal(ha_backend_allocated_bytes(backend), (int64_t)64 << 20);
    assert_int_equal(ha_backend_alloc(backend, 1, &second, &why), -ENOMEM);
    assert_non_null(strstr(why.text, "67108864"));
    assert_int_equal(ha_backend_import_host(backend, host, 1, &imported, &why), -ENOMEM);
    ha_backend_release_host(backend, imported);
    assert_int_equal(ha_backend_allocated_bytes(backend), (int64_t)63 << 20);
    ha_backend_free(backend, first);
    assert_int_equal(ha_backend_allocated_bytes(backend), own);
    assert_int_equal(ha_backend_peak_bytes(backend), (int64_t)64 << 20);
    assert_int_equal(ha_backend_alloc(backend, SIZE_MAX, &first, &why), -ENOMEM);
    ha_backend_close(backend);
    assert_int_equal(setenv("HA_GPU_MEMORY_LIMIT", "40M", 1), 0);
    backend = open_device((int64_t)1 << 30);
    assert_int_equal(ha_backend_alloc(backend, 8 << 20, &first, &why), -ENOMEM);
    assert_non_null(strstr(why.text, "41943040"));
    ha_backend_close(backend);
    assert_int_equal(setenv("HA_GPU_MEMORY_LIMIT", "1M", 1), 0);
    assert_int_equal(ha_backend_open(&(struct ha_backend_options){"cuda", 0, 0, 0}, &backend, &why),
                     -ENOMEM);
    assert_int_equal(unsetenv("HA_GPU_MEMORY_LIMIT"), 0);
    free(host);
}

/* A device that is full is not broken. */
static void a_full_device_says_so(void **state)
{
    struct ha_backend *backend = open_device(0);
    void *memory;
    struct ha_error why;

    (void)state;
    assert_int_equal(ha_backend_alloc(backend, (size_t)1 << 45, &memory, &why), -ENOMEM);
    assert_non_null(strstr(why.text, "35184372088832"));
    assert_ok(ha_backend_alloc(backend, 1 << 20, &memory, &err));
    assert_ok(ha_backend_sync(backend, &err));
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

static void *to_device(struct ha_backend *backend, const void *host, size_t bytes)
{
    void *memory;

    assert_ok(ha_backend_alloc(backend, bytes, &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, host, bytes, &err));
    return memory;
}

/* Calls that follow each other without waiting, each with host arguments that are overwritten at
 * once: more than the ring holds, and one call of more than a part of it. */
static void arguments_are_kept(void **state)
{
    enum { CALLS = 60, ROWS = 8000, MANY = 40000 };
    struct ha_backend *backend = open_device(0);
    const struct ha_ops *ops = ha_backend_ops(backend);
    uint16_t *x = malloc(65536 * 2), *got = malloc(MANY * 2);
    int64_t *index = malloc(MANY * sizeof(*index));
    void *device_x, *out[CALLS], *many;

    (void)state;
    assert_true(x && got && index);
    for (int i = 0; i < 65536; i++)
        x[i] = (uint16_t)(i % 32768); /* any number but a NaN comes back as it is */
    device_x = to_device(backend, x, 65536 * 2);
    assert_ok(ha_backend_alloc(backend, MANY * 2, &many, &err));
    for (int call = 0; call < CALLS; call++) {
        assert_ok(ha_backend_alloc(backend, ROWS * 2, &out[call], &err));
        for (int i = 0; i < ROWS; i++)
            index[i] = (i * 31 + call * 97) % 30000;
        assert_ok(ops->gather_rows(backend, out[call], device_x, index, ROWS, 1, &err));
        memset(index, 0x7f, MANY * sizeof(*index));
    }
    for (int i = 0; i < MANY; i++)
        index[i] = (i * 7) % 30000;
    assert_ok(ops->gather_rows(backend, many, device_x, index, MANY, 1, &err));
    memset(index, 0x7f, MANY * sizeof(*index));
    for (int call = 0; call < CALLS; call++) {
        assert_ok(ha_backend_download(backend, got, out[call], ROWS * 2, &err));
        for (int i = 0; i < ROWS; i++)
            assert_int_equal(got[i], (i * 31 + call * 97) % 30000);
        ha_backend_free(backend, out[call]);
    }
    assert_ok(ha_backend_download(backend, got, many, MANY * 2, &err));
    for (int i = 0; i < MANY; i++)
        assert_int_equal(got[i], (i * 7) % 30000);
    ha_backend_free(backend, many);
    ha_backend_free(backend, device_x);
    free(x);
    free(got);
    free(index);
    ha_backend_close(backend);
}

/* Told once, when the host next waits; the device goes on. */
static void a_bad_id_is_told_once(void **state)
{
    struct ha_backend *backend = open_device(0);
    uint16_t values[8] = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100};
    int32_t ids[3] = {1, -7, 0}, good[3] = {1, 0, 1};
    uint16_t got[12];
    struct ha_matrix table = {to_device(backend, values, sizeof(values)), HA_DTYPE_BF16, 2, 4, 4};
    void *device_ids = to_device(backend, ids, sizeof(ids));
    void *device_good = to_device(backend, good, sizeof(good)), *out;
    struct ha_error why;

    (void)state;
    assert_ok(ha_backend_alloc(backend, sizeof(got), &out, &err));
    assert_ok(ha_backend_ops(backend)->embed_forward(backend, out, &table, device_ids, 3, &err));
    assert_int_equal(ha_backend_sync(backend, &why), -EINVAL);
    assert_non_null(strstr(why.text, "token 1 has id -7"));
    assert_ok(ha_backend_sync(backend, &err));
    assert_ok(ha_backend_download(backend, got, out, sizeof(got), &err));
    assert_int_equal(got[0], 0x40a0);
    assert_int_equal(got[8], 0x3f80);
    assert_true((got[4] & 0x7fff) > 0x7f80); /* NaN stands for the row */
    assert_ok(ha_backend_ops(backend)->embed_forward(backend, out, &table, device_good, 3, &err));
    assert_ok(ha_backend_download(backend, got, out, sizeof(got), &err));
    assert_int_equal(got[4], 0x3f80);
    ha_backend_free(backend, table.data);
    ha_backend_free(backend, device_ids);
    ha_backend_free(backend, device_good);
    ha_backend_free(backend, out);
    ha_backend_close(backend);
}

/* An operation whose scratch does not fit says so and works again with smaller work. */
static void scratch_obeys_the_limit(void **state)
{
    enum { N = 2048 };
    struct ha_backend *backend = open_device((int64_t)64 << 20);
    void *a, *b, *c;
    struct ha_matrix wide, half, out;
    struct ha_error why;

    (void)state;
    assert_ok(ha_backend_alloc(backend, (size_t)N * N * 4, &a, &err));
    assert_ok(ha_backend_alloc(backend, 16 * N * 2, &b, &err));
    assert_ok(ha_backend_alloc(backend, 16 * N * 4, &c, &err));
    wide = matrix_of(a, HA_DTYPE_F32, N, N, N);
    half = matrix_of(b, HA_DTYPE_BF16, 16, N, N);
    out = matrix_of(c, HA_DTYPE_F32, 16, N, N);
    {
        void *filler;
        int64_t left = ((int64_t)64 << 20) - ha_backend_allocated_bytes(backend) - (4 << 20);

        assert_ok(ha_backend_alloc(backend, (size_t)left, &filler, &err));
        assert_int_equal(ha_backend_ops(backend)->gemm(backend, &out, &half, false, &wide, true,
                                                       1.0f, 0.0f, &why),
                         -ENOMEM);
        assert_non_null(strstr(why.text, "scratch"));
        wide.rows = out.cols = 256;
        assert_ok(ha_backend_ops(backend)->gemm(backend, &out, &half, false, &wide, true, 1.0f,
                                                0.0f, &err));
        assert_ok(ha_backend_sync(backend, &err));
        ha_backend_free(backend, filler);
    }
    ha_backend_free(backend, a);
    ha_backend_free(backend, b);
    ha_backend_free(backend, c);
    ha_backend_close(backend);
}

enum { EDGE = 96 };

/* One product of fixed operands; accumulate: added to ones. */
static void multiply(struct ha_backend *backend, float got[EDGE * EDGE], bool accumulate)
{
    static uint16_t values[EDGE * EDGE];
    static float ones[EDGE * EDGE];
    struct random random = {61};
    void *a, *c;
    struct ha_matrix in, out;

    for (int i = 0; i < EDGE * EDGE; i++) {
        values[i] = ha_half_to_bf16(random_uniform(&random));
        ones[i] = 1.0f;
    }
    a = to_device(backend, values, sizeof(values));
    c = to_device(backend, ones, sizeof(ones));
    in = matrix_of(a, HA_DTYPE_BF16, EDGE, EDGE, EDGE);
    out = matrix_of(c, HA_DTYPE_F32, EDGE, EDGE, EDGE);
    assert_ok(ha_backend_ops(backend)->gemm(backend, &out, &in, false, &in, true, 1.0f,
                                            accumulate ? 1.0f : 0.0f, &err));
    assert_ok(ha_backend_download(backend, got, c, sizeof(ones), &err));
    ha_backend_free(backend, a);
    ha_backend_free(backend, c);
}

/* Timing does not touch what is added to; its choices make another backend compute the same
 * bits; a choice made without the clock is the same in every run. */
static void choices_travel(void **state)
{
    static float suggested[2][EDGE * EDGE], timed[2][EDGE * EDGE], again[2][EDGE * EDGE];
    struct ha_backend *backend = open_device(0);
    char untimed[512], fingerprint[512];
    void *blob, *other;
    size_t bytes, other_bytes;
    int64_t held;
    struct ha_error why;

    (void)state;
    snprintf(untimed, sizeof(untimed), "%s", ha_backend_fingerprint(backend));
    for (int i = 0; i < 2; i++)
        multiply(backend, suggested[i], i);
    ha_backend_close(backend);
    backend = open_device(0);
    for (int i = 0; i < 2; i++)
        multiply(backend, again[i], i);
    assert_memory_equal(suggested, again, sizeof(again));
    ha_backend_close(backend);

    backend = open_device(0);
    held = ha_backend_allocated_bytes(backend);
    ha_backend_time_choices(backend, true);
    for (int i = 0; i < 2; i++)
        multiply(backend, timed[i], i);
    for (int i = 0; i < EDGE * EDGE; i++) {
        assert_true(timed[0][i] - suggested[0][i] < 1e-4f && suggested[0][i] - timed[0][i] < 1e-4f);
        assert_true(timed[1][i] - suggested[1][i] < 1e-4f && suggested[1][i] - timed[1][i] < 1e-4f);
    }
    assert_int_equal(ha_backend_allocated_bytes(backend), held);
    ha_backend_time_choices(backend, false);
    assert_ok(ha_backend_export_choices(backend, &blob, &bytes, &err));
    snprintf(fingerprint, sizeof(fingerprint), "%s", ha_backend_fingerprint(backend));
    assert_true(strncmp(fingerprint, untimed, strlen(untimed)) == 0);
    assert_non_null(strstr(fingerprint, ", products "));
    ha_backend_close(backend);

    backend = open_device(0);
    assert_string_equal(ha_backend_fingerprint(backend), untimed);
    assert_ok(ha_backend_import_choices(backend, blob, bytes, &err));
    assert_string_equal(ha_backend_fingerprint(backend), fingerprint);
    for (int i = 0; i < 2; i++)
        multiply(backend, again[i], i);
    assert_memory_equal(timed, again, sizeof(again));
    assert_ok(ha_backend_export_choices(backend, &other, &other_bytes, &err));
    assert_int_equal(bytes, other_bytes);
    assert_memory_equal(blob, other, bytes);
    ((uint8_t *)blob)[bytes / 2] ^= 1;
    assert_int_equal(ha_backend_import_choices(backend, blob, bytes, &why), -EINVAL);

    /* Renewed, it is as one that was just opened. */
    assert_true(ha_backend_flops(backend) > 0);
    assert_true(ha_backend_peak_bytes(backend) > held);
    assert_ok(ha_backend_renew(backend, &err));
    assert_string_equal(ha_backend_fingerprint(backend), untimed);
    assert_int_equal(ha_backend_allocated_bytes(backend), held);
    assert_int_equal(ha_backend_peak_bytes(backend), held);
    assert_true(ha_backend_flops(backend) == 0);
    for (int i = 0; i < 2; i++)
        multiply(backend, again[i], i);
    assert_memory_equal(suggested, again, sizeof(again));
    ha_backend_close(backend);
    free(blob);
    free(other);
}

/* Asked, the device says that it is not done yet, until it is: nothing waits for it. */
static void says_when_it_is_done(void **state)
{
    struct ha_backend *backend = open_device(0);
    char host[64] = {1};
    void *memory;
    int r, asked = 0;

    (void)state;
    assert_ok(ha_backend_alloc(backend, sizeof(host), &memory, &err));
    for (int i = 0; i < 20; i++)
        assert_ok(ha_backend_zero(backend, memory, sizeof(host), &err));
    assert_non_null(ha_backend_stream(backend));
    while ((r = ha_backend_poll(backend, NULL)) == -EINPROGRESS)
        asked++;
    assert_int_equal(r, 0);
    if (getenv("HA_CUDA_MODULE")) /* which gets one piece further each time */
        assert_true(asked >= 20);
    assert_int_equal(ha_backend_poll(backend, NULL), 0);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

/* What is put on the second stream comes after what the first was given. */
static void a_second_stream(void **state)
{
    struct ha_backend *backend = open_device(0);
    char host[64] = {1}, got[64];
    void *memory, *stream = NULL, *again = NULL;
    int r, asked = 0;

    (void)state;
    assert_int_equal(ha_backend_poll_fork(backend, NULL), 0);
    assert_ok(ha_backend_alloc(backend, sizeof(host), &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, host, sizeof(host), &err));
    for (int i = 0; i < 20; i++)
        assert_ok(ha_backend_zero(backend, memory, sizeof(host), &err));
    assert_ok(ha_backend_fork(backend, &stream, &err));
    assert_non_null(stream);
    assert_ptr_not_equal(stream, ha_backend_stream(backend));
    while ((r = ha_backend_poll_fork(backend, NULL)) == -EINPROGRESS)
        asked++;
    assert_int_equal(r, 0);
    if (getenv("HA_CUDA_MODULE"))
        assert_true(asked >= 20);
    /* It is one stream, however often it is asked for, and the first goes on. */
    assert_ok(ha_backend_fork(backend, &again, &err));
    assert_ptr_equal(again, stream);
    assert_ok(ha_backend_download(backend, got, memory, sizeof(got), &err));
    assert_ok(ha_backend_sync(backend, &err));
    assert_int_equal(got[0], 0);
    ha_backend_free(backend, memory);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        device_only(says_what_it_is),
        device_only(other_devices_are_refused),
        device_only(auto_takes_the_device),
        device_only(bytes_come_back),
        device_only(weights_become_bf16),
        device_only(copies_and_zeroes),
        device_only(rows_are_copied),
        device_only(weights_are_loaded_side_by_side),
        device_only(weights_are_loaded_with_room),
        device_only(memory_is_counted_and_limited),
        device_only(a_full_device_says_so),
        device_only(arguments_are_kept),
        device_only(a_bad_id_is_told_once),
        device_only(scratch_obeys_the_limit),
        device_only(choices_travel),
        device_only(says_when_it_is_done),
        device_only(a_second_stream),
    };

    return run_kernel_tests(tests);
}
