#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/lora.h"

/* Sizes are those of one adapter: one thread does it. */
int ha_cpu_op_lora_columns(struct ha_backend *backend, const struct ha_lora_columns *columns,
                           struct ha_error *err)
{
    const struct ha_matrix *a = &columns->a, *b = &columns->b;
    float *a_row = a->data, *b_row = b->data;
    int64_t column = 0;
    int rc = ha_lora_columns_check(columns, err);

    (void)backend;
    for (int i = 0; rc == 0 && i < columns->n_parts; i++) {
        const struct ha_lora_part *part = &columns->parts[i];

        for (int64_t row = 0; row < part->out; row++, b_row += b->stride) {
            memset(b_row, 0, (size_t)b->cols * sizeof(float));
            for (int64_t k = 0; k < part->rank; k++)
                b_row[column + k] = columns->scale * part->b[row * part->rank + k];
        }
        for (int64_t k = 0; k < part->rank; k++, a_row += a->stride)
            memcpy(a_row, part->a + k * a->cols, (size_t)a->cols * sizeof(float));
        column += part->rank;
    }
    for (; rc == 0 && column < a->rows; column++, a_row += a->stride)
        memset(a_row, 0, (size_t)a->cols * sizeof(float));
    return rc;
}
