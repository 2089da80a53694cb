#include "coordinator/core/lease.h"

#include <string.h>

bool ha_epoch_equal(struct ha_epoch a, struct ha_epoch b)
{
    return a.generation == b.generation && a.number == b.number;
}

const char *ha_liveness_name(enum ha_liveness liveness)
{
    static const char *const names[] = {"alive", "late", "lost"};

    return names[liveness];
}

enum ha_liveness ha_lease_liveness(const struct ha_lease_rules *rules, int64_t heard_ms,
                                   int64_t now_ms)
{
    int64_t silent_ms = now_ms - heard_ms;

    if (silent_ms >= rules->lost_ms && silent_ms / rules->heartbeat_ms >= HA_LEASE_MISSED)
        return HA_LOST;
    return silent_ms >= rules->late_ms ? HA_LATE : HA_ALIVE;
}

int64_t ha_lease_rest_ms(const struct ha_lease_rules *rules)
{
    int64_t rest_ms = (rules->late_ms - rules->heartbeat_ms / 5) / 2;

    return rest_ms > rules->heartbeat_ms ? rest_ms : rules->heartbeat_ms;
}

bool ha_lease_renew(const struct ha_lease_rules *rules, int64_t before_ms, int64_t turn_ms)
{
    return turn_ms - before_ms > rules->heartbeat_ms;
}

enum ha_hello_verdict ha_lease_hello(const struct ha_lease_holder *holder, const char *machine,
                                     const char *instance)
{
    if (!holder)
        return HA_HELLO_NEW;
    if (strcmp(holder->machine, machine) == 0)
        return strcmp(holder->instance, instance) == 0 ? HA_HELLO_SAME : HA_HELLO_VOIDS;
    return holder->liveness == HA_LOST ? HA_HELLO_VOIDS : HA_HELLO_REFUSED;
}
