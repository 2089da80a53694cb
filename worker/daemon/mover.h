/* mover.h - one artifact on its way to or from the coordinator's store
 *
 * Two small automata without a clock or a socket.  Messages may be lost or come
 * twice; silence is answered by asking how far it is.
 *
 *   upload:    Open -> State(have) -> Chunk ... (at most 4 unacknowledged) ->
 *              State(complete).  A State that has less than the chunk it answers
 *              sets the upload back; when all is there but not complete, Open
 *              asks again.  An error of the store (a full disk) is waited out.
 *   download:  Read ... (at most 4 unanswered) -> Data.  The file appears under
 *              its name when its digest is right. */
#ifndef HA_WORKER_DAEMON_MOVER_H
#define HA_WORKER_DAEMON_MOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "proto/wire.h"

struct ha_error;

/* How a mover speaks.  send gives the message an id of its own and returns it,
 * or 0 when it could not be sent now. */
struct mover_link {
    uint64_t (*send)(void *context, struct ha_wire_message *message);
    void *context;
    int64_t silence_ms; /* without an answer before asking again */
};

struct upload;

/* Hashes the file, which takes a while, and opens the upload. */
int upload_create(const struct mover_link *link, const char *path, int64_t now_ms,
                  struct upload **ret_upload, struct ha_error *err);
void upload_destroy(struct upload *upload);

void upload_receive(struct upload *upload, const struct ha_wire_message *message, int64_t now_ms);
void upload_tick(struct upload *upload, int64_t now_ms);
int64_t upload_next_ms(const struct upload *upload);

/* 0: under way; 1: complete; negative: it cannot be read (the text says why). */
int upload_state(const struct upload *upload, const char **ret_text);
const char *upload_sha256(const struct upload *upload);
int64_t upload_size(const struct upload *upload);

struct download;

/* Fetch size bytes with this digest into path.  A file that is there already is
 * hashed, which takes a while, and replaced if it is another one. */
int download_create(const struct mover_link *link, const char *sha256, int64_t size,
                    const char *path, int64_t now_ms, struct download **ret_download,
                    struct ha_error *err);
void download_destroy(struct download *download);

void download_receive(struct download *download, const struct ha_wire_message *message,
                      int64_t now_ms);
void download_tick(struct download *download, int64_t now_ms);
int64_t download_next_ms(const struct download *download);

/* 0: under way; 1: the file is there; negative: it cannot be had. */
int download_state(const struct download *download, const char **ret_text);

#endif
