/* migrate.h - the numbered schemas, and bringing a database to the newest
 *
 * schema/NNNN.sql takes a database from user_version NNNN - 1 to NNNN. */
#ifndef HA_COORDINATOR_STORE_MIGRATE_H
#define HA_COORDINATOR_STORE_MIGRATE_H

struct ha_error;
struct ha_store;

/* Made from the files at build time; [n] leads to version n + 1. */
extern const char *const ha_store_schemas[];
extern const int ha_store_schema_count;

/* Is the file ours?  Changes nothing.  -EBADMSG: no database, or another
 * program's; -EPROTONOSUPPORT: a newer version's. */
int ha_store_identify(struct ha_store *store, int *ret_version, struct ha_error *err);

/* Run the schemas after version, each in a transaction of its own. */
int ha_store_migrate(struct ha_store *store, int version, struct ha_error *err);

#endif
