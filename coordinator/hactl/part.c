#include "coordinator/hactl/part.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

int ha_part_parse(const char *selector, struct ha_part *ret_part, struct ha_error *err)
{
    char *copy = ha_strdup(selector), *model, *strategy;

    if (!copy)
        return ha_error_set(err, ENOMEM, "out of memory");
    model = strchr(copy, '/');
    strategy = model ? strchr(model + 1, '/') : NULL;
    if (model)
        *model++ = '\0';
    if (strategy)
        *strategy++ = '\0';
    if (!copy[0] || (model && !model[0] && (!strategy || !strategy[0])) ||
        (strategy && (!strategy[0] || strchr(strategy, '/')))) {
        free(copy);
        return ha_error_set(err, EINVAL,
                            "%s: name SWEEP, SWEEP/model, SWEEP/model/strategy or SWEEP//strategy",
                            selector);
    }
    *ret_part = (struct ha_part){.sweep = copy, .model = model, .strategy = strategy};
    return 0;
}

void ha_part_clear(struct ha_part *part)
{
    free(part->sweep);
    *part = (struct ha_part){0};
}
