#include "coordinator/core/fit.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "common/base/buffer.h"

static bool has_label(const char *labels, const char *label, size_t length)
{
    for (const char *at = labels ? labels : ""; *at;) {
        size_t n = strcspn(at, "\n");

        if (n == length && memcmp(at, label, n) == 0)
            return true;
        at += n + (at[n] == '\n');
    }
    return false;
}

/* The first label that is needed and not offered, or NULL. */
static const char *missing_label(const struct ha_fit *need, const struct ha_fit *offer,
                                 size_t *ret_length)
{
    for (const char *at = need->labels ? need->labels : ""; *at;) {
        size_t n = strcspn(at, "\n");

        if (n > 0 && !has_label(offer->labels, at, n)) {
            *ret_length = n;
            return at;
        }
        at += n + (at[n] == '\n');
    }
    return NULL;
}

int64_t ha_fit_ranks(const struct ha_fit *need)
{
    int64_t nodes = need && need->nodes > 1 ? need->nodes : 1;

    return need && need->gpus > 1 ? need->gpus * nodes : nodes;
}

bool ha_fit(const struct ha_fit *need, const struct ha_fit *offer)
{
    size_t length;

    return !need ||
           (need->cpus <= offer->cpus && need->memory_bytes <= offer->memory_bytes &&
            need->gpus <= offer->gpus && need->gpu_memory_bytes <= offer->gpu_memory_bytes &&
            !missing_label(need, offer, &length));
}

bool ha_fit_equal(const struct ha_fit *a, const struct ha_fit *b)
{
    if (a == b || !a || !b)
        return a == b;
    return a->cpus == b->cpus && a->memory_bytes == b->memory_bytes && a->gpus == b->gpus &&
           a->gpu_memory_bytes == b->gpu_memory_bytes &&
           (a->nodes > 1 ? a->nodes : 1) == (b->nodes > 1 ? b->nodes : 1) &&
           strcmp(a->labels ? a->labels : "", b->labels ? b->labels : "") == 0;
}

static int lack_bytes(int64_t need, int64_t offer, const char *what, struct ha_buffer *out)
{
    return ha_buffer_printf(out, "offers %.1f of %.1f GiB of %s", (double)offer / 0x1p30,
                            (double)need / 0x1p30, what);
}

int ha_fit_lack(const struct ha_fit *need, const struct ha_fit *offer, struct ha_buffer *out)
{
    size_t length;
    const char *label = need ? missing_label(need, offer, &length) : NULL;

    if (!need)
        return 0;
    if (label)
        return ha_buffer_printf(out, "has no label %.*s", (int)length, label);
    if (need->gpus > offer->gpus)
        return ha_buffer_printf(out, "offers %" PRId64 " of %" PRId64 " GPUs", offer->gpus,
                                need->gpus);
    if (need->gpu_memory_bytes > offer->gpu_memory_bytes)
        return lack_bytes(need->gpu_memory_bytes, offer->gpu_memory_bytes, "GPU memory", out);
    if (need->cpus > offer->cpus)
        return ha_buffer_printf(out, "offers %" PRId64 " of %" PRId64 " cpus", offer->cpus,
                                need->cpus);
    if (need->memory_bytes > offer->memory_bytes)
        return lack_bytes(need->memory_bytes, offer->memory_bytes, "memory", out);
    return 0;
}
