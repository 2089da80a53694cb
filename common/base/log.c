#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, MAX_SECRETS = 16, SECRET_BYTES = 256 };

static struct {
    const char *program;
    enum ha_log_level level;
    enum ha_log_format format;
    int n_secrets;
    char secrets[MAX_SECRETS][SECRET_BYTES];
} state = {.program = "ha", .level = HA_LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void ha_log_setup(const char *program, enum ha_log_level level, enum ha_log_format format)
{
    state.program = program;
    state.level = level;
    state.format = format;
}

int ha_log_level_parse(const char *name, enum ha_log_level *ret_level)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum ha_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

int ha_log_redact(const char *secret)
{
    size_t length = strlen(secret);

    if (length < 8 || length >= SECRET_BYTES)
        return -EINVAL;
    for (int i = 0; i < state.n_secrets; i++) {
        if (strcmp(state.secrets[i], secret) == 0)
            return 0;
    }
    if (state.n_secrets == MAX_SECRETS)
        return -ENOSPC;
    memcpy(state.secrets[state.n_secrets++], secret, length + 1);
    return 0;
}

static void hide_secrets(char *line)
{
    for (int i = 0; i < state.n_secrets; i++) {
        size_t length = strlen(state.secrets[i]);
        char *at = line;

        while ((at = strstr(at, state.secrets[i])) != NULL) {
            memcpy(at, "***", 3);
            memmove(at + 3, at + length, strlen(at + length) + 1);
            at += 3;
        }
    }
}

/* Write text as the inside of a JSON string, or with control bytes as '?'. */
static size_t put_text(char *out, size_t room, const char *text, int json)
{
    size_t n = 0;

    for (; *text && n + 3 < room; text++) {
        unsigned char c = (unsigned char)*text;

        if (json && (c == '"' || c == '\\'))
            out[n++] = '\\';
        out[n++] = (c < 0x20 || c == 0x7f) ? '?' : (char)c;
    }
    out[n] = '\0';
    return n;
}

void ha_log(enum ha_log_level level, const char *format, ...)
{
    char message[LINE_BYTES], line[2 * LINE_BYTES], stamp[32];
    struct timespec now;
    struct tm parts;
    va_list args;
    int n;

    if (level < state.level)
        return;
    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    hide_secrets(message);

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts);
    if (state.format == HA_LOG_JSON)
        n = snprintf(line, sizeof(line),
                     "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"program\":\"%s\",\"message\":\"",
                     stamp, (int)(now.tv_nsec / 1000000), level_names[level], state.program);
    else
        n = snprintf(line, sizeof(line), "%s.%03dZ %s %s: ", stamp, (int)(now.tv_nsec / 1000000),
                     state.program, level_names[level]);
    if (n < 0)
        return;
    n +=
        (int)put_text(line + n, sizeof(line) - (size_t)n - 4, message, state.format == HA_LOG_JSON);
    n += snprintf(line + n, 4, "%s", state.format == HA_LOG_JSON ? "\"}\n" : "\n");
    /* One write per line keeps the lines of several processes apart. */
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}
