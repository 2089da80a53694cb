/* settings.h - settings as tables
 *
 * A section ([train], [[judge]], the whole of worker.toml ...) is one table of
 * rows and one plain struct.  The row says everything about a setting: key,
 * type, range, default and where that default comes from, which stages' results
 * it changes, one line of help.  Reading, range checks, unknown keys, --set,
 * printing, JSON and the stage keys all walk the same rows.
 *
 * The struct of a section begins with `uint64_t given`: bit i is set when the
 * user gave row i (so a section has at most 64 rows).  Texts and lists in it
 * are owned by it.  A setting without a default that nobody gave is NULL (text),
 * empty (list), zero (numbers) with its bit clear. */
#ifndef HA_COMMON_CONF_SETTINGS_H
#define HA_COMMON_CONF_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_buffer;
struct ha_error;
struct ha_json;
struct ha_toml;

enum ha_setting_type {
    HA_SETTING_INT,      /* int64_t */
    HA_SETTING_REAL,     /* double */
    HA_SETTING_BOOL,     /* bool */
    HA_SETTING_TEXT,     /* char *, no zero bytes */
    HA_SETTING_CHOICE,   /* char *, one of row->choices */
    HA_SETTING_LIST,     /* struct ha_text_list */
    HA_SETTING_DURATION, /* int64_t seconds; "90s", "10m", "2h", "1d" or an integer of seconds */
    HA_SETTING_LAYERS,   /* char *; "18-27", "0-3,7", "auto:8" or an array of integers */
    HA_SETTING_OBJECT    /* char *; a table, kept as canonical JSON */
};

enum ha_setting_source { HA_SOURCE_PAPER, HA_SOURCE_TRL, HA_SOURCE_OURS, HA_SOURCE_USER };

/* Whose result a setting changes: the key of these stages holds its value. */
enum {
    HA_READ_NONE = 0,
    HA_READ_TRAIN = 1,
    HA_READ_GENERATE = 2,
    HA_READ_JUDGE = 4,
    HA_READ_PROBE = 8
};

struct ha_text_list {
    char **items;
    int64_t count;
};

/* append copies the text.  Returns 0 or -ENOMEM. */
int ha_text_list_append(struct ha_text_list *list, const char *text, struct ha_error *err);
bool ha_text_list_has(const struct ha_text_list *list, const char *text);
void ha_text_list_clear(struct ha_text_list *list);

struct ha_setting {
    const char *key;
    enum ha_setting_type type;
    size_t offset;           /* in the section's struct */
    double minimum, maximum; /* numbers and durations; both 0: any */
    bool above;              /* minimum itself is out */
    const char *choices;     /* "a|b|c" for HA_SETTING_CHOICE and, for each item, of a list */
    const char *otherwise;   /* the default as --set writes it; NULL: none; "@section.key": that
                                setting's value, filled in by the section's owner */
    enum ha_setting_source source; /* of the default */
    unsigned reads;                /* HA_READ_... */
    bool required;                 /* must be given */
    bool single;  /* a list that may be one item written bare, and is written so: "a" is ["a"] */
    bool memory;  /* a text that is an amount of memory (ha_memory_parse), or its default */
    bool numbers; /* a list of numbers, kept as ha_real_text writes them; range as above */
    bool late;    /* came when results had keys already: its default stays out of stage keys, so
                     that they keep their names.  otherwise is then as ha_section_text writes it */
    const char *help;
};

struct ha_section {
    const char *name; /* "train"; "" for a file without sections */
    const struct ha_setting *rows;
    int64_t count;
    size_t bytes; /* of the struct */
};

const char *ha_setting_source_name(enum ha_setting_source source); /* "paper" "TRL" "ours" "user" */

/* The row of a key, or NULL. */
const struct ha_setting *ha_section_find(const struct ha_section *section, const char *key);

/* The key nearest to a misspelt one by edit distance; NULL when none is near
 * enough to be meant.  keys[count]. */
const char *ha_settings_nearest(const char *key, const char *const *keys, int64_t count);

/* Set every row to its default (references stay unset).  values holds
 * section->bytes and nothing that has to be freed.  Returns 0 or -ENOMEM; after
 * a failure ha_section_clear is still right. */
int ha_section_init(const struct ha_section *section, void *values, struct ha_error *err);

/* Free what the struct owns and zero it. */
void ha_section_clear(const struct ha_section *section, void *values);

/* A deep copy into memory that owns nothing. */
int ha_section_copy(const struct ha_section *section, const void *values, void *ret_values,
                    struct ha_error *err);

/* Read a table's members (NULL: none).  Members whose key stands in `skip`
 * (NULL-terminated, or NULL) are left to the caller.  Errors read
 * "file:LINE: section.key ...": an unknown key (with the nearest known one), a
 * wrong type, a value out of range. */
int ha_section_read(const struct ha_section *section, const struct ha_toml *table, const char *file,
                    const char *const *skip, void *values, struct ha_error *err);

/* -EINVAL when a required row was not given; line: where the section begins. */
int ha_section_check_required(const struct ha_section *section, const void *values,
                              const char *file, int64_t line, struct ha_error *err);

/* Set one row from text, as --set writes it: texts bare, lists as
 * "a,b" or ["a", "b"], objects and escapes as TOML values.  where begins the
 * error: "--set train.beta" becomes "--set train.beta must be ...". */
int ha_section_set(const struct ha_section *section, const struct ha_setting *row, const char *text,
                   const char *where, void *values, struct ha_error *err);

/* The value as text that ha_section_set reads back; the caller frees it.
 * Reals in the shortest form that reads back equal ("1e-5", "0.1").  NULL when
 * memory is short; "" for an unset text. */
char *ha_section_text(const struct ha_setting *row, const void *values);

bool ha_section_given(const struct ha_section *section, const struct ha_setting *row,
                      const void *values);

/* True when the row has a value: given, or a default. */
bool ha_section_has(const struct ha_section *section, const struct ha_setting *row,
                    const void *values);
enum ha_setting_source ha_section_source(const struct ha_section *section,
                                         const struct ha_setting *row, const void *values);

/* One row's value.  NULL when memory is short; the row must have a value. */
struct ha_json *ha_setting_json(const struct ha_setting *row, const void *values);

/* {key: value} of every set row whose `reads` meets the mask (0: all rows).  With
 * a mask, for a stage key, late rows at their default are left out.  NULL when
 * memory is short. */
struct ha_json *ha_section_json(const struct ha_section *section, const void *values,
                                unsigned reads);

/* The reverse: an object of {key: value} over the values that are there; known
 * keys and ranges are checked as for a file.  where begins the error. */
int ha_section_from_json(const struct ha_section *section, const struct ha_json *object,
                         const char *where, void *values, struct ha_error *err);

/* One line per row, "key = value    # source; help", for --check and dry runs. */
int ha_section_print(const struct ha_section *section, const void *values, struct ha_buffer *out);

/* "1e-5": the shortest decimal text that reads back as value. */
enum { HA_REAL_TEXT_BYTES = 40 };
const char *ha_real_text(double value, char text[HA_REAL_TEXT_BYTES]);

#endif
