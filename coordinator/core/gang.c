#include "coordinator/core/gang.h"

#include <inttypes.h>

#include "common/base/buffer.h"

static int64_t world_of(const struct ha_gang_view *view)
{
    int64_t ranks = 0;

    for (int64_t i = 0; i < view->part_count; i++)
        ranks += view->parts[i].ranks;
    return ranks;
}

int64_t ha_gang_part_of(const struct ha_gang_view *view, int64_t rank)
{
    for (int64_t i = 0; i < view->part_count; i++) {
        const struct ha_gang_part *part = &view->parts[i];

        if (rank >= part->first_rank && rank < part->first_rank + part->ranks)
            return i;
    }
    return -1;
}

int64_t ha_gang_behind(const struct ha_gang_view *view, int64_t *ret_started, int64_t *ret_most)
{
    int64_t least = -1, silent = -1, n_silent = 0, most = 0, world = world_of(view);

    for (int64_t i = 0; i < world; i++) {
        if (view->started[i] < 0) {
            silent = i;
            n_silent++;
            continue;
        }
        most = view->started[i] > most ? view->started[i] : most;
        if (least < 0 || view->started[i] < view->started[least])
            least = i;
    }
    *ret_most = most;
    if (n_silent == 1 && least >= 0) {
        *ret_started = -1;
        return silent;
    }
    if (n_silent > 0 || least < 0 || view->started[least] == most)
        return -1;
    *ret_started = view->started[least];
    return least;
}

enum weight { REFUSED, STARVED, CRASHED, LOST, STOPPED, FOLLOWED, OTHER };

/* How much it explains: less is more. */
static enum weight weight(const struct ha_gang_part *part)
{
    if (!part->ended || part->outcome == HA_OUTCOME_LOST)
        return LOST;
    switch (part->outcome) {
    case HA_OUTCOME_REFUSED:
        return REFUSED;
    case HA_OUTCOME_FAILED:
        return part->starved ? STARVED : part->followed ? FOLLOWED : CRASHED;
    case HA_OUTCOME_STOPPED:
        return STOPPED;
    default:
        return OTHER;
    }
}

static int64_t find_cause(const struct ha_gang_view *view)
{
    int64_t cause = -1;

    for (int64_t i = 0; i < view->part_count; i++) {
        const struct ha_gang_part *part = &view->parts[i];
        const struct ha_gang_part *best = cause < 0 ? NULL : &view->parts[cause];

        if (!best || weight(part) < weight(best) ||
            (weight(part) == weight(best) && part->ended && part->order < best->order))
            cause = i;
    }
    return cause;
}

static int say_late(const struct ha_gang_view *view, struct ha_buffer *reason)
{
    int64_t world = world_of(view), last = -1;
    int r = ha_buffer_printf(reason,
                             "a gang of %" PRId64 " ranks: not ready within %" PRId64 " s:", world,
                             view->time_ms / 1000);

    for (int64_t i = 0; r == 0 && i < world; i++) {
        int64_t part = ha_gang_part_of(view, i);

        if (view->ready[i])
            continue;
        if (part != last)
            r = ha_buffer_printf(reason, "%s worker %s:", last < 0 ? "" : ";",
                                 part < 0 ? "?" : view->parts[part].worker);
        if (r == 0)
            r = ha_buffer_printf(reason, " rank %" PRId64, i);
        last = part;
    }
    return r;
}

/* Not where the part that is why has it: its own words say more, and one that waited in vain may
 * have begun less than the one that it waited for has by now. */
static int say_behind(const struct ha_gang_view *view, int64_t cause, struct ha_buffer *reason)
{
    int64_t started = 0, most, rank = ha_gang_behind(view, &started, &most);
    int64_t part = ha_gang_part_of(view, rank);

    if (rank < 0 || part < 0 || part == cause)
        return 0;
    if (started < 0)
        return ha_buffer_printf(reason,
                                "; rank %" PRId64 " (worker %s) told nothing, others had "
                                "begun %" PRId64 " collectives",
                                rank, view->parts[part].worker, most);
    return ha_buffer_printf(reason,
                            "; rank %" PRId64 " (worker %s) was behind: it had begun %" PRId64
                            " collectives, others %" PRId64,
                            rank, view->parts[part].worker, started, most);
}

static int say_followers(const struct ha_gang_view *view, int64_t cause, struct ha_buffer *reason)
{
    for (int64_t i = 0; i < view->part_count; i++) {
        const struct ha_gang_part *part = &view->parts[i];

        if (i != cause && part->ended && part->outcome == HA_OUTCOME_FAILED && part->reason[0])
            return ha_buffer_printf(reason, "; worker %s: %s", part->worker, part->reason);
    }
    return 0;
}

static int say_starved(const struct ha_gang_part *part, struct ha_buffer *reason)
{
    struct ha_buffer why;
    int r;

    ha_buffer_init(&why, 0);
    r = ha_buffer_printf(&why, "worker %s: %s", part->worker, part->reason);
    if (r == 0)
        r = ha_retry_memory_reason(ha_buffer_text(&why), reason);
    ha_buffer_clear(&why);
    return r;
}

int ha_gang_judge(const struct ha_gang_view *view, enum ha_outcome *ret_outcome, int64_t *ret_part,
                  struct ha_buffer *reason)
{
    int64_t cause = find_cause(view);
    const struct ha_gang_part *part = cause < 0 ? NULL : &view->parts[cause];
    bool silent = part && !part->ended;
    int r;

    *ret_part = cause;
    *ret_outcome = !part ? HA_OUTCOME_FAILED : silent ? HA_OUTCOME_LOST : part->outcome;
    if (*ret_outcome == HA_OUTCOME_DONE)
        *ret_outcome = HA_OUTCOME_FAILED; /* one that ended well is no reason */
    if (view->late && weight(part) > CRASHED) {
        *ret_outcome = HA_OUTCOME_FAILED;
        return say_late(view, reason);
    }
    if (!part)
        return 0;
    if (weight(part) == STARVED) {
        *ret_outcome = HA_OUTCOME_REFUSED;
        return say_starved(part, reason);
    }
    r = silent ? ha_buffer_printf(reason, "worker %s did not tell how its ranks of the gang ended",
                                  part->worker)
               : ha_buffer_printf(reason, "worker %s: %s", part->worker, part->reason);
    if (r == 0 && (silent || part->outcome == HA_OUTCOME_LOST))
        r = say_followers(view, cause, reason);
    return r < 0 ? r : say_behind(view, cause, reason);
}
