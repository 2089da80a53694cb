#include "common/io/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"

/* Fields of event.proto and summary.proto that are written. */
enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_VERSION = 3,
    EVENT_SUMMARY = 5,
    SUMMARY_VALUE = 1,
    VALUE_TAG = 1,
    VALUE_SIMPLE = 2
};

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct ha_events {
    FILE *file;
    char *path;
};

/* CRC-32C (Castagnoli), reflected polynomial 0x82f63b78. */
static uint32_t crc32c(const uint8_t *bytes, size_t size)
{
    uint32_t crc = 0xffffffff;

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

/* TFRecord's mask, so that the CRC of bytes that hold a CRC stays useful. */
static uint32_t masked_crc(const uint8_t *bytes, size_t size)
{
    uint32_t crc = crc32c(bytes, size);

    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static int put_varint(struct ha_buffer *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value);
    return ha_buffer_append(out, bytes, n);
}

static int put_key(struct ha_buffer *out, int field, int type)
{
    return put_varint(out, (uint64_t)(field << 3 | type));
}

static int put_fixed(struct ha_buffer *out, uint64_t value, size_t bytes)
{
    uint8_t little[8];

    for (size_t i = 0; i < bytes; i++)
        little[i] = (uint8_t)(value >> (8 * i));
    return ha_buffer_append(out, little, bytes);
}

static int put_bytes(struct ha_buffer *out, int field, const void *bytes, size_t size)
{
    int r = put_key(out, field, WIRE_BYTES);

    if (r == 0)
        r = put_varint(out, size);
    return r < 0 ? r : ha_buffer_append(out, bytes, size);
}

static int put_wall_time(struct ha_buffer *out, int64_t wall_ms)
{
    double seconds = (double)wall_ms / 1000;
    uint64_t bits;
    int r = put_key(out, EVENT_WALL_TIME, WIRE_64);

    memcpy(&bits, &seconds, sizeof(bits));
    return r < 0 ? r : put_fixed(out, bits, 8);
}

static int write_record(struct ha_events *events, const struct ha_buffer *event,
                        struct ha_error *err)
{
    const uint8_t *data = (const uint8_t *)event->data;
    struct ha_buffer record;
    int r;

    ha_buffer_init(&record, 0);
    r = put_fixed(&record, event->size, 8);
    if (r == 0)
        r = put_fixed(&record, masked_crc((const uint8_t *)record.data, 8), 4);
    if (r == 0)
        r = ha_buffer_append(&record, data, event->size);
    if (r == 0)
        r = put_fixed(&record, masked_crc(data, event->size), 4);
    if (r < 0)
        r = ha_error_set(err, ENOMEM, "%s: out of memory", events->path);
    else if (fwrite(record.data, 1, record.size, events->file) != record.size ||
             fflush(events->file) != 0)
        r = ha_error_set(err, errno, "%s: %s", events->path, strerror(errno));
    ha_buffer_clear(&record);
    return r;
}

static int write_version(struct ha_events *events, int64_t wall_ms, struct ha_error *err)
{
    static const char version[] = "brain.Event:2";
    struct ha_buffer event;
    int r;

    ha_buffer_init(&event, 0);
    r = put_wall_time(&event, wall_ms);
    if (r == 0)
        r = put_bytes(&event, EVENT_VERSION, version, sizeof(version) - 1);
    r = r < 0 ? ha_error_set(err, ENOMEM, "%s: out of memory", events->path)
              : write_record(events, &event, err);
    ha_buffer_clear(&event);
    return r;
}

int ha_events_create(const char *dir, int64_t wall_ms, struct ha_events **ret_events,
                     struct ha_error *err)
{
    struct ha_events *events;
    int r = ha_path_make_dirs(dir, 0777, err);

    if (r < 0)
        return r;
    events = ha_calloc(1, sizeof(*events));
    if (events)
        events->path =
            ha_format("%s/events.out.tfevents.%lld.ha", dir, (long long)(wall_ms / 1000));
    if (!events || !events->path) {
        r = ha_error_set(err, ENOMEM, "%s: out of memory", dir);
    } else {
        events->file = fopen(events->path, "wbe");
        r = events->file ? write_version(events, wall_ms, err)
                         : ha_error_set(err, errno, "%s: %s", events->path, strerror(errno));
    }
    if (r < 0) {
        ha_events_destroy(events);
        return r;
    }
    *ret_events = events;
    return 0;
}

int ha_events_scalar(struct ha_events *events, int64_t wall_ms, int64_t step, const char *tag,
                     float value, struct ha_error *err)
{
    struct ha_buffer inner, summary, event;
    uint32_t bits;
    int r;

    memcpy(&bits, &value, sizeof(bits));
    ha_buffer_init(&inner, 0);
    ha_buffer_init(&summary, 0);
    ha_buffer_init(&event, 0);
    r = put_bytes(&inner, VALUE_TAG, tag, strlen(tag));
    if (r == 0)
        r = put_key(&inner, VALUE_SIMPLE, WIRE_32);
    if (r == 0)
        r = put_fixed(&inner, bits, 4);
    if (r == 0)
        r = put_bytes(&summary, SUMMARY_VALUE, inner.data, inner.size);
    if (r == 0)
        r = put_wall_time(&event, wall_ms);
    if (r == 0)
        r = put_key(&event, EVENT_STEP, WIRE_VARINT);
    if (r == 0)
        r = put_varint(&event, (uint64_t)step);
    if (r == 0)
        r = put_bytes(&event, EVENT_SUMMARY, summary.data, summary.size);
    r = r < 0 ? ha_error_set(err, ENOMEM, "%s: out of memory", events->path)
              : write_record(events, &event, err);
    ha_buffer_clear(&inner);
    ha_buffer_clear(&summary);
    ha_buffer_clear(&event);
    return r;
}

void ha_events_destroy(struct ha_events *events)
{
    if (!events)
        return;
    if (events->file)
        (void)fclose(events->file);
    free(events->path);
    free(events);
}
