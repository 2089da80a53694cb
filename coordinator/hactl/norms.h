/* norms.h - what the probes of a sweep found, as the rows of a report */
#ifndef HA_COORDINATOR_HACTL_NORMS_H
#define HA_COORDINATOR_HACTL_NORMS_H

#include <stdbool.h>

#include "coordinator/report/probe.h"
#include "proto/arena.h"
#include "proto/wire.h"

struct ha_error;
struct ha_json;
struct ha_link;
struct ha_status;

struct ha_norms {
    struct ha_report_norms norms;
    struct ha_report_choice *choices; /* of cells with the rule "auto:K", in the grid's order */
    int64_t n_choices;
    struct ha_arena memory; /* of all this */
};

/* Does a cell have a probe stage? */
bool ha_norms_has_probe(const struct ha_status *status);

/* cell: a name, or "" for all.  status: of the whole sweep; it must outlive the
 * result. */
int ha_norms_fetch(struct ha_link *link, const struct ha_status *status, const char *cell,
                   struct ha_norms **ret_norms, struct ha_error *err);
void ha_norms_destroy(struct ha_norms *norms);

/* {"norms": [...], "choices": [...]}; NULL when memory is short. */
struct ha_json *ha_norms_json(const struct ha_norms *norms);

/* {"rule", "measure", "layers", "share"} of a cell with a rule; NULL when memory is
 * short. */
struct ha_json *ha_norms_choice_json(const struct ha_wire_choice *choice);

#endif
