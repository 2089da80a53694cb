/* Recordings: what is kept and done later has the bits of what is done at once, what cannot be kept
 * is refused by the backend, and by the emulated device beneath it. */
#include "tests/unit/kernels/support.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"

enum { ROWS = 5, WIDTH = 64 };

struct fixture {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    /* (ROWS, WIDTH) of bf16, but for w (WIDTH, WIDTH) */
    void *x, *w, *y, *z;
};

static void *filled(struct ha_backend *backend, int64_t n, uint64_t seed)
{
    struct random random = {seed};
    uint16_t *host = malloc((size_t)n * sizeof(*host));
    float *values = malloc((size_t)n * sizeof(*values));
    void *memory = NULL;

    assert_non_null(host);
    assert_non_null(values);
    random_fill_f32(&random, values, n, 1.0f);
    round_to(HA_DTYPE_BF16, host, values, n);
    assert_ok(ha_backend_alloc(backend, (size_t)n * sizeof(*host), &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, host, (size_t)n * sizeof(*host), &err));
    free(values);
    free(host);
    return memory;
}

static void fixture_open(struct fixture *f)
{
    struct ha_backend_options options = {.name = "cuda"};

    f->backend = NULL;
    assert_ok(ha_backend_open(&options, &f->backend, &err));
    f->ops = ha_backend_ops(f->backend);
    f->x = filled(f->backend, ROWS * WIDTH, 1);
    f->w = filled(f->backend, WIDTH * WIDTH, 2);
    f->y = filled(f->backend, ROWS * WIDTH, 3);
    f->z = filled(f->backend, ROWS * WIDTH, 4);
}

static void fixture_close(struct fixture *f)
{
    void *all[] = {f->x, f->w, f->y, f->z};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ha_backend_free(f->backend, all[i]);
    ha_backend_close(f->backend);
}

static struct ha_matrix view(void *data, int64_t rows)
{
    return (struct ha_matrix){data, HA_DTYPE_BF16, rows, WIDTH, WIDTH};
}

/* y += x w^T; x = swiglu(y, z); the first row of z is copied, the second cleared. */
static int work(struct fixture *f, struct ha_error *err)
{
    struct ha_matrix y = view(f->y, ROWS), x = view(f->x, ROWS), w = view(f->w, WIDTH);
    char *z = f->z;
    int r = f->ops->gemm(f->backend, &y, &x, false, &w, true, 0.25f, 1.0f, err);

    if (r == 0)
        r = f->ops->swiglu_forward(f->backend, f->x, f->y, f->z, ROWS, WIDTH, WIDTH, WIDTH, err);
    if (r == 0)
        r = ha_backend_copy(f->backend, z, f->x, WIDTH * 2, err);
    if (r == 0)
        r = ha_backend_copy_rows(f->backend, z + 2 * WIDTH * 2, WIDTH * 2, f->y, WIDTH * 2,
                                 WIDTH * 2, 2, err);
    if (r == 0)
        r = ha_backend_zero(f->backend, z + WIDTH * 2, WIDTH * 2, err);
    return r;
}

/* The same work over and over, at once and from a recording. */
static void replays_are_the_work(void **state)
{
    enum { TIMES = 4, BYTES = ROWS * WIDTH * 2 };
    char plain[BYTES], replayed[BYTES], none[BYTES];
    struct ha_recording *recording = NULL;
    double flops, bytes;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_ok(work(&f, &err));
    flops = ha_backend_flops(f.backend);
    bytes = ha_backend_bytes_moved(f.backend);
    for (int i = 1; i < TIMES; i++)
        assert_ok(work(&f, &err));
    assert_ok(ha_backend_download(f.backend, plain, f.x, BYTES, &err));
    fixture_close(&f);

    fixture_open(&f);
    assert_true(ha_backend_records(f.backend));
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_download(f.backend, none, f.x, BYTES, &err));
    assert_ok(ha_backend_record_begin(f.backend, &err));
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_record_end(f.backend, &recording, &err));
    assert_ok(ha_backend_download(f.backend, replayed, f.x, BYTES, &err));
    assert_memory_equal(replayed, none, BYTES); /* nothing was done */
    assert_true(ha_backend_flops(f.backend) == flops && ha_backend_bytes_moved(f.backend) == bytes);
    for (int i = 1; i < TIMES; i++)
        assert_ok(ha_backend_replay(f.backend, recording, &err));
    ha_backend_forget(f.backend, recording); /* though it may still run */
    assert_ok(ha_backend_download(f.backend, replayed, f.x, BYTES, &err));
    assert_memory_equal(replayed, plain, BYTES);
    assert_true(ha_backend_flops(f.backend) == TIMES * flops);
    assert_true(ha_backend_bytes_moved(f.backend) == TIMES * bytes);
    fixture_close(&f);
}

/* ---- what cannot be recorded ---- */

static int upload(struct fixture *f, struct ha_error *err)
{
    uint16_t one = 0;

    return ha_backend_upload(f->backend, f->x, &one, sizeof(one), err);
}

static int download(struct fixture *f, struct ha_error *err)
{
    uint16_t one;

    return ha_backend_download(f->backend, &one, f->x, sizeof(one), err);
}

static int wait_for_it(struct fixture *f, struct ha_error *err)
{
    return ha_backend_sync(f->backend, err);
}

static int ask(struct fixture *f, struct ha_error *err)
{
    return ha_backend_poll(f->backend, err);
}

static int fork_off(struct fixture *f, struct ha_error *err)
{
    void *stream;

    return ha_backend_fork(f->backend, &stream, err);
}

static int allocate(struct fixture *f, struct ha_error *err)
{
    void *memory;

    return ha_backend_alloc(f->backend, 1, &memory, err);
}

/* Rows to gather come from the host. */
static int gather(struct fixture *f, struct ha_error *err)
{
    static const int64_t index[] = {2, 1};

    return f->ops->gather_rows(f->backend, f->y, f->x, index, 2, WIDTH, err);
}

/* An operand in another type takes scratch memory where none was taken before. */
static int convert(struct fixture *f, struct ha_error *err)
{
    struct ha_matrix y = view(f->y, 1), x = view(f->x, 1), w = view(f->w, WIDTH / 2);

    w.dtype = HA_DTYPE_F32;
    y.cols = WIDTH / 2;
    return f->ops->gemm(f->backend, &y, &x, false, &w, true, 1.0f, 0.0f, err);
}

static int again(struct fixture *f, struct ha_error *err)
{
    return ha_backend_record_begin(f->backend, err);
}

static void what_cannot_be_recorded_is_refused(void **state)
{
    static int (*const cases[])(struct fixture *, struct ha_error *) = {
        upload, download, wait_for_it, ask, fork_off, allocate, gather, convert, again};
    struct fixture f;
    struct ha_error why;

    (void)state;
    fixture_open(&f);
    assert_ok(work(&f, &err));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_recording *recording = NULL;
        double flops = ha_backend_flops(f.backend);

        assert_ok(ha_backend_record_begin(f.backend, &err));
        assert_ok(work(&f, &err));
        assert_int_equal(cases[i](&f, &why), -EBUSY);
        assert_non_null(strstr(why.text, "cannot be recorded"));
        assert_ok(work(&f, &err));
        assert_int_equal(ha_backend_record_end(f.backend, &recording, &why), -EBUSY);
        assert_null(recording);
        assert_true(ha_backend_flops(f.backend) == flops);
        assert_ok(work(&f, &err));
        if (cases[i] != again)
            assert_ok(cases[i] == allocate ? 0 : cases[i] == ask ? 0 : cases[i](&f, &err));
    }
    assert_ok(ha_backend_record_begin(f.backend, &err));
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_record_end(f.backend, NULL, &err)); /* given up */
    assert_int_equal(ha_backend_record_end(f.backend, NULL, &why), -EINVAL);
    assert_ok(ha_backend_sync(f.backend, &err));
    fixture_close(&f);
}

/* Scratch memory that a recording uses may be replaced by more of it. */
static void moved_memory_is_seen(void **state)
{
    struct ha_recording *recording = NULL;
    struct ha_error why;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_record_begin(f.backend, &err));
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_record_end(f.backend, &recording, &err));
    assert_ok(ha_backend_replay(f.backend, recording, &err));
    assert_ok(convert(&f, &err));
    assert_int_equal(ha_backend_replay(f.backend, recording, &why), -ESTALE);
    ha_backend_forget(f.backend, recording);
    ha_backend_forget(f.backend, NULL);
    assert_ok(work(&f, &err));
    assert_ok(ha_backend_sync(f.backend, &err));
    fixture_close(&f);
}

static void the_cpu_records_nothing(void **state)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_backend *backend = NULL;
    struct ha_error why;

    (void)state;
    assert_ok(ha_backend_open(&options, &backend, &err));
    assert_false(ha_backend_records(backend));
    assert_int_equal(ha_backend_record_begin(backend, &why), -ENOTSUP);
    assert_non_null(strstr(why.text, "cpu"));
    ha_backend_close(backend);
}

/* ---- the emulated device itself ---- */

/* The run time's calls, with its codes, as the module exports them. */
struct calls {
    int (*create)(void **stream, unsigned flags);
    int (*destroy)(void *stream);
    int (*begin)(void *stream, int mode);
    int (*end)(void *stream, void **graph);
    int (*instantiate)(void **exec, void *graph, unsigned long long flags);
    int (*launch)(void *exec, void *stream);
    int (*destroy_graph)(void *graph);
    int (*destroy_exec)(void *exec);
    int (*alloc)(void **memory, size_t bytes);
    int (*release)(void *memory);
    int (*sync)(void *stream);
    int (*query)(void *stream);
    int (*event)(void **event, unsigned flags);
    int (*destroy_event)(void *event);
    int (*record)(void *event, void *stream);
    int (*wait_event)(void *event);
    int (*join)(void *stream, void *event, unsigned flags);
    int (*clear)(void *memory, int value, size_t bytes, void *stream);
};

enum { UNSUPPORTED = 900, INVALIDATED = 901, CAPTURED_EVENT = 907 };

static void find(void *module, const char *name, void *slot)
{
    void *symbol = dlsym(module, name);

    if (!symbol)
        fail_msg("the emulated device has no %s", name);
    memcpy(slot, &symbol, sizeof(symbol));
}

static void find_calls(void *module, struct calls *c)
{
    find(module, "cudaStreamCreateWithFlags", &c->create);
    find(module, "cudaStreamDestroy", &c->destroy);
    find(module, "cudaStreamBeginCapture", &c->begin);
    find(module, "cudaStreamEndCapture", &c->end);
    find(module, "cudaGraphInstantiateWithFlags", &c->instantiate);
    find(module, "cudaGraphLaunch", &c->launch);
    find(module, "cudaGraphDestroy", &c->destroy_graph);
    find(module, "cudaGraphExecDestroy", &c->destroy_exec);
    find(module, "cudaMalloc", &c->alloc);
    find(module, "cudaFree", &c->release);
    find(module, "cudaStreamSynchronize", &c->sync);
    find(module, "cudaStreamQuery", &c->query);
    find(module, "cudaEventCreateWithFlags", &c->event);
    find(module, "cudaEventDestroy", &c->destroy_event);
    find(module, "cudaEventRecord", &c->record);
    find(module, "cudaEventSynchronize", &c->wait_event);
    find(module, "cudaStreamWaitEvent", &c->join);
    find(module, "cudaMemsetAsync", &c->clear);
}

static bool is_emulated(void)
{
    struct ha_backend_options options = {.name = "cuda"};
    struct ha_backend *backend = NULL;
    bool emulated;

    assert_ok(ha_backend_open(&options, &backend, &err));
    emulated = strstr(ha_backend_description(backend), "emulated on the CPU") != NULL;
    ha_backend_close(backend);
    return emulated;
}

/* Each call that CUDA does not allow in a capture has its error and makes the capture void, though
 * the backend would never make it. */
static void the_emulated_device_is_as_strict(void **state)
{
    void *module = dlopen(getenv("HA_CUDA_MODULE"), RTLD_NOW | RTLD_LOCAL);
    void *stream, *second, *graph, *exec, *memory, *other, *event;
    struct calls c;

    (void)state;
    assert_non_null(module);
    if (!is_emulated()) {
        assert_int_equal(dlclose(module), 0);
        skip();
    }
    find_calls(module, &c);
    assert_int_equal(
        c.create(&stream, 0) | c.create(&second, 0) | c.alloc(&memory, 64) | c.event(&event, 0), 0);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(c.begin(stream, 1), 0);
        assert_int_equal(c.clear(memory, 0, 64, stream), 0);
        switch (i) {
        case 0:
            assert_int_equal(c.sync(stream), UNSUPPORTED);
            break;
        case 1:
            assert_int_equal(c.query(stream), UNSUPPORTED);
            break;
        case 2:
            assert_int_equal(c.alloc(&other, 64), UNSUPPORTED);
            break;
        case 3:
            assert_int_equal(c.release(memory), UNSUPPORTED);
            break;
        case 4:
            assert_int_equal(c.record(event, stream), 0);
            assert_int_equal(c.wait_event(event), CAPTURED_EVENT);
            break;
        case 5:
            assert_int_equal(c.record(event, stream), 0);
            assert_int_equal(c.join(second, event, 0), UNSUPPORTED);
            break;
        default: /* all right */
            break;
        }
        assert_int_equal(c.end(stream, &graph), i < 6 ? INVALIDATED : 0);
        assert_true(i < 6 ? !graph : graph != NULL);
        assert_int_equal(c.sync(stream), 0);
    }
    assert_int_equal(c.instantiate(&exec, graph, 0), 0);
    assert_int_equal(c.destroy_graph(graph), 0);
    assert_int_equal(c.launch(exec, second), 0);
    assert_int_equal(c.destroy_exec(exec), 0);
    assert_int_equal(c.sync(second), 0);
    assert_int_equal(c.release(memory), 0);
    assert_int_equal(c.destroy_event(event) | c.destroy(stream) | c.destroy(second), 0);
    assert_int_equal(dlclose(module), 0);
}

int main(void)
{
    const struct CMUnitTest here[] = {cmocka_unit_test(the_cpu_records_nothing)};
    const struct CMUnitTest there[] = {cmocka_unit_test(replays_are_the_work),
                                       cmocka_unit_test(what_cannot_be_recorded_is_refused),
                                       cmocka_unit_test(moved_memory_is_seen),
                                       cmocka_unit_test(the_emulated_device_is_as_strict)};

    if (getenv("HA_CUDA_MODULE"))
        return cmocka_run_group_tests(there, NULL, NULL);
    return cmocka_run_group_tests(here, NULL, NULL);
}
