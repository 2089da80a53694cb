/* files.h - the artifact socket and its thread
 *
 * Uploads and downloads never touch the control loop: a thread of its own writes,
 * hashes and syncs.  When a file is complete it tells the main loop, which makes
 * the row; when that is durable the thread answers "complete". */
#ifndef HA_COORDINATOR_SERVER_FILES_H
#define HA_COORDINATOR_SERVER_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/net/socket.h"
#include "proto/wire.h"

struct ha_error;
struct ha_files;
struct ha_loop;

struct ha_files_options {
    struct ha_net *net;
    struct ha_loop *main_loop;
    const char *endpoint;
    const char *dir;
    struct ha_socket_options socket;
    int64_t max_artifact_bytes; /* larger ones are refused; 0: none is */
    /* All are called in the main loop's thread. */
    void (*stored)(void *context, const char *sha256, int64_t size);
    void (*fatal)(void *context, const char *why);
    void (*snapshot)(void *context, int64_t number, const char *sha256, int64_t size,
                     const struct ha_error *why); /* why NULL: it is there */
    void *context;
};

/* Bind, then start the thread. */
int ha_files_start(const struct ha_files_options *options, struct ha_files **ret_files,
                   struct ha_error *err);

/* Ends the thread and waits for it; NULL is legal. */
void ha_files_stop(struct ha_files *files);

const char *ha_files_endpoint(const struct ha_files *files);

/* May a key of this role send such a message to the artifact socket?  A judge's key may
 * send none: what it judges comes to it as text. */
bool ha_files_may(enum ha_net_role role, enum ha_wire_body kind);

/* Messages that its socket refused so far; from any thread. */
int64_t ha_files_refused(const struct ha_files *files);

/* From the main loop's thread: the row is durable; it could not be stored, and whoever waits for
 * it is told so; nothing needs it any more. */
void ha_files_committed(struct ha_files *files, const char *sha256);
void ha_files_not_stored(struct ha_files *files, const char *sha256, const struct ha_error *why);
void ha_files_orphan(struct ha_files *files, const char *sha256);

/* From the main loop's thread: take over a copy of the database (ha_disk_adopt), which
 * options.snapshot tells of, and remove it.  -ENOMEM. */
int ha_files_adopt(struct ha_files *files, int64_t number, const char *path);
void ha_files_drop_snapshot(struct ha_files *files, const char *sha256);

#endif
