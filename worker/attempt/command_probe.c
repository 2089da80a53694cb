#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/console_reporter.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/probing.h"
#include "worker/contract.h"

/* ---- JSON ---------------------------------------------------------------------- */

static struct ha_json *norm_json(const struct ha_reported_norm *norm)
{
    struct ha_json *json = ha_json_new_object();

    if (ha_json_set(json, "block", ha_json_new_string(norm->block)) < 0 ||
        ha_json_set(json, "layer", ha_json_new_int(norm->layer)) < 0 ||
        ha_json_set(json, "layers", ha_json_new_int(norm->layers)) < 0 ||
        ha_json_set(json, "module", ha_json_new_string(norm->module)) < 0 ||
        ha_json_set(json, "norm", ha_json_new_real(norm->norm)) < 0 ||
        ha_json_set(json, "parameters", ha_json_new_int(norm->parameters)) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int print_json(const struct ha_console_reporter *console, struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object(), *norms = ha_json_new_array();
    int r = ha_json_set(json, "norms", norms);
    char *text;

    if (r == 0)
        r = ha_json_set(json, "pairs", ha_json_new_int(console->norms[0].pairs));
    for (int64_t i = 0; r == 0 && i < console->n_norms; i++)
        r = ha_json_append(norms, norm_json(&console->norms[i]));
    text = r == 0 ? ha_json_dump(json, HA_JSON_PRETTY) : NULL;
    r = text ? 0 : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0 && puts(text) == EOF)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    free(text);
    ha_json_destroy(json);
    return r;
}

/* ---- table --------------------------------------------------------------------- */

/* The modules of one layer or block stand together, "all" last. */
enum { PER_LINE = 5 };

static void print_line(const struct ha_reported_norm *norms, double sum)
{
    const struct ha_reported_norm *all = &norms[PER_LINE - 1];
    char layers[48];

    if (all->layers == 1)
        (void)snprintf(layers, sizeof(layers), "%lld", (long long)all->layer);
    else
        (void)snprintf(layers, sizeof(layers), "%lld-%lld", (long long)all->layer,
                       (long long)(all->layer + all->layers - 1));
    printf("%-7s %-9s", all->block[0] ? all->block : "", layers);
    for (int i = 0; i < PER_LINE; i++)
        printf(" %11.5g", norms[i].norm);
    printf(" %11.5g", all->norm / sqrt((double)all->parameters));
    if (!all->block[0] && sum > 0)
        printf(" %6.2f %%", 100 * all->norm / sum);
    putchar('\n');
}

static void print_table(const struct ha_console_reporter *console)
{
    double sum = 0; /* over the layers */

    for (int64_t i = PER_LINE - 1; i < console->n_norms; i += PER_LINE)
        sum += console->norms[i].block[0] ? 0 : console->norms[i].norm;
    printf("Mean over %lld pairs of the Frobenius norm of the loss's gradient by frozen weights\n\n"
           "%-7s %-9s",
           (long long)console->norms[0].pairs, "block", "layers");
    for (int i = 0; i < PER_LINE; i++)
        printf(" %11s", console->norms[i].module);
    printf(" %11s %8s\n", "/ sqrt(n)", "share");
    for (int64_t i = 0; i + PER_LINE <= console->n_norms; i += PER_LINE)
        print_line(&console->norms[i], sum);
    printf("\nall: the four together; / sqrt(n): all per square root of its number of weights; "
           "share: of the layers' sum.\n");
}

/* ---- the command ---------------------------------------------------------------- */

static int run(const struct ha_call *call, struct ha_error *err)
{
    const struct ha_arguments *arguments = call->arguments;
    struct ha_console_reporter console = {0};
    struct ha_reporter reporter = ha_console_reporter(&console);
    struct ha_probing probing = {.engine = call->engine, .cell = 1, .settings = call->settings};
    struct ha_gang_file file;
    struct ha_gang gang = {.ranks = 0};
    int r = ha_call_read_gang(arguments, &file, &gang, err);

    if (r < 0)
        return r;
    if (gang.ranks > 0)
        probing.gang = &gang;
    probing.train = ha_arguments_values(arguments, "data", &probing.n_train);
    r = ha_probing_run(&probing, &reporter, &ha_attempt_stop, err);
    if (r == 0 && gang.rank == 0 && ha_arguments_given(arguments, "json"))
        r = print_json(&console, err);
    else if (r == 0 && gang.rank == 0)
        print_table(&console);
    return ha_console_reporter_close(&console, r, err);
}

static const char *const required[] = {"model", "data", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"data", "FILE", "preference pairs, JSON Lines, plain or gzip; repeatable"},
    HA_OPTION_TEMPLATE,
    {"set", "KEY=VALUE", "probe.pairs=64, train.beta=0.1, train.loss=ipo, ...; repeatable"},
    {"json", NULL, "print JSON"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
    HA_OPTIONS_GANG,
};

const struct ha_subcommand ha_subcommand_probe = {
    .name = "probe",
    .command = {.name = "ha-attempt probe",
                .synopsis = "",
                .summary = "norms of the loss's gradient by frozen q, k, v, o weights, per layer",
                .example = "ha-attempt probe --model deploy/demo/models/qwen3-demo --data "
                           "deploy/demo/data/train.jsonl --set probe.pairs=64",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .stops = true,
    .run = run,
};
