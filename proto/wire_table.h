/* wire_table.h - how the plain structs and the generated ones correspond
 *
 * A type lists the members of a plain struct in the order of their field
 * numbers, which is the order of protobuf-c's field descriptors; everything
 * else (types, labels, the generated struct's offsets) is read from those. */
#ifndef HA_PROTO_WIRE_TABLE_H
#define HA_PROTO_WIRE_TABLE_H

#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

/* What a value must obey besides being UTF-8 where it is text. */
enum wire_rule {
    ANY,
    COUNT,  /* an integer >= 0 */
    FINITE, /* a finite number */
    MONEY,  /* a finite number >= 0 */
    DIGEST, /* "" or 64 lower-case hexadecimal digits */
    INSIDE, /* "" or a relative path that stays below its folder */
    CHUNK,  /* at most HA_WIRE_CHUNK_BYTES bytes, or a count of them */
    SCORE   /* 1 to 5 */
};

struct wire_type;

struct wire_field {
    const char *name;
    size_t offset;
    size_t count_offset; /* of n_NAME when repeated */
    size_t bytes;        /* of the member; of one element when repeated */
    enum wire_rule rule;
    const struct wire_type *type; /* of a message, else NULL */
};

enum { WIRE_NO_KIND = -1 };

struct wire_type {
    const ProtobufCMessageDescriptor *descriptor;
    size_t bytes;
    long kind_offset; /* of the int that names the oneof's member, or WIRE_NO_KIND */
    const struct wire_field *fields;
    size_t n_fields;
};

/* Of struct ha_wire_message; reaches all others. */
extern const struct wire_type wire_message_type;

#endif
