/* table.h - a table of texts, and the forms it can be printed in
 *
 * A table has a title, columns (left- or right-aligned), rows and notes.  The
 * first failed call leaves the table marked as failed: later calls do nothing
 * and rendering returns -ENOMEM, so that a builder checks once. */
#ifndef HA_COORDINATOR_REPORT_TABLE_H
#define HA_COORDINATOR_REPORT_TABLE_H

#include <stdint.h>

struct ha_buffer;
struct ha_table;

/* NULL when memory is short (every call accepts that NULL as a failed table). */
struct ha_table *ha_table_create(const char *title);
void ha_table_destroy(struct ha_table *table);

/* Columns are named before the first row.  Numbers are aligned to the right. */
void ha_table_column_text(struct ha_table *table, const char *name);
void ha_table_column_number(struct ha_table *table, const char *name);

/* Fill the rows from left to right; a row ends when it is full, or with
 * ha_table_end_row (the rest stays empty). */
void ha_table_text(struct ha_table *table, const char *text);
void ha_table_format(struct ha_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "-" for NaN. */
void ha_table_real(struct ha_table *table, double value, int decimals);
void ha_table_end_row(struct ha_table *table);

/* A line below the table. */
void ha_table_note(struct ha_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int64_t ha_table_rows(const struct ha_table *table);

/* Returns 0 or -ENOMEM. */
int ha_table_markdown(const struct ha_table *table, struct ha_buffer *out);

/* RFC 4180, header line first, without title and notes. */
int ha_table_csv(const struct ha_table *table, struct ha_buffer *out);

/* Aligned columns for a terminal; widths count code points. */
int ha_table_plain(const struct ha_table *table, struct ha_buffer *out);

#endif
