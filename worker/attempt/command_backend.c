#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "worker/attempt/commands.h"

static int run(const struct ha_call *call, struct ha_error *err)
{
    const struct ha_backend_options options = {
        .name = call->engine.backend, .threads = call->engine.threads, .device = 0};
    struct ha_backend *backend;
    int r = ha_backend_open(&options, &backend, err);

    if (r < 0)
        return r;
    if (ha_arguments_given(call->arguments, "check"))
        r = ha_backend_check(backend, err);
    if (r == 0 && printf("%s\n", ha_backend_description(backend)) < 0)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    ha_backend_close(backend);
    return r;
}

static const struct ha_option options[] = {
    {"backend", "NAME", "auto, cpu or cuda (auto)"},
    {"threads", "N", "CPU threads; 0: one per core (0)"},
    {"check", NULL, "multiply, and compare with a known result"},
};

const struct ha_subcommand ha_subcommand_backend = {
    .name = "backend",
    .command = {.name = "ha-attempt backend",
                .synopsis = "",
                .summary = "which backend an attempt would use here, and why, in one line",
                .example = "ha-attempt backend --backend auto",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .run = run,
};
