/* device_policy.h - may this GPU be given to an attempt?
 *
 * Pure: readings and events come in, states and reasons come out; time is an argument.
 *
 *   held --its memory is seen free--> free --given to an attempt--> busy --it ended--> held
 *   any --trouble--> aside --healthy again, or the operator's word--> held
 *
 * held: memory that another program holds, or that an attempt left behind, is not free yet.  Only a
 * reading that began after the attempt had ended counts.  A device that cannot be read, or whose
 * memory is still held release_ms after its attempt, is aside until that is over.  Others are
 * suspected, and aside until ha_device_accept: for new uncorrected ECC errors, for an XID of broken
 * hardware, for a check before an attempt that failed, and when attempts of `failures` different
 * jobs in a row failed on it while one on another device of this worker came to a good end.  (Where
 * all fail, the jobs or the whole worker are to blame: the coordinator sees which.)  Of suspected
 * ones no more than max_aside are taken away: more at once tell of a cause that is not in the
 * devices.
 */
#ifndef HA_WORKER_DAEMON_DEVICE_POLICY_H
#define HA_WORKER_DAEMON_DEVICE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/daemon/nvml.h"

enum ha_device_state { HA_DEVICE_HELD, HA_DEVICE_FREE, HA_DEVICE_BUSY, HA_DEVICE_ASIDE };

struct ha_device_rules {
    int64_t free_bytes; /* so much memory in use counts as none: what the driver keeps */
    int64_t release_ms; /* until an ended attempt's memory must be free */
    int64_t stale_ms;   /* a driver that does not answer for so long is trouble */
    int64_t failures;   /* different jobs that fail in a row; 0: never set aside for it */
    int64_t max_aside;
};

enum { HA_DEVICE_REASON_BYTES = 200 };

struct ha_device {
    struct ha_device_reading reading;
    int64_t read_ms;                     /* when the reading began; -1: there is none yet */
    enum ha_device_state state, judged;  /* judged: at the last ha_device_judge */
    char reason[HA_DEVICE_REASON_BYTES]; /* of held and aside; of others: why it would be aside */
    int64_t since_ms; /* since when it is judged to be in this state; -1: not judged yet */
    bool busy;
    bool suspected;      /* is aside for what only ha_device_accept undoes */
    int64_t released_ms; /* when the last attempt on it ended; -1: none yet */
    uint64_t last_job;   /* of the failures */
    int64_t n_failures;
    int64_t failing_ms; /* when the first of them ended */
    int64_t good_ms;    /* when an attempt on it last came to a good end; -1: none yet */
    int64_t ecc_accepted, xids_accepted;
    int64_t xids_before;                /* of the reading's: who read them then does not any more */
    char unfit[HA_DEVICE_REASON_BYTES]; /* what a check before an attempt found; "": nothing */
};

void ha_device_init(struct ha_device *device);

/* State and reason of every device, from all that is known now. */
void ha_device_judge(struct ha_device *devices, int64_t n, const struct ha_device_rules *rules,
                     int64_t now_ms);

void ha_device_begin(struct ha_device *device);

/* How the attempt on it ended: failed is a failure that may be the device's fault.  A refused job
 * or a stopped attempt says nothing: spoke false. */
void ha_device_end(struct ha_device *device, uint64_t job, bool spoke, bool failed, int64_t now_ms);

/* A check before an attempt found that devices[at] does not compute: it is aside until
 * ha_device_accept.  False, and nothing done, when max_aside of the n are suspected already: then
 * the cause may be elsewhere, and the attempt has to say so. */
bool ha_device_condemn(struct ha_device *devices, int64_t n, int64_t at,
                       const struct ha_device_rules *rules, const char *why);

/* The operator says that it is well. */
void ha_device_accept(struct ha_device *device);

/* "free", "held", "busy", "aside" */
const char *ha_device_state_name(enum ha_device_state state);

/* Which devices a list selects: entries separated by commas, each an index, a UUID (or its
 * beginning, if only one has it; a GPU's stands for its MIG instances), or "all"; reading ends at
 * an entry that selects nothing, as in CUDA_VISIBLE_DEVICES, unless bad is given, which becomes
 * that entry's position.  Indices count in the order of PCI addresses. */
void ha_device_select(const struct ha_device_reading *readings, int64_t n, const char *list,
                      bool *selected, int64_t *bad);

#endif
