/* space.h - room on the disk for results when it is full
 *
 * A reserve file holds space back.  When the disk has less left than the
 * reserve, new submits are refused; when it is full, the file is given up so that
 * results, cancels and what runs still fit.  It is made again when there is room. */
#ifndef HA_COORDINATOR_SERVER_SPACE_H
#define HA_COORDINATOR_SERVER_SPACE_H

#include <stdint.h>

struct ha_error;
struct ha_space;

int ha_space_create(const char *dir, int64_t reserve_bytes, struct ha_space **ret_space,
                    struct ha_error *err);
void ha_space_destroy(struct ha_space *space);

/* Look at the disk; give up or make the reserve.  Returns why submits have to
 * be refused (owned by space, until the next call), or NULL. */
const char *ha_space_look(struct ha_space *space);

/* A write found the disk full. */
void ha_space_give_up(struct ha_space *space);

#endif
