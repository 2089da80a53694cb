/* backend.h - what attempts of this worker would compute on, as ha-attempt says */
#ifndef HA_WORKER_DAEMON_BACKEND_H
#define HA_WORKER_DAEMON_BACKEND_H

#include <stdbool.h>

/* The first line that `ha-attempt backend` prints; where it prints none in time, the name of the
 * setting (the attempt itself says what is wrong).  ret_silent (may be NULL): it did not end by
 * itself, as when the driver hangs.  The caller frees; NULL without memory. */
char *backend_describe(const char *program, const char *backend, bool *ret_silent);

#endif
