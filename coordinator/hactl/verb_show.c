#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/norms.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/status_view.h"
#include "coordinator/hactl/verbs.h"

/* The answers of one prompt, side by side for all cells of a model. */
struct showing {
    struct ha_buffer text;
    struct ha_json *rows; /* NULL: print text */
    const struct ha_status *status;
    bool prompt_shown, reasons;
    int64_t answers;
};

/* Which layers of a cell a probe chose, and by which numbers. */
static int put_choice(struct ha_link *link, struct showing *showing,
                      const struct ha_wire_cell_row *cell, struct ha_error *err)
{
    const struct ha_wire_choice *choice = &cell->choice;
    struct ha_norms *norms;
    int r;

    if (choice->count == 0 || showing->rows)
        return 0;
    r = ha_norms_fetch(link, showing->status, cell->name, &norms, err);
    if (r < 0)
        return r;
    r = ha_output_table(ha_report_choices(&norms->norms, norms->choices, norms->n_choices),
                        HA_OUTPUT_PLAIN, err);
    if (r == 0 && norms->norms.n_rows > 0)
        r = ha_output_table(ha_report_norm_layers(&norms->norms), HA_OUTPUT_PLAIN, err);
    if (r == 0)
        puts("");
    ha_norms_destroy(norms);
    return r;
}

/* "train done: job 5 on w1; in one job with a/mid, a/full" for each stage of a cell that a job
 * works on or worked on. */
static int put_jobs(struct ha_link *link, const struct showing *showing,
                    const struct ha_wire_cell_row *cell, struct ha_error *err)
{
    struct ha_status *whole;
    struct ha_buffer out;
    int r = 0;

    if (showing->rows)
        return 0;
    r = ha_fetch_status(link, showing->status->head->sweep.name, cell->name, &whole, err);
    if (r < 0)
        return r;
    ha_buffer_init(&out, 0);
    for (int64_t i = 0; r == 0 && whole->n_cells > 0 && i < whole->cells[0]->n_stages; i++) {
        const struct ha_wire_stage_row *stage = &whole->cells[0]->stages[i];

        if (stage->job == 0)
            continue;
        r = ha_buffer_printf(&out, "%s %s: job %llu%s%s", stage->stage, stage->state,
                             (unsigned long long)stage->job, stage->worker[0] ? " on " : "",
                             stage->worker);
        if (r == 0)
            r = ha_status_put_mates(&out, stage);
        if (r == 0)
            r = ha_buffer_append_text(&out, "\n");
    }
    if (r == 0 && out.size > 0)
        r = ha_buffer_append_text(&out, "\n");
    r = r < 0 ? ha_error_set(err, ENOMEM, "hactl: out of memory") : ha_output_text(&out, err);
    ha_buffer_clear(&out);
    ha_status_destroy(whole);
    return r;
}

static const struct ha_wire_cell_row *cell_of(const struct ha_status *status, uint64_t id)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        if (status->cells[i]->cell == id)
            return status->cells[i];
    return NULL;
}

static int put_scores(struct showing *showing, const struct ha_wire_score_set *set)
{
    int r = ha_buffer_printf(&showing->text, "  [%s", set->judge);

    if (r == 0 && set->sample > 0)
        r = ha_buffer_printf(&showing->text, ", sample %u", set->sample);
    if (r == 0 && strcmp(set->state, "scored") != 0)
        return ha_buffer_printf(&showing->text, "] %s%s%s\n", set->state, set->fault[0] ? ": " : "",
                                set->fault);
    if (r == 0)
        r = ha_buffer_append_text(&showing->text, "]");
    for (int64_t i = 0; r == 0 && i < set->n_scores; i++)
        r = ha_buffer_printf(&showing->text, " %s %u", set->scores[i].dimension,
                             set->scores[i].value);
    if (r == 0)
        r = ha_buffer_append_text(&showing->text, "\n");
    for (int64_t i = 0; r == 0 && showing->reasons && i < set->n_scores; i++)
        r = ha_buffer_printf(&showing->text, "    %s: %s\n", set->scores[i].dimension,
                             set->scores[i].reason);
    return r;
}

static int put_answer(struct showing *showing, const struct ha_wire_answer_row *row,
                      const char *cell)
{
    int r = 0;

    if (!showing->prompt_shown)
        r = ha_buffer_printf(&showing->text, "prompt %lld:%s\n\n", (long long)row->prompt,
                             row->prompt_text);
    showing->prompt_shown = true;
    if (r == 0)
        r = ha_buffer_printf(&showing->text, "== %s (%lld tokens, %s)\n%s\n", cell,
                             (long long)row->tokens, row->finish, row->text);
    for (int64_t i = 0; r == 0 && i < row->n_scores; i++)
        r = put_scores(showing, &row->scores[i]);
    return r < 0 ? r : ha_buffer_append_text(&showing->text, "\n");
}

static struct ha_json *set_json(const struct ha_wire_score_set *set)
{
    struct ha_json *json = ha_json_new_object(), *scores = ha_json_new_object();
    struct ha_json *reasons = ha_json_new_object();
    int r = ha_json_set(json, "scores", scores);

    if (r == 0)
        r = ha_json_set(json, "reasons", reasons);
    for (int64_t i = 0; r == 0 && i < set->n_scores; i++) {
        r = ha_json_set(scores, set->scores[i].dimension, ha_json_new_int(set->scores[i].value));
        if (r == 0)
            r = ha_json_set(reasons, set->scores[i].dimension,
                            ha_json_new_string(set->scores[i].reason));
    }
    if (r < 0 || ha_json_set(json, "judge", ha_json_new_string(set->judge)) < 0 ||
        ha_json_set(json, "sample", ha_json_new_int(set->sample)) < 0 ||
        ha_json_set(json, "state", ha_json_new_string(set->state)) < 0 ||
        ha_json_set(json, "fault", ha_json_new_string(set->fault)) < 0 ||
        ha_json_set(json, "flagged", ha_json_new_bool(set->flagged)) < 0 ||
        ha_json_set(json, "identity", ha_json_new_string(set->identity)) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int append_answer(struct ha_json *rows, const struct ha_wire_answer_row *row,
                         const char *cell)
{
    struct ha_json *json = ha_json_new_object(), *sets = ha_json_new_array();
    int r = ha_json_append(rows, json);

    if (r == 0)
        r = ha_json_set(json, "judged", sets);
    for (int64_t i = 0; r == 0 && i < row->n_scores; i++)
        r = ha_json_append(sets, set_json(&row->scores[i]));
    if (r < 0 || ha_json_set(json, "cell", ha_json_new_string(cell)) < 0 ||
        ha_json_set(json, "prompt", ha_json_new_int(row->prompt)) < 0 ||
        ha_json_set(json, "sample", ha_json_new_int(row->sample)) < 0 ||
        ha_json_set(json, "prompt_text", ha_json_new_string(row->prompt_text)) < 0 ||
        ha_json_set(json, "text", ha_json_new_string(row->text)) < 0 ||
        ha_json_set(json, "finish", ha_json_new_string(row->finish)) < 0 ||
        ha_json_set(json, "tokens", ha_json_new_int(row->tokens)) < 0)
        return -ENOMEM;
    return 0;
}

static int take(void *context, const struct ha_wire_answer_row *row, struct ha_error *err)
{
    struct showing *showing = context;
    const struct ha_wire_cell_row *cell = cell_of(showing->status, row->cell);
    const char *name = cell ? cell->name : "a cell that is gone";
    int r;

    showing->answers++;
    if (showing->rows)
        r = append_answer(showing->rows, row, name);
    else
        r = put_answer(showing, row, name);
    return r < 0 ? ha_error_set(err, ENOMEM, "hactl: out of memory") : 0;
}

/* Shows what the cells of the named cell's model answered to the prompt. */
static int show_model(struct ha_link *link, struct showing *showing, const char *cell,
                      int64_t prompt, bool alone, struct ha_error *err)
{
    const struct ha_wire_cell_row *wanted = NULL;
    int r = 0;

    for (int64_t i = 0; i < showing->status->n_cells && !wanted; i++)
        if (strcmp(showing->status->cells[i]->name, cell) == 0 ||
            (strtoull(cell, NULL, 10) == showing->status->cells[i]->cell &&
             cell[strspn(cell, "0123456789")] == '\0'))
            wanted = showing->status->cells[i];
    if (!wanted)
        return ha_error_set(err, EINVAL, "sweep %s has no cell '%s'; see hactl status",
                            showing->status->head->sweep.name, cell);
    r = put_choice(link, showing, wanted, err);
    if (r == 0)
        r = put_jobs(link, showing, wanted, err);
    for (int64_t i = 0; r == 0 && i < showing->status->n_cells; i++) {
        const struct ha_wire_cell_row *row = showing->status->cells[i];
        struct ha_wire_answers_request request = {.sweep = showing->status->head->sweep.name,
                                                  .cell = row->name,
                                                  .prompt = prompt,
                                                  .with_text = true,
                                                  .with_reasons = true};

        if (row == wanted || (!alone && strcmp(row->model, wanted->model) == 0))
            r = ha_fetch_answers(link, &request, take, showing, err);
    }
    if (r == 0 && showing->answers == 0)
        r = ha_error_set(err, ENOENT, "%s has no answer to prompt %lld (yet)", cell,
                         (long long)prompt);
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct showing showing = {.reasons = ha_arguments_given(arguments, "reasons")};
    struct ha_session *session;
    struct ha_status *status;
    int64_t prompt;
    int r = ha_arguments_int(arguments, "prompt", 0, 0, &prompt, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    ha_buffer_init(&showing.text, 0);
    r = ha_fetch_status(ha_session_link(session), ha_arguments_value(arguments, "sweep", ""), "",
                        &status, err);
    if (r == 0) {
        showing.status = status;
        if (ha_arguments_given(arguments, "json"))
            showing.rows = ha_json_new_array();
        r = show_model(ha_session_link(session), &showing, ha_arguments_at(arguments, 0, ""),
                       prompt, ha_arguments_given(arguments, "alone"), err);
        if (r == 0)
            r = showing.rows ? ha_output_json(showing.rows, err)
                             : ha_output_text(&showing.text, err);
        else
            ha_json_destroy(showing.rows);
        ha_status_destroy(status);
    }
    ha_buffer_clear(&showing.text);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"prompt", "N", "which held-out prompt, from 0 (default 0)"},
    {"alone", NULL, "this cell only, not the other cells of its model"},
    {"reasons", NULL, "the judge's reason for every score"},
    {"sweep", "SWEEP", "the sweep, when there are several"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_show = {
    .name = "show",
    .command =
        {
            .name = "hactl show",
            .synopsis = "CELL",
            .summary = "a prompt, the answers of the model's cells side by side, and their scores; "
                       "its jobs and their other cells; why a probe chose its layers",
            .example = "hactl show qwen3-demo/mid --prompt 3 --reasons",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
