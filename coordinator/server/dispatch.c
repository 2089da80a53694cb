#include "coordinator/server/dispatch.h"

#include <errno.h>

#include "coordinator/server/inside.h"

/* Bits of enum ha_net_role. */
#define MAY(role) (1u << (role))
#define ADMIN MAY(HA_NET_ROLE_ADMIN)
#define READERS (MAY(HA_NET_ROLE_READ) | MAY(HA_NET_ROLE_SUBMIT) | ADMIN)
#define WRITERS (MAY(HA_NET_ROLE_SUBMIT) | ADMIN)
#define WORKERS (MAY(HA_NET_ROLE_WORKER) | ADMIN)
#define JUDGES (MAY(HA_NET_ROLE_JUDGE) | ADMIN)

static const struct entry {
    enum ha_wire_body kind;
    enum ha_wire_role role; /* that the peer said hello as; UNKNOWN: any */
    unsigned keys;          /* roles of keys that may send it */
    ha_handler handler;
} table[] = {
    {HA_WIRE_HEARTBEAT, HA_WIRE_ROLE_UNKNOWN, WORKERS | JUDGES, ha_handle_heartbeat},
    {HA_WIRE_GRANT_REQUEST, HA_WIRE_ROLE_WORKER, WORKERS, ha_handle_grant_request},
    {HA_WIRE_GANG_STATE, HA_WIRE_ROLE_WORKER, WORKERS, ha_handle_gang_state},
    {HA_WIRE_REPORT, HA_WIRE_ROLE_WORKER, WORKERS, ha_handle_report},
    {HA_WIRE_ITEMS_REQUEST, HA_WIRE_ROLE_JUDGE, JUDGES, ha_handle_items_request},
    {HA_WIRE_ITEMS_BEGIN, HA_WIRE_ROLE_JUDGE, JUDGES, ha_handle_items_begin},
    {HA_WIRE_JUDGE_REPLIES, HA_WIRE_ROLE_JUDGE, JUDGES, ha_handle_judge_replies},
    {HA_WIRE_JUDGE_OUTCOMES, HA_WIRE_ROLE_JUDGE, JUDGES, ha_handle_judge_outcomes},
    {HA_WIRE_SUBMIT, HA_WIRE_ROLE_CLIENT, WRITERS, ha_handle_submit},
    {HA_WIRE_CHANGE, HA_WIRE_ROLE_CLIENT, WRITERS, ha_handle_change},
    {HA_WIRE_LIST_SWEEPS, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_list_sweeps},
    {HA_WIRE_STATUS_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_status},
    {HA_WIRE_ANSWERS_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_answers},
    {HA_WIRE_LOG_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_log},
    {HA_WIRE_WORKERS_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_workers},
    {HA_WIRE_METRICS_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_metrics},
    {HA_WIRE_NORMS_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_norms},
    {HA_WIRE_BACKUP, HA_WIRE_ROLE_CLIENT, ADMIN, ha_handle_backup},
    {HA_WIRE_GC, HA_WIRE_ROLE_CLIENT, ADMIN, ha_handle_gc},
    {HA_WIRE_HEALTH_REQUEST, HA_WIRE_ROLE_CLIENT, READERS, ha_handle_health},
};

static int check_hello(const struct ha_request *q, struct ha_error *err)
{
    static const unsigned keys[] = {
        [HA_WIRE_ROLE_UNKNOWN] = 0,
        [HA_WIRE_ROLE_CLIENT] = READERS,
        [HA_WIRE_ROLE_WORKER] = WORKERS,
        [HA_WIRE_ROLE_JUDGE] = JUDGES,
    };
    enum ha_wire_role role = q->message->body.hello.role;

    if (role <= HA_WIRE_ROLE_UNKNOWN || role > HA_WIRE_ROLE_JUDGE)
        return ha_error_set(err, EINVAL, "hello without a known role");
    if (!(keys[role] & MAY(q->origin->role)))
        return ha_error_set(err, EACCES, "the key %s has role %s, which may not do this",
                            q->origin->key, ha_net_role_name(q->origin->role));
    return 0;
}

static const struct entry *find(enum ha_wire_body kind)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].kind == kind)
            return &table[i];
    }
    return NULL;
}

int ha_dispatch(struct ha_request *q, struct ha_error *err)
{
    const struct entry *entry;
    int r;

    if (q->message->protocol != HA_WIRE_PROTOCOL)
        return ha_error_set(err, EPROTONOSUPPORT,
                            "protocol %u is not spoken here (version %s speaks %d); use the same "
                            "version everywhere",
                            q->message->protocol, q->c->version, HA_WIRE_PROTOCOL);
    if (q->message->kind == HA_WIRE_HELLO) {
        r = check_hello(q, err);
        return r < 0 ? r : ha_handle_hello(q, err);
    }
    entry = find(q->message->kind);
    if (!entry)
        return ha_error_set(err, ENOSYS, "this coordinator (version %s) does not know the request",
                            q->c->version);
    if (!q->caller)
        return ha_error_set(err, EPROTO, "hello again");
    if (!(entry->keys & MAY(q->origin->role)) ||
        (entry->role != HA_WIRE_ROLE_UNKNOWN && entry->role != q->caller->role))
        return ha_error_set(err, EACCES, "%s is not for key %s (role %s)",
                            ha_wire_body_name(q->message->kind), q->origin->key,
                            ha_net_role_name(q->origin->role));
    if (q->caller->member && q->caller->member->peer != q->origin->peer)
        return ha_error_set(err, EPROTO, "hello again: %s has another connection",
                            q->caller->member->name);
    r = q->caller->member ? ha_member_heard(q->c, &q->by, q->caller->member, err) : 0;
    return r < 0 ? r : entry->handler(q, err);
}
