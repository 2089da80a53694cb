#include "coordinator/hactl/capture.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/proc/spawn.h"

enum { OUTPUT_LIMIT_BYTES = 128 << 20, POLL_MS = 100 };

/* Reads until the end of the pipe. */
static int read_all(int fd, const char *name, struct ha_buffer *out, struct ha_error *err)
{
    char bytes[16384];

    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t n;

        (void)poll(&ready, 1, POLL_MS);
        n = read(fd, bytes, sizeof(bytes));
        if (n == 0)
            return 0;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return ha_error_set(err, errno, "output of %s: %s", name, strerror(errno));
        if (ha_buffer_append(out, bytes, (size_t)n) < 0)
            return ha_error_set(err, EMSGSIZE, "%s prints more than %d bytes", name,
                                (int)OUTPUT_LIMIT_BYTES);
    }
}

int ha_capture_status(const char *const *arguments, char **ret_text, int *ret_status,
                      struct ha_error *err)
{
    struct ha_spawn_options options = {.arguments = arguments, .output_pipe = true};
    struct ha_child child;
    struct ha_buffer out;
    char *program;
    int status = 0, r = ha_program_find(arguments[0], &program, err);

    if (r < 0)
        return r;
    options.program = program;
    ha_buffer_init(&out, OUTPUT_LIMIT_BYTES);
    r = ha_child_spawn(&options, &child, err);
    free(program);
    if (r < 0)
        return r;
    r = read_all(child.output_fd, arguments[0], &out, err);
    if (r == 0)
        while (!ha_child_poll(&child, &status))
            usleep(1000);
    else
        (void)ha_child_stop(&child, 0);
    ha_child_close(&child);
    *ret_status = status;
    *ret_text = r == 0 ? ha_buffer_detach(&out) : NULL;
    ha_buffer_clear(&out);
    if (r == 0 && !*ret_text)
        r = ha_error_set(err, ENOMEM, "hactl: out of memory");
    return r;
}

int ha_capture(const char *const *arguments, char **ret_text, struct ha_error *err)
{
    char *text, words[HA_EXIT_WORDS_BYTES];
    int status, r = ha_capture_status(arguments, &text, &status, err);

    if (r == 0 && status != 0) {
        free(text);
        return ha_error_set(err, ECANCELED, "%s %s: %s", arguments[0],
                            arguments[1] ? arguments[1] : "", ha_exit_words(status, words));
    }
    if (r == 0)
        *ret_text = text;
    return r;
}
