#include "coordinator/hactl/private_coordinator.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

enum { START_MS = 20000, STOP_MS = 10000, POLL_MS = 20 };

struct ha_private_coordinator {
    struct ha_child child;
    char *program, *dir, *log, *sockets, *endpoint, *files;
};

/* A new 0700 folder with a short name. */
static int make_socket_dir(char **ret_dir, struct ha_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char *dir;

    /* Room for "/control" and for what libzmq adds. */
    if (!runtime || strlen(runtime) > 60 || access(runtime, W_OK) < 0)
        runtime = "/tmp";
    dir = ha_format("%s/ha-XXXXXX", runtime);
    if (!dir || !mkdtemp(dir)) {
        int r =
            ha_error_set(err, dir ? errno : ENOMEM, "cannot make a folder for sockets in %s: %s",
                         runtime, strerror(dir ? errno : ENOMEM));

        free(dir);
        return r;
    }
    *ret_dir = dir;
    return 0;
}

/* The end of the log's last line, for an error. */
static void add_last_words(const char *log, struct ha_error *err)
{
    char *text, *line, *end;
    size_t size;

    if (ha_file_read(log, 1 << 20, &text, &size, NULL) < 0)
        return;
    end = text + size;
    while (end > text && end[-1] == '\n')
        *--end = '\0';
    line = strrchr(text, '\n');
    (void)ha_error_set(err, EIO, "ha-coordinator ended: %s", line ? line + 1 : text);
    free(text);
}

static int spawn(struct ha_private_coordinator *c, struct ha_error *err)
{
    const char *arguments[] = {"ha-coordinator", "--dir",  c->dir,       "--listen", c->endpoint,
                               "--files",        c->files, "--watch-fd", "0",        NULL};
    struct ha_spawn_options options = {.program = c->program,
                                       .arguments = arguments,
                                       .log_path = c->log,
                                       .input_pipe = true,
                                       .own_group = true};

    return ha_child_spawn(&options, &c->child, err);
}

static bool endpoint_written(const struct ha_private_coordinator *c)
{
    char *path = ha_path_join(c->dir, "endpoint"), *text = NULL;
    size_t size;
    bool written = path && ha_file_read(path, 4096, &text, &size, NULL) == 0 &&
                   strncmp(text, c->endpoint, strlen(c->endpoint)) == 0;

    free(path);
    free(text);
    return written;
}

static int wait_bound(struct ha_private_coordinator *c, struct ha_error *err)
{
    int64_t end = ha_clock_boot_ms() + START_MS;
    int status;

    while (!endpoint_written(c)) {
        if (ha_child_poll(&c->child, &status)) {
            (void)ha_error_set(err, EIO, "ha-coordinator ended at its start; see %s", c->log);
            add_last_words(c->log, err);
            return -EIO;
        }
        if (ha_clock_boot_ms() >= end)
            return ha_error_set(err, ETIMEDOUT, "ha-coordinator does not start; see %s", c->log);
        usleep(POLL_MS * 1000);
    }
    return 0;
}

int ha_private_coordinator_start(const char *dir, struct ha_private_coordinator **ret_coordinator,
                                 struct ha_error *err)
{
    struct ha_private_coordinator *c = ha_calloc(1, sizeof(*c));
    int r;

    if (!c)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    c->child.input_fd = c->child.output_fd = c->child.contract_fd = -1;
    r = ha_program_find("ha-coordinator", &c->program, err);
    if (r == 0)
        r = make_socket_dir(&c->sockets, err);
    if (r < 0)
        goto fail;
    c->dir = ha_strdup(dir);
    c->log = ha_path_join(dir, "coordinator.log");
    c->endpoint = ha_format("ipc://%s/control", c->sockets);
    c->files = ha_format("ipc://%s/files", c->sockets);
    if (!c->dir || !c->log || !c->endpoint || !c->files) {
        r = ha_error_set(err, ENOMEM, "hactl: out of memory");
        goto fail;
    }
    r = spawn(c, err);
    if (r == 0)
        r = wait_bound(c, err);
    if (r == 0) {
        *ret_coordinator = c;
        return 0;
    }
fail:
    ha_private_coordinator_stop(c);
    return r;
}

int ha_private_coordinator_revive(struct ha_private_coordinator *c, struct ha_error *err)
{
    int status, r;

    if (!ha_child_poll(&c->child, &status))
        return 0;
    ha_child_close(&c->child);
    r = spawn(c, err);
    if (r == 0)
        r = wait_bound(c, err);
    return r < 0 ? r : 1;
}

void ha_private_coordinator_stop(struct ha_private_coordinator *c)
{
    if (!c)
        return;
    (void)ha_child_stop(&c->child, STOP_MS);
    ha_child_close(&c->child);
    if (c->sockets)
        (void)ha_path_remove_tree(c->sockets, NULL);
    free(c->program);
    free(c->dir);
    free(c->log);
    free(c->sockets);
    free(c->endpoint);
    free(c->files);
    free(c);
}

const char *ha_private_coordinator_endpoint(const struct ha_private_coordinator *c)
{
    return c->endpoint;
}

const char *ha_private_coordinator_files(const struct ha_private_coordinator *c)
{
    return c->files;
}
