/* A writer of its own and not that of common/io: nothing is held in memory, synced or renamed, and
 * what reads the files in the tests was not written beside it. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/half.h"
#include "common/base/path.h"
#include "tests/gpu/shape_model.h"

enum { MAX_TENSORS = 1024, MAX_SHARDS = 16, TABLE = 4096, CHUNK = 1 << 21 /* values */ };

struct tensor {
    char name[64];
    int64_t rows, cols; /* rows 0: a vector */
    bool norm;
    uint64_t seed;
};

struct shard {
    const struct tensor *tensors;
    int64_t n_tensors;
    const uint16_t *table;
    char *path;
    int64_t bytes;
    struct ha_error err;
    int r;
};

struct plan {
    struct tensor tensors[MAX_TENSORS];
    int64_t n;
};

static int64_t count_of(const struct tensor *tensor)
{
    return (tensor->rows ? tensor->rows : 1) * tensor->cols;
}

static void add(struct plan *plan, int64_t layer, const char *name, int64_t rows, int64_t cols,
                bool norm)
{
    struct tensor *tensor = &plan->tensors[plan->n++];

    *tensor = (struct tensor){.rows = rows, .cols = cols, .norm = norm};
    if (layer < 0)
        (void)snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    else
        (void)snprintf(tensor->name, sizeof(tensor->name), "model.layers.%lld.%s", (long long)layer,
                       name);
    tensor->seed = 1469598103934665603U;
    for (const char *at = tensor->name; *at; at++)
        tensor->seed = (tensor->seed ^ (uint8_t)*at) * 1099511628211U;
}

static void add_layer(struct plan *plan, const struct shape *shape, int64_t layer)
{
    int64_t q = shape->heads * HEAD_DIM, kv = shape->kv_heads * HEAD_DIM, width = shape->width;

    add(plan, layer, "input_layernorm.weight", 0, width, true);
    add(plan, layer, "self_attn.q_proj.weight", q, width, false);
    add(plan, layer, "self_attn.k_proj.weight", kv, width, false);
    add(plan, layer, "self_attn.v_proj.weight", kv, width, false);
    add(plan, layer, "self_attn.o_proj.weight", width, q, false);
    if (shape->bias) {
        add(plan, layer, "self_attn.q_proj.bias", 0, q, false);
        add(plan, layer, "self_attn.k_proj.bias", 0, kv, false);
        add(plan, layer, "self_attn.v_proj.bias", 0, kv, false);
    }
    if (shape->qk_norm) {
        add(plan, layer, "self_attn.q_norm.weight", 0, HEAD_DIM, true);
        add(plan, layer, "self_attn.k_norm.weight", 0, HEAD_DIM, true);
    }
    add(plan, layer, "post_attention_layernorm.weight", 0, width, true);
    add(plan, layer, "mlp.gate_proj.weight", shape->inner, width, false);
    add(plan, layer, "mlp.up_proj.weight", shape->inner, width, false);
    add(plan, layer, "mlp.down_proj.weight", width, shape->inner, false);
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static void fill(uint16_t *values, int64_t n, const uint16_t *table, uint64_t *state)
{
    int64_t i = 0;

    for (; i + 5 <= n; i += 5) {
        uint64_t bits = next(state);

        for (int k = 0; k < 5; k++)
            values[i + k] = table[bits >> 12 * k & (TABLE - 1)];
    }
    for (; i < n; i++)
        values[i] = table[next(state) & (TABLE - 1)];
}

static int write_all(int fd, const void *data, size_t bytes)
{
    for (const char *at = data; bytes > 0;) {
        ssize_t n = write(fd, at, bytes);

        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_tensor(int fd, const struct tensor *tensor, const uint16_t *table,
                        uint16_t *values)
{
    uint64_t state = tensor->seed;
    int64_t n = count_of(tensor);
    int r = 0;

    for (int64_t at = 0; r == 0 && at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;

        if (tensor->norm)
            for (int64_t i = 0; i < part; i++)
                values[i] = 0x3f80; /* 1 */
        else
            fill(values, part, table, &state);
        r = write_all(fd, values, (size_t)part * sizeof(*values));
    }
    return r;
}

/* The JSON of a file's header, padded so that data is aligned. */
static int make_header(const struct shard *shard, struct ha_buffer *header)
{
    int64_t at = 0;
    int r = ha_buffer_append_text(header, "{\"__metadata__\": {\"format\": \"pt\"}");

    for (int64_t i = 0; r == 0 && i < shard->n_tensors; i++) {
        const struct tensor *tensor = &shard->tensors[i];
        int64_t bytes = 2 * count_of(tensor);
        char line[256], shape[48];

        if (tensor->rows)
            (void)snprintf(shape, sizeof(shape), "%lld, %lld", (long long)tensor->rows,
                           (long long)tensor->cols);
        else
            (void)snprintf(shape, sizeof(shape), "%lld", (long long)tensor->cols);
        (void)snprintf(line, sizeof(line),
                       ",\n\"%s\": {\"dtype\": \"BF16\", \"shape\": [%s], \"data_offsets\": [%lld, "
                       "%lld]}",
                       tensor->name, shape, (long long)at, (long long)(at + bytes));
        r = ha_buffer_append_text(header, line);
        at += bytes;
    }
    if (r == 0)
        r = ha_buffer_append_text(header, "}");
    while (r == 0 && header->size % 8 != 0)
        r = ha_buffer_append_text(header, " ");
    return r;
}

static int write_shard(struct shard *shard)
{
    int fd = open(shard->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    uint16_t *values = malloc(CHUNK * sizeof(*values));
    struct ha_buffer header;
    uint64_t size;
    int r = fd < 0 ? -errno : values ? 0 : -ENOMEM;

    ha_buffer_init(&header, 0);
    if (r == 0)
        r = make_header(shard, &header);
    size = header.size; /* little-endian, as this machine is */
    if (r == 0)
        r = write_all(fd, &size, sizeof(size));
    if (r == 0)
        r = write_all(fd, header.data, header.size);
    for (int64_t i = 0; r == 0 && i < shard->n_tensors; i++) {
        r = write_tensor(fd, &shard->tensors[i], shard->table, values);
        shard->bytes += 2 * count_of(&shard->tensors[i]);
    }
    ha_buffer_clear(&header);
    free(values);
    if (fd >= 0 && close(fd) < 0 && r == 0)
        r = -errno;
    return r < 0 ? ha_error_set(&shard->err, -r, "%s: %s", shard->path, strerror(-r)) : 0;
}

static void *run_shard(void *user)
{
    struct shard *shard = user;

    shard->r = write_shard(shard);
    return NULL;
}

static int write_index(const char *dir, const struct shard *shards, int n, int64_t bytes,
                       struct ha_error *err)
{
    char *path = ha_path_join(dir, "model.safetensors.index.json");
    FILE *file = path ? fopen(path, "we") : NULL;
    int r = 0;

    if (!file)
        r = ha_error_set(err, errno, "%s/model.safetensors.index.json: %s", dir, strerror(errno));
    if (file)
        fprintf(file, "{\"metadata\": {\"total_size\": %lld}, \"weight_map\": {", (long long)bytes);
    for (int s = 0; file && s < n; s++)
        for (int64_t i = 0; i < shards[s].n_tensors; i++)
            fprintf(file, "%s\n\"%s\": \"%s\"", s || i ? "," : "", shards[s].tensors[i].name,
                    strrchr(shards[s].path, '/') + 1);
    if (file)
        fputs("}}\n", file);
    if (file && fclose(file) != 0)
        r = ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    free(path);
    return r;
}

/* Cuts the tensors into runs of about equal size. */
static int cut(const struct plan *plan, const char *dir, struct shard *shards, int n,
               const uint16_t *table, struct ha_error *err)
{
    int64_t total = 0, at = 0, begin = 0;

    for (int64_t i = 0; i < plan->n; i++)
        total += count_of(&plan->tensors[i]);
    for (int s = 0; s < n; s++) {
        char name[64];
        int64_t end = begin;

        while (end < plan->n && (s == n - 1 || at < total / n * (s + 1)))
            at += count_of(&plan->tensors[end++]);
        (void)snprintf(name, sizeof(name),
                       n == 1 ? "model.safetensors" : "model-%05d-of-%05d.safetensors", s + 1, n);
        shards[s] = (struct shard){.tensors = plan->tensors + begin,
                                   .n_tensors = end - begin,
                                   .table = table,
                                   .path = ha_path_join(dir, name)};
        if (!shards[s].path)
            return ha_error_set(err, ENOMEM, "out of memory");
        begin = end;
    }
    return 0;
}

static int write_shards(const char *dir, struct shard *shards, int n, int64_t *ret_bytes,
                        struct ha_error *err)
{
    pthread_t threads[MAX_SHARDS];
    int started = 0, r = 0;

    for (; r == 0 && started < n; started += r == 0)
        r = -pthread_create(&threads[started], NULL, run_shard, &shards[started]);
    if (r < 0)
        ha_error_set(err, -r, "no thread: %s", strerror(-r));
    for (int s = 0; s < started; s++) {
        (void)pthread_join(threads[s], NULL);
        *ret_bytes += shards[s].bytes;
        if (r == 0 && shards[s].r < 0)
            r = ha_error_set(err, -shards[s].r, "%s", ha_error_text(&shards[s].err));
    }
    return r < 0 || n == 1 ? r : write_index(dir, shards, n, *ret_bytes, err);
}

int shape_write_weights(const char *dir, const struct shape *shape, int n, int64_t *ret_bytes,
                        struct ha_error *err)
{
    struct plan *plan = calloc(1, sizeof(*plan));
    struct shard shards[MAX_SHARDS] = {0};
    uint16_t table[TABLE];
    int r;

    if (!plan)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int i = 0; i < TABLE; i++)
        table[i] = ha_half_to_bf16(0.02F * sqrtf(3.0F) * ((2.0F * (float)i + 1.0F) / TABLE - 1.0F));
    add(plan, -1, "model.embed_tokens.weight", shape->vocab, shape->width, false);
    for (int64_t layer = 0; layer < shape->layers; layer++)
        add_layer(plan, shape, layer);
    add(plan, -1, "model.norm.weight", 0, shape->width, true);
    add(plan, -1, "lm_head.weight", shape->vocab, shape->width, false);
    r = cut(plan, dir, shards, n, table, err);
    if (r == 0)
        r = write_shards(dir, shards, n, ret_bytes, err);
    for (int s = 0; s < n; s++)
        free(shards[s].path);
    free(plan);
    return r;
}
