/* boards.h - TensorBoard files of an embedded run, written while it runs
 *
 * DIR/tensorboard/<model>-<strategy>/ gets one event file per run of hactl, with
 * TRL's tag names (train/loss, train/rewards/margins, ...). */
#ifndef HA_COORDINATOR_HACTL_BOARDS_H
#define HA_COORDINATOR_HACTL_BOARDS_H

struct ha_boards;
struct ha_error;
struct ha_link;
struct ha_status;

int ha_boards_create(const char *dir, struct ha_boards **ret_boards, struct ha_error *err);
void ha_boards_destroy(struct ha_boards *boards);

/* Append the metrics that came since the last call. */
int ha_boards_update(struct ha_boards *boards, struct ha_link *link, const struct ha_status *status,
                     struct ha_error *err);

#endif
