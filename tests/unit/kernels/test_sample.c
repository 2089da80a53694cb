/* The draws of every backend: from the same logits and rules the same tokens, corner by corner.
 * What the CPU's are is tested in tests/unit/sampling. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/kernels/support.h"

#include "common/base/error.h"
#include "kernels/cpu/sample.h"
#include "kernels/draw.h"
#include "kernels/ops.h"

enum { ROWS = 40, STEPS = 2, LARGE = 151936 };

struct problem {
    int64_t vocab;
    int64_t n;
    float *logits; /* (ROWS, vocab) */
    struct ha_draw draws[ROWS];
    int32_t eos[2];
    uint32_t *seen; /* (ROWS, words) */
    int64_t words;
};

/* What a backend made of it. */
struct result {
    struct ha_draw draws[ROWS];
    int32_t drawn[ROWS * STEPS], ids[ROWS], positions[ROWS];
    uint32_t *seen;
};

static uint32_t next_bits(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void *upload(struct ha_backend *backend, const void *host, size_t bytes)
{
    void *memory = NULL;

    assert_ok(ha_backend_alloc(backend, bytes, &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, host, bytes, &err));
    return memory;
}

/* Rows of rules, the last of logits that are shared. */
static void run(struct ha_backend *backend, const struct problem *p, struct result *result)
{
    const struct ha_ops *ops = ha_backend_ops(backend);
    int32_t row[ROWS];
    struct ha_draw draws[ROWS];
    size_t seen_bytes = (size_t)(p->n * p->words) * sizeof(uint32_t);
    uint32_t *seen = upload(backend, p->seen, seen_bytes);
    int32_t *eos = upload(backend, p->eos, sizeof(p->eos));
    struct ha_sample sample = {.n_rows = p->n, .vocab = p->vocab, .drawn_stride = STEPS};
    void *memory[6];

    memset(result, 0, sizeof(*result));
    for (int64_t i = 0; i < p->n; i++) {
        draws[i] = p->draws[i];
        draws[i].eos = eos;
        if (draws[i].penalty != 1.0f)
            draws[i].seen = seen + i * p->words;
        row[i] = (int32_t)(i % 2 ? i - 1 : i); /* two samples of one prompt */
    }
    memory[0] = upload(backend, p->logits, (size_t)(p->n * p->vocab) * sizeof(float));
    memory[1] = upload(backend, row, sizeof(row));
    memory[2] = upload(backend, draws, sizeof(draws));
    memory[3] = upload(backend, result->drawn, sizeof(result->drawn));
    memory[4] = upload(backend, result->ids, sizeof(result->ids));
    memory[5] = upload(backend, result->positions, sizeof(result->positions));
    sample.logits = memory[0];
    sample.row = memory[1];
    sample.draws = memory[2];
    sample.drawn = memory[3];
    sample.ids = memory[4];
    sample.positions = memory[5];
    for (int step = 0; step < STEPS; step++)
        assert_ok(ops->sample(backend, &sample, &err));
    assert_ok(ha_backend_download(backend, result->draws, memory[2], sizeof(draws), &err));
    assert_ok(ha_backend_download(backend, result->drawn, memory[3], sizeof(result->drawn), &err));
    assert_ok(ha_backend_download(backend, result->ids, memory[4], sizeof(result->ids), &err));
    assert_ok(ha_backend_download(backend, result->positions, memory[5], sizeof(result->positions),
                                  &err));
    result->seen = malloc(seen_bytes);
    assert_non_null(result->seen);
    assert_ok(ha_backend_download(backend, result->seen, seen, seen_bytes, &err));
    for (int i = 0; i < 6; i++)
        ha_backend_free(backend, memory[i]);
    ha_backend_free(backend, seen);
    ha_backend_free(backend, eos);
    for (int64_t i = 0; i < p->n; i++)
        result->draws[i].eos = NULL, result->draws[i].seen = NULL;
}

static void same(const struct problem *p)
{
    struct ha_backend_options cpu = {.name = "cpu", .threads = 2}, cuda = {.name = "cuda"};
    struct result want, got;
    struct ha_backend *backend = NULL;

    assert_ok(ha_backend_open(&cpu, &backend, &err));
    run(backend, p, &want);
    ha_backend_close(backend);
    assert_ok(ha_backend_open(&cuda, &backend, &err));
    run(backend, p, &got);
    ha_backend_close(backend);
    for (int64_t i = 0; i < p->n; i++)
        if (memcmp(&want.draws[i], &got.draws[i], sizeof(want.draws[i])) != 0 ||
            memcmp(want.drawn + i * STEPS, got.drawn + i * STEPS, STEPS * sizeof(int32_t)) != 0)
            fail_msg("row %d: state %d, %d; %d new, %d; first %d, %d", (int)i, want.draws[i].state,
                     got.draws[i].state, want.draws[i].n_new, got.draws[i].n_new,
                     want.drawn[i * STEPS], got.drawn[i * STEPS]);
    assert_memory_equal(want.ids, got.ids, sizeof(want.ids));
    assert_memory_equal(want.positions, got.positions, sizeof(want.positions));
    assert_memory_equal(want.seen, got.seen, (size_t)(p->n * p->words) * sizeof(uint32_t));
    free(want.seen);
    free(got.seen);
}

static struct problem make(int64_t vocab, int64_t n)
{
    static const float temperatures[] = {0.0f, 1.0f, 0.7f, 3.0f, 1e-4f};
    static const double shares[] = {1.0, 0.9, 0.5, 1e-12, 0.999};
    struct problem p = {.vocab = vocab, .n = n, .words = (vocab + 31) / 32};
    uint32_t state = 7;

    p.logits = calloc((size_t)(n * vocab), sizeof(float));
    p.seen = calloc((size_t)(n * p.words), sizeof(uint32_t));
    assert_true(p.logits && p.seen);
    for (int64_t i = 0; i < n * vocab; i++)
        p.logits[i] = (float)next_bits(&state) * 0x1p-20f - 8.0f;
    p.eos[0] = (int32_t)(vocab / 2);
    p.eos[1] = (int32_t)vocab + 7;
    for (int64_t i = 0; i < n; i++) {
        p.draws[i] = (struct ha_draw){.top_p = shares[i / 5 % 5],
                                      .temperature = temperatures[i % 5],
                                      .penalty = i % 3   ? 1.0f
                                                 : i % 2 ? 1.3f
                                                         : 0.8f,
                                      .top_k = (int32_t)(i % 4 ? i * i % (2 * vocab) : 0),
                                      .min_new = i % 7 ? 0 : 2,
                                      .max_new = i % 6 ? 100 : 2,
                                      .n_eos = i % 2 ? 2 : 1,
                                      .seed = 11,
                                      .item = (uint64_t)i << 40 | 5};
        for (int64_t id = 0; id < vocab; id++)
            if (next_bits(&state) % 5 == 0)
                p.seen[i * p.words + id / 32] |= (uint32_t)1 << id % 32;
    }
    return p;
}

static void release(struct problem *p)
{
    free(p->logits);
    free(p->seen);
}

static void draws_are_the_same(void **state)
{
    static const int64_t vocabs[] = {1, 33, 1000, 4099};

    (void)state;
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        struct problem p = make(vocabs[v], ROWS);

        same(&p);
        release(&p);
    }
}

/* All equal, a few values only, both zeros, all but one -infinity, and no numbers. */
static void corners_are_the_same(void **state)
{
    struct problem p = make(601, ROWS);

    (void)state;
    for (int64_t i = 0; i < ROWS; i++) {
        float *row = p.logits + i * p.vocab;

        for (int64_t id = 0; id < p.vocab; id++) {
            float few = (float)(id * 7 % 4);

            switch (i / 2 % 8) {
            case 0:
                row[id] = -1.5f;
                break;
            case 1:
                row[id] = few;
                break;
            case 2:
                row[id] = id == 377 ? -3.0f : -INFINITY;
                break;
            case 3:
                row[id] = id % 3 ? -0.0f : 0.0f;
                break;
            case 4:
                row[id] = -INFINITY;
                break;
            case 5:
                row[id] = id == 600 ? NAN : few;
                break;
            case 6:
                row[id] = id == 3 ? INFINITY : few;
                break;
            default:
                row[id] = id % 100 ? -1e30f : 3e38f;
                break;
            }
        }
    }
    same(&p);
    release(&p);
}

/* A real vocabulary: a peak, a broad top, a long tail. */
static void a_large_vocabulary_is_the_same(void **state)
{
    struct problem p = make(LARGE, 4);

    (void)state;
    for (int64_t i = 0; i < 4 * p.vocab; i++)
        p.logits[i] = i % 97 ? p.logits[i] * 0.5f - 6.0f : p.logits[i];
    p.draws[0] =
        (struct ha_draw){.top_p = 0.95, .temperature = 1.0f, .penalty = 1.1f, .max_new = 9};
    p.draws[1] = p.draws[0];
    p.draws[1].top_k = 50;
    p.draws[2] = p.draws[0];
    p.draws[2].top_p = 1.0;
    p.draws[3] = p.draws[2];
    p.draws[3].temperature = 0.0f;
    same(&p);
    release(&p);
}

/* The weight against exp: no more than its last place, and half of it in a tail. */
static void weights_follow_exp(void **state)
{
    uint64_t before = 0;

    (void)state;
    for (double x = -29.0; x <= 0.0; x += 0.0009765625) {
        uint64_t weight = ha_draw_weight((float)x);

        assert_true(weight >= before);
        assert_true(fabs((double)weight - exp((double)(float)x) * 0x1p40) <= 0.5 + 0x1p-4);
        before = weight;
    }
    assert_int_equal(ha_draw_weight(0.0f), (uint64_t)1 << 40);
    assert_int_equal(ha_draw_weight(-INFINITY), 0);
    assert_true(ha_draw_key(-0.0f) == ha_draw_key(0.0f));
    assert_true(ha_draw_key(-1.0f) < ha_draw_key(-0.5f) && ha_draw_key(-0.5f) < ha_draw_key(0.0f));
    assert_true(ha_draw_value(ha_draw_key(-2.5f)) == -2.5f);
    assert_true(ha_draw_value(ha_draw_key(2.5f)) == 2.5f);
}

static void sizes_are_checked(void **state)
{
    struct ha_backend_options cpu = {.name = "cpu", .threads = 1};
    struct ha_sample none = {.vocab = 0, .drawn_stride = 1};
    struct ha_sample large = {.vocab = HA_DRAW_MOST_IDS + 1, .drawn_stride = 1};
    struct ha_backend *backend = NULL;

    (void)state;
    assert_ok(ha_backend_open(&cpu, &backend, &err));
    assert_int_equal(ha_backend_ops(backend)->sample(backend, &none, NULL), -EINVAL);
    assert_int_equal(ha_backend_ops(backend)->sample(backend, &large, NULL), -EINVAL);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest here[] = {cmocka_unit_test(weights_follow_exp),
                                      cmocka_unit_test(sizes_are_checked)};
    const struct CMUnitTest both[] = {cmocka_unit_test(draws_are_the_same),
                                      cmocka_unit_test(corners_are_the_same),
                                      cmocka_unit_test(a_large_vocabulary_is_the_same)};

    if (getenv("HA_CUDA_MODULE"))
        return cmocka_run_group_tests(both, NULL, NULL);
    return cmocka_run_group_tests(here, NULL, NULL);
}
