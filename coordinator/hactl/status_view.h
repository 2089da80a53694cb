/* status_view.h - a sweep's status as text */
#ifndef HA_COORDINATOR_HACTL_STATUS_VIEW_H
#define HA_COORDINATOR_HACTL_STATUS_VIEW_H

#include <stdbool.h>

struct ha_buffer;
struct ha_status;
struct ha_wire_stage_row;

struct ha_view_style {
    bool colour;  /* ANSI colours */
    bool summary; /* the head lines only */
    int width;    /* columns of the terminal; 0: 100 */
};

/* Colours and width as standard output can show them; NO_COLOR is respected. */
struct ha_view_style ha_view_style_detect(void);

/* Head lines (state, progress, ETA, answers, scores, money, who is connected),
 * then a row per cell with a bar per stage, then what stands still and why.
 * Returns 0 or -ENOMEM. */
int ha_status_view(const struct ha_status *status, const struct ha_view_style *style,
                   struct ha_buffer *out);

/* "; in one job with a/mid, a/full"; nothing for a stage that has its job for itself.  0 or
 * -ENOMEM. */
int ha_status_put_mates(struct ha_buffer *out, const struct ha_wire_stage_row *stage);

#endif
