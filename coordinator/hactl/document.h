/* document.h - the written report of a sweep
 *
 * report.md with the paper's Tables 2, 3 and 4 from the sweep's own scores, the
 * means of every dimension, what has no score, and the provenance; CSV files of
 * the tables and the grid as it was submitted beside it. */
#ifndef HA_COORDINATOR_HACTL_DOCUMENT_H
#define HA_COORDINATOR_HACTL_DOCUMENT_H

struct ha_error;
struct ha_link;

/* Write the report of a sweep ("": the only one) into a folder that is made when
 * it is not there.  Each file appears complete or not at all. */
int ha_document_write(struct ha_link *link, const char *sweep, const char *judge, const char *dir,
                      struct ha_error *err);

#endif
