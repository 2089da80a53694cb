/* A safetensors file where the weights of a small model are expected. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/base/error.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

static const char config_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 4,"
    "\"intermediate_size\": 4, \"num_hidden_layers\": 1, \"num_attention_heads\": 2,"
    "\"num_key_value_heads\": 1, \"vocab_size\": 8, \"max_position_embeddings\": 16,"
    "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\","
    "\"tie_word_embeddings\": true}";

static struct ha_backend *backend;
static struct ha_model_config config;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_error err = {0};

    (void)argc;
    (void)argv;
    FUZZ_CHECK(ha_backend_open(&options, &backend, &err) == 0);
    (void)fuzz_file("config.json", config_text, sizeof(config_text) - 1);
    FUZZ_CHECK(fuzz_result(ha_model_config_load(fuzz_folder(), &config, &err), &err) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_weight_files *files = NULL;
    struct ha_error err = {0};

    (void)fuzz_file("model.safetensors", data, size);
    if (fuzz_result(ha_weight_files_open(backend, &config, fuzz_folder(), &files, &err), &err) == 0)
        ha_weight_files_close(files);
    return 0;
}
