/* replay.c - a step of the seated that is recorded once and done again and again
 *
 * What a step is given lies where it lies for every step of a decoder: in its own memory, in that
 * of the model and of the adapters.  So a recording serves all seats of one shape, which is the
 * number of rows, the runs of adapters and what hangs on the longest cache. */
#include "worker/model/decode_inside.h"

#include <errno.h>
#include <string.h>

#include "common/base/error.h"

static bool same_shape(const struct ha_decoder *decoder)
{
    const struct ha_decoder_shape *shape = &decoder->recorded_shape;

    if (shape->n_rows != decoder->n_seated || shape->n_spans != decoder->n_spans ||
        shape->max_keys != decoder->max_keys || shape->cos_sin != decoder->cos_sin)
        return false;
    for (int64_t i = 0; i < shape->n_spans; i++) {
        const struct ha_layer_span *a = &decoder->recorded_spans[i], *b = &decoder->spans[i];

        if (a->adapter != b->adapter || a->begin != b->begin || a->count != b->count)
            return false;
    }
    return true;
}

static void remember_shape(struct ha_decoder *decoder)
{
    decoder->recorded_shape = (struct ha_decoder_shape){.n_rows = decoder->n_seated,
                                                        .n_spans = decoder->n_spans,
                                                        .max_keys = decoder->max_keys,
                                                        .n_keys = decoder->n_keys,
                                                        .cos_sin = decoder->cos_sin};
    memcpy(decoder->recorded_spans, decoder->spans,
           (size_t)decoder->n_spans * sizeof(*decoder->spans));
}

bool ha_decoder_is_recorded(const struct ha_decoder *decoder)
{
    return decoder->recording && decoder->n_seated > 0 && same_shape(decoder);
}

int ha_decoder_record(struct ha_decoder *decoder, ha_decoder_draw_fn draw, void *context,
                      struct ha_error *err)
{
    double n_keys = decoder->n_keys;
    int r;

    ha_decoder_forget(decoder);
    /* Their exchange is the host's work. */
    if (ha_model_ranks(decoder->model) > 1)
        return ha_error_set(err, ENOTSUP, "ranks that share weights record no steps");
    r = ha_backend_record_begin(decoder->backend, err);
    if (r < 0)
        return r;
    r = ha_decoder_run(decoder, err);
    decoder->n_keys = n_keys; /* it was not done */
    if (r == 0)
        r = draw(context, err);
    if (r < 0) {
        (void)ha_backend_record_end(decoder->backend, NULL, NULL);
        return r;
    }
    r = ha_backend_record_end(decoder->backend, &decoder->recording, err);
    if (r == 0)
        remember_shape(decoder);
    return r;
}

/* The keys that there are now and were not in the recording, in all layers. */
static void count_keys(struct ha_decoder *decoder)
{
    const struct ha_model_config *config = decoder->config;
    struct ha_decode_attention more = {.n_heads = config->n_heads,
                                       .n_kv_heads = config->n_kv_heads,
                                       .head_dim = config->head_dim,
                                       .n_keys = decoder->n_keys - decoder->recorded_shape.n_keys};
    double layers = (double)config->n_layers;

    ha_backend_count(decoder->backend, layers * ha_decode_attention_flops(&more),
                     layers * ha_decode_attention_bytes(&more, decoder->act));
    decoder->n_keys += (double)decoder->n_seated;
}

int ha_decoder_replay(struct ha_decoder *decoder, struct ha_error *err)
{
    int r;

    if (!ha_decoder_is_recorded(decoder))
        return ha_error_set(err, EINVAL, "no step of these sequences was recorded");
    r = ha_backend_replay(decoder->backend, decoder->recording, err);
    if (r == 0)
        count_keys(decoder);
    else
        ha_decoder_forget(decoder);
    return r;
}

void ha_decoder_forget(struct ha_decoder *decoder)
{
    ha_backend_forget(decoder->backend, decoder->recording);
    decoder->recording = NULL;
}
