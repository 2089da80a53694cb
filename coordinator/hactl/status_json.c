/* status_json.c - the status of a sweep as JSON (status_view.h)
 *
 * Written as text at once: trees of 10,000 cells take longer to make than to fetch. */
#include <errno.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/conf/json.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/norms.h"
#include "coordinator/hactl/progress.h"
#include "coordinator/hactl/status_view.h"

enum { PIECE_BYTES = 32768 };

/* Numbers and names are a few bytes each, so they are gathered before they go to the buffer. */
struct writer {
    struct ha_buffer *out;
    int depth;
    bool first; /* of its object or array */
    int r;      /* 0, or the first error: nothing is written after it */
    size_t size;
    char piece[PIECE_BYTES];
};

static void flush(struct writer *w)
{
    if (w->r == 0)
        w->r = ha_buffer_append(w->out, w->piece, w->size);
    w->size = 0;
}

static void put_n(struct writer *w, const char *bytes, size_t size)
{
    if (size > PIECE_BYTES - w->size)
        flush(w);
    if (size > PIECE_BYTES) {
        if (w->r == 0)
            w->r = ha_buffer_append(w->out, bytes, size);
        return;
    }
    memcpy(w->piece + w->size, bytes, size);
    w->size += size;
}

static inline void put(struct writer *w, const char *text)
{
    put_n(w, text, strlen(text));
}

static void put_line(struct writer *w)
{
    static const char spaces[] = "\n                ";

    put_n(w, spaces, 1 + 2 * (size_t)w->depth);
}

/* The place of the next value: of an element when name is NULL. */
static void put_place(struct writer *w, const char *name)
{
    if (!w->first)
        put(w, ",");
    w->first = false;
    put_line(w);
    if (!name)
        return;
    put(w, "\"");
    put(w, name);
    put(w, "\": ");
}

static void begin(struct writer *w, const char *bracket)
{
    put(w, bracket);
    w->depth++;
    w->first = true;
}

static void end(struct writer *w, const char *bracket)
{
    w->depth--;
    if (!w->first)
        put_line(w);
    w->first = false;
    put(w, bracket);
}

static void put_string(struct writer *w, const char *text)
{
    put(w, "\"");
    while (*text) {
        size_t plain = 0;
        char escape[8];

        while ((unsigned char)text[plain] >= 32 && text[plain] != '"' && text[plain] != '\\')
            plain++;
        put_n(w, text, plain);
        text += plain;
        if (!*text)
            break;
        if (*text == '"' || *text == '\\')
            (void)snprintf(escape, sizeof escape, "\\%c", *text);
        else
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*text);
        put(w, escape);
        text++;
    }
    put(w, "\"");
}

static void key_text(struct writer *w, const char *name, const char *text)
{
    put_place(w, name);
    put_string(w, text);
}

/* Eight of them a stage: printf would take longer than the rest of it. */
static void key_int(struct writer *w, const char *name, int64_t value)
{
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char text[24];
    size_t at = sizeof text;

    do
        text[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        text[--at] = '-';
    put_place(w, name);
    put_n(w, text + at, sizeof text - at);
}

static void key_real(struct writer *w, const char *name, double value)
{
    char text[40] = "null";

    put_place(w, name);
    if (value == 0 && !signbit(value)) {
        put(w, "0.0");
        return;
    }
    if (isfinite(value))
        (void)snprintf(text, sizeof text, "%.17g", value);
    put(w, text);
    if (isfinite(value) && !strpbrk(text, ".e"))
        put(w, ".0");
}

static void key_bool(struct writer *w, const char *name, bool value)
{
    put_place(w, name);
    put(w, value ? "true" : "false");
}

/* Takes the value over. */
static void key_json(struct writer *w, const char *name, struct ha_json *json)
{
    char *text = json ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;

    put_place(w, name);
    if (text)
        put(w, text);
    else
        w->r = -ENOMEM;
    free(text);
    ha_json_destroy(json);
}

static void put_summary(struct writer *w, const char *text)
{
    struct ha_json *summary = NULL;

    if (!text[0] || ha_json_parse(text, strlen(text), "summary", &summary, NULL) < 0)
        summary = ha_json_new_null();
    key_json(w, "summary", summary);
}

static void put_stage(struct writer *w, const struct ha_wire_stage_row *stage)
{
    put_place(w, NULL);
    begin(w, "{");
    key_text(w, "stage", stage->stage);
    key_text(w, "state", stage->state);
    key_text(w, "reason", stage->reason);
    key_text(w, "category", stage->category);
    key_text(w, "mend", stage->mend);
    key_int(w, "done", stage->done);
    key_int(w, "total", stage->total);
    key_int(w, "failed", stage->failed);
    key_real(w, "tokens_per_second", stage->tokens_per_second);
    key_real(w, "utilisation", stage->utilisation);
    key_int(w, "attempts", stage->attempts);
    key_text(w, "worker", stage->worker);
    key_int(w, "job", (int64_t)stage->job);
    put_place(w, "mates");
    begin(w, "[");
    for (int64_t i = 0; i < stage->n_mates; i++)
        key_text(w, NULL, stage->mates[i]);
    end(w, "]");
    key_int(w, "started_ms", stage->started_ms);
    key_int(w, "finished_ms", stage->finished_ms);
    put_summary(w, stage->summary_json);
    end(w, "}");
}

static void put_cell(struct writer *w, const struct ha_wire_cell_row *cell)
{
    put_place(w, NULL);
    begin(w, "{");
    key_int(w, "cell", (int64_t)cell->cell);
    key_text(w, "name", cell->name);
    key_text(w, "model", cell->model);
    key_text(w, "strategy", cell->strategy);
    key_text(w, "layers", cell->layers);
    if (cell->choice.count > 0)
        key_json(w, "choice", ha_norms_choice_json(&cell->choice));
    key_bool(w, "in_grid", cell->in_grid);
    put_place(w, "stages");
    begin(w, "[");
    for (int64_t i = 0; i < cell->n_stages; i++)
        put_stage(w, &cell->stages[i]);
    end(w, "]");
    end(w, "}");
}

static void put_head(struct writer *w, const struct ha_status *status)
{
    const struct ha_wire_status_reply *head = status->head;
    struct ha_progress p = ha_progress_of(status);

    key_text(w, "sweep", head->sweep.name);
    key_int(w, "id", (int64_t)head->sweep.sweep);
    key_text(w, "state", head->sweep.state);
    key_int(w, "stages", p.stages);
    key_int(w, "stages_done", p.complete);
    key_int(w, "stages_failed", p.failed);
    key_real(w, "fraction", p.fraction);
    key_int(w, "remaining_ms", p.remaining_ms);
    key_bool(w, "remaining_is_least", p.at_least);
    key_int(w, "answers", p.answers);
    key_int(w, "scored", p.scores);
    key_int(w, "expected", p.scores_total);
    key_real(w, "spent", head->spent);
    key_real(w, "reserved", head->reserved);
    key_real(w, "budget", head->budget);
    key_int(w, "possibly_paid", head->possibly_paid);
    key_int(w, "workers", head->workers);
    key_int(w, "judges", head->judges);
    key_text(w, "judge_label", head->judge_label);
}

int ha_status_json(const struct ha_status *status, struct ha_buffer *out)
{
    struct writer w;

    w.out = out;
    w.depth = w.r = 0;
    w.size = 0;
    begin(&w, "{");
    put_head(&w, status);
    put_place(&w, "cells");
    begin(&w, "[");
    for (int64_t i = 0; i < status->n_cells; i++)
        put_cell(&w, status->cells[i]);
    end(&w, "]");
    end(&w, "}");
    put(&w, "\n");
    flush(&w);
    return w.r;
}
