#include "coordinator/store/migrate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "coordinator/store/db.h"
#include "coordinator/store/store.h"

static int read_versions(struct ha_store *store, int64_t *ret_application, int64_t *ret_version,
                         int64_t *ret_tables, struct ha_error *err)
{
    int r = ha_db_int(store, ret_application, err, "PRAGMA application_id", "");

    if (r >= 0)
        r = ha_db_int(store, ret_version, err, "PRAGMA user_version", "");
    if (r >= 0)
        r = ha_db_int(store, ret_tables, err, "SELECT count(*) FROM sqlite_schema", "");
    return r < 0 ? r : 0;
}

static int apply(struct ha_store *store, int version, struct ha_error *err)
{
    char mark[96];
    int r = ha_db_script(store, "BEGIN IMMEDIATE", err);

    if (r < 0)
        return r;
    snprintf(mark, sizeof mark, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             HA_STORE_APPLICATION_ID, version);
    r = ha_db_script(store, ha_store_schemas[version - 1], err);
    HA_CRASH_POINT("coordinator.in_migration");
    if (r == 0)
        r = ha_db_script(store, mark, err);
    if (r == 0)
        r = ha_db_script(store, "COMMIT", err);
    HA_CRASH_POINT("coordinator.after_migration");
    if (r < 0) {
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
        return ha_error_prefix(err, "schema %d", version);
    }
    return 0;
}

int ha_store_identify(struct ha_store *store, int *ret_version, struct ha_error *err)
{
    int64_t application = 0, version = 0, tables = 0;
    int r = read_versions(store, &application, &version, &tables, err);

    if (r < 0)
        return r;
    if (application != HA_STORE_APPLICATION_ID && (application != 0 || tables > 0))
        return ha_error_set(err, EBADMSG,
                            "%s: a database of another program (application id 0x%" PRIx64
                            "); name another file",
                            store->path, (uint64_t)application);
    if (version > ha_store_schema_count)
        return ha_error_set(err, EPROTONOSUPPORT,
                            "%s: made by a newer version (schema %" PRId64
                            ", this program knows %d); use that version",
                            store->path, version, ha_store_schema_count);
    *ret_version = (int)version;
    return 0;
}

int ha_store_migrate(struct ha_store *store, int version, struct ha_error *err)
{
    for (int next = version + 1; next <= ha_store_schema_count; next++) {
        int r = apply(store, next, err);

        if (r < 0)
            return r;
    }
    return 0;
}
