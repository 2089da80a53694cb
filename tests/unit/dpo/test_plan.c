/* Parameters, FLOPs and memory of the paper's models by arithmetic, against
 * the tables of the performance reference (gpu.md 2.2, 2.5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "worker/dpo/plan.h"

#define QKVO 0xfu

/* Mixed hh-rlhf lengths: 282 tokens shared, 134 of them answers; Llama-2 331 and 152. */
static const struct {
    struct ha_model_config config;
    double trainable, prompt, answers;
    double reference, full; /* TFLOP a pair; full: forward + backward */
    int64_t mid_start;
} models[] = {
    {{.n_layers = 32,
      .width = 4096,
      .inner = 11008,
      .n_heads = 32,
      .n_kv_heads = 32,
      .head_dim = 128,
      .vocab = 32000},
     16.8e6,
     179,
     152,
     4.38,
     8.82,
     11},
    {{.n_layers = 32,
      .width = 4096,
      .inner = 14336,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .vocab = 128256},
     13.6e6,
     148,
     134,
     4.11,
     8.29,
     11},
    {{.n_layers = 28,
      .width = 3584,
      .inner = 18944,
      .n_heads = 28,
      .n_kv_heads = 4,
      .head_dim = 128,
      .vocab = 152064},
     10.1e6,
     148,
     134,
     3.86,
     7.76,
     10},
    {{.n_layers = 36,
      .width = 4096,
      .inner = 12288,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .vocab = 151936},
     15.3e6,
     148,
     134,
     4.13,
     8.31,
     12},
};

static struct ha_dpo_plan plan_of(size_t model, int64_t first, int64_t max_tokens)
{
    int64_t layers[64];
    struct ha_adapter_settings adapter = {
        .rank = 16, .alpha = 32, .modules = QKVO, .layers = layers};
    struct ha_dpo_plan_request request = {
        .config = &models[model].config,
        .adapter = &adapter,
        .activation = HA_DTYPE_BF16,
        .max_tokens = max_tokens,
        .max_rows = max_tokens / 2,
        .prompt_tokens = models[model].prompt,
        .chosen_tokens = models[model].answers / 2,
        .rejected_tokens = models[model].answers / 2,
        .share_prompt = true,
    };
    struct ha_dpo_plan plan;

    for (int64_t i = first; i < models[model].config.n_layers; i++)
        layers[adapter.n_layers++] = i;
    assert_int_equal(ha_dpo_plan_make(&request, &plan, NULL), 0);
    return plan;
}

static void near(double got, double want, double share)
{
    if (!(fabs(got - want) <= share * want))
        fail_msg("%g is not within %g of %g", got, share, want);
}

static void published_figures(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct ha_dpo_plan full = plan_of(i, 0, 6768), mid = plan_of(i, models[i].mid_start, 6768);
        double layers = (double)models[i].config.n_layers, skipped = (double)models[i].mid_start;

        near((double)full.n_trainable, models[i].trainable, 0.01);
        near(full.reference_flops / 1e12, models[i].reference, 0.03);
        near((full.forward_flops + full.backward_flops) / 1e12, models[i].full, 0.03);
        near(mid.backward_flops, full.backward_flops * (layers - skipped) / layers, 0.05);
        assert_int_equal(mid.lowest_layer, models[i].mid_start);
        assert_true(mid.pass_bytes < full.pass_bytes);
        assert_int_equal(full.weight_bytes, 2 * full.n_params);
        assert_int_equal(full.adapter_bytes, 16 * full.n_trainable);
        assert_int_equal(full.total_bytes,
                         full.pass_bytes + full.adapter_bytes + full.weight_bytes);
    }
}

static void impossible_plans(void **state)
{
    int64_t layer = 40;
    struct ha_adapter_settings adapter = {
        .rank = 16, .alpha = 32, .modules = QKVO, .layers = &layer, .n_layers = 1};
    struct ha_dpo_plan_request request = {.config = &models[0].config, .adapter = &adapter};
    struct ha_dpo_plan plan;

    (void)state;
    assert_int_equal(ha_dpo_plan_make(&request, &plan, NULL), -EINVAL);
    layer = 3;
    request.max_tokens = INT64_MAX;
    assert_int_equal(ha_dpo_plan_make(&request, &plan, NULL), -EINVAL);
    request.max_tokens = 0;
    assert_int_equal(ha_dpo_plan_make(&request, &plan, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_figures),
        cmocka_unit_test(impossible_plans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
