#include "common/base/memory_use.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cgroup.h"
#include "common/base/error.h"

enum { STATUS_BYTES = 8192 };

int64_t ha_memory_anonymous(void)
{
    char text[STATUS_BYTES], *at;
    int64_t kib = 0;

    if (!ha_read_start("/proc/self/status", text, sizeof(text)))
        return 0;
    at = strstr(text, "\nRssAnon:");
    return at && sscanf(at, "\nRssAnon: %" SCNd64, &kib) == 1 ? kib * 1024 : 0;
}

void ha_memory_sample(int64_t *peak)
{
    int64_t now = ha_memory_anonymous();

    if (now > *peak)
        *peak = now;
}

static void tighten(void *user, const char *line)
{
    int64_t *limit = user, value = 0;

    if (sscanf(line, "%" SCNd64, &value) == 1 && value > 0 && (*limit == 0 || value < *limit))
        *limit = value;
}

int64_t ha_memory_total(void)
{
    int64_t pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE), total = 0;
    char line[64];

    if (pages > 0 && page_bytes > 0 && pages <= INT64_MAX / page_bytes)
        total = pages * page_bytes;
    ha_cgroup_lines("memory.max", tighten, &total);
    if (ha_first_line(HA_CGROUP_ROOT "/memory/memory.limit_in_bytes", line, sizeof(line)))
        tighten(&total, line);
    return total;
}

static const struct {
    const char *name;
    double bytes;
} units[] = {
    {"", 1},         {"B", 1},        {"KiB", 1024}, {"MiB", 1024.0 * 1024},
    {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"KB", 1e3},   {"MB", 1e6},
    {"GB", 1e9},     {"TB", 1e12},
};

int ha_memory_parse(const char *what, const char *text, int64_t *ret_bytes, struct ha_error *err)
{
    bool number = text[0] >= '0' && text[0] <= '9' && strncmp(text, "0x", 2) != 0;
    char *end = NULL;
    double value = number ? strtod(text, &end) : 0;

    if (number) {
        end += strspn(end, " ");
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
            double bytes = value * units[i].bytes;

            if (strcmp(end, units[i].name) == 0 && bytes >= 1 && bytes < 0x1p62) {
                *ret_bytes = (int64_t)bytes;
                return 0;
            }
        }
    }
    return ha_error_set(err, EINVAL, "%s: \"%.40s\" is no amount of memory; write 24GiB or 512MiB",
                        what, text);
}

const char *ha_memory_text(int64_t bytes, char text[HA_MEMORY_TEXT_BYTES])
{
    double value = (double)bytes;

    if (bytes >= INT64_C(1) << 30)
        (void)snprintf(text, HA_MEMORY_TEXT_BYTES, "%.1f GiB", value / 0x1p30);
    else if (bytes >= 1 << 20)
        (void)snprintf(text, HA_MEMORY_TEXT_BYTES, "%.0f MiB", value / 0x1p20);
    else
        (void)snprintf(text, HA_MEMORY_TEXT_BYTES, "%.0f KiB", ceil(value / 1024));
    return text;
}
