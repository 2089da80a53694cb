#include "tests/unit/wire/random_message.h"

#include <string.h>

#include "proto/wire_table.h"

/* Where numbers and memory come from. */
struct maker {
    struct ha_arena *arena;
    uint64_t state;
};

uint64_t random_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 20;
}

static void make_message(struct maker *maker, const struct wire_type *type, char *plain,
                         int choice);

static const char *make_text(struct maker *maker, enum wire_rule rule)
{
    static const char *const texts[] = {"", "a", "ünï/çødé 漢字 😀", "two\nlines\t\"quoted\""};

    if (rule == DIGEST)
        return random_bits(&maker->state) % 2 ? DIGEST_TEXT : "";
    if (rule == INSIDE)
        return random_bits(&maker->state) % 2 ? "inputs/a..b/c" : "";
    return texts[random_bits(&maker->state) % 4];
}

static void make_bytes(struct maker *maker, size_t size, struct ha_wire_bytes *ret_bytes)
{
    uint8_t *data = size ? ha_arena_alloc(maker->arena, size) : NULL;

    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)random_bits(&maker->state);
    *ret_bytes = (struct ha_wire_bytes){.data = data, .size = size};
}

static void make_value(struct maker *maker, const ProtobufCFieldDescriptor *in,
                       const struct wire_field *field, char *plain)
{
    uint64_t bits = random_bits(&maker->state);

    bits <<= random_bits(&maker->state) % 20;
    switch (in->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        make_message(maker, field->type, plain, (int)(bits % 5));
        return;
    case PROTOBUF_C_TYPE_STRING:
        *(const char **)plain = make_text(maker, field->rule);
        return;
    case PROTOBUF_C_TYPE_BYTES:
        make_bytes(maker, bits % 100, (struct ha_wire_bytes *)plain);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        *(bool *)plain = bits & 1;
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)plain = (double)bits / 7;
        return;
    case PROTOBUF_C_TYPE_ENUM:
        *(uint32_t *)plain = bits % 4;
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
        *(uint32_t *)plain = (uint32_t)(field->rule == SCORE ? 1 + bits % 5 : bits);
        return;
    default:
        if (field->rule == CHUNK)
            bits %= HA_WIRE_CHUNK_BYTES + 1;
        *(uint64_t *)plain = field->rule == ANY ? bits : bits >> 1;
        return;
    }
}

/* choice: which member of the oneof. */
static void make_message(struct maker *maker, const struct wire_type *type, char *plain, int choice)
{
    int seen = 0;

    for (size_t i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *in = &type->descriptor->fields[i];
        const struct wire_field *field = &type->fields[i];
        char *at = plain + field->offset;
        int64_t n = 1;

        if (in->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            if (seen++ != choice)
                continue;
            *(uint32_t *)(plain + type->kind_offset) = in->id;
        }
        if (in->label == PROTOBUF_C_LABEL_REPEATED) {
            n = (int64_t)(random_bits(&maker->state) % 4);
            *(int64_t *)(plain + field->count_offset) = n;
            if (n == 0)
                continue;
            at = *(char **)at = ha_arena_alloc(maker->arena, (size_t)n * field->bytes);
        }
        for (int64_t k = 0; k < n; k++)
            make_value(maker, in, field, at + (size_t)k * field->bytes);
    }
}

int random_message_bodies(void)
{
    /* All fields but the version and the request id. */
    return (int)wire_message_type.n_fields - 2;
}

void random_message(struct ha_arena *arena, uint64_t seed, int body,
                    struct ha_wire_message *ret_message)
{
    struct maker maker = {.arena = arena, .state = seed};

    memset(ret_message, 0, sizeof(*ret_message));
    make_message(&maker, &wire_message_type, (char *)ret_message, body);
}
