#include "common/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/utf8.h"

/* The functions themselves, not the notes to the compiler around their calls. */
#undef ha_error_set
#undef ha_error_prefix

/* One line of UTF-8: texts of strangers may be neither, and the end may be cut inside a
 * character. */
static void keep_one_line(char text[HA_ERROR_TEXT_BYTES])
{
    char raw[HA_ERROR_TEXT_BYTES];

    memcpy(raw, text, sizeof(raw));
    (void)ha_utf8_copy(text, HA_ERROR_TEXT_BYTES, raw);
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int ha_error_set(struct ha_error *err, int code, const char *format, ...)
{
    if (code <= 0)
        code = EIO;
    if (err) {
        va_list args;

        va_start(args, format);
        (void)vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
        keep_one_line(err->text);
        err->code = code;
    }
    return -code;
}

int ha_error_prefix(struct ha_error *err, const char *format, ...)
{
    char old[HA_ERROR_TEXT_BYTES];
    va_list args;
    int n;

    if (!err)
        return -EIO;
    memcpy(old, err->text, sizeof(old));
    va_start(args, format);
    n = vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof(err->text))
        (void)snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", old);
    keep_one_line(err->text);
    return -(err->code > 0 ? err->code : EIO);
}

const char *ha_error_text(const struct ha_error *err)
{
    if (!err || (err->code == 0 && err->text[0] == '\0'))
        return "no error";
    return err->text[0] ? err->text : strerror(err->code);
}
