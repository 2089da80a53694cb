/* artifact.h - stored files, and what attempts made of them */
#ifndef HA_COORDINATOR_STORE_ARTIFACT_H
#define HA_COORDINATOR_STORE_ARTIFACT_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_store;

/* A file of this hash is on disk, complete and synced.  Again is legal, and makes it as young as a
 * new one (gc.h). */
int ha_store_artifact_add(struct ha_store *store, const char *sha256, int64_t size, int64_t now_ms,
                          struct ha_error *err);

/* 1 or 0, or a negative errno; ret_size may be NULL. */
int ha_store_artifact_find(struct ha_store *store, const char *sha256, int64_t *ret_size,
                           struct ha_error *err);

typedef int (*ha_artifact_fn)(void *context, const char *sha256, int64_t size);

/* All, by hash. */
int ha_store_artifact_each(struct ha_store *store, ha_artifact_fn fn, void *context,
                           struct ha_error *err);

struct ha_product {
    int64_t job, number; /* the attempt */
    int64_t result;      /* 0: of the attempt as a whole */
    const char *kind;    /* "adapter", "checkpoint", "log"; references: reference.h */
    const char *name;
    int64_t step; /* of a checkpoint, else 0 */
    const char *sha256;
    int64_t size;
};

/* A later one of the same (result, kind, step, name) replaces the earlier.
 * The artifact must be there: else -EEXIST. */
int ha_store_product_add(struct ha_store *store, const struct ha_product *product,
                         struct ha_error *err);

/* What a sweep stores: its data files, the files that its jobs made, and the rows that were counted
 * for it (HA_ROW_...): a counter that is kept, nothing is counted here.  Of a job's sweep when
 * sweep is 0.  ret_name (64 bytes or more) may be NULL. */
int ha_store_stored_bytes(struct ha_store *store, int64_t sweep, int64_t job, int64_t *ret_bytes,
                          char *ret_name, struct ha_error *err);

/* What a row counts beside its texts, about as it takes with its indices.  Triggers count the upper
 * ones (schema 13), and the grid's text. */
enum {
    HA_ROW_CELL = 100,  /* and its name; its settings where no other cell has the same */
    HA_ROW_STAGE = 700, /* with its result and job */
    HA_ROW_ATTEMPT = 200,
    HA_ROW_EVENT = 100, /* and its reason */
    HA_ROW_ITEM = 150,
    HA_ROW_CALL = 200, /* and its reply */
    HA_ROW_ANSWER = 200,
    HA_ROW_METRIC = 64,
    HA_ROW_SCORE = 40
};

/* Count rows that were stored for a job's sweep, or for a judge's (job 0).  A sweep that takes over
 * what another stored does not count it. */
int ha_store_count_rows(struct ha_store *store, int64_t job, int64_t judge, int64_t bytes,
                        struct ha_error *err);

typedef int (*ha_product_fn)(void *context, const struct ha_product *product);

/* Products of a result, by kind and then newest step first; kind NULL: all. */
int ha_store_product_each(struct ha_store *store, int64_t result, const char *kind,
                          ha_product_fn fn, void *context, struct ha_error *err);

/* Of the attempts of a job as a whole, newest attempt first. */
int ha_store_product_each_of_job(struct ha_store *store, int64_t job, ha_product_fn fn,
                                 void *context, struct ha_error *err);

/* Something does not need the artifact any more: when nothing does, its row is
 * deleted and fn called with its hash. */
typedef int (*ha_orphan_fn)(void *context, const char *sha256);
int ha_store_artifact_release(struct ha_store *store, const char *sha256, ha_orphan_fn fn,
                              void *context, struct ha_error *err);

/* Keep the checkpoints of the last `keep` steps of a result, and release the others. */
int ha_store_checkpoint_prune(struct ha_store *store, int64_t result, int64_t keep, ha_orphan_fn fn,
                              void *context, struct ha_error *err);

#endif
