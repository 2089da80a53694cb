/* file.h - whole files: written atomically, read with a limit, hashed
 *
 * A file that is written here appears under its name complete and on disk, or
 * not at all: the bytes go to a temporary file in the same folder, which is
 * synced, renamed, and its folder synced.  After a crash a temporary file
 * (".NAME.XXXXXX.tmp") may be left and can be removed. */
#ifndef HA_COMMON_IO_FILE_H
#define HA_COMMON_IO_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"

struct ha_error;
struct ha_file_writer;

/* All bytes to an open descriptor, however many calls it takes.  Returns 0 or the
 * negative errno of write. */
int ha_file_write_all(int fd, const void *bytes, size_t size);

/* Begin a file that replaces path on commit; mode as for open (0644, 0600),
 * not changed by the umask. */
int ha_file_writer_open(const char *path, unsigned mode, struct ha_file_writer **ret_writer,
                        struct ha_error *err);

/* Returns 0, -ENOSPC or -EDQUOT (the text says that the disk is full) or
 * another error of write.  After an error only destroy is of use. */
int ha_file_writer_write(struct ha_file_writer *writer, const void *bytes, size_t size,
                         struct ha_error *err);

/* Sync, rename, sync the folder.  When it fails the old file is still there. */
int ha_file_writer_commit(struct ha_file_writer *writer, struct ha_error *err);

/* Removes the temporary file of a writer that was not committed. */
void ha_file_writer_destroy(struct ha_file_writer *writer);

/* All of the above for bytes in memory. */
int ha_file_write(const char *path, const void *bytes, size_t size, unsigned mode,
                  struct ha_error *err);

/* The whole file, zero-terminated (the zero is not counted).  The caller frees.
 * Returns -EFBIG for more than limit bytes, -EISDIR for a folder. */
int ha_file_read(const char *path, size_t limit, char **ret_bytes, size_t *ret_size,
                 struct ha_error *err);

/* Atomic copy; mode as in writer_open. */
int ha_file_copy(const char *from, const char *to, unsigned mode, struct ha_error *err);

/* SHA-256 as hexadecimal text, reading in pieces.  ret_bytes may be NULL. */
int ha_file_sha256(const char *path, char ret_hex[HA_SHA256_HEX_BYTES], int64_t *ret_bytes,
                   struct ha_error *err);

/* Sync a folder, so that names made in it survive a power loss. */
int ha_file_sync_dir(const char *path, struct ha_error *err);

#endif
