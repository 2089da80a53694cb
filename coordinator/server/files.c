#include "coordinator/server/files.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "coordinator/server/disk.h"
#include "proto/wire.h"

enum { FRAME_BYTES = 4 << 20, WAITING_LIMIT = 1024 };

/* Somebody whose last byte is there and who waits for "complete". */
struct waiting {
    ha_peer peer;
    uint64_t request_id;
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
};

struct ha_files {
    struct ha_files_options options;
    pthread_t thread;
    /* all below belongs to the thread, once it runs */
    struct ha_loop *loop;
    struct ha_server *server;
    struct ha_disk *disk;
    struct waiting *waiting;
    int64_t waiting_count, waiting_capacity;
    uint8_t *piece;
};

/* A message between the threads. */
struct note {
    struct ha_files *files;
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
    struct ha_error why;
    int64_t number; /* of a snapshot */
    char path[];
};

static void post(struct ha_files *files, struct ha_loop *loop, ha_loop_fn fn, const char *sha256,
                 int64_t size, const struct ha_error *why)
{
    struct note *note = ha_calloc(1, sizeof *note);

    if (!note)
        return; /* whoever waits asks again */
    note->files = files;
    note->size = size;
    if (sha256)
        memcpy(note->sha256, sha256, HA_SHA256_HEX_BYTES);
    if (why)
        note->why = *why;
    if (ha_loop_post(loop, fn, note) < 0)
        free(note);
}

/* ---- in the main loop's thread ----------------------------------------------------------- */

static void tell_stored(void *context)
{
    struct note *note = context;

    note->files->options.stored(note->files->options.context, note->sha256, note->size);
    free(note);
}

static void tell_fatal(void *context)
{
    struct note *note = context;

    note->files->options.fatal(note->files->options.context, ha_error_text(&note->why));
    free(note);
}

/* ---- replies --------------------------------------------------------------------------------- */

static void send_message(struct ha_files *files, ha_peer peer, uint64_t request_id,
                         struct ha_wire_message *message)
{
    struct ha_buffer frame;
    struct ha_error err = {0};
    int r;

    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = request_id;
    ha_buffer_init(&frame, FRAME_BYTES);
    r = ha_wire_encode(message, &frame, &err);
    if (r == 0)
        r = ha_server_send(files->server, peer, frame.data, frame.size);
    else
        ha_log_debug("files: %s", ha_error_text(&err));
    if (r < 0)
        ha_log_debug("files: a reply was not sent: %s", strerror(-r));
    ha_buffer_clear(&frame);
}

static void send_state(struct ha_files *files, ha_peer peer, uint64_t request_id,
                       const char *sha256, int64_t have, bool complete, const char *error)
{
    struct ha_wire_message message = {
        .kind = HA_WIRE_ARTIFACT_STATE,
        .body.artifact_state = {
            .sha256 = sha256, .have = have, .complete = complete, .error = error}};

    send_message(files, peer, request_id, &message);
}

static void send_error(struct ha_files *files, ha_peer peer, uint64_t request_id, int code,
                       const char *text)
{
    struct ha_wire_message message = {.kind = HA_WIRE_ERROR,
                                      .body.error = {.code = (uint32_t)code, .text = text}};

    send_message(files, peer, request_id, &message);
}

/* ---- uploads --------------------------------------------------------------------------------- */

/* The file is complete: answered when its row is durable. */
static void wait_for_row(struct ha_files *files, ha_peer peer, uint64_t request_id,
                         const char *sha256, int64_t size)
{
    void *array = files->waiting;
    struct waiting *place;

    if (files->waiting_count >= WAITING_LIMIT ||
        ha_grow(&array, &files->waiting_capacity, files->waiting_count + 1, sizeof *place) < 0) {
        send_state(files, peer, request_id, sha256, size, false, "");
        return;
    }
    files->waiting = array;
    place = &files->waiting[files->waiting_count++];
    *place = (struct waiting){.peer = peer, .request_id = request_id, .size = size};
    memcpy(place->sha256, sha256, HA_SHA256_HEX_BYTES);
    post(files, files->options.main_loop, tell_stored, sha256, size, NULL);
}

/* Or it could not be stored: then the note says why. */
static void row_is_durable(void *context)
{
    struct note *note = context;
    struct ha_files *files = note->files;
    int64_t kept = 0;

    for (int64_t i = 0; i < files->waiting_count; i++) {
        struct waiting *w = &files->waiting[i];

        if (strcmp(w->sha256, note->sha256) == 0)
            send_state(files, w->peer, w->request_id, w->sha256, w->size, note->why.code == 0,
                       note->why.code ? ha_error_text(&note->why) : "");
        else
            files->waiting[kept++] = *w;
    }
    files->waiting_count = kept;
    free(note);
}

static void answer_upload(struct ha_files *files, ha_peer peer, uint64_t request_id,
                          const char *sha256, int64_t size, int64_t have, int code,
                          const struct ha_error *err)
{
    if (ha_disk_fatal(files->disk))
        post(files, files->options.main_loop, tell_fatal, NULL, 0, err);
    if (code < 0)
        send_state(files, peer, request_id, sha256, have, false, ha_error_text(err));
    else if (have == size && size > 0)
        wait_for_row(files, peer, request_id, sha256, size);
    else
        send_state(files, peer, request_id, sha256, have, false, "");
}

static void handle_open(struct ha_files *files, ha_peer peer, const struct ha_wire_message *message)
{
    const struct ha_wire_artifact_open *open = &message->body.artifact_open;
    struct ha_error err = {0};
    int64_t have = 0;
    int r = ha_disk_state(files->disk, open->sha256, open->size, &have, &err);

    answer_upload(files, peer, message->request_id, open->sha256, open->size, have, r, &err);
}

static void handle_chunk(struct ha_files *files, ha_peer peer,
                         const struct ha_wire_message *message)
{
    const struct ha_wire_artifact_chunk *chunk = &message->body.artifact_chunk;
    struct ha_error err = {0};
    int64_t have = 0;
    int r = ha_disk_write(files->disk, chunk->sha256, chunk->size, chunk->offset, chunk->data.data,
                          chunk->data.size, &have, &err);

    /* An empty artifact is complete with its first and only chunk. */
    if (r == 0 && chunk->size == 0)
        wait_for_row(files, peer, message->request_id, chunk->sha256, 0);
    else
        answer_upload(files, peer, message->request_id, chunk->sha256, chunk->size, have, r, &err);
}

/* ---- downloads
 * ------------------------------------------------------------------------------------ */

static void handle_read(struct ha_files *files, ha_peer peer, const struct ha_wire_message *message)
{
    const struct ha_wire_artifact_read *read = &message->body.artifact_read;
    int64_t length = read->length < HA_WIRE_CHUNK_BYTES ? read->length : HA_WIRE_CHUNK_BYTES;
    struct ha_wire_message reply = {.kind = HA_WIRE_ARTIFACT_DATA};
    struct ha_wire_artifact_data *data = &reply.body.artifact_data;
    struct ha_error err = {0};
    int64_t n = ha_disk_read(files->disk, read->sha256, read->offset, files->piece, (size_t)length,
                             &data->size, &err);

    data->sha256 = read->sha256;
    data->offset = read->offset;
    data->data = (struct ha_wire_bytes){files->piece, n > 0 ? (size_t)n : 0};
    data->error = n < 0 ? ha_error_text(&err) : "";
    send_message(files, peer, message->request_id, &reply);
}

/* ---- messages
 * ---------------------------------------------------------------------------------------- */

static const char *artifact_of(const struct ha_wire_message *message, bool *ret_writes)
{
    *ret_writes = message->kind != HA_WIRE_ARTIFACT_READ;
    switch (message->kind) {
    case HA_WIRE_ARTIFACT_OPEN:
        return message->body.artifact_open.sha256;
    case HA_WIRE_ARTIFACT_CHUNK:
        return message->body.artifact_chunk.sha256;
    case HA_WIRE_ARTIFACT_READ:
        return message->body.artifact_read.sha256;
    default:
        return NULL;
    }
}

/* That a file has which somebody uploads. */
static int64_t size_of(const struct ha_wire_message *message)
{
    return message->kind == HA_WIRE_ARTIFACT_OPEN ? message->body.artifact_open.size
                                                  : message->body.artifact_chunk.size;
}

static void refuse_size(struct ha_files *files, ha_peer peer, const struct ha_wire_message *message)
{
    struct ha_error err;

    ha_error_set(&err, EFBIG,
                 "a file of %lld bytes; the coordinator stores at most %lld (max_artifact_size in "
                 "coordinator.toml)",
                 (long long)size_of(message), (long long)files->options.max_artifact_bytes);
    send_error(files, peer, message->request_id, EFBIG, ha_error_text(&err));
}

bool ha_files_may(enum ha_net_role role, enum ha_wire_body kind)
{
    bool reads = kind == HA_WIRE_ARTIFACT_READ;
    bool writes = kind == HA_WIRE_ARTIFACT_OPEN || kind == HA_WIRE_ARTIFACT_CHUNK;

    if (role == HA_NET_ROLE_ADMIN || role == HA_NET_ROLE_WORKER || role == HA_NET_ROLE_SUBMIT)
        return reads || writes;
    return role == HA_NET_ROLE_READ && reads;
}

static void handle(struct ha_files *files, const struct ha_server_message *from,
                   const struct ha_wire_message *message)
{
    bool writes;
    const char *sha256 = artifact_of(message, &writes);

    if (!sha256) {
        send_error(files, from->peer, message->request_id, ENOSYS,
                   "this socket is for artifacts only");
        return;
    }
    if (!ha_files_may(from->role, message->kind)) {
        send_error(files, from->peer, message->request_id, EACCES,
                   "the role of this key may not do this");
        return;
    }
    if (!sha256[0]) {
        send_error(files, from->peer, message->request_id, EINVAL, "an artifact needs its hash");
        return;
    }
    if (writes && files->options.max_artifact_bytes > 0 &&
        size_of(message) > files->options.max_artifact_bytes) {
        refuse_size(files, from->peer, message);
        return;
    }
    if (message->kind == HA_WIRE_ARTIFACT_OPEN)
        handle_open(files, from->peer, message);
    else if (message->kind == HA_WIRE_ARTIFACT_CHUNK)
        handle_chunk(files, from->peer, message);
    else
        handle_read(files, from->peer, message);
}

static void on_message(void *context, const struct ha_server_message *from)
{
    struct ha_files *files = context;
    struct ha_wire_message *message;
    struct ha_error err = {0};

    if (ha_wire_decode(from->data, from->size, &ha_wire_default_limits, &message, &err) < 0) {
        send_error(files, from->peer, ha_wire_peek_request_id(from->data, from->size), EBADMSG,
                   "the message cannot be read");
        ha_log_debug("files: %s", ha_error_text(&err));
        return;
    }
    handle(files, from, message);
    ha_wire_message_destroy(message);
}

static bool is_awaited(const struct ha_files *files, const char *sha256)
{
    for (int64_t i = 0; i < files->waiting_count; i++) {
        if (strcmp(files->waiting[i].sha256, sha256) == 0)
            return true;
    }
    return false;
}

/* Somebody who uploads the same was told that all bytes are there: its row is about
 * to be made again, and the file stays. */
static void remove_orphan(void *context)
{
    struct note *note = context;

    HA_CRASH_POINT("coordinator.artifact_before_remove");
    if (!is_awaited(note->files, note->sha256))
        ha_disk_remove(note->files->disk, note->sha256);
    free(note);
}

static void remove_snapshot(void *context)
{
    struct note *note = context;

    ha_disk_remove_snapshot(note->files->disk, note->sha256);
    free(note);
}

static void tell_snapshot(void *context)
{
    struct note *note = context;
    struct ha_files *files = note->files;

    files->options.snapshot(files->options.context, note->number, note->sha256, note->size,
                            note->why.code ? &note->why : NULL);
    free(note);
}

static void adopt(void *context)
{
    struct note *note = context;
    struct ha_files *files = note->files;

    (void)ha_disk_adopt(files->disk, note->path, note->sha256, &note->size, &note->why);
    if (ha_loop_post(files->options.main_loop, tell_snapshot, note) < 0)
        free(note);
}

static void stop(void *context)
{
    struct ha_files *files = context;

    ha_loop_stop(files->loop);
}

static void *run(void *context)
{
    struct ha_files *files = context;
    struct ha_error err = {0};

    if (ha_loop_run(files->loop, &err) < 0)
        post(files, files->options.main_loop, tell_fatal, NULL, 0, &err);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void destroy(struct ha_files *files)
{
    ha_server_destroy(files->server);
    ha_loop_destroy(files->loop);
    ha_disk_close(files->disk);
    free(files->waiting);
    free(files->piece);
    free(files);
}

static int start_thread(struct ha_files *files, struct ha_error *err)
{
    sigset_t all, old;
    int code;

    sigfillset(&all); /* signals are the main loop's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    code = pthread_create(&files->thread, NULL, run, files);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code == 0 ? 0
                     : ha_error_set(err, code, "cannot start the thread of the artifacts: %s",
                                    strerror(code));
}

int ha_files_start(const struct ha_files_options *options, struct ha_files **ret_files,
                   struct ha_error *err)
{
    struct ha_files *files = ha_calloc(1, sizeof *files);
    struct ha_server_handlers handlers = {.message = on_message, .context = files};
    int r;

    if (!files)
        return ha_error_set(err, ENOMEM, "no memory for the artifact socket");
    files->options = *options;
    files->piece = malloc(HA_WIRE_CHUNK_BYTES);
    r = files->piece ? ha_disk_open(options->dir, &files->disk, err)
                     : ha_error_set(err, ENOMEM, "no memory for the artifact socket");
    if (r == 0)
        r = ha_loop_create(&files->loop, err);
    if (r == 0)
        r = ha_server_create(options->net, files->loop, options->endpoint, &options->socket,
                             &handlers, &files->server, err);
    if (r == 0)
        r = start_thread(files, err);
    if (r < 0) {
        destroy(files);
        return r;
    }
    *ret_files = files;
    return 0;
}

void ha_files_stop(struct ha_files *files)
{
    if (!files)
        return;
    ha_loop_post(files->loop, stop, files);
    pthread_join(files->thread, NULL);
    destroy(files);
}

const char *ha_files_endpoint(const struct ha_files *files)
{
    return ha_server_endpoint(files->server);
}

int64_t ha_files_refused(const struct ha_files *files)
{
    return ha_server_refused(files->server);
}

void ha_files_committed(struct ha_files *files, const char *sha256)
{
    post(files, files->loop, row_is_durable, sha256, 0, NULL);
}

void ha_files_not_stored(struct ha_files *files, const char *sha256, const struct ha_error *why)
{
    post(files, files->loop, row_is_durable, sha256, 0, why);
}

void ha_files_orphan(struct ha_files *files, const char *sha256)
{
    post(files, files->loop, remove_orphan, sha256, 0, NULL);
}

int ha_files_adopt(struct ha_files *files, int64_t number, const char *path)
{
    size_t length = strlen(path);
    struct note *note = ha_calloc(1, sizeof *note + length + 1);

    if (!note)
        return -ENOMEM;
    note->files = files;
    note->number = number;
    memcpy(note->path, path, length + 1);
    if (ha_loop_post(files->loop, adopt, note) == 0)
        return 0;
    free(note);
    return -ENOMEM;
}

void ha_files_drop_snapshot(struct ha_files *files, const char *sha256)
{
    post(files, files->loop, remove_snapshot, sha256, 0, NULL);
}
