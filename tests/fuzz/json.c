/* JSON texts: what is accepted is written and read back equal. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_json *json = NULL, *again = NULL;
    struct ha_error err = {0};
    char *first, *second;

    if (fuzz_result(ha_json_parse((const char *)data, size, "input", &json, &err), &err) < 0)
        return 0;
    first = ha_json_dump(json, HA_JSON_CANONICAL);
    FUZZ_CHECK(first);
    FUZZ_CHECK(fuzz_result(ha_json_parse(first, strlen(first), "again", &again, &err), &err) == 0);
    second = ha_json_dump(again, HA_JSON_CANONICAL);
    FUZZ_CHECK(second && strcmp(first, second) == 0);
    free(first);
    free(second);
    ha_json_destroy(json);
    ha_json_destroy(again);
    return 0;
}
