#include "common/base/arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/fold.h"
#include "common/base/memory.h"

struct given {
    const char *name, *value;
    int64_t first; /* of the option's values in ha_arguments.values */
};

struct ha_arguments {
    struct given *given;
    int64_t n_given;
    const char **positional;
    int64_t n_positional;
    const char **values; /* those of one option side by side, in the order given */
    bool help;
};

static const struct ha_option *find_in(const struct ha_option *options, int64_t count,
                                       const char *name, size_t length)
{
    for (int64_t i = 0; i < count; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

static const struct ha_option *find_option(const struct ha_command *command, const char *name,
                                           size_t length)
{
    const struct ha_option *option = find_in(command->options, command->n_options, name, length);

    return option ? option
                  : find_in(command->shared_options, command->n_shared_options, name, length);
}

/* Reads one "--name[=value]" at argv[*at]; moves *at over a value of its own. */
static int read_option(struct ha_arguments *a, const struct ha_command *command, int argc,
                       const char *const *argv, int *at, struct ha_error *err)
{
    const char *name = argv[*at] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct ha_option *option = find_option(command, name, length);
    const char *value = equals ? equals + 1 : NULL;

    if (!option)
        return ha_error_set(err, EINVAL, "%s: there is no option %s; see %s --help", command->name,
                            argv[*at], command->name);
    if (!option->value && value)
        return ha_error_set(err, EINVAL, "%s: --%s takes no value", command->name, option->name);
    if (option->value && !value) {
        if (*at + 1 >= argc)
            return ha_error_set(err, EINVAL, "%s: --%s needs a value (%s)", command->name,
                                option->name, option->value);
        value = argv[++*at];
    }
    a->given[a->n_given++] = (struct given){.name = option->name, .value = value ? value : ""};
    return 0;
}

static const struct given *first_given(const struct ha_arguments *a, const char *option)
{
    for (int64_t i = 0; i < a->n_given; i++)
        if (strcmp(a->given[i].name, option) == 0)
            return &a->given[i];
    return NULL;
}

static void group_values(struct ha_arguments *a)
{
    int64_t n = 0;

    for (int64_t i = 0; i < a->n_given; i++) {
        if (first_given(a, a->given[i].name) != &a->given[i])
            continue;
        a->given[i].first = n;
        for (int64_t j = i; j < a->n_given; j++)
            if (strcmp(a->given[j].name, a->given[i].name) == 0)
                a->values[n++] = a->given[j].value;
    }
}

int ha_arguments_parse(const struct ha_command *command, int argc, const char *const *argv,
                       int from, struct ha_arguments **ret_arguments, struct ha_error *err)
{
    struct ha_arguments *a = ha_calloc(1, sizeof(*a));
    bool options = true;
    int r = 0;

    if (a) {
        a->given = ha_calloc(argc, sizeof(*a->given));
        a->positional = ha_calloc(argc, sizeof(*a->positional));
        a->values = ha_calloc(argc, sizeof(*a->values));
    }
    if (!a || !a->given || !a->positional || !a->values) {
        r = ha_error_set(err, ENOMEM, "%s: out of memory", command->name);
        goto out;
    }
    for (int at = from; at < argc && r == 0; at++) {
        if (options && strcmp(argv[at], "--") == 0)
            options = false;
        else if (options && (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0))
            a->help = true;
        else if (options && strncmp(argv[at], "--", 2) == 0)
            r = read_option(a, command, argc, argv, &at, err);
        else
            a->positional[a->n_positional++] = argv[at];
    }
    if (r == 0 && !a->help && a->n_positional < command->min_positional)
        r = ha_error_set(err, EINVAL, "%s needs %s; see %s --help", command->name,
                         command->synopsis, command->name);
    if (r == 0 && a->n_positional > command->max_positional)
        r = ha_error_set(err, EINVAL, "%s: '%s' is one argument too many", command->name,
                         a->positional[command->max_positional]);
    group_values(a);
out:
    if (r < 0) {
        ha_arguments_destroy(a);
        return r;
    }
    *ret_arguments = a;
    return 0;
}

void ha_arguments_destroy(struct ha_arguments *a)
{
    if (!a)
        return;
    free(a->given);
    free(a->positional);
    free(a->values);
    free(a);
}

bool ha_arguments_help(const struct ha_arguments *a)
{
    return a->help;
}

bool ha_arguments_given(const struct ha_arguments *a, const char *option)
{
    return ha_arguments_value(a, option, NULL) != NULL;
}

const char *ha_arguments_value(const struct ha_arguments *a, const char *option,
                               const char *otherwise)
{
    for (int64_t i = a->n_given; i-- > 0;)
        if (strcmp(a->given[i].name, option) == 0)
            return a->given[i].value;
    return otherwise;
}

const char *const *ha_arguments_values(const struct ha_arguments *a, const char *option,
                                       int64_t *ret_count)
{
    const struct given *first = first_given(a, option);
    int64_t n = 0;

    for (int64_t i = 0; i < a->n_given; i++)
        n += strcmp(a->given[i].name, option) == 0;
    *ret_count = n;
    return a->values + (first ? first->first : 0);
}

int ha_arguments_int(const struct ha_arguments *a, const char *option, int64_t minimum,
                     int64_t otherwise, int64_t *ret_value, struct ha_error *err)
{
    const char *text = ha_arguments_value(a, option, NULL);
    char *end;
    long long value;

    if (!text) {
        *ret_value = otherwise;
        return 0;
    }
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < minimum)
        return ha_error_set(err, EINVAL, "--%s: '%s' is not a whole number of at least %lld",
                            option, text, (long long)minimum);
    *ret_value = value;
    return 0;
}

const char *ha_arguments_at(const struct ha_arguments *a, int64_t index, const char *otherwise)
{
    return index < a->n_positional ? a->positional[index] : otherwise;
}

/* Text from a column on, its further lines at an indent; end stands behind each line but the
 * last. */
static void print_folded(FILE *out, const char *text, int column, int indent, const char *end)
{
    int n = ha_fold(text, HA_FOLD_COLUMNS - column - (int)strlen(end));

    fprintf(out, "%.*s", n, text);
    while (*(text = ha_fold_next(text, n))) {
        n = ha_fold(text, HA_FOLD_COLUMNS - indent - (int)strlen(end));
        fprintf(out, "%s\n%*s%.*s", end, indent, "", n, text);
    }
    fputc('\n', out);
}

void ha_command_print_summary(const struct ha_command *command, const char *name, int columns,
                              FILE *out)
{
    fprintf(out, "  %-*s ", columns, name);
    print_folded(out, command->summary, columns + 3, columns + 3, "");
}

static void print_options(const struct ha_option *options, int64_t count)
{
    enum { INDENT = 27 };
    char left[64];

    for (int64_t i = 0; i < count; i++) {
        (void)snprintf(left, sizeof(left), "--%s%s%s", options[i].name, options[i].value ? " " : "",
                       options[i].value ? options[i].value : "");
        print_folded(stdout, options[i].help, printf("  %-24s ", left), INDENT, "");
    }
}

void ha_command_print_help(const struct ha_command *command)
{
    printf("usage: %s%s%s [options]\n\n", command->name, command->synopsis[0] ? " " : "",
           command->synopsis);
    print_folded(stdout, command->summary, 0, 0, "");
    fputc('\n', stdout);
    print_options(command->options, command->n_options);
    print_options(command->shared_options, command->n_shared_options);
    print_options(&(struct ha_option){.name = "help", .help = "this text"}, 1);
    fputs("\nexample: ", stdout);
    print_folded(stdout, command->example, 9, 13, " \\"); /* as a shell takes it */
}
