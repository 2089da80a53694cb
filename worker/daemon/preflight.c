#include "worker/daemon/preflight.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"

enum { LOG_BYTES = 1 << 20, DEAD_MS = 5000 };

struct preflight {
    struct preflight_options options; /* texts owned */
    char *log, *uuid;                 /* uuid: the one that is looked at */
    const char *rest;                 /* of the list */
    struct ha_child child;
    struct ha_loop_timer *timer;
    bool late;
};

/* One that hangs in the driver may not even die; whoever is not patient does not wait for it. */
static void on_late(void *context)
{
    struct preflight *preflight = context;
    bool again = preflight->late;

    preflight->late = true;
    ha_child_signal(&preflight->child, SIGKILL);
    if (!again || preflight->options.patient) {
        ha_loop_timer_set_after(preflight->timer, DEAD_MS);
        return;
    }
    preflight->child.pid = 0;
    preflight->options.done(preflight->options.context, preflight->uuid,
                            "the check of a product hangs in the driver and cannot be ended");
}

static int start_next(struct preflight *preflight, struct ha_error *err)
{
    const char *arguments[] = {"ha-attempt",
                               "backend",
                               "--check",
                               "--threads",
                               "1",
                               "--backend",
                               preflight->options.backend,
                               NULL};
    size_t size = strcspn(preflight->rest, ",");
    const char *environment[] = {preflight->options.mark, NULL, NULL};
    char *visible = NULL;
    int r;

    free(preflight->uuid);
    preflight->uuid = NULL;
    if (preflight->options.uuids) {
        preflight->uuid = ha_strndup(preflight->rest, size);
        visible = preflight->uuid ? ha_format("CUDA_VISIBLE_DEVICES=%s", preflight->uuid) : NULL;
        if (!visible)
            return ha_error_set(err, ENOMEM, "out of memory");
        environment[1] = visible;
    }
    preflight->rest += size + (preflight->rest[size] == ',');
    r = ha_child_spawn(&(struct ha_spawn_options){.program = preflight->options.program,
                                                  .arguments = arguments,
                                                  .environment = environment,
                                                  .dir = preflight->options.folder,
                                                  .log_path = preflight->log,
                                                  .own_group = true,
                                                  .death_signal = SIGKILL},
                       &preflight->child, err);
    free(visible);
    if (r == 0)
        ha_loop_timer_set_after(preflight->timer, preflight->options.limit_ms);
    return r;
}

char *preflight_last_line(const struct preflight *preflight)
{
    char *text = NULL, *line, *copy = NULL;
    size_t size = 0;

    if (ha_file_read(preflight->log, LOG_BYTES, &text, &size, NULL) < 0)
        return NULL;
    while (size > 0 && text[size - 1] == '\n')
        text[--size] = '\0';
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    copy = line[0] ? ha_strdup(line) : NULL;
    free(text);
    return copy;
}

/* Its last line says it. */
static char *read_why(const struct preflight *preflight, int status)
{
    char words[HA_EXIT_WORDS_BYTES], *line, *why;

    if (preflight->late)
        return ha_format("the check of a product had no result within %lld s",
                         (long long)(preflight->options.limit_ms / 1000));
    line = preflight_last_line(preflight);
    why =
        ha_format("the check of a product failed: %s", line ? line : ha_exit_words(status, words));
    free(line);
    return why;
}

void preflight_check(struct preflight *preflight)
{
    struct ha_error err = {0};
    char *why = NULL;
    int status;

    if (!ha_child_poll(&preflight->child, &status))
        return;
    ha_loop_timer_unset(preflight->timer);
    if (status == 0 && preflight->rest[0] && start_next(preflight, &err) == 0)
        return;
    if (err.code == 0 && status == 0) {
        preflight->options.done(preflight->options.context, NULL, NULL);
        return;
    }
    why = err.code ? ha_strdup(ha_error_text(&err)) : read_why(preflight, status);
    preflight->options.done(preflight->options.context, preflight->uuid,
                            why ? why : "out of memory");
    free(why);
}

int preflight_create(const struct preflight_options *options, struct preflight **ret_preflight,
                     struct ha_error *err)
{
    struct preflight *preflight = ha_calloc(1, sizeof(*preflight));
    struct preflight_options *own;
    int r;

    if (!preflight)
        return ha_error_set(err, ENOMEM, "out of memory");
    own = &preflight->options;
    *own = *options;
    preflight->child = (struct ha_child){.input_fd = -1, .output_fd = -1, .contract_fd = -1};
    own->program = ha_strdup(options->program);
    own->backend = ha_strdup(options->backend);
    own->folder = ha_strdup(options->folder);
    own->mark = ha_strdup(options->mark);
    own->uuids = options->uuids ? ha_strdup(options->uuids) : NULL;
    preflight->rest = own->uuids ? own->uuids : "";
    preflight->log = ha_path_join(options->folder, PREFLIGHT_LOG);
    r = own->program && own->backend && own->folder && own->mark &&
                (own->uuids || !options->uuids) && preflight->log
            ? ha_loop_timer_create(options->loop, on_late, preflight, &preflight->timer, err)
            : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = start_next(preflight, err);
    if (r < 0) {
        preflight_destroy(preflight);
        return r;
    }
    *ret_preflight = preflight;
    return 0;
}

void preflight_destroy(struct preflight *preflight)
{
    if (!preflight)
        return;
    ha_child_signal(&preflight->child, SIGKILL);
    (void)ha_child_stop(&preflight->child, 0);
    ha_child_close(&preflight->child);
    ha_loop_timer_destroy(preflight->timer);
    free((char *)(uintptr_t)preflight->options.program);
    free((char *)(uintptr_t)preflight->options.backend);
    free((char *)(uintptr_t)preflight->options.folder);
    free((char *)(uintptr_t)preflight->options.mark);
    free((char *)(uintptr_t)preflight->options.uuids);
    free(preflight->log);
    free(preflight->uuid);
    free(preflight);
}
