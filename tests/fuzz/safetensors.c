/* Files of weights, checkpoints and adapters: every byte that is promised is there. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/io/safetensors.h"

static void check_tensor(const struct ha_safetensors *file, int64_t index)
{
    const struct ha_safetensors_tensor *tensor = ha_safetensors_at(file, index);
    const volatile uint8_t *bytes = tensor->data;
    int64_t n = 1;

    FUZZ_CHECK(tensor->data);
    for (int i = 0; i < tensor->rank; i++)
        n *= tensor->shape[i];
    FUZZ_CHECK(n == tensor->n_elements);
    FUZZ_CHECK(tensor->bytes == (size_t)n * ha_safetensors_dtype_bytes(tensor->dtype));
    if (tensor->bytes > 0) {
        (void)bytes[0];
        (void)bytes[tensor->bytes - 1];
    }
    FUZZ_CHECK(ha_safetensors_find(file, tensor->name) == tensor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_safetensors *file = NULL;
    struct ha_error err = {0};
    const char *path = fuzz_file("input.safetensors", data, size);

    if (fuzz_result(ha_safetensors_open(path, &file, &err), &err) < 0)
        return 0;
    for (int64_t i = 0; i < ha_safetensors_count(file); i++)
        check_tensor(file, i);
    (void)ha_safetensors_metadata(file, "format");
    ha_safetensors_close(file);
    return 0;
}
