/* ha-judge-worker - asks evaluators for scores and reports them */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arguments.h"
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/conf/daemon.h"
#include "judge-worker/commands.h"
#include "judge-worker/daemon.h"

enum { EXIT_USAGE = 2, OVERRIDES = 64 };

static const struct ha_option options[] = {
    {"connect", "ENDPOINT", "the coordinator's control socket"},
    {"config", "FILE", "judge.toml"},
    {"set", "KEY=VALUE", "a setting of that file; may be repeated"},
    {"spool", "DIR", "folder of replies that the coordinator has not stored yet"},
    {"name", "NAME", "of this judge worker"},
    {"concurrency", "N", "calls in flight at most"},
    {"key", "FILE", "this judge worker's keys"},
    {"server-key", "FILE", "the coordinator's public key"},
    {"insecure-loopback", NULL, "tcp:// without keys, on this machine only"},
    {"embedded", NULL, "take api_key_env and api_key_file from grids"},
    {"watch-fd", "N", "end when this pipe closes"},
    {"log-format", "FORMAT", "text or json"},
    {"log-level", "LEVEL", "debug, info, warning or error"},
    {"check", NULL, "check the settings, print them with their sources, and end"},
    {"version", NULL, "print the version and end"},
};

static const struct ha_command command = {
    .name = "ha-judge-worker",
    .synopsis = "[show | reparse]",
    .summary = "Leases answers from a coordinator and has them scored by evaluators.\n"
               "`ha-judge-worker show --help` and `ha-judge-worker reparse --help` tell of the "
               "subcommands.",
    .example = "ha-judge-worker --connect tcp://127.0.0.1:8470 --insecure-loopback --spool spool",
    .options = options,
    .n_options = sizeof options / sizeof options[0]};

/* Options that are short forms of settings. */
static const struct {
    const char *option, *key;
} short_forms[] = {
    {"connect", "coordinator"},     {"spool", "spool"},        {"name", "name"},
    {"concurrency", "concurrency"}, {"key", "key_file"},       {"server-key", "server_key_file"},
    {"log-format", "log_format"},   {"log-level", "log_level"}};

static int load_config(const struct ha_arguments *arguments, struct ha_judge_config *ret_config,
                       struct ha_error *err)
{
    enum { SHORT_FORMS = sizeof short_forms / sizeof short_forms[0] };
    char *made[SHORT_FORMS] = {NULL};
    const char *overrides[OVERRIDES];
    int64_t n_set, n = 0;
    const char *const *set = ha_arguments_values(arguments, "set", &n_set);
    int r = 0;

    if (n_set > OVERRIDES - SHORT_FORMS - 2)
        return ha_error_set(err, EINVAL, "too many --set");
    for (int64_t i = 0; i < n_set; i++)
        overrides[n++] = set[i];
    for (int i = 0; i < SHORT_FORMS && r == 0; i++) {
        const char *value = ha_arguments_value(arguments, short_forms[i].option, NULL);

        if (!value)
            continue;
        made[i] = ha_format("%s=%s", short_forms[i].key, value);
        if (made[i])
            overrides[n++] = made[i];
        else
            r = ha_error_set(err, ENOMEM, "out of memory");
    }
    if (ha_arguments_given(arguments, "insecure-loopback"))
        overrides[n++] = "insecure_loopback=true";
    if (ha_arguments_given(arguments, "embedded"))
        overrides[n++] = "grid_keys=true";
    if (r == 0)
        r = ha_judge_config_load(ha_arguments_value(arguments, "config", NULL), overrides, n,
                                 ret_config, err);
    for (int i = 0; i < SHORT_FORMS; i++)
        free(made[i]);
    return r;
}

static int print_settings(const struct ha_judge_config *config, struct ha_error *err)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_section_print(&ha_judge_section, config, &text);
    if (r == 0)
        fputs(ha_buffer_text(&text), stdout);
    for (int64_t i = 0; i < config->key_count; i++)
        printf("key \"%s\" from %s %s\n", config->keys[i].name,
               config->keys[i].env ? "variable" : "file",
               config->keys[i].env ? config->keys[i].env : config->keys[i].file);
    ha_buffer_clear(&text);
    return r < 0 ? ha_error_set(err, -r, "out of memory") : 0;
}

static int work(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_judge_config config;
    enum ha_log_level level;
    int64_t watch_fd;
    int r = ha_arguments_int(arguments, "watch-fd", 0, -1, &watch_fd, err);

    if (r < 0)
        return r;
    memset(&config, 0, sizeof config);
    r = load_config(arguments, &config, err);
    if (r < 0)
        return r;
    if (ha_log_level_parse(config.log_level, &level) == 0)
        ha_log_setup("ha-judge-worker", level,
                     strcmp(config.log_format, "json") == 0 ? HA_LOG_JSON : HA_LOG_TEXT);
    if (ha_arguments_given(arguments, "check"))
        r = print_settings(&config, err);
    else
        r = ha_judge_daemon_run(&config, (int)watch_fd, err);
    ha_judge_config_clear(&config);
    return r;
}

static int run(int argc, char **argv, struct ha_error *err, bool *ret_usage)
{
    struct ha_arguments *arguments;
    int r;

    if (argc > 1 && strcmp(argv[1], "show") == 0)
        return ha_judge_command_show(argc, argv, err);
    if (argc > 1 && strcmp(argv[1], "reparse") == 0)
        return ha_judge_command_reparse(argc, argv, err);
    r = ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, err);
    *ret_usage = r < 0;
    if (r < 0)
        return r;
    if (ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else if (ha_arguments_given(arguments, "version"))
        puts("ha-judge-worker " HA_VERSION);
    else
        r = work(arguments, err);
    ha_arguments_destroy(arguments);
    return r;
}

int main(int argc, char **argv)
{
    struct ha_error err = {0};
    bool usage = false;
    int r;

    ha_log_setup("ha-judge-worker", HA_LOG_INFO, HA_LOG_TEXT);
    signal(SIGPIPE, SIG_IGN);
    unsetenv("SSLKEYLOGFILE"); /* it would hold what decrypts the keys on the wire */
    r = run(argc, argv, &err, &usage);
    if (r == 0)
        return 0;
    if (usage) {
        fprintf(stderr, "%s\n", ha_error_text(&err));
        return EXIT_USAGE;
    }
    ha_log_error("%s", ha_error_text(&err));
    return 1;
}
