/* dispatch.h - which message goes where, and who may send it */
#ifndef HA_COORDINATOR_SERVER_DISPATCH_H
#define HA_COORDINATOR_SERVER_DISPATCH_H

struct ha_error;
struct ha_request;

/* -EPROTO: the peer has not said hello; -EACCES: its role may not ask this;
 * -ENOSYS: an unknown message. */
int ha_dispatch(struct ha_request *q, struct ha_error *err);

#endif
