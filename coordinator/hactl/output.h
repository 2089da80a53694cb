/* output.h - results on standard output */
#ifndef HA_COORDINATOR_HACTL_OUTPUT_H
#define HA_COORDINATOR_HACTL_OUTPUT_H

struct ha_buffer;
struct ha_error;
struct ha_json;
struct ha_table;

/* Print a value that this call takes over; NULL means that memory was short. */
int ha_output_json(struct ha_json *json, struct ha_error *err);

/* Print and clear a text. */
int ha_output_text(struct ha_buffer *text, struct ha_error *err);

enum ha_output_form { HA_OUTPUT_PLAIN, HA_OUTPUT_CSV, HA_OUTPUT_MARKDOWN };

/* Print a table that this call takes over; NULL means that memory was short. */
int ha_output_table(struct ha_table *table, enum ha_output_form form, struct ha_error *err);

#endif
