#include "worker/daemon/backend.h"

#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "common/proc/spawn.h"

enum { WAIT_MS = 20000, LINE_BYTES = 512 };

/* Until there is a line or the end of the output: true; false after WAIT_MS without. */
static bool read_line(int fd, char line[LINE_BYTES])
{
    int64_t end_ms = ha_clock_boot_ms() + WAIT_MS, left_ms;
    struct pollfd item = {.fd = fd, .events = POLLIN};
    size_t used = 0;
    bool done = false;

    while (!done && (left_ms = end_ms - ha_clock_boot_ms()) > 0) {
        ssize_t n =
            poll(&item, 1, (int)left_ms) > 0 ? read(fd, line + used, LINE_BYTES - 1 - used) : -1;

        used += n > 0 ? (size_t)n : 0;
        done = n == 0 || memchr(line, '\n', used) || used == LINE_BYTES - 1;
    }
    line[used] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return done;
}

char *backend_describe(const char *program, const char *backend, bool *ret_silent)
{
    const char *arguments[] = {"ha-attempt", "backend", "--backend", backend, NULL};
    const struct ha_spawn_options spawn = {.program = program,
                                           .arguments = arguments,
                                           .log_path = "/dev/null",
                                           .output_pipe = true,
                                           .own_group = true};
    char line[LINE_BYTES] = "";
    struct ha_child child;

    if (ret_silent)
        *ret_silent = false;
    if (ha_child_spawn(&spawn, &child, NULL) == 0) {
        bool answered = read_line(child.output_fd, line);

        if (ret_silent)
            *ret_silent = !answered;
        (void)ha_child_stop(&child, 0);
        ha_child_close(&child);
    }
    return ha_strdup(line[0] ? line : backend);
}
