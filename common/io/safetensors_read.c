#include "common/io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and is read in place"
#endif

enum { LENGTH_BYTES = 8, MAX_HEADER_BYTES = 100000000 };

static const char metadata_key[] = "__metadata__";

struct ha_safetensors {
    char *path;
    const uint8_t *map;
    size_t map_bytes;
    struct ha_json *header;
    struct ha_safetensors_tensor *tensors; /* by data offset */
    int64_t n_tensors;
    const struct ha_safetensors_tensor **by_name;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [HA_SAFETENSORS_BOOL] = {"BOOL", 1},       [HA_SAFETENSORS_U8] = {"U8", 1},
    [HA_SAFETENSORS_I8] = {"I8", 1},           [HA_SAFETENSORS_F8_E5M2] = {"F8_E5M2", 1},
    [HA_SAFETENSORS_F8_E4M3] = {"F8_E4M3", 1}, [HA_SAFETENSORS_F8_E8M0] = {"F8_E8M0", 1},
    [HA_SAFETENSORS_I16] = {"I16", 2},         [HA_SAFETENSORS_U16] = {"U16", 2},
    [HA_SAFETENSORS_F16] = {"F16", 2},         [HA_SAFETENSORS_BF16] = {"BF16", 2},
    [HA_SAFETENSORS_I32] = {"I32", 4},         [HA_SAFETENSORS_U32] = {"U32", 4},
    [HA_SAFETENSORS_F32] = {"F32", 4},         [HA_SAFETENSORS_C64] = {"C64", 8},
    [HA_SAFETENSORS_F64] = {"F64", 8},         [HA_SAFETENSORS_I64] = {"I64", 8},
    [HA_SAFETENSORS_U64] = {"U64", 8},
};

const char *ha_safetensors_dtype_name(enum ha_safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t ha_safetensors_dtype_bytes(enum ha_safetensors_dtype dtype)
{
    return dtypes[dtype].bytes;
}

static int parse_dtype(const char *name, enum ha_safetensors_dtype *ret_dtype)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *ret_dtype = (enum ha_safetensors_dtype)i;
            return 0;
        }
    }
    return -EINVAL;
}

static int map_file(struct ha_safetensors *file, struct ha_error *err)
{
    struct stat st;
    void *map = MAP_FAILED;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    int r = 0;

    if (fd < 0)
        return ha_error_set(err, errno, "cannot open %s: %s", file->path, strerror(errno));
    if (fstat(fd, &st) < 0)
        r = ha_error_set(err, errno, "cannot read %s: %s", file->path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        r = ha_error_set(err, EINVAL, "%s is not a file", file->path);
    else if (st.st_size < LENGTH_BYTES)
        r = ha_error_set(err, EINVAL, "%s: not a safetensors file: only %lld bytes", file->path,
                         (long long)st.st_size);
    if (r == 0) {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            r = ha_error_set(err, errno, "cannot map %s: %s", file->path, strerror(errno));
    }
    close(fd);
    if (r < 0)
        return r;
    file->map = map;
    file->map_bytes = (size_t)st.st_size;
    return 0;
}

static int parse_header(struct ha_safetensors *file, size_t *ret_data_at, struct ha_error *err)
{
    uint64_t header_bytes;
    int r;

    memcpy(&header_bytes, file->map, sizeof(header_bytes));
    if (header_bytes > MAX_HEADER_BYTES)
        return ha_error_set(err, EINVAL,
                            "%s: not a safetensors file: its header would have %llu bytes, more "
                            "than the limit of %d",
                            file->path, (unsigned long long)header_bytes, MAX_HEADER_BYTES);
    if (header_bytes > file->map_bytes - LENGTH_BYTES)
        return ha_error_set(err, EINVAL,
                            "%s: the header of %llu bytes is longer than the file; it was cut",
                            file->path, (unsigned long long)header_bytes);
    r = ha_json_parse((const char *)file->map + LENGTH_BYTES, (size_t)header_bytes, file->path,
                      &file->header, err);
    if (r < 0)
        return r;
    if (!ha_json_is(file->header, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: the header is not a JSON object", file->path);
    *ret_data_at = LENGTH_BYTES + (size_t)header_bytes;
    return 0;
}

static int check_metadata(const struct ha_safetensors *file, struct ha_error *err)
{
    const struct ha_json *metadata = ha_json_get(file->header, metadata_key);
    void *iterator = NULL;
    const char *key;
    struct ha_json *value;

    if (metadata && !ha_json_is(metadata, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: __metadata__ is not an object", file->path);
    while (ha_json_next(metadata, &iterator, &key, &value)) {
        if (!ha_json_is(value, HA_JSON_STRING))
            return ha_error_set(err, EINVAL, "%s: __metadata__.%s is not a text", file->path, key);
    }
    return 0;
}

static int parse_shape(const struct ha_safetensors *file, const struct ha_json *shape,
                       struct ha_safetensors_tensor *tensor, struct ha_error *err)
{
    int64_t rank = ha_json_size(shape);
    uint64_t n = 1, bytes;

    if (!ha_json_is(shape, HA_JSON_ARRAY) || rank > HA_SAFETENSORS_MAX_RANK)
        return ha_error_set(err, EINVAL,
                            "%s: tensor %s: shape must be an array of at most %d numbers",
                            file->path, tensor->name, HA_SAFETENSORS_MAX_RANK);
    tensor->rank = (int)rank;
    for (int i = 0; i < tensor->rank; i++) {
        const struct ha_json *size = ha_json_at(shape, i);

        tensor->shape[i] = ha_json_int(size, -1);
        if (!ha_json_is(size, HA_JSON_INT) || tensor->shape[i] < 0)
            return ha_error_set(err, EINVAL, "%s: tensor %s: shape[%d] is not a size", file->path,
                                tensor->name, i);
        if (__builtin_mul_overflow(n, (uint64_t)tensor->shape[i], &n) || n > INT64_MAX)
            return ha_error_set(err, EINVAL, "%s: tensor %s: the product of its shape overflows",
                                file->path, tensor->name);
    }
    if (__builtin_mul_overflow(n, ha_safetensors_dtype_bytes(tensor->dtype), &bytes))
        return ha_error_set(err, EINVAL, "%s: tensor %s: its size in bytes overflows", file->path,
                            tensor->name);
    tensor->n_elements = (int64_t)n;
    tensor->bytes = (size_t)bytes;
    return 0;
}

/* Fill everything but the position's relation to the other tensors. */
static int parse_tensor(const struct ha_safetensors *file, size_t data_at,
                        const struct ha_json *info, struct ha_safetensors_tensor *tensor,
                        struct ha_error *err)
{
    const struct ha_json *offsets = ha_json_get(info, "data_offsets");
    const char *dtype = ha_json_string(ha_json_get(info, "dtype"), NULL);
    int64_t begin = ha_json_int(ha_json_at(offsets, 0), -1);
    int64_t end = ha_json_int(ha_json_at(offsets, 1), -1);
    size_t data_bytes = file->map_bytes - data_at;
    int r;

    if (!dtype || parse_dtype(dtype, &tensor->dtype) < 0)
        return ha_error_set(err, EINVAL, "%s: tensor %s: dtype %s is not supported", file->path,
                            tensor->name, dtype ? dtype : "(none)");
    r = parse_shape(file, ha_json_get(info, "shape"), tensor, err);
    if (r < 0)
        return r;
    if (ha_json_size(offsets) != 2 || begin < 0 || end < begin)
        return ha_error_set(err, EINVAL,
                            "%s: tensor %s: data_offsets must be [begin, end] with 0 <= begin <= "
                            "end",
                            file->path, tensor->name);
    if ((size_t)(end - begin) != tensor->bytes)
        return ha_error_set(err, EINVAL,
                            "%s: tensor %s: its shape and dtype make %zu bytes, its data_offsets "
                            "%lld",
                            file->path, tensor->name, tensor->bytes, (long long)(end - begin));
    if ((uint64_t)end > data_bytes)
        return ha_error_set(err, EINVAL,
                            "%s: tensor %s ends at byte %lld of the data, but the file holds only "
                            "%zu; it was cut",
                            file->path, tensor->name, (long long)end, data_bytes);
    tensor->data = file->map + data_at + begin;
    tensor->aligned = (uintptr_t)tensor->data % ha_safetensors_dtype_bytes(tensor->dtype) == 0;
    return 0;
}

static int compare_position(const void *left, const void *right)
{
    const struct ha_safetensors_tensor *a = left, *b = right;

    if (a->data != b->data)
        return (uintptr_t)a->data < (uintptr_t)b->data ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right)
{
    const struct ha_safetensors_tensor *const *a = left, *const *b = right;

    return strcmp((*a)->name, (*b)->name);
}

/* The tensors must tile the data: no gap, no overlap, nothing behind. */
static int check_tiling(const struct ha_safetensors *file, size_t data_at, struct ha_error *err)
{
    const uint8_t *at = file->map + data_at;
    size_t left;

    for (int64_t i = 0; i < file->n_tensors; i++) {
        const struct ha_safetensors_tensor *tensor = &file->tensors[i];

        if (tensor->data != at)
            return ha_error_set(err, EINVAL, "%s: tensor %s %s", file->path, tensor->name,
                                (const uint8_t *)tensor->data < at
                                    ? "overlaps the one before it"
                                    : "leaves a gap behind the one before it");
        at += tensor->bytes;
    }
    left = (size_t)(file->map + file->map_bytes - at);
    if (left > 0)
        return ha_error_set(err, EINVAL, "%s: %zu bytes behind the last tensor belong to none",
                            file->path, left);
    return 0;
}

static int parse_tensors(struct ha_safetensors *file, size_t data_at, struct ha_error *err)
{
    int64_t n = ha_json_size(file->header);
    void *iterator = NULL;
    const char *name;
    struct ha_json *info;
    int r;

    file->tensors = ha_calloc(n, sizeof(*file->tensors));
    file->by_name = ha_calloc(n, sizeof(*file->by_name));
    if (!file->tensors || !file->by_name)
        return ha_error_set(err, ENOMEM, "%s: out of memory", file->path);
    while (ha_json_next(file->header, &iterator, &name, &info)) {
        if (strcmp(name, metadata_key) == 0)
            continue;
        file->tensors[file->n_tensors].name = name;
        r = parse_tensor(file, data_at, info, &file->tensors[file->n_tensors], err);
        if (r < 0)
            return r;
        file->n_tensors++;
    }
    n = file->n_tensors;
    qsort(file->tensors, (size_t)n, sizeof(*file->tensors), compare_position);
    for (int64_t i = 0; i < n; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, (size_t)n, sizeof(*file->by_name), compare_names);
    return check_tiling(file, data_at, err);
}

int ha_safetensors_open(const char *path, struct ha_safetensors **ret_file, struct ha_error *err)
{
    struct ha_safetensors *file = ha_calloc(1, sizeof(*file));
    size_t data_at = 0;
    int r;

    if (file)
        file->path = ha_strdup(path);
    if (!file || !file->path) {
        free(file);
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    }
    r = map_file(file, err);
    if (r == 0)
        r = parse_header(file, &data_at, err);
    if (r == 0)
        r = check_metadata(file, err);
    if (r == 0)
        r = parse_tensors(file, data_at, err);
    if (r < 0) {
        ha_safetensors_close(file);
        return r;
    }
    *ret_file = file;
    return 0;
}

void ha_safetensors_close(struct ha_safetensors *file)
{
    if (!file)
        return;
    ha_json_destroy(file->header);
    if (file->map)
        munmap((void *)(uintptr_t)file->map, file->map_bytes);
    free(file->tensors);
    free(file->by_name);
    free(file->path);
    free(file);
}

int64_t ha_safetensors_count(const struct ha_safetensors *file)
{
    return file->n_tensors;
}

const struct ha_safetensors_tensor *ha_safetensors_at(const struct ha_safetensors *file,
                                                      int64_t index)
{
    return &file->tensors[index];
}

const struct ha_safetensors_tensor *ha_safetensors_find(const struct ha_safetensors *file,
                                                        const char *name)
{
    const struct ha_safetensors_tensor key = {.name = name}, *pointer = &key;
    const struct ha_safetensors_tensor *const *found = bsearch(
        &pointer, file->by_name, (size_t)file->n_tensors, sizeof(*file->by_name), compare_names);

    return found ? *found : NULL;
}

const char *ha_safetensors_metadata(const struct ha_safetensors *file, const char *key)
{
    return ha_json_string(ha_json_get(ha_json_get(file->header, metadata_key), key), NULL);
}
