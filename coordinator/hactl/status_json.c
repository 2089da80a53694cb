/* status_json.c - the status of a sweep as JSON (status_json.h)
 *
 * Text is written as it comes: trees of 10,000 cells take longer to make than to fetch.  A stage is
 * a line. */
#include "coordinator/hactl/status_json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf/json.h"
#include "coordinator/hactl/norms.h"

enum { STEP_BYTES = 65536 };

struct writer {
    struct ha_buffer *out;
    int r; /* 0, or the first error: nothing is written after it */
};

static bool make_room(struct writer *w, size_t size)
{
    if (w->r == 0)
        w->r = ha_buffer_reserve(w->out, size + STEP_BYTES);
    return w->r == 0;
}

static inline void put_n(struct writer *w, const char *bytes, size_t size)
{
    struct ha_buffer *out = w->out;

    if (out->capacity - out->size <= size && !make_room(w, size))
        return;
    memcpy(out->data + out->size, bytes, size);
    out->size += size;
}

/* The zero byte behind a buffer's text, which put_n leaves out. */
static int finish(struct writer *w)
{
    if (w->r == 0 && w->out->data)
        w->out->data[w->out->size] = '\0';
    return w->r;
}

/* A literal, so that its length is known here. */
#define PUT(w, text) put_n(w, text, sizeof(text) - 1)

/* Bytes of text[0..size) before the first that a string must escape. */
static size_t plain_bytes(const char *text, size_t size)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    size_t at = 0;

    for (uint64_t eight, quote, slash; size - at >= sizeof eight; at += sizeof eight) {
        memcpy(&eight, text + at, sizeof eight);
        quote = eight ^ ones * '"';
        slash = eight ^ ones * '\\';
        if ((((eight - ones * 32) & ~eight) | ((quote - ones) & ~quote) |
             ((slash - ones) & ~slash)) &
            tops)
            break;
    }
    while (at < size && (unsigned char)text[at] >= 32 && text[at] != '"' && text[at] != '\\')
        at++;
    return at;
}

static void put_string(struct writer *w, const char *text)
{
    size_t size = strlen(text);

    PUT(w, "\"");
    for (;;) {
        size_t plain = plain_bytes(text, size);
        char escape[8];

        put_n(w, text, plain);
        if (plain == size)
            break;
        text += plain;
        size -= plain + 1;
        (void)snprintf(escape, sizeof escape, *text == '"' || *text == '\\' ? "\\%c" : "\\u%04x",
                       *text);
        put_n(w, escape, strlen(escape));
        text++;
    }
    PUT(w, "\"");
}

/* Eight of them a stage: printf would take longer than the rest of it. */
static void put_int(struct writer *w, int64_t value)
{
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char text[24];
    size_t at = sizeof text;

    do
        text[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        text[--at] = '-';
    put_n(w, text + at, sizeof text - at);
}

static void put_real(struct writer *w, double value)
{
    char text[40] = "null";

    if (value == 0 && !signbit(value)) {
        PUT(w, "0.0");
        return;
    }
    if (isfinite(value))
        (void)snprintf(text, sizeof text, "%.17g", value);
    put_n(w, text, strlen(text));
    if (isfinite(value) && !strpbrk(text, ".e"))
        PUT(w, ".0");
}

static void put_bool(struct writer *w, bool value)
{
    if (value)
        PUT(w, "true");
    else
        PUT(w, "false");
}

/* Takes the value over. */
static void put_json(struct writer *w, struct ha_json *json)
{
    char *text = json ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;

    if (text)
        put_n(w, text, strlen(text));
    else
        w->r = -ENOMEM;
    free(text);
    ha_json_destroy(json);
}

static void put_summary(struct writer *w, const char *text)
{
    struct ha_json *summary = NULL;

    if (text[0] && ha_json_is_plain(text, strlen(text)))
        put_n(w, text, strlen(text));
    else if (!text[0] || ha_json_parse(text, strlen(text), "summary", &summary, NULL) < 0)
        PUT(w, "null");
    else
        put_json(w, summary);
}

/* The member's name with what comes before it, then its value. */
#define MEMBER(w, put, name, value)                                                                \
    do {                                                                                           \
        PUT(w, ", \"" name "\": ");                                                                \
        put(w, value);                                                                             \
    } while (0)

static void put_stage(struct writer *w, const struct ha_wire_stage_row *stage)
{
    PUT(w, "{\"stage\": ");
    put_string(w, stage->stage);
    MEMBER(w, put_string, "state", stage->state);
    MEMBER(w, put_string, "reason", stage->reason);
    MEMBER(w, put_string, "category", stage->category);
    MEMBER(w, put_string, "mend", stage->mend);
    MEMBER(w, put_int, "done", stage->done);
    MEMBER(w, put_int, "total", stage->total);
    MEMBER(w, put_int, "failed", stage->failed);
    MEMBER(w, put_real, "tokens_per_second", stage->tokens_per_second);
    MEMBER(w, put_real, "utilisation", stage->utilisation);
    MEMBER(w, put_int, "attempts", stage->attempts);
    MEMBER(w, put_string, "worker", stage->worker);
    MEMBER(w, put_int, "job", (int64_t)stage->job);
    PUT(w, ", \"mates\": [");
    for (int64_t i = 0; i < stage->n_mates; i++) {
        if (i > 0)
            PUT(w, ", ");
        put_string(w, stage->mates[i]);
    }
    PUT(w, "]");
    MEMBER(w, put_int, "started_ms", stage->started_ms);
    MEMBER(w, put_int, "finished_ms", stage->finished_ms);
    MEMBER(w, put_summary, "summary", stage->summary_json);
    PUT(w, "}");
}

static void put_cell(struct writer *w, const struct ha_wire_cell_row *cell)
{
    PUT(w, "\n    {\"cell\": ");
    put_int(w, (int64_t)cell->cell);
    MEMBER(w, put_string, "name", cell->name);
    MEMBER(w, put_string, "model", cell->model);
    MEMBER(w, put_string, "strategy", cell->strategy);
    MEMBER(w, put_string, "layers", cell->layers);
    if (cell->choice.count > 0)
        MEMBER(w, put_json, "choice", ha_norms_choice_json(&cell->choice));
    MEMBER(w, put_bool, "in_grid", cell->in_grid);
    PUT(w, ", \"stages\": [");
    for (int64_t i = 0; i < cell->n_stages; i++) {
        if (i > 0)
            PUT(w, ",");
        PUT(w, "\n      ");
        put_stage(w, &cell->stages[i]);
    }
    PUT(w, "]}");
}

/* A member of the head, on a line of its own. */
#define LINE(w, put, name, value)                                                                  \
    do {                                                                                           \
        PUT(w, ",\n  \"" name "\": ");                                                             \
        put(w, value);                                                                             \
    } while (0)

static void put_head(struct writer *w, const struct ha_wire_status_reply *head,
                     const struct ha_progress *p)
{
    PUT(w, "{\n  \"sweep\": ");
    put_string(w, head->sweep.name);
    LINE(w, put_int, "id", (int64_t)head->sweep.sweep);
    LINE(w, put_string, "state", head->sweep.state);
    LINE(w, put_string, "reason", head->sweep.reason);
    LINE(w, put_int, "stages", p->stages);
    LINE(w, put_int, "stages_done", p->complete);
    LINE(w, put_int, "stages_failed", p->failed);
    LINE(w, put_real, "fraction", p->fraction);
    LINE(w, put_int, "remaining_ms", p->remaining_ms);
    LINE(w, put_bool, "remaining_is_least", p->at_least);
    LINE(w, put_int, "answers", p->answers);
    LINE(w, put_int, "scored", p->scores);
    LINE(w, put_int, "expected", p->scores_total);
    LINE(w, put_real, "spent", head->spent);
    LINE(w, put_real, "reserved", head->reserved);
    LINE(w, put_real, "budget", head->budget);
    LINE(w, put_int, "possibly_paid", head->possibly_paid);
    LINE(w, put_int, "workers", head->workers);
    LINE(w, put_int, "judges", head->judges);
    LINE(w, put_string, "judge_label", head->judge_label);
    PUT(w, ",\n  \"cells\": [");
}

void ha_status_json_init(struct ha_status_json *json)
{
    json->sums = (struct ha_progress_sums){0};
    ha_buffer_init(&json->head, 0);
    for (int i = 0; i < HA_FETCH_PARTS; i++)
        ha_buffer_init(&json->parts[i], 0);
    ha_buffer_init(&json->tail, 0);
}

void ha_status_json_clear(struct ha_status_json *json)
{
    ha_buffer_clear(&json->head);
    for (int i = 0; i < HA_FETCH_PARTS; i++)
        ha_buffer_clear(&json->parts[i]);
    ha_buffer_clear(&json->tail);
}

int ha_status_json_add(struct ha_status_json *json, int part, const struct ha_wire_cell_row *cells,
                       int64_t count, int64_t now_ms)
{
    struct writer w = {.out = &json->parts[part]};

    for (int64_t i = 0; i < count; i++) {
        /* Whatever part it is of, something comes before: the first page has a cell. */
        if (part > 0 || w.out->size > 0)
            PUT(&w, ",");
        put_cell(&w, &cells[i]);
        ha_progress_add(&json->sums, &cells[i], now_ms);
    }
    return finish(&w);
}

int ha_status_json_end(struct ha_status_json *json, const struct ha_wire_status_reply *head)
{
    struct ha_progress progress = ha_progress_end(&json->sums);
    struct writer first = {.out = &json->head}, last = {.out = &json->tail};

    put_head(&first, head, &progress);
    PUT(&last, "]\n}\n");
    return finish(&first) < 0 ? first.r : finish(&last);
}
