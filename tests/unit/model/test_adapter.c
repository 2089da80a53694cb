/* Adapters: start values as PEFT draws them, files round trip, and what is refused. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

/* Width 48, heads 4 x 12, 2 key heads, inner 96. */
static const struct ha_adapter_geometry geometry = {
    .n_layers = 3,
    .in = {48, 48, 48, 48, 48, 48, 96},
    .out = {48, 24, 24, 48, 96, 96, 48},
};

static const int64_t layers[] = {1, 2};

static const struct ha_adapter_settings settings = {
    .rank = 5,
    .alpha = 7,
    .dropout = 0.05,
    .modules = 1u << HA_MODULE_Q | 1u << HA_MODULE_K | 1u << HA_MODULE_V | 1u << HA_MODULE_O |
               1u << HA_MODULE_DOWN,
    .layers = layers,
    .n_layers = 2,
};

static char dir[] = "/tmp/ha_test_adapter_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static struct ha_adapter *make_adapter(struct ha_backend *backend)
{
    struct ha_adapter *adapter = NULL;

    assert_ok(ha_adapter_create(backend, &geometry, &settings, &adapter, &err));
    return adapter;
}

/* torch 2.9.1, peft 0.20.0: torch.manual_seed(42); get_peft_model(LlamaForCausalLM, r=5,
 * lora_alpha=7, target_modules = q, k, v, o, down, layers_to_transform = [1, 2]); first three
 * values and last. */
static void start_values_are_peft_s(void **state)
{
    static const struct {
        int64_t layer;
        enum ha_module module;
        double values[4];
    } cases[] = {
        {1,
         HA_MODULE_Q,
         {0.0743044912815094, -0.056062012910842896, -0.0849522277712822, -0.04183030501008034}},
        {1,
         HA_MODULE_K,
         {-0.07590322196483612, -0.04868806526064873, -0.09217202663421631, 0.01570642925798893}},
        {1,
         HA_MODULE_O,
         {-0.11103048920631409, -0.08523442596197128, -0.05939466506242752, 0.109504334628582}},
        {1,
         HA_MODULE_DOWN,
         {0.02072455734014511, -0.08682253211736679, 0.05229894816875458, -0.0038273059763014317}},
        {2,
         HA_MODULE_Q,
         {0.055940140038728714, -0.0030609802342951298, 0.13213038444519043, -0.08115097880363464}},
        {2,
         HA_MODULE_DOWN,
         {-0.07078471779823303, 0.04150240495800972, -0.07254217565059662, 0.04385973885655403}},
    };
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter *adapter = make_adapter(backend);

    (void)state;
    assert_ok(ha_adapter_init(adapter, 42, &err));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct ha_lora *lora = ha_adapter_lora(adapter, cases[i].layer, cases[i].module);
        const float *a = lora->a.data, *b = lora->b.data;
        int64_t n = lora->a.rows * lora->a.cols;

        for (int j = 0; j < 3; j++)
            assert_true(fabs((double)a[j] - cases[i].values[j]) <= 1e-8);
        assert_true(fabs((double)a[n - 1] - cases[i].values[3]) <= 1e-8);
        for (int64_t j = 0; j < lora->b.rows * lora->b.cols; j++)
            assert_true(b[j] == 0.0f);
    }
    assert_null(ha_adapter_lora(adapter, 0, HA_MODULE_Q)->a.data);
    assert_null(ha_adapter_lora(adapter, 1, HA_MODULE_UP)->a.data);
    assert_true(ha_adapter_scale(adapter) == 1.4f);
    assert_int_equal(ha_adapter_lowest_layer(adapter), 1);
    ha_adapter_destroy(adapter);
    ha_backend_close(backend);
}

static void fill(const struct ha_adapter *adapter)
{
    struct random random = {3};

    for (int64_t i = 0; i < ha_adapter_n_params(adapter); i++)
        ha_adapter_params(adapter)[i] = random_uniform(&random);
}

static void files_round_trip(void **state)
{
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter *adapter = make_adapter(backend), *loaded = NULL;
    const struct ha_adapter_settings *got;

    (void)state;
    fill(adapter);
    assert_ok(ha_adapter_save(adapter, dir, "org/base", &err));
    assert_ok(ha_adapter_load(backend, &geometry, dir, &loaded, &err));
    got = ha_adapter_settings(loaded);
    assert_int_equal(got->rank, 5);
    assert_true(got->alpha == 7 && got->dropout == 0.05 && !got->rslora);
    assert_int_equal(got->modules, settings.modules);
    assert_int_equal(got->n_layers, 2);
    assert_memory_equal(got->layers, layers, sizeof(layers));
    assert_int_equal(ha_adapter_n_params(loaded), ha_adapter_n_params(adapter));
    assert_memory_equal(ha_adapter_params(loaded), ha_adapter_params(adapter),
                        (size_t)ha_adapter_n_params(adapter) * sizeof(float));
    ha_adapter_destroy(loaded);
    ha_adapter_destroy(adapter);
    ha_backend_close(backend);
}

static void golden_adapters_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct ha_backend *backend;
        struct ha_model_config config;
        struct ha_adapter_geometry shape;
        struct ha_adapter *loaded = NULL, *fresh = NULL;

        backend = open_cpu(1);
        assert_ok(ha_model_config_load(demo_model_path(golden_families[i]), &config, &err));
        ha_model_config_geometry(&config, &shape);
        assert_ok(ha_adapter_load(backend, &shape, golden_path(golden_families[i], "adapter-zero"),
                                  &loaded, &err));
        /* It was drawn by PEFT after manual_seed(42). */
        assert_ok(ha_adapter_create(backend, &shape, ha_adapter_settings(loaded), &fresh, &err));
        assert_ok(ha_adapter_init(fresh, 42, &err));
        for (int64_t j = 0; j < ha_adapter_n_params(fresh); j++)
            assert_true(fabs((double)ha_adapter_params(fresh)[j] -
                             (double)ha_adapter_params(loaded)[j]) <= 1e-8);
        ha_adapter_destroy(fresh);
        ha_adapter_destroy(loaded);
        ha_backend_close(backend);
    }
}

/* Write a configuration over a good adapter's files; the error must name `names`. */
static void expect_refused(struct ha_backend *backend, const char *config, const char *names)
{
    struct ha_adapter *adapter = NULL;
    struct ha_error err = {0};
    char *path = ha_path_join(dir, "adapter_config.json");
    int r = ha_file_write(path, config, strlen(config), 0644, &err);

    assert_int_equal(r, 0);
    free(path);
    r = ha_adapter_load(backend, &geometry, dir, &adapter, &err);
    if (r == 0)
        fail_msg("accepted: %s", config);
    assert_int_equal(r, -EINVAL);
    if (!strstr(err.text, names))
        fail_msg("\"%s\" does not name \"%s\"", err.text, names);
}

static void foreign_configurations(void **state)
{
    static const struct {
        const char *config, *names;
    } cases[] = {
        {"{}", "peft_type"},
        {"[]", "JSON object"},
        {"{\"peft_type\": \"IA3\"}", "peft_type"},
        {"{\"peft_type\": \"LORA\"}", "target_modules"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": \"all-linear\"}", "target_modules"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"lm_head\"]}", "lm_head"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"use_dora\": true}",
         "use_dora"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"rank_pattern\": {\"a\": "
         "2}}",
         "rank_pattern"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"alpha_pattern\": {\"a\": "
         "2}}",
         "alpha_pattern"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"modules_to_save\": "
         "[\"x\"]}",
         "modules_to_save"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"bias\": \"all\"}", "bias"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"init_lora_weights\": "
         "\"pissa\"}",
         "init_lora_weights"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"new_thing\": 3}",
         "new_thing"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"r\": 0}", "rank"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"layers_to_transform\": "
         "[3]}",
         "layers_to_transform"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"task_type\": \"SEQ_CLS\"}",
         "task_type"},
        /* Agreeing with the files only in part. */
        {"{\"peft_type\": \"LORA\", \"r\": 5, \"target_modules\": [\"q_proj\"], "
         "\"layers_to_transform\": [1]}",
         "adapter_model.safetensors"},
        {"{\"peft_type\": \"LORA\", \"r\": 5, \"target_modules\": [\"q_proj\"]}", "missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"target_modules\": [\"q_proj\"], "
         "\"layers_to_transform\": 1}",
         "shape"},
    };
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter *adapter = make_adapter(backend);

    (void)state;
    assert_ok(ha_adapter_save(adapter, dir, NULL, &err));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_refused(backend, cases[i].config, cases[i].names);
    ha_adapter_destroy(adapter);
    ha_backend_close(backend);
}

/* BF16 and F16 tensors, rslora, a single layer as a number, layers null. */
static void other_forms_are_read(void **state)
{
    static const uint16_t bf16[] = {0x3f80, 0xbf00, 0x0000, 0x4049, 0x3f80, 0x3f80};
    static const uint16_t f16[] = {0x3c00, 0xb800, 0x0001, 0x7bff, 0x0000, 0x8000};
    static const struct ha_adapter_geometry tiny = {.n_layers = 1, .in = {3}, .out = {3}};
    static const struct ha_safetensors_item items[] = {
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
         HA_SAFETENSORS_BF16,
         2,
         {2, 3},
         bf16},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
         HA_SAFETENSORS_F16,
         2,
         {3, 2},
         f16},
    };
    static const char *const configs[] = {
        "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 8, \"use_rslora\": true, "
        "\"target_modules\": [\"q_proj\"], \"layers_to_transform\": null}",
        "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 8, \"use_rslora\": true, "
        "\"target_modules\": [\"self_attn.q_proj\"], \"layers_to_transform\": 0}",
    };
    struct ha_backend *backend = open_cpu(1);
    char *config = ha_path_join(dir, "adapter_config.json");
    char *tensors = ha_path_join(dir, "adapter_model.safetensors");

    (void)state;
    assert_ok(ha_safetensors_write(tensors, items, 2, NULL, 0, &err));
    for (size_t i = 0; i < 2; i++) {
        struct ha_adapter *adapter = NULL;
        const float *params;

        assert_ok(ha_file_write(config, configs[i], strlen(configs[i]), 0644, &err));
        assert_ok(ha_adapter_load(backend, &tiny, dir, &adapter, &err));
        params = ha_adapter_params(adapter);
        assert_true(params[0] == 1.0f && params[1] == -0.5f && params[3] == 3.140625f);
        assert_true(params[6] == 1.0f && params[7] == -0.5f && params[8] == 0x1p-24f);
        assert_true(params[9] == 65504.0f && params[10] == 0.0f && signbit(params[11]));
        assert_true(fabsf(ha_adapter_scale(adapter) - 8.0f / sqrtf(2.0f)) < 1e-6f);
        ha_adapter_destroy(adapter);
    }
    free(tensors);
    free(config);
    ha_backend_close(backend);
}

static void bad_settings(void **state)
{
    static const int64_t high[] = {1, 3}, turned[] = {2, 1};
    struct ha_adapter_settings bad[8];
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter *adapter = NULL;

    (void)state;
    for (size_t i = 0; i < 8; i++)
        bad[i] = settings;
    bad[0].rank = 0;
    bad[1].rank = HA_ADAPTER_MAX_RANK + 1;
    bad[2].alpha = NAN;
    bad[3].modules = 0;
    bad[4].modules = 1u << HA_MODULE_COUNT;
    bad[5].layers = high;
    bad[6].layers = turned;
    bad[7].n_layers = 0;
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(ha_adapter_create(backend, &geometry, &bad[i], &adapter, NULL), -EINVAL);
    assert_null(adapter);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_values_are_peft_s), cmocka_unit_test(files_round_trip),
        cmocka_unit_test(golden_adapters_load),    cmocka_unit_test(foreign_configurations),
        cmocka_unit_test(other_forms_are_read),    cmocka_unit_test(bad_settings),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
