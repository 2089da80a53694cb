/* faults.h - a bad network between a client and its server, for tests
 *
 * Part of builds with -Dfaults=true only.  A client's messages pass here on
 * their way out, and those of its server on their way in.  HA_NET_FAULTS is a
 * list of rules and a seed:
 *
 *     seed=7;drop=0.1;out:22:dup=0.5;in:25:drop=0.2;delay=0.3/400;reorder=0.2
 *
 * A rule is [out:|in:][TYPE:]FAULT=CHANCE[/MS].  TYPE is the number of the
 * envelope's body in proto/ha.proto; without it every message is meant, without
 * a direction both.  Faults: drop; dup (twice); delay (MS milliseconds later, a
 * random part of it; 200); reorder (behind the next message that passes, or MS
 * later).  Each message draws once for each rule, in their order.  HA_NET_TRACE=FILE
 * counts what was done, a line "DIRECTION TYPE FAULT" each. */
#ifndef HA_COMMON_NET_FAULTS_H
#define HA_COMMON_NET_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

struct ha_error;
struct ha_loop;
struct ha_net_faults;

/* Hand a message on after all. */
typedef void (*ha_net_pass_fn)(void *context, bool out, const void *data, size_t size);

#ifdef HA_FAULTS

/* *ret_faults is NULL where HA_NET_FAULTS is not set. */
int ha_net_faults_create(struct ha_loop *loop, ha_net_pass_fn pass, void *context,
                         struct ha_net_faults **ret_faults, struct ha_error *err);
void ha_net_faults_destroy(struct ha_net_faults *faults);

/* The connection is closed: what is held back is lost. */
void ha_net_faults_drop(struct ha_net_faults *faults);

/* Pass it on now, later, twice or never.  The callback may destroy the client,
 * and faults with it. */
void ha_net_faults_take(struct ha_net_faults *faults, bool out, const void *data, size_t size);

#else

static inline int ha_net_faults_create(struct ha_loop *loop, ha_net_pass_fn pass, void *context,
                                       struct ha_net_faults **ret_faults, struct ha_error *err)
{
    (void)loop;
    (void)pass;
    (void)context;
    (void)err;
    *ret_faults = NULL;
    return 0;
}

static inline void ha_net_faults_destroy(struct ha_net_faults *faults)
{
    (void)faults;
}

static inline void ha_net_faults_drop(struct ha_net_faults *faults)
{
    (void)faults;
}

static inline void ha_net_faults_take(struct ha_net_faults *faults, bool out, const void *data,
                                      size_t size)
{
    (void)faults;
    (void)out;
    (void)data;
    (void)size;
}

#endif

#endif
