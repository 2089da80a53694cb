/* wire_table_macros.h - how the rows of the tables are written (wire_tables*.c)
 *
 * After ha.pb-c.h, which is made by the build. */
#ifndef HA_PROTO_WIRE_TABLE_MACROS_H
#define HA_PROTO_WIRE_TABLE_MACROS_H

#include "proto/wire.h"
#include "proto/wire_table.h"

#define MEMBER(type, member) (((struct ha_wire_##type *)0)->member)

/* The parts of a table entry: where a member is, and the size of one value. */
#define AT(type, member) .offset = offsetof(struct ha_wire_##type, member)
#define ONE(type, member) AT(type, member), .bytes = sizeof(MEMBER(type, member))
#define MANY(type, member)                                                                         \
    AT(type, member), .count_offset = offsetof(struct ha_wire_##type, n_##member),                 \
                      .bytes = sizeof(*MEMBER(type, member))

#define PLAIN(holder, member, check)                                                               \
    {                                                                                              \
        .name = #member, ONE(holder, member), .rule = check                                        \
    }
#define LIST(holder, member, check)                                                                \
    {                                                                                              \
        .name = #member, MANY(holder, member), .rule = check                                       \
    }
#define SUB(holder, member, sub)                                                                   \
    {                                                                                              \
        .name = #member, ONE(holder, member), .type = &sub##_type                                  \
    }
#define SUBS(holder, member, sub)                                                                  \
    {                                                                                              \
        .name = #member, MANY(holder, member), .type = &sub##_type                                 \
    }
#define CHOICE(holder, group, member, sub)                                                         \
    {                                                                                              \
        .name = #member, ONE(holder, group.member), .type = &sub##_type                            \
    }

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define TYPE(name)                                                                                 \
    static const struct wire_type name##_type = {&ha__##name##__descriptor,                        \
                                                 sizeof(struct ha_wire_##name), WIRE_NO_KIND,      \
                                                 name##_fields, COUNT_OF(name##_fields)}
#define SHARED_TYPE(name)                                                                          \
    const struct wire_type name##_type = {&ha__##name##__descriptor,                               \
                                          sizeof(struct ha_wire_##name), WIRE_NO_KIND,             \
                                          name##_fields, COUNT_OF(name##_fields)}
#define SHARED_EMPTY(name)                                                                         \
    const struct wire_type name##_type = {&ha__##name##__descriptor,                               \
                                          sizeof(struct ha_wire_##name), WIRE_NO_KIND, NULL, 0}
#define EMPTY(name)                                                                                \
    static const struct wire_type name##_type = {                                                  \
        &ha__##name##__descriptor, sizeof(struct ha_wire_##name), WIRE_NO_KIND, NULL, 0}

/* Of other files, for the table of the envelope. */
extern const struct wire_type backup_type, backup_reply_type, gc_type, gc_reply_type,
    health_request_type, health_reply_type;

#endif
