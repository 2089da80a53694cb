/* disk.h - the artifacts folder
 *
 *   partial/HASH      bytes 0 .. have of an upload, in order
 *   ab/abcdef...      complete: the bytes were seen to have the hash that is the
 *                     name, and file and folders are synced
 *   snapshot/         copies of the database, until their backup ends
 *
 * Names are hashes, so nothing from the wire becomes a path.  An upload goes on
 * where its partial file ends, also after a restart.  One thread. */
#ifndef HA_COORDINATOR_SERVER_DISK_H
#define HA_COORDINATOR_SERVER_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_disk;
struct ha_error;

/* Makes the folders; forgets uploads that nobody went on with for a day, and all snapshots. */
int ha_disk_open(const char *dir, struct ha_disk **ret_disk, struct ha_error *err);
void ha_disk_close(struct ha_disk *disk);

/* How far an artifact of this hash and size is: *ret_have bytes, size when it is
 * complete. */
int ha_disk_state(struct ha_disk *disk, const char *sha256, int64_t size, int64_t *ret_have,
                  struct ha_error *err);

/* Add bytes at offset; those that do not begin where the upload stands are not
 * taken, which *ret_have tells.  When the last byte is there the hash is
 * checked and the file gets its name: -EBADMSG (another hash: the upload begins
 * anew), -ENOSPC, -EIO (a sync failed: ha_disk_fatal). */
int ha_disk_write(struct ha_disk *disk, const char *sha256, int64_t size, int64_t offset,
                  const void *data, size_t bytes, int64_t *ret_have, struct ha_error *err);

/* Up to bytes of a complete artifact from offset: the number read.  -ENOENT. */
int64_t ha_disk_read(struct ha_disk *disk, const char *sha256, int64_t offset, void *data,
                     size_t bytes, int64_t *ret_size, struct ha_error *err);

void ha_disk_remove(struct ha_disk *disk, const char *sha256);

/* Sync and hash a file of the folder snapshot/ and give it the name of its hash there;
 * ha_disk_read finds it as it finds artifacts. */
int ha_disk_adopt(struct ha_disk *disk, const char *path, char ret_sha256[65], int64_t *ret_size,
                  struct ha_error *err);
void ha_disk_remove_snapshot(struct ha_disk *disk, const char *sha256);

/* A sync failed: what was written may be gone, and the process has to end. */
bool ha_disk_fatal(const struct ha_disk *disk);

#endif
