#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"
#include "kernels/backend.h"
#include "kernels/collective.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/pair_files.h"
#include "worker/attempt/plan_view.h"
#include "worker/dpo/count.h"

/* Bytes of the folder's *.safetensors; 0 where there are none: config.json is enough for a plan. */
static int64_t stored_bytes(const char *dir)
{
    static const char suffix[] = ".safetensors";
    DIR *folder = opendir(dir);
    struct dirent *entry;
    int64_t bytes = 0;

    while (folder && (entry = readdir(folder)) != NULL) {
        size_t length = strlen(entry->d_name);
        struct stat st;

        if (length > sizeof(suffix) - 1 &&
            strcmp(entry->d_name + length - (sizeof(suffix) - 1), suffix) == 0 &&
            fstatat(dirfd(folder), entry->d_name, &st, 0) == 0)
            bytes += st.st_size;
    }
    if (folder)
        closedir(folder);
    return bytes;
}

static int fill_model(struct ha_json *json, const struct ha_model_config *config)
{
    if (ha_json_set(json, "family", ha_json_new_string(ha_model_family_name(config->family))) < 0 ||
        ha_json_set(json, "n_layers", ha_json_new_int(config->n_layers)) < 0 ||
        ha_json_set(json, "width", ha_json_new_int(config->width)) < 0 ||
        ha_json_set(json, "vocab", ha_json_new_int(config->vocab)) < 0 ||
        ha_json_set(json, "context", ha_json_new_int(config->max_position)) < 0 ||
        ha_json_set(json, "parameters", ha_json_new_int(ha_model_config_n_params(config))) < 0)
        return -ENOMEM;
    return 0;
}

static int print_json(const struct ha_model_config *config, const struct ha_plan_view *cpu,
                      const struct ha_plan_view *gpu, struct ha_error *err)
{
    struct ha_json *json = ha_plan_view_json(cpu);
    char *text = NULL;
    int r = json ? fill_model(json, config) : -ENOMEM;

    if (r == 0 && gpu)
        r = ha_json_set(json, "gpu", ha_plan_view_json(gpu));
    if (r == 0)
        text = ha_json_dump(json, HA_JSON_PRETTY);
    ha_json_destroy(json);
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = puts(text) == EOF ? ha_error_set(err, errno, "standard output: %s", strerror(errno)) : 0;
    free(text);
    return r;
}

static void print_text(const struct ha_model_config *config, const struct ha_plan_view *cpu,
                       const struct ha_plan_view *gpu)
{
    printf("%s, %lld layers, width %lld, vocabulary %lld, %lld parameters\n\n",
           ha_model_family_name(config->family), (long long)config->n_layers,
           (long long)config->width, (long long)config->vocab,
           (long long)ha_model_config_n_params(config));
    ha_plan_view_print(cpu);
    if (gpu) {
        puts("");
        ha_plan_view_print(gpu);
    }
}

/* A memory option; 0 where it is not given. */
static int read_memory(const struct ha_arguments *arguments, const char *option, int64_t *ret_bytes,
                       struct ha_error *err)
{
    const char *text = ha_arguments_value(arguments, option, NULL);
    char what[32];

    if (!text)
        return 0;
    (void)snprintf(what, sizeof(what), "--%s", option);
    return ha_memory_parse(what, text, ret_bytes, err);
}

/* That a chat template is known, where the model's tokenizer is here. */
static int check_template(const struct ha_engine_options *engine, struct ha_error *err)
{
    char *path = ha_path_join(engine->model_dir, "tokenizer.json");
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_chat chat;
    bool has;
    int r = path ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    if (r == 0 && strcmp(engine->prompt_template, "hh") != 0 && ha_path_exists(path)) {
        r = ha_tokenizer_load(engine->model_dir, &tokenizer, err);
        if (r == 0)
            r = ha_engine_open_chat(engine, tokenizer, &chat, &has, err);
        ha_tokenizer_destroy(tokenizer);
    }
    free(path);
    return r;
}

/* The mean pair of --data, as it would be trained on. */
static int count_lengths(const struct ha_call *call, struct ha_dpo_lengths *ret_lengths,
                         struct ha_error *err)
{
    const struct ha_sweep_train *train = &call->settings->train;
    struct ha_pair_files files = {.what = "training pairs",
                                  .settings = call->settings,
                                  .samples = call->settings->data.train_samples};
    struct ha_tokenizer *tokenizer;
    struct ha_pair_set *set = NULL;
    struct ha_chat chat;
    bool has_chat = false;
    int r = ha_tokenizer_load(call->engine.model_dir, &tokenizer, err);

    if (r < 0)
        return r;
    r = ha_engine_open_chat(&call->engine, tokenizer, &chat, &has_chat, err);
    files.paths = ha_arguments_values(call->arguments, "data", &files.n_paths);
    files.chat = has_chat ? &chat : NULL;
    if (r == 0)
        r = ha_pair_files_load(&files, tokenizer, &set, err);
    if (r == 0)
        r = ha_dpo_mean_lengths(set, train->batch_size, train->gradient_accumulation,
                                (uint64_t)train->order_seed, ret_lengths, err);
    ha_pair_set_destroy(set);
    ha_tokenizer_destroy(tokenizer);
    return r;
}

/* "NAME" or "NAME=LAYERS"; a name may have "=" in it, layers never. */
static int read_strategy(const char *text, struct ha_plan_strategy *strategy, char **ret_name,
                         struct ha_error *err)
{
    const char *equals = strrchr(text, '=');

    *ret_name = equals ? ha_strndup(text, (size_t)(equals - text)) : ha_strdup(text);
    if (!*ret_name)
        return ha_error_set(err, ENOMEM, "out of memory");
    *strategy = (struct ha_plan_strategy){.name = *ret_name, .layers = equals ? equals + 1 : NULL};
    if (!equals && (!ha_blocks_builtin(text) || strcmp(text, "base") == 0))
        return ha_error_set(err, EINVAL,
                            "--strategy %s: give local, mid, global, full or NAME=LAYERS", text);
    return 0;
}

struct asked {
    struct ha_plan_strategy strategies[HA_PLAN_STRATEGIES_MAX];
    char *names[HA_PLAN_STRATEGIES_MAX];
    int64_t n;
};

static int read_strategies(const struct ha_arguments *arguments, struct asked *asked,
                           struct ha_error *err)
{
    int64_t n;
    const char *const *texts = ha_arguments_values(arguments, "strategy", &n);
    int r = 0;

    if (n > HA_PLAN_STRATEGIES_MAX)
        return ha_error_set(err, EINVAL, "--strategy may be given %d times, not %lld",
                            HA_PLAN_STRATEGIES_MAX, (long long)n);
    for (; r == 0 && asked->n < n; asked->n++) {
        r = read_strategy(texts[asked->n], &asked->strategies[asked->n], &asked->names[asked->n],
                          err);
        for (int64_t i = 0; r == 0 && i < asked->n; i++)
            if (strcmp(asked->names[i], asked->names[asked->n]) == 0)
                r = ha_error_set(err, EINVAL, "--strategy %s is given twice", asked->names[i]);
    }
    return r;
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    struct ha_dpo_device gpu = {.gpu = true};
    struct ha_plan_view cpu_view = {0}, gpu_view = {0};
    struct ha_model_config config;
    struct ha_plan_view_request request = {.config = &config,
                                           .settings = call->settings,
                                           .device = {.threads = call->engine.threads},
                                           .stored_bytes = stored_bytes(call->engine.model_dir)};
    struct ha_dpo_lengths lengths;
    struct asked asked = {0};
    int64_t ranks = 0;
    bool with_gpu;
    int r = ha_model_config_load(call->engine.model_dir, &config, err);

    if (r == 0)
        r = check_template(&call->engine, err);
    if (r == 0)
        r = read_strategies(call->arguments, &asked, err);
    if (r == 0)
        r = read_memory(call->arguments, "memory", &request.device.memory_bytes, err);
    if (r == 0)
        r = read_memory(call->arguments, "gpu-memory", &gpu.memory_bytes, err);
    if (r == 0)
        r = ha_arguments_int(call->arguments, "ranks", 1, 0, &ranks, err);
    if (r == 0 && ranks > HA_COMM_MAX_RANKS)
        r = ha_error_set(err, EINVAL, "--ranks %lld: at most %d", (long long)ranks,
                         HA_COMM_MAX_RANKS);
    request.ranks = (int)ranks;
    if (r == 0 && gpu.memory_bytes == 0)
        r = ha_backend_gpu_limit(&gpu.memory_bytes, err);
    with_gpu = gpu.memory_bytes > 0;
    if (r == 0 && ha_arguments_given(call->arguments, "data")) {
        r = count_lengths(call, &lengths, err);
        request.lengths = &lengths;
    }
    request.strategies = asked.n > 0 ? asked.strategies : NULL;
    request.n_strategies = asked.n;
    if (r == 0)
        r = ha_plan_view_make(&request, &cpu_view, err);
    request.device = gpu;
    if (r == 0 && with_gpu)
        r = ha_plan_view_make(&request, &gpu_view, err);
    if (r == 0 && ha_arguments_given(call->arguments, "json"))
        r = print_json(&config, &cpu_view, with_gpu ? &gpu_view : NULL, err);
    else if (r == 0)
        print_text(&config, &cpu_view, with_gpu ? &gpu_view : NULL);
    ha_plan_view_clear(&cpu_view);
    ha_plan_view_clear(&gpu_view);
    for (int64_t i = 0; i < asked.n; i++)
        free(asked.names[i]);
    return r;
}

static const char *const required[] = {"model", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder; config.json is enough"},
    {"memory", "SIZE", "of the machine that trains on its CPU (64GiB); default: no limit"},
    {"gpu-memory", "SIZE",
     "plan for a GPU with so much memory too (24GiB); default: HA_GPU_MEMORY_LIMIT, if set"},
    {"strategy", "NAME=LAYERS",
     "plan this one (18-27, 0-3,7, auto:8, or a built-in's NAME alone), not the four; repeatable"},
    {"data", "FILE",
     "count FLOPs for the mean of these pairs, not of hh-rlhf; needs the tokenizer; repeatable"},
    {"set", "KEY=VALUE", "train.lora_rank=16, train.max_length=2048, ...; repeatable"},
    {"ranks", "N", "for each of N devices that train together (default: 1)"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"template", "NAME",
     "hh, chat or a format: refuse what the tokenizer, where it is there, cannot write"},
    {"json", NULL, "print JSON"},
};

const struct ha_subcommand ha_subcommand_plan = {
    .name = "plan",
    .command = {.name = "ha-attempt plan",
                .synopsis = "",
                .summary = "memory and FLOPs of each strategy and of all in lock-step, by "
                           "arithmetic",
                .example = "ha-attempt plan --model deploy/demo/models/qwen3-demo "
                           "--gpu-memory 24GiB",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
