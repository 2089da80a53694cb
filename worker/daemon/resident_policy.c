#include "worker/daemon/resident_policy.h"

#include <string.h>

int64_t resident_find(const struct resident_view *list, int64_t n, const char *key)
{
    int64_t best = -1;

    for (int64_t i = 0; i < n; i++) {
        if (!list[i].ending && strcmp(list[i].key, key) == 0 &&
            (best < 0 || list[i].since_ms > list[best].since_ms))
            best = i;
    }
    return best;
}

/* How many may be left beside a new process. */
static int64_t room_for(const struct resident_rules *rules, int64_t active, int64_t ranks)
{
    int64_t room = rules->slots - active - 1;

    return rules->shared || ranks > 1 || room < 0 ? 0 : room;
}

bool resident_has_room(int64_t n, const struct resident_rules *rules, int64_t active, int64_t ranks)
{
    return n <= room_for(rules, active, ranks);
}

int64_t resident_to_end(const struct resident_view *list, int64_t n,
                        const struct resident_rules *rules, int64_t active, int64_t ranks)
{
    int64_t staying = 0;

    for (int64_t i = 0; i < n; i++)
        staying += !list[i].ending;
    return staying > room_for(rules, active, ranks) ? resident_oldest(list, n) : -1;
}

int64_t resident_oldest(const struct resident_view *list, int64_t n)
{
    int64_t oldest = -1;

    for (int64_t i = 0; i < n; i++) {
        if (!list[i].ending && (oldest < 0 || list[i].since_ms < list[oldest].since_ms))
            oldest = i;
    }
    return oldest;
}
