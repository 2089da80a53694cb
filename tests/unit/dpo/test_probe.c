/* Norms of frozen weights' gradients on small random models: that they are the loss's slopes, what
 * is averaged over what, and how a probe ends. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/memory.h"
#include "kernels/collective.h"
#include "tests/unit/dpo/pair_sets.h"
#include "worker/dpo/probe.h"

enum { N_PAIRS = 9, RANKS = 4, VOCAB = 53, N_WEIGHTS = HA_DPO_PROBE_ALL };

static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2, HA_FAMILY_QWEN3};

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pair_set set;
    struct ha_dpo_probe_settings settings;
};

static void set_up(struct fixture *fixture, enum ha_model_family family, enum ha_dtype dtype,
                   int threads)
{
    struct ha_model_config config = small_config(family);

    *fixture = (struct fixture){.backend = open_cpu(threads)};
    small_model_open_rounded(&fixture->small, fixture->backend, &config, dtype, HA_DTYPE_BF16, 7);
    fixture->set = random_pair_set(N_PAIRS, VOCAB, 21);
    fixture->settings = (struct ha_dpo_probe_settings){.pairs = N_PAIRS, .share_prompt = true};
    ha_dpo_loss_defaults(&fixture->settings.loss);
}

static void tear_down(struct fixture *fixture)
{
    clear_pair_set(&fixture->set);
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
}

static struct ha_dpo_probe_result *probe(const struct fixture *fixture)
{
    struct ha_dpo_probe_result *result = NULL;

    assert_ok(ha_dpo_probe(fixture->small.model, &fixture->set, &fixture->settings, NULL, NULL,
                           NULL, &result, &err));
    return result;
}

/* The set's pair `index` alone; borrows from the set. */
static struct ha_pair_set alone(const struct ha_pair_set *set, int64_t index)
{
    return (struct ha_pair_set){
        .n_pairs = 1, .ids = set->ids, .offset = set->offset + 3 * index, .row = set->row + index};
}

/* ---- against the loss itself ---- */

/* dW of one weight, by the definition. */
struct taken {
    int64_t layer;
    int module;
    double *dw;
};

static int take(void *user, int64_t layer, enum ha_module module, const struct ha_matrix *dy,
                const struct ha_matrix *x, struct ha_error *err)
{
    struct taken *taken = user;
    const float *dys = dy->data, *xs = x->data;

    (void)err;
    if (layer != taken->layer || (int)module != taken->module)
        return 0;
    for (int64_t t = 0; t < dy->rows; t++)
        for (int64_t o = 0; o < dy->cols; o++)
            for (int64_t i = 0; i < x->cols; i++)
                taken->dw[o * x->cols + i] +=
                    (double)dys[t * dy->stride + o] * (double)xs[t * x->stride + i];
    return 0;
}

static double side_sum(const struct ha_pass_rows *rows, const struct ha_pack_rows *side)
{
    double sum = 0;

    for (int64_t i = side->begin; i < side->begin + side->count; i++)
        sum += (double)rows->logp[i];
    return sum;
}

/* chosen - rejected */
static double log_ratio(const struct ha_pack *pack, struct ha_pass *pass, bool gradient)
{
    struct ha_pass_rows rows;

    assert_ok(ha_pass_forward(pass, pack, NULL, gradient, &rows, &err));
    return side_sum(&rows, &pack->chosen[0]) - side_sum(&rows, &pack->rejected[0]);
}

/* -log sigmoid(beta (now - reference)) */
static double sigmoid_loss(double now, double reference, double beta)
{
    return log1p(exp(-beta * (now - reference)));
}

/* Along G / ||G|| the loss rises with slope ||G||, while the reference stays where it was. */
static double slope_along_gradient(struct fixture *fixture, const struct ha_pack *pack,
                                   int64_t layer, int module)
{
    const struct ha_matrix *weight = &fixture->small.weights.layers[layer].linear[module];
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens, .max_rows = pack->n_rows};
    int64_t n = weight->rows * weight->cols;
    struct taken taken = {layer, module, ha_calloc(n, sizeof(double))};
    float *w = weight->data, *kept = ha_calloc(n, sizeof(float));
    float *coefficient = ha_calloc(pack->n_rows, sizeof(float));
    double beta = fixture->settings.loss.beta, step = 2e-2, norm = 0, reference, losses[2];
    struct ha_pass *pass = NULL;

    assert_non_null(taken.dw);
    assert_non_null(kept);
    assert_non_null(coefficient);
    for (int64_t i = 0; i < pack->n_rows; i++)
        coefficient[i] =
            (float)(i < pack->chosen[0].begin + pack->chosen[0].count ? -beta / 2 : beta / 2);
    assert_ok(ha_pass_create(fixture->small.model, &limits, &pass, &err));
    reference = log_ratio(pack, pass, true);
    assert_ok(ha_pass_backward_frozen(pass, coefficient, take, &taken, &err));
    for (int64_t i = 0; i < n; i++)
        norm += taken.dw[i] * taken.dw[i];
    norm = sqrt(norm);
    memcpy(kept, w, (size_t)n * sizeof(float));
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            w[i] = kept[i] + (float)((side ? -step : step) * taken.dw[i] / norm);
        losses[side] = sigmoid_loss(log_ratio(pack, pass, false), reference, beta);
    }
    memcpy(w, kept, (size_t)n * sizeof(float));
    ha_pass_destroy(pass);
    free(coefficient);
    free(kept);
    free(taken.dw);
    return (losses[0] - losses[1]) / (2 * step);
}

static void norms_are_slopes_of_the_loss(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct ha_dpo_probe_result *result;
        struct fixture fixture;
        struct ha_pack_pair pair;
        struct ha_pack *pack = NULL;
        struct ha_pair at;

        set_up(&fixture, families[f], HA_DTYPE_F32, 1);
        fixture.settings.pairs = 1;
        at = ha_pair_at(&fixture.set, 0);
        pair = (struct ha_pack_pair){at.prompt,   at.chosen,   at.rejected,
                                     at.n_prompt, at.n_chosen, at.n_rejected};
        assert_ok(ha_pack_create_pairs(&pair, NULL, 1, true, &pack, &err));
        result = probe(&fixture);
        for (int64_t layer = 0; layer < fixture.small.config.n_layers; layer++) {
            for (int module = 0; module < N_WEIGHTS; module++) {
                double slope = slope_along_gradient(&fixture, pack, layer, module);
                double norm = result->norms[layer].norm[module];

                assert_true(norm > 1e-3);
                assert_true(fabs(slope - norm) <= 5e-3 * norm + 1e-4);
            }
        }
        ha_dpo_probe_result_destroy(result);
        ha_pack_destroy(pack);
        tear_down(&fixture);
    }
}

/* ---- sums and means ---- */

static void assert_close(double a, double b, double limit)
{
    if (!(fabs(a - b) <= limit * fabs(b)))
        fail_msg("%.9g is not %.9g", a, b);
}

static void means_of_norms(void **state)
{
    const struct ha_dpo_probe_range ranges[] = {{0, 2}, {1, 3}, {2, 0}, {0, 4}};
    struct ha_dpo_probe_result *result;
    double means[8][HA_DPO_PROBE_MODULES] = {{0}};
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, HA_DTYPE_BF16, 1);
    fixture.settings.ranges = ranges;
    fixture.settings.n_ranges = 4;
    result = probe(&fixture);
    assert_int_equal(result->n_norms, 8);
    assert_int_equal(result->n_pairs, N_PAIRS);
    for (int64_t pair = 0; pair < N_PAIRS; pair++) {
        struct fixture one = fixture;
        struct ha_dpo_probe_result *single;

        one.set = alone(&fixture.set, pair);
        single = probe(&one);
        for (int64_t i = 0; i < 8; i++) {
            double squares[HA_DPO_PROBE_MODULES] = {0};

            for (int64_t layer = 0; layer < 4; layer++) {
                if (i < 4 ? layer != i
                          : layer < ranges[i - 4].first ||
                                layer >= ranges[i - 4].first + ranges[i - 4].count)
                    continue;
                for (int m = 0; m < N_WEIGHTS; m++) {
                    double square = single->norms[layer].norm[m] * single->norms[layer].norm[m];

                    squares[m] += square;
                    squares[HA_DPO_PROBE_ALL] += square;
                }
            }
            for (int m = 0; m < HA_DPO_PROBE_MODULES; m++)
                means[i][m] += sqrt(squares[m]) / N_PAIRS;
        }
        ha_dpo_probe_result_destroy(single);
    }
    for (int64_t i = 0; i < 8; i++)
        for (int m = 0; m < HA_DPO_PROBE_MODULES; m++)
            assert_close(result->norms[i].norm[m], means[i][m], 1e-12);
    assert_true(result->norms[7].norm[HA_DPO_PROBE_ALL] > result->norms[5].norm[HA_DPO_PROBE_ALL]);
    ha_dpo_probe_result_destroy(result);
    tear_down(&fixture);
}

static void parameters_are_counted(void **state)
{
    const struct ha_dpo_probe_range range = {1, 3};
    struct ha_dpo_probe_result *result;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, HA_DTYPE_F32, 1);
    fixture.settings.ranges = &range;
    fixture.settings.n_ranges = 1;
    result = probe(&fixture);
    /* Width 24, 4 heads and 2 key-value heads of 10. */
    assert_int_equal(result->norms[2].range.first, 2);
    assert_int_equal(result->norms[2].parameters[HA_MODULE_Q], 40 * 24);
    assert_int_equal(result->norms[2].parameters[HA_MODULE_K], 20 * 24);
    assert_int_equal(result->norms[2].parameters[HA_MODULE_V], 20 * 24);
    assert_int_equal(result->norms[2].parameters[HA_MODULE_O], 24 * 40);
    assert_int_equal(result->norms[2].parameters[HA_DPO_PROBE_ALL], 120 * 24);
    assert_int_equal(result->norms[4].range.count, 3);
    assert_int_equal(result->norms[4].parameters[HA_MODULE_Q], 3 * 40 * 24);
    assert_int_equal(result->norms[4].parameters[HA_DPO_PROBE_ALL], 3 * 120 * 24);
    assert_string_equal(ha_dpo_probe_module_name(HA_MODULE_O), "o_proj");
    assert_string_equal(ha_dpo_probe_module_name(HA_DPO_PROBE_ALL), "all");
    assert_true(result->n_tokens > 0 && result->flops > 0 && result->pass_bytes > 0);
    ha_dpo_probe_result_destroy(result);
    tear_down(&fixture);
}

static void first_pairs_are_taken(void **state)
{
    struct ha_dpo_probe_result *few, *all, *more;
    struct fixture fixture, shorter;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, HA_DTYPE_F32, 1);
    all = probe(&fixture);
    fixture.settings.pairs = 1000;
    more = probe(&fixture);
    assert_int_equal(more->n_pairs, N_PAIRS);
    assert_true(more->norms[1].norm[0] == all->norms[1].norm[0]);
    fixture.settings.pairs = 3;
    few = probe(&fixture);
    shorter = fixture;
    shorter.set.n_pairs = 3;
    ha_dpo_probe_result_destroy(more);
    more = probe(&shorter);
    assert_int_equal(few->n_pairs, 3);
    assert_true(more->norms[1].norm[0] == few->norms[1].norm[0]);
    assert_true(few->norms[1].norm[0] != all->norms[1].norm[0]);
    ha_dpo_probe_result_destroy(more);
    ha_dpo_probe_result_destroy(few);
    ha_dpo_probe_result_destroy(all);
    tear_down(&fixture);
}

/* ---- what must not matter ---- */

static void compare(const struct ha_dpo_probe_result *a, const struct ha_dpo_probe_result *b,
                    double limit)
{
    assert_int_equal(a->n_norms, b->n_norms);
    for (int64_t i = 0; i < a->n_norms; i++)
        for (int m = 0; m < HA_DPO_PROBE_MODULES; m++)
            assert_close(a->norms[i].norm[m], b->norms[i].norm[m], limit);
}

static void shared_prompts_threads_and_types(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct ha_dpo_probe_result *shared, *separate, *threads, *half;
        struct fixture fixture;

        set_up(&fixture, families[f], HA_DTYPE_F32, 1);
        shared = probe(&fixture);
        fixture.settings.share_prompt = false;
        separate = probe(&fixture);
        assert_true(separate->n_tokens > shared->n_tokens);
        tear_down(&fixture);
        set_up(&fixture, families[f], HA_DTYPE_F32, 3);
        threads = probe(&fixture);
        tear_down(&fixture);
        set_up(&fixture, families[f], HA_DTYPE_BF16, 1);
        half = probe(&fixture);
        tear_down(&fixture);
        compare(separate, shared, 1e-5);
        compare(threads, shared, 0);
        compare(half, shared, 0);
        ha_dpo_probe_result_destroy(half);
        ha_dpo_probe_result_destroy(threads);
        ha_dpo_probe_result_destroy(separate);
        ha_dpo_probe_result_destroy(shared);
    }
}

/* With less memory layers run again, and no bit changes. */
static void memory_is_kept_to(void **state)
{
    struct ha_dpo_probe_result *wide, *narrow = NULL, *none = NULL;
    struct ha_error err = {0};
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, HA_DTYPE_F32, 1);
    wide = probe(&fixture);
    assert_int_equal(wide->recomputed_layers, 0);
    for (int64_t layers = 1; layers < 4; layers++) {
        fixture.settings.memory_bytes = (narrow ? narrow : wide)->planned_bytes - 1;
        ha_dpo_probe_result_destroy(narrow);
        narrow = probe(&fixture);
        assert_int_equal(narrow->recomputed_layers, layers);
        assert_true(narrow->planned_bytes <= fixture.settings.memory_bytes);
        assert_true(narrow->pass_bytes < wide->pass_bytes);
        compare(narrow, wide, 0);
    }
    fixture.settings.memory_bytes = narrow->planned_bytes - 1;
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL,
                                  NULL, &none, &err),
                     -EFBIG);
    assert_non_null(strstr(ha_error_text(&err), "may be used (the limit); lower train.max_length"));
    assert_null(none);
    ha_dpo_probe_result_destroy(narrow);
    ha_dpo_probe_result_destroy(wide);
    tear_down(&fixture);
}

/* At the reference a loss's slope is a number of the loss alone; norms go by it. */
static void losses_differ_by_their_slope(void **state)
{
    struct ha_dpo_probe_result *sigmoid, *hinge;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN2, HA_DTYPE_F32, 1);
    sigmoid = probe(&fixture);
    fixture.settings.loss.terms[0].kind = HA_DPO_HINGE; /* slope beta in place of beta / 2 */
    hinge = probe(&fixture);
    for (int64_t i = 0; i < sigmoid->n_norms; i++)
        assert_close(hinge->norms[i].norm[1], 2 * sigmoid->norms[i].norm[1], 1e-5);
    ha_dpo_probe_result_destroy(hinge);
    ha_dpo_probe_result_destroy(sigmoid);
    tear_down(&fixture);
}

static void every_loss_has_norms(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, HA_DTYPE_F32, 1);
    fixture.settings.pairs = 2;
    for (int kind = HA_DPO_SIGMOID; kind <= HA_DPO_SFT; kind++) {
        struct ha_dpo_probe_result *result;

        fixture.settings.loss.terms[0].kind = (enum ha_dpo_loss_kind)kind;
        fixture.settings.loss.label_smoothing = kind == HA_DPO_EXO_PAIR ? 0.1 : 0;
        fixture.settings.loss.use_weighting = kind < HA_DPO_AOT;
        result = probe(&fixture);
        assert_true(result->norms[3].norm[HA_DPO_PROBE_ALL] > 0);
        ha_dpo_probe_result_destroy(result);
    }
    tear_down(&fixture);
}

/* ---- how it ends ---- */

struct watch {
    int64_t calls, last_tokens, cancel_at, stop_at;
    volatile sig_atomic_t stop;
};

static int on_progress(void *user, int64_t done, int64_t total, int64_t tokens, int64_t elapsed_ns,
                       struct ha_error *err)
{
    struct watch *watch = user;

    assert_int_equal(done, ++watch->calls);
    assert_int_equal(total, N_PAIRS);
    assert_true(tokens > watch->last_tokens && elapsed_ns >= 0);
    watch->last_tokens = tokens;
    if (done == watch->stop_at)
        watch->stop = 1;
    return done == watch->cancel_at ? ha_error_set(err, ECANCELED, "enough") : 0;
}

static void stops_and_refusals(void **state)
{
    struct ha_dpo_probe_result *result = NULL;
    const struct ha_dpo_probe_range beyond = {2, 3};
    struct watch watch = {.stop_at = 2};
    struct ha_error err = {0};
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, HA_DTYPE_F32, 1);
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, on_progress,
                                  &watch, &watch.stop, &result, &err),
                     -EINTR);
    assert_int_equal(watch.calls, 2);
    watch = (struct watch){.cancel_at = 3};
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, on_progress,
                                  &watch, &watch.stop, &result, &err),
                     -ECANCELED);
    assert_int_equal(watch.calls, 3);
    fixture.settings.pairs = 0;
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL,
                                  NULL, &result, &err),
                     -EINVAL);
    fixture.settings.pairs = N_PAIRS;
    fixture.settings.ranges = &beyond;
    fixture.settings.n_ranges = 1;
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL,
                                  NULL, &result, &err),
                     -EINVAL);
    assert_non_null(strstr(ha_error_text(&err), "2 to 4"));
    fixture.settings.n_ranges = 0;
    fixture.settings.loss.beta = 0;
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL,
                                  NULL, &result, &err),
                     -EINVAL);
    assert_null(result);
    tear_down(&fixture);
}

static void infinities_are_named(void **state)
{
    struct ha_dpo_probe_result *result = NULL;
    struct ha_error err = {0};
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, HA_DTYPE_F32, 1);
    *(float *)fixture.small.weights.layers[2].linear[HA_MODULE_V].data = INFINITY;
    assert_int_equal(ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL,
                                  NULL, &result, &err),
                     -ERANGE);
    assert_non_null(strstr(ha_error_text(&err), "row 0"));
    assert_null(result);
    tear_down(&fixture);
}

/* ---- gangs ---- */

/* A rank of a gang, in a process of its own; returns its exit status. */
static int run_rank(int rank, const struct ha_comm_id *id, bool stops)
{
    struct ha_comm_options options = {
        .kind = "shm", .id = id, .rank = rank, .size = RANKS, .timeout_ms = 20000};
    struct ha_dpo_probe_result *one = NULL, *all = NULL;
    volatile sig_atomic_t stop = stops && rank == 1;
    struct ha_error why = {0};
    struct ha_comm *comm = NULL;
    struct fixture fixture;
    int r, status = 0;

    set_up(&fixture, HA_FAMILY_QWEN3, HA_DTYPE_F32, 1);
    one = probe(&fixture);
    options.backend = fixture.backend;
    r = ha_comm_create(&options, &comm, &why);
    fixture.settings.ranks = RANKS;
    fixture.settings.comm = comm;
    if (r == 0)
        r = ha_dpo_probe(fixture.small.model, &fixture.set, &fixture.settings, NULL, NULL, &stop,
                         &all, &why);
    if (stops)
        status = r == -EINTR ? 0 : 1;
    else if (r < 0 || all->n_pairs != one->n_pairs || all->n_tokens != one->n_tokens ||
             all->flops != one->flops)
        status = 2;
    for (int64_t i = 0; r == 0 && i < one->n_norms; i++)
        if (memcmp(all->norms[i].norm, one->norms[i].norm, sizeof(one->norms[i].norm)) != 0)
            status = 3;
    if (status != 0)
        print_error("rank %d: %d: %s\n", rank, status, ha_error_text(&why));
    ha_comm_destroy(comm);
    ha_dpo_probe_result_destroy(one);
    ha_dpo_probe_result_destroy(all);
    tear_down(&fixture);
    return status;
}

/* Of more ranks than divide the pairs; then one of them is told to stop. */
static void gangs_find_the_same(void **state)
{
    struct ha_comm_id id;

    (void)state;
    for (int stops = 0; stops < 2; stops++) {
        pid_t pids[RANKS];

        assert_ok(ha_comm_make_id("shm", RANKS, &id, &err));
        fflush(NULL);
        for (int rank = 0; rank < RANKS; rank++) {
            pids[rank] = fork();
            assert_true(pids[rank] >= 0);
            if (pids[rank] == 0)
                _exit(run_rank(rank, &id, stops != 0));
        }
        for (int rank = 0; rank < RANKS; rank++) {
            int status = -1;

            assert_int_equal(waitpid(pids[rank], &status, 0), pids[rank]);
            assert_int_equal(status, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_are_slopes_of_the_loss),
        cmocka_unit_test(means_of_norms),
        cmocka_unit_test(parameters_are_counted),
        cmocka_unit_test(first_pairs_are_taken),
        cmocka_unit_test(shared_prompts_threads_and_types),
        cmocka_unit_test(memory_is_kept_to),
        cmocka_unit_test(losses_differ_by_their_slope),
        cmocka_unit_test(every_loss_has_norms),
        cmocka_unit_test(stops_and_refusals),
        cmocka_unit_test(infinities_are_named),
        cmocka_unit_test(gangs_find_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
