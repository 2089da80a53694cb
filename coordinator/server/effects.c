/* effects.c - what others see of a turn, held back until it is durable (inside.h) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"

/* Below the frame limit of wire.h: a reply that does not fit is an error. */
enum { FRAME_BYTES = 8 << 20 };

static int hold(struct ha_coordinator *c, const struct ha_held *held, struct ha_error *err)
{
    void *array = c->held;

    if (ha_grow(&array, &c->held_capacity, c->held_count + 1, sizeof *c->held) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a reply");
    c->held = array;
    c->held[c->held_count++] = *held;
    return 0;
}

int ha_server_hold_bytes(struct ha_coordinator *c, uint64_t peer, const void *data, size_t size,
                         struct ha_error *err)
{
    struct ha_held held = {.peer = peer, .size = size};
    int r;

    held.data = malloc(size + 1);
    if (!held.data)
        return ha_error_set(err, ENOMEM, "no memory for a reply");
    memcpy(held.data, data, size);
    r = hold(c, &held, err);
    if (r < 0)
        free(held.data);
    return r;
}

int ha_server_hold(struct ha_coordinator *c, uint64_t peer, const struct ha_wire_message *message,
                   struct ha_error *err)
{
    struct ha_buffer buffer;
    int r;

    ha_buffer_init(&buffer, FRAME_BYTES);
    r = ha_wire_encode(message, &buffer, err);
    if (r == 0)
        r = ha_server_hold_bytes(c, peer, buffer.data, buffer.size, err);
    ha_buffer_clear(&buffer);
    return r;
}

int ha_server_hold_error(struct ha_coordinator *c, uint64_t peer, uint64_t request_id,
                         const struct ha_error *why)
{
    char text[HA_ERROR_TEXT_BYTES];
    struct ha_wire_message message = {
        .protocol = HA_WIRE_PROTOCOL,
        .request_id = request_id,
        .kind = HA_WIRE_ERROR,
        .body.error = {.code = (uint32_t)why->code,
                       .text = ha_utf8_copy(text, sizeof text, ha_error_text(why))}};
    struct ha_error err = {0};
    int r = ha_server_hold(c, peer, &message, &err);

    if (r < 0)
        ha_log_debug("an error could not be sent: %s", ha_error_text(&err));
    return r;
}

int ha_server_hold_artifact(struct ha_coordinator *c, const char *sha256, bool orphan,
                            struct ha_error *err)
{
    struct ha_held held = {.orphan = orphan};

    strncpy(held.sha256, sha256, sizeof held.sha256 - 1);
    return hold(c, &held, err);
}

/* Sending may find a peer gone, which removes its caller; nothing here holds
 * on to callers. */
void ha_server_release_held(struct ha_coordinator *c)
{
    for (int64_t i = 0; i < c->held_count; i++) {
        struct ha_held *held = &c->held[i];

        if (!held->data) {
            if (!held->orphan)
                c->hooks.artifact_stored(c->hooks.context, held->sha256);
            else if (!ha_backup_keeps(c, held->sha256))
                c->hooks.artifact_orphan(c->hooks.context, held->sha256);
            continue;
        }
        if (c->hooks.send(c->hooks.context, held->peer, held->data, held->size) == -EHOSTUNREACH)
            ha_coordinator_peer_gone(c, held->peer);
        free(held->data);
        HA_CRASH_POINT("coordinator.after_reply");
    }
    c->held_count = 0;
}

void ha_server_refuse_held(struct ha_coordinator *c, const struct ha_error *why)
{
    for (int64_t i = 0; i < c->held_count && c->hooks.artifact_not_stored; i++) {
        if (!c->held[i].data && !c->held[i].orphan)
            c->hooks.artifact_not_stored(c->hooks.context, c->held[i].sha256, why);
    }
    ha_server_drop_held(c, 0);
}

void ha_server_drop_held(struct ha_coordinator *c, int64_t from)
{
    while (c->held_count > from)
        free(c->held[--c->held_count].data);
}
