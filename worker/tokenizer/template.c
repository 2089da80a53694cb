#include "worker/tokenizer/template.h"

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"

struct reading {
    struct ha_template template;
    bool found; /* a TemplateProcessing; a second one would see the first's pieces as texts */
    struct ha_error *err;
};

static int add_special(struct reading *reading, const struct ha_json *specials, const char *name,
                       struct ha_ids *ids)
{
    const struct ha_json *list = ha_json_get(ha_json_get(specials, name), "ids");

    if (!ha_json_is(list, HA_JSON_ARRAY))
        return ha_error_set(reading->err, EINVAL, "post_processor: special token \"%s\" has no ids",
                            name);
    for (int64_t i = 0; i < ha_json_size(list); i++) {
        int64_t id = ha_json_int(ha_json_at(list, i), -1);

        if (id < 0 || id > INT32_MAX)
            return ha_error_set(reading->err, EINVAL, "post_processor: an id of \"%s\" is wrong",
                                name);
        if (ha_ids_append(ids, (int32_t)id) < 0)
            return ha_error_set(reading->err, ENOMEM, "no memory for a post-processor");
    }
    return 0;
}

static int read_template(struct reading *reading, const struct ha_json *json)
{
    const struct ha_json *pieces = ha_json_get(json, "single");
    bool text = false;

    if (reading->found)
        return ha_error_set(reading->err, ENOTSUP,
                            "post_processor: two TemplateProcessing are not supported");
    reading->found = true;
    for (int64_t i = 0; i < ha_json_size(pieces); i++) {
        const struct ha_json *piece = ha_json_at(pieces, i);
        const char *special =
            ha_json_string(ha_json_get(ha_json_get(piece, "SpecialToken"), "id"), NULL);
        const char *sequence =
            ha_json_string(ha_json_get(ha_json_get(piece, "Sequence"), "id"), NULL);
        int r;

        if (!special && (!sequence || strcmp(sequence, "A") != 0 || text))
            return ha_error_set(reading->err, ENOTSUP,
                                "post_processor: a template of this form is not supported");
        if (!special) {
            text = true;
            continue;
        }
        r = add_special(reading, ha_json_get(json, "special_tokens"), special,
                        text ? &reading->template.behind : &reading->template.before);
        if (r < 0)
            return r;
    }
    if (!text)
        return ha_error_set(reading->err, ENOTSUP,
                            "post_processor: a template without the text is not supported");
    return 0;
}

static int read_any(struct reading *reading, const struct ha_json *json)
{
    const char *type = ha_json_string(ha_json_get(json, "type"), "");
    const struct ha_json *list = ha_json_get(json, "processors");
    int r = 0;

    if (strcmp(type, "Sequence") == 0) {
        for (int64_t i = 0; i < ha_json_size(list) && r == 0; i++)
            r = read_any(reading, ha_json_at(list, i));
        return r;
    }
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(reading, json);
    if (strcmp(type, "ByteLevel") == 0)
        return 0;
    return ha_error_set(reading->err, ENOTSUP, "post_processor of type \"%s\" is not supported",
                        type);
}

int ha_template_read(const struct ha_json *json, struct ha_template *ret_template,
                     struct ha_error *err)
{
    struct reading reading = {.err = err};
    int r = json && !ha_json_is(json, HA_JSON_NULL) ? read_any(&reading, json) : 0;

    if (r < 0) {
        ha_template_clear(&reading.template);
        return r;
    }
    *ret_template = reading.template;
    return 0;
}

void ha_template_clear(struct ha_template *template)
{
    ha_ids_clear(&template->before);
    ha_ids_clear(&template->behind);
}
