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

/* The "error" line: why the process is about to end with an error code. */
int ha_contract_error(struct ha_contract_reporter *context, const char *text);

#endif
