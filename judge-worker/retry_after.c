#include "judge-worker/retry_after.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static int64_t clamp_ms(double seconds)
{
    if (!(seconds > 0))
        return 0;
    if (seconds > HA_JUDGE_RETRY_AFTER_MAX_S)
        seconds = HA_JUDGE_RETRY_AFTER_MAX_S;
    return (int64_t)(seconds * 1000 + 0.5);
}

/* Decimal digits with at most one point; no sign, no exponent, no locale. */
static const char *read_number(const char *at, double *ret_value)
{
    double value = 0, unit = 1;
    int digits = 0;

    for (; isdigit((unsigned char)*at); at++, digits++)
        value = value * 10 + (*at - '0');
    if (*at == '.') {
        for (at++; isdigit((unsigned char)*at); at++, digits++)
            value += (*at - '0') * (unit /= 10);
    }
    *ret_value = value;
    return digits > 0 && digits < 18 ? at : NULL;
}

/* "90", "1m30s", "500ms": numbers with units, a bare one being seconds. */
static int64_t read_duration(const char *at)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    double total = 0, value;
    int parts = 0;

    while (*at) {
        int unit;

        at = read_number(at, &value);
        if (!at)
            return -1;
        for (unit = 0; unit < 5; unit++) {
            if (strncasecmp(at, units[unit].name, strlen(units[unit].name)) == 0)
                break;
        }
        if (unit == 5)
            return parts == 0 && *at == '\0' ? clamp_ms(value) : -1;
        at += strlen(units[unit].name);
        total += value * units[unit].seconds;
        parts++;
    }
    return parts > 0 ? clamp_ms(total) : -1;
}

static int64_t read_date(const char *text, int64_t now_ms)
{
    static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                        "%a %b %d %H:%M:%S %Y", "%Y-%m-%dT%H:%M:%SZ"};

    for (int i = 0; i < 4; i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);

        if (end && *end == '\0')
            return clamp_ms((double)timegm(&tm) - (double)now_ms / 1000);
    }
    return -1;
}

int64_t ha_judge_retry_after(const char *value, int64_t now_ms)
{
    char text[64];
    size_t size;

    value += strspn(value, " \t");
    size = strcspn(value, "\r\n");
    while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t'))
        size--;
    if (size == 0 || size >= sizeof text)
        return -1;
    memcpy(text, value, size);
    text[size] = '\0';
    if (text[0] == '-')
        return read_duration(text + 1) >= 0 ? 0 : -1;
    if (isdigit((unsigned char)text[0]) && !strchr(text, 'T'))
        return read_duration(text);
    return read_date(text, now_ms);
}
