/* A model directory of a published shape with random weights, for benchmarks and tests:
 * config.json, safetensors in bf16, generation_config.json and a tokenizer of its own, which
 * ha-attempt and Transformers load.
 *
 *   shape_model llama-3.1-8b OUT [--layers N] [--shrink K]
 *
 * A model of 16 GB takes as long as writing 16 GB takes; nothing is synced to the disk. */
#include "tests/gpu/shape_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/arguments.h"
#include "common/base/error.h"
#include "common/base/path.h"

static const struct shape shapes[] = {
    {"llama-2-7b", "llama", "LlamaForCausalLM", 4096, 11008, 32, 32, 32, 32000, 4096, "1e-05",
     10000, false, false, false},
    {"llama-3.1-8b", "llama", "LlamaForCausalLM", 4096, 14336, 32, 32, 8, 128256, 131072, "1e-05",
     500000, true, false, false},
    {"qwen2.5-7b", "qwen2", "Qwen2ForCausalLM", 3584, 18944, 28, 28, 4, 152064, 32768, "1e-06",
     1000000, false, true, false},
    {"qwen3-8b", "qwen3", "Qwen3ForCausalLM", 4096, 12288, 36, 32, 8, 151936, 40960, "1e-06",
     1000000, false, false, true},
};

static int64_t at_least(int64_t value, int64_t least)
{
    return value > least ? value : least;
}

/* All sizes but those of a head divided by k; the proportions stay as far as whole heads allow. */
static void shrink(struct shape *shape, int64_t k)
{
    shape->heads = at_least(shape->heads / k, 1);
    shape->kv_heads = at_least(shape->kv_heads / k, 1);
    while (shape->heads % shape->kv_heads != 0)
        shape->kv_heads--;
    shape->width = shape->heads * HEAD_DIM;
    shape->inner = at_least(shape->inner / k / 64 * 64, 64);
    shape->vocab = at_least(shape->vocab / k / 16 * 16, 1024);
}

static void print_config(FILE *file, const struct shape *shape)
{
    fprintf(file,
            "{\n"
            "  \"architectures\": [\"%s\"],\n"
            "  \"attention_dropout\": 0.0,\n"
            "  \"bos_token_id\": %d,\n"
            "  \"eos_token_id\": %d,\n"
            "  \"head_dim\": %d,\n"
            "  \"hidden_act\": \"silu\",\n"
            "  \"hidden_size\": %lld,\n"
            "  \"initializer_range\": 0.02,\n"
            "  \"intermediate_size\": %lld,\n"
            "  \"max_position_embeddings\": %lld,\n"
            "  \"model_type\": \"%s\",\n"
            "  \"num_attention_heads\": %lld,\n"
            "  \"num_hidden_layers\": %lld,\n"
            "  \"num_key_value_heads\": %lld,\n"
            "  \"rms_norm_eps\": %s,\n",
            shape->class, BEGIN_ID, END_ID, HEAD_DIM, (long long)shape->width,
            (long long)shape->inner, (long long)shape->context, shape->type,
            (long long)shape->heads, (long long)shape->layers, (long long)shape->kv_heads,
            shape->eps);
    if (strcmp(shape->type, "qwen2") == 0)
        fprintf(file, "  \"max_window_layers\": %lld,\n", (long long)shape->layers);
    else
        fputs("  \"attention_bias\": false,\n", file);
    if (strcmp(shape->type, "llama") != 0)
        fputs("  \"sliding_window\": null,\n  \"use_sliding_window\": false,\n", file);
    fprintf(file, "  \"rope_scaling\": %s,\n",
            shape->llama3_scaling
                ? "{\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,\n"
                  "    \"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}"
                : "null");
    fprintf(file,
            "  \"rope_theta\": %lld.0,\n"
            "  \"tie_word_embeddings\": false,\n"
            "  \"torch_dtype\": \"bfloat16\",\n"
            "  \"use_cache\": true,\n"
            "  \"vocab_size\": %lld\n"
            "}\n",
            (long long)shape->rope_theta, (long long)shape->vocab);
}

static int write_config(const char *dir, const char *name, const struct shape *shape,
                        struct ha_error *err)
{
    char *path = ha_path_join(dir, name);
    FILE *file = path ? fopen(path, "we") : NULL;
    int r = 0;

    if (!file)
        r = ha_error_set(err, errno, "%s/%s: %s", dir, name, strerror(errno));
    else if (strcmp(name, "config.json") == 0)
        print_config(file, shape);
    else
        fprintf(file, "{\"bos_token_id\": %d, \"eos_token_id\": %d, \"do_sample\": false}\n",
                BEGIN_ID, END_ID);
    if (file && fclose(file) != 0)
        r = ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    free(path);
    return r;
}

static int find_shape(const char *name, struct shape *ret_shape, struct ha_error *err)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            *ret_shape = shapes[i];
            return 0;
        }
    }
    return ha_error_set(err, EINVAL,
                        "no shape \"%s\"; known: llama-2-7b, llama-3.1-8b, qwen2.5-7b, qwen3-8b",
                        name);
}

static int make(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *dir = ha_arguments_at(arguments, 1, NULL);
    struct shape shape = {0};
    int64_t layers = 0, k = 1, bytes = 0;
    int r = find_shape(ha_arguments_at(arguments, 0, ""), &shape, err);

    if (r == 0)
        r = ha_arguments_int(arguments, "layers", 1, shape.layers, &layers, err);
    if (r == 0)
        r = ha_arguments_int(arguments, "shrink", 1, 1, &k, err);
    if (r < 0)
        return r;
    if (layers > shape.layers)
        return ha_error_set(err, EINVAL, "--layers %lld: %s has %lld", (long long)layers,
                            shape.name, (long long)shape.layers);
    shape.layers = layers;
    if (k > 1)
        shrink(&shape, k);
    if (mkdir(dir, 0777) < 0 && errno != EEXIST)
        return ha_error_set(err, errno, "%s: %s", dir, strerror(errno));
    r = write_config(dir, "config.json", &shape, err);
    if (r == 0)
        r = write_config(dir, "generation_config.json", &shape, err);
    if (r == 0)
        r = shape_write_tokenizer(dir, shape.vocab, err);
    if (r == 0 && !ha_arguments_given(arguments, "no-weights"))
        r = shape_write_weights(dir, &shape, shape.width * shape.layers > 16384 ? 4 : 1, &bytes,
                                err);
    if (r == 0)
        printf("%s, %lld layers, width %lld, vocabulary %lld: %.2f GB in %s\n", shape.name,
               (long long)shape.layers, (long long)shape.width, (long long)shape.vocab,
               (double)bytes / 1e9, dir);
    return r;
}

static const struct ha_option options[] = {
    {"layers", "N", "the first N layers only"},
    {"shrink", "K", "widths and vocabulary divided by K, for tests"},
    {"no-weights", NULL, "config.json and tokenizer alone"},
};

static const struct ha_command command = {
    .name = "shape_model",
    .synopsis = "MODEL FOLDER",
    .summary = "write a model of a published shape with random bf16 weights",
    .example = "shape_model llama-3.1-8b /tmp/llama --layers 2 --shrink 8",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .min_positional = 2,
    .max_positional = 2,
};

int main(int argc, char **argv)
{
    struct ha_arguments *arguments = NULL;
    struct ha_error err = {0};
    int r = ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err);

    if (r == 0 && ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else if (r == 0)
        r = make(arguments, &err);
    if (r < 0)
        fprintf(stderr, "shape_model: %s\n", ha_error_text(&err));
    ha_arguments_destroy(arguments);
    return r < 0 ? 1 : 0;
}
