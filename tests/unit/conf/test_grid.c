/* Expansion: order, names, resolved settings, base, replicates, excludes; the grids in deploy/;
 * size and time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/conf/grid.h"
#include "common/conf/json.h"
#include "common/conf/run_settings.h"

#define MODEL(name) "[[model]]\npath = \"m/" name "\"\nlayers = 7\n"
#define DATA "[data]\ntrain = [\"t\"]\neval = [\"e\"]\n"

static void open_text(const char *text, struct ha_sweep **ret_sweep, struct ha_grid **ret_grid)
{
    struct ha_error err = {0};

    if (ha_sweep_parse(text, strlen(text), "grid.toml", "/", NULL, 0, ret_sweep, &err) < 0 ||
        ha_grid_create(*ret_sweep, NULL, ret_grid, &err) < 0)
        fail_msg("%s", err.text);
}

static void close_both(struct ha_sweep *sweep, struct ha_grid *grid)
{
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

static void expect_cells(const char *text, const char *const *names)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    int64_t count = 0;

    open_text(text, &sweep, &grid);
    for (; names[count]; count++) {
        if (count < grid->cell_count)
            assert_string_equal(grid->cells[count].name, names[count]);
        assert_ptr_equal(ha_grid_find(grid, names[count]), &grid->cells[count]);
    }
    assert_int_equal(grid->cell_count, count);
    assert_null(ha_grid_find(grid, "no/such"));
    close_both(sweep, grid);
}

static void multiplies(void **state)
{
    (void)state;
    expect_cells(MODEL("a") MODEL("b") DATA "[strategies]\nuse = [\"base\", \"mid\"]\n",
                 (const char *[]){"a/base", "a/mid", "b/base", "b/mid", NULL});
    expect_cells(MODEL("a") DATA "[strategies]\nuse = [\"mid\", \"base\"]\n"
                                 "[vary]\nlearning_rate = [1e-5, 0.0001]\nrank = [4, 8]\n",
                 (const char *[]){"a/mid/lr=1e-5,rank=4", "a/mid/lr=1e-5,rank=8",
                                  "a/mid/lr=1e-4,rank=4", "a/mid/lr=1e-4,rank=8", "a/base", NULL});
    expect_cells(
        MODEL("a") DATA "[strategies]\nuse = [\"mid\", \"base\"]\n"
                        "[train]\ndisable_dropout = false\n"
                        "[vary]\nlora_dropout = [0.05, 0.1]\n",
        (const char *[]){"a/mid/lora_dropout=0.05", "a/mid/lora_dropout=0.1", "a/base", NULL});
    expect_cells(MODEL("a") DATA "[strategies]\nuse = [\"mid\"]\n"
                                 "[vary]\nlora_dropout = [0.1]\ndisable_dropout = [true, false]\n"
                                 "exclude = [{disable_dropout = true}]\n",
                 (const char *[]){"a/mid/lora_dropout=0.1,disable_dropout=false", NULL});
}

static void base_exists_once_per_generation(void **state)
{
    (void)state;
    /* Greedy: a replicate of base is base. */
    expect_cells(MODEL("a") DATA "[strategies]\nuse = [\"base\", \"mid\"]\n[vary]\nseed = [1, 2]\n",
                 (const char *[]){"a/base", "a/mid/seed=1", "a/mid/seed=2", NULL});
    expect_cells(MODEL("a") DATA "[strategies]\nuse = [\"base\"]\n[generate]\ntemperature = 1\n"
                                 "[vary]\nseed = [1, 2]\nbeta = [0.1, 0.2]\n",
                 (const char *[]){"a/base/seed=1", "a/base/seed=2", NULL});
    expect_cells(MODEL("a") DATA "[strategies]\nuse = [\"base\", \"mid\"]\n"
                                 "[vary]\nseed = [1, 2]\ntemperature = [0, 0.5]\n",
                 (const char *[]){"a/base/temperature=0", "a/base/seed=1,temperature=0.5",
                                  "a/base/seed=2,temperature=0.5", "a/mid/seed=1,temperature=0",
                                  "a/mid/seed=1,temperature=0.5", "a/mid/seed=2,temperature=0",
                                  "a/mid/seed=2,temperature=0.5", NULL});
}

static void takes_points_out(void **state)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    const char *all = MODEL("a") DATA "[strategies]\nuse = [\"mid\"]\n"
                                      "[vary]\nexclude = [{strategy = \"mid\"}]\n";

    (void)state;
    expect_cells(MODEL("a") MODEL("b") DATA
                 "[strategies]\nuse = [\"base\", \"mid\", \"full\"]\n[vary]\nbeta = [0.1, 0.5]\n"
                 "exclude = [{beta = 0.5, strategy = \"full\"}, {model = \"b\", beta = 1e-1}]\n",
                 (const char *[]){"a/base", "a/mid/beta=0.1", "a/mid/beta=0.5", "a/full/beta=0.1",
                                  "b/base", "b/mid/beta=0.5", NULL});
    assert_int_equal(ha_sweep_parse(all, strlen(all), "g", "/", NULL, 0, &sweep, &err), 0);
    assert_true(ha_grid_create(sweep, NULL, &grid, &err) < 0);
    assert_string_equal(err.text, "vary.exclude takes out every cell");
    ha_sweep_destroy(sweep);
}

static void leaves_rules_to_the_probe(void **state)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    const struct ha_grid_cell *cell;
    struct ha_run_settings *settings = NULL;
    struct ha_error err = {0};
    struct ha_json *json;
    char *text;

    (void)state;
    open_text(MODEL("a") DATA "[[strategy]]\nname = \"top\"\nlayers = \"auto:2\"\n"
                              "[probe]\npairs = 7\n",
              &sweep, &grid);
    cell = ha_grid_find(grid, "a/top");
    assert_int_equal(cell->auto_layers, 2);
    assert_int_equal(cell->layers.count, 0);
    text = ha_grid_cell_layers(cell);
    assert_string_equal(text, "auto:2");
    free(text);
    json = ha_grid_cell_json(grid, cell);
    assert_int_equal(ha_run_settings_from_json(json, "job.json", &settings, &err), 0);
    assert_int_equal(settings->probe.pairs, 7);
    ha_json_destroy(json);
    ha_run_settings_destroy(settings);
    cell = ha_grid_find(grid, "a/base");
    text = ha_grid_cell_layers(cell);
    assert_string_equal(text, "");
    free(text);
    json = ha_grid_cell_json(grid, cell);
    assert_null(ha_json_get(json, "probe"));
    ha_json_destroy(json);
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

static void resolves_settings(void **state)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    const struct ha_grid_cell *cell;
    struct ha_run_settings *settings = NULL;
    struct ha_error err = {0};
    struct ha_json *json;

    (void)state;
    open_text(MODEL("a") DATA "[[strategy]]\nname = \"mid\"\nrank = 8\nalpha = 4\n"
                              "target_modules = [\"q_proj\"]\n[train]\ncheckpoint_every = 60\n"
                              "[generate]\nbatch_invariant = true\n"
                              "[vary]\nseed = [1, 2]\nstop = [[\"a b\", \"c\"], []]\n",
              &sweep, &grid);
    cell = ha_grid_find(grid, "a/mid/seed=2,stop=ab+c");
    assert_non_null(cell);
    assert_int_equal(cell->train->lora_rank, 8);
    assert_true(cell->train->lora_alpha == 4);
    assert_int_equal(cell->train->target_modules.count, 1);
    assert_int_equal(cell->train->init_seed, 2);
    assert_int_equal(cell->train->order_seed, 2);
    assert_int_equal(cell->train->dropout_seed, 2);
    assert_int_equal(cell->generate->seed, 2);
    assert_int_equal(cell->generate->stop.count, 2);
    assert_true(cell->generate->batch_invariant);
    assert_string_equal(cell->axis_values.items[0], "2");
    assert_int_equal(sweep->data.seed, 42);
    assert_int_equal(cell->layers.count, 2);
    assert_int_equal(cell->layers.items[0], 3);
    json = ha_grid_cell_json(grid, cell);
    assert_int_equal(ha_run_settings_from_json(json, "job.json", &settings, &err), 0);
    assert_int_equal(settings->train.lora_rank, 8);
    assert_int_equal(settings->train.checkpoint_every_s, 60);
    assert_int_equal(settings->train.order_seed, 2);
    assert_int_equal(settings->data.train.count, 0);
    assert_string_equal(settings->generate.stop.items[0], "a b");
    assert_true(settings->generate.batch_invariant);
    ha_json_destroy(json);
    ha_run_settings_destroy(settings);
    cell = ha_grid_find(grid, "a/local/seed=1,stop=");
    assert_non_null(cell);
    assert_int_equal(cell->train->lora_rank, 16);
    close_both(sweep, grid);
}

static void wants_to_know_layers(void **state)
{
    const char *text = "[[model]]\npath = \"m/a\"\n" DATA "[[strategy]]\nname = \"top\"\n"
                       "layers = \"6-8\"\n";
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    int64_t layers = 9;

    (void)state;
    assert_int_equal(ha_sweep_parse(text, strlen(text), "g", "/", NULL, 0, &sweep, &err), 0);
    assert_true(ha_grid_create(sweep, NULL, &grid, &err) < 0);
    assert_non_null(strstr(err.text, "model a: the number of layers is not known"));
    assert_int_equal(ha_grid_create(sweep, &layers, &grid, &err), 0);
    assert_int_equal(grid->layers[0], 9);
    ha_grid_destroy(grid);
    grid = NULL;
    layers = 8;
    assert_true(ha_grid_create(sweep, &layers, &grid, &err) < 0);
    assert_string_equal(err.text,
                        "model a, strategy top: layer 8 does not exist; the last one is 7");
    sweep->models[0].layers = 12;
    assert_true(ha_grid_create(sweep, &layers, &grid, &err) < 0);
    assert_string_equal(err.text, "model a: the grid says 12 layers, its config.json 8");
    ha_sweep_destroy(sweep);
}

static void expect_file(const char *name, int64_t cells, int64_t judges)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    static const int64_t demo_layers[] = {6, 7, 8, 9};
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/deploy/%s", HA_SOURCE_ROOT, name);
    if (ha_sweep_load(path, NULL, 0, &sweep, &err) < 0 ||
        ha_grid_create(sweep, sweep->models[0].layers ? NULL : demo_layers, &grid, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(grid->cell_count, cells);
    assert_int_equal(sweep->judge_count, judges);
    close_both(sweep, grid);
}

static void reads_the_projects_grids(void **state)
{
    (void)state;
    expect_file("paper/grid.toml", 20, 1);
    expect_file("paper/grid-instruct.toml", 20, 1);
    expect_file("demo/grid.toml", 20, 1);
}

/* 10,000 cells: 4 models, 5 strategies less base's share, 625 points. */
static void expands_fast(void **state)
{
    struct ha_buffer text;
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    int64_t start, took;

    (void)state;
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append_text(&text, MODEL("a") MODEL("b") MODEL("c") MODEL("d") DATA
                                           "[strategies]\nuse = [\"local\", \"mid\", \"global\", "
                                           "\"full\"]\n[vary]\nseed = [1, 2, 3, 4, 5]\n"),
                     0);
    assert_int_equal(ha_buffer_append_text(&text, "learning_rate = ["), 0);
    for (int i = 1; i <= 25; i++)
        assert_int_equal(ha_buffer_printf(&text, "%de-6, ", i), 0);
    assert_int_equal(ha_buffer_append_text(&text, "]\nbeta = [0.1, 0.2, 0.3, 0.4, 0.5]\n"), 0);
    start = ha_clock_boot_ms();
    open_text(ha_buffer_text(&text), &sweep, &grid);
    took = ha_clock_boot_ms() - start;
    print_message("%lld cells in %lld ms\n", (long long)grid->cell_count, (long long)took);
    assert_int_equal(grid->cell_count, 10000);
    assert_true(took < 2000);
    assert_non_null(ha_grid_find(grid, "d/full/seed=5,lr=2.5e-5,beta=0.5"));
    close_both(sweep, grid);
    ha_buffer_clear(&text);
}

static void bounds_size(void **state)
{
    struct ha_buffer text;
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};

    (void)state;
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append_text(&text, MODEL("a") DATA "[vary]\n"), 0);
    for (int axis = 0; axis < 3; axis++) {
        static const char *const keys[] = {"seed", "warmup_steps", "top_k"};

        assert_int_equal(ha_buffer_printf(&text, "%s = [", keys[axis]), 0);
        for (int i = 0; i < 100; i++)
            assert_int_equal(ha_buffer_printf(&text, "%d,", i), 0);
        assert_int_equal(ha_buffer_append_text(&text, "]\n"), 0);
    }
    assert_int_equal(
        ha_sweep_parse(ha_buffer_text(&text), text.size, "g", "/", NULL, 0, &sweep, &err), 0);
    assert_true(ha_grid_create(sweep, NULL, &grid, &err) < 0);
    assert_string_equal(err.text, "the grid has more than 1000000 cells; shorten [vary]");
    ha_sweep_destroy(sweep);
    ha_buffer_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplies),
        cmocka_unit_test(base_exists_once_per_generation),
        cmocka_unit_test(takes_points_out),
        cmocka_unit_test(resolves_settings),
        cmocka_unit_test(leaves_rules_to_the_probe),
        cmocka_unit_test(wants_to_know_layers),
        cmocka_unit_test(reads_the_projects_grids),
        cmocka_unit_test(expands_fast),
        cmocka_unit_test(bounds_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
