/* digest.h - content digests of model folders
 *
 * A digest is the SHA-256 of lines "NAME SHA256\n" in the order of the names,
 * one per file that is there.  The model's covers config.json,
 * generation_config.json, the weights (*.safetensors) and their index; the
 * tokenizer's covers tokenizer.json, tokenizer_config.json and
 * chat_template.jinja.  So 16 GB of weights are read once: each file's SHA-256
 * is kept in a cache file under (path, size, mtime, inode). */
#ifndef HA_COMMON_IO_DIGEST_H
#define HA_COMMON_IO_DIGEST_H

#include "common/base/hash.h"

struct ha_error;

/* cache: a file that is read and added to, or NULL.  A cache that cannot be read
 * or written is ignored.  -ENOENT when the folder has no config.json or no
 * weights. */
int ha_digest_model(const char *dir, const char *cache, char ret_model[HA_SHA256_HEX_BYTES],
                    char ret_tokenizer[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* The SHA-256 of one file, through the same cache. */
int ha_digest_file(const char *path, const char *cache, char ret_hex[HA_SHA256_HEX_BYTES],
                   struct ha_error *err);

#endif
