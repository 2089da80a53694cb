/* error.h - the one error type of the project
 *
 * A function that can fail returns 0 or a negative errno and takes a
 * `struct ha_error *err` as its last parameter.  The text is one line, names
 * the file, line or field it is about, and says what mends it.  Success
 * outputs (`ret_...`) are touched only when 0 is returned.
 *
 * err may be NULL everywhere: the code is still returned.
 */
#ifndef HA_COMMON_BASE_ERROR_H
#define HA_COMMON_BASE_ERROR_H

#include <stdarg.h>

enum { HA_ERROR_TEXT_BYTES = 512 };

struct ha_error {
    int code; /* positive errno; 0 = no error */
    char text[HA_ERROR_TEXT_BYTES];
};

/* Store a positive errno and a formatted line (cut at the end of the text).
 * Control characters in the text, and bytes that are not UTF-8, become '?': one error is one line
 * that may be sent and stored.
 * Returns -code, so that a failing line is one `return`; a code that is not
 * positive counts as EIO, so that an error never reads as success. */
int ha_error_set(struct ha_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "<formatted>: " in front of the text that err holds.  Returns -err->code
 * (-EIO when err is NULL). */
int ha_error_prefix(struct ha_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Tells the compiler what the text above says: an optimizer that knows that a
 * failure is negative sees that outputs are set wherever they are read. */
static inline int ha_error_negative(int r)
{
    if (r >= 0)
        __builtin_unreachable();
    return r;
}
#define ha_error_set(...) ha_error_negative(ha_error_set(__VA_ARGS__))
#define ha_error_prefix(...) ha_error_negative(ha_error_prefix(__VA_ARGS__))

/* The text, or strerror of the code, or "no error".  Never NULL; valid until
 * err changes. */
const char *ha_error_text(const struct ha_error *err);

#endif
