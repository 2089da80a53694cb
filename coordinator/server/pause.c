/* pause.c - what people hold back: Change "pause" and "resume" (inside.h, store/hold.h) */
#include <errno.h>
#include <inttypes.h>

#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/job.h"
#include "coordinator/store/sweep.h"

const char *ha_server_holder(struct ha_arena *arena, const struct ha_hold *hold)
{
    char stamp[HA_CLOCK_STAMP_BYTES];

    ha_clock_stamp(hold->since_ms, stamp);
    return ha_scratch_format(arena, "%s since %s%s%s", hold->actor, stamp,
                             hold->reason[0] ? ": " : "", hold->reason);
}

/* ---- what runs, and what waits -------------------------------------------------------- */

struct words {
    char text[HA_ERROR_TEXT_BYTES];
};

static int write_words(void *context, const struct ha_hold *hold)
{
    struct words *words = context;
    struct ha_error text;

    ha_error_set(&text, EINTR, "paused by %s%s%s", hold->actor, hold->reason[0] ? ": " : "",
                 hold->reason);
    ha_utf8_copy(words->text, sizeof words->text, text.text);
    return 1;
}

struct held_cell {
    struct ha_coordinator *c;
    struct words *words;
    struct ha_error *err;
};

static int find_words(void *context, const struct ha_job_cell_row *row)
{
    struct held_cell *cell = context;

    return ha_store_hold_of_result(cell->c->store, row->result, write_words, cell->words,
                                   cell->err);
}

int ha_server_stop_held(struct ha_coordinator *c, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct ha_attempt_row row;
    int64_t job = 0;
    int r;

    while ((r = ha_store_hold_next_attempt(c->store, job, &row, err)) == 1) {
        struct words words = {.text = "paused"};
        struct held_cell cell = {.c = c, .words = &words, .err = err};

        job = row.job;
        r = ha_store_job_cell_each(c->store, job, find_words, &cell, err);
        if (r >= 0)
            r = ha_server_stop_attempt(c, &by, &row, HA_STOP_PAUSE, words.text, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_server_part_held(struct ha_coordinator *c, const struct ha_by *by, int64_t sweep,
                        int64_t job, struct ha_error *err)
{
    int64_t mixed, result, cell;
    int r;

    while ((r = ha_store_hold_next_mixed(c->store, sweep, job, &mixed, &result, &cell, err)) == 1) {
        r = ha_store_job_detach(c->store, by, mixed, result, sweep, cell,
                                "it is paused, and waits in a job of its own", err);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- the request ---------------------------------------------------------------------- */

/* The model that is named (0: none was), and a strategy that exists. */
static int find_names(struct ha_request *q, int64_t sweep, int64_t *ret_model, struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    int r = 1;

    *ret_model = 0;
    if (change->model[0])
        r = ha_store_hold_model(q->c->store, sweep, change->model, ret_model, err);
    if (r == 0)
        return ha_error_set(err, ENOENT, "the sweep has no model %.100s", change->model);
    if (r > 0 && change->strategy[0])
        r = ha_store_hold_strategy(q->c->store, sweep, change->strategy, err);
    if (r == 0)
        return ha_error_set(err, ENOENT, "the sweep has no cell of strategy %.100s",
                            change->strategy);
    return r < 0 ? r : 0;
}

static int read_state(void *context, const struct ha_sweep_row *row)
{
    *(enum ha_sweep_state *)context = row->state;
    return 1;
}

/* The sweep shows whether all of it is held. */
static int show(struct ha_request *q, int64_t sweep, enum ha_sweep_state state, const char *reason,
                struct ha_error *err)
{
    int r = ha_store_hold_of_sweep(q->c->store, sweep, err);

    if (r < 0)
        return r;
    if (r == 1 && state == HA_SWEEP_RUNNING)
        return ha_store_sweep_set_state(q->c->store, &q->by, sweep, HA_SWEEP_PAUSED, reason, err);
    if (r == 0 && state == HA_SWEEP_PAUSED)
        return ha_store_sweep_set_state(q->c->store, &q->by, sweep, HA_SWEEP_RUNNING, "", err);
    return 0;
}

int64_t ha_server_pause(struct ha_request *q, int64_t sweep, const char **ret_text,
                        struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    char reason[HA_ERROR_TEXT_BYTES];
    struct ha_hold hold = {
        .sweep = sweep, .strategy = change->strategy, .finish = change->finish, .reason = reason};
    enum ha_sweep_state state = HA_SWEEP_RUNNING;
    int new = 0, r = find_names(q, sweep, &hold.model, err);

    ha_utf8_copy(reason, sizeof reason, change->reason);
    if (r == 0)
        r = ha_store_sweep_each(q->c->store, sweep, NULL, read_state, &state, err);
    if (r < 0)
        return r;
    if (state != HA_SWEEP_RUNNING && state != HA_SWEEP_PAUSED) {
        *ret_text = "nothing is left to pause";
        return 0;
    }
    r = new = ha_store_hold_put(q->c->store, &q->by, &hold, err);
    if (r >= 0)
        r = show(q, sweep, state, reason, err);
    /* All cells of a job are of one sweep. */
    if (r == 0 && (hold.model != 0 || hold.strategy[0]))
        r = ha_server_part_held(q->c, &q->by, sweep, 0, err);
    *ret_text = new == 0         ? "it was paused already"
                : change->finish ? "paused; what runs goes on to its end"
                                 : "paused; what runs stops at a checkpoint";
    return r < 0 ? r : new;
}

int64_t ha_server_resume(struct ha_request *q, int64_t sweep, const char **ret_text,
                         struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    enum ha_sweep_state state = HA_SWEEP_RUNNING;
    int64_t model, removed = 0;
    int r = find_names(q, sweep, &model, err);

    if (r == 0)
        r = ha_store_sweep_each(q->c->store, sweep, NULL, read_state, &state, err);
    if (r == 0) {
        removed = ha_store_hold_remove(q->c->store, &q->by, sweep, model, change->strategy, err);
        r = removed < 0 ? (int)removed : show(q, sweep, state, "", err);
    }
    if (r < 0)
        return r;
    *ret_text = removed > 0 ? "goes on" : "nothing of that name is paused by itself";
    return removed;
}
