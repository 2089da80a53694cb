/* toml.h - TOML 1.0 documents (toml++ behind a plain interface)
 *
 * A document is a tree of nodes that know the line they came from.  Members of
 * a table keep the order of the file.  The root belongs to the caller, who
 * ends it with ha_toml_destroy; every node and text reached through it is
 * borrowed and lives as long as the root.  Accessors accept NULL and nodes of
 * another type and then return their default.
 *
 * Bounds: 16 MiB of text, 32 values inside each other, 32 parts in a dotted
 * key; more is an error, never a deep recursion. */
#ifndef HA_COMMON_CONF_TOML_H
#define HA_COMMON_CONF_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ha_error;
struct ha_toml;

enum { HA_TOML_LIMIT_BYTES = 16 << 20 };

enum ha_toml_type {
    HA_TOML_STRING,
    HA_TOML_INT,
    HA_TOML_REAL,
    HA_TOML_BOOL,
    HA_TOML_TIME, /* any date or time; its text is read with ha_toml_string */
    HA_TOML_ARRAY,
    HA_TOML_TABLE
};

/* Parse size bytes of UTF-8.  name is the file's name in errors, which read
 * "name:LINE: ...".  -EINVAL for what is refused, -E2BIG for more text than the bound. */
int ha_toml_parse(const char *text, size_t size, const char *name, struct ha_toml **ret_root,
                  struct ha_error *err);

/* Read and parse a file.  Also -errno of reading. */
int ha_toml_load(const char *path, struct ha_toml **ret_root, struct ha_error *err);

void ha_toml_destroy(struct ha_toml *root);

/* HA_TOML_TABLE for NULL. */
enum ha_toml_type ha_toml_type(const struct ha_toml *node);
bool ha_toml_is(const struct ha_toml *node, enum ha_toml_type type);

/* "a string", "an integer" ... for messages; "nothing" for NULL. */
const char *ha_toml_type_name(const struct ha_toml *node);

/* The 1-based line where the value begins and the one where its key stands
 * (equal for elements of arrays); 0 for NULL. */
int64_t ha_toml_line(const struct ha_toml *node);
int64_t ha_toml_key_line(const struct ha_toml *node);

/* The key of a member; NULL for the root and for elements of arrays. */
const char *ha_toml_key(const struct ha_toml *node);

/* Members of a table or elements of an array; 0 otherwise. */
int64_t ha_toml_size(const struct ha_toml *node);

/* The member or element at a position, or NULL. */
const struct ha_toml *ha_toml_at(const struct ha_toml *node, int64_t index);

/* The member of a table, or NULL. */
const struct ha_toml *ha_toml_get(const struct ha_toml *table, const char *key);

/* Scalars.  A real is never read as an integer; an integer is read as a real.
 * Strings may hold zero bytes: ha_toml_string_bytes is their length. */
const char *ha_toml_string(const struct ha_toml *node, const char *otherwise);
size_t ha_toml_string_bytes(const struct ha_toml *node);
int64_t ha_toml_int(const struct ha_toml *node, int64_t otherwise);
double ha_toml_real(const struct ha_toml *node, double otherwise);
bool ha_toml_bool(const struct ha_toml *node, bool otherwise);

#ifdef __cplusplus
}
#endif

#endif
