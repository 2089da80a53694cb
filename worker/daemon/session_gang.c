/* session_gang.c - the ranks of a gang that this worker runs (session_inside.h)
 *
 * What the coordinator has to know of them is one state (GangState), which is sent when it changes
 * and with every heartbeat, as long as an answer is waited for: until all ranks of the gang are
 * ready (GO), and, of a gang over several workers, after they have ended, until the attempt is
 * settled or over.  So a message that is lost or comes twice does no harm, and a coordinator that
 * was started anew learns all that the one before it knew. */
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "worker/daemon/session_inside.h"

bool session_gang_waits(const struct attempt *attempt)
{
    return attempt->gang.parts > 0 && !attempt->gang_gone &&
           attempt->gang_ready_count == attempt->gang.ranks;
}

bool session_gang_holds_end(const struct attempt *attempt)
{
    if (attempt->gang.parts <= 1)
        return false;
    if (attempt->gang.part > 0)
        return true;
    return !attempt->gang_settled && (attempt->failure || attempt->outcome == ATTEMPT_FAILED);
}

/* Is there a state that the coordinator has not answered for good? */
static bool has_state(const struct attempt *attempt)
{
    if (attempt->gang.parts == 0 || attempt->over || attempt->asks)
        return false;
    if (attempt->state == ENDED)
        return session_gang_holds_end(attempt);
    return !attempt->gang_gone && attempt->gang_ready;
}

void session_gang_send(struct session *session, const struct attempt *attempt)
{
    bool ended = attempt->state == ENDED;
    struct ha_wire_message message = {
        .kind = HA_WIRE_GANG_STATE,
        .body.gang_state = {.job = attempt->id.job,
                            .epoch = attempt->id.epoch,
                            .ready = attempt->gang_ready,
                            .n_ready = (int64_t)attempt->gang_ready_count,
                            .id = attempt->gang_id ? attempt->gang_id : "",
                            .ended = ended,
                            .outcome = "",
                            .reason = "",
                            .cause = ""}};
    struct ha_wire_gang_state *state = &message.body.gang_state;

    if (!session->known || !has_state(attempt))
        return;
    if (ended) {
        state->outcome = session_outcome_name(attempt->failure ? ATTEMPT_FAILED : attempt->outcome);
        state->reason = attempt->failure ? attempt->failure : attempt->end_reason;
        state->cause = session_cause(attempt);
        state->followed = attempt->gang_followed && !attempt->failure;
        state->counts = attempt->gang_counts;
        state->n_counts = attempt->gang_n_counts;
        state->log = session_gang_log(attempt);
    }
    session_send(session, &message);
}

int session_gang_begin(struct attempt *attempt, const struct ha_wire_gang *gang)
{
    attempt->gang = *gang;
    if (gang->parts == 0)
        return 0;
    attempt->gang_ready = ha_calloc(gang->ranks, sizeof(*attempt->gang_ready));
    return attempt->gang_ready ? 0 : -1;
}

void session_gang_ready(struct session *session, const struct attempt_id *id, int rank,
                        const char *comm_id)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt || attempt->over || attempt->state != RUNNING || !attempt->gang_ready ||
        attempt->gang_ready_count >= attempt->gang.ranks)
        return;
    if (comm_id[0])
        session_set_text(&attempt->gang_id, comm_id);
    attempt->gang_ready[attempt->gang_ready_count++] = (uint32_t)rank;
    session_gang_send(session, attempt);
}

void session_gang_keep_log(struct attempt *attempt, const struct ha_wire_rank_log *log)
{
    if (!log->path || !log->path[0])
        return;
    session_set_text(&attempt->gang_log_path, log->path);
    session_set_text(&attempt->gang_log_tail, log->tail);
}

struct ha_wire_rank_log session_gang_log(const struct attempt *attempt)
{
    if (attempt->outcome == ATTEMPT_STOPPED && !attempt->failure)
        return (struct ha_wire_rank_log){"", ""}; /* a rank that was asked to end did not fail */
    return (struct ha_wire_rank_log){.path = attempt->gang_log_path,
                                     .tail = attempt->gang_log_tail};
}

void session_gang_ended(struct session *session, const struct attempt_id *id, bool followed,
                        const struct ha_wire_rank_count *counts, int64_t n_counts,
                        const struct ha_wire_rank_log *log)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt || attempt->gang.parts == 0)
        return;
    session_gang_keep_log(attempt, log);
    attempt->gang_followed = followed;
    attempt->gang_counts = ha_calloc(n_counts, sizeof(*counts));
    if (!attempt->gang_counts || n_counts == 0)
        return; /* without memory nobody learns who was behind */
    memcpy(attempt->gang_counts, counts, (size_t)n_counts * sizeof(*counts));
    attempt->gang_n_counts = n_counts;
}

static void give_up(struct session *session, struct attempt *attempt, const char *reason,
                    int64_t now_ms)
{
    if (attempt->gang_aborted || attempt->state == ENDED)
        return;
    attempt->gang_aborted = true;
    session_note(session, "job %llu: the gang gives up: %s", (unsigned long long)attempt->id.job,
                 reason);
    if (attempt->state == RUNNING) {
        attempt->stopping = true;
        session->effects.gang(session->context, &attempt->id, NULL);
    } else {
        attempt->gang_followed = true;
        session_stop(session, attempt, reason, now_ms);
    }
}

void session_gang_take_order(struct session *session, const struct ha_wire_gang_order *order,
                             int64_t now_ms)
{
    const struct attempt_id id = {.job = order->job, .epoch = order->epoch};
    struct attempt *attempt = session_find(session, &id);

    if (!attempt || attempt->over || attempt->gang.parts == 0)
        return;
    switch (order->step) {
    case HA_WIRE_GANG_GO:
        if (attempt->gang_gone || attempt->state != RUNNING)
            break;
        attempt->gang_gone = true;
        attempt->progress_ms = now_ms;
        session->effects.gang(session->context, &attempt->id, order->id);
        break;
    case HA_WIRE_GANG_ABORT:
        give_up(session, attempt, order->reason, now_ms);
        break;
    case HA_WIRE_GANG_SETTLED:
        attempt->gang_settled = attempt->gang_settled || attempt->state == ENDED;
        if (attempt->gang_settled)
            session_finish(session, attempt, now_ms);
        break;
    case HA_WIRE_GANG_STALE:
        session_end_epoch(session, attempt, "its gang is over");
        break;
    default: /* for the others; or of a newer coordinator */
        break;
    }
}

void session_gang_clear(struct attempt *attempt)
{
    free(attempt->gang_ready);
    free(attempt->gang_id);
    free(attempt->gang_counts);
    free(attempt->gang_log_path);
    free(attempt->gang_log_tail);
}
