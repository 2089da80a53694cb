/* Preference pairs as training sees them, for check_pairs.py:
 *   pair_ids MODEL_DIR FILE SAMPLES SEED MAX_LENGTH
 * A JSON line {"row", "prompt", "chosen", "rejected"} per pair, in the order of the selection, and
 * one of counts in the end. */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "worker/data/pairs.h"
#include "worker/tokenizer/tokenizer.h"

static struct ha_json *ids_json(const int32_t *ids, int64_t n)
{
    struct ha_json *list = ha_json_new_array();

    for (int64_t i = 0; i < n; i++)
        ha_json_append(list, ha_json_new_int(ids[i]));
    return list;
}

static void print_line(struct ha_json *json)
{
    char *line = ha_json_dump(json, HA_JSON_COMPACT);

    puts(line ? line : "out of memory");
    free(line);
    ha_json_destroy(json);
}

static void print_pairs(const struct ha_pair_set *set)
{
    const struct ha_pair_report *report = &set->report;
    struct ha_json *counts = ha_json_new_object();

    for (int64_t i = 0; i < set->n_pairs; i++) {
        struct ha_pair pair = ha_pair_at(set, i);
        struct ha_json *json = ha_json_new_object();

        ha_json_set(json, "row", ha_json_new_int(pair.row));
        ha_json_set(json, "prompt", ids_json(pair.prompt, pair.n_prompt));
        ha_json_set(json, "chosen", ids_json(pair.chosen, pair.n_chosen));
        ha_json_set(json, "rejected", ids_json(pair.rejected, pair.n_rejected));
        print_line(json);
    }
    ha_json_set(counts, "dropped", ha_json_new_int(report->dropped_prompt_too_long));
    ha_json_set(counts, "cut_inside_word", ha_json_new_int(report->cut_inside_word));
    ha_json_set(counts, "border_changed", ha_json_new_int(report->mangled_boundary));
    print_line(counts);
}

int main(int argc, char **argv)
{
    struct ha_pair_options options = {.split = HA_SPLIT_TRL};
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_pair_set *set = NULL;
    struct ha_rows *rows = NULL;
    struct ha_error err = {0};
    const char *paths[1];
    int r;

    if (argc != 6) {
        fputs("usage: pair_ids MODEL_DIR FILE SAMPLES SEED MAX_LENGTH\n", stderr);
        return 2;
    }
    paths[0] = argv[2];
    options.max_length = strtoll(argv[5], NULL, 10);
    r = ha_tokenizer_load(argv[1], &tokenizer, &err);
    if (r == 0)
        r = ha_rows_open(paths, 1, &rows, &err);
    if (r == 0)
        r = ha_pair_set_create(rows, tokenizer, &options, strtoll(argv[3], NULL, 10),
                               strtoull(argv[4], NULL, 10), &set, &err);
    if (r == 0)
        print_pairs(set);
    else
        fprintf(stderr, "pair_ids: %s\n", ha_error_text(&err));
    ha_pair_set_destroy(set);
    ha_rows_close(rows);
    ha_tokenizer_destroy(tokenizer);
    return r < 0;
}
