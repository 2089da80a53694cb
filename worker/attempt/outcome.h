/* outcome.h - which errors another attempt would meet again */
#ifndef HA_WORKER_ATTEMPT_OUTCOME_H
#define HA_WORKER_ATTEMPT_OUTCOME_H

#include <stdbool.h>

/* error: a negative errno.  True for what is wrong with the content of files and settings, false
 * for what a machine lacks at the moment: memory, space, a file that is not there (yet), a device.
 */
bool ha_outcome_is_permanent(int error);

#endif
