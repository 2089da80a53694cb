#include "worker/model/shards.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/memory.h"
#include "kernels/collective.h"

/* What a rank wants, as it is told to the others. */
struct wish {
    int64_t walk, from, to;
};

struct ha_shards {
    struct ha_backend *backend;
    struct ha_shard_layout layout;
    int rank;
    char *own;    /* device: a share of each layer, then of each table */
    char *region; /* device: the buffers */
    struct ha_layer_weights *layers;
    int *buffer_of; /* (n_layers): where the views of a layer point to */
    struct ha_comm *comm;
    struct wish *wishes; /* (ranks) */
    bool rehearses;

    struct wish walk; /* that is under way */
    int64_t n_parts, n_begun, n_taken;
    int64_t gathered;
};

static const struct wish idle = {.walk = HA_WALK_IDLE};

/* ---- making ---- */

int ha_shards_create(struct ha_backend *backend, const struct ha_model_config *config,
                     const struct ha_model_shard *shard, int64_t value_bytes, int64_t columns,
                     struct ha_layer_weights *layers, struct ha_shards **ret_shards,
                     struct ha_error *err)
{
    struct ha_shards *shards = ha_calloc(1, sizeof(*shards));
    void *own = NULL, *region = NULL;
    int r;

    if (!shards)
        return ha_error_set(err, ENOMEM, "no memory for shared weights");
    shards->backend = backend;
    shards->rank = shard->rank;
    shards->layers = layers;
    shards->walk = idle;
    ha_shard_layout_make(config, shard->ranks, value_bytes, columns, &shards->layout);
    shards->buffer_of = ha_calloc(config->n_layers, sizeof(*shards->buffer_of));
    shards->wishes = ha_calloc(shard->ranks, sizeof(*shards->wishes));
    r = shards->buffer_of && shards->wishes
            ? ha_backend_alloc(backend, (size_t)shards->layout.own_bytes, &own, err)
            : ha_error_set(err, ENOMEM, "no memory for shared weights");
    shards->own = own;
    if (r == 0)
        r = ha_backend_alloc(backend, (size_t)shards->layout.region_bytes, &region, err);
    shards->region = region;
    if (r < 0) {
        ha_shards_destroy(shards);
        return r;
    }
    *ret_shards = shards;
    return 0;
}

void ha_shards_destroy(struct ha_shards *shards)
{
    if (!shards)
        return;
    ha_backend_free(shards->backend, shards->own);
    ha_backend_free(shards->backend, shards->region);
    free(shards->buffer_of);
    free(shards->wishes);
    free(shards);
}

const struct ha_shard_layout *ha_shards_layout(const struct ha_shards *shards)
{
    return &shards->layout;
}

/* ---- where parts lie ---- */

static int64_t share_of(const struct ha_shards *shards, int64_t part)
{
    return part >= 0 ? shards->layout.layer_share : shards->layout.table_share;
}

static char *own_of(const struct ha_shards *shards, int64_t part)
{
    const struct ha_shard_layout *layout = &shards->layout;
    int64_t table = part == HA_SHARD_HEAD && layout->n_tables > 1;

    return shards->own +
           (part >= 0 ? part * layout->layer_share
                      : layout->n_layers * layout->layer_share + table * layout->table_share);
}

static char *buffer(const struct ha_shards *shards, int64_t part, int number)
{
    return shards->region +
           (part >= 0 ? number * shards->layout.layer_share * shards->layout.ranks : 0);
}

void *ha_shards_view(const struct ha_shards *shards, int64_t part, int64_t offset)
{
    return buffer(shards, part, 0) + offset;
}

/* What loading a tensor has in common. */
struct loading {
    struct ha_backend *backend;
    const struct ha_shard_source *source;
    char *own;     /* of this rank's share of the part */
    int64_t begin; /* of the share, in values behind the tensor's first; may be negative */
};

/* Values [first, first + cols) of rows [row, row + rows). */
static int load_block(const struct loading *loading, int64_t row, int64_t rows, int64_t first,
                      int64_t cols, struct ha_error *err)
{
    const struct ha_shard_source *source = loading->source;
    int64_t stride = source->cols + source->columns;
    int64_t at = row * stride + first - loading->begin;
    const char *from = (const char *)source->host +
                       (size_t)(row * source->cols + first) * ha_dtype_bytes(source->dtype);
    char *to = loading->own + at * (int64_t)ha_dtype_bytes(source->stored);

    if (rows <= 0 || cols <= 0)
        return 0;
    if (ha_backend_copies_weights(loading->backend))
        return ha_backend_load_weight_rows(loading->backend, to, rows > 1 ? stride : cols, from,
                                           source->dtype, rows, cols, err);
    /* Types are as in the file, and there are no columns behind rows. */
    return ha_backend_upload(loading->backend, to, from,
                             (size_t)(rows * cols) * ha_dtype_bytes(source->stored), err);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A share may begin and end inside a row: a part of a row, whole rows, a part of a row. */
int ha_shards_load(struct ha_shards *shards, int64_t part, int64_t offset,
                   const struct ha_shard_source *source, struct ha_error *err)
{
    int64_t value = (int64_t)ha_dtype_bytes(source->stored), share = share_of(shards, part);
    int64_t stride = source->cols + source->columns, n = source->rows * stride;
    /* Shares begin at multiples of a value, and so does the tensor. */
    struct loading loading = {.backend = shards->backend,
                              .source = source,
                              .own = own_of(shards, part),
                              .begin = (shards->rank * share - offset) / value};
    int64_t first = loading.begin > 0 ? loading.begin : 0;
    int64_t last = smaller(loading.begin + share / value, n), row, whole;
    int r;

    if (first >= last)
        return 0;
    row = first / stride;
    if (row == last / stride)
        return load_block(&loading, row, 1, first % stride,
                          smaller(last % stride, source->cols) - first % stride, err);
    r = load_block(&loading, row, first % stride > 0, first % stride, source->cols - first % stride,
                   err);
    row += first % stride > 0;
    whole = last / stride;
    if (r == 0)
        r = load_block(&loading, row, whole - row, 0, source->cols, err);
    return r < 0 ? r : load_block(&loading, whole, 1, 0, smaller(last % stride, source->cols), err);
}

static void move_view(struct ha_matrix *view, int64_t bytes)
{
    if (view->data)
        view->data = (char *)view->data + bytes;
}

/* Let the views of a layer point to this buffer. */
static void move_layer(struct ha_shards *shards, int64_t layer, int number)
{
    struct ha_layer_weights *views = &shards->layers[layer];
    int64_t bytes =
        (number - shards->buffer_of[layer]) * shards->layout.layer_share * shards->layout.ranks;

    shards->buffer_of[layer] = number;
    for (int i = 0; i < HA_MODULE_COUNT; i++) {
        move_view(&views->linear[i], bytes);
        move_view(&views->bias[i], bytes);
    }
    move_view(&views->qkv, bytes);
    move_view(&views->qkv_bias, bytes);
    move_view(&views->gate_up, bytes);
    move_view(&views->input_norm, bytes);
    move_view(&views->post_norm, bytes);
    move_view(&views->q_norm, bytes);
    move_view(&views->k_norm, bytes);
}

/* ---- gathers ---- */

static int64_t part_at(const struct ha_shards *shards, int64_t i)
{
    switch ((enum ha_walk)shards->walk.walk) {
    case HA_WALK_UP:
        return shards->walk.from + i;
    case HA_WALK_DOWN:
        return shards->walk.to - 1 - i;
    case HA_WALK_HEAD:
        return HA_SHARD_HEAD;
    case HA_WALK_EMBEDDING:
    case HA_WALK_IDLE:
        break;
    }
    return HA_SHARD_EMBEDDING;
}

/* The next part of the walk on its way, if there is one.  What its buffer held is not needed by
 * anything that the backend will be given from now on. */
static int begin_next(struct ha_shards *shards, struct ha_error *err)
{
    int64_t i = shards->n_begun, part = part_at(shards, i);

    if (i == shards->n_parts)
        return 0;
    shards->n_begun++;
    return ha_comm_start_gather_device(shards->comm,
                                       buffer(shards, part, (int)(i % HA_SHARD_BUFFERS)),
                                       own_of(shards, part), (size_t)share_of(shards, part), err);
}

static int take_next(struct ha_shards *shards, struct ha_error *err)
{
    int64_t i = shards->n_taken, part = part_at(shards, i);
    int r = shards->n_begun == i ? begin_next(shards, err) : 0;

    HA_CRASH_POINT("attempt.gang_weights");
    if (r == 0)
        r = ha_comm_wait(shards->comm, err);
    if (r < 0)
        return r;
    shards->n_taken++;
    shards->gathered += share_of(shards, part) * (shards->layout.ranks - 1);
    if (part >= 0)
        move_layer(shards, part, (int)(i % HA_SHARD_BUFFERS));
    return begin_next(shards, err);
}

/* What is left of the walk under way. */
static int finish(struct ha_shards *shards, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && shards->n_taken < shards->n_parts)
        r = take_next(shards, err);
    return r;
}

/* ---- walks ---- */

static bool comes_before(const struct wish *a, const struct wish *b)
{
    if (a->walk != b->walk)
        return a->walk < b->walk;
    return a->from != b->from ? a->from < b->from : a->to < b->to;
}

/* All say what they want; the walk under way is then the first of it, the same for all. */
static int agree(struct ha_shards *shards, const struct wish *want, struct ha_error *err)
{
    struct wish own = *want;
    int r = ha_comm_gather(shards->comm, shards->wishes, &own, sizeof(own), err);

    if (r < 0)
        return r;
    shards->walk = shards->wishes[0];
    for (int i = 1; i < shards->layout.ranks; i++) {
        if (comes_before(&shards->wishes[i], &shards->walk))
            shards->walk = shards->wishes[i];
    }
    shards->n_parts = shards->walk.walk == HA_WALK_UP || shards->walk.walk == HA_WALK_DOWN
                          ? shards->walk.to - shards->walk.from
                          : shards->walk.walk != HA_WALK_IDLE;
    shards->n_begun = shards->n_taken = 0;
    return 0;
}

static bool equal(const struct wish *a, const struct wish *b)
{
    return a->walk == b->walk && a->from == b->from && a->to == b->to;
}

/* Help until the walk that is wanted is the one under way. */
static int come_to(struct ha_shards *shards, const struct wish *want, struct ha_error *err)
{
    int r;

    do {
        r = finish(shards, err);
        if (r == 0)
            r = agree(shards, want, err);
    } while (r == 0 && !equal(&shards->walk, want));
    return r;
}

int ha_shards_begin(struct ha_shards *shards, enum ha_walk walk, int64_t from, int64_t to,
                    struct ha_error *err)
{
    bool table = walk == HA_WALK_EMBEDDING || walk == HA_WALK_HEAD;
    struct wish want = {.walk = walk, .from = from, .to = to};
    int r;

    if (!shards || shards->rehearses || (table ? !shards->layout.tables : from >= to))
        return 0;
    if (!shards->comm)
        return ha_error_set(err, EINVAL,
                            "the ranks that share the model's weights are not together");
    r = come_to(shards, &want, err);
    return r == 0 && table ? take_next(shards, err) : r;
}

int ha_shards_take(struct ha_shards *shards, int64_t layer, struct ha_error *err)
{
    if (!shards || shards->rehearses)
        return 0;
    if (shards->n_taken == shards->n_parts || part_at(shards, shards->n_taken) != layer)
        return ha_error_set(err, EINVAL, "layer %lld is not the next one of its walk",
                            (long long)layer);
    return take_next(shards, err);
}

int ha_shards_idle(struct ha_shards *shards, struct ha_error *err)
{
    return shards && shards->comm ? come_to(shards, &idle, err) : 0;
}

void ha_shards_join(struct ha_shards *shards, struct ha_comm *comm)
{
    shards->comm = comm;
}

void ha_shards_rehearse(struct ha_shards *shards, bool on)
{
    if (shards)
        shards->rehearses = on;
}

int64_t ha_shards_gathered_bytes(const struct ha_shards *shards)
{
    return shards ? shards->gathered : 0;
}
