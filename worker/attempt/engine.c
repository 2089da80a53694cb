#include "worker/attempt/engine.h"

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/peak.h"

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

int ha_engine_open(const struct ha_engine_options *options, struct ha_engine *ret_engine,
                   struct ha_error *err)
{
    struct ha_backend_options backend = {
        .name = options->backend, .threads = options->threads, .device = options->device};
    struct ha_engine engine = {0};
    int r = ha_backend_open(&backend, &engine.backend, err);

    if (r == 0) {
        ha_log_info("backend %s", ha_backend_description(engine.backend));
        r = ha_tokenizer_load(options->model_dir, &engine.tokenizer, err);
    }
    if (r == 0)
        r = ha_engine_open_chat(options, engine.tokenizer, &engine.chat, &engine.has_chat, err);
    if (r == 0)
        r = ha_model_open(engine.backend, options->model_dir, &engine.model, err);
    if (r == 0 && ha_tokenizer_vocab_size(engine.tokenizer) > ha_model_config(engine.model)->vocab)
        r = ha_error_set(err, EINVAL,
                         "%s: the tokenizer has %lld ids, the model's embedding %lld rows; they do "
                         "not belong together",
                         options->model_dir, (long long)ha_tokenizer_vocab_size(engine.tokenizer),
                         (long long)ha_model_config(engine.model)->vocab);
    if (r < 0) {
        ha_engine_close(&engine);
        return r;
    }
    *ret_engine = engine;
    return 0;
}

void ha_engine_close(struct ha_engine *engine)
{
    ha_model_destroy(engine->model);
    ha_tokenizer_destroy(engine->tokenizer);
    ha_backend_close(engine->backend);
    *engine = (struct ha_engine){0};
}

void ha_engine_measure(struct ha_engine *engine)
{
    struct ha_error err = {0};
    double peak = 0;
    int r = ha_backend_measure_peak(engine->backend, &peak, &err);

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
