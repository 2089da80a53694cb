/* read.c - a large submitted grid becomes its cells in memory, slice by slice (submit.h)
 *
 * Nothing of it is stored before all of it was read, and nobody is answered before that: a client
 * whose coordinator ends meanwhile asks again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/memory.h"
#include "coordinator/server/submit.h"

struct reading {
    struct ha_grid_work *work;
    struct ha_submitter submitter;
};

static void destroy(void *state)
{
    struct reading *p = state;

    ha_grid_work_destroy(p->work);
    free(p);
}

static int answer(struct ha_coordinator *c, const struct reading *p,
                  struct ha_wire_message *message, struct ha_error *err)
{
    int r;

    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = p->submitter.waiter.request_id;
    r = ha_server_hold(c, p->submitter.waiter.peer, message, err);
    return r < 0 ? r : 1;
}

static int refuse(struct ha_coordinator *c, const struct reading *p, const struct ha_error *why,
                  struct ha_error *err)
{
    const char *note = ha_error_text(why);
    struct ha_wire_message message = {
        .kind = HA_WIRE_SUBMIT_REPLY,
        .body.submit_reply = {.name = "", .outcome = "refused", .notes = &note, .n_notes = 1}};

    return answer(c, p, &message, err);
}

static int step(struct ha_coordinator *c, void *state, struct ha_error *err)
{
    struct ha_wire_message message = {0};
    struct reading *p = state;
    struct ha_by by = {.now_ms = c->wall_ms, .actor = p->submitter.waiter.client};
    struct ha_error why = {0};
    bool deferred = false;
    int r;

    HA_CRASH_POINT("coordinator.slice_reads");
    r = ha_grid_work_step(p->work, HA_SUBMIT_SLICE_POINTS, &why);
    if (r == -EINVAL || r == -E2BIG)
        return refuse(c, p, &why, err);
    if (r < 0)
        return ha_error_set(err, -r, "%s", ha_error_text(&why));
    if (r == 0)
        return 0;
    HA_CRASH_POINT("coordinator.last_read");
    r = ha_submit_take(c, &by, &p->submitter, p->work, &message, &deferred, err);
    if (r < 0)
        return r;
    return deferred ? 1 : answer(c, p, &message, err);
}

static int failed(struct ha_coordinator *c, void *state, const struct ha_error *why)
{
    struct reading *p = state;

    return ha_server_hold_error(c, p->submitter.waiter.peer, p->submitter.waiter.request_id, why);
}

int ha_chore_read(struct ha_coordinator *c, struct ha_grid_work *work,
                  const struct ha_submitter *submitter, struct ha_error *err)
{
    struct reading *p = ha_calloc(1, sizeof *p);

    if (!p) {
        ha_grid_work_destroy(work);
        return ha_error_set(err, ENOMEM, "no memory to read a grid");
    }
    *p = (struct reading){.work = work, .submitter = *submitter};
    return ha_chore_add(c,
                        &(struct ha_chore){.what = "reading the grid",
                                           .awaited = true,
                                           .waiter = &p->submitter.waiter,
                                           .step = step,
                                           .failed = failed,
                                           .destroy = destroy,
                                           .state = p},
                        err);
}
