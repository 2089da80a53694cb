/* A training step's passes over real pairs in three layouts, one thread:
 *
 *   padded    each answer with its prompt, all sequences of a micro-batch of 6
 *             pairs padded to the longest: what a trainer of Transformers computes
 *   packed    the same sequences end to end without padding
 *   shared    and the prompt of a pair once
 *
 * The output head works on completion tokens only in all three, so that the
 * difference is packing alone, sharing alone.  Forward and backward of a rank 16
 * adapter on all layers.  Predicted is the ratio of the operations counted by the
 * backend, measured that of processor time (best of the repeats).
 *
 *     bench_pass packing | sharing MODEL_DIR DATA PAIRS */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/data/pairs.h"
#include "worker/model/model.h"
#include "worker/tokenizer/tokenizer.h"

enum { MICRO = 6, MAX_LENGTH = 2048, RANK = 16, SEED = 42, REPEATS = 3 };
enum layout { PADDED, PACKED, SHARED };

static const char *const layout_names[] = {"padded", "packed", "shared"};

struct bench {
    struct ha_backend *backend;
    struct ha_tokenizer *tokenizer;
    struct ha_model *model;
    struct ha_pair_set *set;
    struct ha_adapter *adapter;
    float *gradient;
};

struct cost {
    double seconds, flops;
    int64_t tokens;
};

static double seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void need(int rc, const struct ha_error *err)
{
    if (rc < 0) {
        fprintf(stderr, "bench_pass: %s\n", ha_error_text(err));
        exit(1);
    }
}

static void *memory(int64_t n, size_t size)
{
    void *block = ha_calloc(n, size);

    if (!block)
        need(-1, &(struct ha_error){.text = "no memory"});
    return block;
}

static struct ha_pack *pairs_pack(const struct bench *b, int64_t first, int64_t n, bool share)
{
    struct ha_pack_pair pairs[MICRO];
    struct ha_pack *pack;
    struct ha_error err = {0};

    for (int64_t i = 0; i < n; i++) {
        struct ha_pair pair = ha_pair_at(b->set, first + i);

        pairs[i] = (struct ha_pack_pair){pair.prompt,   pair.chosen,   pair.rejected,
                                         pair.n_prompt, pair.n_chosen, pair.n_rejected};
        ha_pack_pair_truncate(&pairs[i], MAX_LENGTH);
    }
    need(ha_pack_create_pairs(pairs, NULL, n, share, &pack, &err), &err);
    return pack;
}

/* Give every segment of an unshared pack the length of the longest; what fills
 * it up stands behind the answer, so that no scored token sees it. */
static void pad(struct ha_pack *pack)
{
    int64_t longest = 0, row = 0;
    int32_t *ids, *positions;

    for (int64_t s = 0; s < pack->n_segments; s++)
        longest = pack->segments[s].length > longest ? pack->segments[s].length : longest;
    ids = memory(pack->n_segments * longest, sizeof(*ids));
    positions = memory(pack->n_segments * longest, sizeof(*positions));
    for (int64_t s = 0; s < pack->n_segments; s++) {
        struct ha_segment *segment = &pack->segments[s];
        int64_t begin = s * longest, end = segment->begin + segment->length;

        memcpy(ids + begin, pack->ids + segment->begin, (size_t)segment->length * sizeof(*ids));
        for (int64_t t = 0; t < longest; t++)
            positions[begin + t] = (int32_t)t;
        for (; row < pack->n_rows && pack->row_token[row] < end; row++)
            pack->row_token[row] += begin - segment->begin;
        segment->begin = begin;
        segment->length = longest;
    }
    free(pack->ids);
    free(pack->positions);
    pack->ids = ids;
    pack->positions = positions;
    pack->n_tokens = pack->n_segments * longest;
}

static struct ha_pack *make_pack(const struct bench *b, int64_t first, enum layout layout)
{
    int64_t rest = b->set->n_pairs - first;
    struct ha_pack *pack = pairs_pack(b, first, rest < MICRO ? rest : MICRO, layout == SHARED);

    if (layout == PADDED)
        pad(pack);
    return pack;
}

static struct ha_pass *make_pass(const struct bench *b, enum layout layout)
{
    struct ha_pass_limits limits = {.max_rank = RANK};
    struct ha_pass *pass;
    struct ha_error err = {0};

    for (int64_t first = 0; first < b->set->n_pairs; first += MICRO) {
        struct ha_pack *pack = make_pack(b, first, layout);

        limits.max_tokens = pack->n_tokens > limits.max_tokens ? pack->n_tokens : limits.max_tokens;
        limits.max_rows = pack->n_rows > limits.max_rows ? pack->n_rows : limits.max_rows;
        ha_pack_destroy(pack);
    }
    need(ha_pass_create(b->model, &limits, &pass, &err), &err);
    return pass;
}

static struct cost run(const struct bench *b, struct ha_pass *pass, enum layout layout)
{
    struct cost cost = {.flops = -ha_backend_flops(b->backend)};
    struct ha_error err = {0};

    for (int64_t first = 0; first < b->set->n_pairs; first += MICRO) {
        struct ha_pack *pack = make_pack(b, first, layout);
        float *coefficient = memory(pack->n_rows, sizeof(*coefficient));
        struct ha_pass_rows rows;
        double start = seconds();

        need(ha_pass_forward(pass, pack, b->adapter, true, &rows, &err), &err);
        for (int64_t i = 0; i < pack->n_rows; i++)
            coefficient[i] = 1.0F / (float)(pack->n_rows + i);
        need(ha_pass_backward(pass, b->adapter, coefficient, b->gradient, &err), &err);
        cost.seconds += seconds() - start;
        cost.tokens += pack->n_tokens;
        free(coefficient);
        ha_pack_destroy(pack);
    }
    cost.flops += ha_backend_flops(b->backend);
    return cost;
}

static struct cost measure(const struct bench *b, enum layout layout)
{
    struct ha_pass *pass = make_pass(b, layout);
    struct cost best = run(b, pass, layout);

    for (int i = 1; i < REPEATS; i++) {
        struct cost again = run(b, pass, layout);

        if (again.seconds < best.seconds)
            best = again;
    }
    ha_pass_destroy(pass);
    return best;
}

static void open_bench(struct bench *b, const char *model_dir, const char *data, int64_t pairs)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_pair_options cut = {.max_length = MAX_LENGTH};
    struct ha_adapter_geometry geometry;
    struct ha_adapter_settings settings = {.rank = RANK, .alpha = 2 * RANK, .modules = 0xf};
    struct ha_rows *rows;
    struct ha_error err = {0};
    int64_t *layers;
    size_t bytes;
    void *gradient;

    need(ha_backend_open(&options, &b->backend, &err), &err);
    need(ha_tokenizer_load(model_dir, &b->tokenizer, &err), &err);
    need(ha_model_open(b->backend, model_dir, &b->model, &err), &err);
    need(ha_rows_open(&data, 1, &rows, &err), &err);
    need(ha_pair_set_create(rows, b->tokenizer, &cut, pairs, SEED, &b->set, &err), &err);
    ha_rows_close(rows);

    ha_model_config_geometry(ha_model_config(b->model), &geometry);
    layers = memory(geometry.n_layers, sizeof(*layers));
    for (int64_t i = 0; i < geometry.n_layers; i++)
        layers[i] = i;
    settings.layers = layers;
    settings.n_layers = geometry.n_layers;
    need(ha_adapter_create(b->backend, &geometry, &settings, &b->adapter, &err), &err);
    need(ha_adapter_init(b->adapter, SEED, &err), &err);
    free(layers);
    bytes = (size_t)ha_adapter_n_params(b->adapter) * sizeof(float);
    need(ha_backend_alloc(b->backend, bytes, &gradient, &err), &err);
    b->gradient = gradient;
}

static void close_bench(struct bench *b)
{
    ha_backend_free(b->backend, b->gradient);
    ha_adapter_destroy(b->adapter);
    ha_pair_set_destroy(b->set);
    ha_model_destroy(b->model);
    ha_tokenizer_destroy(b->tokenizer);
    ha_backend_close(b->backend);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct cost before, after;
    enum layout layout;

    if (argc != 5 || (strcmp(argv[1], "packing") != 0 && strcmp(argv[1], "sharing") != 0)) {
        fputs("usage: bench_pass packing|sharing MODEL_DIR DATA PAIRS\n", stderr);
        return 2;
    }
    layout = strcmp(argv[1], "packing") == 0 ? PADDED : PACKED;
    open_bench(&bench, argv[2], argv[3], atoll(argv[4]));
    printf("%lld pairs, one thread\n%-8s %10s %12s %12s %10s\n", (long long)bench.set->n_pairs, "",
           "tokens", "GFLOP", "processor s", "GFLOP/s");
    before = measure(&bench, layout);
    after = measure(&bench, (enum layout)(layout + 1));
    for (int i = 0; i < 2; i++) {
        const struct cost *cost = i == 0 ? &before : &after;

        printf("%-8s %10lld %12.1f %12.2f %10.1f\n", layout_names[layout + (enum layout)i],
               (long long)cost->tokens, cost->flops / 1e9, cost->seconds,
               cost->flops / 1e9 / cost->seconds);
    }
    printf("predicted by operations %.2f\n%s ratio %.2f\n", before.flops / after.flops, argv[1],
           before.seconds / after.seconds);
    close_bench(&bench);
    return 0;
}
