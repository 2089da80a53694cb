/* contract_line.h - one line of an attempt's contract pipe (worker/contract.h) */
#ifndef HA_WORKER_DAEMON_CONTRACT_LINE_H
#define HA_WORKER_DAEMON_CONTRACT_LINE_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"
#include "worker/daemon/session.h"

struct ha_error;
struct ha_json;

enum contract_kind {
    CONTRACT_PHASE,
    CONTRACT_PROGRESS,
    CONTRACT_EVENTS, /* metrics, an answer, a norm of a probe, the end of a cell */
    CONTRACT_ARTIFACT,
    CONTRACT_ERROR,
    CONTRACT_GANG,
    CONTRACT_MODEL, /* is loaded */
    CONTRACT_WAITS, /* the job is done, its process waits for the next */
    CONTRACT_OTHER  /* of a newer attempt */
};

/* What a line "model" tells. */
struct contract_model {
    int64_t bytes, read_bytes, device_bytes;
    double seconds;
};

/* What the text of an error begins with that the daemon adds itself, behind CONTRACT_PERHAPS where
 * the kernel killed somebody on the machine and perhaps not this attempt. */
#define CONTRACT_STARVED "killed by the kernel for memory"
#define CONTRACT_PERHAPS "perhaps "

/* Does the error, of an attempt or of a rank in words of its gang, say that for certain? */
bool contract_is_starved(const char *error);

/* Texts belong to the line. */
struct contract_line {
    enum contract_kind kind;
    /* Of a phase: its name; of an artifact: its path; of an error; of a gang: its state. */
    const char *text;
    const char *gang_id;                 /* "" but from rank 0 that is ready */
    int64_t gang_started, gang_finished; /* collectives */
    bool gang_followed;                  /* it failed because others had */
    struct contract_model model;
    struct attempt_progress progress;
    struct ha_wire_attempt_event *events;
    int64_t n_events;
    struct ha_wire_attempt_artifact artifact; /* without digest and size */
    struct ha_json *json;
    char *summary;
};

/* Returns 0, -EINVAL (not such a line, a path that leaves the attempt's folder, or
 * a value that breaks the rules of a report) or -ENOMEM. */
int contract_line_parse(const char *bytes, size_t size, struct contract_line *ret_line,
                        struct ha_error *err);
void contract_line_clear(struct contract_line *line);

#endif
