/* grid.toml, from text to the cells and what is shown of them. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/grid.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"

enum { CELLS_LOOKED_AT = 20 };

static void look(const struct ha_grid *grid)
{
    for (int64_t i = 0; i < grid->cell_count && i < CELLS_LOOKED_AT; i++) {
        const struct ha_grid_cell *cell = &grid->cells[i];
        struct ha_json *json = ha_grid_cell_json(grid, cell);
        char *layers = ha_grid_cell_layers(cell);

        FUZZ_CHECK(json && layers);
        FUZZ_CHECK(ha_grid_find(grid, cell->name) == cell);
        ha_json_destroy(json);
        free(layers);
    }
}

static void expand(const struct ha_sweep *sweep)
{
    int64_t *layers = calloc((size_t)sweep->model_count + 1, sizeof *layers);
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};

    FUZZ_CHECK(layers);
    for (int64_t i = 0; i < sweep->model_count; i++)
        layers[i] = 4 + i;
    if (fuzz_result(ha_grid_create(sweep, layers, &grid, &err), &err) == 0) {
        look(grid);
        ha_grid_destroy(grid);
    }
    free(layers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_sweep *sweep = NULL;
    struct ha_error err = {0};
    struct ha_buffer text;
    struct ha_json *json;

    if (fuzz_result(ha_sweep_parse((const char *)data, size, "grid.toml", "/nowhere", NULL, 0,
                                   &sweep, &err),
                    &err) < 0)
        return 0;
    ha_buffer_init(&text, 0);
    FUZZ_CHECK(ha_sweep_print(sweep, &text) == 0);
    ha_buffer_clear(&text);
    json = ha_sweep_json(sweep);
    FUZZ_CHECK(json);
    ha_json_destroy(json);
    expand(sweep);
    ha_sweep_destroy(sweep);
    return 0;
}
