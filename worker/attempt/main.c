/* ha-attempt - one attempt of one job, or one step of it by hand */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/conf/run_settings.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/stacks.h"
#include "worker/contract.h"

static const struct ha_subcommand *const commands[] = {
    &ha_subcommand_tokenize, &ha_subcommand_rows,     &ha_subcommand_score, &ha_subcommand_train,
    &ha_subcommand_probe,    &ha_subcommand_generate, &ha_subcommand_merge, &ha_subcommand_plan,
    &ha_subcommand_backend,  &ha_subcommand_job,
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

volatile sig_atomic_t ha_attempt_stop, ha_attempt_abort;

static void on_stop(int number)
{
    (void)number;
    ha_attempt_stop = 1;
}

static void on_abort(int number)
{
    (void)number;
    ha_attempt_abort = 1;
}

static void print_usage(FILE *out)
{
    fputs("usage: ha-attempt COMMAND [options]\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        ha_command_print_summary(&commands[i]->command, commands[i]->name, 9, out);
    fputs("\nha-attempt COMMAND --help tells more.\n", out);
}

static int check_required(const struct ha_subcommand *subcommand,
                          const struct ha_arguments *arguments, struct ha_error *err)
{
    for (int i = 0; subcommand->required && subcommand->required[i]; i++)
        if (!ha_arguments_given(arguments, subcommand->required[i]))
            return ha_error_set(err, EINVAL, "--%s is missing; see %s --help",
                                subcommand->required[i], subcommand->command.name);
    return 0;
}

/* The options that several commands have. */
static int read_call(const struct ha_arguments *arguments, struct ha_call *ret_call,
                     struct ha_run_settings **ret_settings, struct ha_error *err)
{
    const char *const *overrides;
    int64_t n, threads, device = 0;
    int r = ha_arguments_int(arguments, "threads", 0, 0, &threads, err);

    if (r == 0)
        r = ha_arguments_int(arguments, "device", 0, 0, &device, err);
    overrides = ha_arguments_values(arguments, "set", &n);
    if (r == 0)
        r = ha_run_settings_create(overrides, n, ret_settings, err);
    if (r < 0)
        return r;
    *ret_call = (struct ha_call){
        .arguments = arguments,
        .settings = *ret_settings,
        .engine = {.model_dir = ha_arguments_value(arguments, "model", NULL),
                   .backend = ha_arguments_value(arguments, "backend", "auto"),
                   .threads = threads > INT_MAX ? INT_MAX : (int)threads,
                   .device = device > INT_MAX ? INT_MAX : (int)device,
                   .prompt_template = ha_arguments_value(arguments, "template", "hh")},
    };
    return 0;
}

static void complain(const struct ha_error *err)
{
    fprintf(stderr, "ha-attempt: %s\n", ha_error_text(err));
}

static int run_command(const struct ha_subcommand *subcommand, const struct ha_call *call,
                       struct ha_error *err)
{
    struct sigaction action = {.sa_handler = on_stop}, abort_action = {.sa_handler = on_abort};
    int r;

    if (subcommand->stops) {
        (void)sigaction(SIGTERM, &action, NULL);
        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGUSR1, &abort_action, NULL);
        ha_stacks_on_signal();
    }
    r = subcommand->run(call, err);
    if (fflush(stdout) == EOF && r >= 0)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    if (r >= 0)
        return r;
    complain(err);
    return r == -EINTR ? HA_ATTEMPT_STOPPED : HA_ATTEMPT_FAILED;
}

static int start_command(const struct ha_subcommand *subcommand, int argc, char **argv)
{
    struct ha_run_settings *settings = NULL;
    struct ha_arguments *arguments = NULL;
    struct ha_error err = {0};
    struct ha_call call;
    int code = HA_ATTEMPT_USAGE;
    int r = ha_arguments_parse(&subcommand->command, argc, (const char *const *)argv, 2, &arguments,
                               &err);

    if (r == 0 && ha_arguments_help(arguments)) {
        ha_command_print_help(&subcommand->command);
        code = HA_ATTEMPT_DONE;
    } else if (r == 0) {
        r = check_required(subcommand, arguments, &err);
        if (r == 0)
            r = read_call(arguments, &call, &settings, &err);
        if (r == 0)
            code = run_command(subcommand, &call, &err);
    }
    if (r < 0)
        complain(&err);
    ha_run_settings_destroy(settings);
    ha_arguments_destroy(arguments);
    return code;
}

int main(int argc, char **argv)
{
    ha_log_setup("ha-attempt", HA_LOG_INFO, HA_LOG_TEXT);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return HA_ATTEMPT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return HA_ATTEMPT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("ha-attempt " HA_VERSION);
        return HA_ATTEMPT_DONE;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return start_command(commands[i], argc, argv);
    fprintf(stderr, "ha-attempt: there is no command '%s'; see ha-attempt --help\n", argv[1]);
    return HA_ATTEMPT_USAGE;
}
