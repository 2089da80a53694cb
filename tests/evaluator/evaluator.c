/* ha-evaluator - a small OpenAI-compatible server of text statistics
 *
 * NOT a language model.  README.md tells what it counts. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "tests/evaluator/misbehave.h"
#include "tests/evaluator/server.h"

struct command {
    struct ha_evaluator_options options;
    const char *port_file;
    int watch_fd; /* -1: none */
    bool ended;   /* nothing is left to do */
};

static void usage(FILE *out)
{
    fputs("usage: ha-evaluator [OPTION]...\n"
          "An OpenAI-compatible server that scores answers by text statistics.\n"
          "It is not a language model; tests/evaluator/README.md tells what it counts.\n\n"
          "  --port N             listen at 127.0.0.1:N; 0 (default): any free port\n"
          "  --port-file FILE     write the port there when it listens\n"
          "  --latency MS         wait before each reply\n"
          "  --misbehave WAY[:every N]\n"
          "                       answer every N-th request (default: each) in this way; may be\n"
          "                       given several times\n"
          "  --record FILE        one line per request: number, SHA-256 of its body, way\n"
          "  --watch-fd N         end when this pipe closes\n"
          "  --ways               list the ways and end\n"
          "  --help, --version\n\n"
          "Example: ha-evaluator --port 8000 --misbehave 429:every 10\n",
          out);
}

static int parse_number(const char *text, int64_t least, int64_t most, int64_t *ret_number)
{
    char *end;

    errno = 0;
    *ret_number = strtoll(text, &end, 10);
    return errno || end == text || *end || *ret_number < least || *ret_number > most ? -EINVAL : 0;
}

/* WAY, WAY:N or "WAY:every N". */
static int add_rule(struct ha_evaluator_options *options, const char *text, struct ha_error *err)
{
    struct ha_evaluator_rule rule = {.every = 1};
    size_t length = strcspn(text, ":");
    const char *every = text + length;
    char name[32];

    if (options->n_rules == HA_EVALUATOR_RULES || length >= sizeof name)
        return ha_error_set(err, EINVAL, "--misbehave %s: too many, or too long", text);
    memcpy(name, text, length);
    name[length] = '\0';
    rule.way = ha_evaluator_way_find(name);
    if (!rule.way)
        return ha_error_set(err, EINVAL, "--misbehave %s: no such way; --ways lists them", text);
    if (*every) {
        every++;
        if (strncmp(every, "every ", 6) == 0)
            every += 6;
        if (parse_number(every, 1, INT32_MAX, &rule.every) < 0)
            return ha_error_set(err, EINVAL, "--misbehave %s: write WAY:every N", text);
    }
    options->rules[options->n_rules++] = rule;
    return 0;
}

static int set_number(const char *name, const char *text, int64_t most, int64_t *ret_number,
                      struct ha_error *err)
{
    if (parse_number(text, 0, most, ret_number) < 0)
        return ha_error_set(err, EINVAL, "--%s %s: not a number from 0 to %lld", name, text,
                            (long long)most);
    return 0;
}

static int set_option(struct command *command, const char *name, const char *value,
                      struct ha_error *err)
{
    int64_t number = 0;
    int r = 0;

    if (strcmp(name, "port") == 0) {
        r = set_number(name, value, 65535, &number, err);
        command->options.port = (int)number;
    } else if (strcmp(name, "port-file") == 0) {
        command->port_file = value;
    } else if (strcmp(name, "latency") == 0) {
        r = set_number(name, value, 3600000, &command->options.latency_ms, err);
    } else if (strcmp(name, "misbehave") == 0) {
        r = add_rule(&command->options, value, err);
    } else if (strcmp(name, "record") == 0) {
        command->options.record = fopen(value, "ae");
        if (!command->options.record)
            r = ha_error_set(err, errno, "%s: %s", value, strerror(errno));
    } else if (strcmp(name, "watch-fd") == 0) {
        r = set_number(name, value, 1 << 20, &number, err);
        command->watch_fd = (int)number;
    } else {
        command->ended = true;
        if (strcmp(name, "ways") == 0)
            ha_evaluator_ways_print(stdout);
        else if (strcmp(name, "version") == 0)
            puts("ha-evaluator " HA_VERSION);
        else
            usage(stdout);
    }
    return r;
}

static int parse_command(int argc, char **argv, struct command *command, struct ha_error *err)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 0},    {"port-file", required_argument, NULL, 0},
        {"latency", required_argument, NULL, 0}, {"misbehave", required_argument, NULL, 0},
        {"record", required_argument, NULL, 0},  {"watch-fd", required_argument, NULL, 0},
        {"ways", no_argument, NULL, 0},          {"help", no_argument, NULL, 0},
        {"version", no_argument, NULL, 0},       {0}};
    int index = 0, c, r = 0;

    while (r == 0 && !command->ended && (c = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (c != 0)
            return ha_error_set(err, EINVAL, "see ha-evaluator --help");
        r = set_option(command, options[index].name, optarg, err);
    }
    if (r == 0 && !command->ended && optind < argc)
        r = ha_error_set(err, EINVAL, "%s: not an option; see ha-evaluator --help", argv[optind]);
    return r;
}

static void on_signal(void *context, int signal)
{
    (void)signal;
    ha_loop_stop(context);
}

static void on_watched(void *context, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    ha_loop_stop(context);
}

/* Say where it listens: only now can a call succeed. */
static int announce(const struct command *command, int port, struct ha_error *err)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", port);

    printf("listening 127.0.0.1:%d\n", port);
    fflush(stdout);
    return command->port_file ? ha_file_write(command->port_file, text, (size_t)n, 0644, err) : 0;
}

static int serve(const struct command *command, struct ha_loop *loop, struct ha_error *err)
{
    struct ha_evaluator_server *server = NULL;
    struct ha_loop_fd *watch = NULL;
    int r;

    r = ha_loop_on_signal(loop, SIGTERM, on_signal, loop, err);
    if (r == 0)
        r = ha_loop_on_signal(loop, SIGINT, on_signal, loop, err);
    if (r == 0 && command->watch_fd >= 0)
        r = ha_loop_watch_fd(loop, command->watch_fd, HA_LOOP_READ, on_watched, loop, &watch, err);
    if (r == 0)
        r = ha_evaluator_server_create(loop, &command->options, &server, err);
    if (r == 0)
        r = announce(command, ha_evaluator_server_port(server), err);
    if (r == 0)
        r = ha_loop_run(loop, err);
    ha_evaluator_server_destroy(server);
    ha_loop_fd_end(watch);
    return r;
}

int main(int argc, char **argv)
{
    struct command command = {.watch_fd = -1};
    struct ha_loop *loop = NULL;
    struct ha_error err = {0};
    int r;

    ha_log_setup("ha-evaluator", HA_LOG_INFO, HA_LOG_TEXT);
    signal(SIGPIPE, SIG_IGN);
    r = parse_command(argc, argv, &command, &err);
    if (r == 0 && !command.ended) {
        r = ha_loop_create(&loop, &err);
        if (r == 0)
            r = serve(&command, loop, &err);
        ha_loop_destroy(loop);
        if (r < 0)
            ha_log_error("%s", ha_error_text(&err));
        r = r < 0 ? 1 : 0;
    } else if (r < 0) {
        fprintf(stderr, "ha-evaluator: %s\n", ha_error_text(&err));
        r = 2;
    }
    if (command.options.record)
        fclose(command.options.record);
    return r;
}
