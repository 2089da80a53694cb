/* notify.h - what a service tells its manager (systemd, Type=notify) */
#ifndef HA_COMMON_PROC_NOTIFY_H
#define HA_COMMON_PROC_NOTIFY_H

/* Send a state, "READY=1" or "STOPPING=1" (man sd_notify), to the socket that NOTIFY_SOCKET names.
 * Without one nothing happens; what cannot be sent is not told again. */
void ha_notify(const char *state);

#endif
