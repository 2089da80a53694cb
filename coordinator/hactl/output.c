#include "coordinator/hactl/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/report/table.h"

static int print(const char *text, struct ha_error *err)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        return ha_error_set(err, errno, "standard output: %s", strerror(errno));
    return 0;
}

int ha_output_json(struct ha_json *json, struct ha_error *err)
{
    char *text = json ? ha_json_dump(json, HA_JSON_PRETTY) : NULL;
    int r = text ? print(text, err) : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        r = print("\n", err);
    free(text);
    ha_json_destroy(json);
    return r;
}

int ha_output_text(struct ha_buffer *text, struct ha_error *err)
{
    int r = print(ha_buffer_text(text), err);

    ha_buffer_clear(text);
    return r;
}

int ha_output_table(struct ha_table *table, enum ha_output_form form, struct ha_error *err)
{
    struct ha_buffer out;
    int r;

    ha_buffer_init(&out, 0);
    if (form == HA_OUTPUT_CSV)
        r = ha_table_csv(table, &out);
    else if (form == HA_OUTPUT_MARKDOWN)
        r = ha_table_markdown(table, &out);
    else
        r = ha_table_plain(table, &out);
    ha_table_destroy(table);
    if (r < 0) {
        ha_buffer_clear(&out);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return ha_output_text(&out, err);
}
