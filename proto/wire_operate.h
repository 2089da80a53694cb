/* wire_operate.h - the messages of backup, gc and doctor (wire.h) */
#ifndef HA_PROTO_WIRE_OPERATE_H
#define HA_PROTO_WIRE_OPERATE_H

#include <stdbool.h>
#include <stdint.h>

/* Begin a copy of the database, or ask how far it is: the key names it.  It stays until it is
 * ended, or nobody asked for ten minutes; as long as it is there, no artifact that it names is
 * removed. */
struct ha_wire_backup {
    const char *key;
    bool end;
};

struct ha_wire_backup_reply {
    const char *state; /* "copying" | "hashing" | "ready" | "failed" | "ended" */
    int64_t done;      /* pages */
    int64_t total;
    const char *sha256; /* of the copy, which can be read like an artifact; ready only */
    int64_t size;
    const char *error;  /* of failed */
    const char *folder; /* of the artifacts, on the coordinator's machine */
};

/* Remove artifacts that nothing needs: one slice, and what comes after it. */
struct ha_wire_gc {
    bool dry_run;
    int64_t older_ms;  /* nothing younger */
    const char *phase; /* "" begins; then as the reply says */
    const char *after;
};

struct ha_wire_gc_reply {
    const char *phase; /* of the next request; "" when all is done */
    const char *after;
    int64_t artifacts; /* removed, or to be removed, in this slice */
    int64_t bytes;
    const char **sha256; /* theirs */
    int64_t n_sha256;
    const char **why; /* of each: what it was */
    int64_t n_why;
};

struct ha_wire_health_request {
    char none; /* always 0; C has no empty structs */
};

struct ha_wire_health_reply {
    const char *version;
    const char *libraries; /* "SQLite 3.40.1, libzmq 4.3.4" */
    int64_t schema;
    int64_t now_ms;       /* wall clock */
    const char *database; /* paths on the coordinator's machine */
    const char *artifacts;
    const char *keys; /* "" when it serves without keys */
    int64_t database_bytes;
    int64_t database_free; /* bytes free on the disk below it */
    int64_t artifacts_free;
    const char *disk_low; /* why submits are refused; "" */
    int64_t artifact_count;
    int64_t artifact_bytes;
    int64_t refused; /* messages of keys that are not allowed, and over limits */
};

#endif
