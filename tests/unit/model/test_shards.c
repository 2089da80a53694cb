/* Weights that ranks share: the arithmetic of shares, and passes that have the bits of whole
 * weights however the ranks' packs differ; what a rank is told whose peer is gone.  Ranks are
 * processes, forked before they open anything. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "kernels/collective.h"
#include "tests/unit/rank.h"
#include "worker/model/decode.h"
#include "worker/model/shards.h"

#define ALL_MODULES ((1u << HA_MODULE_COUNT) - 1)

enum { PROMPT = 9, MOST_STEPS = 5 };
enum { MOST_RANKS = 4, N_PAIRS = 3, VOCAB = 1024, RANK = 3, WAIT_MS = 20000, SHORT_MS = 300 };

/* ---- arithmetic ---- */

static const struct ha_model_config large = {.n_layers = 32,
                                             .width = 4096,
                                             .inner = 14336,
                                             .n_heads = 32,
                                             .n_kv_heads = 8,
                                             .head_dim = 128,
                                             .vocab = 128256};

static void shares_hold_everything(void **state)
{
    struct ha_shard_layout layout;
    int64_t params = ha_model_config_n_params(&large);
    int64_t tables = 2 * large.vocab * large.width,
            layer = (params - tables - large.width) / large.n_layers;

    (void)state;
    for (int ranks = 2; ranks <= 64; ranks += ranks < 8 ? 1 : 7) {
        ha_shard_layout_make(&large, ranks, 2, 0, &layout);
        assert_true(layout.tables);
        assert_int_equal(layout.layer_share % HA_SHARD_ALIGNMENT, 0);
        assert_true(layout.layer_share * ranks >= 2 * layer);
        assert_true(layout.layer_share * ranks < 2 * layer + (int64_t)(ranks + 10) * 256);
        assert_true(layout.table_share * ranks >= tables);
        assert_int_equal(layout.own_bytes, 32 * layout.layer_share + 2 * layout.table_share);
        assert_int_equal(layout.total_bytes,
                         layout.own_bytes + layout.region_bytes + layout.resident_bytes);
        /* A table is larger than two layers. */
        assert_int_equal(layout.region_bytes, layout.table_share * ranks);
        assert_int_equal(layout.resident_bytes, 2 * large.width);
        assert_int_equal(ha_shard_layout_forward_bytes(&layout),
                         (ranks - 1) * (32 * layout.layer_share + 2 * layout.table_share));
        assert_true(layout.total_bytes < 2 * params / ranks + ((int64_t)1100 << 20));
    }
    for (int i = 1; i < HA_SHARD_FIELDS; i++)
        assert_true(layout.offset[i] >= layout.offset[i - 1] && layout.offset[i] % 256 == 0);
    assert_int_equal(layout.offset[HA_SHARD_O], (int64_t)2 * (4096 + 2048) * 4096);
    assert_int_equal(layout.offset[HA_SHARD_O_BIAS], layout.offset[HA_SHARD_QKV_BIAS]);
}

/* Shares and a buffer of a table that is half of the model would be more than the table. */
static void small_models_keep_their_tables(void **state)
{
    struct ha_model_config config = large;
    struct ha_shard_layout layout;

    (void)state;
    config.n_layers = 24;
    config.width = 896;
    config.inner = 4864;
    config.vocab = 151936;
    config.tied = true;
    ha_shard_layout_make(&config, 2, 2, 0, &layout);
    assert_false(layout.tables);
    assert_int_equal(layout.n_tables, 1);
    assert_int_equal(layout.resident_bytes, (config.vocab + 1) * config.width * 2);
    assert_int_equal(layout.region_bytes, 4 * layout.layer_share);
    assert_int_equal(ha_shard_layout_forward_bytes(&layout), 24 * layout.layer_share);
}

/* ---- ranks ---- */

struct rank {
    int rank, ranks;
    const char *kind, *dir; /* of the communicator, of the model */
    struct ha_comm_id id;
    struct ha_backend *backend;
    struct ha_model *model;
    struct ha_comm *comm;
    struct ha_error err;
};

/* What a pass over one pack needs and gives. */
struct work {
    struct ha_pass *pass;
    struct ha_pack *pack;
    struct ha_adapter *adapter;
    int32_t *ids;
    struct ha_pack_pair *pairs;
    float *logp, *coefficient, *gradient; /* host; gradient of all parameters */
    void *there;                          /* the gradient's memory */
    int64_t n_params;
};

static void begin_work(struct rank *rank, struct ha_model *model, uint64_t seed, struct work *work)
{
    const struct ha_model_config *config = ha_model_config(model);
    struct ha_pass_limits limits = {.max_rank = RANK, .lowest_layer = 1, .recomputed_layers = 2};

    work->pairs = random_pairs(N_PAIRS, VOCAB, seed, &work->ids);
    CHECK(ha_pack_create_pairs(work->pairs, NULL, N_PAIRS, true, &work->pack, &rank->err) == 0);
    limits.max_tokens = work->pack->n_tokens;
    limits.max_rows = work->pack->n_rows;
    CHECK(ha_pass_create(model, &limits, &work->pass, &rank->err) == 0);
    work->adapter = random_adapter(rank->backend, config, 1, config->n_layers - 1, ALL_MODULES,
                                   RANK, 0.1f, seed);
    work->n_params = ha_adapter_n_params(work->adapter);
    work->logp = ha_calloc(work->pack->n_rows, sizeof(float));
    work->coefficient = ha_calloc(work->pack->n_rows, sizeof(float));
    work->gradient = ha_calloc(work->n_params, sizeof(float));
    for (int64_t i = 0; i < work->pack->n_rows; i++)
        work->coefficient[i] = 0.01f * (float)(i % 7 - 3);
    CHECK(ha_backend_alloc(rank->backend, (size_t)work->n_params * sizeof(float), &work->there,
                           &rank->err) == 0);
}

static void end_work(struct rank *rank, struct work *work)
{
    ha_backend_free(rank->backend, work->there);
    ha_pass_destroy(work->pass);
    ha_pack_destroy(work->pack);
    ha_adapter_destroy(work->adapter);
    free(work->ids);
    free(work->pairs);
    free(work->logp);
    free(work->coefficient);
    free(work->gradient);
}

static void run_pack(struct rank *rank, struct work *work, bool backward)
{
    size_t bytes = (size_t)work->n_params * sizeof(float);
    struct ha_pass_rows rows;

    CHECK(ha_pass_forward(work->pass, work->pack, work->adapter, backward, &rows, &rank->err) == 0);
    memcpy(work->logp, rows.logp, (size_t)rows.n_rows * sizeof(float));
    if (backward)
        CHECK(ha_pass_backward(work->pass, work->adapter, work->coefficient, work->there,
                               &rank->err) == 0);
    CHECK(ha_backend_download(rank->backend, work->gradient, work->there, bytes, &rank->err) == 0);
    CHECK(ha_backend_sync(rank->backend, &rank->err) == 0);
}

/* The same pack under whole weights and under shared ones. */
static void compare_pack(struct rank *rank, struct ha_model *whole, uint64_t seed, bool backward)
{
    struct work want = {0}, got = {0};

    begin_work(rank, whole, seed, &want);
    run_pack(rank, &want, backward);
    begin_work(rank, rank->model, seed, &got);
    run_pack(rank, &got, backward);
    CHECK(memcmp(got.logp, want.logp, (size_t)want.pack->n_rows * sizeof(float)) == 0);
    CHECK(memcmp(got.gradient, want.gradient, (size_t)want.n_params * sizeof(float)) == 0);
    end_work(rank, &want);
    end_work(rank, &got);
}

static void open_rank(struct rank *rank)
{
    struct ha_model_shard shard = {.rank = rank->rank, .ranks = rank->ranks};
    struct ha_comm_options options = {.kind = rank->kind,
                                      .id = &rank->id,
                                      .rank = rank->rank,
                                      .size = rank->ranks,
                                      .timeout_ms = WAIT_MS};
    const char *dir = rank->dir;
    int64_t before, held;
    struct ha_shard_layout layout;

    rank->backend = open_backend(1);
    CHECK(ha_model_prepare(rank->backend, dir, &rank->model, &rank->err) == 0);
    before = ha_backend_allocated_bytes(rank->backend);
    CHECK(ha_model_load(rank->model, dir, &shard, &rank->err) == 0);
    CHECK(ha_model_ranks(rank->model) == rank->ranks);
    layout = *ha_shards_layout(ha_model_shards(rank->model));
    held = ha_backend_allocated_bytes(rank->backend) - before;
    CHECK(held == layout.total_bytes - (is_cpu(rank->backend) ? layout.resident_bytes : 0));
    options.backend = rank->backend;
    CHECK(ha_comm_create(&options, &rank->comm, &rank->err) == 0);
}

static void close_rank(struct rank *rank)
{
    ha_comm_destroy(rank->comm);
    ha_model_destroy(rank->model);
    ha_backend_close(rank->backend);
}

static void run_ranks(int ranks, const char *family, void (*body)(struct rank *rank),
                      unsigned killed)
{
    struct rank rank = {.ranks = ranks, .kind = "shm", .dir = demo_model_path(family)};
    pid_t pids[MOST_RANKS];

    assert_ok(ha_comm_make_id("shm", ranks, &rank.id, &rank.err));
    fflush(NULL);
    for (rank.rank = 0; rank.rank < ranks; rank.rank++) {
        pids[rank.rank] = fork();
        assert_true(pids[rank.rank] >= 0);
        if (pids[rank.rank] == 0) {
            open_rank(&rank);
            body(&rank);
            close_rank(&rank);
            _exit(0);
        }
    }
    for (int i = 0; i < ranks; i++) {
        int status = -1;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (killed >> i & 1)
            assert_true(WIFSIGNALED(status));
        else if (status != 0)
            fail_msg("%s: rank %d of %d ended with %d", family, i, ranks, status);
    }
}

/* Rank 0 has one pack, rank 1 two, ...; the last gives up one backward pass, as where a loss is not
 * finite, and rank 0 leaves a walk in its middle. */
static void unequal_work(struct rank *rank)
{
    struct ha_shards *shards = ha_model_shards(rank->model);
    int64_t all[MOST_RANKS], own;
    struct ha_model *whole;

    CHECK(ha_model_open(rank->backend, rank->dir, &whole, &rank->err) == 0);
    ha_model_join(rank->model, rank->comm);
    for (int round = 0; round < (is_cpu(rank->backend) ? 2 : 1); round++) {
        for (int i = 0; i <= rank->rank; i++)
            compare_pack(rank, whole, (uint64_t)(100 + 10 * rank->rank + i),
                         rank->rank + 1 < rank->ranks || i > 0);
        if (rank->rank == 0) {
            CHECK(ha_shards_begin(shards, HA_WALK_UP, 1, 5, &rank->err) == 0);
            CHECK(ha_shards_take(shards, 1, &rank->err) == 0);
            CHECK(ha_shards_take(shards, 3, NULL) == -EINVAL);
        }
        CHECK(ha_model_idle(rank->model, &rank->err) == 0);
        own = ha_model_gathered_bytes(rank->model);
        CHECK(ha_comm_gather(rank->comm, all, &own, sizeof(own), &rank->err) == 0);
        for (int i = 0; i < rank->ranks; i++)
            CHECK(all[i] == own && own > 0);
    }
    ha_model_destroy(whole);
}

/* One family on an emulated device, which is slow. */
static void same_bits(void **state)
{
    const char *backend = getenv("HA_KERNEL_TEST_BACKEND");
    bool cpu = !backend || strcmp(backend, "cpu") == 0;

    (void)state;
    for (int i = cpu ? 0 : 3; i < 4; i++)
        run_ranks(2 + (i == 0), golden_families[i], unequal_work, 0);
}

static void *unequal_thread(void *context)
{
    struct rank *rank = context;

    open_rank(rank);
    unequal_work(rank);
    close_rank(rank);
    return NULL;
}

/* The same over a library that looks like NCCL, which is never done at once; ranks are threads. */
static void same_bits_by_nccl(void **state)
{
    struct rank ranks[3];
    pthread_t threads[3];
    struct ha_comm_id id;

    (void)state;
    if (!getenv("HA_NCCL_LIBRARY"))
        skip();
    assert_ok(ha_comm_make_id("nccl", 3, &id, &err));
    for (int i = 0; i < 3; i++) {
        ranks[i] = (struct rank){.rank = i,
                                 .ranks = 3,
                                 .kind = "nccl",
                                 .dir = demo_model_path(golden_families[1]),
                                 .id = id};
        assert_int_equal(pthread_create(&threads[i], NULL, unequal_thread, &ranks[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* ---- answers ---- */

/* Two sequences of one prompt, one of them with an adapter, that write on. */
struct answers {
    struct ha_decoder *decoder;
    struct ha_kv_cache *caches[2];
    struct ha_adapter *adapter;
    struct ha_decoder_sequence sequences[2];
    int32_t prompt[PROMPT], next[2];
    float *logits; /* (2, V) */
    size_t logit_bytes;
    int64_t row[2];
};

static void begin_answers(struct rank *rank, struct ha_model *model, uint64_t seed,
                          struct answers *answers)
{
    struct ha_decoder_limits limits = {
        .max_sequences = 2, .max_prompt_tokens = 2 * PROMPT, .max_rank = RANK};
    const struct ha_model_config *config = ha_model_config(model);
    struct random random = {seed};

    answers->logit_bytes = 2 * (size_t)config->vocab * sizeof(float);
    answers->logits = ha_calloc(2 * config->vocab, sizeof(float));
    CHECK(answers->logits);
    CHECK(ha_decoder_create(model, &limits, &answers->decoder, &rank->err) == 0);
    answers->adapter = random_adapter(rank->backend, config, 2, config->n_layers - 1, ALL_MODULES,
                                      RANK, 0.1f, seed);
    for (int i = 0; i < PROMPT; i++)
        answers->prompt[i] = (int32_t)random_below(&random, VOCAB);
    for (int i = 0; i < 2; i++) {
        CHECK(ha_kv_cache_create(model, PROMPT + MOST_STEPS, &answers->caches[i], &rank->err) == 0);
        answers->sequences[i] = (struct ha_decoder_sequence){
            answers->caches[i], i == 0 ? NULL : answers->adapter, answers->prompt, PROMPT};
    }
}

static void end_answers(struct answers *answers)
{
    for (int i = 0; i < 2; i++)
        ha_kv_cache_destroy(answers->caches[i]);
    ha_adapter_destroy(answers->adapter);
    ha_decoder_destroy(answers->decoder);
    free(answers->logits);
}

/* Step 0 is the prompt; the next ids are any. */
static void advance(struct rank *rank, struct answers *answers, int step)
{
    int r = step == 0 ? ha_decoder_prefill(answers->decoder, answers->sequences, 2, answers->logits,
                                           answers->row, &rank->err)
                      : ha_decoder_step(answers->decoder, answers->sequences, 2, answers->logits,
                                        &rank->err);

    CHECK(r == 0);
    for (int i = 0; i < 2; i++) {
        answers->next[i] = (answers->prompt[step % PROMPT] + 7 * i) % VOCAB;
        answers->sequences[i].ids = &answers->next[i];
        answers->sequences[i].n_ids = 1;
    }
}

static void compare_answers(struct rank *rank, struct ha_model *whole, uint64_t seed, int steps)
{
    struct answers want = {0}, got = {0};

    begin_answers(rank, whole, seed, &want);
    begin_answers(rank, rank->model, seed, &got);
    for (int step = 0; step <= steps; step++) {
        advance(rank, &want, step);
        advance(rank, &got, step);
        CHECK(memcmp(got.row, want.row, sizeof(want.row)) == 0);
        CHECK(memcmp(got.logits, want.logits, want.logit_bytes) == 0);
    }
    end_answers(&want);
    end_answers(&got);
}

/* Rank 0 has nothing to answer, the others more and more; one of them passes over a pack between,
 * as a probe does beside it. */
static void unequal_answers(struct rank *rank)
{
    struct ha_model *whole;

    CHECK(ha_model_open(rank->backend, rank->dir, &whole, &rank->err) == 0);
    ha_model_join(rank->model, rank->comm);
    for (int i = 0; i < rank->rank; i++)
        compare_answers(rank, whole, (uint64_t)(10 * rank->rank + i), MOST_STEPS - rank->rank);
    if (rank->rank == 1)
        compare_pack(rank, whole, 3, false);
    CHECK(ha_model_idle(rank->model, &rank->err) == 0);
    ha_model_destroy(whole);
}

static void answers_have_the_same_bits(void **state)
{
    const char *backend = getenv("HA_KERNEL_TEST_BACKEND");
    bool cpu = !backend || strcmp(backend, "cpu") == 0;

    (void)state;
    for (int i = cpu ? 0 : 3; i < 4; i++)
        run_ranks(2 + (i < 3 ? i : 0), golden_families[i], unequal_answers, 0);
}

static void refusals_of_a_rank(struct rank *rank)
{
    struct ha_pass_rows rows;
    struct work work = {0};
    struct answers answers = {0};

    begin_answers(rank, rank->model, 1, &answers);
    CHECK(ha_decoder_prefill(answers.decoder, answers.sequences, 2, answers.logits, answers.row,
                             &rank->err) == -EINVAL);
    CHECK(strstr(ha_error_text(&rank->err), "not together"));
    end_answers(&answers);
    begin_work(rank, rank->model, 1, &work);
    CHECK(ha_pass_forward(work.pass, work.pack, NULL, false, &rows, &rank->err) == -EINVAL);
    CHECK(strstr(ha_error_text(&rank->err), "not together"));
    /* Products may be timed before. */
    ha_shards_rehearse(ha_model_shards(rank->model), true);
    CHECK(ha_pass_forward(work.pass, work.pack, NULL, false, &rows, &rank->err) == 0);
    ha_shards_rehearse(ha_model_shards(rank->model), false);
    end_work(rank, &work);
}

static void refusals(void **state)
{
    (void)state;
    run_ranks(2, golden_families[3], refusals_of_a_rank, 0);
}

static void embed_and_begin(struct rank *rank, struct work *work)
{
    begin_work(rank, rank->model, 5, work);
    ha_model_join(rank->model, rank->comm);
    CHECK(ha_pass_begin(work->pass, work->pack, &rank->err) == 0);
    CHECK(ha_pass_embed(work->pass, &rank->err) == 0);
}

static void one_is_killed(struct rank *rank)
{
    struct work work = {0};

    embed_and_begin(rank, &work);
    if (rank->rank == 1) {
        CHECK(ha_shards_begin(ha_model_shards(rank->model), HA_WALK_UP, 0, 6, &rank->err) == 0);
        CHECK(ha_shards_take(ha_model_shards(rank->model), 0, &rank->err) == 0);
        (void)raise(SIGKILL);
    }
    CHECK(ha_pass_layers(work.pass, work.adapter, 0, 6, &rank->err) == -ECONNABORTED);
    CHECK(strstr(ha_error_text(&rank->err), "rank 1") || strstr(ha_error_text(&rank->err), "gave"));
    CHECK(ha_model_idle(rank->model, &rank->err) == -ECONNABORTED);
    end_work(rank, &work);
}

static void keep_line(void *context, const char *text)
{
    (void)snprintf(context, HA_COMM_LINE_BYTES, "%s", text);
}

static void one_stands_still(struct rank *rank)
{
    char last[HA_COMM_LINE_BYTES];
    int64_t start_ms;
    struct work work = {0};

    embed_and_begin(rank, &work);
    if (rank->rank == 1) {
        CHECK(ha_shards_begin(ha_model_shards(rank->model), HA_WALK_UP, 0, 6, &rank->err) == 0);
        (void)usleep(4 * SHORT_MS * 1000);
        (void)raise(SIGKILL);
    }
    ha_comm_set_timeout(rank->comm, SHORT_MS);
    start_ms = ha_clock_boot_ms();
    CHECK(ha_pass_layers(work.pass, work.adapter, 0, 6, &rank->err) == -ETIMEDOUT);
    CHECK(ha_clock_boot_ms() - start_ms < 3 * SHORT_MS);
    CHECK(strstr(ha_error_text(&rank->err), "no sign of rank 1"));
    ha_comm_dump(rank->comm, keep_line, last);
    CHECK(strstr(last, "device gather of ") && strstr(last, "not done after"));
    end_work(rank, &work);
}

static void a_lost_rank_is_told(void **state)
{
    (void)state;
    run_ranks(2, golden_families[0], one_is_killed, 1u << 1);
    run_ranks(2, golden_families[0], one_stands_still, 1u << 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_hold_everything),
        cmocka_unit_test(small_models_keep_their_tables),
        cmocka_unit_test(same_bits),
        cmocka_unit_test(same_bits_by_nccl),
        cmocka_unit_test(answers_have_the_same_bits),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_lost_rank_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
