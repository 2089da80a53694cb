/* restore.h - a coordinator's folder from a backup
 *
 * A backup is a folder:
 *
 *   backup.json          {"format": 1, "database": {"sha256", "size"}, ...}
 *   coordinator.db       one file, without a log
 *   artifacts/ab/ab...   every artifact that the database names
 *
 * Everything is checked before anything is changed; then the database takes its
 * place in one rename.  What was there before stays beside it as
 * "NAME.replaced-TIME".  In between the marker file "restoring" keeps a
 * coordinator from starting; restoring again mends that. */
#ifndef HA_COORDINATOR_SERVER_RESTORE_H
#define HA_COORDINATOR_SERVER_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

struct ha_restore_options {
    const char *backup;    /* its folder */
    const char *database;  /* where the database goes; the caller holds the folder's lock */
    const char *artifacts; /* the folder of the artifacts */
    bool discard_newer;    /* also over a database that knows more than the backup */
    void (*progress)(void *context, const char *what, int64_t done, int64_t total);
    void *context;
};

struct ha_restore_report {
    int64_t sweeps, artifacts, bytes;
    int64_t placed;    /* artifacts that were not there yet */
    int64_t attempts;  /* that were open in the backup: their jobs wait for others */
    char replaced[64]; /* the suffix of what was there before; "" */
};

/* -EBADMSG (the backup is not whole; nothing was changed), -EEXIST (what is there is
 * newer), -ENOSPC ... */
int ha_restore(const struct ha_restore_options *options, struct ha_restore_report *ret_report,
               struct ha_error *err);

/* -EBUSY: a restore into this folder was cut off. */
int ha_restore_check_marker(const char *database, struct ha_error *err);

#endif
