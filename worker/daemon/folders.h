/* folders.h - what lies in a worker's work_dir
 *
 *   lock                        held while a daemon runs here
 *   digests                     cache of model digests
 *   choices/                    what attempts have timed GPUs to choose, for later ones
 *   cache/SHA256                inputs and uploaded artifacts, by content
 *   JOB-GENERATION-NUMBER/      an attempt: job.json, inputs/, attempt.log, its files
 *
 * Attempts of an earlier daemon are dead; their folders are removed at start, except for those with
 * a journal of what they told and nobody took. */
#ifndef HA_WORKER_DAEMON_FOLDERS_H
#define HA_WORKER_DAEMON_FOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/daemon/session.h"

struct ha_error;
struct folders;

/* Make work_dir when it is not there, lock it, and clean it up.
 * -EWOULDBLOCK: another daemon works there. */
int folders_open(const char *work_dir, struct folders **ret_folders, struct ha_error *err);
void folders_close(struct folders *folders);

/* The file of the digest cache; owned by folders. */
const char *folders_digests(const struct folders *folders);

/* The folder of choices, which attempts make; owned by folders. */
const char *folders_choices(const struct folders *folders);

/* Make an attempt's folder anew.  The caller frees the path. */
int folders_make_attempt(struct folders *folders, const struct attempt_id *id, char **ret_path,
                         struct ha_error *err);

/* The folder of an earlier daemon's attempt that has a journal: each is given once.  The caller
 * frees; NULL: no more. */
char *folders_take_left(struct folders *folders, struct attempt_id *ret_id);

/* Remove an attempt's folder; one that is kept goes when five newer ones are. */
void folders_end_attempt(struct folders *folders, const char *path, bool keep);

/* Where the cache keeps this content; the caller frees; NULL without memory. */
char *folders_cached(const struct folders *folders, const char *sha256);

/* Give cached content a further name (its folders are made).  -ENOENT: not in
 * the cache. */
int folders_link(struct folders *folders, const char *sha256, const char *path,
                 struct ha_error *err);

/* Keep a file that never changes in the cache as well; failing is no loss. */
void folders_remember(struct folders *folders, const char *sha256, const char *path);

/* Remove the contents used longest ago until the cache has at most this size. */
void folders_trim(struct folders *folders, int64_t most_bytes);

#endif
