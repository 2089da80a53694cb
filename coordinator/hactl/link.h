/* link.h - questions to a coordinator, one at a time, or two where one is sent ahead
 *
 * A call sends a request and waits for its reply; while none comes it repeats
 * the request, which changes nothing twice.  So a call survives a restart of
 * the coordinator within its time. */
#ifndef HA_COORDINATOR_HACTL_LINK_H
#define HA_COORDINATOR_HACTL_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct ha_error;
struct ha_link;

struct ha_link_options {
    const char *endpoint;
    const char *files_endpoint; /* NULL: as the coordinator says */
    const char *key_file;       /* NULL: no keys */
    const char *server_key_file;
    bool insecure_loopback;
    int64_t hello_timeout_ms; /* 0: 3,000 */
};

/* Connect and say hello.  -ENOTCONN when no coordinator answers in time. */
int ha_link_open(const struct ha_link_options *options, struct ha_link **ret_link,
                 struct ha_error *err);
void ha_link_close(struct ha_link *link);

/* Fills in protocol and request_id, sends, and waits up to timeout_ms (0: 30 s)
 * for a reply of this kind.  *ret_reply is the caller's to destroy.  -ENOTCONN
 * when none came; the code and text of an Error reply otherwise. */
int ha_link_call(struct ha_link *link, struct ha_wire_message *request, enum ha_wire_body kind,
                 int64_t timeout_ms, struct ha_wire_message **ret_reply, struct ha_error *err);

/* The two halves of a call, with at most two requests under way: the coordinator works on one while
 * the reply to the other is read.  Each id is waited for once, also when that fails, or dropped. */
int ha_link_send(struct ha_link *link, struct ha_wire_message *request, uint64_t *ret_id,
                 struct ha_error *err);
int ha_link_wait(struct ha_link *link, uint64_t id, enum ha_wire_body kind,
                 struct ha_wire_message **ret_reply, struct ha_error *err);
void ha_link_drop(struct ha_link *link, uint64_t id); /* of none: nothing happens */

/* A call on the files socket. */
int ha_link_files_call(struct ha_link *link, struct ha_wire_message *request,
                       enum ha_wire_body kind, struct ha_wire_message **ret_reply,
                       struct ha_error *err);

/* The coordinator's version, from its hello. */
const char *ha_link_version(const struct ha_link *link);

/* 32 random hexadecimal digits: a key for requests that change something. */
enum { HA_LINK_KEY_BYTES = 33 };
int ha_link_new_key(char key[HA_LINK_KEY_BYTES], struct ha_error *err);

#endif
