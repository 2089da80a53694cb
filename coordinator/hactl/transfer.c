#include "coordinator/hactl/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/io/file.h"
#include "coordinator/hactl/link.h"

/* Reads exactly size bytes at offset. */
static int read_at(int fd, const char *path, uint8_t *bytes, int64_t size, int64_t offset,
                   struct ha_error *err)
{
    while (size > 0) {
        ssize_t n = pread(fd, bytes, (size_t)size, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
        if (n == 0)
            return ha_error_set(err, EIO, "%s became shorter while it was uploaded", path);
        bytes += n;
        size -= n;
        offset += n;
    }
    return 0;
}

/* One request about an artifact; its state comes back. */
static int ask_state(struct ha_link *link, struct ha_wire_message *request, const char *path,
                     int64_t *ret_have, bool *ret_complete, struct ha_error *err)
{
    struct ha_wire_message *reply;
    int r = ha_link_files_call(link, request, HA_WIRE_ARTIFACT_STATE, &reply, err);

    if (r < 0)
        return r;
    if (reply->body.artifact_state.error[0])
        r = ha_error_set(err, EIO, "%s: the coordinator cannot store it: %s", path,
                         reply->body.artifact_state.error);
    *ret_have = reply->body.artifact_state.have;
    *ret_complete = reply->body.artifact_state.complete;
    ha_wire_message_destroy(reply);
    return r;
}

static int send_chunks(struct ha_link *link, int fd, const char *path, const char *sha256,
                       int64_t size, int64_t have, struct ha_error *err)
{
    uint8_t *bytes = ha_calloc(HA_WIRE_CHUNK_BYTES, 1);
    bool complete = false;
    int r = bytes ? 0 : ha_error_set(err, ENOMEM, "hactl: out of memory");

    while (r == 0 && !complete) {
        struct ha_wire_message request = {.kind = HA_WIRE_ARTIFACT_CHUNK};
        int64_t length = size - have < HA_WIRE_CHUNK_BYTES ? size - have : HA_WIRE_CHUNK_BYTES;

        if (have < 0 || have > size || (length == 0 && size > 0)) {
            r = ha_error_set(err, EIO, "%s: the bytes do not have the digest %s (did it change?)",
                             path, sha256);
            break;
        }
        r = read_at(fd, path, bytes, length, have, err);
        request.body.artifact_chunk = (struct ha_wire_artifact_chunk){
            .sha256 = sha256, .size = size, .offset = have, .data = {bytes, (size_t)length}};
        if (r == 0)
            r = ask_state(link, &request, path, &have, &complete, err);
    }
    free(bytes);
    return r;
}

int ha_transfer_put(struct ha_link *link, const char *path, const char *sha256, int64_t size,
                    struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_ARTIFACT_OPEN};
    bool complete;
    int64_t have;
    int fd, r;

    request.body.artifact_open = (struct ha_wire_artifact_open){.sha256 = sha256, .size = size};
    r = ask_state(link, &request, path, &have, &complete, err);
    if (r < 0 || complete)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    r = send_chunks(link, fd, path, sha256, size, have, err);
    (void)close(fd);
    return r;
}

/* Writes one piece; *size is the artifact's. */
static int get_piece(struct ha_link *link, const char *sha256, int64_t offset,
                     struct ha_file_writer *writer, struct ha_sha256 *hash, int64_t *ret_got,
                     int64_t *ret_size, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_ARTIFACT_READ}, *reply;
    const struct ha_wire_artifact_data *data;
    int r;

    request.body.artifact_read = (struct ha_wire_artifact_read){
        .sha256 = sha256, .offset = offset, .length = HA_WIRE_CHUNK_BYTES};
    r = ha_link_files_call(link, &request, HA_WIRE_ARTIFACT_DATA, &reply, err);
    if (r < 0)
        return r;
    data = &reply->body.artifact_data;
    if (data->error[0])
        r = ha_error_set(err, ENOENT, "artifact %s: %s", sha256, data->error);
    else
        r = ha_file_writer_write(writer, data->data.data, data->data.size, err);
    if (r == 0)
        ha_sha256_update(hash, data->data.data, data->data.size);
    *ret_got = (int64_t)data->data.size;
    *ret_size = data->size;
    ha_wire_message_destroy(reply);
    return r;
}

int ha_transfer_get(struct ha_link *link, const char *sha256, const char *path,
                    struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_file_writer *writer;
    struct ha_sha256 hash;
    int64_t offset = 0, got = 1, size = 1;
    int r;

    if (!ha_sha256_hex_valid(sha256))
        return ha_error_set(err, EINVAL, "'%s' is no SHA-256: 64 lower-case hexadecimal digits",
                            sha256);
    r = ha_file_writer_open(path, 0644, &writer, err);
    if (r < 0)
        return r;
    ha_sha256_init(&hash);
    while (r == 0 && got > 0 && offset < size) {
        r = get_piece(link, sha256, offset, writer, &hash, &got, &size, err);
        offset += got;
    }
    ha_sha256_final(&hash, digest);
    if (r == 0 && strcmp(ha_sha256_hex(digest, hex), sha256) != 0)
        r = ha_error_set(err, EIO, "artifact %s came with other bytes (%s); nothing was written",
                         sha256, hex);
    if (r == 0)
        r = ha_file_writer_commit(writer, err);
    ha_file_writer_destroy(writer);
    return r;
}
