/* part.h - "SWEEP", "SWEEP/model", "SWEEP/model/strategy" or "SWEEP//strategy"
 *
 * No name of these has a slash. */
#ifndef HA_COORDINATOR_HACTL_PART_H
#define HA_COORDINATOR_HACTL_PART_H

struct ha_error;

struct ha_part {
    char *sweep;                  /* owned */
    const char *model, *strategy; /* within sweep's memory; "" or NULL: every one */
};

/* -EINVAL with the four forms in the text. */
int ha_part_parse(const char *selector, struct ha_part *ret_part, struct ha_error *err);
void ha_part_clear(struct ha_part *part);

#endif
