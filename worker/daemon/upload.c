#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/file.h"
#include "worker/daemon/mover.h"

enum {
    WINDOW = 4,
    POLL_MS = 200, /* how often to ask whether it is complete */
    FULL_MS = 50,  /* until the next try when nothing can be sent */
    STORE_ERROR_MS = 5000
};

struct upload {
    struct mover_link link;
    char *path;
    int fd;
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
    int64_t next;              /* offset of the next chunk */
    uint64_t open_request;     /* 0: none is unanswered */
    uint64_t requests[WINDOW]; /* of unacknowledged chunks, oldest first */
    int64_t ends[WINDOW];      /* their end offsets */
    int n_window;
    bool opened;     /* how far the store is, is known */
    bool sent_empty; /* the one chunk of an empty file */
    int64_t next_ms;
    int state;
    struct ha_error err;
    uint8_t *chunk;
};

static void send_open(struct upload *upload, int64_t now_ms)
{
    struct ha_wire_message message = {
        .kind = HA_WIRE_ARTIFACT_OPEN,
        .body.artifact_open = {.sha256 = upload->sha256, .size = upload->size}};

    upload->n_window = 0;
    upload->opened = false;
    upload->open_request = upload->link.send(upload->link.context, &message);
    upload->next_ms = now_ms + (upload->open_request ? upload->link.silence_ms : FULL_MS);
}

int upload_create(const struct mover_link *link, const char *path, int64_t now_ms,
                  struct upload **ret_upload, struct ha_error *err)
{
    struct upload *upload = ha_calloc(1, sizeof(*upload));
    int r;

    if (!upload)
        return ha_error_set(err, ENOMEM, "out of memory");
    upload->link = *link;
    upload->fd = -1;
    upload->path = ha_strdup(path);
    upload->chunk = malloc(HA_WIRE_CHUNK_BYTES);
    if (!upload->path || !upload->chunk) {
        r = ha_error_set(err, ENOMEM, "out of memory");
        goto fail;
    }
    r = ha_file_sha256(path, upload->sha256, &upload->size, err);
    if (r < 0)
        goto fail;
    upload->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (upload->fd < 0) {
        r = ha_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
        goto fail;
    }
    send_open(upload, now_ms);
    *ret_upload = upload;
    return 0;
fail:
    upload_destroy(upload);
    return r;
}

void upload_destroy(struct upload *upload)
{
    if (!upload)
        return;
    if (upload->fd >= 0)
        close(upload->fd);
    free(upload->path);
    free(upload->chunk);
    free(upload);
}

/* Read the chunk at next.  Negative when the file does not give it any more. */
static int read_chunk(struct upload *upload, size_t *ret_size)
{
    int64_t left = upload->size - upload->next;
    size_t want = left < HA_WIRE_CHUNK_BYTES ? (size_t)left : HA_WIRE_CHUNK_BYTES, have = 0;

    while (have < want) {
        ssize_t n =
            pread(upload->fd, upload->chunk + have, want - have, upload->next + (int64_t)have);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ha_error_set(&upload->err, errno, "cannot read %s: %s", upload->path,
                                strerror(errno));
        if (n == 0)
            return ha_error_set(&upload->err, EIO, "%s was cut while it was uploaded",
                                upload->path);
        have += (size_t)n;
    }
    *ret_size = have;
    return 0;
}

/* Send chunks while the window has room. */
static void pump(struct upload *upload, int64_t now_ms)
{
    upload->next_ms = now_ms + upload->link.silence_ms;
    while (upload->n_window < WINDOW &&
           (upload->next < upload->size || (upload->size == 0 && !upload->sent_empty))) {
        struct ha_wire_message message = {.kind = HA_WIRE_ARTIFACT_CHUNK};
        struct ha_wire_artifact_chunk *chunk = &message.body.artifact_chunk;
        size_t size = 0;
        uint64_t request;

        upload->state = read_chunk(upload, &size);
        if (upload->state < 0)
            return;
        *chunk = (struct ha_wire_artifact_chunk){.sha256 = upload->sha256,
                                                 .size = upload->size,
                                                 .offset = upload->next,
                                                 .data = {.data = upload->chunk, .size = size}};
        request = upload->link.send(upload->link.context, &message);
        if (request == 0) {
            upload->next_ms = now_ms + FULL_MS;
            return;
        }
        upload->sent_empty = true;
        upload->next += (int64_t)size;
        upload->requests[upload->n_window] = request;
        upload->ends[upload->n_window++] = upload->next;
    }
    if (upload->n_window == 0)
        upload->next_ms = now_ms + POLL_MS; /* all is there: ask whether it is complete */
}

/* The end that the answered chunk was to reach, or -1 for an answer to nothing.
 * Older chunks are off the window with it: their answers are lost. */
static int64_t take_from_window(struct upload *upload, uint64_t request)
{
    for (int i = 0; i < upload->n_window; i++) {
        if (upload->requests[i] == request) {
            int64_t end = upload->ends[i];
            size_t left = (size_t)(upload->n_window - i - 1);

            memmove(upload->requests, upload->requests + i + 1, left * sizeof(uint64_t));
            memmove(upload->ends, upload->ends + i + 1, left * sizeof(int64_t));
            upload->n_window = (int)left;
            return end;
        }
    }
    return -1;
}

/* What will never be stored: a file that is too large, a key that may not write. */
static void take_error(struct upload *upload, const struct ha_wire_message *message)
{
    const struct ha_wire_error *error = &message->body.error;
    bool ours = upload->open_request != 0 && message->request_id == upload->open_request;

    if ((ours || take_from_window(upload, message->request_id) >= 0) &&
        (error->code == EFBIG || error->code == EACCES))
        upload->state =
            ha_error_set(&upload->err, (int)error->code, "%s: %s", upload->path, error->text);
}

void upload_receive(struct upload *upload, const struct ha_wire_message *message, int64_t now_ms)
{
    const struct ha_wire_artifact_state *state = &message->body.artifact_state;
    bool of_open = upload->open_request != 0 && message->request_id == upload->open_request;
    int64_t end;

    if (upload->state == 0 && message->kind == HA_WIRE_ERROR)
        take_error(upload, message);
    if (upload->state != 0 || message->kind != HA_WIRE_ARTIFACT_STATE ||
        strcmp(state->sha256, upload->sha256) != 0)
        return;
    if (state->complete) {
        upload->state = 1;
        return;
    }
    end = of_open ? 0 : take_from_window(upload, message->request_id);
    if (end < 0)
        return;
    if (of_open)
        upload->open_request = 0;
    if (state->error[0]) { /* it may heal: ask again later */
        upload->n_window = 0;
        upload->opened = false;
        upload->next_ms = now_ms + STORE_ERROR_MS;
        return;
    }
    if (of_open || state->have < end) {
        upload->next = state->have < upload->size ? state->have : upload->size;
        upload->n_window = 0;
        upload->sent_empty = false;
    }
    upload->opened = true;
    pump(upload, now_ms);
}

void upload_tick(struct upload *upload, int64_t now_ms)
{
    bool all_sent = upload->next >= upload->size && (upload->size > 0 || upload->sent_empty);

    if (upload->state != 0 || now_ms < upload->next_ms)
        return;
    if (upload->opened && upload->n_window == 0 && !all_sent)
        pump(upload, now_ms);
    else
        send_open(upload, now_ms);
}

int64_t upload_next_ms(const struct upload *upload)
{
    return upload->next_ms;
}

int upload_state(const struct upload *upload, const char **ret_text)
{
    *ret_text = upload->state < 0 ? ha_error_text(&upload->err) : "";
    return upload->state;
}

const char *upload_sha256(const struct upload *upload)
{
    return upload->sha256;
}

int64_t upload_size(const struct upload *upload)
{
    return upload->size;
}
