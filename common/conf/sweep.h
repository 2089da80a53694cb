/* sweep.h - grid.toml as a typed, range-checked struct
 *
 * Values that the file does not give are the paper's, where the paper is silent
 * TRL's, where TRL is silent ours.  Each struct below is one section of the
 * file (settings.h tells how it works); the tables are in sweep_tables.c and
 * are the reference of every key.  Paths are kept as written: relative ones
 * mean the folder of the grid file (ha_sweep_path).
 *
 * A grid crosses the wire as its text and the --set overrides; parsing both
 * again gives the same struct.  Nothing here touches the file system except
 * ha_sweep_load, which reads the one file. */
#ifndef HA_COMMON_CONF_SWEEP_H
#define HA_COMMON_CONF_SWEEP_H

#include "common/conf/settings.h"

struct ha_sweep_general { /* [sweep] */
    uint64_t given;
    char *name; /* letters, digits, "._-"; default: the grid file's name, or its folder's for
                   a file called grid.toml */
    int64_t seed;
    int64_t priority;
    double budget; /* money over all judges; 0: none */
};

struct ha_sweep_model { /* [[model]] */
    uint64_t given;
    char *name;            /* default: the last part of path */
    char *path;            /* a folder, or "org/name" in the Hugging Face cache */
    char *revision;        /* NULL: refs/main */
    char *hub_id;          /* goes into adapter_config.json; NULL: path when that is "org/name" */
    char *prompt_template; /* key "template": "hh" | "chat" | a format of worker/data/chat.h */
    int64_t layers;        /* 0: read from config.json */
    char *family;          /* config.json's model_type; NULL: read from there */
};

struct ha_sweep_strategies { /* [strategies] */
    uint64_t given;
    struct ha_text_list use;
};

struct ha_sweep_strategy { /* [[strategy]], and one for each built-in of `use` */
    uint64_t given;
    char *name;
    char *layers; /* NULL: the built-in of that name; "auto:K": as a probe finds */
    struct ha_text_list target_modules;
    int64_t rank;
    double alpha;
};

struct ha_sweep_data { /* [data] */
    uint64_t given;
    char *format;
    struct ha_text_list train, eval;
    int64_t train_samples, eval_samples;
    int64_t seed; /* which rows */
    char *split;  /* "trl" | "turn" */
};

struct ha_sweep_train { /* [train] */
    uint64_t given;
    double learning_rate;
    int64_t batch_size, gradient_accumulation, epochs;
    double beta;
    struct ha_text_list loss;         /* names of TRL's, at least one */
    struct ha_text_list loss_weights; /* numbers as text; empty: 1 each */
    double label_smoothing;
    char *f_divergence;
    double f_alpha, discopop_tau, ld_alpha;
    bool use_weighting;
    int64_t max_length;
    char *precision; /* "bf16" | "fp32" */
    double weight_decay, beta1, beta2, eps, max_grad_norm;
    int64_t warmup_steps;
    char *lr_scheduler;
    int64_t lora_rank;
    double lora_alpha, lora_dropout;
    bool disable_dropout;
    struct ha_text_list target_modules;
    int64_t tokens_per_microbatch; /* 0: picked for plan_memory */
    char *plan_memory;             /* an amount, or NULL */
    char *reference;               /* "same_plan" | "any" */
    char *memory_limit;            /* an amount, or "auto" */
    char *shard_weights;           /* "auto" | "never" | "always" */
    int64_t init_seed, order_seed, dropout_seed;
    int64_t eval_steps;         /* 0: at the end only */
    int64_t checkpoint_every_s; /* key "checkpoint_every" */
};

struct ha_sweep_probe { /* [probe]: the section's presence turns it on */
    uint64_t given;
    int64_t pairs;
    char *measure; /* "norm" | "per_sqrt_parameters" */
};

struct ha_sweep_generate { /* [generate] */
    uint64_t given;
    double temperature, top_p;
    int64_t top_k;
    double repetition_penalty;
    int64_t max_new_tokens, min_new_tokens;
    struct ha_text_list stop;
    char *settings; /* "ours" | "model" */
    int64_t seed, samples;
    bool batch_invariant;
};

struct ha_sweep_judge { /* [[judge]] */
    uint64_t given;
    char *name; /* default: model */
    char *provider, *base_url, *endpoint, *model;
    char *api_key_env, *api_key_file, *api_key; /* api_key: a name that the judge worker binds */
    double temperature;
    int64_t seed; /* sent only when given */
    int64_t max_tokens, samples;
    char *prompt, *order;
    char *extra; /* canonical JSON object merged into the request, or NULL */
    int64_t concurrency, requests_per_minute, tokens_per_minute;
    double price_input, price_output, budget;
    int64_t max_attempts, max_reasks;
    int64_t timeout_s, connect_timeout_s; /* keys "timeout", "connect_timeout" */
    char *ca_file, *proxy;
};

struct ha_sweep_resources { /* [resources] */
    uint64_t given;
    int64_t gpus, nodes, cpus;
    char *min_gpu_memory, *host_memory;
    struct ha_text_list labels;
    int64_t time_limit_s;
};

struct ha_sweep_retry { /* [retry] */
    uint64_t given;
    int64_t max_attempts, max_failures;
    char *on_worker_lost; /* "rerun" | "wait" */
};

struct ha_sweep_schedule { /* [schedule] */
    uint64_t given;
    char *fuse; /* "auto" | "always" | "never" */
    int64_t time_alone_steps;
};

struct ha_sweep_notify { /* [notify] */
    uint64_t given;
    char *command;
};

/* One axis of [vary].  values are texts that ha_section_set accepts for row.
 * The replicate axis `seed` has row NULL. */
struct ha_sweep_axis {
    char *key;   /* as the file spells it, "learning_rate" */
    char *label; /* short form in cell names, "lr" */
    const struct ha_section *section;
    const struct ha_setting *row;
    struct ha_text_list values;
};

/* A point taken out: every pair must match.  keys are axes' keys, "model" or
 * "strategy"; values as in ha_sweep_axis. */
struct ha_sweep_exclude {
    struct ha_text_list keys, values;
};

struct ha_sweep {
    struct ha_sweep_general general;
    struct ha_sweep_model *models;
    int64_t model_count;
    struct ha_sweep_strategies use;
    struct ha_sweep_strategy *strategies; /* in the order of the grid */
    int64_t strategy_count;
    struct ha_sweep_data data;
    struct ha_sweep_train train;
    struct ha_sweep_probe probe;
    bool probes; /* [probe] is there, or a strategy needs it */
    struct ha_sweep_generate generate;
    struct ha_sweep_judge *judges;
    int64_t judge_count;
    struct ha_sweep_resources resources;
    struct ha_sweep_retry retry;
    struct ha_sweep_schedule schedule;
    struct ha_sweep_notify notify;
    struct ha_sweep_axis *axes;
    int64_t axis_count;
    struct ha_sweep_exclude *excludes;
    int64_t exclude_count;
    char *base_dir; /* of relative paths; never NULL */
};

extern const struct ha_section ha_sweep_general_section, ha_sweep_model_section,
    ha_sweep_strategies_section, ha_sweep_strategy_section, ha_sweep_data_section,
    ha_sweep_train_section, ha_sweep_probe_section, ha_sweep_generate_section,
    ha_sweep_judge_section, ha_sweep_resources_section, ha_sweep_retry_section,
    ha_sweep_schedule_section, ha_sweep_notify_section;

/* A name of a sweep, model, strategy or judge: 1 to 64 letters, digits, ".", "_",
 * "-" or "+", not beginning with "."; so it is also the name of a folder. */
bool ha_sweep_name_valid(const char *name);

/* Read a grid file.  overrides[count]: "section.key=value", applied after the
 * file; an element of an array of tables is named: "model.NAME.layers=32",
 * "judge.NAME.concurrency=4".  Errors are one line, "file:LINE: ..." or
 * "--set KEY: ...". */
int ha_sweep_load(const char *path, const char *const *overrides, int64_t count,
                  struct ha_sweep **ret_sweep, struct ha_error *err);

/* The same from text.  name: the grid's file name (for errors, and the default
 * of sweep.name); base_dir: the folder of relative paths. */
int ha_sweep_parse(const char *text, size_t size, const char *name, const char *base_dir,
                   const char *const *overrides, int64_t count, struct ha_sweep **ret_sweep,
                   struct ha_error *err);

void ha_sweep_destroy(struct ha_sweep *sweep);

/* A path of the grid, relative to its folder.  The caller frees it. */
char *ha_sweep_path(const struct ha_sweep *sweep, const char *path);

/* Every effective value: {"sweep": {"seed": {"value": 42, "source": "paper"}},
 * "model": [{...}], ...}.  NULL when memory is short. */
struct ha_json *ha_sweep_json(const struct ha_sweep *sweep);

/* The same for people: every section with every value and its source. */
int ha_sweep_print(const struct ha_sweep *sweep, struct ha_buffer *out);

#endif
