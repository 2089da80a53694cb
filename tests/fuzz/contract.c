/* Lines of an attempt's pipe, which its daemon sends on to the coordinator. */
#include "tests/fuzz/fuzz.h"

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "worker/daemon/contract_line.h"

/* What the daemon reports has to fit the wire's rules. */
static void send_on(const struct contract_line *line)
{
    struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL, .kind = HA_WIRE_REPORT};
    struct ha_wire_attempt_event artifact = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                             .event.artifact = line->artifact};
    struct ha_error err = {0};
    struct ha_buffer frame;

    message.body.report.events = line->events;
    message.body.report.n_events = line->n_events;
    if (line->kind == CONTRACT_ARTIFACT) {
        message.body.report.events = &artifact;
        message.body.report.n_events = 1;
    }
    ha_buffer_init(&frame, 0);
    FUZZ_CHECK(fuzz_result(ha_wire_encode(&message, &frame, &err), &err) == 0);
    ha_buffer_clear(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct contract_line line;
    struct ha_error err = {0};

    if (fuzz_result(contract_line_parse((const char *)data, size, &line, &err), &err) < 0)
        return 0;
    send_on(&line);
    contract_line_clear(&line);
    return 0;
}
