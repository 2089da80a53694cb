/* One encoder and one decoder for all messages, driven by wire_tables.c.
 *
 * Encoding builds protobuf-c's struct beside the plain one, text and bytes
 * shared, and packs it.  Decoding unpacks into an arena and builds the plain
 * struct there, text and bytes shared again; the arena's limit bounds what a
 * small frame can blow up to. */
#include "proto/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "proto/arena.h"
#include "proto/wire_rules.h"
#include "proto/wire_table.h"

enum { FRAME_BYTES = 8 << 20, MEMORY_BYTES = 64 << 20 };

const struct ha_wire_limits ha_wire_default_limits = {.frame_bytes = FRAME_BYTES,
                                                      .memory_bytes = MEMORY_BYTES};

struct codec {
    struct ha_arena arena;
    int fault_code; /* what a broken rule is called: EINVAL or EBADMSG */
    struct ha_error *err;
};

static int no_memory(struct codec *codec)
{
    if (codec->arena.full)
        return ha_error_set(codec->err, EMSGSIZE, "the message is larger than %zu bytes decoded",
                            codec->arena.limit_bytes);
    return ha_error_set(codec->err, ENOMEM, "out of memory");
}

static int check(struct codec *codec, const struct wire_type *type, size_t i, const void *value)
{
    const ProtobufCFieldDescriptor *in = &type->descriptor->fields[i];
    const char *fault = wire_rule_fault(in->type, type->fields[i].rule, value);

    if (!fault)
        return 0;
    return ha_error_set(codec->err, codec->fault_code, "%s.%s %s", type->descriptor->short_name,
                        in->name, fault);
}

/* Bytes of one value in protobuf-c's struct. */
static size_t packed_value_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    default:
        return 4; /* 32-bit integers and enums; wire.h has no other types */
    }
}

/* ---- plain -> protobuf-c ------------------------------------------------------ */

static int fill_message(struct codec *codec, const struct wire_type *type, const char *plain,
                        ProtobufCMessage **ret_message);

static int fill_value(struct codec *codec, const struct wire_type *type, size_t i,
                      const char *plain, char *out)
{
    ProtobufCBinaryData *bytes = (void *)out;
    int r = check(codec, type, i, plain);

    if (r < 0)
        return r;
    switch (type->descriptor->fields[i].type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return fill_message(codec, type->fields[i].type, plain, (ProtobufCMessage **)out);
    case PROTOBUF_C_TYPE_BYTES:
        bytes->len = ((const struct ha_wire_bytes *)plain)->size;
        bytes->data = (uint8_t *)(uintptr_t)((const struct ha_wire_bytes *)plain)->data;
        return 0;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)out = *(const bool *)plain;
        return 0;
    case PROTOBUF_C_TYPE_STRING:
        /* Lists may not hold NULL, and NULL means "" everywhere. */
        *(const char **)out = *(const char *const *)plain ? *(const char *const *)plain : "";
        return 0;
    default:
        memcpy(out, plain, type->fields[i].bytes);
        return 0;
    }
}

static int fill_list(struct codec *codec, const struct wire_type *type, size_t i, const char *plain,
                     char *out)
{
    const ProtobufCFieldDescriptor *in = &type->descriptor->fields[i];
    const struct wire_field *field = &type->fields[i];
    const char *elements = *(const char *const *)(plain + field->offset);
    int64_t n = *(const int64_t *)(plain + field->count_offset);
    size_t each = packed_value_bytes(in->type);
    char *list;

    if (n == 0)
        return 0;
    if (n < 0 || (uint64_t)n > SIZE_MAX / 64 || !elements)
        return ha_error_set(codec->err, codec->fault_code, "%s.n_%s is not a count",
                            type->descriptor->short_name, field->name);
    list = ha_arena_alloc(&codec->arena, (size_t)n * each);
    if (!list)
        return no_memory(codec);
    *(size_t *)(out + in->quantifier_offset) = (size_t)n;
    *(char **)(out + in->offset) = list;
    for (int64_t k = 0; k < n; k++) {
        int r = fill_value(codec, type, i, elements + (size_t)k * field->bytes,
                           list + (size_t)k * each);

        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_message(struct codec *codec, const struct wire_type *type, const char *plain,
                        ProtobufCMessage **ret_message)
{
    const ProtobufCMessageDescriptor *descriptor = type->descriptor;
    char *out = ha_arena_alloc(&codec->arena, descriptor->sizeof_message);
    int r = 0;

    if (!out)
        return no_memory(codec);
    protobuf_c_message_init(descriptor, out);
    for (size_t i = 0; i < type->n_fields && r == 0; i++) {
        const ProtobufCFieldDescriptor *in = &descriptor->fields[i];

        if (in->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            if (*(const uint32_t *)(plain + type->kind_offset) != in->id)
                continue;
            *(uint32_t *)(out + in->quantifier_offset) = in->id;
        }
        if (in->label == PROTOBUF_C_LABEL_REPEATED)
            r = fill_list(codec, type, i, plain, out);
        else
            r = fill_value(codec, type, i, plain + type->fields[i].offset, out + in->offset);
    }
    if (r == 0)
        *ret_message = (ProtobufCMessage *)out;
    return r;
}

int ha_wire_encode(const struct ha_wire_message *message, struct ha_buffer *buffer,
                   struct ha_error *err)
{
    struct codec codec = {.fault_code = EINVAL, .err = err};
    ProtobufCMessage *filled = NULL;
    size_t size;
    int r;

    if (strcmp(ha_wire_body_name(message->kind), "unknown") == 0)
        return ha_error_set(err, EINVAL, "a message of kind %d cannot be sent", message->kind);
    ha_arena_init(&codec.arena, SIZE_MAX / 2);
    r = fill_message(&codec, &wire_message_type, (const char *)message, &filled);
    if (r == 0) {
        size = protobuf_c_message_get_packed_size(filled);
        r = ha_buffer_reserve(buffer, size);
        if (r < 0) {
            ha_error_set(err, -r, "%s of %zu bytes: %s", ha_wire_body_name(message->kind), size,
                         r == -ENOMEM ? "out of memory" : "longer than a message may be");
        } else {
            protobuf_c_message_pack(filled, (uint8_t *)buffer->data + buffer->size);
            buffer->size += size;
            buffer->data[buffer->size] = '\0';
        }
    }
    ha_arena_clear(&codec.arena);
    return r;
}

/* ---- protobuf-c -> plain ------------------------------------------------------ */

static int read_message(struct codec *codec, const struct wire_type *type, const char *in,
                        char *plain);

static int read_value(struct codec *codec, const struct wire_type *type, size_t i, const char *in,
                      char *plain)
{
    const ProtobufCBinaryData *bytes = (const void *)in;

    switch (type->descriptor->fields[i].type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_message(codec, type->fields[i].type, *(const char *const *)in, plain);
    case PROTOBUF_C_TYPE_BYTES:
        *(struct ha_wire_bytes *)plain =
            (struct ha_wire_bytes){.data = bytes->data, .size = bytes->len};
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(bool *)plain = *(const protobuf_c_boolean *)in != 0;
        break;
    default:
        memcpy(plain, in, type->fields[i].bytes);
        break;
    }
    return check(codec, type, i, plain);
}

static int read_list(struct codec *codec, const struct wire_type *type, size_t i, const char *in,
                     char *plain)
{
    const ProtobufCFieldDescriptor *described = &type->descriptor->fields[i];
    const struct wire_field *field = &type->fields[i];
    size_t n = *(const size_t *)(in + described->quantifier_offset);
    const char *elements = *(const char *const *)(in + described->offset);
    size_t each = packed_value_bytes(described->type), bytes;
    char *list;

    if (n == 0)
        return 0;
    if (__builtin_mul_overflow(n, field->bytes, &bytes))
        return no_memory(codec);
    list = ha_arena_alloc(&codec->arena, bytes);
    if (!list)
        return no_memory(codec);
    *(char **)(plain + field->offset) = list;
    *(int64_t *)(plain + field->count_offset) = (int64_t)n;
    for (size_t k = 0; k < n; k++) {
        int r = read_value(codec, type, i, elements + k * each, list + k * field->bytes);

        if (r < 0)
            return r;
    }
    return 0;
}

/* in is NULL for a message that was not sent: zeros and "". */
static int read_message(struct codec *codec, const struct wire_type *type, const char *in,
                        char *plain)
{
    int r = 0;

    for (size_t i = 0; i < type->n_fields && r == 0; i++) {
        const ProtobufCFieldDescriptor *described = &type->descriptor->fields[i];
        char *out = plain + type->fields[i].offset;

        if (described->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            if (!in || *(const uint32_t *)(in + described->quantifier_offset) != described->id)
                continue;
            *(uint32_t *)(plain + type->kind_offset) = described->id;
        }
        if (described->label == PROTOBUF_C_LABEL_REPEATED)
            r = in ? read_list(codec, type, i, in, plain) : 0;
        else if (in)
            r = read_value(codec, type, i, in + described->offset, out);
        else if (described->type == PROTOBUF_C_TYPE_STRING)
            *(const char **)out = "";
        else if (described->type == PROTOBUF_C_TYPE_MESSAGE)
            r = read_message(codec, type->fields[i].type, NULL, out);
    }
    return r;
}

static void *arena_alloc(void *context, size_t size)
{
    return ha_arena_alloc(context, size);
}

static void arena_free(void *context, void *memory)
{
    (void)context; /* the arena goes as a whole */
    (void)memory;
}

/* The message is the first member, so that it stands for the whole. */
struct holder {
    struct ha_wire_message message;
    struct codec codec;
};

int ha_wire_decode(const void *bytes, size_t size, const struct ha_wire_limits *limits,
                   struct ha_wire_message **ret_message, struct ha_error *err)
{
    struct holder *holder;
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free};
    ProtobufCMessage *unpacked;
    int r;

    if (size > limits->frame_bytes)
        return ha_error_set(err, EMSGSIZE, "a frame of %zu bytes is longer than the limit of %zu",
                            size, limits->frame_bytes);
    holder = ha_calloc(1, sizeof(*holder));
    if (!holder)
        return ha_error_set(err, ENOMEM, "out of memory");
    holder->codec.fault_code = EBADMSG;
    holder->codec.err = err;
    ha_arena_init(&holder->codec.arena, limits->memory_bytes);
    allocator.allocator_data = &holder->codec.arena;
    unpacked = protobuf_c_message_unpack(wire_message_type.descriptor, &allocator, size, bytes);
    if (unpacked)
        r = read_message(&holder->codec, &wire_message_type, (const char *)unpacked,
                         (char *)&holder->message);
    else if (holder->codec.arena.full || holder->codec.arena.starved)
        r = no_memory(&holder->codec);
    else
        r = ha_error_set(err, EBADMSG, "a frame of %zu bytes is not a message", size);
    if (r < 0) {
        ha_wire_message_destroy(&holder->message);
        return r;
    }
    *ret_message = &holder->message;
    return 0;
}

void ha_wire_message_destroy(struct ha_wire_message *message)
{
    struct holder *holder = (struct holder *)message;

    if (!holder)
        return;
    ha_arena_clear(&holder->codec.arena);
    free(holder);
}

int ha_wire_copy(const struct ha_wire_message *message, struct ha_wire_message **ret_copy,
                 size_t *ret_bytes, struct ha_error *err)
{
    struct ha_buffer frame;
    int r;

    ha_buffer_init(&frame, ha_wire_default_limits.frame_bytes);
    r = ha_wire_encode(message, &frame, err);
    if (r == 0)
        r = ha_wire_decode(frame.data, frame.size, &ha_wire_default_limits, ret_copy, err);
    if (r == 0 && ret_bytes)
        *ret_bytes = frame.size;
    ha_buffer_clear(&frame);
    return r;
}

/* ---- odds ------------------------------------------------------------------------ */

const char *ha_wire_body_name(enum ha_wire_body kind)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(wire_message_type.descriptor, (unsigned)kind);

    if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return "unknown";
    return ((const ProtobufCMessageDescriptor *)field->descriptor)->short_name;
}

/* A base-128 number at *at; false when the frame ends in it. */
static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

uint64_t ha_wire_peek_request_id(const void *bytes, size_t size)
{
    enum { VARINT = 0, LENGTH = 2, REQUEST_ID = 2 };
    const uint8_t *at = bytes, *end = at + size;
    uint64_t tag, value;

    while (read_varint(&at, end, &tag) && read_varint(&at, end, &value)) {
        if (tag == (REQUEST_ID << 3 | VARINT))
            return value;
        if ((tag & 7) == LENGTH && value <= (uint64_t)(end - at))
            at += value;
        else if ((tag & 7) != VARINT)
            break;
    }
    return 0;
}
