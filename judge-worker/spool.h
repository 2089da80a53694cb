/* spool.h - replies on disk until the coordinator has them
 *
 * One append-only file in a folder that one judge worker owns:
 *
 *     R <SHA-256 of header and raw> <bytes of header> <bytes of raw>\n
 *     <header: record.h as JSON>\n
 *     <raw>\n
 *     D <call>\n                         its record is no longer needed
 *
 * A record counts once ha_judge_spool_sync has returned.  What a crash left
 * half-written at the end is cut off.  A record whose hash does not fit is
 * damage: the file is set aside under another name and what was read before it
 * is kept.  When nothing is needed any more the file is emptied. */
#ifndef HA_JUDGE_WORKER_SPOOL_H
#define HA_JUDGE_WORKER_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "judge-worker/record.h"

struct ha_error;
struct ha_judge_spool;

/* Called for every record that is still needed, in order of writing; the record
 * is borrowed. */
typedef int (*ha_judge_spool_fn)(void *context, const struct ha_judge_record *record,
                                 struct ha_error *err);

/* Open the folder (made when it is not there), take its lock, offer what it
 * holds to fn.  *ret_note: a line for the operator when something was set aside,
 * which the caller frees, or NULL.  -EWOULDBLOCK when another process has it. */
int ha_judge_spool_open(const char *dir, ha_judge_spool_fn fn, void *context,
                        struct ha_judge_spool **ret_spool, char **ret_note, struct ha_error *err);
void ha_judge_spool_close(struct ha_judge_spool *spool);

/* Append.  After an error the file is as before. */
int ha_judge_spool_add(struct ha_judge_spool *spool, const struct ha_judge_record *record,
                       struct ha_error *err);

/* All that was added is on disk.  When this fails the disk cannot be trusted any
 * more, and the program should end. */
int ha_judge_spool_sync(struct ha_judge_spool *spool, struct ha_error *err);

/* A call's record is no longer needed; calls that are not in it are passed over. */
void ha_judge_spool_drop(struct ha_judge_spool *spool, uint64_t call);

/* Records that are needed. */
int64_t ha_judge_spool_count(const struct ha_judge_spool *spool);

#endif
