/* change.c - Change: cancel, retry, pause, resume */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/sweep.h"

struct change {
    struct ha_request *q;
    int64_t sweep, cell; /* cell 0: the whole sweep */
    enum ha_sweep_state state;
    int64_t open, failed, cancelled; /* stages of the sweep */
    char reason[HA_ERROR_TEXT_BYTES];
    int64_t changed;
    const char *text;
};

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct change *p = context;

    p->state = row->state;
    p->failed = row->stages_failed;
    p->cancelled = row->stages_cancelled;
    p->open = row->stages - row->stages_done - row->stages_failed - row->stages_cancelled;
    return 1;
}

/* All stages of a sweep: a flag now, the stages slice by slice. */
static int start(struct change *p, enum ha_sweep_state state, enum ha_sweep_chore chore,
                 struct ha_error *err)
{
    struct ha_coordinator *c = p->q->c;
    int r = ha_store_sweep_set_state(c->store, &p->q->by, p->sweep, state, p->reason, err);

    if (r == 0)
        r = ha_store_sweep_set_chore(c->store, p->sweep, chore, err);
    return r < 0 ? r : ha_chore_stages(c, p->sweep, err);
}

static int cancel_cell(struct change *p, struct ha_error *err)
{
    struct ha_coordinator *c = p->q->c;
    int64_t stage = 0;
    int r;

    while ((r = ha_store_stage_next_open(c->store, p->sweep, p->cell, stage, &stage, err)) == 1) {
        r = ha_store_stage_cancel(c->store, &p->q->by, stage, p->reason, err);
        if (r < 0)
            break;
        p->changed++;
    }
    c->cancelled = true;
    return r;
}

static int cancel(struct change *p, struct ha_error *err)
{
    if (!p->reason[0])
        ha_utf8_copy(p->reason, sizeof p->reason, "cancelled");
    if (p->cell != 0) {
        int r = cancel_cell(p, err);

        p->text = p->changed > 0 ? "cancelled" : "nothing is left to cancel";
        return r;
    }
    /* A sweep that ended stays what it is. */
    if (p->state == HA_SWEEP_DONE || p->state == HA_SWEEP_GAPS || p->state == HA_SWEEP_CANCELLED) {
        p->text = "nothing is left to cancel";
        return 0;
    }
    p->text = "cancelled";
    p->changed = p->open;
    if (ha_store_hold_remove(p->q->c->store, &p->q->by, p->sweep, 0, "", err) < 0)
        return -EIO;
    return start(p, HA_SWEEP_CANCELLED, HA_CHORE_CANCEL, err);
}

static int retry_cell(struct change *p, bool failed_only, struct ha_error *err)
{
    struct ha_coordinator *c = p->q->c;
    int64_t stage = 0;
    int r;

    while ((r = ha_store_stage_next_retry(c->store, p->sweep, p->cell, stage, &stage, err)) == 1) {
        r = ha_store_stage_retry(c->store, &p->q->by, stage, err);
        if (r < 0)
            return r;
        p->changed += r;
    }
    stage = 0;
    while (r == 0 && !failed_only &&
           (r = ha_store_stage_next(c->store, p->sweep, p->cell, HA_STAGE_CANCELLED, stage, &stage,
                                    err)) == 1) {
        r = ha_store_stage_retry(c->store, &p->q->by, stage, err);
        if (r < 0)
            return r;
        p->changed += r;
        r = 0;
    }
    return r;
}

static int retry(struct change *p, struct ha_error *err)
{
    bool failed_only = p->q->message->body.change.failed_only;

    p->text = "waits for another attempt";
    p->reason[0] = '\0';
    if (p->cell != 0) {
        int r = retry_cell(p, failed_only, err);

        if (p->changed == 0)
            p->text = "nothing failed or was cancelled";
        if (r == 0 && p->changed > 0 && p->state != HA_SWEEP_PAUSED)
            r = ha_store_sweep_set_state(p->q->c->store, &p->q->by, p->sweep, HA_SWEEP_RUNNING, "",
                                         err);
        return r;
    }
    p->changed = p->failed + (failed_only ? 0 : p->cancelled);
    return start(p, p->state == HA_SWEEP_PAUSED ? HA_SWEEP_PAUSED : HA_SWEEP_RUNNING,
                 failed_only ? HA_CHORE_RETRY : HA_CHORE_RETRY_ALL, err);
}

static int set_paused(struct change *p, bool paused, struct ha_error *err)
{
    if (p->cell != 0)
        return ha_error_set(err, EINVAL,
                            "name a model's row or a strategy's column, not a cell: "
                            "SWEEP/model/strategy");
    p->changed = paused ? ha_server_pause(p->q, p->sweep, &p->text, err)
                        : ha_server_resume(p->q, p->sweep, &p->text, err);
    return p->changed < 0 ? (int)p->changed : 0;
}

static int apply(struct change *p, const char *verb, struct ha_error *err)
{
    if (strcmp(verb, "cancel") == 0)
        return cancel(p, err);
    if (strcmp(verb, "retry") == 0)
        return retry(p, err);
    if (strcmp(verb, "pause") == 0)
        return set_paused(p, true, err);
    if (strcmp(verb, "resume") == 0)
        return set_paused(p, false, err);
    if (strcmp(verb, "set") == 0) {
        p->changed = p->q->message->body.change.n_settings;
        return p->state == HA_SWEEP_CANCELLED
                   ? ha_error_set(err, EINVAL, "the sweep is cancelled; submit it again")
                   : ha_server_set(p->q, p->sweep, &p->text, err);
    }
    return ha_error_set(err, ENOSYS, "this coordinator does not know the verb \"%.20s\"", verb);
}

static int change_sweep(struct change *p, struct ha_error *err)
{
    const struct ha_wire_change *change = &p->q->message->body.change;
    int r = ha_server_find_sweep(p->q->c, change->sweep, &p->sweep, err);

    if (r == 0)
        r = ha_server_find_cell(p->q->c, p->sweep, change->cell, &p->cell, err);
    if (r == 0)
        r = ha_store_sweep_each(p->q->c->store, p->sweep, NULL, read_sweep, p, err);
    if (r < 0)
        return r;
    ha_utf8_copy(p->reason, sizeof p->reason, change->reason);
    return apply(p, change->verb, err);
}

int ha_handle_change(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    bool of_worker = strcmp(change->verb, "drain") == 0 || strcmp(change->verb, "undrain") == 0;
    struct change p = {.q = q, .text = ""};
    int r = ha_server_once(q, change->key, err);

    if (r != 0)
        return r < 0 ? r : 0;
    r = of_worker ? ha_server_drain(q, strcmp(change->verb, "drain") == 0, &p.changed, &p.text, err)
                  : change_sweep(&p, err);
    if (r < 0 || q->deferred)
        return r < 0 ? r : 0;
    q->c->changed = true;
    q->reply.kind = HA_WIRE_CHANGE_REPLY;
    q->reply.body.change_reply =
        (struct ha_wire_change_reply){.changed = p.changed, .text = p.text};
    return ha_server_once_store(q->c, change->key, q->origin->key, q->hash, &q->reply, err);
}
