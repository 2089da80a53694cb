/* least.h - which of many numbers is the least, when one changes at a time: a heap of indices
 *
 * The numbers are the caller's and lie outside; of equal ones the first is the least. */
#ifndef HA_COORDINATOR_CORE_LEAST_H
#define HA_COORDINATOR_CORE_LEAST_H

#include <stdint.h>

struct ha_least {
    const double *keys;
    int64_t *heap;  /* indices of keys; the least on top */
    int64_t *place; /* of each index in heap */
    int64_t count;
};

/* keys[0 .. count) are new. */
void ha_least_fill(struct ha_least *l, int64_t count);

/* There is one more key, keys[count]. */
void ha_least_add(struct ha_least *l);

/* keys[index] has changed. */
void ha_least_moved(struct ha_least *l, int64_t index);

/* The index of the least key; there is one. */
static inline int64_t ha_least_top(const struct ha_least *l)
{
    return l->heap[0];
}

#endif
