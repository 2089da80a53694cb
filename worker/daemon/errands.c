#include "worker/daemon/errands.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

struct errand *errands_add(struct errands *errands, const struct attempt_id *id)
{
    struct errand *errand = ha_calloc(1, sizeof(*errand));

    if (!errand)
        return NULL;
    errand->tag = ++errands->last_tag;
    errand->id = *id;
    errand->next = errands->first;
    errands->first = errand;
    return errand;
}

const struct errand *errands_download(const struct errands *errands, const char *sha256)
{
    for (const struct errand *errand = errands->first; errand; errand = errand->next) {
        if (!errand->is_upload && strcmp(errand->sha256, sha256) == 0)
            return errand;
    }
    return NULL;
}

struct errand *errands_take(struct errands *errands, uint64_t tag)
{
    struct errand *taken = NULL;

    for (struct errand **at = &errands->first; *at;) {
        struct errand *errand = *at;

        if (errand->tag != tag) {
            at = &errand->next;
            continue;
        }
        *at = errand->next;
        errand->next = taken;
        taken = errand;
    }
    return taken;
}

void errands_clear(struct errands *errands)
{
    while (errands->first) {
        struct errand *next = errands->first->next;

        free(errands->first);
        errands->first = next;
    }
}
