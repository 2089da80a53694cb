/* template.h - post-processors: the ids that go before and behind a text
 *
 * TemplateProcessing ("single", one text), ByteLevel (moves offsets only),
 * Sequence. */
#ifndef HA_WORKER_TOKENIZER_TEMPLATE_H
#define HA_WORKER_TOKENIZER_TEMPLATE_H

#include "worker/tokenizer/tokenizer.h"

struct ha_json;

struct ha_template {
    struct ha_ids before, behind;
};

/* json: the object "post_processor"; NULL or null: nothing is added. */
int ha_template_read(const struct ha_json *json, struct ha_template *ret_template,
                     struct ha_error *err);

void ha_template_clear(struct ha_template *template);

#endif
