#include "coordinator/server/inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/store.h"

static int print_artifact(void *context, const char *sha256, int64_t size)
{
    (void)context;
    return printf("%s %" PRId64 "\n", sha256, size) < 0 ? -EIO : 0;
}

int ha_inspect(const char *path, struct ha_error *err)
{
    struct ha_store *store;
    struct ha_store_facts facts;
    int r = ha_store_open_copy(path, &store, err);

    if (r < 0)
        return r;
    r = ha_store_check_whole(store, err);
    if (r == 0)
        r = ha_store_facts(store, &facts, err);
    if (r == 0)
        printf("{\"schema\": %" PRId64 ", \"created_ms\": %" PRId64 ", \"sweeps\": %" PRId64
               ", \"events\": %" PRId64 ", \"last_event_ms\": %" PRId64 ", \"artifacts\": %" PRId64
               ", \"bytes\": %" PRId64 "}\n",
               facts.schema, facts.created_ms, facts.sweeps, facts.events, facts.last_event_ms,
               facts.artifacts, facts.artifact_bytes);
    if (r == 0)
        r = ha_store_artifact_each(store, print_artifact, NULL, err);
    ha_store_close(store);
    if (fflush(stdout) == EOF)
        return ha_error_set(err, errno, "standard output: %s", strerror(errno));
    return r;
}
