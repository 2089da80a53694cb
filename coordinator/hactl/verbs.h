/* verbs.h - the verbs of hactl, one file each */
#ifndef HA_COORDINATOR_HACTL_VERBS_H
#define HA_COORDINATOR_HACTL_VERBS_H

#include "coordinator/hactl/cli.h"

extern const struct ha_verb ha_verb_run, ha_verb_submit, ha_verb_list, ha_verb_status, ha_verb_wait,
    ha_verb_why, ha_verb_show, ha_verb_results, ha_verb_report, ha_verb_log, ha_verb_metrics,
    ha_verb_cancel, ha_verb_retry, ha_verb_workers, ha_verb_keys, ha_verb_artifacts, ha_verb_export,
    ha_verb_version, ha_verb_probe, ha_verb_pause, ha_verb_resume, ha_verb_set, ha_verb_backup,
    ha_verb_restore, ha_verb_gc, ha_verb_doctor;

#endif
