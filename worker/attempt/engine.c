#include "worker/attempt/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory_use.h"
#include "kernels/peak.h"
#include "worker/attempt/shelf.h"

int ha_engine_open_chat(const struct ha_engine_options *options,
                        const struct ha_tokenizer *tokenizer, struct ha_chat *ret_chat,
                        bool *ret_has, struct ha_error *err)
{
    int r;

    *ret_has = options->prompt_template && strcmp(options->prompt_template, "hh") != 0;
    if (!*ret_has)
        return 0;
    r = ha_chat_open(options->prompt_template, tokenizer, ret_chat, err);
    if (r < 0)
        return ha_error_prefix(err, "%s", options->model_dir);
    ha_log_info("chat template %s", ha_chat_format_name(ret_chat->format));
    return 0;
}

const struct ha_chat *ha_engine_chat(const struct ha_engine *engine)
{
    return engine->has_chat ? &engine->chat : NULL;
}

/* Said before gigabytes are read. */
static int check_room(const struct ha_engine *engine, struct ha_error *err)
{
    const struct ha_model_config *config = ha_model_config(engine->model);
    int64_t most = ha_backend_memory_bytes(engine->backend), needed;
    char need[HA_MEMORY_TEXT_BYTES], there[HA_MEMORY_TEXT_BYTES];

    needed = 2 * ha_model_config_n_params(config) +
             ha_weights_lora_bytes(config, ha_model_weights(engine->model)->lora_columns);
    if (!ha_backend_copies_weights(engine->backend) || most == 0 || needed <= most)
        return 0;
    return ha_error_set(err, EFBIG,
                        "the model's weights take %s in bf16 and this GPU may hold %s; let several "
                        "GPUs share them (resources.gpus, train.shard_weights), or use a larger "
                        "one or the CPU",
                        ha_memory_text(needed, need), ha_memory_text(most, there));
}

static int load_weights(const struct ha_engine_options *options, struct ha_engine *engine,
                        const struct ha_model_shard *shard, struct ha_error *err)
{
    int r = shard ? 0 : check_room(engine, err);

    return r < 0 ? r : ha_model_load(engine->model, options->model_dir, shard, err);
}

static int open_parts(const struct ha_engine_options *options, struct ha_engine *engine,
                      struct ha_error *err)
{
    struct ha_backend_options backend = {
        .name = options->backend, .threads = options->threads, .device = options->device};
    int r = ha_backend_open(&backend, &engine->backend, err);

    if (r == 0) {
        ha_log_info("backend %s", ha_backend_description(engine->backend));
        r = ha_tokenizer_load(options->model_dir, &engine->tokenizer, err);
    }
    if (r == 0)
        r = ha_engine_open_chat(options, engine->tokenizer, &engine->chat, &engine->has_chat, err);
    if (r == 0)
        r = ha_model_prepare(engine->backend, options->model_dir, &engine->model, err);
    if (r == 0 &&
        ha_tokenizer_vocab_size(engine->tokenizer) > ha_model_config(engine->model)->vocab)
        r = ha_error_set(err, EINVAL,
                         "%s: the tokenizer has %lld ids, the model's embedding %lld rows; they do "
                         "not belong together",
                         options->model_dir, (long long)ha_tokenizer_vocab_size(engine->tokenizer),
                         (long long)ha_model_config(engine->model)->vocab);
    if (r == 0 && !options->weights_later)
        r = load_weights(options, engine, NULL, err);
    return r;
}

/* One of an earlier job: the template alone may be another. */
static int reopen(const struct ha_engine_options *options, struct ha_engine *engine,
                  struct ha_error *err)
{
    ha_log_info("backend %s; the model is there from the job before",
                ha_backend_description(engine->backend));
    return ha_engine_open_chat(options, engine->tokenizer, &engine->chat, &engine->has_chat, err);
}

static int tell_loaded(const struct ha_engine_options *options, const struct ha_engine *engine,
                       bool held, int64_t start_ns, struct ha_error *err)
{
    const struct ha_backend *backend = engine->backend;
    struct ha_engine_loaded loaded = {
        .bytes = ha_model_weights(engine->model)->bytes,
        .seconds = (double)(ha_clock_work_ns() - start_ns) / 1e9,
    };

    loaded.read_bytes = held ? 0 : loaded.bytes;
    if (ha_backend_copies_weights(backend))
        loaded.device_bytes = ha_backend_allocated_bytes(backend);
    return options->loaded ? options->loaded(options->context, &loaded, err) : 0;
}

int ha_engine_open(const struct ha_engine_options *options, struct ha_engine *ret_engine,
                   struct ha_error *err)
{
    int64_t start_ns = ha_clock_work_ns();
    struct ha_engine engine = {0};
    /* Before the files are read: one that changes meanwhile makes it another engine. */
    struct ha_shelf *shelf = options->weights_later ? NULL : options->shelf;
    char *key = shelf ? ha_shelf_key(options) : NULL;
    bool held = shelf && ha_shelf_take(shelf, key, &engine);
    int r;

    if (options->shelf && !shelf) /* there is no room for two */
        ha_shelf_clear(options->shelf);
    if (held)
        free(key);
    else
        engine.key = key;
    r = held ? reopen(options, &engine, err) : open_parts(options, &engine, err);
    if (r == 0 && !options->weights_later)
        r = tell_loaded(options, &engine, held, start_ns, err);
    if (r < 0) {
        ha_engine_close(&engine);
        return r;
    }
    engine.shelf = shelf;
    *ret_engine = engine;
    return 0;
}

int ha_engine_load(const struct ha_engine_options *options, struct ha_engine *engine,
                   const struct ha_model_shard *shard, struct ha_error *err)
{
    int64_t start_ns = ha_clock_work_ns();
    int r = load_weights(options, engine, shard, err);

    return r < 0 ? r : tell_loaded(options, engine, false, start_ns, err);
}

void ha_engine_close(struct ha_engine *engine)
{
    if (engine->shelf) {
        ha_shelf_put(engine->shelf, engine);
    } else {
        ha_model_destroy(engine->model);
        ha_tokenizer_destroy(engine->tokenizer);
        ha_backend_close(engine->backend);
        free(engine->key);
    }
    *engine = (struct ha_engine){0};
}

void ha_engine_measure(struct ha_engine *engine)
{
    struct ha_error err = {0};
    double peak = 0;
    int r;

    if (engine->peak_flops_per_second > 0) /* it was on the shelf */
        return;
    r = ha_backend_measure_peak(engine->backend, &peak, &err);

    engine->peak_flops_per_second = r < 0 ? 0 : peak;
    if (r < 0)
        ha_log_warning("the backend's peak is not known, so no utilisation is told: %s",
                       ha_error_text(&err));
    else
        ha_log_info("peak of a matrix product: %.1f GFLOP/s", peak / 1e9);
}

double ha_engine_utilisation(const struct ha_engine *engine, double flops_per_second)
{
    double peak = engine->peak_flops_per_second;

    return peak > 0 ? flops_per_second / peak : 0;
}

const char *ha_engine_precision(const struct ha_engine *engine, const char *precision)
{
    bool wide = ha_backend_activation_dtype(engine->backend) == HA_DTYPE_F32;

    if (strcmp(precision, "bf16") != 0)
        return "fp32";
    return wide ? "fp32 (cpu)" : "bf16";
}
