/* json.h - JSON values (jansson behind a plain interface)
 *
 * A value that a parser or constructor returns belongs to the caller, who ends
 * it with ha_json_destroy; values reached through it are borrowed and live as
 * long as their owner.  Accessors accept NULL and values of another type and
 * then return their default, so that a chain of look-ups needs no checks. */
#ifndef HA_COMMON_CONF_JSON_H
#define HA_COMMON_CONF_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct ha_json;

enum ha_json_type {
    HA_JSON_NULL,
    HA_JSON_BOOL,
    HA_JSON_INT,
    HA_JSON_REAL,
    HA_JSON_STRING,
    HA_JSON_ARRAY,
    HA_JSON_OBJECT
};

/* Parse size bytes of UTF-8.  name is used in errors ("name:LINE:COLUMN: ...").
 * Refused: duplicate keys, nesting deeper than 512, trailing text, NUL in keys. */
int ha_json_parse(const char *text, size_t size, const char *name, struct ha_json **ret_json,
                  struct ha_error *err);

/* Is the text one JSON value that ha_json_parse reads, too, and that may stand in other JSON as it
 * is?  false also for some that it does read: those with escapes other than \" and \\, very long
 * numbers, nesting deeper than 64.  Equal names in an object are not looked for. */
bool ha_json_is_plain(const char *text, size_t size);

/* Read and parse a file of at most limit_bytes. */
int ha_json_load(const char *path, size_t limit_bytes, struct ha_json **ret_json,
                 struct ha_error *err);

void ha_json_destroy(struct ha_json *json);

/* The type; HA_JSON_NULL for NULL. */
enum ha_json_type ha_json_type(const struct ha_json *json);
bool ha_json_is(const struct ha_json *json, enum ha_json_type type);

/* Member of an object, or NULL. */
struct ha_json *ha_json_get(const struct ha_json *object, const char *key);

/* Length of an array or object; 0 otherwise. */
int64_t ha_json_size(const struct ha_json *json);

/* Element of an array, or NULL. */
struct ha_json *ha_json_at(const struct ha_json *array, int64_t index);

/* Members in insertion order: start with iterator NULL; false at the end.
 * The key is owned by the object. */
bool ha_json_next(const struct ha_json *object, void **iterator, const char **ret_key,
                  struct ha_json **ret_value);

/* Scalars.  A real is never read as an integer; an integer is read as a real.  Integers that do
 * not fit into 64 bits are reals. */
bool ha_json_bool(const struct ha_json *json, bool otherwise);
int64_t ha_json_int(const struct ha_json *json, int64_t otherwise);
double ha_json_real(const struct ha_json *json, double otherwise);

/* Borrowed; otherwise when json is not a string.  May hold zero bytes: use
 * ha_json_string_size for the length in bytes. */
const char *ha_json_string(const struct ha_json *json, const char *otherwise);
size_t ha_json_string_size(const struct ha_json *json);

/* Constructors; NULL when memory is short or the text is not UTF-8. */
struct ha_json *ha_json_new_object(void);
struct ha_json *ha_json_new_array(void);
struct ha_json *ha_json_new_null(void);
struct ha_json *ha_json_new_bool(bool value);
struct ha_json *ha_json_new_int(int64_t value);
struct ha_json *ha_json_new_real(double value); /* not finite: null */
struct ha_json *ha_json_new_string(const char *text);
struct ha_json *ha_json_new_string_n(const char *bytes, size_t size);

/* Add a value that this call takes over, also when it fails.  value may be
 * NULL (memory was short): -ENOMEM.  Returns 0 or -ENOMEM. */
int ha_json_set(struct ha_json *object, const char *key, struct ha_json *value);
int ha_json_append(struct ha_json *array, struct ha_json *value);

enum ha_json_style {
    HA_JSON_COMPACT,
    HA_JSON_PRETTY,
    HA_JSON_CANONICAL /* compact, sorted keys */
};

/* Text that the caller frees; NULL when memory is short.  Reals are written
 * with 17 significant digits, non-ASCII characters as UTF-8. */
char *ha_json_dump(const struct ha_json *json, enum ha_json_style style);

#endif
