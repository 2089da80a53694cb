#include "kernels/sample.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"
#include "kernels/draw.h"

int ha_sample_check(const struct ha_sample *sample, struct ha_error *err)
{
    if (sample->vocab < 1 || sample->vocab > HA_DRAW_MOST_IDS)
        return ha_error_set(err, EINVAL,
                            "sampling: a vocabulary of %" PRId64 " is out of range, 1 to %" PRId64,
                            sample->vocab, HA_DRAW_MOST_IDS);
    if (sample->n_rows < 0 || sample->n_rows > INT32_MAX || sample->drawn_stride < 1)
        return ha_error_set(err, EINVAL,
                            "sampling: %" PRId64 " sequences of %" PRId64 " tokens at most",
                            sample->n_rows, sample->drawn_stride);
    return 0;
}
