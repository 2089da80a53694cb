/* Steps of a decoder that were recorded, against the same steps made call by call: logits to the
 * bit, over changes of who is seated.  Only where HA_KERNEL_TEST_BACKEND names a device. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "kernels/ops.h"
#include "worker/model/decode.h"

enum { SEQUENCES = 5, VOCAB = 53, PROMPT = 7, ROOM = 40, STEPS = 4, ROUNDS = 5 };

/* Who is seated in each round, and whether one recording serves it and the round before. */
static const struct {
    int n, seats[4];
    bool same_shape;
} rounds[ROUNDS] = {
    {4, {0, 1, 2, 3}, false}, {3, {0, 2, 3}, false},
    {3, {0, 4, 3}, true},  /* the new one has the adapter of the one that went */
    {3, {0, 3, 1}, false}, /* as many rows, of other adapters */
    {4, {1, 0, 4, 3}, false},
};

struct run {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapters[2];
    struct ha_decoder *decoder;
    struct ha_kv_cache *caches[SEQUENCES];
    int32_t prompts[SEQUENCES][PROMPT];
    int32_t last[SEQUENCES], *drawn; /* device (4, STEPS) */
    struct ha_draw *draws;           /* device (4) */
    int64_t n;                       /* seated now */
    float *logits;                   /* of each step of each round, (4, V) */
    double flops, bytes_moved;
    int n_replays;
};

static const struct ha_adapter *adapter_of(const struct run *run, int sequence)
{
    static const int numbers[SEQUENCES] = {-1, 0, 0, 1, 0};

    return numbers[sequence] < 0 ? NULL : run->adapters[numbers[sequence]];
}

static void open_run(struct run *run)
{
    static const struct ha_decoder_limits limits = {SEQUENCES, SEQUENCES * PROMPT, 3};
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);
    struct ha_decoder_sequence call[SEQUENCES];
    struct random random = {8};
    int64_t row[SEQUENCES];
    void *memory = NULL;

    memset(run, 0, sizeof(*run));
    run->backend = open_backend(1);
    config.head_dim = 64; /* which tensor cores take */
    small_model_open(&run->small, run->backend, &config, HA_DTYPE_BF16, 4);
    small_model_join(&run->small, 0);
    for (int i = 0; i < 2; i++)
        run->adapters[i] = random_adapter(run->backend, &config, i, 3, 0xf, 3, 0.5f, 5 + i);
    assert_ok(ha_decoder_create(run->small.model, &limits, &run->decoder, &err));
    for (int i = 0; i < SEQUENCES; i++) {
        for (int t = 0; t < PROMPT; t++)
            run->prompts[i][t] = (int32_t)random_below(&random, VOCAB);
        assert_ok(ha_kv_cache_create(run->small.model, ROOM, &run->caches[i], &err));
        call[i] = (struct ha_decoder_sequence){run->caches[i], adapter_of(run, i), run->prompts[i],
                                               PROMPT - i};
        run->last[i] = (int32_t)random_below(&random, VOCAB);
    }
    assert_ok(ha_decoder_prefill(run->decoder, call, SEQUENCES, NULL, row, &err));
    assert_ok(ha_backend_alloc(run->backend, 4 * sizeof(*run->draws), &memory, &err));
    run->draws = memory;
    assert_ok(ha_backend_alloc(run->backend, 4 * STEPS * sizeof(int32_t), &memory, &err));
    run->drawn = memory;
    run->logits = ha_calloc(ROUNDS * STEPS * 4 * VOCAB, sizeof(float));
    assert_non_null(run->logits);
}

static void close_run(struct run *run)
{
    free(run->logits);
    ha_backend_free(run->backend, run->draws);
    ha_backend_free(run->backend, run->drawn);
    for (int i = 0; i < SEQUENCES; i++)
        ha_kv_cache_destroy(run->caches[i]);
    ha_decoder_destroy(run->decoder);
    ha_adapter_destroy(run->adapters[0]);
    ha_adapter_destroy(run->adapters[1]);
    small_model_close(&run->small);
    ha_backend_close(run->backend);
}

/* Greedy, without an end. */
static void seat(struct run *run, int round)
{
    struct ha_decoder_sequence call[4];
    struct ha_draw draws[4];

    run->n = rounds[round].n;
    for (int64_t i = 0; i < run->n; i++) {
        int sequence = rounds[round].seats[i];

        call[i] = (struct ha_decoder_sequence){run->caches[sequence], adapter_of(run, sequence),
                                               &run->last[sequence], 1};
        draws[i] = (struct ha_draw){.top_p = 1.0, .penalty = 1.0f, .max_new = INT32_MAX};
    }
    assert_ok(ha_decoder_seat(run->decoder, call, run->n, &err));
    assert_ok(
        ha_backend_upload(run->backend, run->draws, draws, (size_t)run->n * sizeof(*draws), &err));
}

static int draw(void *context, struct ha_error *err)
{
    struct run *run = context;
    struct ha_sample sample = {.n_rows = run->n,
                               .vocab = VOCAB,
                               .logits = ha_decoder_logits(run->decoder),
                               .draws = run->draws,
                               .drawn = run->drawn,
                               .drawn_stride = STEPS,
                               .ids = ha_decoder_ids(run->decoder),
                               .positions = ha_decoder_positions(run->decoder)};

    return ha_backend_ops(run->backend)->sample(run->backend, &sample, err);
}

static void step(struct run *run, bool replay)
{
    if (replay && ha_decoder_is_recorded(run->decoder)) {
        assert_ok(ha_decoder_replay(run->decoder, &err));
        run->n_replays++;
    } else {
        assert_ok(ha_decoder_run(run->decoder, &err));
        assert_ok(draw(run, &err));
    }
}

/* What the host has to know before others take the seats. */
static void leave(struct run *run, int round)
{
    int32_t drawn[4 * STEPS];

    assert_ok(ha_backend_download(run->backend, drawn, run->drawn,
                                  (size_t)run->n * STEPS * sizeof(*drawn), &err));
    for (int64_t i = 0; i < run->n; i++) {
        int sequence = rounds[round].seats[i];

        run->last[sequence] = drawn[i * STEPS + STEPS - 1];
        ha_kv_cache_set_length(run->caches[sequence],
                               ha_kv_cache_length(run->caches[sequence]) + STEPS);
    }
}

static void go(struct run *run, bool replay)
{
    float *at;

    open_run(run);
    at = run->logits;
    for (int round = 0; round < ROUNDS; round++) {
        seat(run, round);
        if (replay)
            assert_true(ha_decoder_is_recorded(run->decoder) == rounds[round].same_shape);
        for (int i = 0; i < STEPS; i++, at += 4 * VOCAB) {
            if (replay && i == 1 && !ha_decoder_is_recorded(run->decoder))
                assert_ok(ha_decoder_record(run->decoder, draw, run, &err));
            step(run, replay);
            assert_ok(ha_backend_download(run->backend, at, ha_decoder_logits(run->decoder),
                                          (size_t)(run->n * VOCAB) * sizeof(*at), &err));
        }
        leave(run, round);
    }
    run->flops = ha_backend_flops(run->backend);
    run->bytes_moved = ha_backend_bytes_moved(run->backend);
}

static void replays_are_steps(void **state)
{
    struct run plain, replayed;

    (void)state;
    go(&plain, false);
    go(&replayed, true);
    assert_int_equal(replayed.n_replays, 4 * (STEPS - 1) + STEPS);
    assert_memory_equal(plain.logits, replayed.logits,
                        ROUNDS * STEPS * 4 * VOCAB * sizeof(*plain.logits));
    assert_memory_equal(plain.last, replayed.last, sizeof(plain.last));
    assert_true(plain.flops == replayed.flops && plain.bytes_moved == replayed.bytes_moved);
    close_run(&plain);
    close_run(&replayed);
}

static void nothing_is_replayed_that_was_not_recorded(void **state)
{
    struct ha_error why;
    struct run run;

    (void)state;
    open_run(&run);
    assert_int_equal(ha_decoder_run(run.decoder, &why), -EINVAL); /* nobody is seated */
    assert_int_equal(ha_decoder_record(run.decoder, draw, &run, &why), -EINVAL);
    seat(&run, 0);
    assert_int_equal(ha_decoder_replay(run.decoder, &why), -EINVAL);
    close_run(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_are_steps),
        cmocka_unit_test(nothing_is_replayed_that_was_not_recorded),
    };

    return getenv("HA_KERNEL_TEST_BACKEND") ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
