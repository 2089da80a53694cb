#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/file.h"
#include "worker/daemon/mover.h"

enum { WINDOW = 4, FULL_MS = 50, MAX_TRIES = 3 };

struct download {
    struct mover_link link;
    char sha256[HA_SHA256_HEX_BYTES];
    char *path;
    struct ha_file_writer *writer;
    struct ha_sha256 hash;
    int64_t size, have; /* have: written and hashed */
    int64_t asked;      /* offset up to which requests are on their way */
    int64_t next_ms;
    int tries; /* downloads that ended with another digest */
    int state;
    struct ha_error err;
};

static int begin(struct download *download, struct ha_error *err)
{
    ha_file_writer_destroy(download->writer);
    download->writer = NULL;
    download->have = download->asked = 0;
    ha_sha256_init(&download->hash);
    return ha_file_writer_open(download->path, 0444, &download->writer, err);
}

/* Everything is there: is it what was asked for? */
static int complete(struct download *download)
{
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];
    int r;

    ha_sha256_final(&download->hash, digest);
    if (strcmp(ha_sha256_hex(digest, hex), download->sha256) != 0) {
        if (++download->tries < MAX_TRIES)
            return begin(download, &download->err);
        return ha_error_set(&download->err, EBADMSG,
                            "artifact %.12s came with another content %d times", download->sha256,
                            MAX_TRIES);
    }
    r = ha_file_writer_commit(download->writer, &download->err);
    return r < 0 ? r : 1;
}

/* Ask for what is not on its way. */
static void pump(struct download *download, int64_t now_ms)
{
    if (download->have == download->size)
        download->state = complete(download);
    download->next_ms = now_ms + download->link.silence_ms;
    while (download->state == 0 && download->asked < download->size &&
           download->asked - download->have < (int64_t)WINDOW * HA_WIRE_CHUNK_BYTES) {
        int64_t left = download->size - download->asked;
        struct ha_wire_message message = {
            .kind = HA_WIRE_ARTIFACT_READ,
            .body.artifact_read = {.sha256 = download->sha256,
                                   .offset = download->asked,
                                   .length =
                                       left < HA_WIRE_CHUNK_BYTES ? left : HA_WIRE_CHUNK_BYTES}};

        if (download->link.send(download->link.context, &message) == 0) {
            download->next_ms = now_ms + FULL_MS;
            return;
        }
        download->asked += message.body.artifact_read.length;
    }
}

/* Is the file there already, byte by byte?  A cache may be damaged too. */
static bool is_there(const struct download *download)
{
    char hex[HA_SHA256_HEX_BYTES];
    struct stat st;
    int64_t size;

    return stat(download->path, &st) == 0 && st.st_size == download->size &&
           ha_file_sha256(download->path, hex, &size, NULL) == 0 &&
           strcmp(hex, download->sha256) == 0;
}

int download_create(const struct mover_link *link, const char *sha256, int64_t size,
                    const char *path, int64_t now_ms, struct download **ret_download,
                    struct ha_error *err)
{
    struct download *download;
    int r;

    if (!ha_sha256_hex_valid(sha256) || size < 0)
        return ha_error_set(err, EINVAL, "an input without a digest");
    download = ha_calloc(1, sizeof(*download));
    if (!download)
        return ha_error_set(err, ENOMEM, "out of memory");
    download->link = *link;
    download->size = size;
    memcpy(download->sha256, sha256, HA_SHA256_HEX_BYTES);
    download->path = ha_strdup(path);
    r = download->path ? 0 : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0 && is_there(download))
        download->state = 1;
    else if (r == 0)
        r = begin(download, err);
    if (r < 0) {
        download_destroy(download);
        return r;
    }
    if (download->state == 0)
        pump(download, now_ms);
    *ret_download = download;
    return 0;
}

void download_destroy(struct download *download)
{
    if (!download)
        return;
    ha_file_writer_destroy(download->writer);
    free(download->path);
    free(download);
}

void download_receive(struct download *download, const struct ha_wire_message *message,
                      int64_t now_ms)
{
    const struct ha_wire_artifact_data *data = &message->body.artifact_data;

    if (download->state != 0 || message->kind != HA_WIRE_ARTIFACT_DATA ||
        strcmp(data->sha256, download->sha256) != 0)
        return;
    if (data->error[0]) {
        download->state = ha_error_set(&download->err, ENOENT, "artifact %.12s: %s",
                                       download->sha256, data->error);
        return;
    }
    if (data->size != download->size) {
        download->state =
            ha_error_set(&download->err, EBADMSG, "artifact %.12s has %lld bytes, not %lld",
                         download->sha256, (long long)data->size, (long long)download->size);
        return;
    }
    /* Only what comes next; pieces behind a lost one are asked for again. */
    if (data->offset != download->have || data->data.size == 0 ||
        (int64_t)data->data.size > download->size - download->have)
        return;
    ha_sha256_update(&download->hash, data->data.data, data->data.size);
    download->state =
        ha_file_writer_write(download->writer, data->data.data, data->data.size, &download->err);
    if (download->state < 0)
        return;
    download->have += (int64_t)data->data.size;
    if (download->asked < download->have)
        download->asked = download->have;
    pump(download, now_ms);
}

void download_tick(struct download *download, int64_t now_ms)
{
    if (download->state != 0 || now_ms < download->next_ms)
        return;
    download->asked = download->have;
    pump(download, now_ms);
}

int64_t download_next_ms(const struct download *download)
{
    return download->next_ms;
}

int download_state(const struct download *download, const char **ret_text)
{
    *ret_text = download->state < 0 ? ha_error_text(&download->err) : "";
    return download->state;
}
