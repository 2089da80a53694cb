#include "worker/model/shard_layout.h"

#include "worker/adapter/adapter.h"

static int64_t rounded(int64_t bytes, int64_t step)
{
    return (bytes + step - 1) / step * step;
}

/* Values of each field; 0 for what the model has not. */
static void count_fields(const struct ha_model_config *config, int64_t columns,
                         int64_t values[HA_SHARD_FIELDS])
{
    struct ha_adapter_geometry geometry;
    const int64_t *in = geometry.in, *out = geometry.out;
    int64_t qkv;

    ha_model_config_geometry(config, &geometry);
    qkv = out[HA_MODULE_Q] + out[HA_MODULE_K] + out[HA_MODULE_V];
    values[HA_SHARD_QKV] = qkv * (in[HA_MODULE_Q] + columns);
    values[HA_SHARD_O] = out[HA_MODULE_O] * (in[HA_MODULE_O] + columns);
    values[HA_SHARD_GATE_UP] = (out[HA_MODULE_GATE] + out[HA_MODULE_UP]) * in[HA_MODULE_GATE];
    values[HA_SHARD_DOWN] = out[HA_MODULE_DOWN] * in[HA_MODULE_DOWN];
    values[HA_SHARD_QKV_BIAS] = config->qkv_bias ? qkv : 0;
    values[HA_SHARD_O_BIAS] = config->o_bias ? out[HA_MODULE_O] : 0;
    values[HA_SHARD_INPUT_NORM] = values[HA_SHARD_POST_NORM] = config->width;
    values[HA_SHARD_Q_NORM] = values[HA_SHARD_K_NORM] = config->qk_norm ? config->head_dim : 0;
}

/* A share of so many bytes. */
static int64_t share_of(int64_t bytes, int ranks)
{
    return rounded(bytes, (int64_t)ranks * HA_SHARD_ALIGNMENT) / ranks;
}

/* With the tables divided or not. */
static void add_up(const struct ha_model_config *config, bool tables,
                   struct ha_shard_layout *layout)
{
    int64_t table = config->vocab * config->width * layout->value_bytes;
    int64_t norm = config->width * layout->value_bytes;
    int64_t layers = HA_SHARD_BUFFERS * layout->layer_share * layout->ranks;

    layout->tables = tables;
    layout->table_share = tables ? share_of(table, layout->ranks) : 0;
    layout->own_bytes =
        config->n_layers * layout->layer_share + layout->n_tables * layout->table_share;
    layout->region_bytes = layers;
    if (layout->table_share * layout->ranks > layers)
        layout->region_bytes = layout->table_share * layout->ranks;
    layout->resident_bytes = norm + (tables ? 0 : layout->n_tables * table);
    layout->total_bytes = layout->own_bytes + layout->region_bytes + layout->resident_bytes;
}

void ha_shard_layout_make(const struct ha_model_config *config, int ranks, int64_t value_bytes,
                          int64_t columns, struct ha_shard_layout *ret_layout)
{
    struct ha_shard_layout layout = {.ranks = ranks,
                                     .n_layers = config->n_layers,
                                     .value_bytes = value_bytes,
                                     .columns = columns,
                                     .n_tables = config->tied ? 1 : 2};
    struct ha_shard_layout whole;
    int64_t values[HA_SHARD_FIELDS], bytes = 0;

    count_fields(config, columns, values);
    for (int i = 0; i < HA_SHARD_FIELDS; i++) {
        layout.offset[i] = bytes;
        bytes = rounded(bytes + values[i] * value_bytes, HA_SHARD_ALIGNMENT);
    }
    layout.layer_share = share_of(bytes, ranks);
    whole = layout;
    add_up(config, true, &layout);
    add_up(config, false, &whole);
    *ret_layout = layout.total_bytes < whole.total_bytes ? layout : whole;
}

int64_t ha_shard_layout_forward_bytes(const struct ha_shard_layout *layout)
{
    int64_t shares = layout->n_layers * layout->layer_share + 2 * layout->table_share;

    return shares * (layout->ranks - 1);
}
