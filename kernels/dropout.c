#include "kernels/dropout.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"
#include "kernels/ops.h"

int ha_dropout_mask_make(const struct ha_dropout *dropout, int64_t cols,
                         struct ha_dropout_mask *ret_mask, struct ha_error *err)
{
    double threshold = dropout->p * 0x1p32 + 0.5;

    if (!(dropout->p >= 0 && dropout->p < 1))
        return ha_error_set(err, EINVAL, "dropout: p = %g is not in [0, 1)", dropout->p);
    if (cols > HA_DROPOUT_MAX_COLS)
        return ha_error_set(err, EINVAL, "dropout: rows of %" PRId64 " elements, more than %d",
                            cols, (int)HA_DROPOUT_MAX_COLS);
    *ret_mask = (struct ha_dropout_mask){
        .key = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)},
        .stream = dropout->stream,
        .threshold = threshold < 0x1p32 ? (uint32_t)threshold : UINT32_MAX,
        .scale = (float)(1.0 / (1.0 - dropout->p)),
    };
    return 0;
}
