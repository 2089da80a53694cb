/* config.json and generation_config.json: the four real models, both key forms,
 * and every refusal by the name of its field. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

static char dir[] = "/tmp/ha_test_config_XXXXXX";

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

static void write_file(const char *name, const char *text)
{
    char *path = ha_path_join(dir, name);

    assert_ok(ha_file_write(path, text, strlen(text), 0644, &err));
    free(path);
}

/* A Llama with some fields added or replaced (the last of two wins is not
 * allowed in JSON, so a field of `extra` replaces the one of the base). */
static const char *const base[][2] = {
    {"architectures", "[\"LlamaForCausalLM\"]"},
    {"hidden_size", "64"},
    {"intermediate_size", "100"},
    {"num_hidden_layers", "5"},
    {"num_attention_heads", "8"},
    {"num_key_value_heads", "4"},
    {"vocab_size", "500"},
    {"max_position_embeddings", "512"},
    {"rms_norm_eps", "1e-5"},
    {"tie_word_embeddings", "true"},
};

static void write_config(const char *key, const char *value)
{
    char text[4096];
    size_t used = 0;

    text[used++] = '{';
    for (size_t i = 0; i < sizeof(base) / sizeof(base[0]); i++) {
        if (!key || strcmp(base[i][0], key) != 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "\"%s\": %s, ", base[i][0],
                                     base[i][1]);
    }
    snprintf(text + used, sizeof(text) - used, "\"%s\": %s}", key ? key : "extra",
             value ? value : "null");
    write_file("config.json", text);
}

static void smallest_config(void **state)
{
    struct ha_model_config config;

    (void)state;
    write_config(NULL, NULL);
    assert_ok(ha_model_config_load(dir, &config, &err));
    assert_int_equal(config.family, HA_FAMILY_LLAMA);
    assert_int_equal(config.head_dim, 8);
    assert_true(config.rope.theta == 10000.0 && !config.rope.llama3);
    assert_true(config.tied && !config.qkv_bias && !config.o_bias && !config.qk_norm);
    assert_int_equal(config.dtype, HA_DTYPE_F32);
    assert_false(config.has_bos);
    /* embedding 500 x 64; per layer q, o 64 x 64, k, v 32 x 64, three 100 x 64, two norms. */
    assert_int_equal(ha_model_config_n_params(&config),
                     500 * 64 + 5 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 100 * 64 + 128) + 64);
    write_config("attention_bias", "true");
    assert_ok(ha_model_config_load(dir, &config, &err));
    assert_true(config.qkv_bias && config.o_bias);
    write_config("num_key_value_heads", "null");
    assert_ok(ha_model_config_load(dir, &config, &err));
    assert_int_equal(config.n_kv_heads, 8);
}

static void rope_forms(void **state)
{
    static const struct {
        const char *key, *value;
        double theta;
        bool llama3;
    } cases[] = {
        {"rope_theta", "500000.0", 5e5, false},
        {"rope_theta", "1000000", 1e6, false},
        {"rope_scaling",
         "{\"type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
         "\"original_max_position_embeddings\": 8192}",
         1e4, true},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 250000}", 2.5e5, false},
        {"rope_parameters",
         "{\"rope_type\": \"llama3\", \"rope_theta\": 5e5, \"factor\": 8, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}",
         5e5, true},
        {"rope_scaling", "null", 1e4, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_model_config config;

        write_config(cases[i].key, cases[i].value);
        assert_ok(ha_model_config_load(dir, &config, &err));
        assert_true(config.rope.theta == cases[i].theta);
        assert_true(config.rope.llama3 == cases[i].llama3);
        if (cases[i].llama3)
            assert_int_equal(config.rope.original_max_position, 8192);
    }
}

static void refusals_name_the_field(void **state)
{
    static const struct {
        const char *key, *value, *names;
    } cases[] = {
        {"architectures", "[\"MistralForCausalLM\"]", "MistralForCausalLM"},
        {"architectures", "null", "architectures"},
        {"architectures", "[\"LlamaForCausalLM\", \"Other\"]", "architectures"},
        {"hidden_size", "0", "hidden_size"},
        {"hidden_size", "-64", "hidden_size"},
        {"hidden_size", "64.0", "hidden_size"},
        {"hidden_size", "\"64\"", "hidden_size"},
        {"hidden_size", "9223372036854775807", "hidden_size"},
        {"hidden_size", "null", "hidden_size"},
        {"hidden_size", "63", "hidden_size"},
        {"intermediate_size", "null", "intermediate_size"},
        {"num_hidden_layers", "1000000", "num_hidden_layers"},
        {"num_key_value_heads", "3", "num_key_value_heads"},
        {"head_dim", "7", "head_dim"},
        {"head_dim", "100000", "head_dim"},
        {"vocab_size", "99999999999", "vocab_size"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rms_norm_eps", "-1e-5", "rms_norm_eps"},
        {"hidden_act", "\"gelu\"", "hidden_act"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"mlp_bias", "true", "mlp_bias"},
        {"attention_dropout", "0.1", "attention_dropout"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"layer_types", "[\"full_attention\", \"sliding_attention\"]", "layer_types"},
        {"rope_theta", "0", "rope_theta"},
        {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4}", "yarn"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 4}", "linear"},
        {"rope_scaling", "3", "rope_scaling"},
        {"rope_scaling", "{\"rope_type\": \"llama3\"}", "factor"},
        {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}",
         "rope_parameters"},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
        {"tie_word_embeddings", "1", "tie_word_embeddings"},
        {"torch_dtype", "\"float8\"", "torch_dtype"},
        {"dtype", "\"int8\"", "dtype"},
        {"bos_token_id", "500", "bos_token_id"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_model_config config;
        struct ha_error err = {0};

        write_config(cases[i].key, cases[i].value);
        if (ha_model_config_load(dir, &config, &err) != -EINVAL)
            fail_msg("%s = %s was not refused", cases[i].key, cases[i].value);
        if (!strstr(err.text, cases[i].names) || !strstr(err.text, "config.json"))
            fail_msg("\"%s\" does not name %s", err.text, cases[i].names);
    }
    write_file("config.json", "[1]");
    assert_int_equal(ha_model_config_load(dir, &(struct ha_model_config){0}, NULL), -EINVAL);
    write_file("config.json", "{\"architectures\": [");
    assert_int_equal(ha_model_config_load(dir, &(struct ha_model_config){0}, NULL), -EINVAL);
    assert_int_equal(ha_model_config_load("/nowhere", &(struct ha_model_config){0}, NULL), -ENOENT);
}

static void generation_settings(void **state)
{
    struct ha_generation_config config;

    (void)state;
    write_config("eos_token_id", "[3, 4]");
    assert_ok(ha_generation_config_load(dir, &config, &err));
    assert_int_equal(config.n_eos, 2);
    assert_int_equal(config.eos[1], 4);
    assert_int_equal(config.top_k, 50);
    assert_true(!config.do_sample && config.temperature == 1.0 && config.top_p == 1.0);
    write_file("generation_config.json",
               "{\"eos_token_id\": 7, \"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.9, "
               "\"top_k\": 20, \"repetition_penalty\": 1.05, \"max_new_tokens\": 2048}");
    assert_ok(ha_generation_config_load(dir, &config, &err));
    assert_int_equal(config.n_eos, 1);
    assert_int_equal(config.eos[0], 7);
    assert_int_equal(config.max_new_tokens, 2048);
    assert_int_equal(config.top_k, 20);
    assert_true(config.do_sample && config.temperature == 0.6 && config.top_p == 0.9);
    write_file("generation_config.json", "{\"eos_token_id\": [1, \"x\"]}");
    assert_int_equal(ha_generation_config_load(dir, &config, NULL), -EINVAL);
    write_file("generation_config.json", "{\"top_p\": 1.5}");
    assert_int_equal(ha_generation_config_load(dir, &config, NULL), -EINVAL);
}

/* Values of numerics 4.2 for Llama-3.1: 0-28 as they are, 29-34 blended, 35-63 over 8. */
static void llama3_frequencies(void **state)
{
    static const double blended[] = {2.166571e-3, 1.371894e-3, 8.567514e-4,
                                     5.248462e-4, 3.126937e-4, 1.785078e-4};
    struct ha_model_config config = {.head_dim = 128,
                                     .rope = {.theta = 5e5,
                                              .llama3 = true,
                                              .factor = 8,
                                              .low_freq_factor = 1,
                                              .high_freq_factor = 4,
                                              .original_max_position = 8192}};
    float scaled[64], plain[64];

    (void)state;
    ha_model_config_inverse_frequencies(&config, scaled);
    config.rope.llama3 = false;
    ha_model_config_inverse_frequencies(&config, plain);
    for (int i = 0; i < 64; i++) {
        if (i < 29)
            assert_true(scaled[i] == plain[i]);
        else if (i < 35)
            assert_true(fabs((double)scaled[i] - blended[i - 29]) < 1e-6 * blended[i - 29]);
        else
            assert_true(scaled[i] == plain[i] / 8.0f);
    }
}

static void real_models(void **state)
{
    static const struct {
        const char *name;
        enum ha_model_family family;
        int64_t width, inner, layers, heads, kv_heads, vocab, params;
    } cases[] = {
        {"llama-2-7b-hf", HA_FAMILY_LLAMA, 4096, 11008, 32, 32, 32, 32000, 6738415616},
        {"llama-3.1-8b-instruct", HA_FAMILY_LLAMA, 4096, 14336, 32, 32, 8, 128256, 8030261248},
        {"qwen2.5-7b-instruct", HA_FAMILY_QWEN2, 3584, 18944, 28, 28, 4, 152064, 7615616512},
        {"qwen3-8b", HA_FAMILY_QWEN3, 4096, 12288, 36, 32, 8, 151936, 8190735360},
    };
    const char *data = getenv("HA_TEST_DATA");

    (void)state;
    if (!data) {
        print_message("[ SKIPPED ] HA_TEST_DATA is not set\n");
        skip();
    }
    for (size_t i = 0; i < 4; i++) {
        struct ha_model_config config;
        struct ha_generation_config generation;
        char path[4096];

        snprintf(path, sizeof(path), "%s/configs/%s", data, cases[i].name);
        assert_ok(ha_model_config_load(path, &config, &err));
        assert_int_equal(config.family, cases[i].family);
        assert_int_equal(config.width, cases[i].width);
        assert_int_equal(config.inner, cases[i].inner);
        assert_int_equal(config.n_layers, cases[i].layers);
        assert_int_equal(config.n_heads, cases[i].heads);
        assert_int_equal(config.n_kv_heads, cases[i].kv_heads);
        assert_int_equal(config.head_dim, 128);
        assert_int_equal(config.vocab, cases[i].vocab);
        assert_int_equal(ha_model_config_n_params(&config), cases[i].params);
        assert_ok(ha_generation_config_load(path, &generation, &err));
        assert_true(generation.n_eos >= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_config),         cmocka_unit_test(rope_forms),
        cmocka_unit_test(refusals_name_the_field), cmocka_unit_test(generation_settings),
        cmocka_unit_test(llama3_frequencies),      cmocka_unit_test(real_models),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
