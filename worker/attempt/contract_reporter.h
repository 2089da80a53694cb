/* contract_reporter.h - the reporter that writes worker/contract.h's lines */
#ifndef HA_WORKER_ATTEMPT_CONTRACT_REPORTER_H
#define HA_WORKER_ATTEMPT_CONTRACT_REPORTER_H

#include "worker/attempt/reporter.h"

struct ha_contract_reporter {
    int fd;
};

/* The context must outlive the reporter.  A daemon that is gone (EPIPE) ends the
 * attempt. */
struct ha_reporter ha_contract_reporter(struct ha_contract_reporter *context);

struct ha_comm_id;

/* The "gang" line of a rank that is ready; id is rank 0's, NULL for the others. */
int ha_contract_gang_ready(struct ha_contract_reporter *context, const struct ha_comm_id *id,
                           struct ha_error *err);

/* The one of a rank whose gang has failed: how far it had come, and whether because of others. */
int ha_contract_gang_failed(struct ha_contract_reporter *context, int64_t started, int64_t finished,
                            bool followed);

struct ha_engine_loaded;

/* The "model" line: what opening it cost.  For ha_engine_options.loaded. */
int ha_contract_model(void *context, const struct ha_engine_loaded *loaded, struct ha_error *err);

/* The "waits" line: the job is done, and the next one of the model may come. */
int ha_contract_waits(struct ha_contract_reporter *context, struct ha_error *err);

/* The "error" line: why the process is about to end with an error code. */
int ha_contract_error(struct ha_contract_reporter *context, const char *text);

#endif
