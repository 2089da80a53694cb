#include "worker/dpo/gang.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/count.h"
#include "worker/dpo/work.h"
#include "worker/model/join.h"

enum { TEXT_BYTES = 256 };

/* What a rank sends: this, one cost for each cell, and for each of its pairs the reference and
 * each cell's result.  Ranks are of one build (checked when they join). */
struct head {
    int64_t stop, code; /* code: positive errno */
    double flops;
    int64_t tokens;
    char text[TEXT_BYTES];
};

int ha_dpo_gang_create(const struct ha_dpo_trainer *trainer, struct ha_dpo_gang **ret_gang,
                       struct ha_error *err)
{
    struct ha_dpo_gang *gang = ha_calloc(1, sizeof(*gang));

    if (gang) {
        gang->rank = trainer->job.rank;
        gang->size = trainer->job.ranks;
        gang->before = ha_calloc(trainer->n_cells, sizeof(*gang->before));
        gang->takes_part = ha_calloc(trainer->n_cells, sizeof(*gang->takes_part));
    }
    if (!gang || !gang->before || !gang->takes_part) {
        ha_dpo_gang_destroy(gang);
        return ha_error_set(err, ENOMEM, "no memory for a gang");
    }
    *ret_gang = gang;
    return 0;
}

void ha_dpo_gang_destroy(struct ha_dpo_gang *gang)
{
    if (!gang)
        return;
    free(gang->before);
    free(gang->takes_part);
    free(gang);
}

/* ---- joining ---- */

/* The hash of all that training goes on from. */
static int hash_state(struct ha_dpo_trainer *trainer, char hex[HA_SHA256_HEX_BYTES],
                      struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;
    int r = 0;

    ha_sha256_init(&hash);
    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        const struct ha_dpo_cell_work *cell = &trainer->cells[i];
        int64_t n = ha_adapter_n_params(cell->settings.adapter);
        size_t bytes = (size_t)n * sizeof(float);
        float *params = ha_calloc(n, sizeof(*params));

        if (!params)
            return ha_error_set(err, ENOMEM, "no memory to compare the ranks of a gang");
        r = ha_backend_download(trainer->backend, params, ha_adapter_params(cell->settings.adapter),
                                bytes, err);
        if (r == 0)
            r = ha_backend_sync(trainer->backend, err);
        ha_sha256_update(&hash, cell->hash, sizeof(cell->hash));
        ha_sha256_update(&hash, &cell->stats.steps, sizeof(cell->stats.steps));
        ha_sha256_update(&hash, params, bytes);
        free(params);
    }
    ha_sha256_update(&hash, trainer->train_reference,
                     (size_t)trainer->train.batch.n_pairs * sizeof(*trainer->train_reference));
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
    return r;
}

int ha_dpo_trainer_join(struct ha_dpo_trainer *trainer, struct ha_comm *comm, struct ha_error *err)
{
    char state[HA_SHA256_HEX_BYTES];
    const struct ha_model_join_part parts[] = {
        {"batch plan (data, batch settings or model)", trainer->plan_hash},
        {"settings, checkpoint or adapter", state},
    };
    int r;

    if (!trainer->gang || ha_comm_rank(comm) != trainer->gang->rank ||
        ha_comm_size(comm) != trainer->gang->size)
        return ha_error_set(err, EINVAL, "the job is not one for a gang of %d ranks",
                            ha_comm_size(comm));
    r = hash_state(trainer, state, err);
    if (r == 0)
        r = ha_model_join_same(trainer->model, trainer->backend, parts, 2, comm, err);
    if (r == 0)
        trainer->gang->comm = comm;
    return r;
}

/* ---- the exchange ---- */

struct ha_dpo_range ha_dpo_gang_pairs(const struct ha_dpo_gang *gang, int rank,
                                      const struct ha_dpo_packs *packs, int64_t first,
                                      int64_t n_pairs)
{
    struct ha_dpo_range share = gang->share.of_rank[rank];
    int64_t size = packs->batch.batch_size;
    int64_t from = share.first * size, to = share.end * size;

    return (struct ha_dpo_range){first + (from < n_pairs ? from : n_pairs),
                                 first + (to < n_pairs ? to : n_pairs)};
}

void ha_dpo_gang_begin(struct ha_dpo_trainer *trainer, int64_t n_micro)
{
    struct ha_dpo_gang *gang = trainer->gang;

    ha_dpo_share_deal(n_micro, gang->size, &gang->share);
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        const struct ha_dpo_stats *stats = &trainer->cells[i].stats;

        gang->before[i] = (struct ha_dpo_gang_cost){stats->own, stats->shared, stats->tokens};
        gang->takes_part[i] = ha_dpo_cell_active(trainer, &trainer->cells[i]);
    }
    gang->flops_before = ha_backend_flops(trainer->backend);
    gang->tokens_before = trainer->steps.tokens;
}

static int64_t n_cells_of(const struct ha_dpo_trainer *trainer)
{
    int64_t n = 0;

    for (int64_t i = 0; i < trainer->n_cells; i++)
        n += trainer->gang->takes_part[i];
    return n;
}

static size_t pair_bytes(int64_t n_cells)
{
    return sizeof(struct ha_dpo_reference) + (size_t)n_cells * sizeof(struct ha_dpo_pair_result);
}

/* Bytes of the message of a rank; all are as long as the longest. */
static size_t message_bytes(const struct ha_dpo_trainer *trainer,
                            const struct ha_dpo_exchange *exchange)
{
    int64_t n_cells = n_cells_of(trainer), most = 0;

    for (int i = 0; i < trainer->gang->size; i++) {
        struct ha_dpo_range range = ha_dpo_gang_pairs(trainer->gang, i, exchange->packs,
                                                      exchange->first, exchange->n_pairs);

        most = range.end - range.first > most ? range.end - range.first : most;
    }
    return sizeof(struct head) + (size_t)n_cells * sizeof(struct ha_dpo_gang_cost) +
           (size_t)most * pair_bytes(n_cells);
}

/* Move a value between a message and where it belongs. */
static void move(char **at, void *value, size_t bytes, bool write)
{
    memcpy(write ? (void *)*at : value, write ? value : (void *)*at, bytes);
    *at += bytes;
}

static void move_pairs(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange,
                       int rank, char *at, bool write)
{
    struct ha_dpo_range range =
        ha_dpo_gang_pairs(trainer->gang, rank, exchange->packs, exchange->first, exchange->n_pairs);

    for (int64_t i = range.first; i < range.end; i++) {
        move(&at, &exchange->references[exchange->packs->order[i]], sizeof(struct ha_dpo_reference),
             write);
        for (int64_t c = 0; c < trainer->n_cells; c++) {
            if (trainer->gang->takes_part[c])
                move(&at, &exchange->results[c][i - exchange->first],
                     sizeof(struct ha_dpo_pair_result), write);
        }
    }
}

static struct ha_dpo_work difference(const struct ha_dpo_work *now,
                                     const struct ha_dpo_work *before)
{
    return (struct ha_dpo_work){now->seconds - before->seconds, now->flops - before->flops,
                                now->bytes - before->bytes};
}

static void write_message(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange,
                          char *message)
{
    const struct ha_dpo_gang *gang = trainer->gang;
    struct head head = {.stop = ha_dpo_told_to_stop(trainer),
                        .code = -exchange->result,
                        .flops = ha_backend_flops(trainer->backend) - gang->flops_before,
                        .tokens = trainer->steps.tokens - gang->tokens_before};

    if (exchange->result < 0)
        (void)snprintf(head.text, sizeof(head.text), "%s", ha_error_text(exchange->why));
    move(&message, &head, sizeof(head), true);
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        const struct ha_dpo_stats *stats = &trainer->cells[i].stats;
        struct ha_dpo_gang_cost cost = {.own = difference(&stats->own, &gang->before[i].own),
                                        .shared =
                                            difference(&stats->shared, &gang->before[i].shared),
                                        .tokens = stats->tokens - gang->before[i].tokens};

        if (gang->takes_part[i])
            move(&message, &cost, sizeof(cost), true);
    }
    move_pairs(trainer, exchange, gang->rank, message, true);
}

/* The ranks work at the same time: it took as long as the slowest of them. */
static void add_cost(struct ha_dpo_work *to, const struct ha_dpo_work *what)
{
    to->seconds = what->seconds > to->seconds ? what->seconds : to->seconds;
    to->flops += what->flops;
    to->bytes += what->bytes;
}

static void take_costs(struct ha_dpo_trainer *trainer, const char *all, size_t bytes)
{
    const struct ha_dpo_gang *gang = trainer->gang;
    int64_t place = 0;

    for (int64_t i = 0; i < trainer->n_cells; i++) {
        struct ha_dpo_stats *stats = &trainer->cells[i].stats;
        struct ha_dpo_gang_cost sum = {.tokens = 0}, cost;

        if (!gang->takes_part[i])
            continue;
        for (int rank = 0; rank < gang->size; rank++) {
            memcpy(&cost,
                   all + (size_t)rank * bytes + sizeof(struct head) + (size_t)place * sizeof(cost),
                   sizeof(cost));
            add_cost(&sum.own, &cost.own);
            add_cost(&sum.shared, &cost.shared);
            sum.tokens += cost.tokens;
        }
        place++;
        stats->own = gang->before[i].own;
        stats->shared = gang->before[i].shared;
        ha_dpo_work_add(&stats->own, &sum.own, 1);
        ha_dpo_work_add(&stats->shared, &sum.shared, 1);
        stats->tokens = gang->before[i].tokens + sum.tokens;
    }
}

/* A loss that is not finite ends the cell, for every rank in the same words. */
static void check_losses(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange)
{
    for (int64_t c = 0; c < trainer->n_cells; c++) {
        struct ha_dpo_cell_work *cell = &trainer->cells[c];

        if (!trainer->gang->takes_part[c])
            continue;
        free(cell->outcome);
        cell->outcome = NULL;
        for (int64_t i = 0; i < exchange->n_pairs && !cell->outcome; i++)
            ha_dpo_check_loss(trainer, cell, exchange->results[c][i].loss.value);
    }
}

static int take_messages(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange,
                         char *all, size_t bytes, struct ha_error *err)
{
    struct ha_dpo_gang *gang = trainer->gang;
    size_t costs = (size_t)n_cells_of(trainer) * sizeof(struct ha_dpo_gang_cost);
    bool left = false;
    struct head head;

    for (int rank = 0; rank < gang->size; rank++) {
        char *message = all + (size_t)rank * bytes;

        memcpy(&head, message, sizeof(head));
        head.text[TEXT_BYTES - 1] = '\0';
        gang->stop = gang->stop || head.stop;
        left = left || head.code == EINTR;
        if (head.code != 0 && head.code != EINTR && rank == gang->rank)
            return ha_error_set(err, (int)head.code, "%s", head.text);
        if (head.code != 0 && head.code != EINTR)
            return ha_error_set(err, (int)head.code, "rank %d of the gang: %s", rank, head.text);
        if (rank == gang->rank)
            continue;
        trainer->steps.tokens += exchange->costs ? head.tokens : 0;
        trainer->steps.flops += exchange->costs ? head.flops : 0;
    }
    if (left)
        return ha_error_set(err, EINTR, "stopped");
    for (int rank = 0; rank < gang->size; rank++)
        move_pairs(trainer, exchange, rank,
                   all + (size_t)rank * bytes + sizeof(struct head) + costs, false);
    if (exchange->costs) {
        take_costs(trainer, all, bytes);
        check_losses(trainer, exchange);
    }
    return 0;
}

int ha_dpo_gang_exchange(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange,
                         struct ha_error *err)
{
    size_t bytes = message_bytes(trainer, exchange);
    struct ha_dpo_gang *gang = trainer->gang;
    char *all = ha_calloc((int64_t)gang->size + 1, bytes), *own;
    int r;

    if (!all)
        return ha_error_set(err, ENOMEM, "no memory for what the ranks of a gang exchange");
    own = all + (size_t)gang->size * bytes;
    write_message(trainer, exchange, own);
    r = ha_model_idle(trainer->model, err);
    if (r == 0)
        r = ha_comm_gather(gang->comm, all, own, bytes, err);
    if (r == 0)
        r = take_messages(trainer, exchange, all, bytes, err);
    free(all);
    return r;
}

/* ---- a window ---- */

static int add_gradients(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    const struct ha_dpo_gang *gang = trainer->gang;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        struct ha_dpo_cell_work *cell = &trainer->cells[i];

        if (gang->takes_part[i] && !cell->outcome)
            r = ha_comm_sum(gang->comm, cell->gradient, ha_adapter_n_params(cell->settings.adapter),
                            gang->share.adds, gang->share.n_adds, err);
    }
    return r;
}

int ha_dpo_gang_window(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                       int (*run_share)(struct ha_dpo_trainer *trainer,
                                        const struct ha_window *window, struct ha_dpo_range share,
                                        struct ha_error *err),
                       struct ha_error *err)
{
    struct ha_dpo_gang *gang = trainer->gang;
    struct ha_dpo_pair_result **results;
    struct ha_error why = {0};
    struct ha_dpo_exchange exchange = {.packs = &trainer->train,
                                       .first = window->first,
                                       .n_pairs = window->n_pairs,
                                       .references = trainer->train_reference,
                                       .costs = true,
                                       .why = &why};
    int r;

    if (!gang->comm)
        return ha_error_set(err, EINVAL, "the ranks of the gang are not together");
    results = ha_calloc(trainer->n_cells, sizeof(*results));
    if (!results)
        return ha_error_set(err, ENOMEM, "no memory for a gang");
    for (int64_t i = 0; i < trainer->n_cells; i++)
        results[i] = trainer->cells[i].results;
    exchange.results = results;
    ha_dpo_gang_begin(trainer, window->n_micro);
    exchange.result = run_share(trainer, window, gang->share.of_rank[gang->rank], &why);
    r = ha_dpo_gang_exchange(trainer, &exchange, err);
    free(results);
    return r < 0 ? r : add_gradients(trainer, err);
}
