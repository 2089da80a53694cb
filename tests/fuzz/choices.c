/* The blob of algorithms that a GPU's products were done with.  The first byte's high bit: its
 * check sum is put right first. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "kernels/cuda/gemm_choice.h"

static const char kind[] = "H100 sm_90, cuBLASLt 120000";

/* What was read is written as it stood. */
static void check_round(const struct ha_cuda_choices *choices, const void *blob, size_t size)
{
    struct ha_error err = {0};
    size_t bytes = 0;
    void *again = NULL;

    FUZZ_CHECK(ha_cuda_choices_export(choices, kind, &again, &bytes, &err) == 0);
    FUZZ_CHECK(bytes == size && memcmp(again, blob, size) == 0);
    for (int64_t i = 0; i < choices->n; i++)
        FUZZ_CHECK(ha_cuda_choices_find(choices, &choices->list[i].product) == &choices->list[i]);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t mend = fuzz_byte(&input) & 0x80;
    uint8_t *blob = malloc(input.size + 1);
    struct ha_cuda_choices choices = {0};
    struct ha_error err = {0};

    FUZZ_CHECK(blob);
    if (input.size > 0)
        memcpy(blob, input.at, input.size);
    if (mend && input.size >= HA_SHA256_BYTES)
        ha_sha256(blob, input.size - HA_SHA256_BYTES, blob + input.size - HA_SHA256_BYTES);
    if (fuzz_result(ha_cuda_choices_import(&choices, kind, blob, input.size, &err), &err) == 0)
        check_round(&choices, blob, input.size);
    ha_cuda_choices_clear(&choices);
    free(blob);
    return 0;
}
