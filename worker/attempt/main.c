/* ha-attempt - one attempt of one job, or one step of it by hand */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "worker/attempt/commands.h"
#include "worker/contract.h"

static const struct ha_subcommand *const commands[] = {
    &ha_subcommand_tokenize, &ha_subcommand_score,   &ha_subcommand_train, &ha_subcommand_generate,
    &ha_subcommand_plan,     &ha_subcommand_backend, &ha_subcommand_job,
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

volatile sig_atomic_t ha_attempt_stop;

static void on_stop(int number)
{
    (void)number;
    ha_attempt_stop = 1;
}

static void print_usage(FILE *out)
{
    fputs("usage: ha-attempt COMMAND [options]\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->command.summary);
    fputs("\nha-attempt COMMAND --help tells more.\n", out);
}

static int exit_code_of(int r)
{
    if (r >= 0)
        return r;
    return r == -EINVAL ? HA_ATTEMPT_USAGE : HA_ATTEMPT_FAILED;
}

static int run_command(const struct ha_subcommand *subcommand, int argc, char **argv)
{
    struct ha_arguments *arguments = NULL;
    struct ha_error err = {0};
    int r = ha_arguments_parse(&subcommand->command, argc, (const char *const *)argv, 2, &arguments,
                               &err);

    if (r == 0 && ha_arguments_help(arguments))
        ha_command_print_help(&subcommand->command);
    else if (r == 0)
        r = subcommand->run(arguments, &err);
    if (r < 0)
        fprintf(stderr, "ha-attempt: %s\n", ha_error_text(&err));
    ha_arguments_destroy(arguments);
    return exit_code_of(r);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_stop};

    ha_log_setup("ha-attempt", HA_LOG_INFO, HA_LOG_TEXT);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
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
            return run_command(commands[i], argc, argv);
    fprintf(stderr, "ha-attempt: there is no command '%s'; see ha-attempt --help\n", argv[1]);
    return HA_ATTEMPT_USAGE;
}
