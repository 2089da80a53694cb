/* judge_preview.h - what a judge would be sent, asked from ha-judge-worker */
#ifndef HA_COORDINATOR_HACTL_JUDGE_PREVIEW_H
#define HA_COORDINATOR_HACTL_JUDGE_PREVIEW_H

struct ha_error;
struct ha_json;
struct ha_sweep_judge;

/* The exact request for an example answer, with the key masked, and its estimate
 * of tokens and price, as `ha-judge-worker show` prints it. */
int ha_judge_preview(const struct ha_sweep_judge *judge, struct ha_json **ret_preview,
                     struct ha_error *err);

#endif
