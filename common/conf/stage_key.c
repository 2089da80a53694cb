#include "common/conf/stage_key.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep_private.h"

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

static int check_digest(const char *what, const char *digest, struct ha_error *err)
{
    if (digest && ha_sha256_hex_valid(digest))
        return 0;
    return ha_error_set(err, EINVAL, "stage key: the digest of %s is %s", what,
                        digest ? "not 64 lower-case hexadecimal digits" : "missing");
}

static int check_digests(const char *what, const char *const *digests, int64_t count, int64_t files,
                         struct ha_error *err)
{
    int r = 0;

    if (count != files)
        return ha_error_set(err, EINVAL, "stage key: %lld digests for %lld files of %s",
                            (long long)count, (long long)files, what);
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = check_digest(what, digests[i], err);
    return r;
}

static int check_model(const struct ha_stage_digests *digests, struct ha_error *err)
{
    int r = check_digest("the model", digests->model, err);

    return r < 0 ? r : check_digest("the tokenizer", digests->tokenizer, err);
}

static int check_inputs(const struct ha_sweep *sweep, const struct ha_stage_digests *digests,
                        struct ha_error *err)
{
    int r = check_model(digests, err);

    return r < 0 ? r
                 : check_digests("data.eval", digests->eval, digests->eval_count,
                                 sweep->data.eval.count, err);
}

static struct ha_json *list_json(const char *const *texts, int64_t count)
{
    struct ha_json *json = ha_json_new_array();

    for (int64_t i = 0; json && i < count; i++)
        if (ha_json_append(json, ha_json_new_string(texts[i])) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    return json;
}

static struct ha_json *layers_json(const struct ha_layers *layers)
{
    struct ha_json *json = ha_json_new_array();

    for (int64_t i = 0; json && i < layers->count; i++)
        if (ha_json_append(json, ha_json_new_int(layers->items[i])) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    return json;
}

/* What every key of a model's stages begins with.  NULL when memory is short. */
static struct ha_json *begin_key(const char *stage, const struct ha_sweep_model *model,
                                 const struct ha_stage_digests *digests)
{
    struct ha_json *json = ha_json_new_object();

    if (json && ha_json_set(json, "stage", ha_json_new_string(stage)) == 0 &&
        ha_json_set(json, "numerics", ha_json_new_int(HA_NUMERICS_VERSION)) == 0 &&
        ha_json_set(json, "model", ha_json_new_string(digests->model)) == 0 &&
        ha_json_set(json, "tokenizer", ha_json_new_string(digests->tokenizer)) == 0 &&
        ha_json_set(json, "template", ha_json_new_string(model->prompt_template)) == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}

/* Ends the value. */
static int hash_key(struct ha_json *json, int r, char ret_key[HA_SHA256_HEX_BYTES],
                    struct ha_error *err)
{
    char *text = r == 0 ? ha_json_dump(json, HA_JSON_CANONICAL) : NULL;
    uint8_t digest[HA_SHA256_BYTES];

    ha_json_destroy(json);
    if (!text)
        return no_memory(err);
    ha_sha256(text, strlen(text), digest);
    ha_sha256_hex(digest, ret_key);
    free(text);
    return 0;
}

static int check_train_inputs(const struct ha_sweep *sweep, const struct ha_stage_digests *digests,
                              struct ha_error *err)
{
    int r = check_model(digests, err);

    return r < 0 ? r
                 : check_digests("data.train", digests->train, digests->train_count,
                                 sweep->data.train.count, err);
}

int ha_stage_key_probe(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                       const struct ha_stage_digests *digests, char ret_key[HA_SHA256_HEX_BYTES],
                       struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_json *json;
    int r;

    if (!cell->trains || !sweep->probes)
        return ha_error_set(err, EINVAL, "stage key: cell %s has no probe", cell->name);
    r = check_train_inputs(sweep, digests, err);
    if (r < 0)
        return r;
    json = begin_key("probe", &sweep->models[cell->model], digests);
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "train", list_json(digests->train, digests->train_count));
    if (r == 0)
        r = ha_json_set(json, "data.settings",
                        ha_section_json(&ha_sweep_data_section, &sweep->data, HA_READ_PROBE));
    if (r == 0)
        r = ha_json_set(json, "train.settings",
                        ha_section_json(&ha_sweep_train_section, cell->train, HA_READ_PROBE));
    if (r == 0)
        r = ha_json_set(json, "probe.settings",
                        ha_section_json(&ha_sweep_probe_section, &sweep->probe, HA_READ_PROBE));
    return hash_key(json, r, ret_key, err);
}

/* The layers, or how they will be chosen. */
static int add_layers(struct ha_json *json, const struct ha_sweep *sweep,
                      const struct ha_grid_cell *cell, const char *probe_key)
{
    int r;

    if (cell->auto_layers == 0)
        return ha_json_set(json, "layers", layers_json(&cell->layers));
    r = ha_json_set(json, "layers.count", ha_json_new_int(cell->auto_layers));
    if (r == 0)
        r = ha_json_set(json, "probe", ha_json_new_string(probe_key));
    if (r == 0)
        r = ha_json_set(json, "probe.settings",
                        ha_section_json(&ha_sweep_probe_section, &sweep->probe, HA_READ_TRAIN));
    return r;
}

int ha_stage_key_train(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                       const struct ha_stage_digests *digests, const char *probe_key,
                       char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_json *json;
    int r;

    if (!cell->trains)
        return ha_error_set(err, EINVAL, "stage key: cell %s trains nothing", cell->name);
    r = check_inputs(sweep, digests, err);
    if (r == 0)
        r = check_train_inputs(sweep, digests, err);
    if (r == 0 && cell->auto_layers > 0)
        r = check_digest("the probe stage", probe_key, err);
    if (r < 0)
        return r;
    json = begin_key("train", &sweep->models[cell->model], digests);
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "eval", list_json(digests->eval, digests->eval_count));
    if (r == 0)
        r = ha_json_set(json, "train", list_json(digests->train, digests->train_count));
    if (r == 0)
        r = add_layers(json, sweep, cell, probe_key);
    if (r == 0)
        r = ha_json_set(json, "data.settings",
                        ha_section_json(&ha_sweep_data_section, &sweep->data, HA_READ_TRAIN));
    if (r == 0)
        r = ha_json_set(json, "train.settings",
                        ha_section_json(&ha_sweep_train_section, cell->train, HA_READ_TRAIN));
    return hash_key(json, r, ret_key, err);
}

/* [generate] without what changes nothing: greedy answers have no seed. */
static struct ha_json *generate_settings(const struct ha_sweep_generate *generate)
{
    static const char *const sampling[] = {"seed", "top_p", "top_k", "temperature"};
    struct ha_json *all = ha_sweep_generate_json(generate, HA_READ_GENERATE), *json, *member;
    bool greedy = ha_sweep_generate_greedy(generate);
    const char *key;
    void *at = NULL;

    if (!greedy || !all)
        return all;
    json = ha_json_new_object();
    while (json && ha_json_next(all, &at, &key, &member)) {
        bool drop = false;

        for (size_t i = 0; i < sizeof(sampling) / sizeof(sampling[0]); i++)
            drop = drop || strcmp(key, sampling[i]) == 0;
        if (drop)
            continue;
        if (ha_json_set(
                json, key,
                ha_setting_json(ha_section_find(&ha_sweep_generate_section, key), generate)) < 0) {
            ha_json_destroy(json);
            json = NULL;
        }
    }
    ha_json_destroy(all);
    return json;
}

int ha_stage_key_generate(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                          const struct ha_stage_digests *digests, const char *train_key,
                          char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    /* Base is no training's result, but runs in the sweep's precision. */
    const struct ha_sweep_train *train = cell->train ? cell->train : &sweep->train;
    struct ha_json *json;
    int r = check_inputs(sweep, digests, err);

    if (r == 0 && cell->trains)
        r = check_digest("the train stage", train_key, err);
    if (r < 0)
        return r;
    if (!cell->trains && train_key)
        return ha_error_set(err, EINVAL, "stage key: cell %s trains nothing", cell->name);
    json = begin_key("generate", &sweep->models[cell->model], digests);
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "eval", list_json(digests->eval, digests->eval_count));
    if (r == 0)
        r = ha_json_set(json, "train",
                        train_key ? ha_json_new_string(train_key) : ha_json_new_null());
    if (r == 0)
        r = ha_json_set(json, "data.settings",
                        ha_section_json(&ha_sweep_data_section, &sweep->data, HA_READ_GENERATE));
    if (r == 0)
        r = ha_json_set(json, "train.settings",
                        ha_section_json(&ha_sweep_train_section, train, HA_READ_GENERATE));
    if (r == 0)
        r = ha_json_set(json, "generate.settings", generate_settings(cell->generate));
    return hash_key(json, r, ret_key, err);
}

/* Some keys of a section, as far as they have values, in an object of their own.  NULL when memory
 * is short. */
static struct ha_json *some_settings(const struct ha_section *section, const void *values,
                                     const char *const *keys, size_t n_keys)
{
    struct ha_json *json = ha_json_new_object();

    for (size_t i = 0; json && i < n_keys; i++) {
        const struct ha_setting *row = ha_section_find(section, keys[i]);

        if (ha_section_has(section, row, values) &&
            ha_json_set(json, keys[i], ha_setting_json(row, values)) < 0) {
            ha_json_destroy(json);
            json = NULL;
        }
    }
    return json;
}

/* How much is to be equal: the pairs; their order and packs too; all that a job shares. */
enum extent { ANY_PLAN, ONE_PLAN, TOGETHER };

/* What cells that share the base model's passes have in common.  Ends the value. */
static int hash_pairs(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                      const struct ha_stage_digests *digests, const char *stage, enum extent extent,
                      char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    static const char *const shared[] = {"max_length",  "precision",
                                         "batch_size",  "gradient_accumulation",
                                         "epochs",      "tokens_per_microbatch",
                                         "plan_memory", "order_seed",
                                         "eval_steps",  "checkpoint_every",
                                         "reference"};
    static const size_t n_shared[] = {
        [ANY_PLAN] = 2, [ONE_PLAN] = 8, [TOGETHER] = sizeof(shared) / sizeof(shared[0])};
    bool together = extent == TOGETHER;
    const struct ha_sweep *sweep = grid->sweep;
    struct ha_json *json;
    int r;

    if (!cell->trains)
        return ha_error_set(err, EINVAL, "stage key: cell %s trains nothing", cell->name);
    r = check_inputs(sweep, digests, err);
    if (r == 0)
        r = check_train_inputs(sweep, digests, err);
    if (r < 0)
        return r;
    json = begin_key(stage, &sweep->models[cell->model], digests);
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "train", list_json(digests->train, digests->train_count));
    if (r == 0)
        r = ha_json_set(json, "data.settings",
                        ha_section_json(&ha_sweep_data_section, &sweep->data, HA_READ_TRAIN));
    if (r == 0)
        r = ha_json_set(
            json, "train.settings",
            some_settings(&ha_sweep_train_section, cell->train, shared, n_shared[extent]));
    if (r == 0 && together)
        r = ha_json_set(json, "eval", list_json(digests->eval, digests->eval_count));
    if (r == 0 && together)
        r = ha_json_set(json, "name", ha_json_new_string(sweep->models[cell->model].name));
    return hash_key(json, r, ret_key, err);
}

int ha_stage_key_reference(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                           const struct ha_stage_digests *digests,
                           char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    return hash_pairs(grid, cell, digests, "reference", ONE_PLAN, ret_key, err);
}

int ha_stage_key_reference_any(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                               const struct ha_stage_digests *digests,
                               char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    return hash_pairs(grid, cell, digests, "reference of any plan", ANY_PLAN, ret_key, err);
}

int ha_stage_key_train_together(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                                const struct ha_stage_digests *digests,
                                char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    return hash_pairs(grid, cell, digests, "train together", TOGETHER, ret_key, err);
}

int ha_stage_key_generate_together(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                                   const struct ha_stage_digests *digests,
                                   char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    const struct ha_sweep *sweep = grid->sweep;
    const struct ha_sweep_train *train = cell->train ? cell->train : &sweep->train;
    struct ha_json *json;
    int r = check_inputs(sweep, digests, err);

    if (r < 0)
        return r;
    json = begin_key("generate together", &sweep->models[cell->model], digests);
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "name", ha_json_new_string(sweep->models[cell->model].name));
    if (r == 0)
        r = ha_json_set(json, "data.settings",
                        ha_section_json(&ha_sweep_data_section, &sweep->data, HA_READ_GENERATE));
    if (r == 0)
        r = ha_json_set(json, "precision", ha_json_new_string(train->precision));
    if (r == 0)
        r = ha_json_set(json, "generate.settings",
                        ha_sweep_generate_json(cell->generate, HA_READ_GENERATE));
    return hash_key(json, r, ret_key, err);
}

int ha_stage_key_judge(const struct ha_sweep_judge *judge, const char *prompt_digest,
                       const char *generate_key, char ret_key[HA_SHA256_HEX_BYTES],
                       struct ha_error *err)
{
    struct ha_json *json;
    int r = check_digest("the generate stage", generate_key, err);

    if (r == 0 && prompt_digest)
        r = check_digest("the judge's prompt", prompt_digest, err);
    if (r < 0)
        return r;
    json = ha_json_new_object();
    if (!json)
        return no_memory(err);
    r = ha_json_set(json, "stage", ha_json_new_string("judge"));
    if (r == 0)
        r = ha_json_set(json, "numerics", ha_json_new_int(HA_NUMERICS_VERSION));
    if (r == 0)
        r = ha_json_set(json, "generate", ha_json_new_string(generate_key));
    if (r == 0)
        r = ha_json_set(json, "prompt",
                        prompt_digest ? ha_json_new_string(prompt_digest) : ha_json_new_null());
    if (r == 0)
        r = ha_json_set(json, "judge.settings",
                        ha_section_json(&ha_sweep_judge_section, judge, HA_READ_JUDGE));
    return hash_key(json, r, ret_key, err);
}
