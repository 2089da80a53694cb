/* The loss settings of [train]: forms, cells, what does not go together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/grid.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "common/conf/run_settings.h"

#define MINIMAL                                                                                    \
    "[[model]]\npath = \"m/tiny\"\nlayers = 9\n[data]\ntrain = [\"t\"]\neval = [\"e\"]\n"          \
    "[[judge]]\nname = \"j\"\nmodel = \"q\"\nbase_url = \"http://h:1/v1\"\n"

static struct ha_sweep *parse(const char *more)
{
    struct ha_sweep *sweep = NULL;
    struct ha_error err = {0};
    char text[2000];

    snprintf(text, sizeof(text), "%s%s", MINIMAL, more);
    if (ha_sweep_parse(text, strlen(text), "grid.toml", "/", NULL, 0, &sweep, &err) < 0)
        fail_msg("%s", err.text);
    return sweep;
}

static void one_or_several(void **state)
{
    static const char *const forms[] = {"loss = \"ipo\"", "loss = [\"ipo\"]"};
    const struct ha_setting *row = ha_section_find(&ha_sweep_train_section, "loss");
    const struct ha_setting *weights = ha_section_find(&ha_sweep_train_section, "loss_weights");

    (void)state;
    for (int i = 0; i < 2; i++) {
        char more[80], *text;
        struct ha_sweep *sweep;
        struct ha_json *json;

        snprintf(more, sizeof(more), "[train]\n%s\n", forms[i]);
        sweep = parse(more);
        text = ha_section_text(row, &sweep->train);
        json = ha_setting_json(row, &sweep->train);
        assert_int_equal(sweep->train.loss.count, 1);
        assert_string_equal(text, "ipo");
        /* One loss is written as it was before there could be several. */
        assert_string_equal(ha_json_string(json, ""), "ipo");
        ha_json_destroy(json);
        free(text);
        ha_sweep_destroy(sweep);
    }
    {
        struct ha_sweep *sweep =
            parse("[train]\nloss = [\"sigmoid\", \"sft\"]\nloss_weights = [1, 0.2]\n");
        char *loss = ha_section_text(row, &sweep->train);
        char *numbers = ha_section_text(weights, &sweep->train);
        struct ha_json *json = ha_setting_json(weights, &sweep->train);

        assert_string_equal(loss, "[\"sigmoid\",\"sft\"]");
        assert_string_equal(numbers, "[1,0.2]");
        assert_int_equal(ha_json_size(json), 2);
        assert_true(ha_json_real(ha_json_at(json, 1), 0) == 0.2);
        ha_json_destroy(json);
        free(loss);
        free(numbers);
        ha_sweep_destroy(sweep);
    }
}

static void set_by_text(void **state)
{
    static const struct {
        const char *override, *loss, *weights;
    } forms[] = {{"train.loss=ipo", "ipo", "[]"},
                 {"train.loss=\"ipo\"", "ipo", "[]"},
                 {"train.loss=sigmoid,sft", "[\"sigmoid\",\"sft\"]", "[]"},
                 {"train.loss=[\"sigmoid\", \"sft\"]", "[\"sigmoid\",\"sft\"]", "[]"},
                 {"train.loss_weights=1,1e-3", "sigmoid", "[1,1e-3]"},
                 {"train.loss_weights=[1, 0.5]", "sigmoid", "[1,0.5]"},
                 {"train.loss_weights=0.25", "sigmoid", "[0.25]"}};

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct ha_run_settings *settings = NULL, *again = NULL;
        struct ha_error err = {0};
        struct ha_json *json;
        char *loss, *weights;

        assert_int_equal(ha_run_settings_create(&forms[i].override, 1, &settings, &err), 0);
        /* As a job carries it. */
        json = ha_run_settings_json(settings);
        assert_int_equal(ha_run_settings_from_json(json, "job", &again, &err), 0);
        loss = ha_section_text(ha_section_find(&ha_sweep_train_section, "loss"), &again->train);
        weights = ha_section_text(ha_section_find(&ha_sweep_train_section, "loss_weights"),
                                  &again->train);
        assert_string_equal(loss, forms[i].loss);
        assert_string_equal(weights, forms[i].weights);
        free(loss);
        free(weights);
        ha_json_destroy(json);
        ha_run_settings_destroy(settings);
        ha_run_settings_destroy(again);
    }
}

static void refused(const char *more, const char *want)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    char text[2000];
    int r;

    snprintf(text, sizeof(text), "%s%s", MINIMAL, more);
    r = ha_sweep_parse(text, strlen(text), "grid.toml", "/", NULL, 0, &sweep, &err);
    if (r == 0)
        r = ha_grid_create(sweep, NULL, &grid, &err);
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
    assert_true(r < 0);
    if (strcmp(err.text, want) != 0)
        fail_msg("got:  %s\nwant: %s", err.text, want);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    refused("[train]\nloss = \"sigmoids\"\n",
            "grid.toml:12: train.loss must be one of sigmoid|ipo|hinge|robust|exo_pair|nca_pair|"
            "bco_pair|apo_zero|apo_down|sppo_hard|aot|aot_unpaired|discopop|sigmoid_norm|sft, not "
            "\"sigmoids\"");
    refused("[train]\nloss = []\n", "train.loss must name 1 to 16 losses");
    refused("[train]\nloss_weights = [1, \"x\"]\n",
            "grid.toml:12: train.loss_weights must be an array of numbers, not \"x\"");
    refused("[train]\nloss_weights = 1\n",
            "grid.toml:12: train.loss_weights must be an array of numbers, not 1");
    refused("[train]\nloss = [\"sigmoid\", \"sft\"]\nloss_weights = [1]\n",
            "train.loss_weights has 1 numbers for 2 of train.loss; give one for each");
    refused("[train]\nloss = \"exo_pair\"\n",
            "train.loss exo_pair needs a train.label_smoothing between 0 and 1, such as 1e-3");
    refused("[vary]\nloss = [\"sigmoid\", \"exo_pair\"]\n",
            "train.loss exo_pair needs a train.label_smoothing between 0 and 1, such as 1e-3");
    refused("[train]\nloss = \"robust\"\nlabel_smoothing = 0.5\n",
            "train.loss robust needs a train.label_smoothing below 0.5");
    refused("[train]\nloss = [\"sigmoid\", \"aot\"]\nuse_weighting = true\n",
            "train.use_weighting cannot be used with train.loss aot, whose value is not one "
            "pair's; leave one of them out");
    refused("[train]\nf_divergence = \"kl\"\n",
            "grid.toml:12: train.f_divergence must be one of "
            "reverse_kl|forward_kl|js_divergence|alpha_divergence, not \"kl\"");
}

static void several_losses_are_an_axis(void **state)
{
    struct ha_sweep *sweep = parse("[vary]\nloss = [\"sigmoid\", [\"sigmoid\", \"sft\"]]\n");
    struct ha_grid *grid = NULL;
    const struct ha_grid_cell *cell;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_grid_create(sweep, NULL, &grid, &err), 0);
    cell = ha_grid_find(grid, "tiny/mid/loss=sigmoid+sft");
    assert_non_null(cell);
    assert_int_equal(cell->train->loss.count, 2);
    assert_non_null(ha_grid_find(grid, "tiny/mid/loss=sigmoid"));
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

static void smoothing_without_effect_is_said(void **state)
{
    static const struct {
        const char *more;
        bool warned;
    } cases[] = {{"", false},
                 {"[train]\nlabel_smoothing = 0.1\n", true},
                 {"[train]\nlabel_smoothing = 0.1\nloss = \"ipo\"\n", true},
                 {"[train]\nlabel_smoothing = 0.1\nloss = \"aot\"\n", false},
                 {"[train]\nlabel_smoothing = 0.1\nloss = [\"sft\", \"robust\"]\n", false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_sweep *sweep = parse(cases[i].more);

        assert_int_equal(ha_loss_rules_warning(&sweep->train) != NULL, cases[i].warned);
        ha_sweep_destroy(sweep);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_or_several),
        cmocka_unit_test(set_by_text),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(several_losses_are_an_axis),
        cmocka_unit_test(smoothing_without_effect_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
