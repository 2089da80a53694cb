#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/file.h"
#include "worker/attempt/job_spec.h"

static char path[] = "/tmp/ha_test_job_XXXXXX";

/* The members of a job.json; NULL stands for the good one. */
struct parts {
    const char *kind, *model, *data, *settings, *threads, *cells;
};

static const struct parts good = {
    .kind = "\"train\"",
    .model = "{\"name\": \"m\", \"path\": \"/models/m\", \"hub_id\": \"\", \"template\": \"hh\"}",
    .data = "{\"train\": [\"inputs/a\", \"inputs/b\"], \"eval\": [\"inputs/c\"]}",
    .settings = "{\"train\": {\"beta\": 0.5, \"learning_rate\": 0.001}}",
    .threads = "2",
    .cells = "[{\"id\": 11, \"name\": \"m/mid\", \"layers\": [2, 3]},"
             " {\"id\": 12, \"name\": \"m/mid beta\", \"layers\": [4],"
             "  \"settings\": {\"train\": {\"beta\": 0.25}},"
             "  \"checkpoint\": \"inputs/checkpoint\", \"adapter\": null}]",
};

static int load(const struct parts *p, struct ha_job_spec **ret, struct ha_error *err)
{
    char *text =
        ha_format("{\"kind\": %s, \"model\": %s, \"data\": %s, \"settings\": %s, "
                  "\"threads\": %s, \"backend\": \"cpu\", \"cells\": %s, "
                  "\"digests\": null, \"reference\": \"inputs/reference\", "
                  "\"skip_answers\": {\"11\": [[0, 0], [5, 1]]}}",
                  p->kind ? p->kind : good.kind, p->model ? p->model : good.model,
                  p->data ? p->data : good.data, p->settings ? p->settings : good.settings,
                  p->threads ? p->threads : good.threads, p->cells ? p->cells : good.cells);
    int r;

    assert_non_null(text);
    assert_int_equal(ha_file_write(path, text, strlen(text), 0600, err), 0);
    r = ha_job_spec_load(path, ret, err);
    free(text);
    return r;
}

static void every_member_is_read(void **state)
{
    struct ha_job_spec *spec = NULL;

    (void)state;
    assert_int_equal(load(&(struct parts){0}, &spec, NULL), 0);
    assert_int_equal(spec->kind, HA_JOB_TRAIN);
    assert_string_equal(spec->model_path, "/models/m");
    assert_null(spec->hub_id);
    assert_string_equal(spec->prompt_template, "hh");
    assert_int_equal(spec->n_train, 2);
    assert_string_equal(spec->train[1], "inputs/b");
    assert_int_equal(spec->n_eval, 1);
    assert_int_equal(spec->threads, 2);
    assert_string_equal(spec->backend, "cpu");
    assert_null(spec->digests);
    assert_string_equal(spec->reference, "inputs/reference");
    assert_int_equal(spec->n_cells, 2);
    assert_int_equal(spec->cells[0].id, 11);
    assert_int_equal(spec->cells[0].n_layers, 2);
    assert_int_equal(spec->cells[0].layers[1], 3);
    assert_null(spec->cells[0].checkpoint);
    assert_int_equal(spec->cells[0].n_skip, 2);
    assert_int_equal(spec->cells[0].skip[1].prompt, 5);
    assert_int_equal(spec->cells[0].skip[1].sample, 1);
    assert_string_equal(spec->cells[1].checkpoint, "inputs/checkpoint");
    assert_null(spec->cells[1].adapter);
    assert_int_equal(spec->cells[1].n_skip, 0);
    ha_job_spec_destroy(spec);
}

static void a_cells_settings_lie_over_the_common_ones(void **state)
{
    struct ha_job_spec *spec = NULL;

    (void)state;
    assert_int_equal(load(&(struct parts){0}, &spec, NULL), 0);
    assert_true(spec->cells[0].settings->train.beta == 0.5);
    assert_true(spec->cells[1].settings->train.beta == 0.25);
    for (int i = 0; i < 2; i++) {
        assert_true(spec->cells[i].settings->train.learning_rate == 0.001);
        assert_int_equal(spec->cells[i].settings->train.batch_size, 6);
    }
    ha_job_spec_destroy(spec);
}

static void generation_needs_no_layers(void **state)
{
    const struct parts parts = {
        .kind = "\"generate\"",
        .data = "{\"train\": [], \"eval\": [\"inputs/c\"]}",
        .model = "{\"path\": \"/m\", \"hub_id\": \"org/m\"}",
        .cells = "[{\"id\": 1, \"name\": \"m/base\", \"layers\": [], \"adapter\": \"inputs/1\"}]"};
    struct ha_job_spec *spec = NULL;

    (void)state;
    assert_int_equal(load(&parts, &spec, NULL), 0);
    assert_int_equal(spec->kind, HA_JOB_GENERATE);
    assert_string_equal(spec->hub_id, "org/m");
    assert_string_equal(spec->prompt_template, "hh");
    assert_int_equal(spec->cells[0].n_layers, 0);
    assert_string_equal(spec->cells[0].adapter, "inputs/1");
    ha_job_spec_destroy(spec);
}

static void a_probe_has_one_cell_and_no_layers(void **state)
{
    const struct parts parts = {.kind = "\"probe\"",
                                .settings = "{\"probe\": {\"pairs\": 64}}",
                                .cells = "[{\"id\": 3, \"name\": \"m\", \"layers\": []}]"};
    struct ha_job_spec *spec = NULL;

    (void)state;
    assert_int_equal(load(&parts, &spec, NULL), 0);
    assert_int_equal(spec->kind, HA_JOB_PROBE);
    assert_int_equal(spec->cells[0].settings->probe.pairs, 64);
    assert_int_equal(spec->cells[0].id, 3);
    assert_int_equal(spec->cells[0].n_layers, 0);
    ha_job_spec_destroy(spec);
}

static void mistakes_are_named(void **state)
{
    static const struct {
        struct parts parts;
        const char *text;
    } cases[] = {
        {{.kind = "1"}, "kind"},
        {{.kind = "\"judge\""}, "neither train, probe nor generate"},
        {{.model = "{}"}, "path"},
        {{.model = "[]"}, "path"},
        {{.data = "{\"train\": [1]}"}, "train"},
        {{.data = "{\"train\": \"a\"}"}, "train"},
        {{.data = "{}"}, "data.train"},
        {{.kind = "\"probe\""}, "one cell, not 2"},
        {{.kind = "\"probe\"", .data = "{\"eval\": [\"a\"]}"}, "data.train"},
        {{.kind = "\"generate\"", .data = "{\"train\": [\"a\"]}"}, "data.eval"},
        {{.settings = "null"}, "settings"},
        {{.settings = "{\"train\": {\"betta\": 1}}"}, "betta"},
        {{.settings = "{\"train\": {\"beta\": -1}}"}, "beta"},
        {{.settings = "{\"judge\": {}}"}, "judge"},
        {{.threads = "-1"}, "threads"},
        {{.threads = "99999999999"}, "threads"},
        {{.cells = "[]"}, "cells"},
        {{.cells = "{}"}, "cells"},
        {{.cells = "[{\"name\": \"x\", \"layers\": [1]}]"}, "id of a cell"},
        {{.cells = "[{\"id\": 1, \"layers\": [1]}]"}, "name"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\"}]"}, "layers"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\", \"layers\": []}]"}, "x trains no layer"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\", \"layers\": [2, 2]}]"}, "layers must rise"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\", \"layers\": [-1]}]"}, "layers must rise"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\", \"layers\": [\"1\"]}]"}, "layers must rise"},
        {{.cells = "[{\"id\": 1, \"name\": \"x\", \"layers\": [1], \"settings\": 3}]"}, "settings"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_job_spec *spec = NULL;
        struct ha_error err = {0};

        assert_int_equal(load(&cases[i].parts, &spec, &err), -EINVAL);
        assert_null(spec);
        if (!strstr(err.text, cases[i].text))
            fail_msg("'%s' does not name '%s'", err.text, cases[i].text);
    }
}

static void files_that_are_no_spec(void **state)
{
    struct ha_job_spec *spec = NULL;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_job_spec_load("/nowhere/job.json", &spec, &err), -ENOENT);
    assert_int_equal(ha_file_write(path, "{\"kind\": ", 9, 0600, NULL), 0);
    assert_int_equal(ha_job_spec_load(path, &spec, &err), -EINVAL);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(ha_file_write(path, "[]", 2, 0600, NULL), 0);
    assert_int_equal(ha_job_spec_load(path, &spec, &err), -EINVAL);
    assert_null(spec);
    ha_job_spec_destroy(NULL);
}

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_is_read),
        cmocka_unit_test(a_cells_settings_lie_over_the_common_ones),
        cmocka_unit_test(generation_needs_no_layers),
        cmocka_unit_test(a_probe_has_one_cell_and_no_layers),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(files_that_are_no_spec),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
