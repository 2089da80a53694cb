#include "coordinator/hactl/document.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/gather.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/norms.h"
#include "coordinator/hactl/progress.h"
#include "coordinator/report/table.h"

enum { TOP_CELLS = 10 };

#define PEAK_NOTE                                                                                  \
    "Peak: what the backend did at best in a matrix product when the attempt began; utilisation "  \
    "is the FLOP/s over it."

struct document {
    const struct ha_status *status;
    const struct ha_experiment *experiment;
    const char *dir;
    struct ha_buffer text;
};

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

static int write_file(const char *dir, const char *name, const struct ha_buffer *bytes,
                      struct ha_error *err)
{
    char *path = ha_path_join(dir, name);
    int r = path ? ha_file_write(path, ha_buffer_text(bytes), bytes->size, 0644, err)
                 : out_of_memory(err);

    free(path);
    return r;
}

/* Adds a table to the text and, with a file name, writes it as CSV; takes the
 * table over. */
static int add_table(struct document *document, struct ha_table *table, const char *csv,
                     struct ha_error *err)
{
    struct ha_buffer out;
    int r = ha_table_markdown(table, &document->text);

    ha_buffer_init(&out, 0);
    if (r == 0 && csv)
        r = ha_table_csv(table, &out);
    ha_table_destroy(table);
    if (r < 0)
        r = out_of_memory(err);
    else if (csv)
        r = write_file(document->dir, csv, &out, err);
    ha_buffer_clear(&out);
    return r;
}

/* The first stage of a kind, or NULL. */
static const struct ha_wire_stage_row *stage_of(const struct ha_wire_cell_row *cell,
                                                const char *kind)
{
    for (int64_t i = 0; i < cell->n_stages; i++)
        if (strcmp(cell->stages[i].stage, kind) == 0)
            return &cell->stages[i];
    return NULL;
}

/* The summary of a cell's stage; NULL: it has none. */
static struct ha_json *summary_of(const struct ha_wire_cell_row *cell, const char *kind)
{
    const struct ha_wire_stage_row *stage = stage_of(cell, kind);
    struct ha_json *summary = NULL;

    if (stage && stage->summary_json[0])
        (void)ha_json_parse(stage->summary_json, strlen(stage->summary_json), "summary", &summary,
                            NULL);
    return summary;
}

/* Did a cell train with references that were made under another plan? */
static bool any_offset(const struct ha_status *status)
{
    bool any = false;

    for (int64_t i = 0; i < status->n_cells && !any; i++) {
        struct ha_json *summary = summary_of(status->cells[i], "train");

        any = ha_json_get(summary, "reference_offset") != NULL;
        ha_json_destroy(summary);
    }
    return any;
}

/* The training record of a cell, from the summary of its train stage. */
static struct ha_table *training_table(const struct ha_status *status)
{
    static const char *const fields[] = {"trainable_parameters",
                                         "steps",
                                         "seconds",
                                         "eval_loss",
                                         "eval_rewards/accuracies",
                                         "eval_rewards/margins",
                                         "reference_offset"};
    enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };
    struct ha_table *table = ha_table_create("Training of each cell");

    int shown = any_offset(status) ? FIELDS : FIELDS - 1;

    ha_table_column_text(table, "Cell");
    ha_table_column_text(table, "Layers");
    for (int i = 0; i < shown; i++)
        ha_table_column_number(table, fields[i]);
    for (int64_t i = 0; i < status->n_cells; i++) {
        const struct ha_wire_cell_row *cell = status->cells[i];
        struct ha_json *summary = summary_of(cell, "train");

        if (!stage_of(cell, "train"))
            continue;
        ha_table_text(table, cell->name);
        ha_table_text(table, cell->layers);
        for (int k = 0; k < shown; k++) {
            const struct ha_json *value = ha_json_get(summary, fields[k]);

            if (ha_json_is(value, HA_JSON_INT))
                ha_table_format(table, "%lld", (long long)ha_json_int(value, 0));
            else if (value && k == FIELDS - 1)
                ha_table_format(table, "%.2g", ha_json_real(value, 0));
            else if (value)
                ha_table_format(table, "%.4f", ha_json_real(value, 0));
            else
                ha_table_text(table, "-");
        }
        ha_json_destroy(summary);
    }
    if (shown == FIELDS)
        ha_table_note(table, "reference_offset: these cells took reference log-probs of another "
                             "batch plan or kernel build (train.reference = \"any\"), which differ "
                             "from their own by up to so much per sequence; their margins do not "
                             "begin at exactly 0.");
    return table;
}

static void put_number(struct ha_table *table, const struct ha_json *summary, const char *key,
                       double scale, int decimals)
{
    const struct ha_json *value = ha_json_get(summary, key);

    ha_table_real(table, value ? ha_json_real(value, NAN) * scale : NAN, decimals);
}

/* What the engine counted, of any stage. */
static const struct rate {
    const char *column, *key;
    double scale;
    int decimals;
} rates[] = {
    {"tokens/s", "tokens_per_second", 1, 0},
    {"GFLOP/s", "flops_per_second", 1e-9, 1},
    {"Peak GFLOP/s", "peak_flops_per_second", 1e-9, 1},
    {"Utilisation %", "utilisation", 100, 1},
    {"Saved FLOPs %", "saved", 100, 1},
};

enum { RATES = sizeof(rates) / sizeof(rates[0]) };

static void add_rate_columns(struct ha_table *table)
{
    for (int i = 0; i < RATES; i++)
        ha_table_column_number(table, rates[i].column);
}

static void put_rates(struct ha_table *table, const struct ha_json *summary)
{
    for (int i = 0; i < RATES; i++)
        put_number(table, summary, rates[i].key, rates[i].scale, rates[i].decimals);
}

/* Own passes, the part of those that cells share, and what it takes alone: measured, or both with
 * the whole of the shared part. */
static void put_times(struct ha_table *table, const struct ha_json *summary)
{
    double own = ha_json_real(ha_json_get(summary, "train_seconds_own"), NAN);
    double shared = ha_json_real(ha_json_get(summary, "train_seconds_shared"), NAN);
    double cells = ha_json_real(ha_json_get(summary, "cells_in_job"), NAN);
    double step = ha_json_real(ha_json_get(summary, "seconds_alone_per_step"), 0);
    double steps = ha_json_real(ha_json_get(summary, "steps"), 0);

    ha_table_real(table, cells, 0);
    ha_table_real(table, own, 2);
    ha_table_real(table, shared, 2);
    if (cells == 1)
        ha_table_real(table, own + shared, 2);
    else if (step * steps > 0)
        ha_table_real(table, step * steps, 2);
    else if (own + shared * cells > 0)
        ha_table_format(table, "~%.2f", own + shared * cells);
    else
        ha_table_text(table, "-");
}

/* The paper's Figure 5, and what the engine counted.  A stage that was cut off and
 * went on has its sums from the start. */
static struct ha_table *times_table(const struct ha_status *status)
{
    struct ha_table *table = ha_table_create("Time of training");

    ha_table_column_text(table, "Cell");
    ha_table_column_number(table, "Cells in its job");
    ha_table_column_number(table, "Own s");
    ha_table_column_number(table, "Shared part s");
    ha_table_column_number(table, "Alone s");
    ha_table_column_number(table, "pairs/s");
    add_rate_columns(table);
    for (int64_t i = 0; i < status->n_cells; i++) {
        struct ha_json *summary = summary_of(status->cells[i], "train");

        if (!summary)
            continue;
        ha_table_text(table, status->cells[i]->name);
        put_times(table, summary);
        put_number(table, summary, "pairs_per_second", 1, 2);
        put_rates(table, summary);
        ha_json_destroy(summary);
    }
    ha_table_note(table, "Alone: what a cell took that had its job for itself; of others the steps "
                         "that [schedule] time_alone_steps measured, with the references known, "
                         "times the number of steps; with ~ not measured: its own passes and the "
                         "whole of the shared ones. " PEAK_NOTE);
    return table;
}

/* Steps that cells of a queue share are divided among them. */
static struct ha_table *answer_times_table(const struct ha_status *status)
{
    struct ha_table *table = ha_table_create("Time of generation");

    ha_table_column_text(table, "Cell");
    ha_table_column_number(table, "Cells in its job");
    ha_table_column_number(table, "Answers");
    ha_table_column_number(table, "Tokens");
    ha_table_column_number(table, "Seconds");
    add_rate_columns(table);
    for (int64_t i = 0; i < status->n_cells; i++) {
        struct ha_json *summary = summary_of(status->cells[i], "generate");

        if (!summary)
            continue;
        ha_table_text(table, status->cells[i]->name);
        put_number(table, summary, "cells_in_job", 1, 0);
        put_number(table, summary, "answers", 1, 0);
        put_number(table, summary, "tokens", 1, 0);
        put_number(table, summary, "seconds", 1, 2);
        put_rates(table, summary);
        ha_json_destroy(summary);
    }
    ha_table_note(table, PEAK_NOTE);
    return table;
}

static struct ha_table *provenance_table(const struct ha_status *status)
{
    struct ha_table *table = ha_table_create("Models");

    ha_table_column_text(table, "Model");
    ha_table_column_text(table, "Family");
    ha_table_column_number(table, "Layers");
    ha_table_column_text(table, "Digest of weights and configuration");
    ha_table_column_text(table, "Digest of the tokenizer");
    for (int64_t i = 0; i < status->head->n_models; i++) {
        const struct ha_wire_submit_model *model = &status->head->models[i];

        ha_table_text(table, model->name);
        ha_table_text(table, model->family);
        ha_table_format(table, "%u", model->layers);
        ha_table_text(table, model->digest);
        ha_table_text(table, model->tokenizer_digest);
    }
    return table;
}

static int add_head(struct document *document, const char *version)
{
    const struct ha_wire_status_reply *head = document->status->head;
    struct ha_progress p = ha_progress_of(document->status);
    char stamp[HA_CLOCK_STAMP_BYTES];
    int r = ha_buffer_printf(&document->text,
                             "# %s\n\n%lld cells, %lld of %lld stages done; %lld of %lld answers "
                             "scored. State: %s.\n\n",
                             head->sweep.name, (long long)document->status->n_cells,
                             (long long)p.complete, (long long)p.stages, (long long)p.scores,
                             (long long)p.scores_total, head->sweep.state);

    if (r == 0 && head->judge_label[0])
        r = ha_buffer_printf(&document->text, "> %s\n\n", head->judge_label);
    if (r == 0)
        r = ha_buffer_printf(&document->text, "Written %s by hactl %s (coordinator %s).\n\n",
                             ha_clock_stamp(head->now_ms, stamp), HA_VERSION, version);
    return r;
}

static int add_results(struct document *d, struct ha_error *err)
{
    const struct ha_experiment *e = d->experiment;
    int r = ha_buffer_append_text(&d->text, "## Results\n\n");

    if (r < 0)
        return out_of_memory(err);
    r = add_table(d, ha_report_strategies(e), "strategies.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_ranking(e, TOP_CELLS), NULL, err);
    if (r == 0)
        r = add_table(d, ha_report_blocks(e), "blocks.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_cells(e, e->overall), "cells.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_dimensions(e, 1), "dimensions-by-strategy.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_dimensions(e, 0), "dimensions-by-cell.csv", err);
    if (r == 0)
        r = add_table(d, training_table(d->status), "training.csv", err);
    if (r == 0)
        r = add_table(d, times_table(d->status), "times.csv", err);
    if (r == 0)
        r = add_table(d, answer_times_table(d->status), "generation-times.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_missing_table(e), "missing.csv", err);
    return r;
}

/* Where the loss has its gradient, of a sweep that probes. */
static int add_probes(struct document *d, struct ha_link *link, struct ha_error *err)
{
    struct ha_norms *norms;
    int r;

    if (!ha_norms_has_probe(d->status))
        return 0;
    r = ha_norms_fetch(link, d->status, "", &norms, err);
    if (r < 0)
        return r;
    if (ha_buffer_append_text(&d->text, "## Gradients before training\n\n") < 0)
        r = out_of_memory(err);
    if (r == 0)
        r = add_table(d, ha_report_norm_blocks(&norms->norms), "probe-blocks.csv", err);
    if (r == 0)
        r = add_table(d, ha_report_norm_layers(&norms->norms), "probe-layers.csv", err);
    if (r == 0 && norms->n_choices > 0)
        r = add_table(d, ha_report_choices(&norms->norms, norms->choices, norms->n_choices),
                      "probe-choices.csv", err);
    ha_norms_destroy(norms);
    return r;
}

static int add_provenance(struct document *d, struct ha_error *err)
{
    const struct ha_wire_status_reply *head = d->status->head;
    int r = ha_buffer_append_text(&d->text, "## Provenance\n\n");

    if (r < 0)
        return out_of_memory(err);
    r = add_table(d, provenance_table(d->status), NULL, err);
    if (r == 0 &&
        ha_buffer_printf(&d->text,
                         "Calls with an unknown outcome (possibly paid): %lld. Money spent: "
                         "%.4f.\n\nThe grid as it was submitted:\n\n```toml\n%s\n```\n",
                         (long long)head->possibly_paid, head->spent, head->toml) < 0)
        r = out_of_memory(err);
    return r;
}

/* The complete statistics and the full ranking, as files only. */
static int write_data(struct document *d, struct ha_error *err)
{
    struct ha_table *tables[] = {ha_report_long(d->experiment),
                                 ha_report_ranking(d->experiment, 0)};
    static const char *const names[] = {"statistics.csv", "ranking.csv"};
    int r = 0;

    for (int i = 0; i < 2; i++) {
        struct ha_buffer out;

        ha_buffer_init(&out, 0);
        if (r == 0 && ha_table_csv(tables[i], &out) < 0)
            r = out_of_memory(err);
        if (r == 0)
            r = write_file(d->dir, names[i], &out, err);
        ha_table_destroy(tables[i]);
        ha_buffer_clear(&out);
    }
    return r;
}

int ha_document_write(struct ha_link *link, const char *sweep, const char *judge, const char *dir,
                      struct ha_error *err)
{
    struct document document = {.dir = dir};
    struct ha_gathered *gathered = NULL;
    struct ha_status *status = NULL;
    int r = ha_fetch_status(link, sweep, "", &status, err);

    ha_buffer_init(&document.text, 0);
    if (r == 0)
        r = ha_gather(link, status, judge, &gathered, err);
    if (r == 0)
        r = ha_path_make_dirs(dir, 0777, err);
    if (r < 0)
        goto out;
    document.status = status;
    document.experiment = &gathered->experiment;
    r = add_head(&document, ha_link_version(link));
    if (r < 0)
        r = out_of_memory(err);
    if (r == 0)
        r = add_results(&document, err);
    if (r == 0)
        r = add_probes(&document, link, err);
    if (r == 0)
        r = add_provenance(&document, err);
    if (r == 0)
        r = write_data(&document, err);
    if (r == 0)
        r = write_file(dir, "report.md", &document.text, err);
out:
    ha_buffer_clear(&document.text);
    ha_gathered_destroy(gathered);
    ha_status_destroy(status);
    return r;
}
