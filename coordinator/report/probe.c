#include "coordinator/report/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/report/table.h"

static const char *const modules[] = {"q_proj", "k_proj", "v_proj", "o_proj", "all"};

enum { MODULES = sizeof(modules) / sizeof(modules[0]), ALL = MODULES - 1, DIGITS = 5 };

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* The rows of one probe. */
static struct ha_report_norms rows_of(const struct ha_report_norms *norms, uint64_t probe)
{
    int64_t low = 0, high = norms->n_rows, end;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (norms->rows[middle].probe < probe)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; end < norms->n_rows && norms->rows[end].probe == probe; end++)
        ;
    return (struct ha_report_norms){norms->rows + low, end - low};
}

/* The row of a probe's layer or block, or NULL. */
static const struct ha_report_norm *find(const struct ha_report_norms *norms, uint64_t probe,
                                         const char *block, int64_t layer, const char *module)
{
    struct ha_report_norms own = rows_of(norms, probe);

    for (int64_t i = 0; i < own.n_rows; i++) {
        const struct ha_report_norm *row = &own.rows[i];

        if (row->layer == layer && is(row->block, block) && is(row->module, module))
            return row;
    }
    return NULL;
}

double ha_report_norm_value(const struct ha_report_norm *row, bool per_sqrt_parameters)
{
    return per_sqrt_parameters ? row->norm / sqrt((double)row->parameters) : row->norm;
}

double ha_report_norm_share(const struct ha_report_norms *norms, uint64_t probe, const char *module,
                            int64_t first, int64_t count, bool per_sqrt_parameters)
{
    struct ha_report_norms own = rows_of(norms, probe);
    double part = 0, sum = 0;

    for (int64_t i = 0; i < own.n_rows; i++) {
        const struct ha_report_norm *row = &own.rows[i];
        double value = ha_report_norm_value(row, per_sqrt_parameters);

        if (row->block[0] || !is(row->module, module))
            continue;
        sum += value;
        if (row->layer >= first && row->layer < first + count)
            part += value;
    }
    return part / sum;
}

/* The paper's block that a layer is in. */
static const char *block_of(const struct ha_report_norms *norms, uint64_t probe, int64_t layer)
{
    struct ha_report_norms own = rows_of(norms, probe);

    for (int64_t i = 0; i < own.n_rows; i++) {
        const struct ha_report_norm *row = &own.rows[i];

        if (row->block[0] && !is(row->block, "full") && layer >= row->layer &&
            layer < row->layer + row->layers)
            return row->block;
    }
    return "-";
}

static void value_columns(struct ha_table *table)
{
    for (int i = 0; i < MODULES; i++)
        ha_table_column_number(table, modules[i]);
    ha_table_column_number(table, "Parameters");
    ha_table_column_number(table, "all / sqrt(parameters)");
    ha_table_column_number(table, "Share %");
}

static void put_value(struct ha_table *table, double value)
{
    if (isnan(value))
        ha_table_text(table, "-");
    else
        ha_table_format(table, "%.*g", DIGITS, value);
}

/* The values of the layer or block whose row for all modules this is. */
static void put_values(struct ha_table *table, const struct ha_report_norms *norms,
                       const struct ha_report_norm *all)
{
    for (int i = 0; i < MODULES; i++) {
        const struct ha_report_norm *row =
            find(norms, all->probe, all->block, all->layer, modules[i]);

        put_value(table, row ? row->norm : NAN);
    }
    ha_table_format(table, "%lld", (long long)all->parameters);
    put_value(table, ha_report_norm_value(all, true));
    ha_table_real(
        table,
        100 * ha_report_norm_share(norms, all->probe, modules[ALL], all->layer, all->layers, false),
        2);
}

static void note_meaning(struct ha_table *table, const struct ha_report_norms *norms)
{
    ha_table_note(table,
                  "Before any training: the mean over %lld pairs of the Frobenius norm of the "
                  "gradient of a pair's loss by the frozen weights; all: the four modules "
                  "together.  Share: of the sum of \"all\" over the layers.",
                  (long long)(norms->n_rows > 0 ? norms->rows[0].pairs : 0));
}

struct ha_table *ha_report_norm_layers(const struct ha_report_norms *norms)
{
    struct ha_table *table = ha_table_create("Gradient norm of each layer");

    ha_table_column_text(table, "Model");
    ha_table_column_number(table, "Layer");
    ha_table_column_text(table, "Block");
    value_columns(table);
    for (int64_t i = 0; i < norms->n_rows; i++) {
        const struct ha_report_norm *row = &norms->rows[i];

        if (row->block[0] || !is(row->module, modules[ALL]))
            continue;
        ha_table_text(table, row->name);
        ha_table_format(table, "%lld", (long long)row->layer);
        ha_table_text(table, block_of(norms, row->probe, row->layer));
        put_values(table, norms, row);
    }
    note_meaning(table, norms);
    return table;
}

static void put_range(struct ha_table *table, int64_t first, int64_t count)
{
    if (count == 1)
        ha_table_format(table, "%lld", (long long)first);
    else
        ha_table_format(table, "%lld-%lld", (long long)first, (long long)(first + count - 1));
}

struct ha_table *ha_report_norm_blocks(const struct ha_report_norms *norms)
{
    struct ha_table *table = ha_table_create("Gradient norm of each block");

    ha_table_column_text(table, "Model");
    ha_table_column_text(table, "Block");
    ha_table_column_text(table, "Layers");
    value_columns(table);
    for (int64_t i = 0; i < norms->n_rows; i++) {
        const struct ha_report_norm *row = &norms->rows[i];

        if (!row->block[0] || !is(row->module, modules[ALL]))
            continue;
        ha_table_text(table, row->name);
        ha_table_text(table, row->block);
        put_range(table, row->layer, row->layers);
        put_values(table, norms, row);
    }
    ha_table_note(table, "A block's norm is of the gradients of all its layers together, so it is "
                         "less than the sum of theirs; its share adds up its layers' shares.");
    return table;
}

struct ha_table *ha_report_norm_long(const struct ha_report_norms *norms)
{
    static const char *const numbers[] = {"norm", "per_sqrt_parameters", "share", "parameters",
                                          "pairs"};
    struct ha_table *table = ha_table_create("");

    ha_table_column_text(table, "probe");
    ha_table_column_text(table, "block");
    ha_table_column_number(table, "first");
    ha_table_column_number(table, "layers");
    ha_table_column_text(table, "module");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        ha_table_column_number(table, numbers[i]);
    for (int64_t i = 0; i < norms->n_rows; i++) {
        const struct ha_report_norm *row = &norms->rows[i];

        ha_table_text(table, row->name);
        ha_table_text(table, row->block);
        ha_table_format(table, "%lld", (long long)row->layer);
        ha_table_format(table, "%lld", (long long)row->layers);
        ha_table_text(table, row->module);
        ha_table_format(table, "%.9g", row->norm);
        ha_table_format(table, "%.9g", ha_report_norm_value(row, true));
        ha_table_format(
            table, "%.9g",
            ha_report_norm_share(norms, row->probe, row->module, row->layer, row->layers, false));
        ha_table_format(table, "%lld", (long long)row->parameters);
        ha_table_format(table, "%lld", (long long)row->pairs);
    }
    return table;
}

/* Layers that a probe has. */
static int64_t depth_of(const struct ha_report_norms *norms, uint64_t probe)
{
    struct ha_report_norms own = rows_of(norms, probe);
    int64_t depth = 0;

    for (int64_t i = 0; i < own.n_rows; i++)
        if (own.rows[i].layer + own.rows[i].layers > depth)
            depth = own.rows[i].layer + own.rows[i].layers;
    return depth;
}

struct ha_table *ha_report_choices(const struct ha_report_norms *norms,
                                   const struct ha_report_choice *choices, int64_t n_choices)
{
    struct ha_table *table = ha_table_create("Layers chosen by the probe");

    ha_table_column_text(table, "Cell");
    ha_table_column_text(table, "Rule");
    ha_table_column_text(table, "Measure");
    ha_table_column_text(table, "Layers");
    ha_table_column_number(table, "Share %");
    ha_table_column_number(table, "Of equal shares %");
    for (int64_t i = 0; i < n_choices; i++) {
        const struct ha_report_choice *choice = &choices[i];
        int64_t depth = depth_of(norms, choice->probe);

        ha_table_text(table, choice->cell);
        ha_table_format(table, "auto:%lld", (long long)choice->count);
        ha_table_text(table, choice->measure);
        ha_table_text(table, choice->layers[0] ? choice->layers : "not yet");
        ha_table_real(table, choice->layers[0] ? 100 * choice->share : NAN, 2);
        ha_table_real(table, depth > 0 ? 100.0 * (double)choice->count / (double)depth : NAN, 2);
    }
    ha_table_note(table,
                  "The neighbouring layers with the largest share of the measure; the lowest "
                  "of equal ones.  Of equal shares: what they would have if all layers had "
                  "the same.");
    return table;
}
