/* An adapter of PEFT's form: adapter_config.json, a zero byte, the tensors' file. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "kernels/backend.h"
#include "worker/adapter/adapter.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, first = fuzz_until(&input, 0);
    struct ha_adapter_geometry geometry = {.n_layers = 2};
    struct ha_adapter *adapter = NULL;
    struct ha_error err = {0};

    for (int module = 0; module < HA_MODULE_COUNT; module++)
        geometry.in[module] = geometry.out[module] = 4;
    (void)fuzz_file("adapter_config.json", first.at, first.size);
    (void)fuzz_file("adapter_model.safetensors", input.at, input.size);
    if (fuzz_result(ha_adapter_load(backend, &geometry, fuzz_folder(), &adapter, &err), &err) == 0)
        ha_adapter_destroy(adapter);
    return 0;
}
