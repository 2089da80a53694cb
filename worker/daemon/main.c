/* ha-worker - takes leases from a coordinator and runs their attempts */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arguments.h"
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/net/socket.h"
#include "common/proc/notify.h"
#include "common/proc/spawn.h"
#include "worker/daemon/backend.h"
#include "worker/daemon/daemon.h"

enum { EXIT_USAGE = 2, MAX_OVERRIDES = 64 };

static const struct ha_option options[] = {
    {"config", "FILE", "worker.toml; without it the defaults"},
    {"connect", "ENDPOINT", "the coordinator, tcp://HOST:PORT or ipc://PATH"},
    {"files", "ENDPOINT", "its artifact socket; default: as the coordinator says"},
    {"name", "NAME", "of this worker; default: the host's name"},
    {"work-dir", "DIR", "folder of running attempts, on a local disk"},
    {"model-root", "DIR", "folder below which models are looked for (may be repeated)"},
    {"slots", "N", "attempts at a time"},
    {"threads", "N", "of one attempt; 0: the cores shared by the slots"},
    {"backend", "NAME", "auto, cpu or cuda"},
    {"key", "FILE", "this worker's keys (hactl keys add)"},
    {"server-key", "FILE", "the coordinator's public key"},
    {"insecure-loopback", NULL, "tcp:// without keys, on this machine only"},
    {"set", "KEY=VALUE", "any key of worker.toml (may be repeated)"},
    {"log-format", "FORMAT", "text or json"},
    {"log-level", "LEVEL", "debug, info, warning or error"},
    {"watch-fd", "N", "end when this descriptor does: for programs that start a worker"},
    {"check", NULL, "check the settings, print them and end"},
    {"version", NULL, "print the version and end"},
};

static const struct ha_command command = {
    .name = "ha-worker",
    .synopsis = "",
    .summary = "Take work from a coordinator and run it, one process per attempt.",
    .example = "ha-worker --connect tcp://head:8470 --key w1.key --server-key server.pub "
               "--model-root /data/models",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
};

/* Options that stand for keys of worker.toml; paths mean the current folder. */
static const struct {
    const char *option, *key;
    bool is_path;
} keys[] = {
    {"connect", "coordinator", false},
    {"files", "files", false},
    {"name", "name", false},
    {"work-dir", "work_dir", true},
    {"slots", "slots", false},
    {"threads", "threads", false},
    {"backend", "backend", false},
    {"key", "key_file", true},
    {"server-key", "server_key_file", true},
    {"log-format", "log_format", false},
    {"log-level", "log_level", false},
};

struct overrides {
    char *items[MAX_OVERRIDES];
    int64_t count;
};

static int add_override(struct overrides *overrides, char *text, struct ha_error *err)
{
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    if (overrides->count == MAX_OVERRIDES) {
        free(text);
        return ha_error_set(err, E2BIG, "more than %d settings on the command line", MAX_OVERRIDES);
    }
    overrides->items[overrides->count++] = text;
    return 0;
}

/* A path as it is meant here: the configuration's own are relative to its file. */
static char *absolute(const char *path)
{
    char here[PATH_MAX];

    return getcwd(here, sizeof(here)) ? ha_path_join(here, path) : ha_strdup(path);
}

static int collect(const struct ha_arguments *arguments, struct overrides *overrides,
                   struct ha_error *err)
{
    int64_t n;
    const char *const *given = ha_arguments_values(arguments, "set", &n);
    int r = 0;

    for (int64_t i = 0; i < n && r == 0; i++)
        r = add_override(overrides, ha_strdup(given[i]), err);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && r == 0; i++) {
        const char *value = ha_arguments_value(arguments, keys[i].option, NULL);
        char *path = value && keys[i].is_path ? absolute(value) : NULL;

        if (value)
            r = add_override(overrides, ha_format("%s=%s", keys[i].key, path ? path : value), err);
        free(path);
    }
    if (r == 0 && ha_arguments_given(arguments, "insecure-loopback"))
        r = add_override(overrides, ha_strdup("insecure_loopback=true"), err);
    return r;
}

/* model_roots=["...", ...] of the --model-root options. */
static int add_roots(struct overrides *overrides, const char *const *roots, int64_t n,
                     struct ha_error *err)
{
    struct ha_buffer text;
    int r = 0;

    ha_buffer_init(&text, 0);
    for (int64_t i = 0; i < n && r == 0; i++) {
        char *root = absolute(roots[i]);

        r = root ? ha_buffer_append_text(&text, i == 0 ? "model_roots=[\"" : ", \"") : -ENOMEM;
        for (const char *at = root; at && *at && r == 0; at++)
            r = ha_buffer_printf(&text, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
        if (r == 0)
            r = ha_buffer_append_text(&text, "\"");
        free(root);
    }
    if (r == 0)
        r = ha_buffer_append_text(&text, "]");
    if (r < 0)
        r = ha_error_set(err, ENOMEM, "out of memory");
    else
        r = add_override(overrides, ha_buffer_detach(&text), err);
    ha_buffer_clear(&text);
    return r;
}

static int load(const struct ha_arguments *arguments, struct ha_worker_config *ret_config,
                struct ha_error *err)
{
    struct overrides overrides = {.count = 0};
    int64_t n;
    const char *const *roots = ha_arguments_values(arguments, "model-root", &n);
    int r = collect(arguments, &overrides, err);

    if (r == 0 && n > 0)
        r = add_roots(&overrides, roots, n, err);
    if (r == 0)
        r = ha_worker_config_load(ha_arguments_value(arguments, "config", NULL),
                                  (const char *const *)overrides.items, overrides.count, ret_config,
                                  err);
    for (int64_t i = 0; i < overrides.count; i++)
        free(overrides.items[i]);
    return r;
}

static int check(const struct ha_worker_config *config, const char *program, struct ha_error *err)
{
    struct ha_net *net = NULL;
    struct ha_buffer out;
    int r = ha_endpoint_check(config->coordinator, config->key_file != NULL,
                              config->insecure_loopback, err);

    if (r == 0 && config->key_file && config->server_key_file) {
        r = ha_net_create(&net, err);
        if (r == 0)
            r = ha_net_secure_client(net, config->key_file, config->server_key_file, err);
        ha_net_destroy(net);
    }
    if (r == 0)
        r = ha_path_make_dirs(config->work_dir, 0700, err);
    if (r < 0)
        return r;
    ha_buffer_init(&out, 0);
    r = ha_section_print(&ha_worker_section, config, &out);
    if (r == 0)
        (void)printf("%s# attempts run %s\n", ha_buffer_text(&out), program);
    ha_buffer_clear(&out);
    return r;
}

static void set_up_log(const struct ha_worker_config *config)
{
    enum ha_log_level level = HA_LOG_INFO;

    (void)ha_log_level_parse(config->log_level, &level);
    ha_log_setup("ha-worker", level,
                 strcmp(config->log_format, "json") == 0 ? HA_LOG_JSON : HA_LOG_TEXT);
}

static int work(const struct ha_worker_config *config, const char *program, int watch_fd,
                struct ha_error *err)
{
    bool silent = false;
    char *backend = backend_describe(program, config->backend, &silent);
    /* The description of a backend that opened is longer than its name. */
    bool opened = backend && strcmp(backend, config->backend) != 0;
    const struct daemon_options daemon_options = {.config = config,
                                                  .program = program,
                                                  .backend = backend,
                                                  .silent = silent,
                                                  .watch_fd = watch_fd};
    struct daemon *daemon = NULL;
    int r = backend ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    if (r == 0 && !opened && !silent && strcmp(config->backend, "cuda") == 0)
        r = ha_error_set(
            err, ENODEV,
            "backend cuda cannot run here; ha-attempt backend --backend cuda says why");
    if (r == 0)
        r = daemon_create(&daemon_options, &daemon, err);
    if (r == 0) {
        ha_notify("READY=1");
        ha_log_info("worker %s: %lld slots, backend: %s", HA_VERSION, (long long)config->slots,
                    daemon_backend(daemon));
        r = daemon_run(daemon, err);
    }
    daemon_destroy(daemon);
    free(backend);
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_worker_config config = {0};
    char *program = NULL;
    int64_t watch_fd = -1;
    int r = ha_arguments_int(arguments, "watch-fd", 0, -1, &watch_fd, err);

    if (r == 0)
        r = load(arguments, &config, err);
    if (r < 0)
        return r;
    set_up_log(&config);
    r = ha_program_find("ha-attempt", &program, err);
    if (r == 0)
        r = ha_arguments_given(arguments, "check") ? check(&config, program, err)
                                                   : work(&config, program, (int)watch_fd, err);
    free(program);
    ha_worker_config_clear(&config);
    return r;
}

int main(int argc, char **argv)
{
    struct ha_arguments *arguments = NULL;
    struct ha_error err = {0};
    int r;

    ha_log_setup("ha-worker", HA_LOG_INFO, HA_LOG_TEXT);
    (void)signal(SIGPIPE, SIG_IGN);
    r = ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err);
    if (r < 0) {
        (void)fprintf(stderr, "%s\n", ha_error_text(&err));
        return EXIT_USAGE;
    }
    if (ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else if (ha_arguments_given(arguments, "version"))
        (void)puts("ha-worker " HA_VERSION);
    else
        r = run(arguments, &err);
    if (r < 0)
        ha_log_error("%s", ha_error_text(&err));
    ha_arguments_destroy(arguments);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
