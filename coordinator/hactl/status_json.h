/* status_json.h - a sweep's status as JSON, written while its pages come
 *
 * The head, which has sums over all cells, comes first in the text and is made last. */
#ifndef HA_COORDINATOR_HACTL_STATUS_JSON_H
#define HA_COORDINATOR_HACTL_STATUS_JSON_H

#include <stdint.h>

#include "common/base/buffer.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/progress.h"

struct ha_status_json {
    struct ha_progress_sums sums;
    struct ha_buffer head, parts[HA_FETCH_PARTS], tail;
};

void ha_status_json_init(struct ha_status_json *json);
void ha_status_json_clear(struct ha_status_json *json);

/* Add cells of a part (fetch.h).  now_ms: of the page.  0 or -ENOMEM. */
int ha_status_json_add(struct ha_status_json *json, int part, const struct ha_wire_cell_row *cells,
                       int64_t count, int64_t now_ms);

/* After the last cell: head, the parts, tail are the text, with a line's end.  0 or -ENOMEM. */
int ha_status_json_end(struct ha_status_json *json, const struct ha_wire_status_reply *head);

#endif
