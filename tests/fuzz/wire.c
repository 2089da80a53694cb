/* Frames, as any stranger may send them to the coordinator. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "proto/wire.h"

/* A small limit, so that the refusal is within reach of short inputs. */
static const struct ha_wire_limits limits = {.frame_bytes = 1 << 20, .memory_bytes = 1 << 20};

static void encode(const struct ha_wire_message *message, struct ha_buffer *frame)
{
    struct ha_error err = {0};

    ha_buffer_init(frame, 0);
    FUZZ_CHECK(fuzz_result(ha_wire_encode(message, frame, &err), &err) == 0);
}

/* What was taken can be sent on, and says the same again. */
static void check_round(const struct ha_wire_message *message)
{
    struct ha_wire_message *again = NULL;
    struct ha_error err = {0};
    struct ha_buffer first, second;

    if (strcmp(ha_wire_body_name(message->kind), "unknown") == 0)
        return;
    encode(message, &first);
    FUZZ_CHECK(
        fuzz_result(ha_wire_decode(ha_buffer_text(&first), first.size, &limits, &again, &err),
                    &err) == 0);
    FUZZ_CHECK(ha_wire_peek_request_id(ha_buffer_text(&first), first.size) == message->request_id);
    encode(again, &second);
    FUZZ_CHECK(first.size == second.size);
    FUZZ_CHECK(memcmp(ha_buffer_text(&first), ha_buffer_text(&second), first.size) == 0);
    ha_wire_message_destroy(again);
    ha_buffer_clear(&first);
    ha_buffer_clear(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_wire_message *message = NULL;
    struct ha_error err = {0};

    (void)ha_wire_peek_request_id(data, size);
    if (fuzz_result(ha_wire_decode(data, size, &limits, &message, &err), &err) == 0) {
        check_round(message);
        ha_wire_message_destroy(message);
    }
    return 0;
}
