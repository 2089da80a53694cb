#include "coordinator/store/request.h"

#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/store/db.h"

int ha_store_request_find(struct ha_store *store, const char *key, const char *client,
                          const char *body_sha256, struct ha_buffer *ret_reply,
                          struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT client, body_sha256, reply FROM request WHERE key = ?", "t", key);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    if (strcmp(ha_rows_text(&rows, 0), client) != 0 ||
        strcmp(ha_rows_text(&rows, 1), body_sha256) != 0) {
        r = ha_error_set(err, EEXIST, "the request key %s was used for another request", key);
    } else {
        size_t size;
        const void *bytes = ha_rows_blob(&rows, 2, &size);

        r = ha_buffer_append(ret_reply, bytes, size);
        r = r < 0 ? ha_error_set(err, -r, "no memory for a stored reply") : 1;
    }
    ha_rows_close(&rows);
    return r;
}

int ha_store_request_add(struct ha_store *store, const char *key, const char *client,
                         const char *body_sha256, const void *reply, size_t reply_bytes,
                         int64_t now_ms, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO request (key, client, body_sha256, reply, created_ms)"
                      " VALUES (?, ?, ?, ?, ?)",
                      "tttbi", key, client, body_sha256, reply, reply_bytes, now_ms);
}

int ha_store_request_prune(struct ha_store *store, int64_t now_ms, struct ha_error *err)
{
    return ha_db_exec(store, err, "DELETE FROM request WHERE created_ms < ?", "i",
                      now_ms - HA_REQUEST_KEPT_MS);
}
