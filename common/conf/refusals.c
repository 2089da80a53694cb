#include "common/conf/refusals.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"

struct refusal {
    const char *section;
    const char *key;
    const char *built; /* the values that work, "a|b"; NULL: none */
    const char *instead;
};

static const struct refusal refusals[] = {
    {"notify", "command", NULL, "leave it out and follow hactl status"},
    {"data", "format", "auto", "auto tells the forms apart by their keys"},
    {"train", "lr_scheduler", "linear", "linear is"},
};

static bool is_built(const char *built, const char *text)
{
    size_t length = strlen(text);

    for (const char *at = built; at; at = *at ? at + 1 : NULL) {
        size_t n = strcspn(at, "|");

        if (n == length && memcmp(at, text, n) == 0)
            return true;
        at += n;
    }
    return false;
}

int ha_refusals_check(const struct ha_section *section, const struct ha_setting *row,
                      const void *values, struct ha_error *err)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *refusal = &refusals[i];
        char *text;
        int r = 0;

        if (strcmp(refusal->section, section->name) != 0 || strcmp(refusal->key, row->key) != 0)
            continue;
        text = ha_section_text(row, values);
        if (!text)
            return ha_error_set(err, ENOMEM, "out of memory");
        if (!is_built(refusal->built, text))
            r = ha_error_set(err, ENOTSUP, "%s.%s = %.60s is not built yet; %s", section->name,
                             row->key, text, refusal->instead);
        free(text);
        return r;
    }
    return 0;
}
