/* prefill.c - prompts into their caches
 *
 * Sequences of one prompt are one trunk of rows as long as no adapter has touched
 * them; then each adapter's branch goes on with rows of its own.  The rows of the
 * trunks stand first, then the other branches by their lowest layer, so that what is
 * alive in a layer is a prefix of the rows, and rows of one adapter stand side by side.
 *
 * In the highest layer only keys and values are needed of every row; the rest of it
 * runs for the last token of each branch. */
#include "worker/model/decode_inside.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "worker/model/shards.h"

/* The prompts of one call. */
struct prefill {
    struct ha_decoder *decoder;
    const struct ha_decoder_sequence *sequences;
    int64_t n, n_branches;
};

/* ---- branches ---- */

static int64_t number_of_adapter(const struct prefill *p, int64_t sequence)
{
    int64_t first = 0;

    while (p->sequences[first].adapter != p->sequences[sequence].adapter)
        first++;
    return first;
}

/* The branch of sequence i, whose prompt began with sequence `prompt`: an earlier one, or new. */
static void find_branch(struct prefill *p, int64_t i, int64_t prompt)
{
    struct ha_decoder *decoder = p->decoder;
    const struct ha_adapter *adapter = p->sequences[i].adapter;

    for (int64_t b = p->n_branches - 1; b >= 0 && decoder->branches[b].prompt == prompt; b--)
        if (decoder->branches[b].adapter == adapter) {
            decoder->branch_of[i] = decoder->branches[b].sequence;
            return;
        }
    decoder->branch_of[i] = i;
    decoder->branches[p->n_branches++] = (struct ha_decoder_branch){
        .adapter = adapter,
        .lowest = adapter ? ha_adapter_lowest_layer(adapter) : decoder->config->n_layers,
        .number = number_of_adapter(p, i),
        .sequence = i,
        .prompt = prompt,
        .count = p->sequences[i].n_ids,
    };
}

/* The trunk of each prompt is its first branch with the highest lowest layer. */
static void find_trunks(struct prefill *p)
{
    struct ha_decoder_branch *branches = p->decoder->branches;

    for (int64_t b = 0; b < p->n_branches;) {
        int64_t trunk = b, prompt = branches[b].prompt;

        for (; b < p->n_branches && branches[b].prompt == prompt; b++)
            if (branches[b].lowest > branches[trunk].lowest)
                trunk = b;
        branches[trunk].is_trunk = true;
    }
}

static int compare(const void *a, const void *b)
{
    const struct ha_decoder_branch *x = a, *y = b;

    if (x->is_trunk != y->is_trunk)
        return x->is_trunk ? -1 : 1;
    if (!x->is_trunk && x->lowest != y->lowest)
        return x->lowest < y->lowest ? -1 : 1;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

/* Give each branch its rows.  branch_of, so far the first sequence of the branch, becomes its
 * place in the table. */
static int place_branches(struct prefill *p, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    struct ha_decoder_branch *branches = decoder->branches;
    int64_t *place = decoder->last_token, n_rows = 0; /* (n): borrowed until rows are laid out */

    qsort(branches, (size_t)p->n_branches, sizeof(*branches), compare);
    for (int64_t b = 0; b < p->n_branches; b++) {
        branches[b].begin = n_rows;
        if (branches[b].count > decoder->limits.max_prompt_tokens - n_rows)
            return ha_error_set(err, EINVAL, "more than the decoder's %lld tokens in one call",
                                (long long)decoder->limits.max_prompt_tokens);
        n_rows += branches[b].count;
        if (branches[b].is_trunk)
            place[branches[b].prompt] = b;
    }
    for (int64_t b = 0; b < p->n_branches; b++)
        branches[b].trunk_begin = branches[place[branches[b].prompt]].begin;
    for (int64_t b = 0; b < p->n_branches; b++)
        place[branches[b].sequence] = b;
    for (int64_t i = 0; i < p->n; i++)
        decoder->branch_of[i] = place[decoder->branch_of[i]];
    return 0;
}

static bool same_prompt(const struct ha_decoder_sequence *a, const struct ha_decoder_sequence *b)
{
    return a->ids == b->ids && a->n_ids == b->n_ids;
}

static int make_branches(struct prefill *p, struct ha_error *err)
{
    int64_t prompt = 0;

    for (int64_t i = 0; i < p->n; i++) {
        if (i > 0 && !same_prompt(&p->sequences[i], &p->sequences[i - 1]))
            prompt = i;
        find_branch(p, i, prompt);
    }
    find_trunks(p);
    return place_branches(p, err);
}

static bool is_alive(const struct ha_decoder_branch *branch, int64_t layer)
{
    return branch->is_trunk || branch->lowest <= layer;
}

static int64_t count_alive(const struct prefill *p, int64_t layer)
{
    int64_t n = 0;

    while (n < p->n_branches && is_alive(&p->decoder->branches[n], layer))
        n++;
    return n;
}

/* ---- rows ---- */

static int embed(struct prefill *p, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t n_rows = 0, n_embedded = 0, longest = 0;
    int r;

    for (int64_t b = 0; b < p->n_branches; b++) {
        const struct ha_decoder_branch *branch = &decoder->branches[b];
        const struct ha_decoder_sequence *sequence = &p->sequences[branch->sequence];

        for (int64_t t = 0; t < branch->count; t++) {
            decoder->host_ids[n_rows + t] = sequence->ids[t];
            decoder->host_positions[n_rows + t] = (int32_t)t;
        }
        n_rows += branch->count;
        n_embedded = branch->is_trunk ? n_rows : n_embedded;
        decoder->segments[b] = (struct ha_segment){.begin = branch->begin, .length = branch->count};
        decoder->last_token[b] = n_rows - 1;
        longest = branch->count > longest ? branch->count : longest;
    }
    r = ha_decoder_send(decoder, n_rows, n_embedded, longest, err);
    return r < 0 ? r : ha_decoder_embed(decoder, n_embedded, err);
}

/* Branches whose lowest layer this is take over the trunk's hidden states. */
static int branch_off(struct prefill *p, int64_t layer, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    size_t row_bytes = (size_t)decoder->config->width * ha_dtype_bytes(decoder->act);
    int r = 0;

    for (int64_t b = 0; r == 0 && b < p->n_branches; b++) {
        const struct ha_decoder_branch *branch = &decoder->branches[b];

        if (!branch->is_trunk && branch->lowest == layer)
            r = ha_backend_copy(decoder->backend,
                                (char *)decoder->x + (size_t)branch->begin * row_bytes,
                                (const char *)decoder->x + (size_t)branch->trunk_begin * row_bytes,
                                (size_t)branch->count * row_bytes, err);
    }
    return r;
}

/* Runs of one adapter among the first n branches: of all their rows, or of one row each. */
static int64_t find_spans(const struct prefill *p, int64_t n, bool one_row)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t n_spans = 0;

    for (int64_t b = 0; b < n; b++) {
        const struct ha_decoder_branch *branch = &decoder->branches[b];

        if (n_spans == 0 || decoder->spans[n_spans - 1].adapter != branch->adapter)
            decoder->spans[n_spans++] =
                (struct ha_layer_span){branch->adapter, one_row ? b : branch->begin, 0};
        decoder->spans[n_spans - 1].count += one_row ? 1 : branch->count;
    }
    return n_spans;
}

/* Keys and values of a layer go into every cache, from the rows that stand for it. */
static int fill_caches(struct prefill *p, int64_t layer, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    size_t row_bytes = (size_t)decoder->kv_width * ha_dtype_bytes(decoder->act);
    size_t stride = (size_t)decoder->strides.kv * ha_dtype_bytes(decoder->act);
    int r = 0;

    for (int64_t i = 0; r == 0 && i < p->n; i++) {
        const struct ha_kv_cache *cache = p->sequences[i].cache;
        const struct ha_decoder_branch *branch = &decoder->branches[decoder->branch_of[i]];
        int64_t begin = is_alive(branch, layer) ? branch->begin : branch->trunk_begin;
        const void *from[] = {(const char *)decoder->k + (size_t)begin * stride,
                              (const char *)decoder->v + (size_t)begin * stride};

        for (int part = 0; r == 0 && part < 2; part++)
            r = ha_backend_copy_rows(decoder->backend,
                                     ha_kv_cache_row(decoder, cache, layer, part, 0), row_bytes,
                                     from[part], stride, row_bytes, branch->count, err);
    }
    return r;
}

static int attend(struct prefill *p, int64_t n_alive, int64_t n_rows, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    const struct ha_model_config *config = decoder->config;
    struct ha_attention shape = {
        .n_tokens = n_rows,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = (float)(1.0 / sqrt((double)config->head_dim)),
        .q_stride = decoder->strides.q,
        .k_stride = decoder->strides.kv,
        .v_stride = decoder->strides.kv,
        .out_stride = decoder->q_width,
        .segments = decoder->segments,
        .n_segments = n_alive,
    };

    return decoder->ops->attention_forward(decoder->backend, decoder->attention, NULL, decoder->q,
                                           decoder->k, decoder->v, &shape, err);
}

static int64_t rows_of(const struct prefill *p, int64_t n_branches)
{
    const struct ha_decoder_branch *last = &p->decoder->branches[n_branches - 1];

    return last->begin + last->count;
}

static int run_layer(struct prefill *p, int64_t layer, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t n_alive = count_alive(p, layer), n_rows = rows_of(p, n_alive);
    struct ha_layer_context context =
        ha_decoder_context(decoder, layer, n_rows, decoder->spans, find_spans(p, n_alive, false));
    int r = ha_layer_norm(&context, false, decoder->norm, NULL, decoder->x, err);

    if (r == 0)
        r = ha_layer_qkv(&context, decoder->q, decoder->k, decoder->v, decoder->norm, err);
    if (r == 0)
        r = ha_layer_rotate(&context, decoder->q, decoder->k, NULL, NULL, decoder->q, decoder->k,
                            err);
    if (r == 0)
        r = fill_caches(p, layer, err);
    if (r == 0)
        r = attend(p, n_alive, n_rows, err);
    return r < 0 ? r : ha_decoder_end_layer(decoder, &context, decoder->x, decoder->norm, err);
}

/* ---- the highest layer ---- */

/* Keys and values of all rows, in the caches; norm is left filled. */
static int keys_and_values(struct prefill *p, int64_t layer, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    struct ha_layer_context context =
        ha_decoder_context(decoder, layer, rows_of(p, p->n_branches), decoder->spans,
                           find_spans(p, p->n_branches, false));
    int r = ha_layer_norm(&context, false, decoder->norm, NULL, decoder->x, err);

    if (r == 0)
        r = ha_layer_kv(&context, decoder->k, decoder->v, decoder->norm, err);
    if (r == 0)
        r = ha_layer_rotate_k(&context, decoder->k, NULL, decoder->k, err);
    return r < 0 ? r : fill_caches(p, layer, err);
}

/* State and norm of the last tokens, and their positions. */
static int gather_last(struct prefill *p, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t width = decoder->config->width;
    int r = decoder->ops->gather_rows(decoder->backend, decoder->last, decoder->x,
                                      decoder->last_token, p->n_branches, width, err);

    if (r == 0)
        r = decoder->ops->gather_rows(decoder->backend, decoder->last_norm, decoder->norm,
                                      decoder->last_token, p->n_branches, width, err);
    for (int64_t b = 0; b < p->n_branches; b++)
        decoder->host_positions[b] = (int32_t)(decoder->branches[b].count - 1);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->last_positions, decoder->host_positions,
                              (size_t)p->n_branches * sizeof(int32_t), err);
    return r;
}

/* The caches of the branches' first sequences to the device; their keys. */
static int send_caches(struct prefill *p, int64_t *ret_longest, double *ret_n_keys,
                       struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t longest = 0;
    double n_keys = 0.0;

    for (int64_t b = 0; b < p->n_branches; b++) {
        const struct ha_decoder_branch *branch = &decoder->branches[b];

        decoder->host_caches[b] = ha_kv_cache_rows(decoder, p->sequences[branch->sequence].cache);
        longest = branch->count > longest ? branch->count : longest;
        n_keys += (double)branch->count;
    }
    *ret_longest = longest;
    *ret_n_keys = n_keys;
    return ha_decoder_send_caches(decoder, p->n_branches, err);
}

static int run_highest_layer(struct prefill *p, struct ha_error *err)
{
    struct ha_decoder *decoder = p->decoder;
    int64_t layer = decoder->config->n_layers - 1, n = p->n_branches, longest = 0;
    struct ha_layer_context context;
    double n_keys = 0.0;
    int r = keys_and_values(p, layer, err);

    if (r == 0)
        r = gather_last(p, err);
    if (r == 0)
        r = send_caches(p, &longest, &n_keys, err);
    if (r < 0)
        return r;
    context = ha_decoder_context(decoder, layer, n, decoder->spans, find_spans(p, n, true));
    context.positions = decoder->last_positions;
    r = ha_layer_q(&context, decoder->q, decoder->last_norm, err);
    if (r == 0)
        r = ha_layer_rotate_q(&context, decoder->q, NULL, decoder->q, err);
    if (r == 0)
        r = ha_decoder_attend_caches(decoder, decoder->last_positions, n, layer, longest, n_keys,
                                     err);
    return r < 0 ? r
                 : ha_decoder_end_layer(decoder, &context, decoder->last, decoder->last_norm, err);
}

int ha_decoder_prefill(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                       int64_t n, float *logits, int64_t *row, struct ha_error *err)
{
    struct prefill p = {.decoder = decoder, .sequences = sequences, .n = n};
    struct ha_shards *shards = ha_model_shards(decoder->model);
    int64_t n_layers = decoder->config->n_layers;
    int r = ha_decoder_check(decoder, sequences, n, true, err);

    decoder->n_seated = 0;
    if (r == 0)
        r = make_branches(&p, err);
    if (r == 0)
        r = embed(&p, err);
    if (r == 0)
        r = ha_shards_begin(shards, HA_WALK_UP, 0, n_layers, err);
    for (int64_t layer = 0; r == 0 && layer < n_layers; layer++) {
        r = ha_shards_take(shards, layer, err);
        if (r == 0)
            r = branch_off(&p, layer, err);
        if (r == 0)
            r = layer < n_layers - 1 ? run_layer(&p, layer, err) : run_highest_layer(&p, err);
    }
    if (r == 0)
        r = ha_decoder_head(decoder, decoder->last, p.n_branches, err);
    if (r == 0)
        r = ha_decoder_show(decoder, p.n_branches, logits, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < n; i++) {
        sequences[i].cache->length = sequences[i].n_ids;
        row[i] = decoder->branch_of[i];
    }
    return 0;
}
