#include "common/io/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/io/file.h"

/* One tensor of the file to be written, in its place. */
struct slot {
    const struct ha_safetensors_item *item;
    size_t bytes;
};

static int compare_slots(const void *left, const void *right)
{
    const struct slot *a = left, *b = right;

    if (a->item->dtype != b->item->dtype)
        return a->item->dtype > b->item->dtype ? -1 : 1;
    return strcmp(a->item->name, b->item->name);
}

static int place(const char *path, const struct ha_safetensors_item *items, int64_t n,
                 struct slot *slots, struct ha_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        const struct ha_safetensors_item *item = &items[i];
        size_t bytes = ha_safetensors_dtype_bytes(item->dtype);

        if (item->rank < 0 || item->rank > HA_SAFETENSORS_MAX_RANK)
            return ha_error_set(err, EINVAL, "%s: tensor %s has rank %d", path, item->name,
                                item->rank);
        for (int d = 0; d < item->rank; d++) {
            if (item->shape[d] < 0 || __builtin_mul_overflow(bytes, item->shape[d], &bytes) ||
                bytes > INT64_MAX)
                return ha_error_set(err, EINVAL, "%s: tensor %s: bad shape", path, item->name);
        }
        slots[i] = (struct slot){.item = item, .bytes = bytes};
    }
    qsort(slots, (size_t)n, sizeof(*slots), compare_slots);
    return 0;
}

static struct ha_json *describe_tensor(const struct slot *slot, int64_t begin)
{
    const struct ha_safetensors_item *item = slot->item;
    struct ha_json *info = ha_json_new_object();
    struct ha_json *shape = ha_json_new_array();
    struct ha_json *offsets = ha_json_new_array();
    int bad = !info || !shape || !offsets;

    for (int d = 0; d < item->rank && !bad; d++)
        bad = ha_json_append(shape, ha_json_new_int(item->shape[d])) < 0;
    bad = bad || ha_json_append(offsets, ha_json_new_int(begin)) < 0 ||
          ha_json_append(offsets, ha_json_new_int(begin + (int64_t)slot->bytes)) < 0;
    if (bad) {
        ha_json_destroy(info);
        ha_json_destroy(shape);
        ha_json_destroy(offsets);
        return NULL;
    }
    bad =
        ha_json_set(info, "dtype", ha_json_new_string(ha_safetensors_dtype_name(item->dtype))) < 0;
    bad = ha_json_set(info, "shape", shape) < 0 || bad;
    bad = ha_json_set(info, "data_offsets", offsets) < 0 || bad;
    if (bad) {
        ha_json_destroy(info);
        return NULL;
    }
    return info;
}

static struct ha_json *describe_metadata(const struct ha_safetensors_pair *metadata, int64_t n)
{
    struct ha_json *object = ha_json_new_object();

    for (int64_t i = 0; object && i < n; i++) {
        if (ha_json_set(object, metadata[i].key, ha_json_new_string(metadata[i].value)) < 0) {
            ha_json_destroy(object);
            return NULL;
        }
    }
    return object;
}

/* The header's JSON text, padded with spaces to a multiple of 8 bytes; the
 * caller frees. */
static int make_header(const char *path, const struct slot *slots, int64_t n,
                       const struct ha_safetensors_pair *metadata, int64_t n_metadata,
                       char **ret_header, size_t *ret_size, struct ha_error *err)
{
    struct ha_json *header = ha_json_new_object();
    char *text = NULL, *padded;
    int64_t at = 0;
    size_t size;
    int r = -ENOMEM;

    if (!header || (n_metadata > 0 && ha_json_set(header, "__metadata__",
                                                  describe_metadata(metadata, n_metadata)) < 0))
        goto out;
    for (int64_t i = 0; i < n; i++) {
        if (ha_json_set(header, slots[i].item->name, describe_tensor(&slots[i], at)) < 0)
            goto out;
        if (ha_json_size(header) != i + 1 + (n_metadata > 0)) {
            r = -EEXIST;
            ha_error_set(err, EINVAL, "%s: two tensors are named %s", path, slots[i].item->name);
            goto out;
        }
        at += (int64_t)slots[i].bytes;
    }
    text = ha_json_dump(header, HA_JSON_COMPACT);
    size = text ? strlen(text) : 0;
    padded = text ? realloc(text, size + 8) : NULL;
    if (!padded)
        goto out;
    memset(padded + size, ' ', 7);
    text = NULL;
    *ret_header = padded;
    *ret_size = (size + 7) / 8 * 8;
    r = 0;
out:
    free(text);
    ha_json_destroy(header);
    if (r == -ENOMEM)
        return ha_error_set(err, ENOMEM, "%s: out of memory, or a name is not UTF-8", path);
    return r < 0 ? -EINVAL : 0;
}

static int check_items(const char *path, const struct slot *slots, int64_t n, struct ha_error *err)
{
    size_t total = 0;

    for (int64_t i = 0; i < n; i++) {
        if (strcmp(slots[i].item->name, "__metadata__") == 0)
            return ha_error_set(err, EINVAL, "%s: a tensor may not be named __metadata__", path);
        if (__builtin_add_overflow(total, slots[i].bytes, &total) || total > INT64_MAX)
            return ha_error_set(err, EINVAL, "%s: the tensors' sizes overflow", path);
    }
    return 0;
}

static int from_memory(void *user, const struct ha_safetensors_item *item, const void **ret_data,
                       struct ha_error *err)
{
    (void)user;
    (void)err;
    *ret_data = item->data;
    return 0;
}

int ha_safetensors_write(const char *path, const struct ha_safetensors_item *items, int64_t n_items,
                         const struct ha_safetensors_pair *metadata, int64_t n_metadata,
                         struct ha_error *err)
{
    return ha_safetensors_write_from(path, items, n_items, metadata, n_metadata, from_memory, NULL,
                                     err);
}

int ha_safetensors_write_from(const char *path, const struct ha_safetensors_item *items,
                              int64_t n_items, const struct ha_safetensors_pair *metadata,
                              int64_t n_metadata, ha_safetensors_source source, void *user,
                              struct ha_error *err)
{
    struct slot *slots = ha_calloc(n_items, sizeof(*slots));
    struct ha_file_writer *writer = NULL;
    size_t header_size = 0;
    uint64_t length;
    char *header = NULL;
    int r;

    if (!slots)
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    r = place(path, items, n_items, slots, err);
    if (r == 0)
        r = check_items(path, slots, n_items, err);
    if (r < 0)
        goto out;
    r = make_header(path, slots, n_items, metadata, n_metadata, &header, &header_size, err);
    if (r < 0)
        goto out;
    r = ha_file_writer_open(path, 0644, &writer, err);
    if (r < 0)
        goto out;
    length = header_size;
    r = ha_file_writer_write(writer, &length, sizeof(length), err);
    if (r == 0)
        r = ha_file_writer_write(writer, header, header_size, err);
    for (int64_t i = 0; i < n_items && r == 0; i++) {
        const void *data;

        r = source(user, slots[i].item, &data, err);
        if (r == 0)
            r = ha_file_writer_write(writer, data, slots[i].bytes, err);
    }
    if (r == 0)
        r = ha_file_writer_commit(writer, err);
out:
    ha_file_writer_destroy(writer);
    free(header);
    free(slots);
    return r;
}
