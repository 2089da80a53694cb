/* How far references of another plan are from those of this one. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/work.h"

static const struct ha_dpo_reference unknown = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};

static double farther(double offset, double theirs, double ours)
{
    double distance = fabs(theirs - ours);

    return distance > offset || isnan(distance) ? distance : offset;
}

/* Computes the references of a pack's pairs anew, in references[], and compares them. */
static int compare_pack(struct ha_dpo_trainer *trainer, int64_t first, const struct ha_pack *pack,
                        struct ha_dpo_reference *references, double *offset, struct ha_error *err)
{
    const int64_t *pair = trainer->train.order + first;
    int r;

    for (int64_t i = 0; i < pack->n_pairs; i++)
        references[pair[i]] = unknown;
    r = ha_dpo_share_pack(trainer, &trainer->train, first, pack, references, false, err);
    for (int64_t i = 0; r == 0 && i < pack->n_pairs; i++) {
        const struct ha_dpo_reference *theirs = &trainer->train_reference[pair[i]];

        *offset = farther(*offset, theirs->chosen, references[pair[i]].chosen);
        *offset = farther(*offset, theirs->rejected, references[pair[i]].rejected);
    }
    return r;
}

static int compare_window(struct ha_dpo_trainer *trainer, struct ha_dpo_reference *references,
                          double *ret_offset, struct ha_error *err)
{
    struct ha_window window = ha_batch_window(&trainer->train.batch, 0);
    int64_t first = window.first, end = window.first + window.n_pairs;
    int r = ha_dpo_packs_set_epoch(&trainer->train, 0, err);

    for (int64_t i = 0; i < trainer->n_cells; i++)
        trainer->cells[i].takes_part = i == 0;
    while (r == 0 && first < end) {
        int64_t count = ha_dpo_packs_fill(&trainer->train, first, end);
        struct ha_pack *pack = NULL;

        r = ha_dpo_packs_make(&trainer->train, first, count, &pack, err);
        if (r == 0)
            r = compare_pack(trainer, first, pack, references, ret_offset, err);
        ha_pack_destroy(pack);
        first += count;
    }
    return r;
}

int ha_dpo_trainer_reference_offset(struct ha_dpo_trainer *trainer, double *ret_offset,
                                    struct ha_error *err)
{
    struct ha_dpo_reference *references =
        ha_calloc(trainer->train.batch.n_pairs, sizeof(*references));
    double offset = 0;
    int r;

    if (!references)
        return ha_error_set(err, ENOMEM, "no memory to compare references");
    r = compare_window(trainer, references, &offset, err);
    free(references);
    if (r == 0)
        *ret_offset = offset;
    return r;
}
