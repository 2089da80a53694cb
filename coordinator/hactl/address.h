/* address.h - where the coordinator is
 *
 * In this order: --connect, --dir, the variable HA_COORDINATOR, the user's
 * config file (~/.config/hierarchical-align/hactl.toml: keys connect, key,
 * server_key, insecure_loopback), the `endpoint` file under ./runs when there
 * is exactly one; when there is none, the only run under ./runs.  A sweep directory whose
 * coordinator is not alive gets a private one, without workers, for as long as the command runs:
 * hactl itself never opens the database. */
#ifndef HA_COORDINATOR_HACTL_ADDRESS_H
#define HA_COORDINATOR_HACTL_ADDRESS_H

struct ha_arguments;
struct ha_error;
struct ha_link;
struct ha_session;

/* Find the coordinator and say hello.  -ENOTCONN when there is none. */
int ha_session_open(const struct ha_arguments *arguments, struct ha_session **ret_session,
                    struct ha_error *err);

/* Close the connection and end a private coordinator. */
void ha_session_close(struct ha_session *session);

struct ha_link *ha_session_link(const struct ha_session *session);

/* The sweep directory, or NULL when the coordinator was found otherwise. */
const char *ha_session_dir(const struct ha_session *session);

#endif
