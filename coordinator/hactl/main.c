/* hactl - the command line of Hierarchical Align */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "coordinator/hactl/verbs.h"

static const struct ha_verb *const verbs[] = {
    &ha_verb_run,       &ha_verb_submit, &ha_verb_list,    &ha_verb_status,  &ha_verb_wait,
    &ha_verb_why,       &ha_verb_show,   &ha_verb_results, &ha_verb_report,  &ha_verb_log,
    &ha_verb_metrics,   &ha_verb_cancel, &ha_verb_retry,   &ha_verb_workers, &ha_verb_keys,
    &ha_verb_artifacts, &ha_verb_export, &ha_verb_version, &ha_verb_probe,   &ha_verb_pause,
    &ha_verb_resume,    &ha_verb_set,    &ha_verb_backup,  &ha_verb_restore, &ha_verb_gc,
    &ha_verb_doctor,
};

enum { N_VERBS = sizeof(verbs) / sizeof(verbs[0]) };

/* Known by name, so that asking for them is answered and not guessed at. */
static const char *const not_built[] = {"diff", "judge"};

static void print_usage(FILE *out)
{
    fputs("usage: hactl VERB [arguments]\n\n", out);
    for (int i = 0; i < N_VERBS; i++)
        ha_command_print_summary(&verbs[i]->command, verbs[i]->name, 10, out);
    fputs(
        "\nhactl VERB --help tells more.  Exit codes: 0 done, 1 failed, 2 usage, 3 no coordinator "
        "answers,\n4 finished with gaps.\n",
        out);
}

static int exit_code_of(int r)
{
    if (r >= 0)
        return r;
    if (r == -ENOTCONN)
        return HA_EXIT_UNREACHABLE;
    return r == -EINVAL ? HA_EXIT_USAGE : HA_EXIT_FAILED;
}

/* What was printed must have arrived. */
static int flush_output(struct ha_error *err)
{
    bool failed = ferror(stdout);

    errno = 0;
    if (fflush(stdout) == EOF || failed)
        return ha_error_set(err, errno, "standard output: %s", strerror(errno ? errno : EIO));
    return 0;
}

static int run_verb(const struct ha_verb *verb, int argc, char **argv)
{
    struct ha_arguments *arguments = NULL;
    struct ha_error err = {0};
    int r =
        ha_arguments_parse(&verb->command, argc, (const char *const *)argv, 2, &arguments, &err);

    if (r == 0 && ha_arguments_help(arguments))
        ha_command_print_help(&verb->command);
    else if (r == 0)
        r = verb->run(arguments, &err);
    if (r >= 0) {
        int flushed = flush_output(&err);

        r = flushed < 0 ? flushed : r;
    }
    /* Who closes our output has seen enough: `hactl results | head` is no error to tell. */
    if (r < 0 && r != -EPIPE)
        fprintf(stderr, "hactl: %s\n", ha_error_text(&err));
    ha_arguments_destroy(arguments);
    return exit_code_of(r);
}

static int unknown_verb(const char *name)
{
    for (size_t i = 0; i < sizeof(not_built) / sizeof(not_built[0]); i++) {
        if (strcmp(name, not_built[i]) == 0) {
            fprintf(stderr, "hactl: %s is not built in this version\n", name);
            return HA_EXIT_USAGE;
        }
    }
    fprintf(stderr, "hactl: there is no verb '%s'; see hactl --help\n", name);
    return HA_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    ha_log_setup("hactl", HA_LOG_WARNING, HA_LOG_TEXT);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return HA_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return HA_EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0)
        return run_verb(&ha_verb_version, argc, argv);
    for (int i = 0; i < N_VERBS; i++)
        if (strcmp(argv[1], verbs[i]->name) == 0)
            return run_verb(verbs[i], argc, argv);
    return unknown_verb(argv[1]);
}
