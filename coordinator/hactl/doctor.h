/* doctor.h - findings about an installation */
#ifndef HA_COORDINATOR_HACTL_DOCTOR_H
#define HA_COORDINATOR_HACTL_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

struct ha_doctor;
struct ha_error;
struct ha_inventory_item;
struct ha_snapshot;
struct ha_wire_workers_reply;

/* NOTE is worth knowing, WARNING will hurt some day, PROBLEM does now. */
enum ha_finding { HA_FINDING_OK, HA_FINDING_NOTE, HA_FINDING_WARNING, HA_FINDING_PROBLEM };

int ha_doctor_create(struct ha_doctor **ret_doctor, struct ha_error *err);
void ha_doctor_destroy(struct ha_doctor *doctor);

/* One finding: what it is about, what mends it ("" where nothing is to be done), what was
 * found.  Of one subject at most twenty are told, and how many there are. */
void ha_doctor_say(struct ha_doctor *doctor, enum ha_finding finding, const char *subject,
                   const char *mend, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Print the findings in their order, a line each.  Returns how many problems there
 * are, or a negative errno. */
int64_t ha_doctor_print(struct ha_doctor *doctor, bool json, struct ha_error *err);

/* ---- what is on this machine (doctor_local.c) ----------------------------------- */

/* Modes and contents of a keys folder. */
void ha_doctor_keys(struct ha_doctor *doctor, const char *folder);

/* Attempt folders of a worker's work_dir that no worker runs; workers may be NULL. */
void ha_doctor_work_dir(struct ha_doctor *doctor, const char *folder,
                        const struct ha_wire_workers_reply *workers);

/* Attempt processes whose worker is gone. */
void ha_doctor_processes(struct ha_doctor *doctor);

/* Are the artifacts there, with their sizes, and (of `sample` of them; -1: all) with their
 * bytes?  From the coordinator's folder where it is on this machine, else asked for. */
int ha_doctor_artifacts(struct ha_doctor *doctor, struct ha_snapshot *snapshot,
                        const struct ha_inventory_item *items, int64_t count, int64_t sample,
                        const char *scratch, struct ha_error *err);

#endif
