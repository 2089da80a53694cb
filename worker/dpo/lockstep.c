#include "worker/dpo/lockstep.h"

#include <errno.h>

#include "common/base/error.h"

/* True for the first cell with this border. */
static bool has_own_border(const int64_t *lowest_layers, int64_t cell)
{
    if (lowest_layers[cell] == 0)
        return false;
    for (int64_t i = 0; i < cell; i++) {
        if (lowest_layers[i] == lowest_layers[cell])
            return false;
    }
    return true;
}

int ha_dpo_border_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                        int64_t max_tokens, const int64_t *lowest_layers, int64_t n_cells,
                        int64_t *ret_bytes, struct ha_error *err)
{
    int64_t bytes, total = 0;
    bool overflow = __builtin_mul_overflow(max_tokens, config->width, &bytes) ||
                    __builtin_mul_overflow(bytes, (int64_t)ha_dtype_bytes(activation), &bytes);

    for (int64_t i = 0; i < n_cells && !overflow; i++) {
        if (has_own_border(lowest_layers, i))
            overflow = __builtin_add_overflow(total, bytes, &total);
    }
    if (overflow)
        return ha_error_set(err, EOVERFLOW,
                            "the states of %lld tokens at the cells' borders need more memory "
                            "than can be addressed",
                            (long long)max_tokens);
    *ret_bytes = total;
    return 0;
}
