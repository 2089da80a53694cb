#include "worker/sampling/plain.h"

/* Multiply-adds of one token in all layers but for attention. */
static double per_token(const struct ha_model_config *config, const struct ha_adapter *adapter)
{
    struct ha_adapter_geometry geometry;
    double sum = 0.0;

    ha_model_config_geometry(config, &geometry);
    for (int module = 0; module < HA_MODULE_COUNT; module++)
        sum +=
            (double)geometry.n_layers * (double)geometry.in[module] * (double)geometry.out[module];
    return sum + (adapter ? (double)ha_adapter_n_params(adapter) : 0.0);
}

/* Multiply-adds of attention for so many (query, key) pairs in all layers. */
static double attention(const struct ha_model_config *config, double pairs)
{
    return 2.0 * (double)config->n_layers * (double)(config->n_heads * config->head_dim) * pairs;
}

/* One row of a batch: a prompt of `width` tokens, then `drawn` new ones, the last of which is
 * never run. */
static double per_row(const struct ha_model_config *config, double token, double width,
                      double drawn)
{
    double head = (double)config->vocab * (double)config->width, steps = drawn - 1.0;
    double pairs = width * (width + 1.0) / 2.0 + steps * width + steps * (steps + 1.0) / 2.0;

    return 2.0 * ((width + steps) * token + drawn * head + attention(config, pairs));
}

double ha_plain_flops(const struct ha_model_config *config, const struct ha_adapter *adapter,
                      const struct ha_plain_answer *answers, int64_t n, int64_t batch)
{
    double token = per_token(config, adapter), flops = 0.0;
    int64_t at = 0;

    while (at < n) {
        int64_t rows = 0, width = 0, drawn = 0;

        for (; at < n && rows < batch; at++) {
            if (answers[at].drawn <= 0)
                continue;
            rows++;
            width = answers[at].prompt_tokens > width ? answers[at].prompt_tokens : width;
            drawn = answers[at].drawn > drawn ? answers[at].drawn : drawn;
        }
        if (rows > 0)
            flops += (double)rows * per_row(config, token, (double)width, (double)drawn);
    }
    return flops;
}
