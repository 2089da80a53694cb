#include "worker/attempt/pair_files.h"

#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/conf/json.h"

static void log_report(const char *what, const struct ha_pair_report *report)
{
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    if (ha_pair_report_text(report, &text) == 0) {
        for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            ha_log_info("%s: %s", what, line);
        }
    }
    ha_buffer_clear(&text);
}

static int select_pairs(const struct ha_pair_files *files, const struct ha_rows *rows,
                        struct ha_tokenizer *tokenizer, struct ha_pair_set **ret_set,
                        struct ha_error *err)
{
    const struct ha_run_settings *settings = files->settings;
    struct ha_pair_options options = {
        .max_length = settings->train.max_length, .chat = files->chat, .require_prompt = true};
    int r;

    if (ha_split_parse(settings->data.split, &options.split) < 0)
        return ha_error_set(err, EINVAL, "data.split: '%s' is neither trl nor turn",
                            settings->data.split);
    r = ha_pair_set_create(rows, tokenizer, &options, files->samples, (uint64_t)settings->data.seed,
                           ret_set, err);
    /* Rows are numbered through all files; the first one's name leads to them. */
    return r < 0 ? ha_error_prefix(err, "%s", files->paths[0]) : 0;
}

int ha_pair_files_load(const struct ha_pair_files *files, struct ha_tokenizer *tokenizer,
                       struct ha_pair_set **ret_set, struct ha_error *err)
{
    struct ha_pair_set *set = NULL;
    struct ha_rows *rows;
    int r = ha_rows_open(files->paths, files->n_paths, &rows, err);

    if (r < 0)
        return r;
    if (ha_rows_form(rows) != HA_ROWS_PROMPT)
        r = select_pairs(files, rows, tokenizer, &set, err);
    else if (files->prompts_allowed)
        ha_log_info("%s: %s has prompts alone, nothing to evaluate on", files->what,
                    files->paths[0]);
    else
        r = ha_error_set(err, EINVAL,
                         "%s: its rows are prompts alone; pairs need the keys chosen and rejected",
                         files->paths[0]);
    ha_rows_close(rows);
    if (r < 0)
        return r;
    if (set)
        log_report(files->what, &set->report);
    *ret_set = set;
    return 0;
}

int ha_pair_files_summary(const struct ha_pair_set *set, struct ha_json *summary)
{
    const struct ha_pair_report *report = &set->report;
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"rows", report->total},
        {"rows_selected", report->selected},
        {"rows_dropped", report->dropped_prompt_too_long + report->dropped_empty_text +
                             report->dropped_no_dialogue + report->dropped_by_template},
        {"pairs", report->pairs},
        {"pairs_truncated", report->truncated_chosen + report->truncated_rejected},
        {"pairs_equal", report->equal_texts},
        {"pairs_cut_inside_word", report->cut_inside_word},
        {"pairs_border_changed", report->mangled_boundary},
        {"pairs_prompts_differ", report->prompts_differ},
        {"pairs_empty_reply", report->empty_reply},
    };
    char digest[HA_SHA256_HEX_BYTES];
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(counts) / sizeof(counts[0]); i++)
        r = ha_json_set(summary, counts[i].name, ha_json_new_int(counts[i].value));
    ha_sha256_hex(set->data_digest, digest);
    return r < 0 ? r : ha_json_set(summary, "data_sha256", ha_json_new_string(digest));
}
