#include "kernels/cuda/limit.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"

int ha_cuda_limit_parse(const char *text, int64_t *ret_bytes, struct ha_error *err)
{
    static const char units[] = "KMGT";
    const char *unit = NULL;
    char *end = NULL;
    double number = 0.0;
    bool known = false;

    if (!text || !*text) {
        *ret_bytes = 0;
        return 0;
    }
    errno = 0;
    if (isdigit((unsigned char)*text))
        number = strtod(text, &end);
    if (end && *end)
        unit = strchr(units, toupper((unsigned char)*end));
    if (unit) {
        for (const char *u = units; u <= unit; u++)
            number *= 1024.0;
        end += end[1] == 'i' ? 2 : 1;
    }
    if (end)
        known = *end == '\0' || strcmp(end, "B") == 0;
    if (!known || errno || !(number >= 1.0) || number > 0x1p62)
        return ha_error_set(err, EINVAL,
                            HA_CUDA_LIMIT_VARIABLE
                            " is \"%s\"; a number of bytes is wanted, as 24G or 25769803776",
                            text);
    *ret_bytes = (int64_t)number;
    return 0;
}
