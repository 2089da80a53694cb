/* Where the time of a step goes, at the shapes of a real model: every operation that the engine
 * calls, with its share and against its floor, which is the bytes it has to move or the operations
 * it has to do at rates that are measured first.
 *
 *   bench_step MODEL LENGTHS COLUMN PAIRS SEQUENCES TOKENS [BACKEND]
 *
 * First forward, backward and optimizer of an adapter of rank 16 on all layers for the first PAIRS
 * of a file of lengths (prompt, chosen, rejected in columns COLUMN, COLUMN + 1, COLUMN + 2), packed
 * and with shared prompts as training does it.  Then one new token of SEQUENCES whose caches hold
 * TOKENS each.  Either number may be 0.  MODEL: as shape_model writes it.  Ids are random. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/ops.h"
#include "kernels/peak.h"
#include "tests/gpu/trace.h"
#include "worker/model/decode.h"
#include "worker/model/model.h"

enum { RANK = 16, MAX_PAIRS = 4096, PACK_TOKENS = 8192, REPEATS = 3, COLUMNS = 9 };
enum {
    COPY_BYTES = 256 << 20,
    PREFILL = 4096,
    RUNS = 2 * REPEATS + 2 /* of measure, and replays */
};

struct bench {
    struct ha_backend *backend;
    struct ha_model *model;
    struct trace_rates rates;
    uint64_t random;
    /* train */
    struct ha_adapter *adapter;
    struct ha_pass *pass;
    struct ha_pack *packs[MAX_PAIRS];
    int64_t n_packs, n_pairs, n_params;
    float *gradient, *m, *v;
    double *sum;
    /* decode */
    struct ha_decoder *decoder;
    struct ha_decoder_sequence *sequences;
    int64_t n_sequences;
    struct ha_draw *draws; /* device (n_sequences) */
    int32_t *drawn;        /* device (n_sequences, RUNS) */
};

static void need(int rc, const struct ha_error *err)
{
    if (rc < 0) {
        fprintf(stderr, "bench_step: %s\n", ha_error_text(err));
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

static void *device(struct bench *b, int64_t bytes)
{
    struct ha_error err = {0};
    void *block = NULL;

    need(ha_backend_alloc(b->backend, (size_t)bytes, &block, &err), &err);
    return block;
}

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int32_t draw_id(struct bench *b)
{
    b->random = b->random * 6364136223846793005U + 1442695040888963407U;
    return (int32_t)((b->random >> 33) % (uint64_t)ha_model_config(b->model)->vocab);
}

static int32_t *draw_ids(struct bench *b, int64_t n)
{
    int32_t *ids = memory(n, sizeof(*ids));

    for (int64_t i = 0; i < n; i++)
        ids[i] = draw_id(b);
    return ids;
}

/* A copy of COPY_BYTES and the best product. */
static void measure_rates(struct bench *b)
{
    struct ha_error err = {0};
    void *from = device(b, COPY_BYTES), *to = device(b, COPY_BYTES);
    double best = 1e300, peak = 0;

    for (int i = 0; i < 4; i++) {
        double start = now_ms(), ms;

        need(ha_backend_copy(b->backend, to, from, COPY_BYTES, &err), &err);
        need(ha_backend_sync(b->backend, &err), &err);
        ms = now_ms() - start;
        best = ms < best ? ms : best;
    }
    ha_backend_free(b->backend, from);
    ha_backend_free(b->backend, to);
    need(ha_backend_measure_peak(b->backend, &peak, &err), &err);
    b->rates = (struct trace_rates){2.0 * COPY_BYTES / best, peak / 1e3};
    printf("%s\na copy moves %.0f GB/s, a product runs at %.1f TFLOP/s\n",
           ha_backend_description(b->backend), b->rates.bytes_per_ms * 1e-6,
           b->rates.flops_per_ms * 1e-9);
}

/* Milliseconds of the best of some runs, then one traced. */
static void measure(struct bench *b, const char *what, void (*run)(struct bench *b))
{
    struct ha_error err = {0};
    double best = 1e300;

    run(b);
    for (int i = 0; i < REPEATS; i++) {
        double start, ms;

        need(ha_backend_sync(b->backend, &err), &err);
        start = now_ms();
        run(b);
        need(ha_backend_sync(b->backend, &err), &err);
        ms = now_ms() - start;
        best = ms < best ? ms : best;
    }
    trace_start();
    run(b);
    trace_stop();
    trace_print(what, best, &b->rates);
}

/* ---- train ---- */

static int64_t read_lengths(const char *path, int64_t column, int64_t n, int64_t *lengths)
{
    FILE *file = fopen(path, "re");
    char line[256];
    int64_t count = 0;

    if (!file)
        need(-1, &(struct ha_error){.text = "the file of lengths cannot be read"});
    while (count < n && fgets(line, sizeof(line), file)) {
        int64_t values[COLUMNS] = {0};
        char *at = line, *end = NULL;
        int found = 0;

        for (; *line != '#' && found < COLUMNS; found++, at = end) {
            values[found] = strtoll(at, &end, 10);
            if (end == at)
                break;
        }
        if (found < column + 3)
            continue;
        memcpy(lengths + 3 * count++, values + column, 3 * sizeof(*values));
    }
    (void)fclose(file);
    return count;
}

/* Packs of up to PACK_TOKENS tokens. */
static void make_packs(struct bench *b, const int64_t *lengths, struct ha_pass_limits *limits)
{
    struct ha_pack_pair *pairs = memory(b->n_pairs, sizeof(*pairs));
    struct ha_error err = {0};
    int64_t first = 0, tokens = 0;

    for (int64_t i = 0; i <= b->n_pairs; i++) {
        const int64_t *n = lengths + 3 * i;
        int64_t more = 0;

        if (i < b->n_pairs) {
            pairs[i] = (struct ha_pack_pair){
                draw_ids(b, n[0]), draw_ids(b, n[1]), draw_ids(b, n[2]), n[0], n[1], n[2]};
            more = ha_pack_pair_tokens(&pairs[i], true);
        }
        if (i > first && (i == b->n_pairs || tokens + more > PACK_TOKENS)) {
            struct ha_pack *pack;

            need(ha_pack_create_pairs(pairs + first, NULL, i - first, true, &pack, &err), &err);
            b->packs[b->n_packs++] = pack;
            limits->max_tokens =
                pack->n_tokens > limits->max_tokens ? pack->n_tokens : limits->max_tokens;
            limits->max_rows = pack->n_rows > limits->max_rows ? pack->n_rows : limits->max_rows;
            first = i;
            tokens = 0;
        }
        tokens += more;
    }
    for (int64_t i = 0; i < b->n_pairs; i++) {
        free((void *)(uintptr_t)pairs[i].prompt);
        free((void *)(uintptr_t)pairs[i].chosen);
        free((void *)(uintptr_t)pairs[i].rejected);
    }
    free(pairs);
}

static void open_adapter(struct bench *b)
{
    struct ha_adapter_settings settings = {.rank = RANK, .alpha = 2 * RANK, .modules = 0xf};
    struct ha_adapter_geometry geometry;
    struct ha_error err = {0};
    int64_t *layers, bytes;

    ha_model_config_geometry(ha_model_config(b->model), &geometry);
    layers = memory(geometry.n_layers, sizeof(*layers));
    for (int64_t i = 0; i < geometry.n_layers; i++)
        layers[i] = i;
    settings.layers = layers;
    settings.n_layers = geometry.n_layers;
    need(ha_adapter_create(b->backend, &geometry, &settings, &b->adapter, &err), &err);
    need(ha_adapter_init(b->adapter, 1, &err), &err);
    free(layers);
    b->n_params = ha_adapter_n_params(b->adapter);
    bytes = b->n_params * (int64_t)sizeof(float);
    b->gradient = device(b, bytes);
    b->m = device(b, bytes);
    b->v = device(b, bytes);
    b->sum = device(b, sizeof(double));
}

static void step(struct bench *b)
{
    const struct ha_ops *ops = ha_backend_ops(b->backend);
    struct ha_adamw settings = {1e-5, 0.9, 0.999, 1e-8, 0.01, 1.0, 1};
    struct ha_error err = {0};

    need(ha_backend_zero(b->backend, b->gradient, (size_t)b->n_params * sizeof(float), &err), &err);
    for (int64_t i = 0; i < b->n_packs; i++) {
        const struct ha_pack *pack = b->packs[i];
        float *coefficient = memory(pack->n_rows, sizeof(*coefficient));
        struct ha_pass_rows rows;

        for (int64_t k = 0; k < pack->n_rows; k++)
            coefficient[k] = (k % 2 ? 0.05F : -0.05F) / (float)b->n_pairs;
        need(ha_pass_forward(b->pass, pack, b->adapter, true, &rows, &err), &err);
        need(ha_pass_backward(b->pass, b->adapter, coefficient, b->gradient, &err), &err);
        free(coefficient);
    }
    need(ha_backend_zero(b->backend, b->sum, sizeof(double), &err), &err);
    need(ops->sum_of_squares(b->backend, b->sum, b->gradient, b->n_params, &err), &err);
    need(ops->adamw(b->backend, ha_adapter_params(b->adapter), b->m, b->v, b->gradient, b->n_params,
                    b->sum, &settings, &err),
         &err);
}

static void close_train(struct bench *b)
{
    for (int64_t i = 0; i < b->n_packs; i++)
        ha_pack_destroy(b->packs[i]);
    ha_pass_destroy(b->pass);
    ha_adapter_destroy(b->adapter);
    ha_backend_free(b->backend, b->gradient);
    ha_backend_free(b->backend, b->m);
    ha_backend_free(b->backend, b->v);
    ha_backend_free(b->backend, b->sum);
}

static void train(struct bench *b, const char *path, int64_t column, int64_t n_pairs)
{
    struct ha_pass_limits limits = {.max_rank = RANK, .statistics = true};
    int64_t *lengths, tokens = 0;
    struct ha_error err = {0};
    char what[96];

    lengths = memory(3 * (n_pairs + 1), sizeof(*lengths));
    b->n_pairs = read_lengths(path, column, n_pairs, lengths);
    make_packs(b, lengths, &limits);
    free(lengths);
    limits.round_logits_bf16 = ha_backend_activation_dtype(b->backend) == HA_DTYPE_BF16;
    open_adapter(b);
    need(ha_pass_create(b->model, &limits, &b->pass, &err), &err);
    for (int64_t i = 0; i < b->n_packs; i++)
        tokens += b->packs[i]->n_tokens;
    (void)snprintf(what, sizeof(what), "a step of %lld pairs, %lld tokens, %lld packs",
                   (long long)b->n_pairs, (long long)tokens, (long long)b->n_packs);
    measure(b, what, step);
    close_train(b);
}

/* ---- decode ---- */

static int draw(void *context, struct ha_error *err)
{
    struct bench *b = context;
    struct ha_sample call = {.n_rows = b->n_sequences,
                             .vocab = ha_model_config(b->model)->vocab,
                             .logits = ha_decoder_logits(b->decoder),
                             .draws = b->draws,
                             .drawn = b->drawn,
                             .drawn_stride = RUNS,
                             .ids = ha_decoder_ids(b->decoder),
                             .positions = ha_decoder_positions(b->decoder)};

    return ha_backend_ops(b->backend)->sample(b->backend, &call, err);
}

/* A step as generation makes it: nothing passes between host and device. */
static void decode(struct bench *b)
{
    struct ha_error err = {0};

    need(ha_decoder_run(b->decoder, &err), &err);
    need(draw(b, &err), &err);
}

/* The same step, recorded: as generation makes it of few sequences. */
static void replay(struct bench *b)
{
    struct ha_error err = {0};
    double best = 1e300;

    if (!ha_backend_records(b->backend))
        return;
    need(ha_decoder_record(b->decoder, draw, b, &err), &err);
    for (int i = 0; i < REPEATS; i++) {
        double start = now_ms(), ms;

        need(ha_decoder_replay(b->decoder, &err), &err);
        need(ha_backend_sync(b->backend, &err), &err);
        ms = now_ms() - start;
        best = ms < best ? ms : best;
    }
    printf("the same from a recording: %.3f ms\n", best);
}

/* Greedy, with no end. */
static void open_draws(struct bench *b)
{
    struct ha_draw *draws = memory(b->n_sequences, sizeof(*draws));
    size_t bytes = (size_t)b->n_sequences * sizeof(*draws);
    struct ha_error err = {0};

    for (int64_t i = 0; i < b->n_sequences; i++)
        draws[i] = (struct ha_draw){.top_p = 1.0, .penalty = 1.0F, .max_new = INT32_MAX};
    b->draws = device(b, (int64_t)bytes);
    b->drawn = device(b, b->n_sequences * RUNS * (int64_t)sizeof(*b->drawn));
    need(ha_backend_upload(b->backend, b->draws, draws, bytes, &err), &err);
    free(draws);
}

static void close_generate(struct bench *b)
{
    for (int64_t i = 0; i < b->n_sequences; i++)
        ha_kv_cache_destroy(b->sequences[i].cache);
    free(b->sequences);
    ha_backend_free(b->backend, b->draws);
    ha_backend_free(b->backend, b->drawn);
    ha_decoder_destroy(b->decoder);
}

/* Caches have room for the tokens that measure takes. */
static void generate(struct bench *b, int64_t n, int64_t tokens)
{
    int64_t at_once = n * tokens > PREFILL ? (PREFILL + tokens - 1) / tokens : n;
    struct ha_decoder_limits limits = {.max_sequences = n, .max_prompt_tokens = at_once * tokens};
    int32_t *last;
    int64_t *row;
    struct ha_error err = {0};
    char what[96];

    b->n_sequences = n;
    b->sequences = memory(n, sizeof(*b->sequences));
    need(ha_decoder_create(b->model, &limits, &b->decoder, &err), &err);
    row = memory(n, sizeof(*row));
    for (int64_t i = 0; i < n; i++) {
        need(ha_kv_cache_create(b->model, tokens + RUNS, &b->sequences[i].cache, &err), &err);
        b->sequences[i].ids = draw_ids(b, tokens);
        b->sequences[i].n_ids = tokens;
    }
    for (int64_t i = 0; i < n; i += at_once)
        need(ha_decoder_prefill(b->decoder, b->sequences + i, n - i < at_once ? n - i : at_once,
                                NULL, row, &err),
             &err);
    last = draw_ids(b, n);
    for (int64_t i = 0; i < n; i++) {
        free((void *)(uintptr_t)b->sequences[i].ids);
        b->sequences[i].ids = &last[i];
        b->sequences[i].n_ids = 1;
    }
    need(ha_decoder_seat(b->decoder, b->sequences, n, &err), &err);
    open_draws(b);
    (void)snprintf(what, sizeof(what), "a token of %lld sequences after %lld", (long long)n,
                   (long long)tokens);
    measure(b, what, decode);
    replay(b);
    free(last);
    free(row);
    close_generate(b);
}

enum argument { MODEL = 1, LENGTHS, COLUMN, PAIRS, SEQUENCES, TOKENS, BACKEND };

static int64_t number_at(char **argv, enum argument at, int64_t least, int64_t most)
{
    char *end = NULL;
    long long value = strtoll(argv[at], &end, 10);

    if (*end || value < least || value > most) {
        fprintf(stderr, "bench_step: %s is not from %lld to %lld\n", argv[at], (long long)least,
                (long long)most);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    struct ha_backend_options options = {.name = argc > BACKEND ? argv[BACKEND] : "cuda"};
    struct ha_error err = {0};
    int64_t column, pairs, sequences, tokens;
    struct bench *b;

    if (argc < BACKEND || argc > BACKEND + 1) {
        fputs("usage: bench_step MODEL LENGTHS COLUMN PAIRS SEQUENCES TOKENS [BACKEND]\n", stderr);
        return 2;
    }
    column = number_at(argv, COLUMN, 0, COLUMNS - 3);
    pairs = number_at(argv, PAIRS, 0, MAX_PAIRS);
    sequences = number_at(argv, SEQUENCES, 0, 1 << 20);
    tokens = number_at(argv, TOKENS, 1, 1 << 20);
    b = memory(1, sizeof(*b));
    b->random = 1;
    if (ha_backend_open(&options, &b->backend, &err) < 0) {
        printf("skipped: %s\n", ha_error_text(&err));
        free(b);
        return 77;
    }
    ha_backend_time_choices(b->backend, true);
    measure_rates(b);
    trace_install(b->backend);
    need(ha_model_open(b->backend, argv[MODEL], &b->model, &err), &err);
    if (pairs > 0)
        train(b, argv[LENGTHS], column, pairs);
    if (sequences > 0)
        generate(b, sequences, tokens);
    ha_model_destroy(b->model);
    ha_backend_close(b->backend);
    free(b);
    return 0;
}
