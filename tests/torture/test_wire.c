/* Messages of every kind: encode, decode, copy. */
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "tests/torture/torture.h"
#include "tests/unit/wire/random_message.h"

static int carry(int body, struct ha_error *err)
{
    struct ha_wire_message message, *again = NULL, *copy = NULL;
    struct ha_arena arena;
    struct ha_buffer frame;
    int r;

    torture_pause();
    ha_arena_init(&arena, 1 << 24);
    random_message(&arena, (uint64_t)body, body, &message);
    torture_resume();
    ha_buffer_init(&frame, 0);
    r = ha_wire_encode(&message, &frame, err);
    if (r == 0)
        r = ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits, &again, err);
    if (r == 0)
        r = ha_wire_copy(again, &copy, NULL, err);
    if (r == 0)
        TORTURE_CHECK(copy->kind == message.kind && copy->request_id == message.request_id);
    ha_wire_message_destroy(again);
    ha_wire_message_destroy(copy);
    ha_buffer_clear(&frame);
    ha_arena_clear(&arena);
    return r;
}

static int every_message(struct ha_error *err)
{
    int r = 0;

    for (int body = 0; r == 0 && body < random_message_bodies(); body++)
        r = carry(body, err);
    return r;
}

int main(void)
{
    static const struct torture_scenario scenarios[] = {
        {"wire: every message", every_message, NULL},
    };

    return torture_run(scenarios, 1, INT64_MAX);
}
