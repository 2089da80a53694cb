/* common/conf: JSON, TOML, the sweep and its cells, daemons' files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/daemon.h"
#include "common/conf/grid.h"
#include "common/conf/json.h"
#include "common/conf/run_settings.h"
#include "common/conf/stage_key.h"
#include "common/conf/sweep.h"
#include "common/conf/toml.h"
#include "common/io/file.h"
#include "tests/torture/torture.h"

static const char json_text[] =
    "{\"a\": [1, -2.5, true, null, \"x\\u0000\\u00e9\"], \"b\": {\"c\": 1e400000000000000000000}}";
static const char big_text[] = "{\"n\": 1000000000000000000000000000000, \"s\": \"abc\"}";
static const char toml_text[] =
    "a = \"a text that is longer than what a string holds inside itself\"\n"
    "t = 1979-05-27T07:32:00Z\nd = 1979-05-27\nc = 07:32:00.5\n"
    "[m]\nx.y = 1.5\nlist = [1, 2, {k = true}]\n[[n]]\ni = 1\n[[n]]\ni = 2\n";
static const char grid_text[] =
    "[sweep]\nname = \"s\"\nseed = 3\n[[model]]\nname = \"a\"\npath = \"org/name\"\nlayers = 6\n"
    "[[model]]\nname = \"b\"\npath = \"models/b\"\nlayers = 7\n"
    "[strategies]\nuse = [\"base\", \"mid\", \"own\", \"rule\"]\n"
    "[[strategy]]\nname = \"own\"\nlayers = [1, 2]\nrank = 4\n"
    "[[strategy]]\nname = \"rule\"\nlayers = \"auto:2\"\n"
    "[data]\ntrain = [\"t.jsonl\"]\neval = [\"e.jsonl\"]\n"
    "[[judge]]\nname = \"j\"\nprovider = \"generic\"\nbase_url = \"http://127.0.0.1:1/v1\"\n"
    "model = \"m\"\nextra = {top_p = 1}\n"
    "[vary]\nlearning_rate = [1e-5, 1e-4]\nseed = [1, 2]\n"
    "exclude = [{learning_rate = 1e-4, strategy = \"own\"}]\n";
static const char wrong_grid_text[] = "[sweep]\nname = \"s\"\n[train]\nlerning_rate = 1\n";

static int dump(struct ha_json *json, const char *want, struct ha_error *err)
{
    char *text = ha_json_dump(json, HA_JSON_CANONICAL);
    int r = text ? 0 : torture_no_memory(err);

    if (text && want)
        TORTURE_CHECK(strcmp(text, want) == 0);
    free(text);
    return r;
}

static int json(struct ha_error *err)
{
    struct ha_json *value = NULL;
    int r = ha_json_parse(big_text, sizeof(big_text) - 1, "big", &value, err);

    if (r == 0)
        r = dump(value, "{\"n\":1e30,\"s\":\"abc\"}", err);
    ha_json_destroy(value);
    return r;
}

/* An error must not become another one because there is no memory for it. */
static int wrong_json(struct ha_error *err)
{
    struct ha_json *value = NULL;
    int r = ha_json_parse(json_text, sizeof(json_text) - 1, "wrong", &value, err);

    TORTURE_CHECK(r == -EINVAL || r == -ENOMEM);
    return r == -EINVAL ? 0 : r;
}

static int json_building(struct ha_error *err)
{
    struct ha_json *object = ha_json_new_object(), *array;
    int r = object ? 0 : torture_no_memory(err);

    if (r == 0)
        r = ha_json_set(object, "i", ha_json_new_int(1));
    if (r == 0)
        r = ha_json_set(object, "s", ha_json_new_string("text"));
    array = r == 0 ? ha_json_new_array() : NULL;
    for (int i = 0; array && r == 0 && i < 20; i++)
        r = ha_json_append(array, ha_json_new_real(0.5));
    if (r == 0)
        r = ha_json_set(object, "a", array);
    else
        ha_json_destroy(array);
    if (r == 0)
        r = dump(object, NULL, err);
    ha_json_destroy(object);
    return r < 0 ? torture_no_memory(err) : 0;
}

static int toml(struct ha_error *err)
{
    struct ha_toml *root = NULL;
    int r = ha_toml_parse(toml_text, sizeof(toml_text) - 1, "t", &root, err);

    if (r < 0)
        return r;
    TORTURE_CHECK(strcmp(ha_toml_string(ha_toml_get(root, "t"), ""), "1979-05-27T07:32:00Z") == 0);
    TORTURE_CHECK(strcmp(ha_toml_string(ha_toml_get(root, "d"), ""), "1979-05-27") == 0);
    TORTURE_CHECK(strncmp(ha_toml_string(ha_toml_get(root, "c"), ""), "07:32:00.5", 10) == 0);
    TORTURE_CHECK(ha_toml_size(ha_toml_get(root, "n")) == 2);
    ha_toml_destroy(root);
    return 0;
}

static int wrong_toml(struct ha_error *err)
{
    static const char *const texts[] = {"a = = 1\n", "a = 1\na = 2\n", "[a\n", "a = \"\\u00zz\"\n"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct ha_toml *root = NULL;
        int r = ha_toml_parse(texts[i], strlen(texts[i]), "t", &root, err);

        TORTURE_CHECK(r == -EINVAL || r == -ENOMEM);
        if (r == -ENOMEM)
            return r;
    }
    return 0;
}

static int shown(const struct ha_sweep *sweep, struct ha_error *err)
{
    struct ha_buffer text;
    struct ha_json *value = NULL;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_sweep_print(sweep, &text) < 0 ? torture_no_memory(err) : 0;
    if (r == 0) {
        value = ha_sweep_json(sweep);
        r = value ? dump(value, NULL, err) : torture_no_memory(err);
    }
    ha_json_destroy(value);
    ha_buffer_clear(&text);
    return r;
}

static int sweep(struct ha_error *err)
{
    static const char *const overrides[] = {"train.beta=0.5", "judge.j.concurrency=4"};
    struct ha_sweep *parsed = NULL;
    int r = ha_sweep_parse(grid_text, sizeof(grid_text) - 1, "grid.toml", "/d", overrides, 2,
                           &parsed, err);

    if (r == 0)
        r = shown(parsed, err);
    ha_sweep_destroy(parsed);
    return r;
}

static int wrong_sweep(struct ha_error *err)
{
    struct ha_sweep *parsed = NULL;
    int r = ha_sweep_parse(wrong_grid_text, sizeof(wrong_grid_text) - 1, "grid.toml", "/d", NULL, 0,
                           &parsed, err);

    TORTURE_CHECK(r == -EINVAL || r == -ENOMEM);
    return r == -EINVAL ? 0 : r;
}

static int cell_keys(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                     struct ha_error *err)
{
    static const char digest[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const char *files[] = {digest};
    const struct ha_stage_digests digests = {.model = digest,
                                             .tokenizer = digest,
                                             .train = files,
                                             .train_count = 1,
                                             .eval = files,
                                             .eval_count = 1};
    char train[HA_SHA256_HEX_BYTES], generate[HA_SHA256_HEX_BYTES], judge[HA_SHA256_HEX_BYTES];
    struct ha_json *value = ha_grid_cell_json(grid, cell);
    char *layers = ha_grid_cell_layers(cell);
    int r = value && layers ? 0 : torture_no_memory(err);

    if (r == 0 && cell->trains)
        r = ha_stage_key_train(grid, cell, &digests, digest, train, err);
    if (r == 0)
        r = ha_stage_key_generate(grid, cell, &digests, cell->trains ? train : NULL, generate, err);
    if (r == 0)
        r = ha_stage_key_judge(&grid->sweep->judges[0], NULL, generate, judge, err);
    ha_json_destroy(value);
    free(layers);
    return r;
}

static int grid(struct ha_error *err)
{
    static struct ha_sweep *parsed;
    struct ha_grid *cells = NULL;
    int r;

    torture_pause();
    if (!parsed)
        TORTURE_CHECK(ha_sweep_parse(grid_text, sizeof(grid_text) - 1, "grid.toml", "/d", NULL, 0,
                                     &parsed, NULL) == 0);
    torture_resume();
    r = ha_grid_create(parsed, NULL, &cells, err);
    for (int64_t i = 0; r == 0 && i < cells->cell_count && i < 3; i++)
        r = cell_keys(cells, &cells->cells[i], err);
    ha_grid_destroy(cells);
    return r;
}

static int daemons(struct ha_error *err)
{
    static const char *const overrides[] = {"log_level=debug"};
    struct ha_coordinator_config coordinator;
    struct ha_worker_config worker;
    struct ha_judge_config judge;
    int r = ha_coordinator_config_load(NULL, overrides, 1, &coordinator, err);

    if (r < 0)
        return r;
    ha_coordinator_config_clear(&coordinator);
    r = ha_worker_config_load(NULL, overrides, 1, &worker, err);
    if (r < 0)
        return r;
    ha_worker_config_clear(&worker);
    r = ha_judge_config_load(NULL, overrides, 1, &judge, err);
    if (r < 0)
        return r;
    ha_judge_config_clear(&judge);
    return 0;
}

static int daemon_file(struct ha_error *err)
{
    static const char text[] = "coordinator = \"ipc:///x\"\nmodel_roots = [\"/m\", \"n\"]\n"
                               "slots = 2\nlabels = [\"a=b\"]\n";
    struct ha_worker_config worker;
    const char *path = torture_path("worker.toml");
    int r;

    torture_pause();
    TORTURE_CHECK(ha_file_write(path, text, sizeof(text) - 1, 0600, NULL) == 0);
    torture_resume();
    r = ha_worker_config_load(path, NULL, 0, &worker, err);
    if (r < 0)
        return r;
    TORTURE_CHECK(worker.slots == 2 && worker.model_roots.count == 2);
    ha_worker_config_clear(&worker);
    return 0;
}

static int run_settings(struct ha_error *err)
{
    static const char *const overrides[] = {"train.learning_rate=1e-3", "sweep.seed=7"};
    struct ha_run_settings *settings = NULL, *again = NULL;
    struct ha_json *value = NULL;
    int r = ha_run_settings_create(overrides, 2, &settings, err);

    if (r == 0) {
        value = ha_run_settings_json(settings);
        r = value ? ha_run_settings_from_json(value, "again", &again, err) : torture_no_memory(err);
    }
    if (r == 0)
        TORTURE_CHECK(again->train.learning_rate == 1e-3);
    ha_json_destroy(value);
    ha_run_settings_destroy(settings);
    ha_run_settings_destroy(again);
    return r;
}

int main(void)
{
    static const struct torture_scenario scenarios[] = {
        {"conf: JSON", json, NULL},
        {"conf: JSON that is wrong", wrong_json, NULL},
        {"conf: building JSON", json_building, NULL},
        {"conf: TOML", toml, NULL},
        {"conf: TOML that is wrong", wrong_toml, NULL},
        {"conf: a sweep", sweep, NULL},
        {"conf: a sweep that is wrong", wrong_sweep, NULL},
        {"conf: its cells and keys", grid, NULL},
        {"conf: daemons' defaults", daemons, NULL},
        {"conf: a daemon's file", daemon_file, NULL},
        {"conf: settings of a run", run_settings, NULL},
    };

    return torture_run(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), INT64_MAX);
}
