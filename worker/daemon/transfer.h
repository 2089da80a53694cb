/* transfer.h - artifacts to and from the coordinator's store, off the heartbeat
 *
 * A thread with a loop and a connection of its own, which hashes, reads and
 * writes files.  Uploads go one after the other, downloads beside them one
 * after the other.  While the coordinator is away everything waits; nothing is
 * given up for silence. */
#ifndef HA_WORKER_DAEMON_TRANSFER_H
#define HA_WORKER_DAEMON_TRANSFER_H

#include <stdint.h>

#include "common/net/socket.h"

struct ha_error;
struct transfer;

struct transfer_result {
    uint64_t tag;
    int code;           /* 0 or negative errno */
    const char *text;   /* why not; "" when code is 0 */
    const char *sha256; /* of an upload */
    int64_t size;       /* of an upload */
};

struct transfer_options {
    struct ha_net *net;
    struct ha_loop *loop; /* of the owner: done is called there */
    struct ha_socket_options socket;
    int64_t silence_ms; /* until asking again; 0: 10 s */
    void (*done)(void *context, const struct transfer_result *result);
    void *context;
};

int transfer_create(const struct transfer_options *options, struct transfer **ret_transfer,
                    struct ha_error *err);

/* Stops the thread.  What is under way is dropped; done is not called any more,
 * if the owner's loop does not turn again. */
void transfer_destroy(struct transfer *transfer);

/* The store is at this endpoint from now on. */
int transfer_connect(struct transfer *transfer, const char *endpoint);

/* tag comes back with the result, exactly once.  Return 0 or -ENOMEM. */
int transfer_upload(struct transfer *transfer, uint64_t tag, const char *path);
int transfer_download(struct transfer *transfer, uint64_t tag, const char *sha256, int64_t size,
                      const char *path);

/* Where the artifact socket is: what the coordinator said, with the address at which we reach its
 * control socket where it listens on all interfaces and names none.  The caller frees. */
char *transfer_endpoint(const char *said, const char *coordinator);

#endif
