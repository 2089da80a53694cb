/* The shapes of a grid's cells, as far as the memory of their training goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "coordinator/hactl/plan_shapes.h"

#define HEAD                                                                                       \
    "[[model]]\npath = \"m\"\nlayers = 9\n[[model]]\npath = \"n\"\nlayers = 12\n"                  \
    "[data]\ntrain = [\"t\"]\neval = [\"e\"]\n"

static struct ha_sweep *sweep;
static struct ha_grid *grid;

static struct ha_plan_shapes shapes_of(const char *text, int64_t model)
{
    struct ha_plan_shapes shapes = {0};
    struct ha_error err = {0};

    if (ha_sweep_parse(text, strlen(text), "grid.toml", "/", NULL, 0, &sweep, &err) < 0 ||
        ha_grid_create(sweep, NULL, &grid, &err) < 0 ||
        ha_plan_shapes_find(grid, model, &shapes, &err) < 0)
        fail_msg("%s", ha_error_text(&err));
    return shapes;
}

static void end(struct ha_plan_shapes *shapes)
{
    ha_plan_shapes_clear(shapes);
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

static const struct ha_plan_shape *find(const struct ha_plan_shapes *shapes, const char *label)
{
    for (int64_t i = 0; i < shapes->count; i++)
        if (strcmp(shapes->items[i].label, label) == 0)
            return &shapes->items[i];
    fail_msg("no shape \"%s\"", label);
    return NULL;
}

/* Base is none; a learning rate makes no other shape. */
static void built_in_ones(void **state)
{
    struct ha_plan_shapes shapes = shapes_of(
        HEAD
        "[strategies]\nuse = [\"base\", \"mid\", \"full\"]\n[vary]\nlearning_rate = [1e-5, 1e-4]\n"
        "seed = [1, 2]\n",
        1);

    (void)state;
    assert_int_equal(shapes.count, 2);
    assert_string_equal(find(&shapes, "mid")->layers, "4-7");
    assert_true(shapes.items[0].built_in && shapes.items[1].built_in);
    assert_true(ha_plan_shapes_agree(&shapes.items[0], &shapes.items[1]));
    end(&shapes);
}

static void own_ones_and_varied_ones(void **state)
{
    struct ha_plan_shapes shapes =
        shapes_of(HEAD "[strategies]\nuse = [\"base\", \"mid\"]\n"
                       "[[strategy]]\nname = \"top\"\nlayers = \"7-8\"\nrank = 4\n"
                       "[[strategy]]\nname = \"same\"\nlayers = \"0,8\"\n"
                       "[[strategy]]\nname = \"picked\"\nlayers = \"auto:3\"\n"
                       "[vary]\nmax_length = [2048, 512]\nbeta = [0.1, 0.5]\n",
                  0);
    const struct ha_plan_shape *top, *same;

    (void)state;
    assert_int_equal(shapes.count, 8);
    assert_int_equal(shapes.left_out, 0);
    /* 2048 is the default, but mid alone is shown without it. */
    assert_true(find(&shapes, "mid, max_length=2048")->built_in);
    assert_false(find(&shapes, "mid, max_length=512")->built_in);
    top = find(&shapes, "top, max_length=512");
    same = find(&shapes, "same, max_length=512");
    assert_false(top->built_in || same->built_in);
    assert_string_equal(top->layers, "7-8");
    assert_int_equal(top->train->lora_rank, 4);
    assert_string_equal(same->layers, "0,8");
    assert_string_equal(find(&shapes, "picked, max_length=512")->layers, "auto:3");
    /* One rank and one length: one plan. */
    assert_true(ha_plan_shapes_agree(same, find(&shapes, "mid, max_length=512")));
    assert_true(ha_plan_shapes_agree(same, find(&shapes, "picked, max_length=512")));
    assert_false(ha_plan_shapes_agree(same, top));
    assert_false(ha_plan_shapes_agree(same, find(&shapes, "same, max_length=2048")));
    end(&shapes);
}

static void more_than_anybody_reads(void **state)
{
    char text[4096] = HEAD "[strategies]\nuse = [\"mid\"]\n[vary]\nlora_rank = [1";
    struct ha_plan_shapes shapes;

    (void)state;
    for (int i = 2; i <= HA_PLAN_SHAPES_MAX + 5; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ", %d%s", i,
                 i < HA_PLAN_SHAPES_MAX + 5 ? "" : "]\n");
    shapes = shapes_of(text, 0);
    assert_int_equal(shapes.count, HA_PLAN_SHAPES_MAX);
    assert_int_equal(shapes.left_out, 5);
    end(&shapes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_ones),
        cmocka_unit_test(own_ones_and_varied_ones),
        cmocka_unit_test(more_than_anybody_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
