#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cpu/cores.h"

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "GCC " __VERSION__
#endif

enum { ALIGNMENT = 256, MAX_THREADS = 1024, PARALLEL_MIN = 1 << 23 };
enum { ROW_TILE = 16384 }; /* elements */

/* Sits in the ALIGNMENT bytes before each allocation. */
struct block {
    void *memory; /* what calloc gave */
    size_t bytes; /* what the caller asked for */
};

static struct block *block_of(void *memory)
{
    return (struct block *)(void *)((char *)memory - ALIGNMENT);
}

/* calloc rather than aligned_alloc and memset: large blocks come from the system
 * as zero pages and cost nothing until they are touched. */
static int cpu_alloc(struct ha_backend *backend, size_t bytes, void **ret_memory,
                     struct ha_error *err)
{
    char *memory, *aligned;

    (void)backend;
    memory = bytes <= PTRDIFF_MAX - 2 * ALIGNMENT ? calloc(1, bytes + 2 * ALIGNMENT) : NULL;
    if (!memory)
        return ha_error_set(err, ENOMEM,
                            "%zu bytes wanted, the system has no memory left (%lld held)", bytes,
                            (long long)backend->allocated_bytes);
    aligned = memory + 2 * ALIGNMENT - (uintptr_t)memory % ALIGNMENT;
    block_of(aligned)->memory = memory;
    block_of(aligned)->bytes = bytes;
    *ret_memory = aligned;
    return 0;
}

static size_t cpu_free(struct ha_backend *backend, void *memory)
{
    struct block block = *block_of(memory);

    (void)backend;
    free(block.memory);
    return block.bytes;
}

static int cpu_import_host(struct ha_backend *backend, const void *host, size_t bytes,
                           const void **ret_memory, struct ha_error *err)
{
    (void)backend;
    (void)bytes;
    (void)err;
    *ret_memory = host;
    return 0;
}

static void cpu_release_host(struct ha_backend *backend, const void *memory)
{
    (void)backend;
    (void)memory;
}

static int cpu_copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                    struct ha_error *err)
{
    (void)backend;
    (void)err;
    memmove(to, from, bytes);
    return 0;
}

static int cpu_copy_rows(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                         size_t from_stride, size_t row_bytes, int64_t n_rows, struct ha_error *err)
{
    (void)backend;
    (void)err;
    for (size_t i = 0; i < (size_t)n_rows; i++)
        memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, row_bytes);
    return 0;
}

static int cpu_zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err)
{
    (void)backend;
    (void)err;
    memset(memory, 0, bytes);
    return 0;
}

static int cpu_zero_rows(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                         int64_t n_rows, struct ha_error *err)
{
    (void)backend;
    (void)err;
    for (size_t i = 0; i < (size_t)n_rows; i++)
        memset((char *)memory + i * stride, 0, row_bytes);
    return 0;
}

static int cpu_sync(struct ha_backend *backend, struct ha_error *err)
{
    (void)backend;
    (void)err;
    return 0;
}

static void cpu_close(struct ha_backend *backend)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    ha_pool_destroy(cpu->pool);
    free(cpu->shared);
    free(cpu->per_thread);
    free(cpu->work);
    free(cpu);
}

static const struct ha_backend_table table = {
    .name = "cpu",
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .import_host = cpu_import_host,
    .release_host = cpu_release_host,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .copy_rows = cpu_copy_rows,
    .zero = cpu_zero,
    .zero_rows = cpu_zero_rows,
    .sync = cpu_sync,
};

static const struct ha_ops ops = {
    .gemm = ha_cpu_op_gemm,
    .add_bias = ha_cpu_op_add_bias,
    .embed_forward = ha_cpu_op_embed_forward,
    .rmsnorm_forward = ha_cpu_op_rmsnorm_forward,
    .rmsnorm_backward = ha_cpu_op_rmsnorm_backward,
    .rope = ha_cpu_op_rope,
    .attention_forward = ha_cpu_op_attention_forward,
    .attention_backward = ha_cpu_op_attention_backward,
    .swiglu_forward = ha_cpu_op_swiglu_forward,
    .swiglu_backward = ha_cpu_op_swiglu_backward,
    .dropout = ha_cpu_op_dropout,
    .lora_columns = ha_cpu_op_lora_columns,
    .gather_rows = ha_cpu_op_gather_rows,
    .scatter_rows_add = ha_cpu_op_scatter_rows_add,
    .head = ha_cpu_op_head,
    .logits = ha_cpu_op_logits,
    .kv_append = ha_cpu_op_kv_append,
    .decode_attention = ha_cpu_op_decode_attention,
    .sample = ha_cpu_op_sample,
    .sum_of_squares = ha_cpu_op_sum_of_squares,
    .add = ha_cpu_op_add,
    .adamw = ha_cpu_op_adamw,
};

static int grow_scratch(struct ha_cpu *cpu, char **memory, size_t *held, size_t wanted,
                        int64_t copies, struct ha_error *err)
{
    size_t rounded = (size_t)ha_cpu_scratch_rounded((int64_t)wanted);
    char *grown;
    int rc;

    if (wanted <= *held)
        return 0;
    free(*memory);
    *memory = NULL;
    ha_backend_unreserve(&cpu->base, *held * (size_t)copies);
    *held = 0;
    rc = ha_backend_reserve(&cpu->base, rounded * (size_t)copies, err);
    if (rc < 0)
        return ha_error_prefix(err, "scratch memory");
    grown = aligned_alloc(HA_CPU_SCRATCH_PAGE, rounded * (size_t)copies);
    if (!grown) {
        ha_backend_unreserve(&cpu->base, rounded * (size_t)copies);
        return ha_error_set(err, ENOMEM, "no memory for %zu bytes of scratch",
                            rounded * (size_t)copies);
    }
    *memory = grown;
    *held = rounded;
    return 0;
}

int ha_cpu_scratch(struct ha_cpu *cpu, size_t shared_bytes, size_t per_thread_bytes,
                   struct ha_error *err)
{
    int rc = grow_scratch(cpu, &cpu->shared, &cpu->shared_bytes, shared_bytes, 1, err);

    if (rc == 0)
        rc = grow_scratch(cpu, &cpu->per_thread, &cpu->per_thread_bytes, per_thread_bytes,
                          cpu->threads, err);
    return rc;
}

int ha_cpu_work(struct ha_cpu *cpu, size_t bytes, struct ha_error *err)
{
    return grow_scratch(cpu, &cpu->work, &cpu->work_bytes, bytes, 1, err);
}

struct tiles {
    const struct ha_cpu *cpu;
    ha_cpu_tile_fn fn;
    const void *context;
};

static void do_tile(void *context, int64_t tile, int thread)
{
    const struct tiles *tiles = context;
    char *scratch = tiles->cpu->per_thread; /* NULL where no operation has asked for any */

    tiles->fn(tiles->context, tile,
              scratch ? scratch + (size_t)thread * tiles->cpu->per_thread_bytes : NULL);
}

void ha_cpu_for_tiles(struct ha_cpu *cpu, int64_t n_tiles, double work, ha_cpu_tile_fn fn,
                      const void *context)
{
    struct tiles tiles = {cpu, fn, context};

    if (work > (double)cpu->parallel_min)
        ha_pool_run(cpu->pool, do_tile, &tiles, n_tiles);
    else
        for (int64_t i = 0; i < n_tiles; i++)
            do_tile(&tiles, i, 0);
}

struct row_tiles {
    ha_cpu_rows_fn fn;
    const void *context;
    int64_t n_rows, rows; /* all, of a tile */
};

static void do_rows(const void *context, int64_t tile, void *scratch)
{
    const struct row_tiles *tiles = context;
    int64_t begin = tile * tiles->rows;

    (void)scratch;
    tiles->fn(tiles->context, begin, ha_cpu_min(begin + tiles->rows, tiles->n_rows));
}

void ha_cpu_for_rows(struct ha_cpu *cpu, int64_t n_rows, int64_t cols, ha_cpu_rows_fn fn,
                     const void *context)
{
    struct row_tiles tiles = {fn, context, n_rows, cols < ROW_TILE ? ROW_TILE / (cols + 1) + 1 : 1};

    ha_cpu_for_tiles(cpu, ha_cpu_ceil_div(n_rows, tiles.rows),
                     HA_CPU_ELEMENT_WORK * (double)n_rows * (double)cols, do_rows, &tiles);
}

int ha_cpu_open_with(const struct ha_backend_options *options, const char *leaf_name,
                     struct ha_backend **ret_backend, struct ha_error *err)
{
    struct ha_cpu *cpu;
    int rc;

    if (options->threads < 0 || options->threads > MAX_THREADS)
        return ha_error_set(err, EINVAL, "%d threads; 0 (one per core) to %d are possible",
                            options->threads, MAX_THREADS);
    cpu = ha_calloc(1, sizeof(*cpu));
    if (!cpu)
        return ha_error_set(err, ENOMEM, "no memory for the CPU backend");
    if (!leaf_name) {
        ha_leaf_best(&cpu->leaf);
    } else if (!ha_leaf_named(leaf_name, &cpu->leaf)) {
        free(cpu);
        return ha_error_set(err, ENODEV, "no %s on this processor", leaf_name);
    }
    cpu->threads = options->threads ? options->threads : ha_cpu_cores();
    if (cpu->threads > MAX_THREADS)
        cpu->threads = MAX_THREADS;
    rc = ha_pool_create(cpu->threads, &cpu->pool, err);
    if (rc < 0) {
        free(cpu);
        return rc;
    }
    cpu->parallel_min = PARALLEL_MIN;
    cpu->base.table = &table;
    cpu->base.ops = &ops;
    cpu->base.activation_dtype = HA_DTYPE_F32;
    cpu->base.memory_limit = options->memory_limit;
    (void)snprintf(cpu->base.description, sizeof(cpu->base.description), "cpu: %d thread%s, %s",
                   cpu->threads, cpu->threads == 1 ? "" : "s", cpu->leaf.name);
    (void)snprintf(cpu->base.fingerprint, sizeof(cpu->base.fingerprint),
                   "cpu kernels %d, %s, %s, glibc %s", HA_CPU_NUMERICS, cpu->leaf.name, COMPILER,
                   gnu_get_libc_version());
    *ret_backend = &cpu->base;
    return 0;
}

int ha_cpu_open(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                struct ha_error *err)
{
    return ha_cpu_open_with(options, NULL, ret_backend, err);
}
