/* health.c - HealthRequest: what only the coordinator knows of itself (inside.h) */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/base/path.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/backup.h"

/* Bytes free below a folder; 0 when it cannot be asked. */
static int64_t free_below(const char *path)
{
    struct statvfs fs;

    if (!path || statvfs(path, &fs) < 0)
        return 0;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

static int64_t size_of(const char *path)
{
    struct stat st;

    return path && stat(path, &st) == 0 ? st.st_size : 0;
}

int ha_handle_health(struct ha_request *q, struct ha_error *err)
{
    const struct ha_coordinator_options *options = &q->c->options;
    struct ha_wire_health_reply *reply = &q->reply.body.health_reply;
    char *dir = options->database ? ha_path_dirname(options->database) : NULL;
    struct ha_store_facts facts;
    int r = ha_store_facts(q->c->store, &facts, err);

    q->reply.kind = HA_WIRE_HEALTH_REPLY;
    *reply = (struct ha_wire_health_reply){
        .version = q->c->version,
        .libraries = options->libraries,
        .now_ms = q->c->wall_ms,
        .database = options->database,
        .artifacts = options->artifacts,
        .keys = options->keys,
        .database_bytes = size_of(options->database),
        .database_free = free_below(dir),
        .artifacts_free = free_below(options->artifacts),
        .disk_low = q->c->disk_low,
        .refused = q->c->refused,
    };
    if (r == 0) {
        reply->schema = facts.schema;
        reply->artifact_count = facts.artifacts;
        reply->artifact_bytes = facts.artifact_bytes;
    }
    free(dir);
    return r;
}
