/* identity.h - what tells this worker from others */
#ifndef HA_WORKER_DAEMON_IDENTITY_H
#define HA_WORKER_DAEMON_IDENTITY_H

#include <stdint.h>

struct ha_error;

enum { IDENTITY_INSTANCE_BYTES = 33 };

/* Cores that this process may use. */
int64_t identity_cores(void);

/* What tells this machine from others: its machine id and name; to be freed, NULL without
 * memory. */
char *identity_machine(const char *host);

/* Random text of this process. */
int identity_instance(char instance[IDENTITY_INSTANCE_BYTES], struct ha_error *err);

#endif
