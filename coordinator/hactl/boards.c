#include "coordinator/hactl/boards.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/events.h"
#include "coordinator/hactl/fetch.h"

struct board {
    uint64_t cell;
    struct ha_events *events;
};

struct ha_boards {
    char *dir;
    struct board *boards;
    int64_t n_boards, capacity;
    uint64_t after;
    const struct ha_status *status; /* during an update */
};

int ha_boards_create(const char *dir, struct ha_boards **ret_boards, struct ha_error *err)
{
    struct ha_boards *boards = ha_calloc(1, sizeof(*boards));

    if (boards)
        boards->dir = ha_format("%s/tensorboard", dir);
    if (!boards || !boards->dir) {
        ha_boards_destroy(boards);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    *ret_boards = boards;
    return 0;
}

void ha_boards_destroy(struct ha_boards *boards)
{
    if (!boards)
        return;
    for (int64_t i = 0; i < boards->n_boards; i++)
        ha_events_destroy(boards->boards[i].events);
    free(boards->boards);
    free(boards->dir);
    free(boards);
}

static const char *name_of(const struct ha_status *status, uint64_t cell)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        if (status->cells[i]->cell == cell)
            return status->cells[i]->name;
    return NULL;
}

/* The event file of a cell, made when its first metric comes. */
static int board_of(struct ha_boards *boards, uint64_t cell, struct ha_events **ret_events,
                    struct ha_error *err)
{
    const char *name = name_of(boards->status, cell);
    char *folder, *dir;
    void *array;
    int r;

    for (int64_t i = 0; i < boards->n_boards; i++) {
        if (boards->boards[i].cell == cell) {
            *ret_events = boards->boards[i].events;
            return 0;
        }
    }
    folder = ha_strdup(name ? name : "other");
    for (char *at = folder; at && *at; at++)
        if (*at == '/')
            *at = '-';
    dir = folder ? ha_format("%s/%s", boards->dir, folder) : NULL;
    free(folder);
    array = boards->boards;
    if (!dir ||
        ha_grow(&array, &boards->capacity, boards->n_boards + 1, sizeof(*boards->boards)) < 0) {
        free(dir);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    boards->boards = array;
    r = ha_events_create(dir, ha_clock_wall_ms(), ret_events, err);
    free(dir);
    if (r == 0)
        boards->boards[boards->n_boards++] = (struct board){cell, *ret_events};
    return r;
}

static int take(void *context, const struct ha_wire_metric_row *row, struct ha_error *err)
{
    struct ha_boards *boards = context;
    struct ha_events *events;
    char *tag;
    int r = board_of(boards, row->cell, &events, err);

    if (r < 0)
        return r;
    /* The Trainer logs "loss" as train/loss and "eval_loss" as eval/loss. */
    tag = strncmp(row->name, "eval_", 5) == 0 ? ha_format("eval/%s", row->name + 5)
                                              : ha_format("train/%s", row->name);
    r = tag ? ha_events_scalar(events, ha_clock_wall_ms(), row->step, tag, (float)row->value, err)
            : ha_error_set(err, ENOMEM, "hactl: out of memory");
    free(tag);
    return r;
}

int ha_boards_update(struct ha_boards *boards, struct ha_link *link, const struct ha_status *status,
                     struct ha_error *err)
{
    struct ha_wire_metrics_request request = {.sweep = status->head->sweep.name,
                                              .after = boards->after};
    int r;

    boards->status = status;
    r = ha_fetch_metrics(link, &request, take, boards, err);
    boards->after = request.after;
    boards->status = NULL;
    return r;
}
