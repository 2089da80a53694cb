#include "proto/wire_rules.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "proto/wire.h"

static bool stays_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    while (*path) {
        size_t length = strcspn(path, "/");

        if (length == 0 || (length <= 2 && strncmp(path, "..", length) == 0))
            return false;
        path += length;
        if (*path == '/' && *++path == '\0')
            return false;
    }
    return true;
}

static const char *text_fault(enum wire_rule rule, const char *text)
{
    if (!text || text[0] == '\0')
        return NULL;
    if (ha_utf8_valid(text, strlen(text)) < strlen(text))
        return "is not UTF-8";
    if (rule == DIGEST && !ha_sha256_hex_valid(text))
        return "is not a SHA-256 digest of 64 hexadecimal digits";
    if (rule == INSIDE && !stays_inside(text))
        return "is not a path that stays below its folder";
    return NULL;
}

static const char *integer_fault(enum wire_rule rule, int64_t value)
{
    if (rule == COUNT && value < 0)
        return "is negative";
    if (rule == CHUNK && (value < 0 || value > HA_WIRE_CHUNK_BYTES))
        return "is not between 0 and 1 MiB";
    return NULL;
}

static const char *number_fault(enum wire_rule rule, double value)
{
    if (rule != ANY && !isfinite(value))
        return "is not finite";
    if (rule == MONEY && value < 0)
        return "is negative";
    return NULL;
}

const char *wire_rule_fault(ProtobufCType type, enum wire_rule rule, const void *value)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
        return text_fault(rule, *(const char *const *)value);
    case PROTOBUF_C_TYPE_INT64:
        return integer_fault(rule, *(const int64_t *)value);
    case PROTOBUF_C_TYPE_UINT32:
        if (rule == SCORE && (*(const uint32_t *)value < 1 || *(const uint32_t *)value > 5))
            return "is not between 1 and 5";
        return NULL;
    case PROTOBUF_C_TYPE_DOUBLE:
        return number_fault(rule, *(const double *)value);
    case PROTOBUF_C_TYPE_BYTES:
        if (rule == CHUNK && ((const struct ha_wire_bytes *)value)->size > HA_WIRE_CHUNK_BYTES)
            return "is longer than 1 MiB";
        return NULL;
    default:
        return NULL;
    }
}
