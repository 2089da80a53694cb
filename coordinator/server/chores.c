/* chores.c - work that is too long for one turn, a slice per turn (inside.h)
 *
 * A chore remembers in memory how far it is.  A turn that could not be stored
 * takes it back to where it was (undo); after a restart it begins from what the
 * store holds. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

int ha_chore_add(struct ha_coordinator *c, const struct ha_chore *chore, struct ha_error *err)
{
    struct ha_chore *copy = malloc(sizeof *copy), **end = &c->chores;

    if (!copy) {
        chore->destroy(chore->state);
        return ha_error_set(err, ENOMEM, "no memory for long work");
    }
    *copy = *chore;
    copy->born = c->step;
    copy->ended = 0;
    while (*end && (!copy->awaited || (*end)->awaited))
        end = &(*end)->next;
    copy->next = *end;
    *end = copy;
    return 0;
}

bool ha_chore_of_sweep(const struct ha_coordinator *c, int64_t sweep, const char *what)
{
    for (const struct ha_chore *chore = c->chores; chore; chore = chore->next) {
        if (chore->sweep == sweep && chore->ended == 0 && strcmp(chore->what, what) == 0)
            return true;
    }
    return false;
}

struct ha_chore *ha_chore_of_key(const struct ha_coordinator *c, const char *key)
{
    for (struct ha_chore *chore = c->chores; chore; chore = chore->next) {
        if (chore->waiter && chore->ended == 0 && strcmp(chore->waiter->key, key) == 0)
            return chore;
    }
    return NULL;
}

int ha_chore_admit(const struct ha_coordinator *c, const struct ha_waiter *waiter,
                   struct ha_error *err)
{
    int64_t all = 0, own = 0;

    for (const struct ha_chore *chore = c->chores; chore; chore = chore->next) {
        if (!chore->waiter || chore->ended != 0 || strcmp(chore->waiter->key, waiter->key) == 0)
            continue;
        all++;
        own += strcmp(chore->waiter->client, waiter->client) == 0;
    }
    if (c->options.max_grids_per_client > 0 && own >= c->options.max_grids_per_client)
        return ha_error_set(err, EBUSY,
                            "%" PRId64 " submitted grids of %.64s are being read already; submit "
                            "again when one is answered (max_grids_per_client in coordinator.toml)",
                            own, waiter->client);
    if (c->options.max_grids > 0 && all >= c->options.max_grids)
        return ha_error_set(err, EBUSY,
                            "%" PRId64 " submitted grids are being read already; submit again in a "
                            "while (max_grids in coordinator.toml)",
                            all);
    return 0;
}

void ha_chores_drop(struct ha_coordinator *c, int64_t sweep, const char *what)
{
    for (struct ha_chore *chore = c->chores; chore; chore = chore->next) {
        if (chore->sweep == sweep && (!what || strcmp(chore->what, what) == 0))
            chore->ended = c->step;
    }
}

static void destroy(struct ha_chore *chore)
{
    chore->destroy(chore->state);
    free(chore);
}

void ha_chores_clear(struct ha_coordinator *c)
{
    while (c->chores) {
        struct ha_chore *chore = c->chores;

        c->chores = chore->next;
        destroy(chore);
    }
}

void ha_chores_kept(struct ha_coordinator *c)
{
    struct ha_chore **at = &c->chores;

    while (*at) {
        struct ha_chore *chore = *at;

        if (chore->ended != 0) {
            *at = chore->next;
            destroy(chore);
            continue;
        }
        if (chore->keep)
            chore->keep(chore->state);
        at = &chore->next;
    }
}

void ha_chores_undone(struct ha_coordinator *c, int64_t from, bool rewind)
{
    struct ha_chore **at = &c->chores;

    while (*at) {
        struct ha_chore *chore = *at;

        if (chore->born >= from) {
            *at = chore->next;
            destroy(chore);
            continue;
        }
        if (chore->ended >= from)
            chore->ended = 0;
        if (rewind && chore->undo)
            chore->undo(chore->state);
        at = &chore->next;
    }
}

/* One savepoint per step, so that an error ends this chore alone. */
static int step(struct ha_coordinator *c, struct ha_chore *chore, struct ha_error *err)
{
    struct ha_error why = {0};
    int64_t held = c->held_count, number = ++c->step;
    int r = ha_store_mark(c->store, err);

    if (r < 0)
        return r;
    r = chore->step(c, chore->state, &why);
    if (r >= 0) {
        chore->ended = r == 1 ? number : 0;
        c->changed = true;
        return ha_store_keep(c->store, err);
    }
    ha_store_undo(c->store);
    ha_server_drop_held(c, held);
    ha_chores_undone(c, number, false);
    if (ha_store_broken(c->store))
        return ha_error_set(err, why.code, "%s", ha_error_text(&why));
    ha_log_warning("%s of sweep %lld stops: %s", chore->what, (long long)chore->sweep,
                   ha_error_text(&why));
    chore->ended = number;
    return chore->failed ? chore->failed(c, chore->state, &why) : 0;
}

int ha_chores_work(struct ha_coordinator *c, struct ha_error *err)
{
    /* Longer slices while nobody waits, or will soon: a commit costs about as much as one. */
    bool alone = c->asked_count == 0 && c->boot_ms - c->asked_ms >= HA_COORDINATOR_REST_MS;
    int64_t slices = alone ? 4 : 1;
    int64_t end_ns = ha_clock_boot_ns() + slices * c->options.slice_us * 1000;
    int r = 0;

    for (struct ha_chore *chore = c->chores; r == 0 && chore; chore = chore->next) {
        while (r == 0 && chore->ended == 0 && ha_clock_boot_ns() < end_ns)
            r = step(c, chore, err);
    }
    return r;
}

/* ---- changing many stages ------------------------------------------------------------ */

struct stages {
    int64_t sweep;
    int64_t after, kept; /* stages up to here are done, and durably so */
    enum ha_sweep_chore chore;
    char *reason;
};

static int find_stage(struct ha_coordinator *c, const struct stages *s, int64_t *ret_stage,
                      struct ha_error *err)
{
    int64_t failed = 0, cancelled = 0;
    int r = 0;

    if (s->chore == HA_CHORE_CANCEL)
        return ha_store_stage_next_open(c->store, s->sweep, 0, s->after, ret_stage, err);
    if (s->chore != HA_CHORE_REVIVE)
        r = ha_store_stage_next_retry(c->store, s->sweep, 0, s->after, &failed, err);
    if (r >= 0 && s->chore != HA_CHORE_RETRY)
        r = ha_store_stage_next(c->store, s->sweep, 0, HA_STAGE_CANCELLED, s->after, &cancelled,
                                err);
    if (r < 0)
        return r;
    *ret_stage = failed == 0 || (cancelled != 0 && cancelled < failed) ? cancelled : failed;
    return *ret_stage != 0;
}

static int change_one(struct ha_coordinator *c, void *state, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct stages *s = state;
    int64_t stage = 0;
    int r;

    HA_CRASH_POINT("coordinator.slice_changes");
    r = find_stage(c, s, &stage, err);
    if (r == 0) {
        HA_CRASH_POINT("coordinator.last_changed");
        r = ha_store_sweep_set_chore(c->store, s->sweep, HA_CHORE_NONE, err);
        return r < 0 ? r : 1;
    }
    if (r > 0 && s->chore == HA_CHORE_CANCEL) {
        r = ha_store_stage_cancel(c->store, &by, stage, s->reason, err);
        c->cancelled = true;
    } else if (r > 0) {
        r = ha_store_stage_retry(c->store, &by, stage, err);
    }
    s->after = stage;
    return r < 0 ? r : 0;
}

static void stages_keep(void *state)
{
    struct stages *s = state;

    s->kept = s->after;
}

static void stages_undo(void *state)
{
    struct stages *s = state;

    s->after = s->kept;
}

static void stages_destroy(void *state)
{
    struct stages *s = state;

    free(s->reason);
    free(s);
}

static int read_chore(void *context, const struct ha_sweep_row *row)
{
    struct stages *s = context;

    s->chore = row->chore;
    s->reason = ha_strdup(row->reason[0] ? row->reason : "cancelled");
    return s->reason ? 1 : -ENOMEM;
}

int ha_chore_stages(struct ha_coordinator *c, int64_t sweep, struct ha_error *err)
{
    struct stages *s = ha_calloc(1, sizeof *s);
    int r;

    if (!s)
        return ha_error_set(err, ENOMEM, "no memory for long work");
    s->sweep = sweep;
    r = ha_store_sweep_each(c->store, sweep, NULL, read_chore, s, err);
    if (r < 0) {
        stages_destroy(s);
        return r;
    }
    ha_chores_drop(c, sweep, "changing the stages");
    return ha_chore_add(c,
                        &(struct ha_chore){.what = "changing the stages",
                                           .sweep = sweep,
                                           .step = change_one,
                                           .keep = stages_keep,
                                           .undo = stages_undo,
                                           .destroy = stages_destroy,
                                           .state = s},
                        err);
}
