/* gather.h - a sweep's scores as the rows of a report */
#ifndef HA_COORDINATOR_HACTL_GATHER_H
#define HA_COORDINATOR_HACTL_GATHER_H

#include "coordinator/report/experiment.h"

struct ha_error;
struct ha_link;
struct ha_status;

/* Owns what experiment borrows, except what comes from status. */
struct ha_gathered {
    struct ha_experiment experiment;
    struct ha_report_model *models;
    struct ha_report_cell *cells;
    struct ha_report_scores *scores;
    int64_t scores_capacity;
    struct ha_report_missing *missing;
    int64_t missing_capacity;
    char **reasons; /* owned texts of missing */
    int64_t n_reasons, reasons_capacity;
    char *label;
};

/* Fetch every score of one judge ("": the sweep's only or first one; the mean
 * over judges is never taken).  status must outlive the result. */
int ha_gather(struct ha_link *link, const struct ha_status *status, const char *judge,
              struct ha_gathered **ret_gathered, struct ha_error *err);
void ha_gathered_destroy(struct ha_gathered *gathered);

#endif
