/* errands.h - what transfers are under way for
 *
 * A content that several attempts need is fetched once: their errands have the same tag. */
#ifndef HA_WORKER_DAEMON_ERRANDS_H
#define HA_WORKER_DAEMON_ERRANDS_H

#include "common/base/hash.h"
#include "worker/daemon/session.h"

struct errand {
    struct errand *next;
    uint64_t tag;
    struct attempt_id id;
    bool is_upload;
    int64_t number;                   /* of an upload */
    char sha256[HA_SHA256_HEX_BYTES]; /* of a download */
};

/* Zeroed at first. */
struct errands {
    struct errand *first;
    uint64_t last_tag;
};

/* A new one, with a tag of its own; NULL: no memory. */
struct errand *errands_add(struct errands *errands, const struct attempt_id *id);

/* A download of the content that is under way; NULL: none. */
const struct errand *errands_download(const struct errands *errands, const char *sha256);

/* Off the list: all with the tag, the caller's to free. */
struct errand *errands_take(struct errands *errands, uint64_t tag);

void errands_clear(struct errands *errands);

#endif
