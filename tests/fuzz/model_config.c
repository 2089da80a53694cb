/* A model folder: config.json, generation_config.json, the list of shards; one
 * after the other in the input, with a zero byte between them. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

enum { MAX_FREQUENCIES = 1 << 16 };

static struct ha_backend *backend;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_error err = {0};

    (void)argc;
    (void)argv;
    FUZZ_CHECK(ha_backend_open(&options, &backend, &err) == 0);
    return 0;
}

/* What is planned from a configuration before any weight is read. */
static void plan(const struct ha_model_config *config)
{
    struct ha_adapter_geometry geometry;

    FUZZ_CHECK(config->n_layers > 0 && config->width > 0 && config->n_kv_heads > 0);
    FUZZ_CHECK(config->n_heads % config->n_kv_heads == 0 && config->head_dim % 2 == 0);
    ha_model_config_geometry(config, &geometry);
    FUZZ_CHECK(ha_model_config_n_params(config) > 0);
    FUZZ_CHECK(ha_model_config_layer_linear_params(config) > 0);
    FUZZ_CHECK(ha_model_config_head_params(config) > 0);
    if (config->head_dim / 2 <= MAX_FREQUENCIES) {
        float *frequencies = malloc((size_t)(config->head_dim / 2) * sizeof(float));

        FUZZ_CHECK(frequencies);
        ha_model_config_inverse_frequencies(config, frequencies);
        free(frequencies);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "generation_config.json",
                                        HA_WEIGHT_INDEX_FILE};
    struct fuzz_input input = {data, size};
    struct ha_generation_config generation;
    struct ha_model_config config;
    struct ha_weight_files *files = NULL;
    struct ha_error err = {0};

    for (int i = 0; i < 3; i++) {
        struct fuzz_input piece = fuzz_until(&input, 0);

        (void)fuzz_file(names[i], piece.at, piece.size);
    }
    if (fuzz_result(ha_generation_config_load(fuzz_folder(), &generation, &err), &err) == 0)
        FUZZ_CHECK(generation.n_eos <= HA_MODEL_MAX_EOS);
    if (fuzz_result(ha_model_config_load(fuzz_folder(), &config, &err), &err) < 0)
        return 0;
    plan(&config);
    if (fuzz_result(ha_weight_files_open(backend, &config, fuzz_folder(), &files, &err), &err) == 0)
        ha_weight_files_close(files);
    return 0;
}
