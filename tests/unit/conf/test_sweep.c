/* grid.toml: the paper's defaults, what is refused and with which line, overrides, seeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/run_settings.h"
#include "common/conf/sweep.h"

#define MINIMAL "[[model]]\npath = \"m/tiny\"\n[data]\ntrain = [\"t\"]\neval = [\"e\"]\n"

static struct ha_sweep *parse(const char *text, const char *const *overrides, int64_t count)
{
    struct ha_sweep *sweep = NULL;
    struct ha_error err = {0};
    int r = ha_sweep_parse(text, strlen(text), "grid.toml", "/home/demo", overrides, count, &sweep,
                           &err);

    if (r < 0)
        fail_msg("%s", err.text);
    return sweep;
}

static void gives_the_papers_table_5(void **state)
{
    struct ha_sweep *sweep = parse(MINIMAL, NULL, 0);
    const struct ha_sweep_train *train = &sweep->train;
    const struct ha_section *section = &ha_sweep_train_section;

    (void)state;
    assert_true(train->learning_rate == 1e-5);
    assert_true(train->weight_decay == 0.01);
    assert_true(train->beta1 == 0.9 && train->beta2 == 0.999);
    assert_int_equal(train->batch_size, 6);
    assert_int_equal(train->gradient_accumulation, 4);
    assert_int_equal(train->epochs, 1);
    assert_true(train->beta == 0.1);
    assert_int_equal(train->lora_rank, 16);
    assert_true(train->lora_alpha == 32 && train->lora_dropout == 0.05);
    assert_int_equal(train->target_modules.count, 4);
    assert_string_equal(train->target_modules.items[3], "o_proj");
    assert_string_equal(train->precision, "bf16");
    assert_int_equal(train->max_length, 2048);
    assert_int_equal(sweep->data.seed, 42);
    assert_int_equal(sweep->data.train_samples, 10000);
    assert_int_equal(sweep->data.eval_samples, 1000);
    assert_true(train->eps == 1e-8 && train->max_grad_norm == 1.0);
    assert_int_equal(train->warmup_steps, 0);
    assert_string_equal(train->lr_scheduler, "linear");
    assert_true(train->disable_dropout);
    assert_int_equal(train->checkpoint_every_s, 600);
    assert_int_equal(sweep->generate.max_new_tokens, 256);
    assert_false(sweep->generate.batch_invariant);
    assert_int_equal(ha_section_source(section, ha_section_find(section, "beta"), train),
                     HA_SOURCE_PAPER);
    assert_int_equal(ha_section_source(section, ha_section_find(section, "eps"), train),
                     HA_SOURCE_TRL);
    assert_int_equal(sweep->strategy_count, 5);
    assert_string_equal(sweep->strategies[2].name, "mid");
    assert_string_equal(sweep->models[0].name, "tiny");
    assert_string_equal(sweep->models[0].prompt_template, "hh");
    assert_string_equal(sweep->general.name, "demo");
    assert_int_equal(sweep->judge_count, 0);
    ha_sweep_destroy(sweep);
}

static void refused(const char *text, const char *want)
{
    struct ha_sweep *sweep = NULL;
    struct ha_error err = {0};

    assert_true(ha_sweep_parse(text, strlen(text), "grid.toml", "/", NULL, 0, &sweep, &err) < 0);
    assert_null(sweep);
    assert_null(strchr(err.text, '\n'));
    if (strcmp(err.text, want) != 0)
        fail_msg("got:  %s\nwant: %s", err.text, want);
}

static void refuses_bad_values(void **state)
{
    (void)state;
    refused(MINIMAL "[train]\nlearnig_rate = 1\n",
            "grid.toml:7: unknown key train.learnig_rate; did you mean learning_rate?");
    refused(MINIMAL "[train]\nbeta = 0\n",
            "grid.toml:7: train.beta must be a number greater than 0, not 0");
    refused(MINIMAL "[train]\nbatch_size = 2.5\n",
            "grid.toml:7: train.batch_size must be an integer from 1 to 65536, not 2.5");
    refused(MINIMAL "[train]\n\nbatch_size = \"6\"\n",
            "grid.toml:8: train.batch_size must be an integer from 1 to 65536, not \"6\"");
    refused(MINIMAL "[train]\nlearning_rate = inf\n",
            "grid.toml:7: train.learning_rate must be a number of at least 0, not inf");
    refused(MINIMAL "[train]\ndisable_dropout = 1\n",
            "grid.toml:7: train.disable_dropout must be true or false, not 1");
    refused(MINIMAL "[train]\ntarget_modules = [\"q_proj\", \"up_proj\"]\n",
            "grid.toml:7: train.target_modules must be one of q_proj|k_proj|v_proj|o_proj, not "
            "\"up_proj\"");
    refused(MINIMAL "[train]\nprecision = \"fp16\"\n",
            "grid.toml:7: train.precision must be one of bf16|fp32, not \"fp16\"");
    refused(MINIMAL "[train]\ncheckpoint_every = \"soon\"\n",
            "grid.toml:7: train.checkpoint_every must be a duration (\"90s\", \"10m\", \"2h\", "
            "\"1d\" or seconds) from 1 to 864000, not \"soon\"");
    refused(MINIMAL "[train]\nmemory_limit = \"24 gigs\"\n",
            "grid.toml:7: train.memory_limit must be an amount of memory (\"24GiB\", \"512MiB\"), "
            "not \"24 gigs\"");
    refused(MINIMAL "[train]\nplan_memory = \"auto\"\n",
            "grid.toml:7: train.plan_memory must be an amount of memory (\"24GiB\", \"512MiB\"), "
            "not \"auto\"");
    refused(MINIMAL "[generate]\nstop = \"x\"\n",
            "grid.toml:7: generate.stop must be an array of strings, not \"x\"");
    refused(MINIMAL "[generate]\nstop = [\"a\", 1]\n",
            "grid.toml:7: generate.stop must be a string, not 1");
    refused(MINIMAL "[generate.top_p]\nx = 1\n",
            "grid.toml:6: generate.top_p must be a number greater than 0 and at most 1, not a "
            "table");
}

static void refuses_bad_structure(void **state)
{
    (void)state;
    refused("", "grid.toml:1: no [[model]] is given");
    refused("seed = 1\n" MINIMAL, "grid.toml:1: key seed stands in no section");
    refused(MINIMAL "[trian]\n", "grid.toml:6: unknown section [trian]; did you mean [train]?");
    refused(MINIMAL "[[judges]]\n",
            "grid.toml:6: unknown section [judges]; did you mean [[judge]]?");
    refused("[model]\npath = \"x\"\n", "grid.toml:1: write [[model]], one for each");
    refused("model = [1]\n", "grid.toml:1: write [[model]], one for each");
    refused(MINIMAL "[[train]]\n", "grid.toml:6: write [train], once");
    refused("[[model]]\nname = \"x\"\n",
            "grid.toml:1: model.path must be given: a folder, or \"org/name\" in the Hugging Face "
            "cache");
    refused("[[model]]\npath = \"x\"\n",
            "grid.toml:1: data.train must be given: JSON Lines files of pairs, plain or gzip, "
            "joined in this order");
    refused("[[model]]\npath = \"x\"\n[data]\ntrain = []\neval = [\"e\"]\n",
            "grid.toml:3: data.train and data.eval need a file each");
    refused(MINIMAL "[[model]]\npath = \"other/tiny\"\n",
            "grid.toml:6: a second model \"tiny\"; give it another name");
    refused(MINIMAL "[[model]]\npath = \"x\"\nname = \"a/b\"\n",
            "grid.toml:6: model.name \"a/b\" must be 1 to 100 letters, digits, \".\", \"_\", "
            "\"-\" or \"+\" and not begin with \".\"");
    refused(MINIMAL "[sweep]\nname = \"..\"\n",
            "grid.toml:7: sweep.name \"..\" must be 1 to 100 letters, digits, \".\", \"_\", "
            "\"-\" or \"+\" and not begin with \".\"");
}

static void refuses_bad_strategies(void **state)
{
    (void)state;
    refused(MINIMAL "[strategies]\nuse = [\"base\", \"gobal\"]\n",
            "grid.toml:7: strategies.use names \"gobal\", which is neither base, local, mid, "
            "global, full nor a [[strategy]]; did you mean global?");
    refused(MINIMAL "[strategies]\nuse = [\"mid\", \"mid\"]\n",
            "grid.toml:7: strategies.use names \"mid\" twice");
    refused(MINIMAL "[strategies]\nuse = []\n", "grid.toml:7: no strategies are given");
    refused(MINIMAL "[[strategy]]\nname = \"top\"\n",
            "grid.toml:6: strategy \"top\" needs layers, \"18-27\", [18, 20] or "
            "\"auto:8\"");
    refused(MINIMAL "[[strategy]]\nname = \"mid\"\nlayers = \"1\"\n",
            "grid.toml:6: strategy mid has the paper's layers; give it another name to choose "
            "them");
    refused(MINIMAL "[[strategy]]\nname = \"base\"\nrank = 2\n",
            "grid.toml:6: strategy base trains nothing; remove it");
    refused(MINIMAL "[[strategy]]\nname = \"a\"\nlayers = \"auto:0\"\n",
            "grid.toml:6: strategy.layers: \"auto:0\" trains nothing; at least one layer");
    refused(MINIMAL "[[strategy]]\nname = \"a\"\nlayers = [1, \"x\"]\n",
            "grid.toml:8: strategy.layers must be an array of layer numbers, not of \"x\"");
}

static void refuses_bad_judges(void **state)
{
    (void)state;
    refused(MINIMAL "[[judge]]\nmodel = \"q\"\nbase_url = \"ftp://x\"\n",
            "grid.toml:6: judge.base_url must begin with https:// or http://");
    refused(MINIMAL "[[judge]]\nmodel = \"q\"\nbase_url = \"http://x\"\nbudget = 5\n",
            "grid.toml:6: a budget needs judge.price_input and judge.price_output of \"q\"");
    refused(MINIMAL "[[judge]]\nmodel = \"q\"\nbase_url = \"http://x\"\napi_key_env = \"A\"\n"
                    "api_key_file = \"b\"\n",
            "grid.toml:6: judge \"q\" has more than one of api_key_env, api_key_file and api_key");
    refused(MINIMAL "[[judge]]\nmodel = \"q\"\n",
            "grid.toml:6: judge.base_url must be given: the part before /chat/completions");
}

static void refuses_what_is_not_built(void **state)
{
    (void)state;
    refused(MINIMAL "[train]\nlr_scheduler = \"cosine\"\n",
            "grid.toml:7: train.lr_scheduler = cosine is not built yet; linear is");
    refused(MINIMAL "[notify]\ncommand = \"mail\"\n",
            "grid.toml:7: notify.command = mail is not built yet; leave it out and follow hactl "
            "status");
    refused(MINIMAL "[vary]\nlr_scheduler = [\"linear\", \"cosine\"]\n",
            "grid.toml:7: vary.lr_scheduler: train.lr_scheduler = cosine is not built yet; linear "
            "is");
}

static void refuses_bad_axes(void **state)
{
    (void)state;
    refused(MINIMAL "[vary]\nbta = [1]\n", "grid.toml:7: unknown key vary.bta; did you mean beta?");
    refused(MINIMAL "[vary]\nbeta = 1\n", "grid.toml:7: vary.beta must be an array of values");
    refused(MINIMAL "[vary]\nbeta = [0.1, 1e-1]\n", "grid.toml:7: vary.beta has 0.1 twice");
    refused(MINIMAL "[vary]\nbeta = [0.1, -1]\n",
            "grid.toml:7: vary.beta: must be a number greater than 0, not -1");
    refused(MINIMAL "[vary]\nseed = [-1]\n",
            "grid.toml:7: vary.seed: must be an integer from 0 to 9007199254740992, not -1");
    refused(MINIMAL "[vary]\nlayers = [\"1\"]\n",
            "grid.toml:7: vary.layers: write one [[strategy]] for each choice of layers");
    refused(MINIMAL "[vary]\ncheckpoint_every = [60]\n",
            "grid.toml:7: vary.checkpoint_every: checkpoint_every changes no result and cannot be "
            "varied");
    refused(MINIMAL "[vary]\nlora_dropout = [0.05, 0.1]\n",
            "grid.toml:6: vary.lora_dropout changes nothing while train.disable_dropout is true; "
            "set it to false");
    refused(MINIMAL "[vary]\ndropout_seed = [1, 2]\n",
            "grid.toml:6: vary.dropout_seed changes nothing while train.disable_dropout is true; "
            "set it to false");
    refused(MINIMAL "[vary]\nrank = [4]\nlora_rank = [8]\n",
            "grid.toml:8: vary.lora_rank is given twice");
    refused(MINIMAL "[[strategy]]\nname = \"mid\"\nrank = 8\n[vary]\nrank = [4]\n",
            "grid.toml:10: vary.rank: strategy \"mid\" has its own rank; remove one of them");
    refused(MINIMAL "[vary]\nbeta = [0.1, 0.2]\nexclude = [{beta = 0.3}]\n",
            "grid.toml:8: vary.exclude: beta = 0.3 is not among vary.beta");
    refused(MINIMAL "[vary]\nbeta = [0.1]\nexclude = [{rank = 3}]\n",
            "grid.toml:8: vary.exclude: rank is no axis of [vary], nor model or strategy");
    refused(MINIMAL "[vary]\nexclude = [{model = \"x\"}]\n",
            "grid.toml:7: vary.exclude: no model is called \"x\"");
    refused(MINIMAL "[vary]\nexclude = 3\n",
            "grid.toml:7: vary.exclude must be an array of {key = value, ...}");
}

static void refused_override(const char *override, const char *want)
{
    static const char text[] = MINIMAL "[[judge]]\nmodel = \"q\"\nbase_url = \"http://x\"\n";
    struct ha_sweep *sweep = NULL;
    struct ha_error err = {0};

    assert_true(ha_sweep_parse(text, strlen(text), "grid.toml", "/", &override, 1, &sweep, &err) <
                0);
    if (strcmp(err.text, want) != 0)
        fail_msg("got:  %s\nwant: %s", err.text, want);
}

static void overrides(void **state)
{
    static const char *const set[] = {"train.learning_rate=1e-3", "model.q.2.layers=9",
                                      "judge.x.concurrency=4",    "sweep.name=other",
                                      "strategies.use=base,mid",  "data.train=a,b"};
    struct ha_sweep *sweep =
        parse("[[model]]\npath = \"m/q.2\"\n[data]\neval = [\"e\"]\n[[judge]]\nname = \"x\"\n"
              "model = \"q\"\nbase_url = \"https://[::1]:80/v1\"\n",
              set, 6);
    const struct ha_section *section = &ha_sweep_train_section;

    (void)state;
    assert_true(sweep->train.learning_rate == 1e-3);
    assert_int_equal(
        ha_section_source(section, ha_section_find(section, "learning_rate"), &sweep->train),
        HA_SOURCE_USER);
    assert_int_equal(sweep->models[0].layers, 9);
    assert_int_equal(sweep->judges[0].concurrency, 4);
    assert_string_equal(sweep->judges[0].endpoint, "[::1]");
    assert_string_equal(sweep->general.name, "other");
    assert_int_equal(sweep->strategy_count, 2);
    assert_int_equal(sweep->data.train.count, 2);
    assert_string_equal(sweep->data.train.items[1], "b");
    ha_sweep_destroy(sweep);

    refused_override("train.bta=1", "--set train.bta: unknown key train.bta; did you mean beta?");
    refused_override("train.beta=-1", "--set train.beta must be a number greater than 0, not -1");
    refused_override("train.lr_scheduler=cosine",
                     "--set train.lr_scheduler: train.lr_scheduler = cosine is not built yet; "
                     "linear is");
    refused_override("beta=1", "--set beta: write section.key=value");
    refused_override("strategies.use=base,mdi",
                     "grid.toml:1: strategies.use names \"mdi\", which is neither base, local, "
                     "mid, global, full nor a [[strategy]]; did you mean mid?");
    refused_override("train.beta", "--set train.beta: write section.key=value");
    refused_override("trian.beta=1",
                     "--set trian.beta: unknown section [trian]; did you mean [train]?");
    refused_override("model.x.layers=1", "--set model.x.layers: no [[model]] is called \"x\"");
    refused_override("model.layers=1", "--set model.layers: write model.NAME.key=value");
    refused_override("vary.beta=1", "--set vary.beta: axes are set in the file only");
}

static void seeds_follow(void **state)
{
    struct ha_sweep *sweep = parse(MINIMAL "[sweep]\nseed = 7\n[train]\ninit_seed = 9\n", NULL, 0);
    const struct ha_section *section = &ha_sweep_data_section;

    (void)state;
    assert_int_equal(sweep->data.seed, 7);
    assert_int_equal(sweep->train.order_seed, 7);
    assert_int_equal(sweep->train.init_seed, 9);
    assert_int_equal(sweep->train.dropout_seed, 7);
    assert_int_equal(sweep->generate.seed, 7);
    assert_int_equal(ha_section_source(section, ha_section_find(section, "seed"), &sweep->data),
                     HA_SOURCE_USER);
    ha_sweep_destroy(sweep);
    sweep = parse("[[model]]\npath = \"x\"\n[data]\ntrain = [\"t\"]\neval = [\"e\"]\nseed = 3\n",
                  NULL, 0);
    assert_int_equal(sweep->data.seed, 3);
    assert_int_equal(sweep->train.order_seed, 3);
    assert_int_equal(sweep->train.init_seed, 42);
    ha_sweep_destroy(sweep);
}

static void orders_strategies(void **state)
{
    static const char *const want[] = {"full", "top", "mid", "low"};
    struct ha_sweep *sweep = parse(
        MINIMAL "[strategies]\nuse = [\"full\", \"top\", \"mid\"]\n[[strategy]]\nname = \"low\"\n"
                "layers = \"0-2\"\n[[strategy]]\nname = \"top\"\nlayers = [5, 4]\nrank = 8\n"
                "[[strategy]]\nname = \"mid\"\nalpha = 8\n",
        NULL, 0);

    (void)state;
    assert_int_equal(sweep->strategy_count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(sweep->strategies[i].name, want[i]);
    assert_string_equal(sweep->strategies[1].layers, "5,4");
    assert_int_equal(sweep->strategies[1].rank, 8);
    assert_true(sweep->strategies[2].alpha == 8);
    assert_null(sweep->strategies[2].layers);
    ha_sweep_destroy(sweep);
}

static void shows_every_value(void **state)
{
    struct ha_sweep *sweep = parse(MINIMAL "[train]\nbeta = 0.2\n[vary]\nrank = [4, 8]\n", NULL, 0);
    struct ha_json *json = ha_sweep_json(sweep);
    const struct ha_json *beta = ha_json_get(ha_json_get(json, "train"), "beta");
    struct ha_buffer out;

    (void)state;
    assert_true(ha_json_real(ha_json_get(beta, "value"), 0) == 0.2);
    assert_string_equal(ha_json_string(ha_json_get(beta, "source"), ""), "user");
    assert_int_equal(ha_json_size(ha_json_get(json, "strategy")), 5);
    assert_string_equal(
        ha_json_string(ha_json_at(ha_json_get(ha_json_get(json, "vary"), "rank"), 1), ""), "8");
    ha_json_destroy(json);
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_sweep_print(sweep, &out), 0);
    assert_non_null(strstr(ha_buffer_text(&out), "[[model]]\n"));
    assert_non_null(strstr(ha_buffer_text(&out), "\n[vary]\nrank = 4, 8\n"));
    ha_buffer_clear(&out);
    ha_sweep_destroy(sweep);
}

static void probes_where_it_is_asked_for(void **state)
{
    static const char *const set[] = {"probe.pairs=8"};
    static const struct {
        const char *text;
        int64_t overrides;
        bool probes;
        int64_t pairs;
    } cases[] = {
        {MINIMAL, 0, false, 256},
        {MINIMAL "[probe]\n", 0, true, 256},
        {MINIMAL "[probe]\npairs = 16\n", 0, true, 16},
        {MINIMAL, 1, true, 8},
        {MINIMAL "[[strategy]]\nname = \"top\"\nlayers = \"auto:2\"\n", 0, true, 256},
        {MINIMAL "[[strategy]]\nname = \"top\"\nlayers = \"0-2\"\n", 0, false, 256},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_sweep *sweep = parse(cases[i].text, set, cases[i].overrides);
        struct ha_json *json = ha_sweep_json(sweep);

        assert_int_equal(sweep->probes, cases[i].probes);
        assert_int_equal(sweep->probe.pairs, cases[i].pairs);
        assert_string_equal(sweep->probe.measure, "norm");
        assert_int_equal(ha_json_get(json, "probe") != NULL, cases[i].probes);
        ha_json_destroy(json);
        ha_sweep_destroy(sweep);
    }
    refused(MINIMAL "[probe]\n[strategies]\nuse = [\"base\"]\n",
            "grid.toml:6: [probe] is a stage of cells that train, and no strategy does; add one "
            "to strategies.use");
    refused(MINIMAL "[probe]\npairs = 0\n",
            "grid.toml:7: probe.pairs must be an integer from 1 to 16777216, not 0");
    refused(MINIMAL "[probe]\nmesure = \"norm\"\n",
            "grid.toml:7: unknown key probe.mesure; did you mean measure?");
}

static void run_settings(void **state)
{
    static const char *const set[] = {"train.learning_rate=1e-3", "sweep.seed=5",
                                      "generate.settings=model", "generate.top_k=4"};
    static const char *const wrong[] = {"train.bta=1", "sweep.sede=1", "judge.x=1", "beta"};
    struct ha_run_settings *settings = NULL, *again = NULL;
    struct ha_error err = {0};
    struct ha_json *json, *patch = NULL;

    (void)state;
    assert_int_equal(ha_run_settings_create(set, 4, &settings, &err), 0);
    assert_int_equal(settings->train.init_seed, 5);
    assert_int_equal(settings->data.seed, 5);
    json = ha_run_settings_json(settings);
    /* What the model's own file decides is left out; what was given stays. */
    assert_null(ha_json_get(ha_json_get(json, "generate"), "temperature"));
    assert_int_equal(ha_json_int(ha_json_get(ha_json_get(json, "generate"), "top_k"), 0), 4);
    assert_int_equal(ha_run_settings_from_json(json, "job.json", &again, &err), 0);
    assert_true(again->train.learning_rate == 1e-3);
    assert_int_equal(again->train.order_seed, 5);
    assert_false(ha_section_given(&ha_sweep_generate_section,
                                  ha_section_find(&ha_sweep_generate_section, "temperature"),
                                  &again->generate));
    ha_json_destroy(json);
    assert_int_equal(ha_json_parse("{\"train\": {\"lora_rank\": 4}}", 27, "x", &patch, &err), 0);
    assert_int_equal(ha_run_settings_merge(again, patch, "job.json", &err), 0);
    assert_int_equal(again->train.lora_rank, 4);
    assert_true(again->train.learning_rate == 1e-3);
    ha_json_destroy(patch);
    patch = NULL;
    assert_int_equal(ha_json_parse("{\"train\": {\"beta\": 0}}", 22, "x", &patch, &err), 0);
    assert_true(ha_run_settings_merge(again, patch, "job.json", &err) < 0);
    assert_string_equal(err.text, "job.json: train.beta must be a number greater than 0, not 0");
    ha_json_destroy(patch);
    ha_run_settings_destroy(again);
    ha_run_settings_destroy(settings);
    settings = NULL;
    for (int i = 0; i < 4; i++)
        assert_true(ha_run_settings_create(&wrong[i], 1, &settings, &err) < 0);
    assert_null(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_papers_table_5),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_bad_structure),
        cmocka_unit_test(refuses_bad_strategies),
        cmocka_unit_test(refuses_bad_judges),
        cmocka_unit_test(refuses_what_is_not_built),
        cmocka_unit_test(refuses_bad_axes),
        cmocka_unit_test(overrides),
        cmocka_unit_test(seeds_follow),
        cmocka_unit_test(orders_strategies),
        cmocka_unit_test(shows_every_value),
        cmocka_unit_test(probes_where_it_is_asked_for),
        cmocka_unit_test(run_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
