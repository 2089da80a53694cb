#include "coordinator/core/least.h"

#include <stdbool.h>

static bool before(const struct ha_least *l, int64_t a, int64_t b)
{
    return l->keys[a] != l->keys[b] ? l->keys[a] < l->keys[b] : a < b;
}

static void put(struct ha_least *l, int64_t at, int64_t index)
{
    l->heap[at] = index;
    l->place[index] = at;
}

static void sink(struct ha_least *l, int64_t at)
{
    int64_t index = l->heap[at];

    for (;;) {
        int64_t child = 2 * at + 1;

        if (child + 1 < l->count && before(l, l->heap[child + 1], l->heap[child]))
            child++;
        if (child >= l->count || !before(l, l->heap[child], index))
            break;
        put(l, at, l->heap[child]);
        at = child;
    }
    put(l, at, index);
}

static void rise(struct ha_least *l, int64_t at)
{
    int64_t index = l->heap[at];

    for (; at > 0 && before(l, index, l->heap[(at - 1) / 2]); at = (at - 1) / 2)
        put(l, at, l->heap[(at - 1) / 2]);
    put(l, at, index);
}

void ha_least_fill(struct ha_least *l, int64_t count)
{
    l->count = count;
    for (int64_t i = 0; i < count; i++)
        put(l, i, i);
    for (int64_t at = count / 2; at-- > 0;)
        sink(l, at);
}

void ha_least_add(struct ha_least *l)
{
    put(l, l->count, l->count);
    l->count++;
    rise(l, l->count - 1);
}

void ha_least_moved(struct ha_least *l, int64_t index)
{
    rise(l, l->place[index]);
    sink(l, l->place[index]);
}
