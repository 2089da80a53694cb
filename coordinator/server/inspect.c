#include "coordinator/server/inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/server/restore.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/store.h"

static int print_artifact(void *context, const char *sha256, int64_t size)
{
    (void)context;
    return printf("%s %" PRId64 "\n", sha256, size) < 0 ? -EIO : 0;
}

static void print_error(const struct ha_error *why)
{
    struct ha_json *json = ha_json_new_object();
    char *text = NULL;

    if (ha_json_set(json, "error", ha_json_new_string(ha_error_text(why))) == 0)
        text = ha_json_dump(json, HA_JSON_COMPACT);
    puts(text ? text : "{\"error\": \"out of memory\"}");
    free(text);
    ha_json_destroy(json);
}

static int inspect(const char *path, struct ha_error *err)
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
    return r;
}

int ha_inspect(const char *path, struct ha_error *err)
{
    int r = inspect(path, err);

    if (r < 0)
        print_error(err);
    if (fflush(stdout) == EOF)
        return ha_error_set(err, errno, "standard output: %s", strerror(errno));
    return r;
}

/* On a terminal only. */
static void on_progress(void *context, const char *what, int64_t done, int64_t total)
{
    (void)context;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s %" PRId64 " of %" PRId64 " artifacts%s", what, done, total,
                done == total ? "\n" : "");
}

int ha_restore_and_tell(const struct ha_restore_options *options, struct ha_error *err)
{
    struct ha_restore_options told = *options;
    struct ha_restore_report report;
    int r;

    told.progress = on_progress;
    r = ha_restore(&told, &report, err);
    if (r < 0)
        return r;
    printf("%s: %" PRId64 " sweeps, %" PRId64 " artifacts (%" PRId64 " MiB, %" PRId64
           " of them new here); %" PRId64 " attempts that ran when the backup was taken begin "
           "anew\n",
           told.database, report.sweeps, report.artifacts, report.bytes >> 20, report.placed,
           report.attempts);
    if (report.replaced[0])
        printf("what was there before is %s%s\n", told.database, report.replaced);
    return 0;
}
