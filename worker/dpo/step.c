#include "worker/dpo/work.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "common/base/error.h"
#include "worker/dpo/count.h"

double ha_dpo_learning_rate(const struct ha_dpo_cell *cell, int64_t done, int64_t total)
{
    int64_t warmup = cell->warmup_steps, rest = total - warmup;

    if (done < warmup)
        return cell->learning_rate * ((double)done / (double)warmup);
    return cell->learning_rate * fmax(0.0, (double)(total - done) / (double)(rest > 1 ? rest : 1));
}

/* The micro-batch of the window that holds this position of the order. */
static struct ha_micro micro_of(const struct ha_dpo_packs *packs, const struct ha_window *window,
                                int64_t position)
{
    int64_t window_index = window->first / (packs->batch.batch_size * packs->batch.accumulation);

    return ha_batch_micro(&packs->batch, window_index,
                          (position - window->first) / packs->batch.batch_size);
}

/* The log-probs of a pack's pairs under this cell, into its results. */
static int cell_logps(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                      const struct ha_window *window, int64_t first, const struct ha_pack *pack,
                      bool gradient, struct ha_error *err)
{
    const struct ha_dpo_packs *packs = &trainer->train;
    struct ha_pass_dropout dropout = {.p = cell->settings.dropout,
                                      .seed = cell->settings.dropout_seed,
                                      .epoch = packs->epoch,
                                      .pairs = packs->order + first};
    struct ha_pass_rows rows;
    int r = ha_dpo_cell_forward(trainer, cell, pack, &dropout, gradient, &rows, err);

    for (int64_t i = 0; r == 0 && i < pack->n_pairs; i++)
        ha_dpo_take_pair(&rows, pack, i, &cell->settings.loss, packs, first + i,
                         trainer->train_reference, &cell->results[first + i - window->first]);
    return r;
}

/* Losses of the micro-batches that a pack of [first, end) touches: of its own
 * pairs, or of them all where the loss sorts (every pair's log-probs are then
 * known already). */
static int pack_losses(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                       const struct ha_window *window, int64_t first, int64_t end,
                       struct ha_error *err)
{
    bool whole = ha_dpo_loss_sorts(&cell->settings.loss);
    int r = 0;

    while (r == 0 && first < end) {
        struct ha_micro micro = micro_of(&trainer->train, window, first);
        int64_t next = micro.first + micro.n_pairs;
        int64_t from = whole ? micro.first : first, to = whole || next < end ? next : end;

        r = ha_dpo_micro_loss(trainer, &cell->settings.loss, &trainer->train, &micro, from, to,
                              cell->results + (from - window->first), err);
        first = next;
    }
    return r;
}

void ha_dpo_check_loss(const struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                       double value)
{
    if (!isfinite(value) && !cell->outcome)
        ha_dpo_end_cell(cell, "the loss of step %lld is not finite (%g)",
                        (long long)trainer->step + 1, value);
}

float *ha_dpo_gradient(const struct ha_dpo_cell_work *cell, int level)
{
    return level == 0 ? cell->gradient : cell->partial[level - 1];
}

static void pack_coefficients(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                              const struct ha_window *window, int64_t first,
                              const struct ha_pack *pack)
{
    for (int64_t i = 0; i < pack->n_pairs; i++) {
        const struct ha_dpo_pair_loss *loss = &cell->results[first + i - window->first].loss;
        double weight = micro_of(&trainer->train, window, first + i).weight;

        ha_dpo_pair_coefficients(&cell->settings.loss, loss, weight, pack, i, trainer->coefficient);
        ha_dpo_check_loss(trainer, cell, loss->value);
    }
}

static int cell_gradients(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                          const struct ha_window *window, int64_t first, const struct ha_pack *pack,
                          struct ha_error *err)
{
    int r = cell_logps(trainer, cell, window, first, pack, true, err);

    if (r == 0)
        r = pack_losses(trainer, cell, window, first, first + pack->n_pairs, err);
    if (r < 0)
        return r;
    pack_coefficients(trainer, cell, window, first, pack);
    if (cell->outcome)
        return 0;
    return ha_pass_backward(trainer->pass, cell->settings.adapter, trainer->coefficient,
                            ha_dpo_gradient(cell, trainer->level), err);
}

/* What a window's packs are run for. */
enum sweep { LOGPS_ONLY, GRADIENTS };

/* What a cell itself does with a pack, at its own cost. */
static int cell_pack(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                     const struct ha_window *window, enum sweep sweep, int64_t first,
                     const struct ha_pack *pack, struct ha_error *err)
{
    struct ha_dpo_meter meter = ha_dpo_meter_start(trainer->backend);
    struct ha_dpo_work work;
    int r = sweep == GRADIENTS ? cell_gradients(trainer, cell, window, first, pack, err)
                               : cell_logps(trainer, cell, window, first, pack, false, err);

    if (r == 0)
        r = ha_dpo_meter_stop(trainer->backend, &meter, &work, err);
    if (r < 0)
        return r;
    ha_dpo_work_add(&cell->stats.own, &work, 1);
    cell->stats.tokens += pack->n_tokens;
    trainer->steps.tokens += pack->n_tokens;
    return 0;
}

/* Cells whose losses sort need all log-probs of a micro-batch before the first
 * gradient; where no pack ends inside a micro-batch they come by themselves. */
static bool takes_part(const struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell,
                       enum sweep sweep)
{
    return ha_dpo_cell_active(trainer, cell) &&
           (sweep == GRADIENTS || ha_dpo_loss_sorts(&cell->settings.loss));
}

static bool cuts_micro_batches(const struct ha_dpo_packs *packs, const struct ha_window *window,
                               int64_t first, int64_t end)
{
    while (first < end) {
        if ((first - window->first) % packs->batch.batch_size != 0)
            return true;
        first += ha_dpo_packs_fill(packs, first, end);
    }
    return false;
}

static bool needs_logps_first(const struct ha_dpo_trainer *trainer, const struct ha_window *window,
                              int64_t first, int64_t end)
{
    bool any = false;

    for (int64_t i = 0; i < trainer->n_cells; i++)
        any = any || takes_part(trainer, &trainer->cells[i], LOGPS_ONLY);
    return any && cuts_micro_batches(&trainer->train, window, first, end);
}

/* One pack: what the cells share, then each of them. */
static int run_pack(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                    enum sweep sweep, int64_t first, const struct ha_pack *pack,
                    struct ha_error *err)
{
    int r;

    for (int64_t i = 0; i < trainer->n_cells; i++)
        trainer->cells[i].takes_part = takes_part(trainer, &trainer->cells[i], sweep);
    r = ha_dpo_share_pack(trainer, &trainer->train, first, pack, trainer->train_reference, true,
                          err);
    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        if (trainer->cells[i].takes_part)
            r = cell_pack(trainer, &trainer->cells[i], window, sweep, first, pack, err);
    }
    return r;
}

/* The packs of the pairs at positions [first, end), which are whole micro-batches. */
static int run_packs(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                     enum sweep sweep, int64_t first, int64_t end, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && first < end) {
        int64_t count = ha_dpo_packs_fill(&trainer->train, first, end);
        struct ha_pack *pack = NULL;

        if (ha_dpo_told_to_stop(trainer))
            return ha_error_set(err, EINTR, "stopped");
        r = ha_dpo_packs_make(&trainer->train, first, count, &pack, err);
        if (r == 0)
            r = run_pack(trainer, window, sweep, first, pack, err);
        ha_pack_destroy(pack);
        first += count;
    }
    return r;
}

/* The gradients of these pairs, into the zeroed gradients of the level in work. */
static int run_pairs(struct ha_dpo_trainer *trainer, const struct ha_window *window, int64_t first,
                     int64_t end, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        const struct ha_dpo_cell_work *cell = &trainer->cells[i];

        r = ha_backend_zero(trainer->backend, ha_dpo_gradient(cell, trainer->level),
                            (size_t)ha_adapter_n_params(cell->settings.adapter) * sizeof(float),
                            err);
    }
    if (r == 0 && needs_logps_first(trainer, window, first, end))
        r = run_packs(trainer, window, LOGPS_ONLY, first, end, err);
    return r < 0 ? r : run_packs(trainer, window, GRADIENTS, first, end, err);
}

/* gradient of this level += that of the next, for every cell. */
static int add_next_level(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    const struct ha_ops *ops = ha_backend_ops(trainer->backend);
    int r = 0;

    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        const struct ha_dpo_cell_work *cell = &trainer->cells[i];

        if (ha_dpo_cell_active(trainer, cell))
            r = ops->add(trainer->backend, ha_dpo_gradient(cell, trainer->level),
                         ha_dpo_gradient(cell, trainer->level + 1),
                         ha_adapter_n_params(cell->settings.adapter), err);
    }
    return r;
}

/* The micro-batches of a range, added up as share.h says. */
static int run_range(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                     struct ha_dpo_range range, struct ha_error *err)
{
    int64_t size = trainer->train.batch.batch_size, middle = ha_dpo_share_middle(range);
    int64_t first = window->first + range.first * size, end = window->first + range.end * size;
    int r;

    if (range.end - range.first < 2)
        return run_pairs(
            trainer, window, first,
            end < window->first + window->n_pairs ? end : window->first + window->n_pairs, err);
    r = run_range(trainer, window, (struct ha_dpo_range){range.first, middle}, err);
    trainer->level++;
    if (r == 0)
        r = run_range(trainer, window, (struct ha_dpo_range){middle, range.end}, err);
    trainer->level--;
    return r < 0 ? r : add_next_level(trainer, err);
}

int ha_dpo_window(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                  struct ha_error *err)
{
    if (trainer->gang)
        return ha_dpo_gang_window(trainer, window, run_range, err);
    return run_pairs(trainer, window, window->first, window->first + window->n_pairs, err);
}

/* Clip and apply; *ret_norm is the gradient's norm before clipping. */
static int update(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                  double learning_rate, double *ret_norm, struct ha_error *err)
{
    const struct ha_ops *ops = ha_backend_ops(trainer->backend);
    const struct ha_dpo_cell *settings = &cell->settings;
    int64_t n = ha_adapter_n_params(settings->adapter);
    struct ha_adamw adamw = {
        .lr = learning_rate,
        .beta1 = settings->beta1,
        .beta2 = settings->beta2,
        .eps = settings->eps,
        .weight_decay = settings->weight_decay,
        .max_grad_norm = settings->max_grad_norm,
        .step = trainer->step + 1,
    };
    double square_sum = 0;
    int r = ha_backend_zero(trainer->backend, cell->square_sum, sizeof(double), err);

    if (r == 0)
        r = ops->sum_of_squares(trainer->backend, cell->square_sum, cell->gradient, n, err);
    if (r == 0)
        r = ha_backend_download(trainer->backend, &square_sum, cell->square_sum, sizeof(double),
                                err);
    if (r == 0)
        r = ha_backend_sync(trainer->backend, err);
    if (r < 0)
        return r;
    *ret_norm = sqrt(square_sum);
    if (!isfinite(square_sum)) {
        ha_dpo_end_cell(cell, "the gradient of step %lld is not finite",
                        (long long)trainer->step + 1);
        return 0;
    }
    return ops->adamw(trainer->backend, ha_adapter_params(settings->adapter), cell->m, cell->v,
                      cell->gradient, n, cell->square_sum, &adamw, err);
}

static void report_step(const struct ha_dpo_trainer *trainer, int64_t cell_index,
                        const struct ha_window *window, double norm, double learning_rate,
                        double epoch)
{
    const struct ha_dpo_cell_work *cell = &trainer->cells[cell_index];
    struct ha_dpo_metric list[HA_DPO_MAX_METRICS];
    struct ha_dpo_metrics metrics = {0};
    int64_t n, batch_size = trainer->train.batch.batch_size;

    if (!trainer->callbacks.metrics)
        return;
    for (int64_t i = 0; i < window->n_pairs; i += batch_size) {
        int64_t left = window->n_pairs - i;

        ha_dpo_metrics_add(&metrics, cell->results + i, left < batch_size ? left : batch_size,
                           cell->settings.loss.beta);
    }
    n = ha_dpo_metrics_list(&metrics, false, list);
    list[n++] = (struct ha_dpo_metric){"grad_norm", norm};
    list[n++] = (struct ha_dpo_metric){"learning_rate", learning_rate};
    list[n++] = (struct ha_dpo_metric){"epoch", epoch};
    list[n++] = (struct ha_dpo_metric){"num_tokens", (double)cell->n_tokens};
    trainer->callbacks.metrics(trainer->callbacks.user, cell_index, trainer->step + 1, list, n);
}

/* The cell's part of a step behind its gradients. */
static int finish_cell(struct ha_dpo_trainer *trainer, int64_t cell_index,
                       const struct ha_window *window, double epoch, struct ha_error *err)
{
    struct ha_dpo_cell_work *cell = &trainer->cells[cell_index];
    double learning_rate =
        ha_dpo_learning_rate(&cell->settings, trainer->step, ha_dpo_schedule_steps(trainer));
    double norm = 0, plain;
    struct ha_dpo_meter meter = ha_dpo_meter_start(trainer->backend);
    struct ha_dpo_work work;
    int r = update(trainer, cell, learning_rate, &norm, err);

    if (r == 0)
        r = ha_dpo_meter_stop(trainer->backend, &meter, &work, err);
    if (r < 0 || cell->outcome)
        return r;
    plain = ha_dpo_plain_flops(ha_model_config(trainer->model), &trainer->train, window);
    ha_dpo_work_add(&cell->stats.own, &work, 1);
    cell->stats.plain_flops += plain;
    cell->stats.pairs += window->n_pairs;
    cell->stats.steps++;
    cell->n_tokens += ha_dpo_window_tokens(&trainer->train, window);
    trainer->steps.plain_flops += plain;
    report_step(trainer, cell_index, window, norm, learning_rate, epoch);
    return 0;
}

/* Gradients and updates of one window. */
static int run_window(struct ha_dpo_trainer *trainer, const struct ha_window *window, double epoch,
                      struct ha_error *err)
{
    int r = ha_dpo_window(trainer, window, err);

    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        if (ha_dpo_cell_active(trainer, &trainer->cells[i]))
            r = finish_cell(trainer, i, window, epoch, err);
    }
    return r;
}

int ha_dpo_step(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    const struct ha_batch *batch = &trainer->train.batch;
    int64_t per_epoch = ha_dpo_steps_per_epoch(trainer);
    int64_t epoch = trainer->step / per_epoch, index = trainer->step % per_epoch;
    int64_t n_micro = (batch->n_pairs + batch->batch_size - 1) / batch->batch_size;
    struct ha_window window = ha_batch_window(batch, index);
    double done = (double)(index * batch->accumulation + window.n_micro) / (double)n_micro;
    struct ha_dpo_meter meter = ha_dpo_meter_start(trainer->backend);
    struct ha_dpo_work work;
    int r = ha_dpo_packs_set_epoch(&trainer->train, epoch, err);

    if (r == 0)
        r = run_window(trainer, &window, (double)epoch + done, err);
    if (r == 0)
        r = ha_dpo_meter_stop(trainer->backend, &meter, &work, err);
    if (r < 0)
        return r;
    trainer->steps.pairs += window.n_pairs;
    trainer->steps.seconds += work.seconds;
    trainer->steps.flops += work.flops;
    ha_dpo_align(trainer);
    return 0;
}
