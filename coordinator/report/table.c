#include "coordinator/report/table.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"

enum { MAX_COLUMNS = 64 };

struct ha_table {
    char *title;
    char *columns[MAX_COLUMNS];
    bool right[MAX_COLUMNS];
    int64_t n_columns;
    char **cells; /* row by row */
    int64_t n_cells, cells_capacity;
    struct ha_buffer notes; /* one per line */
    bool failed;
};

struct ha_table *ha_table_create(const char *title)
{
    struct ha_table *table = ha_calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    ha_buffer_init(&table->notes, 0);
    table->title = ha_strdup(title);
    table->failed = !table->title;
    return table;
}

void ha_table_destroy(struct ha_table *table)
{
    if (!table)
        return;
    for (int64_t i = 0; i < table->n_columns; i++)
        free(table->columns[i]);
    for (int64_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table->title);
    ha_buffer_clear(&table->notes);
    free(table);
}

static void add_column(struct ha_table *table, const char *name, bool right)
{
    if (!table || table->failed)
        return;
    if (table->n_columns == MAX_COLUMNS || !(table->columns[table->n_columns] = ha_strdup(name))) {
        table->failed = true;
        return;
    }
    table->right[table->n_columns++] = right;
}

void ha_table_column_text(struct ha_table *table, const char *name)
{
    add_column(table, name, false);
}

void ha_table_column_number(struct ha_table *table, const char *name)
{
    add_column(table, name, true);
}

/* Takes text over. */
static void add_cell(struct ha_table *table, char *text)
{
    void *cells;

    if (!table || table->failed || !text) {
        if (table)
            table->failed = true;
        free(text);
        return;
    }
    cells = table->cells;
    if (ha_grow(&cells, &table->cells_capacity, table->n_cells + 1, sizeof(char *)) < 0) {
        table->failed = true;
        free(text);
        return;
    }
    table->cells = cells;
    table->cells[table->n_cells++] = text;
}

void ha_table_text(struct ha_table *table, const char *text)
{
    add_cell(table, ha_strdup(text ? text : ""));
}

void ha_table_format(struct ha_table *table, const char *format, ...)
{
    struct ha_buffer text;
    va_list args;
    int r;

    ha_buffer_init(&text, 0);
    va_start(args, format);
    r = ha_buffer_vprintf(&text, format, args);
    va_end(args);
    add_cell(table, r == 0 ? ha_buffer_detach(&text) : NULL);
}

void ha_table_real(struct ha_table *table, double value, int decimals)
{
    if (isnan(value))
        ha_table_text(table, "-");
    else
        ha_table_format(table, "%.*f", decimals, value);
}

void ha_table_end_row(struct ha_table *table)
{
    while (table && !table->failed && table->n_columns > 0 &&
           table->n_cells % table->n_columns != 0)
        ha_table_text(table, "");
}

void ha_table_note(struct ha_table *table, const char *format, ...)
{
    va_list args;

    if (!table || table->failed)
        return;
    va_start(args, format);
    if (ha_buffer_vprintf(&table->notes, format, args) < 0 ||
        ha_buffer_append_text(&table->notes, "\n") < 0)
        table->failed = true;
    va_end(args);
}

int64_t ha_table_rows(const struct ha_table *table)
{
    return table && table->n_columns > 0 ? table->n_cells / table->n_columns : 0;
}

/* A cell of a Markdown table: one line, no open pipes. */
static int put_markdown(struct ha_buffer *out, const char *text)
{
    int r = 0;

    for (; r == 0 && *text; text++) {
        if (*text == '|')
            r = ha_buffer_append_text(out, "\\|");
        else
            r = ha_buffer_append(out, *text == '\n' || *text == '\r' ? " " : text, 1);
    }
    return r;
}

int ha_table_markdown(const struct ha_table *table, struct ha_buffer *out)
{
    int r;

    if (!table || table->failed)
        return -ENOMEM;
    r = table->title[0] ? ha_buffer_printf(out, "**%s**\n\n", table->title) : 0;
    for (int64_t i = 0; r == 0 && i < table->n_columns; i++)
        r = ha_buffer_printf(out, "| %s ", table->columns[i]);
    if (r == 0)
        r = ha_buffer_append_text(out, "|\n");
    for (int64_t i = 0; r == 0 && i < table->n_columns; i++)
        r = ha_buffer_append_text(out, table->right[i] ? "|---:" : "|---");
    if (r == 0)
        r = ha_buffer_append_text(out, "|\n");
    for (int64_t i = 0; r == 0 && i < table->n_cells; i++) {
        r = ha_buffer_append_text(out, "| ");
        if (r == 0)
            r = put_markdown(out, table->cells[i]);
        if (r == 0)
            r = ha_buffer_append_text(out, (i + 1) % table->n_columns ? " " : " |\n");
    }
    if (r == 0 && table->notes.size > 0)
        r = ha_buffer_printf(out, "\n%s", ha_buffer_text(&table->notes));
    return r < 0 ? r : ha_buffer_append_text(out, "\n");
}

static int put_csv(struct ha_buffer *out, const char *text)
{
    int r;

    if (!strpbrk(text, ",\"\r\n"))
        return ha_buffer_append_text(out, text);
    r = ha_buffer_append_text(out, "\"");
    for (; r == 0 && *text; text++)
        r = *text == '"' ? ha_buffer_append_text(out, "\"\"") : ha_buffer_append(out, text, 1);
    return r < 0 ? r : ha_buffer_append_text(out, "\"");
}

int ha_table_csv(const struct ha_table *table, struct ha_buffer *out)
{
    int r = 0;

    if (!table || table->failed)
        return -ENOMEM;
    for (int64_t i = 0; r == 0 && i < table->n_columns; i++) {
        r = put_csv(out, table->columns[i]);
        if (r == 0)
            r = ha_buffer_append_text(out, i + 1 < table->n_columns ? "," : "\n");
    }
    for (int64_t i = 0; r == 0 && i < table->n_cells; i++) {
        r = put_csv(out, table->cells[i]);
        if (r == 0)
            r = ha_buffer_append_text(out, (i + 1) % table->n_columns ? "," : "\n");
    }
    return r;
}

static int64_t width_of(const char *text)
{
    int64_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static int put_padded(struct ha_buffer *out, const char *text, int64_t width, bool right, bool last)
{
    int pad = (int)(width - width_of(text));

    if (right)
        return ha_buffer_printf(out, "%*s%s%s", pad, "", text, last ? "\n" : "  ");
    return ha_buffer_printf(out, "%s%*s%s", text, last ? 0 : pad, "", last ? "\n" : "  ");
}

int ha_table_plain(const struct ha_table *table, struct ha_buffer *out)
{
    int64_t widths[MAX_COLUMNS];
    int r;

    if (!table || table->failed)
        return -ENOMEM;
    for (int64_t i = 0; i < table->n_columns; i++)
        widths[i] = width_of(table->columns[i]);
    for (int64_t i = 0; i < table->n_cells; i++) {
        int64_t column = i % table->n_columns, width = width_of(table->cells[i]);

        widths[column] = width > widths[column] ? width : widths[column];
    }
    r = table->title[0] ? ha_buffer_printf(out, "%s\n", table->title) : 0;
    for (int64_t i = 0; r == 0 && i < table->n_columns; i++)
        r = put_padded(out, table->columns[i], widths[i], table->right[i],
                       i + 1 == table->n_columns);
    for (int64_t i = 0; r == 0 && i < table->n_cells; i++) {
        int64_t column = i % table->n_columns;

        r = put_padded(out, table->cells[i], widths[column], table->right[column],
                       column + 1 == table->n_columns);
    }
    return r < 0 ? r : ha_buffer_append_text(out, ha_buffer_text(&table->notes));
}
