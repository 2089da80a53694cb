#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/part.h"
#include "coordinator/hactl/status_view.h"
#include "coordinator/hactl/verbs.h"

/* Of which stages it is said. */
struct view {
    const char *model, *strategy; /* "" or NULL: all */
    uint64_t job;                 /* 0: all */
};

static bool shows_cell(const struct view *view, const struct ha_wire_cell_row *cell)
{
    return (!view->model || !view->model[0] || strcmp(cell->model, view->model) == 0) &&
           (!view->strategy || !view->strategy[0] || strcmp(cell->strategy, view->strategy) == 0);
}

static bool shows_stage(const struct view *view, const struct ha_wire_stage_row *stage)
{
    return view->job == 0 || stage->job == view->job;
}

static int put_cell(struct ha_buffer *out, const struct view *view,
                    const struct ha_wire_cell_row *cell)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < cell->n_stages; i++) {
        const struct ha_wire_stage_row *stage = &cell->stages[i];

        if (!shows_stage(view, stage))
            continue;
        r = ha_buffer_printf(out, "%s %s: %s%s%s%s%s", cell->name, stage->stage, stage->state,
                             stage->category[0] ? " (" : "", stage->category,
                             stage->category[0] ? ")" : "", stage->reason[0] ? ": " : "");
        r = r < 0 ? r : ha_buffer_append_text(out, stage->reason);
        if (r == 0 && stage->mend[0])
            r = ha_buffer_printf(out, "; %s", stage->mend);
        if (r == 0)
            r = ha_status_put_mates(out, stage);
        if (r == 0)
            r = ha_buffer_append_text(out, "\n");
    }
    return r;
}

static int add_stage(struct ha_json *list, const struct ha_wire_cell_row *cell,
                     const struct ha_wire_stage_row *stage)
{
    struct ha_json *item = ha_json_new_object(), *mates = ha_json_new_array();

    if (ha_json_append(list, item) < 0) {
        ha_json_destroy(mates);
        return -ENOMEM;
    }
    if (ha_json_set(item, "mates", mates) < 0)
        return -ENOMEM;
    for (int64_t i = 0; i < stage->n_mates; i++)
        if (ha_json_append(mates, ha_json_new_string(stage->mates[i])) < 0)
            return -ENOMEM;
    return ha_json_set(item, "cell", ha_json_new_string(cell->name)) < 0 ||
                   ha_json_set(item, "stage", ha_json_new_string(stage->stage)) < 0 ||
                   ha_json_set(item, "job", ha_json_new_int((int64_t)stage->job)) < 0 ||
                   ha_json_set(item, "state", ha_json_new_string(stage->state)) < 0 ||
                   ha_json_set(item, "category", ha_json_new_string(stage->category)) < 0 ||
                   ha_json_set(item, "reason", ha_json_new_string(stage->reason)) < 0 ||
                   ha_json_set(item, "mend", ha_json_new_string(stage->mend)) < 0
               ? -ENOMEM
               : 0;
}

/* NULL: out of memory. */
static struct ha_json *to_json(const struct view *view, const struct ha_status *status)
{
    struct ha_json *list = ha_json_new_array();
    int r = list ? 0 : -ENOMEM;

    for (int64_t i = 0; r == 0 && i < status->n_cells; i++) {
        const struct ha_wire_cell_row *cell = status->cells[i];

        for (int64_t k = 0; r == 0 && k < cell->n_stages && shows_cell(view, cell); k++)
            if (shows_stage(view, &cell->stages[k]))
                r = add_stage(list, cell, &cell->stages[k]);
    }
    if (r < 0) {
        ha_json_destroy(list);
        return NULL;
    }
    return list;
}

static int put_all(struct ha_buffer *out, const struct view *view, const struct ha_status *status)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < status->n_cells; i++)
        if (shows_cell(view, status->cells[i]))
            r = put_cell(out, view, status->cells[i]);
    return r;
}

static int print(const struct ha_arguments *arguments, const struct view *view,
                 const struct ha_status *status, struct ha_error *err)
{
    struct ha_buffer out;
    int r;

    ha_buffer_init(&out, 0);
    r = put_all(&out, view, status);
    if (r < 0)
        r = ha_error_set(err, ENOMEM, "hactl: out of memory");
    else if (out.size == 0 && view->job != 0)
        r = ha_error_set(err, ENOENT, "the sweep shows no job %llu; hactl log --job tells of it",
                         (unsigned long long)view->job);
    else if (out.size == 0 && status->n_cells > 0)
        r = ha_error_set(err, ENOENT, "the sweep has no such cell; hactl status shows all");
    else if (ha_arguments_given(arguments, "json"))
        r = ha_output_json(to_json(view, status), err);
    else
        r = ha_output_text(&out, err);
    ha_buffer_clear(&out);
    return r;
}

/* What is named is a cell of the sweep, or else a part of a sweep. */
static int fetch(struct ha_link *link, const struct ha_arguments *arguments, struct ha_part *part,
                 struct ha_status **ret_status, struct ha_error *err)
{
    const char *name = ha_arguments_at(arguments, 0, "");
    const char *sweep = ha_arguments_value(arguments, "sweep", "");
    struct ha_error why = {0};
    int r = ha_fetch_status(link, sweep, name, ret_status, err);

    if (r != -ENOENT || !name[0] || sweep[0])
        return r;
    if (ha_part_parse(name, part, &why) < 0 ||
        ha_fetch_status(link, part->sweep, "", ret_status, &why) < 0)
        return why.code == ENOENT
                   ? ha_error_set(err, ENOENT,
                                  "there is no cell and no sweep %s; hactl status and hactl list "
                                  "show all",
                                  name)
                   : r;
    return 0;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_status *status = NULL;
    struct ha_session *session;
    struct ha_part part = {0};
    struct view view = {0};
    int64_t job;
    int r = ha_arguments_int(arguments, "job", 1, 0, &job, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    r = fetch(ha_session_link(session), arguments, &part, &status, err);
    if (r == 0) {
        view = (struct view){.model = part.model, .strategy = part.strategy, .job = (uint64_t)job};
        r = print(arguments, &view, status, err);
        ha_status_destroy(status);
    }
    ha_part_clear(&part);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"sweep", "SWEEP", "the sweep, when there are several"},
    {"job", "N", "only the stages that this job works on"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_why = {
    .name = "why",
    .command =
        {
            .name = "hactl why",
            .synopsis = "[CELL | SWEEP[/[MODEL][/STRATEGY]]]",
            .summary =
                "say for each stage of a cell, a job or a part of a sweep why it stands where it "
                "stands, of what kind that is, and what to do",
            .example = "hactl why qwen3-demo/mid",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
