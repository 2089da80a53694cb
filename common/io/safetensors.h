/* safetensors.h - the file format of model weights and adapters
 *
 *   8 bytes      N, little-endian, at most 100,000,000 and within the file
 *   N bytes      UTF-8 JSON object: tensor name -> {"dtype", "shape",
 *                "data_offsets": [begin, end)}, "__metadata__" -> {text: text};
 *                may be padded with white space
 *   the rest     tensor data, little-endian, row-major, last dimension
 *                contiguous; the offsets count from here
 *
 * The reader maps the file and refuses everything the reference implementation
 * (huggingface/safetensors, tensor.rs) refuses: overlaps, gaps, bytes behind
 * the last tensor, sizes that are not shape x dtype, overflow.  Offsets need
 * not be multiples of the element size, so data may be unaligned. */
#ifndef HA_COMMON_IO_SAFETENSORS_H
#define HA_COMMON_IO_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct ha_safetensors;

/* In the order in which the reference writer compares types. */
enum ha_safetensors_dtype {
    HA_SAFETENSORS_BOOL,
    HA_SAFETENSORS_U8,
    HA_SAFETENSORS_I8,
    HA_SAFETENSORS_F8_E5M2,
    HA_SAFETENSORS_F8_E4M3,
    HA_SAFETENSORS_F8_E8M0,
    HA_SAFETENSORS_I16,
    HA_SAFETENSORS_U16,
    HA_SAFETENSORS_F16,
    HA_SAFETENSORS_BF16,
    HA_SAFETENSORS_I32,
    HA_SAFETENSORS_U32,
    HA_SAFETENSORS_F32,
    HA_SAFETENSORS_C64,
    HA_SAFETENSORS_F64,
    HA_SAFETENSORS_I64,
    HA_SAFETENSORS_U64
};

enum { HA_SAFETENSORS_MAX_RANK = 8 };

/* "F32", "BF16", ... as in the file. */
const char *ha_safetensors_dtype_name(enum ha_safetensors_dtype dtype);
size_t ha_safetensors_dtype_bytes(enum ha_safetensors_dtype dtype);

struct ha_safetensors_tensor {
    const char *name;
    enum ha_safetensors_dtype dtype;
    int rank; /* 0: a scalar */
    int64_t shape[HA_SAFETENSORS_MAX_RANK];
    int64_t n_elements; /* product of shape; 0 is legal */
    const void *data;   /* inside the mapping; never NULL */
    size_t bytes;       /* n_elements x element size */
    bool aligned;       /* data may be read through a pointer to its element type */
};

/* Map a file.  The file must not be changed or cut while it is open: a page
 * that is gone ends the process with SIGBUS.
 * Returns 0, -ENOENT and other errors of open, -EINVAL (the text names the
 * tensor and what is wrong with it) or -ENOMEM. */
int ha_safetensors_open(const char *path, struct ha_safetensors **ret_file, struct ha_error *err);

/* Unmaps: every tensor of the file is gone. */
void ha_safetensors_close(struct ha_safetensors *file);

int64_t ha_safetensors_count(const struct ha_safetensors *file);

/* Tensors in the order of their data; 0 <= index < count.  Owned by file. */
const struct ha_safetensors_tensor *ha_safetensors_at(const struct ha_safetensors *file,
                                                      int64_t index);

/* NULL when there is no such tensor. */
const struct ha_safetensors_tensor *ha_safetensors_find(const struct ha_safetensors *file,
                                                        const char *name);

/* A value of __metadata__, or NULL.  Owned by file. */
const char *ha_safetensors_metadata(const struct ha_safetensors *file, const char *key);

/* What the writer is given; data holds n_elements x element size bytes and may
 * be NULL when that is 0. */
struct ha_safetensors_item {
    const char *name;
    enum ha_safetensors_dtype dtype;
    int rank;
    int64_t shape[HA_SAFETENSORS_MAX_RANK];
    const void *data;
};

struct ha_safetensors_pair {
    const char *key, *value;
};

/* Write a file that appears whole or not at all (see file.h).  Tensors are laid
 * out as the reference writer does: wide types first, then by name, the header
 * padded to 8 bytes, so that data is aligned and equal content gives equal
 * bytes.  Returns 0, -EINVAL (two tensors of one name, bad shape), -ENOSPC and
 * other errors of writing, or -ENOMEM. */
int ha_safetensors_write(const char *path, const struct ha_safetensors_item *items, int64_t n_items,
                         const struct ha_safetensors_pair *metadata, int64_t n_metadata,
                         struct ha_error *err);

/* Gives the bytes of an item when their turn comes; they stay valid until the next call. */
typedef int (*ha_safetensors_source)(void *user, const struct ha_safetensors_item *item,
                                     const void **ret_data, struct ha_error *err);

/* As ha_safetensors_write, for tensors that are made one after the other: data
 * of the items is not read, source is called once for each, in the order of the
 * file. */
int ha_safetensors_write_from(const char *path, const struct ha_safetensors_item *items,
                              int64_t n_items, const struct ha_safetensors_pair *metadata,
                              int64_t n_metadata, ha_safetensors_source source, void *user,
                              struct ha_error *err);

#endif
