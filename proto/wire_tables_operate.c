/* The tables of wire_operate.h's messages (wire_tables.c). */
#include "proto/ha.pb-c.h"
#include "proto/wire_table_macros.h"

/* One member per line, to be compared with ha.proto. */
/* clang-format off */
static const struct wire_field backup_fields[] = {
    PLAIN(backup, key, ANY),
    PLAIN(backup, end, ANY),
};
SHARED_TYPE(backup);

static const struct wire_field backup_reply_fields[] = {
    PLAIN(backup_reply, state, ANY),
    PLAIN(backup_reply, done, COUNT),
    PLAIN(backup_reply, total, COUNT),
    PLAIN(backup_reply, sha256, DIGEST),
    PLAIN(backup_reply, size, COUNT),
    PLAIN(backup_reply, error, ANY),
    PLAIN(backup_reply, folder, ANY),
};
SHARED_TYPE(backup_reply);

static const struct wire_field gc_fields[] = {
    PLAIN(gc, dry_run, ANY),
    PLAIN(gc, older_ms, COUNT),
    PLAIN(gc, phase, ANY),
    PLAIN(gc, after, ANY),
};
SHARED_TYPE(gc);

static const struct wire_field gc_reply_fields[] = {
    PLAIN(gc_reply, phase, ANY),
    PLAIN(gc_reply, after, ANY),
    PLAIN(gc_reply, artifacts, COUNT),
    PLAIN(gc_reply, bytes, COUNT),
    LIST(gc_reply, sha256, DIGEST),
    LIST(gc_reply, why, ANY),
};
SHARED_TYPE(gc_reply);

SHARED_EMPTY(health_request);

static const struct wire_field health_reply_fields[] = {
    PLAIN(health_reply, version, ANY),
    PLAIN(health_reply, libraries, ANY),
    PLAIN(health_reply, schema, COUNT),
    PLAIN(health_reply, now_ms, COUNT),
    PLAIN(health_reply, database, ANY),
    PLAIN(health_reply, artifacts, ANY),
    PLAIN(health_reply, keys, ANY),
    PLAIN(health_reply, database_bytes, COUNT),
    PLAIN(health_reply, database_free, COUNT),
    PLAIN(health_reply, artifacts_free, COUNT),
    PLAIN(health_reply, disk_low, ANY),
    PLAIN(health_reply, artifact_count, COUNT),
    PLAIN(health_reply, artifact_bytes, COUNT),
    PLAIN(health_reply, refused, COUNT),
};
SHARED_TYPE(health_reply);
/* clang-format on */
