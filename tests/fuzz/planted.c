/* Fails on purpose: selftest.sh looks at what run.sh makes of it.  Not among the targets. */
#include <stdint.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(size < 3 || memcmp(data, "bug", 3) != 0);
    return 0;
}
