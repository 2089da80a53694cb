#include "kernels/lora.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"
#include "kernels/ops.h"

int ha_lora_columns_check(const struct ha_lora_columns *columns, struct ha_error *err)
{
    int64_t rows = 0, ranks = 0;

    if (columns->n_parts < 1 || columns->n_parts > HA_LORA_MAX_PARTS)
        return ha_error_set(err, EINVAL, "lora_columns: %d parts; 1 to %d are possible",
                            columns->n_parts, (int)HA_LORA_MAX_PARTS);
    for (int i = 0; i < columns->n_parts; i++) {
        const struct ha_lora_part *part = &columns->parts[i];

        if (part->rank < 0 || part->out < 0 || (part->rank > 0 && !(part->a && part->b)))
            return ha_error_set(err, EINVAL, "lora_columns: part %d has no matrices", i);
        rows += part->out;
        ranks += part->rank;
    }
    if (rows != columns->b.rows || ranks > columns->b.cols || columns->a.rows != columns->b.cols ||
        columns->b.stride < columns->b.cols || columns->a.stride < columns->a.cols)
        return ha_error_set(err, EINVAL,
                            "lora_columns: parts of %" PRId64 " rows and %" PRId64
                            " ranks do not fit %" PRId64 " x %" PRId64,
                            rows, ranks, columns->b.rows, columns->b.cols);
    return 0;
}
