#include "worker/model/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/safetensors.h"
#include "worker/model/shards.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE HA_WEIGHT_INDEX_FILE

enum { INDEX_LIMIT_BYTES = 64 << 20, MAX_SHARDS = 10000 };

struct ha_weight_files {
    struct ha_backend *backend;
    struct ha_model_config config;
    const char *dir; /* during open only */
    struct ha_weights weights;
    struct ha_shards *shards; /* NULL: weights are whole */
    char **names;             /* (n_files) of files in dir */
    struct ha_safetensors **files;
    int64_t n_files;
    const void **imported; /* released in the end */
    int64_t n_imported, imported_capacity;
    void **copied; /* freed in the end: memory of ours that tensors were copied to */
    int64_t n_copied, copied_capacity;
};

/* Where a tensor goes and the shape it must have; view NULL: to be passed over. */
struct slot {
    struct ha_matrix *view;
    int64_t rows, cols;
    bool vector; /* rank 1 in the file */
    /* Where the backend copies weights: the matrix that it is a part of, from that element on;
     * NULL where it lies by itself. */
    struct ha_matrix *joined;
    int64_t joined_rows, joined_cols, offset;
    int64_t columns; /* room behind each row, where the backend copies weights */
    int64_t part;    /* HA_SHARD_RESIDENT, or what it is divided with (shards.h) */
};

int64_t ha_weights_lora_columns(bool copies_weights)
{
    return copies_weights ? HA_WEIGHTS_LORA_COLUMNS : 0;
}

bool ha_weights_lora_fits(int64_t columns, enum ha_module module, int64_t max_rank)
{
    return (module <= HA_MODULE_V && 3 * max_rank <= columns) ||
           (module == HA_MODULE_O && max_rank <= columns);
}

int64_t ha_weights_lora_bytes(const struct ha_model_config *config, int64_t columns)
{
    struct ha_adapter_geometry geometry;
    int64_t rows = 0;

    ha_model_config_geometry(config, &geometry);
    for (int module = HA_MODULE_Q; module <= HA_MODULE_O; module++)
        rows += geometry.out[module];
    return config->n_layers * rows * columns * (int64_t)ha_dtype_bytes(HA_DTYPE_BF16);
}

/* "layers.12.rest" -> 12 and "rest".  -EINVAL for anything else. */
static int parse_layer(const char *name, int64_t n_layers, int64_t *ret_layer,
                       const char **ret_rest)
{
    int64_t layer = 0;
    const char *at = name;

    while (*at >= '0' && *at <= '9' && layer < n_layers)
        layer = layer * 10 + (*at++ - '0');
    if (at == name || *at != '.' || layer >= n_layers || (*name == '0' && at != name + 1))
        return -EINVAL;
    *ret_layer = layer;
    *ret_rest = at + 1;
    return 0;
}

static void set_vector(struct slot *slot, struct ha_matrix *view, int64_t length)
{
    *slot = (struct slot){.view = view, .rows = 1, .cols = length, .vector = true};
}

/* Say what the weight or bias of a module is a part of. */
static void join_slot(const struct ha_adapter_geometry *geometry, struct ha_layer_weights *layer,
                      enum ha_module module, struct slot *slot)
{
    bool attention = module <= HA_MODULE_V;
    int first = attention ? HA_MODULE_Q : HA_MODULE_GATE;
    int last = attention ? HA_MODULE_V : HA_MODULE_UP;
    int64_t rows = 0;

    if (!attention && module != HA_MODULE_GATE && module != HA_MODULE_UP)
        return;
    for (int i = first; i <= last; i++) {
        slot->offset += i < (int)module ? geometry->out[i] : 0;
        rows += geometry->out[i];
    }
    slot->joined = slot->vector ? &layer->qkv_bias : attention ? &layer->qkv : &layer->gate_up;
    slot->joined_rows = slot->vector ? 1 : rows;
    slot->joined_cols = slot->vector ? rows : geometry->in[first];
    if (!slot->vector)
        slot->offset *= slot->joined_cols + slot->columns;
}

/* The slot of a tensor inside a layer.  -ENOENT for a name that does not belong. */
static int find_layer_slot(struct ha_weight_files *files, int64_t index, const char *rest,
                           struct slot *ret_slot)
{
    const struct ha_model_config *config = &files->config;
    struct ha_layer_weights *layer = &files->weights.layers[index];
    struct ha_adapter_geometry geometry;

    ha_model_config_geometry(config, &geometry);
    if (strcmp(rest, "input_layernorm.weight") == 0)
        set_vector(ret_slot, &layer->input_norm, config->width);
    else if (strcmp(rest, "post_attention_layernorm.weight") == 0)
        set_vector(ret_slot, &layer->post_norm, config->width);
    else if (config->qk_norm && strcmp(rest, "self_attn.q_norm.weight") == 0)
        set_vector(ret_slot, &layer->q_norm, config->head_dim);
    else if (config->qk_norm && strcmp(rest, "self_attn.k_norm.weight") == 0)
        set_vector(ret_slot, &layer->k_norm, config->head_dim);
    else if (strcmp(rest, "self_attn.rotary_emb.inv_freq") == 0)
        *ret_slot = (struct slot){.view = NULL};
    else {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const char *path = ha_module_path((enum ha_module)module);
            size_t length = strlen(path);
            bool biased =
                module <= HA_MODULE_V ? config->qkv_bias : module == HA_MODULE_O && config->o_bias;

            if (strncmp(rest, path, length) != 0)
                continue;
            if (strcmp(rest + length, ".weight") == 0) {
                *ret_slot = (struct slot){
                    .view = &layer->linear[module],
                    .rows = geometry.out[module],
                    .cols = geometry.in[module],
                    .columns = module <= HA_MODULE_O ? files->weights.lora_columns : 0};
                join_slot(&geometry, layer, (enum ha_module)module, ret_slot);
                return 0;
            }
            if (biased && strcmp(rest + length, ".bias") == 0) {
                set_vector(ret_slot, &layer->bias[module], geometry.out[module]);
                join_slot(&geometry, layer, (enum ha_module)module, ret_slot);
                return 0;
            }
        }
        return -ENOENT;
    }
    return 0;
}

/* What of a layer this is. */
static enum ha_shard_field field_of(const struct ha_layer_weights *layer,
                                    const struct ha_matrix *matrix)
{
    const struct ha_matrix *const fields[HA_SHARD_FIELDS] = {
        [HA_SHARD_QKV] = &layer->qkv,
        [HA_SHARD_O] = &layer->linear[HA_MODULE_O],
        [HA_SHARD_GATE_UP] = &layer->gate_up,
        [HA_SHARD_DOWN] = &layer->linear[HA_MODULE_DOWN],
        [HA_SHARD_QKV_BIAS] = &layer->qkv_bias,
        [HA_SHARD_O_BIAS] = &layer->bias[HA_MODULE_O],
        [HA_SHARD_INPUT_NORM] = &layer->input_norm,
        [HA_SHARD_POST_NORM] = &layer->post_norm,
        [HA_SHARD_Q_NORM] = &layer->q_norm,
        [HA_SHARD_K_NORM] = &layer->k_norm,
    };
    int i = 0;

    while (i + 1 < HA_SHARD_FIELDS && fields[i] != matrix)
        i++;
    return (enum ha_shard_field)i;
}

static int find_slot(struct ha_weight_files *files, const char *name, struct slot *ret_slot)
{
    const struct ha_model_config *config = &files->config;
    struct ha_weights *weights = &files->weights;
    bool tables = files->shards && ha_shards_layout(files->shards)->tables;
    const char *rest;
    int64_t layer;
    int r = 0;

    if (strcmp(name, "model.embed_tokens.weight") == 0)
        *ret_slot = (struct slot){.view = &weights->embedding,
                                  .rows = config->vocab,
                                  .cols = config->width,
                                  .part = tables ? HA_SHARD_EMBEDDING : HA_SHARD_RESIDENT};
    else if (strcmp(name, "lm_head.weight") == 0)
        /* A tied model's head is its embedding, whatever a file still says. */
        *ret_slot = (struct slot){.view = config->tied ? NULL : &weights->head,
                                  .rows = config->vocab,
                                  .cols = config->width,
                                  .part = tables ? HA_SHARD_HEAD : HA_SHARD_RESIDENT};
    else if (strcmp(name, "model.norm.weight") == 0) {
        set_vector(ret_slot, &weights->final_norm, config->width);
        ret_slot->part = HA_SHARD_RESIDENT;
    } else if (strncmp(name, "model.layers.", 13) == 0 &&
               parse_layer(name + 13, config->n_layers, &layer, &rest) == 0) {
        r = find_layer_slot(files, layer, rest, ret_slot);
        if (r == 0)
            ret_slot->part = files->shards ? layer : HA_SHARD_RESIDENT;
    } else {
        r = -ENOENT;
    }
    return r;
}

static int tensor_dtype(const struct ha_safetensors_tensor *tensor, enum ha_dtype *ret_dtype)
{
    if (tensor->dtype == HA_SAFETENSORS_F32)
        *ret_dtype = HA_DTYPE_F32;
    else if (tensor->dtype == HA_SAFETENSORS_BF16)
        *ret_dtype = HA_DTYPE_BF16;
    else if (tensor->dtype == HA_SAFETENSORS_F16)
        *ret_dtype = HA_DTYPE_F16;
    else
        return -EINVAL;
    return 0;
}

static int make_room(struct ha_weight_files *files, struct ha_error *err)
{
    if (ha_grow((void **)&files->imported, &files->imported_capacity, files->n_imported + 1,
                sizeof(*files->imported)) < 0 ||
        ha_grow((void **)&files->copied, &files->copied_capacity, files->n_copied + 1,
                sizeof(*files->copied)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for the table of tensors");
    return 0;
}

/* Memory of ours for a copy. */
static int take_memory(struct ha_weight_files *files, size_t bytes, void **ret_memory,
                       struct ha_error *err)
{
    int r = ha_backend_alloc(files->backend, bytes, ret_memory, err);

    if (r == 0)
        files->copied[files->n_copied++] = *ret_memory;
    return r;
}

/* Copy the tensor to its place in the backend's memory.  The first tensor of a matrix of several
 * makes room for them all. */
static int load_tensor(struct ha_weight_files *files, const struct ha_safetensors_tensor *tensor,
                       const struct slot *slot, enum ha_dtype *dtype, const void **ret_memory,
                       struct ha_error *err)
{
    struct ha_matrix own = {.rows = slot->rows, .cols = slot->cols};
    struct ha_matrix *matrix = slot->joined ? slot->joined : &own;
    int64_t row = slot->cols + slot->columns;
    char *at;
    int r = 0;

    if (!matrix->data) {
        if (slot->joined)
            *matrix = (struct ha_matrix){.rows = slot->joined_rows, .cols = slot->joined_cols};
        matrix->dtype = HA_DTYPE_BF16;
        matrix->stride = matrix->cols + slot->columns;
        r = take_memory(files,
                        (size_t)(matrix->rows * matrix->stride) * ha_dtype_bytes(HA_DTYPE_BF16),
                        &matrix->data, err);
    }
    if (r < 0)
        return r;
    at = (char *)matrix->data + (size_t)slot->offset * ha_dtype_bytes(HA_DTYPE_BF16);
    r = ha_backend_load_weight_rows(files->backend, at, row, tensor->data, *dtype, slot->rows,
                                    slot->cols, err);
    *ret_memory = at;
    *dtype = HA_DTYPE_BF16;
    return r;
}

/* This rank's share of the tensor, and where the whole will be when it is gathered. */
static int load_share(struct ha_weight_files *files, const struct ha_safetensors_tensor *tensor,
                      const struct slot *slot, enum ha_dtype *dtype, const void **ret_memory,
                      struct ha_error *err)
{
    const struct ha_shard_layout *layout = ha_shards_layout(files->shards);
    struct ha_layer_weights *layer = slot->part >= 0 ? &files->weights.layers[slot->part] : NULL;
    bool copies = ha_backend_copies_weights(files->backend);
    enum ha_dtype stored = copies ? HA_DTYPE_BF16 : *dtype;
    struct ha_shard_source source = {.host = tensor->data,
                                     .dtype = *dtype,
                                     .stored = stored,
                                     .rows = slot->rows,
                                     .cols = slot->cols,
                                     .columns = slot->columns};
    struct ha_matrix *joined = copies ? slot->joined : NULL;
    int64_t field = 0, offset = slot->offset * layout->value_bytes;
    int r;

    if (layer)
        field = layout->offset[field_of(layer, slot->joined ? slot->joined : slot->view)];
    *ret_memory = ha_shards_view(files->shards, slot->part, field + offset);
    if (joined && !joined->data)
        *joined = (struct ha_matrix){.data = ha_shards_view(files->shards, slot->part, field),
                                     .dtype = stored,
                                     .rows = slot->joined_rows,
                                     .cols = slot->joined_cols,
                                     .stride = slot->joined_cols + slot->columns};
    r = ha_shards_load(files->shards, slot->part, field + offset, &source, err);
    *dtype = stored;
    return r;
}

/* Make the tensor readable for operations; its type there may be another. */
static int import_tensor(struct ha_weight_files *files, const struct ha_safetensors_tensor *tensor,
                         const struct slot *slot, enum ha_dtype *dtype, const void **ret_memory,
                         struct ha_error *err)
{
    void *copy;
    int r = make_room(files, err);

    if (r < 0)
        return r;
    if (slot->part != HA_SHARD_RESIDENT)
        return load_share(files, tensor, slot, dtype, ret_memory, err);
    if (ha_backend_copies_weights(files->backend))
        return load_tensor(files, tensor, slot, dtype, ret_memory, err);
    if (tensor->aligned) {
        r = ha_backend_import_weight(files->backend, tensor->data, *dtype,
                                     (int64_t)(tensor->bytes / ha_dtype_bytes(*dtype)), ret_memory,
                                     dtype, err);
        if (r == 0)
            files->imported[files->n_imported++] = *ret_memory;
        return r;
    }
    r = take_memory(files, tensor->bytes, &copy, err);
    if (r == 0)
        r = ha_backend_upload(files->backend, copy, tensor->data, tensor->bytes, err);
    if (r == 0)
        *ret_memory = copy;
    return r;
}

static int take_tensor(struct ha_weight_files *files, int64_t file,
                       const struct ha_safetensors_tensor *tensor, struct ha_error *err)
{
    const char *name = tensor->name, *where = files->names[file];
    enum ha_dtype dtype;
    struct slot slot;
    const void *memory;
    int r;

    if (find_slot(files, name, &slot) < 0)
        return ha_error_set(err, EINVAL, "%s/%s: tensor %s does not belong to the model of %s",
                            files->dir, where, name, "config.json");
    if (!slot.view)
        return 0;
    if (slot.view->data)
        return ha_error_set(err, EINVAL, "%s/%s: tensor %s is there twice", files->dir, where,
                            name);
    if (slot.vector
            ? tensor->rank != 1 || tensor->shape[0] != slot.cols
            : tensor->rank != 2 || tensor->shape[0] != slot.rows || tensor->shape[1] != slot.cols)
        return ha_error_set(err, EINVAL,
                            "%s/%s: tensor %s does not have the shape that config.json says: "
                            "[%lld, %lld]",
                            files->dir, where, name, (long long)slot.rows, (long long)slot.cols);
    if (tensor_dtype(tensor, &dtype) < 0)
        return ha_error_set(err, EINVAL,
                            "%s/%s: tensor %s has type %s; BF16, F16 and F32 are read (convert "
                            "with Transformers: torch_dtype=\"bfloat16\", save_pretrained)",
                            files->dir, where, name, ha_safetensors_dtype_name(tensor->dtype));
    r = import_tensor(files, tensor, &slot, &dtype, &memory, err);
    if (r < 0)
        return r;
    *slot.view = (struct ha_matrix){.data = (void *)(uintptr_t)memory,
                                    .dtype = dtype,
                                    .rows = slot.rows,
                                    .cols = slot.cols,
                                    .stride = slot.cols + slot.columns};
    files->weights.bytes += (int64_t)tensor->bytes;
    return 0;
}

static int missing(const struct ha_weight_files *files, int64_t layer, const char *name,
                   const char *suffix, struct ha_error *err)
{
    if (layer < 0)
        return ha_error_set(err, EINVAL, "%s: tensor %s%s is missing", files->dir, name, suffix);
    return ha_error_set(err, EINVAL, "%s: tensor model.layers.%lld.%s%s is missing", files->dir,
                        (long long)layer, name, suffix);
}

static int check_layer(const struct ha_weight_files *files, int64_t index, struct ha_error *err)
{
    const struct ha_model_config *config = &files->config;
    const struct ha_layer_weights *layer = &files->weights.layers[index];

    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        const char *path = ha_module_path((enum ha_module)module);
        bool biased =
            module <= HA_MODULE_V ? config->qkv_bias : module == HA_MODULE_O && config->o_bias;

        if (!layer->linear[module].data)
            return missing(files, index, path, ".weight", err);
        if (biased && !layer->bias[module].data)
            return missing(files, index, path, ".bias", err);
    }
    if (!layer->input_norm.data)
        return missing(files, index, "input_layernorm", ".weight", err);
    if (!layer->post_norm.data)
        return missing(files, index, "post_attention_layernorm", ".weight", err);
    if (config->qk_norm && !layer->q_norm.data)
        return missing(files, index, "self_attn.q_norm", ".weight", err);
    if (config->qk_norm && !layer->k_norm.data)
        return missing(files, index, "self_attn.k_norm", ".weight", err);
    return 0;
}

static int check_complete(struct ha_weight_files *files, struct ha_error *err)
{
    struct ha_weights *weights = &files->weights;

    if (!weights->embedding.data)
        return missing(files, -1, "model.embed_tokens", ".weight", err);
    if (!weights->final_norm.data)
        return missing(files, -1, "model.norm", ".weight", err);
    if (files->config.tied)
        weights->head = weights->embedding;
    if (!weights->head.data)
        return missing(files, -1, "lm_head", ".weight", err);
    for (int64_t layer = 0; layer < files->config.n_layers; layer++) {
        int r = check_layer(files, layer, err);

        if (r < 0)
            return r;
    }
    return 0;
}

static int add_file(struct ha_weight_files *files, int64_t *capacity, const char *name,
                    struct ha_error *err)
{
    for (int64_t i = 0; i < files->n_files; i++) {
        if (strcmp(files->names[i], name) == 0)
            return 0;
    }
    if (files->n_files == MAX_SHARDS)
        return ha_error_set(err, EINVAL, "%s/%s: more than %d shards", files->dir, INDEX_FILE,
                            MAX_SHARDS);
    if (ha_grow((void **)&files->names, capacity, files->n_files + 1, sizeof(*files->names)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for the list of shards");
    files->names[files->n_files] = ha_strdup(name);
    if (!files->names[files->n_files])
        return ha_error_set(err, ENOMEM, "no memory for the list of shards");
    files->n_files++;
    return 0;
}

/* The files of an index.  weight_map order is by tensor; neighbours mostly share a file. */
static int list_index(struct ha_weight_files *files, int64_t *capacity, const char *path,
                      struct ha_error *err)
{
    struct ha_json *index = NULL, *map, *value;
    const char *tensor;
    void *iterator = NULL;
    int r = ha_json_load(path, INDEX_LIMIT_BYTES, &index, err);

    if (r < 0)
        return r;
    map = ha_json_get(index, "weight_map");
    if (!ha_json_is(map, HA_JSON_OBJECT) || ha_json_size(map) == 0)
        r = ha_error_set(err, EINVAL, "%s: weight_map is missing or empty", path);
    while (r == 0 && ha_json_next(map, &iterator, &tensor, &value)) {
        const char *name = ha_json_string(value, "");

        if (name[0] == '\0' || name[0] == '.' || strchr(name, '/'))
            r = ha_error_set(err, EINVAL, "%s: weight_map.%s is not the name of a file beside it",
                             path, tensor);
        else
            r = add_file(files, capacity, name, err);
    }
    ha_json_destroy(index);
    return r;
}

static int list_files(struct ha_weight_files *files, struct ha_error *err)
{
    char *single = ha_path_join(files->dir, SINGLE_FILE);
    char *index = ha_path_join(files->dir, INDEX_FILE);
    int64_t capacity = 0;
    int r;

    if (!single || !index)
        r = ha_error_set(err, ENOMEM, "no memory to open a model");
    else if (ha_path_exists(single))
        r = add_file(files, &capacity, SINGLE_FILE, err);
    else if (ha_path_exists(index))
        r = list_index(files, &capacity, index, err);
    else
        r = ha_error_set(err, ENOENT,
                         "%s: has neither %s nor %s (other weight formats are not read)",
                         files->dir, SINGLE_FILE, INDEX_FILE);
    free(index);
    free(single);
    return r;
}

static int open_file(struct ha_weight_files *files, int64_t file, struct ha_error *err)
{
    char *path = ha_path_join(files->dir, files->names[file]);
    int r;

    if (!path)
        return ha_error_set(err, ENOMEM, "no memory to open a model");
    r = ha_safetensors_open(path, &files->files[file], err);
    free(path);
    return r;
}

static int take_file(struct ha_weight_files *files, int64_t file, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < ha_safetensors_count(files->files[file]); i++)
        r = take_tensor(files, file, ha_safetensors_at(files->files[file], i), err);
    return r;
}

/* Bytes of a value as it will be held: on the CPU of the widest type among the tensors. */
static int64_t value_bytes(const struct ha_weight_files *files)
{
    enum ha_dtype dtype;
    int64_t most = (int64_t)ha_dtype_bytes(HA_DTYPE_BF16);

    for (int64_t file = 0; file < files->n_files && !ha_backend_copies_weights(files->backend);
         file++) {
        for (int64_t i = 0; i < ha_safetensors_count(files->files[file]); i++) {
            if (tensor_dtype(ha_safetensors_at(files->files[file], i), &dtype) == 0 &&
                (int64_t)ha_dtype_bytes(dtype) > most)
                most = (int64_t)ha_dtype_bytes(dtype);
        }
    }
    return most;
}

static int open_files(struct ha_weight_files *files, const struct ha_model_shard *shard,
                      struct ha_error *err)
{
    int r = list_files(files, err);

    if (r < 0)
        return r;
    files->files = ha_calloc(files->n_files, sizeof(struct ha_safetensors *));
    if (!files->files)
        return ha_error_set(err, ENOMEM, "no memory to open a model");
    for (int64_t file = 0; r == 0 && file < files->n_files; file++)
        r = open_file(files, file, err);
    if (r == 0 && shard)
        r = ha_shards_create(files->backend, &files->config, shard, value_bytes(files),
                             files->weights.lora_columns, files->weights.layers, &files->shards,
                             err);
    for (int64_t file = 0; r == 0 && file < files->n_files; file++)
        r = take_file(files, file, err);
    return r < 0 ? r : check_complete(files, err);
}

int ha_weight_files_open_shard(struct ha_backend *backend, const struct ha_model_config *config,
                               const char *dir, const struct ha_model_shard *shard,
                               struct ha_weight_files **ret_files, struct ha_error *err)
{
    struct ha_weight_files *files = ha_calloc(1, sizeof(*files));
    int r;

    if (!files)
        return ha_error_set(err, ENOMEM, "no memory to open a model");
    files->backend = backend;
    files->config = *config;
    files->dir = dir;
    files->weights.lora_columns = ha_weights_lora_columns(ha_backend_copies_weights(backend));
    files->weights.layers = ha_calloc(config->n_layers, sizeof(*files->weights.layers));
    r = files->weights.layers ? open_files(files, shard, err)
                              : ha_error_set(err, ENOMEM, "no memory to open a model");
    files->dir = NULL;
    if (r < 0) {
        ha_weight_files_close(files);
        return r;
    }
    *ret_files = files;
    return 0;
}

int ha_weight_files_open(struct ha_backend *backend, const struct ha_model_config *config,
                         const char *dir, struct ha_weight_files **ret_files, struct ha_error *err)
{
    return ha_weight_files_open_shard(backend, config, dir, NULL, ret_files, err);
}

struct ha_shards *ha_weight_files_shards(const struct ha_weight_files *files)
{
    return files->shards;
}

void ha_weight_files_close(struct ha_weight_files *files)
{
    if (!files)
        return;
    for (int64_t i = 0; i < files->n_imported; i++)
        ha_backend_release_host(files->backend, files->imported[i]);
    for (int64_t i = 0; i < files->n_copied; i++)
        ha_backend_free(files->backend, files->copied[i]);
    for (int64_t i = 0; i < files->n_files; i++) {
        if (files->files)
            ha_safetensors_close(files->files[i]);
        free(files->names[i]);
    }
    ha_shards_destroy(files->shards);
    free(files->imported);
    free(files->copied);
    free(files->files);
    free(files->names);
    free(files->weights.layers);
    free(files);
}

const struct ha_weights *ha_weight_files_weights(const struct ha_weight_files *files)
{
    return &files->weights;
}

int64_t ha_weight_files_count(const struct ha_weight_files *files)
{
    return files->n_files;
}

const char *ha_weight_files_name(const struct ha_weight_files *files, int64_t index)
{
    return files->names[index];
}

const struct ha_safetensors *ha_weight_files_at(const struct ha_weight_files *files, int64_t index)
{
    return files->files[index];
}
