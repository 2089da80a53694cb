/* settings_value.h - one value on its way into a setting
 *
 * TOML, JSON and command-line text are first turned into this neutral form, so
 * that type and range are checked in one place (settings.c).  Private to
 * common/conf. */
#ifndef HA_COMMON_CONF_SETTINGS_VALUE_H
#define HA_COMMON_CONF_SETTINGS_VALUE_H

#include "common/conf/settings.h"
#include "common/conf/toml.h"

struct ha_setting_value {
    enum ha_toml_type type;
    int64_t integer;
    double real; /* also of an integer */
    bool boolean;
    char *text;                     /* string or time; for a table its canonical JSON */
    bool binary;                    /* the text holds a zero byte */
    struct ha_setting_value *items; /* of an array */
    int64_t count;
};

/* All return 0, -ENOMEM or -EINVAL, and leave *ret_value empty then. */
int ha_setting_value_from_toml(const struct ha_toml *node, struct ha_setting_value *ret_value,
                               struct ha_error *err);
int ha_setting_value_from_json(const struct ha_json *json, struct ha_setting_value *ret_value,
                               struct ha_error *err);
int ha_setting_value_from_text(const struct ha_setting *row, const char *text,
                               struct ha_setting_value *ret_value, struct ha_error *err);

/* "the string \"abc\"", "3" ...: what the user wrote, for messages.  Cut to the
 * size of text. */
const char *ha_setting_value_show(const struct ha_setting_value *value, char *text, size_t bytes);

void ha_setting_value_clear(struct ha_setting_value *value);

/* Check the value against the row and store it; sets no `given` bit.  The
 * message has no beginning: callers prefix file, line and key. */
int ha_setting_store(const struct ha_setting *row, const struct ha_setting_value *value,
                     void *values, struct ha_error *err);

#endif
