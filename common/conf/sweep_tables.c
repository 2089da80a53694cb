/* sweep_tables.c - every key of grid.toml
 *
 * The paper is its Appendix B (Table 5) and section 4.1; TRL is version 1.9 with
 * Transformers 5 where the paper is silent.  A row's `reads` says whose result
 * its value changes; HA_READ_NONE rows never enter a stage key. */
#include "common/conf/sweep.h"

#include <math.h>
#include <stddef.h>

#define COUNT(rows) ((int64_t)(sizeof(rows) / sizeof((rows)[0])))
#define SECTION(variable, title, type, rows)                                                       \
    const struct ha_section variable = {title, rows, COUNT(rows), sizeof(struct type)}
#define AT(member) offsetof(struct ROW_STRUCT, member)
#define SEED_RANGE .minimum = 0, .maximum = 9007199254740992.0
#define FROM(low) .minimum = (low), .maximum = INFINITY
#define ABOVE_0 .minimum = 0, .maximum = INFINITY, .above = true
#define BETWEEN(low, high) .minimum = (low), .maximum = (high)
#define BOTH (HA_READ_TRAIN | HA_READ_GENERATE)
#define LOSS (HA_READ_TRAIN | HA_READ_PROBE) /* what the loss of a pair depends on */

/* clang-format off */
#define ROW_STRUCT ha_sweep_general
static const struct ha_setting general_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), .source = HA_SOURCE_OURS,
     .help = "of the sweep and its folder under runs/; default: the grid file's name"},
    {"seed", HA_SETTING_INT, AT(seed), SEED_RANGE, .otherwise = "42", .source = HA_SOURCE_PAPER,
     .help = "default of data.seed, the three seeds of [train] and generate.seed"},
    {"priority", HA_SETTING_INT, AT(priority), BETWEEN(-1000, 1000), .otherwise = "0",
     .source = HA_SOURCE_OURS, .help = "sweeps with a higher one get workers first"},
    {"budget", HA_SETTING_REAL, AT(budget), FROM(0), .otherwise = "0", .source = HA_SOURCE_OURS,
     .help = "money for all judges together, in the unit of their prices; 0: no limit"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_model
static const struct ha_setting model_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), .source = HA_SOURCE_OURS,
     .help = "in cells and tables; default: the last part of path"},
    {"path", HA_SETTING_TEXT, AT(path), .required = true, .source = HA_SOURCE_OURS,
     .help = "a folder, or \"org/name\" in the Hugging Face cache"},
    {"revision", HA_SETTING_TEXT, AT(revision), .source = HA_SOURCE_OURS,
     .help = "commit, branch or tag in the cache; default: main"},
    {"hub_id", HA_SETTING_TEXT, AT(hub_id), .source = HA_SOURCE_OURS,
     .help = "base_model_name_or_path of the adapters; default: path when it is org/name"},
    {"template", HA_SETTING_CHOICE, AT(prompt_template), .otherwise = "hh",
     .choices = "hh|chat|llama-2|llama-3|llama-3.1|chatml|qwen2.5|qwen3",
     .source = HA_SOURCE_OURS, .reads = BOTH,
     .help = "hh: the dialogue as it stands; chat: the model's own chat template; or the name of a "
             "format, for a model whose template is missing or not known"},
    {"layers", HA_SETTING_INT, AT(layers), BETWEEN(1, 4096), .source = HA_SOURCE_OURS,
     .help = "for dry runs without the files; checked against config.json"},
    {"family", HA_SETTING_CHOICE, AT(family), .choices = "llama|qwen2|qwen3",
     .source = HA_SOURCE_OURS, .help = "config.json's model_type; checked against it"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_strategies
static const struct ha_setting strategies_rows[] = {
    {"use", HA_SETTING_LIST, AT(use), .otherwise = "base,local,mid,global,full",
     .source = HA_SOURCE_PAPER, .help = "built-in strategies and names of [[strategy]], in order"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_strategy
static const struct ha_setting strategy_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), .required = true, .source = HA_SOURCE_OURS,
     .help = "a new one, or local, mid, global, full to give that one its own adapter settings"},
    {"layers", HA_SETTING_LAYERS, AT(layers), .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN,
     .help = "\"18-27\", \"0-3,7\", [18, 20], or \"auto:8\": the 8 neighbours with most of the "
             "gradient that [probe] finds"},
    {"target_modules", HA_SETTING_LIST, AT(target_modules),
     .choices = "q_proj|k_proj|v_proj|o_proj", .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN,
     .help = "default: train.target_modules"},
    {"rank", HA_SETTING_INT, AT(rank), BETWEEN(1, 1024), .source = HA_SOURCE_OURS,
     .reads = HA_READ_TRAIN, .help = "default: train.lora_rank"},
    {"alpha", HA_SETTING_REAL, AT(alpha), ABOVE_0, .source = HA_SOURCE_OURS,
     .reads = HA_READ_TRAIN, .help = "default: train.lora_alpha"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_data
static const struct ha_setting data_rows[] = {
    {"format", HA_SETTING_CHOICE, AT(format), .choices = "auto|hh|preference", .otherwise = "auto",
     .source = HA_SOURCE_OURS, .reads = BOTH | HA_READ_PROBE,
     .help = "hh: {chosen, rejected} dialogues; preference: {prompt, chosen, rejected}; "
             "auto: by the first row"},
    {"train", HA_SETTING_LIST, AT(train), .required = true, .source = HA_SOURCE_OURS,
     .help = "JSON Lines files of pairs, plain or gzip, joined in this order"},
    {"eval", HA_SETTING_LIST, AT(eval), .required = true, .source = HA_SOURCE_OURS,
     .help = "held-out files: their prompts are answered and judged"},
    {"train_samples", HA_SETTING_INT, AT(train_samples), FROM(1), .otherwise = "10000",
     .source = HA_SOURCE_PAPER, .reads = LOSS,
     .help = "the first so many of the shuffled training rows"},
    {"eval_samples", HA_SETTING_INT, AT(eval_samples), FROM(1), .otherwise = "1000",
     .source = HA_SOURCE_PAPER, .reads = BOTH,
     .help = "the first so many of the shuffled held-out rows"},
    {"seed", HA_SETTING_INT, AT(seed), SEED_RANGE, .otherwise = "@sweep.seed",
     .source = HA_SOURCE_PAPER, .reads = BOTH | HA_READ_PROBE, .help = "which rows are selected"},
    {"split", HA_SETTING_CHOICE, AT(split), .choices = "trl|turn", .otherwise = "trl",
     .source = HA_SOURCE_TRL, .reads = LOSS,
     .help = "trl: prompt = longest common prefix, as TRL 1.9; turn: up to the last Assistant:"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_train
static const struct ha_setting train_rows[] = {
    {"learning_rate", HA_SETTING_REAL, AT(learning_rate), FROM(0), .otherwise = "1e-5",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "of the first step"},
    {"batch_size", HA_SETTING_INT, AT(batch_size), BETWEEN(1, 65536), .otherwise = "6",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "pairs per micro-batch"},
    {"gradient_accumulation", HA_SETTING_INT, AT(gradient_accumulation), BETWEEN(1, 65536),
     .otherwise = "4", .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN,
     .help = "micro-batches per optimizer step"},
    {"epochs", HA_SETTING_INT, AT(epochs), BETWEEN(1, 10000), .otherwise = "1",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "passes over the training rows"},
    {"beta", HA_SETTING_REAL, AT(beta), ABOVE_0, .otherwise = "0.1", .source = HA_SOURCE_PAPER,
     .reads = LOSS, .help = "temperature of the DPO loss"},
    {"loss", HA_SETTING_LIST, AT(loss), .single = true,
     .choices = "sigmoid|ipo|hinge|robust|exo_pair|nca_pair|bco_pair|apo_zero|apo_down|sppo_hard|"
                "aot|aot_unpaired|discopop|sigmoid_norm|sft",
     .otherwise = "sigmoid", .source = HA_SOURCE_PAPER, .reads = LOSS,
     .help = "as TRL names them, one or several; sigmoid is the paper's equation 1"},
    {"loss_weights", HA_SETTING_LIST, AT(loss_weights), .numbers = true, .otherwise = "[]",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "one for each of several losses; [] gives each 1"},
    {"label_smoothing", HA_SETTING_REAL, AT(label_smoothing), BETWEEN(0, 1), .otherwise = "0",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "of robust, exo_pair, aot and aot_unpaired; the others ignore it"},
    {"f_divergence", HA_SETTING_CHOICE, AT(f_divergence),
     .choices = "reverse_kl|forward_kl|js_divergence|alpha_divergence", .otherwise = "reverse_kl",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "how a log-ratio becomes a score"},
    {"f_alpha", HA_SETTING_REAL, AT(f_alpha), .otherwise = "0.5", .source = HA_SOURCE_TRL,
     .reads = LOSS, .late = true, .help = "of alpha_divergence; 1: as reverse_kl"},
    {"discopop_tau", HA_SETTING_REAL, AT(discopop_tau), ABOVE_0, .otherwise = "0.05",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "temperature of discopop's mixture"},
    {"ld_alpha", HA_SETTING_REAL, AT(ld_alpha), BETWEEN(0, 1), .otherwise = "1",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "weight of tokens behind the shorter answer's length; 1: off"},
    {"use_weighting", HA_SETTING_BOOL, AT(use_weighting), .otherwise = "false",
     .source = HA_SOURCE_TRL, .reads = LOSS, .late = true,
     .help = "WPO: each pair's loss times the policy's probability of it"},
    {"max_length", HA_SETTING_INT, AT(max_length), BETWEEN(2, 1 << 20), .otherwise = "2048",
     .source = HA_SOURCE_PAPER, .reads = LOSS,
     .help = "tokens of prompt and completion; longer ones lose their end"},
    {"precision", HA_SETTING_CHOICE, AT(precision), .choices = "bf16|fp32", .otherwise = "bf16",
     .source = HA_SOURCE_PAPER, .reads = BOTH | HA_READ_PROBE,
     .help = "of the frozen model's arithmetic; a worker records the one it used"},
    {"weight_decay", HA_SETTING_REAL, AT(weight_decay), FROM(0), .otherwise = "0.01",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "of AdamW, on A and B"},
    {"beta1", HA_SETTING_REAL, AT(beta1), BETWEEN(0, 0.9999999), .otherwise = "0.9",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "of AdamW's first moment"},
    {"beta2", HA_SETTING_REAL, AT(beta2), BETWEEN(0, 0.9999999), .otherwise = "0.999",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "of AdamW's second moment"},
    {"eps", HA_SETTING_REAL, AT(eps), ABOVE_0, .otherwise = "1e-8", .source = HA_SOURCE_TRL,
     .reads = HA_READ_TRAIN, .help = "of AdamW, added after the bias correction"},
    {"max_grad_norm", HA_SETTING_REAL, AT(max_grad_norm), FROM(0), .otherwise = "1.0",
     .source = HA_SOURCE_TRL, .reads = HA_READ_TRAIN,
     .help = "gradients are clipped to it; 0: never"},
    {"warmup_steps", HA_SETTING_INT, AT(warmup_steps), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_TRL, .reads = HA_READ_TRAIN, .help = "steps of rising learning rate"},
    {"lr_scheduler", HA_SETTING_CHOICE, AT(lr_scheduler), .choices = "linear|constant|cosine",
     .otherwise = "linear", .source = HA_SOURCE_TRL, .reads = HA_READ_TRAIN,
     .help = "linear: down to 0 at the end"},
    {"lora_rank", HA_SETTING_INT, AT(lora_rank), BETWEEN(1, 1024), .otherwise = "16",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "rows of A"},
    {"lora_alpha", HA_SETTING_REAL, AT(lora_alpha), ABOVE_0, .otherwise = "32",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN,
     .help = "the adapter is scaled by alpha / rank"},
    {"lora_dropout", HA_SETTING_REAL, AT(lora_dropout), BETWEEN(0, 0.99), .otherwise = "0.05",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN,
     .help = "without effect while disable_dropout is true"},
    {"disable_dropout", HA_SETTING_BOOL, AT(disable_dropout), .otherwise = "true",
     .source = HA_SOURCE_TRL, .reads = HA_READ_TRAIN, .help = "as TRL's DPO does by default"},
    {"target_modules", HA_SETTING_LIST, AT(target_modules),
     .choices = "q_proj|k_proj|v_proj|o_proj", .otherwise = "q_proj,k_proj,v_proj,o_proj",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_TRAIN, .help = "matrices that get an adapter"},
    {"tokens_per_microbatch", HA_SETTING_INT, AT(tokens_per_microbatch), BETWEEN(0, 1 << 24),
     .otherwise = "4096", .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN,
     .help = "tokens computed at once (a longer pair goes alone), part of the batch plan; "
             "0: as many as plan_memory has room for"},
    {"plan_memory", HA_SETTING_TEXT, AT(plan_memory), .memory = true, .source = HA_SOURCE_OURS,
     .reads = HA_READ_TRAIN,
     .help = "\"24GiB\": what tokens_per_microbatch = 0 is picked for, on any machine"},
    {"reference", HA_SETTING_CHOICE, AT(reference), .choices = "same_plan|any",
     .otherwise = "same_plan", .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN, .late = true,
     .help = "any: stored reference log-probs are taken though batches were packed otherwise or "
             "by other kernels; margins then begin near 0, and the report says how near"},
    {"memory_limit", HA_SETTING_TEXT, AT(memory_limit), .memory = true, .otherwise = "auto",
     .source = HA_SOURCE_OURS,
     .help = "\"24GiB\" for an attempt: layers are run again and answers wait so that it fits, which "
             "changes no result; auto: 90 % of the machine's memory"},
    {"shard_weights", HA_SETTING_CHOICE, AT(shard_weights), .choices = "auto|never|always",
     .otherwise = "auto", .source = HA_SOURCE_OURS,
     .help = "of a job on several GPUs: each keeps a part of the frozen weights, and layers are "
             "put together as they compute, which changes no result; auto: where the model does "
             "not fit otherwise"},
    {"init_seed", HA_SETTING_INT, AT(init_seed), SEED_RANGE, .otherwise = "@sweep.seed",
     .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN, .help = "of the adapters' A"},
    {"order_seed", HA_SETTING_INT, AT(order_seed), SEED_RANGE, .otherwise = "@data.seed",
     .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN, .help = "of the order of each epoch"},
    {"dropout_seed", HA_SETTING_INT, AT(dropout_seed), SEED_RANGE, .otherwise = "@sweep.seed",
     .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN, .help = "of lora_dropout"},
    {"eval_steps", HA_SETTING_INT, AT(eval_steps), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_OURS,
     .help = "held-out loss and accuracy every so many steps; 0: at the end"},
    {"checkpoint_every", HA_SETTING_DURATION, AT(checkpoint_every_s), BETWEEN(1, 864000),
     .otherwise = "10m", .source = HA_SOURCE_OURS, .help = "time between checkpoints"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_probe
static const struct ha_setting probe_rows[] = {
    {"pairs", HA_SETTING_INT, AT(pairs), BETWEEN(1, 1 << 24), .otherwise = "256",
     .source = HA_SOURCE_OURS, .reads = HA_READ_PROBE,
     .help = "the first so many of the selected training pairs"},
    {"measure", HA_SETTING_CHOICE, AT(measure), .choices = "norm|per_sqrt_parameters",
     .otherwise = "norm", .source = HA_SOURCE_OURS, .reads = HA_READ_TRAIN,
     .help = "of each layer, by which layers = \"auto:K\" chooses"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_generate
static const struct ha_setting generate_rows[] = {
    {"temperature", HA_SETTING_REAL, AT(temperature), BETWEEN(0, 100), .otherwise = "0",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "0: greedy"},
    {"top_p", HA_SETTING_REAL, AT(top_p), .minimum = 0, .maximum = 1, .above = true,
     .otherwise = "1", .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "1: off"},
    {"top_k", HA_SETTING_INT, AT(top_k), BETWEEN(0, 1 << 24), .otherwise = "0",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "0: off"},
    {"repetition_penalty", HA_SETTING_REAL, AT(repetition_penalty), .minimum = 0, .maximum = 100,
     .above = true, .otherwise = "1", .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE,
     .help = "1: off"},
    {"max_new_tokens", HA_SETTING_INT, AT(max_new_tokens), BETWEEN(1, 1 << 20), .otherwise = "256",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "longer answers are cut"},
    {"min_new_tokens", HA_SETTING_INT, AT(min_new_tokens), BETWEEN(0, 1 << 20), .otherwise = "0",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .late = true,
     .help = "until then neither end of text nor a stop string ends an answer; 0: off"},
    {"stop", HA_SETTING_LIST, AT(stop), .otherwise = "[]", .source = HA_SOURCE_OURS,
     .reads = HA_READ_GENERATE,
     .help = "further stop strings, beside end of text and, for template hh, the next Human turn"},
    {"settings", HA_SETTING_CHOICE, AT(settings), .choices = "ours|model", .otherwise = "ours",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE,
     .help = "model: generation_config.json where this section gives nothing"},
    {"seed", HA_SETTING_INT, AT(seed), SEED_RANGE, .otherwise = "@sweep.seed",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "of sampling"},
    {"samples", HA_SETTING_INT, AT(samples), BETWEEN(1, 1024), .otherwise = "1",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .help = "answers per prompt"},
    {"batch_invariant", HA_SETTING_BOOL, AT(batch_invariant), .otherwise = "false",
     .source = HA_SOURCE_OURS, .reads = HA_READ_GENERATE, .late = true,
     .help = "on a GPU no rounding of an answer hangs on what is made beside it, which takes longer; "
             "on a CPU none does anyway"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_judge
static const struct ha_setting judge_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), .source = HA_SOURCE_OURS,
     .help = "in tables; default: model"},
    {"provider", HA_SETTING_CHOICE, AT(provider),
     .choices = "openai|dashscope|azure|vllm|llama.cpp|generic|ha-evaluator", .otherwise = "generic",
     .source = HA_SOURCE_OURS, .help = "how its errors and limits are read; ha-evaluator takes base_url \"auto\""},
    {"base_url", HA_SETTING_TEXT, AT(base_url), .required = true, .source = HA_SOURCE_OURS,
     .help = "the part before /chat/completions"},
    {"endpoint", HA_SETTING_TEXT, AT(endpoint), .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE,
     .help = "label in the judge's identity; default: the host of base_url"},
    {"model", HA_SETTING_TEXT, AT(model), .required = true, .source = HA_SOURCE_OURS,
     .reads = HA_READ_JUDGE, .help = "as the evaluator names it"},
    {"api_key_env", HA_SETTING_TEXT, AT(api_key_env), .source = HA_SOURCE_OURS,
     .help = "variable with the key; embedded form only"},
    {"api_key_file", HA_SETTING_TEXT, AT(api_key_file), .source = HA_SOURCE_OURS,
     .help = "file of mode 0600 with the key; embedded form only"},
    {"api_key", HA_SETTING_TEXT, AT(api_key), .source = HA_SOURCE_OURS,
     .help = "name of a [[key]] in judge.toml, never the key itself"},
    {"temperature", HA_SETTING_REAL, AT(temperature), BETWEEN(0, 2), .otherwise = "0",
     .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE, .help = "sent with every request"},
    {"seed", HA_SETTING_INT, AT(seed), SEED_RANGE, .source = HA_SOURCE_OURS,
     .reads = HA_READ_JUDGE, .help = "sent when given"},
    {"max_tokens", HA_SETTING_INT, AT(max_tokens), BETWEEN(64, 1 << 20), .otherwise = "4096",
     .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE, .help = "of a reply"},
    {"samples", HA_SETTING_INT, AT(samples), BETWEEN(1, 1024), .otherwise = "1",
     .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE, .help = "scores per answer"},
    {"prompt", HA_SETTING_CHOICE, AT(prompt), .choices = "paper|guarded", .otherwise = "paper",
     .source = HA_SOURCE_PAPER, .reads = HA_READ_JUDGE,
     .help = "paper: Appendix D word for word; guarded: a nonce around the judged text"},
    {"order", HA_SETTING_CHOICE, AT(order), .choices = "blocked|eager", .otherwise = "blocked",
     .source = HA_SOURCE_OURS,
     .help = "blocked: a prompt is judged once every cell of its model has answered it"},
    {"extra", HA_SETTING_OBJECT, AT(extra), .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE,
     .help = "further members of the request, {enable_thinking = false}"},
    {"concurrency", HA_SETTING_INT, AT(concurrency), BETWEEN(1, 4096), .otherwise = "16",
     .source = HA_SOURCE_OURS, .help = "requests at a time, at most"},
    {"requests_per_minute", HA_SETTING_INT, AT(requests_per_minute), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_OURS, .help = "0: no limit"},
    {"tokens_per_minute", HA_SETTING_INT, AT(tokens_per_minute), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_OURS, .help = "0: no limit"},
    {"price_input", HA_SETTING_REAL, AT(price_input), FROM(0), .source = HA_SOURCE_OURS,
     .help = "money per million tokens"},
    {"price_output", HA_SETTING_REAL, AT(price_output), FROM(0), .source = HA_SOURCE_OURS,
     .help = "money per million tokens"},
    {"budget", HA_SETTING_REAL, AT(budget), FROM(0), .otherwise = "0", .source = HA_SOURCE_OURS,
     .help = "money for this judge; 0: no limit"},
    {"max_attempts", HA_SETTING_INT, AT(max_attempts), BETWEEN(1, 1000), .otherwise = "6",
     .source = HA_SOURCE_OURS, .help = "sends of one item after errors that may heal"},
    {"max_reasks", HA_SETTING_INT, AT(max_reasks), BETWEEN(0, 16), .otherwise = "2",
     .source = HA_SOURCE_OURS, .reads = HA_READ_JUDGE,
     .help = "further questions when a reply holds no 16 scores"},
    {"timeout", HA_SETTING_DURATION, AT(timeout_s), BETWEEN(1, 86400), .otherwise = "300s",
     .source = HA_SOURCE_OURS, .help = "of one request"},
    {"connect_timeout", HA_SETTING_DURATION, AT(connect_timeout_s), BETWEEN(1, 3600),
     .otherwise = "10s", .source = HA_SOURCE_OURS, .help = "of its connection"},
    {"ca_file", HA_SETTING_TEXT, AT(ca_file), .source = HA_SOURCE_OURS,
     .help = "certificates to trust instead of the system's"},
    {"proxy", HA_SETTING_TEXT, AT(proxy), .source = HA_SOURCE_OURS,
     .help = "URL; default: the environment's"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_resources
static const struct ha_setting resources_rows[] = {
    {"gpus", HA_SETTING_INT, AT(gpus), BETWEEN(0, 64), .source = HA_SOURCE_OURS,
     .help = "per job, of all its nodes; a gang of so many processes does it, one on each"},
    {"nodes", HA_SETTING_INT, AT(nodes), BETWEEN(1, 64), .source = HA_SOURCE_OURS,
     .help = "workers that do a job at once, each with gpus / nodes; over machines by NCCL"},
    {"min_gpu_memory", HA_SETTING_TEXT, AT(min_gpu_memory), .memory = true, .source = HA_SOURCE_OURS,
     .help = "\"24GiB\""},
    {"cpus", HA_SETTING_INT, AT(cpus), BETWEEN(1, 4096), .source = HA_SOURCE_OURS,
     .help = "per job"},
    {"host_memory", HA_SETTING_TEXT, AT(host_memory), .memory = true, .source = HA_SOURCE_OURS,
     .help = "\"64GiB\""},
    {"labels", HA_SETTING_LIST, AT(labels), .source = HA_SOURCE_OURS,
     .help = "that a worker must carry"},
    {"time_limit", HA_SETTING_DURATION, AT(time_limit_s), BETWEEN(1, 8640000),
     .source = HA_SOURCE_OURS, .help = "of one attempt"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_retry
static const struct ha_setting retry_rows[] = {
    {"max_attempts", HA_SETTING_INT, AT(max_attempts), BETWEEN(1, 1000), .otherwise = "3",
     .source = HA_SOURCE_OURS, .help = "of one job, counting crashes only"},
    {"max_failures", HA_SETTING_INT, AT(max_failures), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_OURS, .help = "failed cells after which the sweep stops; 0: never"},
    {"on_worker_lost", HA_SETTING_CHOICE, AT(on_worker_lost), .choices = "rerun|wait",
     .otherwise = "rerun", .source = HA_SOURCE_OURS,
     .help = "wait: never lease its job again without a person"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_schedule
static const struct ha_setting schedule_rows[] = {
    {"fuse", HA_SETTING_CHOICE, AT(fuse), .choices = "auto|always|never", .otherwise = "auto",
     .source = HA_SOURCE_OURS, .help = "several cells of one model in one job"},
    {"time_alone_steps", HA_SETTING_INT, AT(time_alone_steps), FROM(0), .otherwise = "0",
     .source = HA_SOURCE_OURS, .help = "of each cell of a job of several: measured alone, for the report"},
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_sweep_notify
static const struct ha_setting notify_rows[] = {
    {"command", HA_SETTING_TEXT, AT(command), .source = HA_SOURCE_OURS,
     .help = "gets facts as JSON when the sweep ends, pauses or stands still"},
};
#undef ROW_STRUCT
/* clang-format on */

SECTION(ha_sweep_general_section, "sweep", ha_sweep_general, general_rows);
SECTION(ha_sweep_model_section, "model", ha_sweep_model, model_rows);
SECTION(ha_sweep_strategies_section, "strategies", ha_sweep_strategies, strategies_rows);
SECTION(ha_sweep_strategy_section, "strategy", ha_sweep_strategy, strategy_rows);
SECTION(ha_sweep_data_section, "data", ha_sweep_data, data_rows);
SECTION(ha_sweep_train_section, "train", ha_sweep_train, train_rows);
SECTION(ha_sweep_probe_section, "probe", ha_sweep_probe, probe_rows);
SECTION(ha_sweep_generate_section, "generate", ha_sweep_generate, generate_rows);
SECTION(ha_sweep_judge_section, "judge", ha_sweep_judge, judge_rows);
SECTION(ha_sweep_resources_section, "resources", ha_sweep_resources, resources_rows);
SECTION(ha_sweep_retry_section, "retry", ha_sweep_retry, retry_rows);
SECTION(ha_sweep_schedule_section, "schedule", ha_sweep_schedule, schedule_rows);
SECTION(ha_sweep_notify_section, "notify", ha_sweep_notify, notify_rows);
