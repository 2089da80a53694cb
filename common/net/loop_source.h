/* loop_source.h - how a ZeroMQ socket takes part in the turns of a loop
 *
 * ZeroMQ's descriptor only says that something may have changed, and is quiet
 * about what was left unread, so the loop asks each socket before it waits. */
#ifndef HA_COMMON_NET_LOOP_SOURCE_H
#define HA_COMMON_NET_LOOP_SOURCE_H

#include <stdbool.h>

struct ha_error;
struct ha_loop;
struct ha_loop_source;

struct ha_loop_source_ops {
    bool (*ready)(void *context); /* is there something to read now? */
    bool (*drain)(void *context); /* read a bounded number of messages: is more to be expected? */
};

int ha_loop_source_create(struct ha_loop *loop, int fd, const struct ha_loop_source_ops *ops,
                          void *context, struct ha_loop_source **ret_source, struct ha_error *err);
void ha_loop_source_destroy(struct ha_loop_source *source); /* NULL is legal */

#endif
