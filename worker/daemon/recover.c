#include "worker/daemon/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "proto/wire.h"
#include "worker/daemon/folders.h"
#include "worker/daemon/session.h"
#include "worker/daemon/work.h"

/* What a journal has, copied. */
struct kept {
    struct ha_wire_message *message; /* a report of one event */
    char *path;
};

struct list {
    struct kept *items;
    int64_t n, capacity;
};

static void clear(struct list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        ha_wire_message_destroy(list->items[i].message);
        free(list->items[i].path);
    }
    free(list->items);
    *list = (struct list){0};
}

static int on_event(void *context, const struct ha_wire_attempt_event *event, const char *path)
{
    struct ha_wire_attempt_event one = *event;
    const struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL,
                                            .kind = HA_WIRE_REPORT,
                                            .body.report = {.events = &one, .n_events = 1}};
    struct list *list = context;
    struct kept *kept;
    int r = ha_grow((void **)&list->items, &list->capacity, list->n + 1, sizeof(*list->items));

    if (r < 0)
        return r;
    kept = &list->items[list->n];
    *kept = (struct kept){0};
    r = ha_wire_copy(&message, &kept->message, NULL, NULL);
    if (r < 0)
        return r;
    list->n++;
    if (path)
        kept->path = ha_strdup(path);
    return path && !kept->path ? -ENOMEM : 0;
}

static int tell(struct session *session, const struct attempt_id *id, const struct list *list,
                int64_t now_ms, struct ha_error *err)
{
    struct session_kept *kept = ha_calloc(list->n, sizeof(*kept));
    int r;

    if (!kept)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; i < list->n; i++)
        kept[i] = (struct session_kept){.event = &list->items[i].message->body.report.events[0],
                                        .path = list->items[i].path};
    r = session_recover(session, id, kept, list->n, now_ms, err);
    free(kept);
    return r;
}

int recover_all(struct session *session, struct folders *folders,
                const struct work_options *options, int64_t now_ms,
                int (*add)(void *context, struct work *work), void *context, struct ha_error *err)
{
    struct attempt_id id;
    char *folder;
    int r = 0;

    while (r == 0 && (folder = folders_take_left(folders, &id)) != NULL) {
        struct list list = {0};
        struct work *work = NULL;

        r = work_recover(options, &id, folder, on_event, &list, &work, err);
        if (r == 0 && list.n > 0) {
            ha_log_info("job %" PRIu64 ": an earlier process of this worker left %" PRId64
                        " results that are not delivered",
                        id.job, list.n);
            r = add(context, work);
            if (r == 0)
                r = tell(session, &id, &list, now_ms, err);
        } else if (r != -ENOMEM) {
            if (r < 0)
                ha_log_warning("job %" PRIu64 ": what an earlier process of this worker had of it "
                               "is lost: %s",
                               id.job, ha_error_text(err));
            folders_end_attempt(folders, folder, false);
            work_destroy(work);
            r = 0;
        }
        clear(&list);
        free(folder);
    }
    return r;
}
