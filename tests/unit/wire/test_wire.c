#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "proto/arena.h"
#include "proto/wire.h"
#include "proto/wire_table.h"
#include "tests/unit/wire/random_message.h"

static struct ha_arena arena;

/* ---- the tables say what the .proto says ---------------------------------------- */

static size_t plain_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(bool);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(struct ha_wire_bytes);
    default:
        fail_msg("wire.h has no type for protobuf-c's type %d", (int)type);
        return 0;
    }
}

static bool rule_fits(enum wire_rule rule, ProtobufCType type)
{
    switch (rule) {
    case ANY:
        return true;
    case COUNT:
        return type == PROTOBUF_C_TYPE_INT64;
    case FINITE:
    case MONEY:
        return type == PROTOBUF_C_TYPE_DOUBLE;
    case DIGEST:
    case INSIDE:
        return type == PROTOBUF_C_TYPE_STRING;
    case CHUNK:
        return type == PROTOBUF_C_TYPE_BYTES || type == PROTOBUF_C_TYPE_INT64;
    case SCORE:
        return type == PROTOBUF_C_TYPE_UINT32;
    }
    return false;
}

static void check_type(const struct wire_type *type)
{
    const ProtobufCMessageDescriptor *descriptor = type->descriptor;

    assert_int_equal(type->n_fields, descriptor->n_fields);
    for (size_t i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *in = &descriptor->fields[i];
        const struct wire_field *field = &type->fields[i];

        if (strcmp(in->name, field->name) != 0)
            fail_msg("%s: %s stands where %s belongs", descriptor->name, field->name, in->name);
        assert_true((in->label == PROTOBUF_C_LABEL_REPEATED) == (field->count_offset != 0));
        assert_true(field->offset < type->bytes);
        assert_true((in->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
                    type->kind_offset != WIRE_NO_KIND);
        if (in->type == PROTOBUF_C_TYPE_MESSAGE) {
            assert_ptr_equal(field->type->descriptor, in->descriptor);
            assert_int_equal(field->bytes, field->type->bytes);
            check_type(field->type);
            continue;
        }
        assert_null(field->type);
        if (field->bytes != plain_bytes(in->type) || !rule_fits(field->rule, in->type))
            fail_msg("%s.%s has another type in wire.h", descriptor->name, field->name);
    }
}

static void mirrors_the_proto(void **state)
{
    (void)state;
    check_type(&wire_message_type);
    assert_string_equal(ha_wire_body_name(HA_WIRE_HEARTBEAT_REPLY), "HeartbeatReply");
    assert_string_equal(ha_wire_body_name(HA_WIRE_METRICS_REPLY), "MetricsReply");
    assert_string_equal(ha_wire_body_name(HA_WIRE_UNKNOWN), "unknown");
    assert_string_equal(ha_wire_body_name((enum ha_wire_body)2), "unknown");
}

/* ---- every message round ---------------------------------------------------------- */

static void compare_messages(const struct wire_type *type, const char *a, const char *b);

static void compare_values(const ProtobufCFieldDescriptor *in, const struct wire_field *field,
                           const char *a, const char *b)
{
    const struct ha_wire_bytes *left = (const void *)a, *right = (const void *)b;

    switch (in->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        compare_messages(field->type, a, b);
        return;
    case PROTOBUF_C_TYPE_STRING:
        assert_string_equal(*(const char *const *)a, *(const char *const *)b);
        return;
    case PROTOBUF_C_TYPE_BYTES:
        assert_int_equal(left->size, right->size);
        if (left->size)
            assert_memory_equal(left->data, right->data, left->size);
        return;
    default:
        assert_memory_equal(a, b, field->bytes);
        return;
    }
}

static void compare_messages(const struct wire_type *type, const char *a, const char *b)
{
    if (type->kind_offset != WIRE_NO_KIND)
        assert_int_equal(*(const uint32_t *)(a + type->kind_offset),
                         *(const uint32_t *)(b + type->kind_offset));
    for (size_t i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *in = &type->descriptor->fields[i];
        const struct wire_field *field = &type->fields[i];
        const char *left = a + field->offset, *right = b + field->offset;
        int64_t n = 1;

        if ((in->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
            *(const uint32_t *)(a + type->kind_offset) != in->id)
            continue;
        if (in->label == PROTOBUF_C_LABEL_REPEATED) {
            n = *(const int64_t *)(a + field->count_offset);
            assert_int_equal(n, *(const int64_t *)(b + field->count_offset));
            left = *(const char *const *)left;
            right = *(const char *const *)right;
        }
        for (int64_t k = 0; k < n; k++)
            compare_values(in, field, left + (size_t)k * field->bytes,
                           right + (size_t)k * field->bytes);
    }
}

/* A frame that holds the body of the given index. */
static void make_frame(uint64_t seed, int body, struct ha_wire_message *message,
                       struct ha_buffer *frame)
{
    struct ha_error err = {0};

    random_message(&arena, seed, body, message);
    if (ha_wire_encode(message, frame, &err) < 0)
        fail_msg("%s: %s", ha_wire_body_name(message->kind), err.text);
}

static void carries_every_message(void **state)
{
    int n_bodies = random_message_bodies();

    (void)state;
    for (int round = 0; round < 20 * n_bodies; round++) {
        struct ha_wire_message message, *again;
        struct ha_error err = {0};
        struct ha_buffer frame;

        ha_arena_init(&arena, 1 << 24);
        ha_buffer_init(&frame, 0);
        make_frame((uint64_t)round, round % n_bodies, &message, &frame);
        if (ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits, &again, &err) < 0)
            fail_msg("%s: %s", ha_wire_body_name(message.kind), err.text);
        compare_messages(&wire_message_type, (const char *)&message, (const char *)again);
        assert_int_equal(ha_wire_peek_request_id(frame.data, frame.size), message.request_id);
        ha_wire_message_destroy(again);
        ha_buffer_clear(&frame);
        ha_arena_clear(&arena);
    }
}

static void survives_cut_and_damaged_frames(void **state)
{
    int n_bodies = random_message_bodies();
    int64_t decoded = 0;

    (void)state;
    for (int body = 0; body < n_bodies; body++) {
        struct ha_wire_message message, *again;
        uint64_t numbers = (uint64_t)body * 77;
        struct ha_buffer frame;

        ha_arena_init(&arena, 1 << 24);
        ha_buffer_init(&frame, 0);
        make_frame(numbers, body, &message, &frame);
        for (size_t cut = 0; cut < frame.size; cut++) {
            if (ha_wire_decode(frame.data, cut, &ha_wire_default_limits, &again, NULL) == 0) {
                ha_wire_message_destroy(again);
                decoded++;
            }
            (void)ha_wire_peek_request_id(frame.data, cut);
        }
        for (int k = 0; k < 300 && frame.size > 0; k++) {
            size_t at = random_bits(&numbers) % frame.size;
            char old = frame.data[at];

            frame.data[at] = (char)random_bits(&numbers);
            if (ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits, &again, NULL) == 0)
                ha_wire_message_destroy(again);
            (void)ha_wire_peek_request_id(frame.data, frame.size);
            frame.data[at] = old;
        }
        ha_buffer_clear(&frame);
        ha_arena_clear(&arena);
    }
    assert_true(decoded > 0); /* a frame may be cut between fields */
}

/* ---- rules --------------------------------------------------------------------------- */

static void expect_fault(const struct ha_wire_message *message, const char *field)
{
    struct ha_error err = {0};
    struct ha_buffer frame;

    ha_buffer_init(&frame, 0);
    assert_int_equal(ha_wire_encode(message, &frame, &err), -EINVAL);
    if (!strstr(err.text, field))
        fail_msg("\"%s\" does not name %s", err.text, field);
    assert_int_equal(frame.size, 0);
    ha_buffer_clear(&frame);
}

static struct ha_wire_message artifact(const char *name, const char *sha256, int64_t size)
{
    static struct ha_wire_attempt_event event;

    event = (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {.name = name, .sha256 = sha256, .size = size}};
    return (struct ha_wire_message){.kind = HA_WIRE_REPORT,
                                    .body.report = {.events = &event, .n_events = 1}};
}

static void refuses_values_that_break_the_rules(void **state)
{
    static const char *const bad_paths[] = {"/etc/passwd", "..",  "a/../b", "a/..",
                                            "a//b",        "./a", "a/",     "."};
    static double not_finite[] = {INFINITY};
    struct ha_wire_message message;

    (void)state;
    message = artifact("a", DIGEST_TEXT, -1);
    expect_fault(&message, "AttemptArtifact.size");
    message = artifact("a", "ABC", 1);
    expect_fault(&message, "AttemptArtifact.sha256");
    message = artifact("a\xff", DIGEST_TEXT, 1);
    expect_fault(&message, "AttemptArtifact.name is not UTF-8");
    for (size_t i = 0; i < sizeof(bad_paths) / sizeof(bad_paths[0]); i++) {
        message = artifact(bad_paths[i], DIGEST_TEXT, 1);
        expect_fault(&message, "stays below");
    }
    message = (struct ha_wire_message){.kind = HA_WIRE_ITEMS_BEGIN,
                                       .body.items_begin = {.reserve = not_finite, .n_reserve = 1}};
    expect_fault(&message, "ItemsBegin.reserve");
    message = (struct ha_wire_message){.kind = HA_WIRE_ARTIFACT_READ,
                                       .body.artifact_read = {.length = (1 << 20) + 1}};
    expect_fault(&message, "ArtifactRead.length");
    message = (struct ha_wire_message){.kind = HA_WIRE_UNKNOWN};
    expect_fault(&message, "kind 0");
}

static void checks_what_comes_in(void **state)
{
    /* report { job 1 events { artifact { size -1 } } } */
    static const uint8_t negative[] = {0xb2, 0x01, 0x11, 0x08, 1,    0x22, 0x0d, 0x1a, 0x0b, 0x28,
                                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    struct ha_wire_message *message;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(
        ha_wire_decode(negative, sizeof(negative), &ha_wire_default_limits, &message, &err),
        -EBADMSG);
    assert_non_null(strstr(err.text, "AttemptArtifact.size is negative"));
}

static void carries_numbers_that_are_not(void **state)
{
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
                                          .event.metric = {.name = "loss", .value = NAN}};
    struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL,
                                      .kind = HA_WIRE_REPORT,
                                      .body.report = {.events = &event, .n_events = 1}};
    struct ha_wire_message *again;
    struct ha_error err = {0};
    struct ha_buffer frame;

    (void)state;
    ha_buffer_init(&frame, 0);
    assert_int_equal(ha_wire_encode(&message, &frame, &err), 0);
    assert_int_equal(ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits, &again, &err),
                     0);
    assert_true(isnan(again->body.report.events[0].event.metric.value));
    ha_wire_message_destroy(again);
    ha_buffer_clear(&frame);
}

static void fills_in_what_was_not_sent(void **state)
{
    static const uint8_t grant[] = {0x10, 7, 0xaa, 0x01, 0};
    struct ha_wire_message *message;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_wire_decode(grant, sizeof(grant), &ha_wire_default_limits, &message, &err),
                     0);
    assert_int_equal(message->kind, HA_WIRE_GRANT);
    assert_int_equal(message->request_id, 7);
    assert_string_equal(message->body.grant.kind, "");
    assert_int_equal(message->body.grant.epoch.number, 0);
    assert_int_equal(message->body.grant.n_inputs, 0);
    ha_wire_message_destroy(message);
}

/* Of a part of a gang that ended; a worker of before there was one does not tell it. */
static void a_cause_may_be_missing(void **state)
{
    static const uint8_t told[] = {0xca, 0x01, 17,  0x08, 7,   0x28, 1,   0x32, 1,    'f',
                                   0x5a, 6,    'm', 'e',  'm', 'o',  'r', 'y',  0x40, 1};
    struct ha_wire_message *message;
    struct ha_error err = {0};
    uint8_t without[sizeof(told) - 8];

    (void)state;
    assert_int_equal(ha_wire_decode(told, sizeof(told), &ha_wire_default_limits, &message, &err),
                     0);
    assert_int_equal(message->kind, HA_WIRE_GANG_STATE);
    assert_int_equal(message->body.gang_state.job, 7);
    assert_true(message->body.gang_state.followed);
    assert_string_equal(message->body.gang_state.outcome, "f");
    assert_string_equal(message->body.gang_state.cause, "memory");
    ha_wire_message_destroy(message);
    memcpy(without, told, 10);
    memcpy(without + 10, told + 18, 2);
    without[2] = 9;
    assert_int_equal(
        ha_wire_decode(without, sizeof(without), &ha_wire_default_limits, &message, &err), 0);
    assert_true(message->body.gang_state.followed);
    assert_string_equal(message->body.gang_state.cause, "");
    ha_wire_message_destroy(message);
}

static void tolerates_what_it_does_not_know(void **state)
{
    /* request 9, body 1000 { ... }; then error { code 5, field 99 = 1 } */
    static const uint8_t body[] = {0x10, 9, 0xc2, 0x3e, 2, 'x', 'y'};
    static const uint8_t field[] = {0x52, 5, 0x08, 5, 0x98, 0x06, 1};
    struct ha_wire_message *message;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_wire_decode(body, sizeof(body), &ha_wire_default_limits, &message, &err),
                     0);
    assert_int_equal(message->kind, HA_WIRE_UNKNOWN);
    assert_int_equal(message->request_id, 9);
    ha_wire_message_destroy(message);
    assert_int_equal(ha_wire_decode(field, sizeof(field), &ha_wire_default_limits, &message, &err),
                     0);
    assert_int_equal(message->kind, HA_WIRE_ERROR);
    assert_int_equal(message->body.error.code, 5);
    ha_wire_message_destroy(message);
}

static void bounds_frames_and_memory(void **state)
{
    enum { N = 200000 };
    struct ha_wire_limits limits = {.frame_bytes = 2 * N + 16, .memory_bytes = 1 << 20};
    uint8_t *frame = malloc(2 * N + 16);
    struct ha_wire_message *message;
    struct ha_error err = {0};
    size_t size = 0;

    (void)state;
    /* report { N empty events }: two bytes each, a struct each in memory */
    frame[size++] = 0xb2;
    frame[size++] = 0x01;
    frame[size++] = 0x80 | ((2 * N) & 0x7f);
    frame[size++] = 0x80 | ((2 * N >> 7) & 0x7f);
    frame[size++] = 2 * N >> 14;
    for (int i = 0; i < N; i++) {
        frame[size++] = 0x22;
        frame[size++] = 0;
    }
    assert_int_equal(ha_wire_decode(frame, size, &limits, &message, &err), -EMSGSIZE);
    limits.memory_bytes = 256 << 20;
    assert_int_equal(ha_wire_decode(frame, size, &limits, &message, &err), 0);
    assert_int_equal(message->body.report.n_events, N);
    ha_wire_message_destroy(message);
    limits.frame_bytes = size - 1;
    assert_int_equal(ha_wire_decode(frame, size, &limits, &message, &err), -EMSGSIZE);
    free(frame);
}

static void keeps_to_the_buffers_limit(void **state)
{
    struct ha_wire_message message = {.kind = HA_WIRE_ERROR, .body.error.text = "0123456789"};
    struct ha_error err = {0};
    struct ha_buffer frame;

    (void)state;
    ha_buffer_init(&frame, 8);
    assert_int_equal(ha_wire_encode(&message, &frame, &err), -EMSGSIZE);
    ha_buffer_clear(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mirrors_the_proto),
        cmocka_unit_test(carries_every_message),
        cmocka_unit_test(survives_cut_and_damaged_frames),
        cmocka_unit_test(refuses_values_that_break_the_rules),
        cmocka_unit_test(checks_what_comes_in),
        cmocka_unit_test(carries_numbers_that_are_not),
        cmocka_unit_test(fills_in_what_was_not_sent),
        cmocka_unit_test(a_cause_may_be_missing),
        cmocka_unit_test(tolerates_what_it_does_not_know),
        cmocka_unit_test(bounds_frames_and_memory),
        cmocka_unit_test(keeps_to_the_buffers_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
