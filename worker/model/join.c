#include "worker/model/join.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/backend.h"
#include "worker/model/model.h"

enum { PARTS = HA_MODEL_JOIN_PARTS + 2, VALUE_BYTES = 384 };

/* What a rank sends. */
struct identity {
    char value[PARTS][VALUE_BYTES];
};

static int compare(const struct identity *all, int size, const struct ha_model_join_part *parts,
                   struct ha_error *err)
{
    for (int i = 1; i < size; i++) {
        for (int k = 0; k < PARTS && parts[k].what; k++) {
            if (strcmp(all[0].value[k], all[i].value[k]) != 0)
                return ha_error_set(err, ESTALE, "rank %d of the gang has another %s than rank 0",
                                    i, parts[k].what);
        }
    }
    return 0;
}

int ha_model_join_same(struct ha_model *model, const struct ha_backend *backend,
                       const struct ha_model_join_part *parts, int n, struct ha_comm *comm,
                       struct ha_error *err)
{
    struct ha_model_join_part compared[PARTS] = {{NULL, NULL}};
    struct identity own = {{""}}, *all;
    char ranks[16];
    int r;

    if (n > HA_MODEL_JOIN_PARTS)
        return ha_error_set(err, EINVAL, "%d parts to compare; at most %d", n, HA_MODEL_JOIN_PARTS);
    (void)snprintf(ranks, sizeof(ranks), "%d", ha_model_ranks(model));
    for (int k = 0; k < n; k++)
        compared[k] = parts[k];
    compared[n] = (struct ha_model_join_part){"kernel build, library or kind of device",
                                              ha_backend_fingerprint(backend)};
    compared[n + 1] = (struct ha_model_join_part){
        "division of the weights, as by another memory limit (set train.shard_weights)", ranks};
    for (int k = 0; k < n + 2; k++)
        (void)snprintf(own.value[k], VALUE_BYTES, "%s", compared[k].value);
    all = ha_calloc(ha_comm_size(comm), sizeof(*all));
    if (!all)
        return ha_error_set(err, ENOMEM, "no memory to compare the ranks of a gang");
    r = ha_comm_gather(comm, all, &own, sizeof(own), err);
    if (r == 0)
        r = compare(all, ha_comm_size(comm), compared, err);
    if (r == 0)
        ha_model_join(model, comm);
    free(all);
    return r;
}
