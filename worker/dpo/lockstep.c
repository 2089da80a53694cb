#include "worker/dpo/lockstep.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/count.h"
#include "worker/dpo/work.h"

/* True for the first cell with this border. */
static bool has_own_border(const int64_t *lowest_layers, int64_t cell)
{
    if (lowest_layers[cell] == 0)
        return false;
    for (int64_t i = 0; i < cell; i++) {
        if (lowest_layers[i] == lowest_layers[cell])
            return false;
    }
    return true;
}

int ha_dpo_border_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                        int64_t max_tokens, const int64_t *lowest_layers, int64_t n_cells,
                        int64_t *ret_bytes, struct ha_error *err)
{
    int64_t bytes, total = 0;
    bool overflow = __builtin_mul_overflow(max_tokens, config->width, &bytes) ||
                    __builtin_mul_overflow(bytes, (int64_t)ha_dtype_bytes(activation), &bytes);

    for (int64_t i = 0; i < n_cells && !overflow; i++) {
        if (has_own_border(lowest_layers, i))
            overflow = __builtin_add_overflow(total, bytes, &total);
    }
    if (overflow)
        return ha_error_set(err, EOVERFLOW,
                            "the states of %lld tokens at the cells' borders need more memory "
                            "than can be addressed",
                            (long long)max_tokens);
    *ret_bytes = total;
    return 0;
}

static int compare_layers(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Where the cell may take over from the shared pass; 0: at the embedding.  Above a reference
 * adapter's lowest layer that pass is not the base model. */
static int64_t border_of(const struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell)
{
    int64_t lowest = ha_adapter_lowest_layer(cell->settings.adapter);
    const struct ha_adapter *reference = trainer->job.reference;

    return reference && ha_adapter_lowest_layer(reference) < lowest ? 0 : lowest;
}

/* One buffer for each distinct layer of layers[0 .. n_cells). */
static int make_borders(struct ha_dpo_trainer *trainer, int64_t max_tokens, int64_t *layers,
                        struct ha_error *err)
{
    const struct ha_model_config *config = ha_model_config(trainer->model);
    enum ha_dtype act = ha_backend_activation_dtype(trainer->backend);
    int64_t bytes = 0, total = 0;
    int r;

    for (int64_t i = 0; i < trainer->n_cells; i++)
        layers[i] = border_of(trainer, &trainer->cells[i]);
    qsort(layers, (size_t)trainer->n_cells, sizeof(*layers), compare_layers);
    r = ha_dpo_border_bytes(config, act, max_tokens, layers, trainer->n_cells, &total, err);
    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        struct ha_dpo_border *border = &trainer->borders[trainer->n_borders];

        if (!has_own_border(layers, i))
            continue;
        r = ha_dpo_border_bytes(config, act, max_tokens, &layers[i], 1, &bytes, err);
        if (r == 0)
            r = ha_backend_alloc(trainer->backend, (size_t)bytes, &border->hidden, err);
        border->layer = layers[i];
        trainer->n_borders += r == 0;
    }
    trainer->pass_bytes += total;
    return r;
}

int ha_dpo_borders_create(struct ha_dpo_trainer *trainer, int64_t max_tokens, struct ha_error *err)
{
    int64_t *layers = ha_calloc(trainer->n_cells, sizeof(*layers));
    int r;

    trainer->borders = ha_calloc(trainer->n_cells, sizeof(*trainer->borders));
    if (layers && trainer->borders)
        r = make_borders(trainer, max_tokens, layers, err);
    else
        r = ha_error_set(err, ENOMEM, "no memory for a training job");
    free(layers);
    return r;
}

void ha_dpo_borders_destroy(struct ha_dpo_trainer *trainer)
{
    for (int64_t i = 0; i < trainer->n_borders; i++)
        ha_backend_free(trainer->backend, trainer->borders[i].hidden);
    free(trainer->borders);
}

/* NULL for a cell that starts at the embedding. */
static struct ha_dpo_border *find_border(const struct ha_dpo_trainer *trainer,
                                         const struct ha_dpo_cell_work *cell)
{
    int64_t layer = border_of(trainer, cell);

    for (int64_t i = 0; i < trainer->n_borders; i++) {
        if (trainer->borders[i].layer == layer)
            return &trainer->borders[i];
    }
    return NULL;
}

static bool all_known(const struct ha_dpo_packs *packs, int64_t first, const struct ha_pack *pack,
                      const struct ha_dpo_reference *references)
{
    for (int64_t i = 0; i < pack->n_pairs; i++) {
        if (!ha_dpo_reference_known(&references[packs->order[first + i]]))
            return false;
    }
    return true;
}

/* Layers [*at, to) of the reference policy. */
static int go_on(struct ha_dpo_trainer *trainer, int64_t *at, int64_t to, struct ha_error *err)
{
    int r = ha_pass_layers(trainer->pass, trainer->job.reference, *at, to, err);

    *at = to;
    return r;
}

static int take_references(struct ha_dpo_trainer *trainer, const struct ha_dpo_packs *packs,
                           int64_t first, const struct ha_pack *pack,
                           struct ha_dpo_reference *references, struct ha_error *err)
{
    struct ha_pass_rows rows;
    int r = ha_pass_head(trainer->pass, false, &rows, err);

    for (int64_t i = 0; r == 0 && i < pack->n_pairs; i++) {
        struct ha_dpo_pair_result result;

        ha_dpo_pair_result(&rows, pack, i, &result);
        references[packs->order[first + i]] = (struct ha_dpo_reference){
            result.logps.chosen, result.logps.rejected, result.chosen_tail, result.rejected_tail};
    }
    return r;
}

/* The pass itself, up to and with border `top`, and the head if that is asked for. */
static int shared_pass(struct ha_dpo_trainer *trainer, const struct ha_dpo_packs *packs,
                       int64_t first, const struct ha_pack *pack, int64_t top, bool head,
                       struct ha_dpo_reference *references, struct ha_error *err)
{
    int64_t at = 0;
    int r = ha_pass_begin(trainer->pass, pack, err);

    if (r == 0)
        r = ha_pass_embed(trainer->pass, err);
    for (int64_t i = 0; r == 0 && i < trainer->n_borders && trainer->borders[i].layer <= top; i++) {
        struct ha_dpo_border *border = &trainer->borders[i];

        r = go_on(trainer, &at, border->layer, err);
        if (r == 0)
            r = ha_pass_get_hidden(trainer->pass, border->hidden, err);
        border->filled = r == 0;
    }
    if (r < 0 || !head)
        return r;
    r = go_on(trainer, &at, ha_model_config(trainer->model)->n_layers, err);
    return r < 0 ? r : take_references(trainer, packs, first, pack, references, err);
}

static void charge_cells(struct ha_dpo_trainer *trainer, int64_t n, const struct ha_dpo_work *work)
{
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        if (trainer->cells[i].takes_part)
            ha_dpo_work_add(&trainer->cells[i].stats.shared, work, n);
    }
}

int ha_dpo_share_pack(struct ha_dpo_trainer *trainer, const struct ha_dpo_packs *packs,
                      int64_t first, const struct ha_pack *pack,
                      struct ha_dpo_reference *references, bool charge, struct ha_error *err)
{
    struct ha_dpo_meter meter = ha_dpo_meter_start(trainer->backend);
    bool head = !all_known(packs, first, pack, references);
    int64_t n = 0, users = 0, top = 0;
    struct ha_dpo_work work;
    int r;

    for (int64_t i = 0; i < trainer->n_borders; i++)
        trainer->borders[i].filled = false;
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        const struct ha_dpo_cell_work *cell = &trainer->cells[i];
        int64_t layer = border_of(trainer, cell);

        if (!cell->takes_part)
            continue;
        n++;
        users += layer > 0;
        top = layer > top ? layer : top;
    }
    if (n == 0 || (!head && users < 2))
        return 0;
    r = shared_pass(trainer, packs, first, pack, top, head, references, err);
    if (r == 0)
        r = ha_dpo_meter_stop(trainer->backend, &meter, &work, err);
    if (r == 0 && charge)
        charge_cells(trainer, n, &work);
    return r;
}

int ha_dpo_cell_forward(struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell,
                        const struct ha_pack *pack, const struct ha_pass_dropout *dropout,
                        bool gradient, struct ha_pass_rows *ret_rows, struct ha_error *err)
{
    const struct ha_dpo_border *border = find_border(trainer, cell);
    bool shared = border && border->filled;
    int r = ha_pass_begin(trainer->pass, pack, err);

    if (r == 0 && dropout)
        r = ha_pass_set_dropout(trainer->pass, dropout, err);
    if (r == 0)
        r = shared ? ha_pass_set_hidden(trainer->pass, border->hidden, border->layer, err)
                   : ha_pass_embed(trainer->pass, err);
    if (r == 0)
        r = ha_pass_layers(trainer->pass, cell->settings.adapter, shared ? border->layer : 0,
                           ha_model_config(trainer->model)->n_layers, err);
    return r < 0 ? r : ha_pass_head(trainer->pass, gradient, ret_rows, err);
}
