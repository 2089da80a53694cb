/* Stage keys: stable, changed by everything that changes a result and by nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/stage_key.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define TEXT                                                                                       \
    "[[model]]\npath = \"m/a\"\nlayers = 9\n[data]\ntrain = [\"t\"]\neval = [\"e\"]\n"             \
    "[[judge]]\nname = \"j\"\nmodel = \"q\"\nbase_url = \"http://h:1/v1\"\n"                       \
    "[[strategy]]\nname = \"own\"\nlayers = \"3-5\"\n"

struct keys {
    char train[HA_SHA256_HEX_BYTES], generate[HA_SHA256_HEX_BYTES], judge[HA_SHA256_HEX_BYTES];
};

static const char *const file_a[] = {A}, *const file_b[] = {B};

static struct ha_stage_digests digests(void)
{
    return (struct ha_stage_digests){A, A, file_a, 1, file_a, 1};
}

static struct keys keys_with(const char *override, const char *cell_name,
                             const struct ha_stage_digests *given)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    struct keys keys = {0};
    struct ha_stage_digests plain = digests();
    const struct ha_grid_cell *cell;
    int r = ha_sweep_parse(TEXT, strlen(TEXT), "grid.toml", "/", &override, override ? 1 : 0,
                           &sweep, &err);

    if (r == 0)
        r = ha_grid_create(sweep, NULL, &grid, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    cell = ha_grid_find(grid, cell_name);
    assert_non_null(cell);
    given = given ? given : &plain;
    if (cell->trains)
        assert_int_equal(ha_stage_key_train(grid, cell, given, NULL, keys.train, &err), 0);
    assert_int_equal(ha_stage_key_generate(grid, cell, given, cell->trains ? keys.train : NULL,
                                           keys.generate, &err),
                     0);
    assert_int_equal(ha_stage_key_judge(&sweep->judges[0], NULL, keys.generate, keys.judge, &err),
                     0);
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
    return keys;
}

/* Which of the keys an override changes: "tgj", "gj", "j", "". */
static void expect_change(const char *override, const char *cell, const char *want)
{
    struct keys plain = keys_with(NULL, cell, NULL), other = keys_with(override, cell, NULL);
    char got[4] = "";
    size_t n = 0;

    if (strcmp(plain.train, other.train) != 0)
        got[n++] = 't';
    if (strcmp(plain.generate, other.generate) != 0)
        got[n++] = 'g';
    if (strcmp(plain.judge, other.judge) != 0)
        got[n++] = 'j';
    if (strcmp(got, want) != 0)
        fail_msg("%s on %s changes \"%s\", not \"%s\"", override, cell, got, want);
}

static void change_with_results(void **state)
{
    static const char *const all[] = {"train.learning_rate=1e-4",
                                      "train.beta=0.2",
                                      "train.epochs=2",
                                      "train.lora_rank=8",
                                      "train.eps=1e-7",
                                      "train.tokens_per_microbatch=512",
                                      "train.tokens_per_microbatch=0",
                                      "train.plan_memory=24GiB",
                                      "train.reference=any",
                                      "train.precision=fp32",
                                      "data.split=turn",
                                      "data.train_samples=5",
                                      "data.eval_samples=5",
                                      "data.seed=1",
                                      "sweep.seed=1",
                                      "train.order_seed=1",
                                      "train.init_seed=1",
                                      "train.disable_dropout=false",
                                      "train.lora_dropout=0.1",
                                      "train.dropout_seed=1",
                                      "model.a.template=chat",
                                      "train.target_modules=q_proj",
                                      "train.loss=ipo",
                                      "train.loss=sigmoid,sft",
                                      "train.loss_weights=0.5",
                                      "train.label_smoothing=0.1",
                                      "train.f_divergence=forward_kl",
                                      "train.f_alpha=0.3",
                                      "train.discopop_tau=1",
                                      "train.ld_alpha=0.5",
                                      "train.use_weighting=true"};
    static const char *const generate[] = {"generate.max_new_tokens=5",
                                           "generate.temperature=1",
                                           "generate.stop=x",
                                           "generate.settings=model",
                                           "generate.repetition_penalty=1.1",
                                           "generate.min_new_tokens=2",
                                           "generate.batch_invariant=true"};
    static const char *const judge[] = {
        "judge.j.model=r",        "judge.j.seed=0",
        "judge.j.samples=2",      "judge.j.temperature=1",
        "judge.j.prompt=guarded", "judge.j.extra={a = 1}",
        "judge.j.endpoint=x",     "judge.j.base_url=http://other/v1"};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        expect_change(all[i], "a/mid", "tgj");
    for (size_t i = 0; i < sizeof(generate) / sizeof(generate[0]); i++)
        expect_change(generate[i], "a/mid", "gj");
    for (size_t i = 0; i < sizeof(judge) / sizeof(judge[0]); i++)
        expect_change(judge[i], "a/mid", "j");
    expect_change("strategy.own.layers=3-6", "a/own", "tgj");
}

static void stay_with_the_rest(void **state)
{
    static const char *const none[] = {
        "sweep.name=x", "sweep.priority=3", "train.checkpoint_every=5s", "train.memory_limit=3GiB",
        "train.shard_weights=always", "model.a.hub_id=x/y", "model.a.family=qwen3",
        "retry.max_attempts=9", "retry.on_worker_lost=wait", "schedule.fuse=never",
        "judge.j.concurrency=2", "judge.j.timeout=1m", "judge.j.order=eager",
        "judge.j.base_url=https://h:2/v2", "judge.j.api_key_env=K", "judge.j.provider=openai",
        "data.train=other", "generate.seed=3", "generate.top_k=3",
        /* Rows that came later, at their defaults. */
        "train.loss=[\"sigmoid\"]", "train.loss_weights=[]", "train.label_smoothing=0",
        "train.f_divergence=reverse_kl", "train.f_alpha=0.50", "train.discopop_tau=5e-2",
        "train.ld_alpha=1.0", "train.use_weighting=false", "generate.min_new_tokens=0",
        "generate.batch_invariant=false"};

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        expect_change(none[i], "a/mid", "");
    /* A strategy's name is not its result: own has mid's layers. */
    assert_string_equal(keys_with(NULL, "a/own", NULL).train, keys_with(NULL, "a/mid", NULL).train);
}

static void base_ignores_training(void **state)
{
    (void)state;
    expect_change("train.learning_rate=1e-4", "a/base", "");
    expect_change("data.train_samples=5", "a/base", "");
    expect_change("train.precision=fp32", "a/base", "gj");
    expect_change("data.eval_samples=5", "a/base", "gj");
    expect_change("generate.max_new_tokens=5", "a/base", "gj");
}

static void change_with_inputs(void **state)
{
    struct keys plain = keys_with(NULL, "a/mid", NULL), other;
    struct ha_stage_digests changed;

    (void)state;
    for (int i = 0; i < 4; i++) {
        changed = digests();
        *(i == 0 ? &changed.model : &changed.tokenizer) = i < 2 ? B : A;
        changed.train = i == 2 ? file_b : file_a;
        changed.eval = i == 3 ? file_b : file_a;
        other = keys_with(NULL, "a/mid", &changed);
        assert_string_not_equal(plain.train, other.train);
        assert_string_not_equal(plain.generate, other.generate);
        assert_string_not_equal(plain.judge, other.judge);
    }
}

static void refuse_wrong_inputs(void **state)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    struct ha_stage_digests wrong = digests();
    char key[HA_SHA256_HEX_BYTES] = "untouched";

    (void)state;
    assert_int_equal(ha_sweep_parse(TEXT, strlen(TEXT), "grid.toml", "/", NULL, 0, &sweep, &err),
                     0);
    assert_int_equal(ha_grid_create(sweep, NULL, &grid, &err), 0);
    wrong.model = "AB";
    assert_true(ha_stage_key_train(grid, ha_grid_find(grid, "a/mid"), &wrong, NULL, key, &err) < 0);
    assert_string_equal(err.text, "stage key: the digest of the model is not 64 lower-case "
                                  "hexadecimal digits");
    wrong = digests();
    wrong.train_count = 0;
    assert_true(ha_stage_key_train(grid, ha_grid_find(grid, "a/mid"), &wrong, NULL, key, &err) < 0);
    wrong = digests();
    assert_true(ha_stage_key_train(grid, ha_grid_find(grid, "a/base"), &wrong, NULL, key, &err) <
                0);
    assert_true(ha_stage_key_generate(grid, ha_grid_find(grid, "a/mid"), &wrong, NULL, key, &err) <
                0);
    assert_true(ha_stage_key_generate(grid, ha_grid_find(grid, "a/base"), &wrong, A, key, &err) <
                0);
    assert_true(ha_stage_key_judge(&sweep->judges[0], "x", A, key, &err) < 0);
    assert_string_equal(key, "untouched");
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

#define PROBED TEXT "[[strategy]]\nname = \"top\"\nlayers = \"auto:2\"\n[probe]\n"

struct probed {
    char probe[HA_SHA256_HEX_BYTES], train[HA_SHA256_HEX_BYTES];
};

static struct probed probed_with(const char *override, const char *cell_name,
                                 const struct ha_stage_digests *given)
{
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    struct probed keys;
    const struct ha_grid_cell *cell;
    int r = ha_sweep_parse(PROBED, strlen(PROBED), "grid.toml", "/", &override, override ? 1 : 0,
                           &sweep, &err);

    if (r == 0)
        r = ha_grid_create(sweep, NULL, &grid, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    cell = ha_grid_find(grid, cell_name);
    assert_int_equal(ha_stage_key_probe(grid, cell, given, keys.probe, &err), 0);
    assert_int_equal(ha_stage_key_train(grid, cell, given, keys.probe, keys.train, &err), 0);
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
    return keys;
}

static void expect_probe_change(const char *override, bool probe, bool train)
{
    struct ha_stage_digests plain = digests();
    struct probed before = probed_with(NULL, "a/top", &plain);
    struct probed after = probed_with(override, "a/top", &plain);

    if ((strcmp(before.probe, after.probe) != 0) != probe)
        fail_msg("%s: the probe's key %s", override, probe ? "stays" : "changes");
    if ((strcmp(before.train, after.train) != 0) != train)
        fail_msg("%s: the train key %s", override, train ? "stays" : "changes");
}

static void probe_once_per_model_and_loss(void **state)
{
    static const char *const probe[] = {
        "probe.pairs=8",          "train.beta=0.2",      "train.loss=ipo",
        "train.loss=sigmoid,sft", "train.max_length=64", "train.precision=fp32",
        "data.train_samples=5",   "data.seed=1",         "data.split=turn",
        "model.a.template=chat",  "train.ld_alpha=0.5",  "train.use_weighting=true"};
    static const char *const train[] = {
        "train.learning_rate=1e-4",   "train.lora_rank=8",   "train.order_seed=1",
        "train.init_seed=1",          "data.eval_samples=5", "probe.measure=per_sqrt_parameters",
        "strategy.top.layers=auto:3", "train.epochs=2",      "train.disable_dropout=false"};
    struct ha_stage_digests plain = digests(), changed = digests();
    struct probed top = probed_with(NULL, "a/top", &plain);

    (void)state;
    for (size_t i = 0; i < sizeof(probe) / sizeof(probe[0]); i++)
        expect_probe_change(probe[i], true, true);
    for (size_t i = 0; i < sizeof(train) / sizeof(train[0]); i++)
        expect_probe_change(train[i], false, true);
    expect_probe_change("generate.max_new_tokens=5", false, false);
    expect_probe_change("schedule.fuse=never", false, false);
    assert_string_equal(top.probe, probed_with(NULL, "a/mid", &plain).probe);
    /* Where layers are named, a probe changes nothing. */
    assert_string_equal(probed_with(NULL, "a/mid", &plain).train,
                        keys_with(NULL, "a/mid", NULL).train);
    assert_string_equal(probed_with("probe.pairs=8", "a/mid", &plain).train,
                        keys_with(NULL, "a/mid", NULL).train);
    changed.eval = file_b;
    assert_string_equal(top.probe, probed_with(NULL, "a/top", &changed).probe);
    changed = digests();
    changed.train = file_b;
    assert_string_not_equal(top.probe, probed_with(NULL, "a/top", &changed).probe);
    changed = digests();
    changed.model = B;
    assert_string_not_equal(top.probe, probed_with(NULL, "a/top", &changed).probe);
}

static void refuse_a_probe_that_is_none(void **state)
{
    struct ha_stage_digests plain = digests();
    struct ha_sweep *sweep = NULL;
    struct ha_grid *grid = NULL;
    struct ha_error err = {0};
    char key[HA_SHA256_HEX_BYTES] = "untouched";

    (void)state;
    assert_int_equal(
        ha_sweep_parse(PROBED, strlen(PROBED), "grid.toml", "/", NULL, 0, &sweep, &err), 0);
    assert_int_equal(ha_grid_create(sweep, NULL, &grid, &err), 0);
    assert_true(ha_stage_key_probe(grid, ha_grid_find(grid, "a/base"), &plain, key, &err) < 0);
    assert_true(ha_stage_key_train(grid, ha_grid_find(grid, "a/top"), &plain, NULL, key, &err) < 0);
    assert_string_equal(err.text, "stage key: the digest of the probe stage is missing");
    assert_string_equal(key, "untouched");
    ha_grid_destroy(grid);
    ha_sweep_destroy(sweep);
}

/* Keys live in databases: a change here means that no old result is reused, and needs a higher
 * HA_NUMERICS_VERSION. */
static void are_stable(void **state)
{
    struct keys keys = keys_with(NULL, "a/mid", NULL);
    struct ha_stage_digests plain = digests();
    struct probed probed = probed_with(NULL, "a/top", &plain);

    (void)state;
    assert_string_equal(probed.probe,
                        "146bd68788581a7136959671ac769e51c760d21e1943c6d453514fe97dbf2c2a");
    assert_string_equal(probed.train,
                        "ca27f0467c2478065017031a7563adb6dd96eed78b5b6b7019be9d84ccf5a4c4");
    assert_string_equal(keys.train,
                        "8b672fac172f16119eb23faf7f90a4a5c9f8d09128c2ccfc3ede20f383d0767c");
    assert_string_equal(keys.generate,
                        "38efb47b38d934f065ad5cc91b8a8c09cfe0c853bf0eae5dabfe2f3227f6602d");
    assert_string_equal(keys.judge,
                        "50173f88af9ecb389bf000e9e635c6b5102fbd1c19e6cd3c8298e61674e463f6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(change_with_results),
        cmocka_unit_test(stay_with_the_rest),
        cmocka_unit_test(base_ignores_training),
        cmocka_unit_test(change_with_inputs),
        cmocka_unit_test(refuse_wrong_inputs),
        cmocka_unit_test(are_stable),
        cmocka_unit_test(probe_once_per_model_and_loss),
        cmocka_unit_test(refuse_a_probe_that_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
