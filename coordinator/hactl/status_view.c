#include "coordinator/hactl/status_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/norms.h"
#include "coordinator/hactl/progress.h"

enum { BAR = 12, REASONS = 12, JOBS = 16, STAGE_TEXT_BYTES = 160 };

struct ha_view_style ha_view_style_detect(void)
{
    struct winsize size = {0};
    bool terminal = isatty(STDOUT_FILENO);
    const char *no_colour = getenv("NO_COLOR");

    if (terminal)
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    return (struct ha_view_style){.colour = terminal && !(no_colour && no_colour[0]),
                                  .width = size.ws_col};
}

static const char *colour_of(const struct ha_wire_stage_row *stage)
{
    if (ha_stage_complete(stage))
        return "\033[32m";
    if (strcmp(stage->state, "failed") == 0 || strcmp(stage->state, "cancelled") == 0)
        return "\033[31m";
    return strcmp(stage->state, "running") == 0 ? "\033[33m" : "\033[2m";
}

/* "[######......] 120/240"; what is final says its state instead of counts. */
static void stage_text(const struct ha_wire_stage_row *stage, char text[STAGE_TEXT_BYTES])
{
    char bar[BAR + 1];
    int full = (int)(ha_stage_fraction(stage) * BAR + 0.5);

    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    if (strcmp(stage->state, "running") == 0 || strcmp(stage->state, "leased") == 0)
        (void)snprintf(text, STAGE_TEXT_BYTES, "[%s] %lld/%lld", bar, (long long)stage->done,
                       (long long)stage->total);
    else
        (void)snprintf(text, STAGE_TEXT_BYTES, "[%s] %s", bar, stage->state);
}

static int put_stage(struct ha_buffer *out, const struct ha_wire_stage_row *stage,
                     const struct ha_view_style *style, bool last)
{
    char text[STAGE_TEXT_BYTES];
    int pad;

    stage_text(stage, text);
    pad = last ? 0 : 28 - (int)strlen(text);
    return ha_buffer_printf(out, "%s%s%s%*s", style->colour ? colour_of(stage) : "", text,
                            style->colour ? "\033[0m" : "", pad > 0 ? pad : 1, "");
}

/* "paused: REASON", where there is one. */
static int put_state(struct ha_buffer *out, const struct ha_wire_sweep_row *sweep)
{
    if (!sweep->reason || !sweep->reason[0])
        return 0;
    return ha_buffer_append_text(out, sweep->state) < 0 || ha_buffer_append_text(out, ": ") < 0 ||
                   ha_buffer_append_text(out, sweep->reason) < 0
               ? -ENOMEM
               : ha_buffer_append_text(out, "\n");
}

static int put_head(struct ha_buffer *out, const struct ha_status *status)
{
    const struct ha_wire_status_reply *head = status->head;
    struct ha_progress p = ha_progress_of(status);
    char eta[HA_DURATION_BYTES];
    bool timed = p.final < p.stages && p.remaining_ms >= 0;
    int r;

    r = ha_buffer_printf(out, "%s: %s, %lld cells, %lld of %lld stages done (%.0f %%)%s%s%s\n",
                         head->sweep.name, head->sweep.state, (long long)status->n_cells,
                         (long long)p.complete, (long long)p.stages, 100 * p.fraction,
                         !timed       ? ""
                         : p.at_least ? ", at least "
                                      : ", ",
                         timed ? ha_duration_text(p.remaining_ms, eta) : "", timed ? " to go" : "");
    if (r == 0)
        r = put_state(out, &head->sweep);
    if (r == 0)
        r = ha_buffer_printf(out,
                             "answers %lld/%lld, scored %lld/%lld; %lld workers, %lld judge "
                             "workers connected\n",
                             (long long)p.answers, (long long)p.answers_total, (long long)p.scores,
                             (long long)p.scores_total, (long long)head->workers,
                             (long long)head->judges);
    if (r == 0 && (head->spent > 0 || head->reserved > 0 || head->budget > 0))
        r = ha_buffer_printf(out, "money: %.4f spent, %.4f reserved", head->spent, head->reserved);
    if (r == 0 && head->budget > 0)
        r = ha_buffer_printf(out, " of %.4f", head->budget);
    if (r == 0 && (head->spent > 0 || head->reserved > 0 || head->budget > 0))
        r = ha_buffer_append_text(out, "\n");
    if (r == 0 && head->possibly_paid > 0)
        r = ha_buffer_printf(out, "%lld calls have an unknown outcome (possibly paid)\n",
                             (long long)head->possibly_paid);
    if (r == 0 && head->judge_label[0])
        r = ha_buffer_printf(out, "%s\n", head->judge_label);
    return r;
}

static const struct ha_wire_stage_row *find_stage(const struct ha_wire_cell_row *cell,
                                                  const char *name)
{
    for (int64_t k = 0; k < cell->n_stages; k++)
        if (strcmp(cell->stages[k].stage, name) == 0)
            return &cell->stages[k];
    return NULL;
}

/* A column for each stage; what a cell has not is left empty. */
static int put_stages(struct ha_buffer *out, const struct ha_wire_cell_row *cell, bool probes,
                      const struct ha_view_style *style)
{
    int r = 0;

    if (probes && !find_stage(cell, "probe"))
        r = ha_buffer_printf(out, "%-28s", "-");
    for (int64_t k = 0; r == 0 && k < cell->n_stages; k++) {
        if (strcmp(cell->stages[k].stage, "generate") == 0 && !find_stage(cell, "train"))
            r = ha_buffer_printf(out, "%-28s", "-");
        if (r == 0)
            r = put_stage(out, &cell->stages[k], style, k + 1 == cell->n_stages);
    }
    return r;
}

static int put_cells(struct ha_buffer *out, const struct ha_status *status,
                     const struct ha_view_style *style)
{
    bool probes = ha_norms_has_probe(status);
    int width = 8, r = 0;

    for (int64_t i = 0; i < status->n_cells; i++)
        if ((int)strlen(status->cells[i]->name) > width)
            width = (int)strlen(status->cells[i]->name);
    for (int64_t i = 0; r == 0 && i < status->n_cells; i++) {
        const struct ha_wire_cell_row *cell = status->cells[i];

        r = ha_buffer_printf(out, "%-*s  ", width, cell->name);
        if (r == 0)
            r = put_stages(out, cell, probes, style);
        if (r == 0)
            r = ha_buffer_append_text(out, cell->in_grid ? "\n" : "  (no longer in the grid)\n");
    }
    return r;
}

static bool is_running_job(const struct ha_wire_stage_row *stage)
{
    return stage->job != 0 && strcmp(stage->state, "running") == 0;
}

/* Has an earlier cell of the job a line already? */
static bool is_first(const struct ha_status *status, int64_t cell, uint64_t job)
{
    for (int64_t i = 0; i < cell; i++)
        for (int64_t k = 0; k < status->cells[i]->n_stages; k++)
            if (status->cells[i]->stages[k].job == job &&
                is_running_job(&status->cells[i]->stages[k]))
                return false;
    return true;
}

/* "job 5 on w1: train a/local, a/mid (step), 1830 tokens/s, 42 % of the peak, …" */
static int put_job(struct ha_buffer *out, const struct ha_status *status,
                   const struct ha_wire_cell_row *cell, const struct ha_wire_stage_row *stage)
{
    int64_t remaining_ms = ha_stage_remaining_ms(stage, status->head->now_ms);
    char text[HA_DURATION_BYTES];
    int r = ha_buffer_printf(out, "job %llu on %s: %s %s", (unsigned long long)stage->job,
                             stage->worker, stage->stage, cell->name);

    for (int64_t k = 0; r == 0 && k < stage->n_mates; k++)
        r = ha_buffer_printf(out, ", %s", stage->mates[k]);
    if (r == 0 && stage->reason[0])
        r = ha_buffer_printf(out, " (%s)", stage->reason);
    if (r == 0 && stage->tokens_per_second > 0)
        r = ha_buffer_printf(out, ", %.0f tokens/s", stage->tokens_per_second);
    if (r == 0 && stage->utilisation > 0)
        r = ha_buffer_printf(out, ", %.0f %% of the peak", 100 * stage->utilisation);
    if (r == 0 && remaining_ms >= 0)
        r = ha_buffer_printf(out, ", %s to go", ha_duration_text(remaining_ms, text));
    return r < 0 ? r : ha_buffer_append_text(out, "\n");
}

static int put_jobs(struct ha_buffer *out, const struct ha_status *status)
{
    int64_t shown = 0, more = 0;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < status->n_cells; i++) {
        for (int64_t k = 0; r == 0 && k < status->cells[i]->n_stages; k++) {
            const struct ha_wire_stage_row *stage = &status->cells[i]->stages[k];

            if (!is_running_job(stage) || !is_first(status, i, stage->job))
                continue;
            if (shown == JOBS)
                more++;
            else
                r = put_job(out, status, status->cells[i], stage);
            shown += shown < JOBS;
        }
    }
    if (r == 0 && more > 0)
        r = ha_buffer_printf(out, "and %lld more jobs; see --json\n", (long long)more);
    return r;
}

/* A judge stage with a reason stands still though some of its items are leased. */
static bool stands_still(const struct ha_wire_stage_row *stage)
{
    if (ha_stage_complete(stage) || strcmp(stage->state, "waiting") == 0)
        return false;
    return strcmp(stage->state, "running") != 0 || strncmp(stage->stage, "judge:", 6) == 0;
}

/* The reasons of stages that neither run nor wait for their own earlier stage. */
static int put_reasons(struct ha_buffer *out, const struct ha_status *status)
{
    int64_t shown = 0, more = 0;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < status->n_cells; i++) {
        for (int64_t k = 0; r == 0 && k < status->cells[i]->n_stages; k++) {
            const struct ha_wire_stage_row *stage = &status->cells[i]->stages[k];

            if (!stage->reason[0] || !stands_still(stage))
                continue;
            if (shown == REASONS) {
                more++;
                continue;
            }
            shown++;
            r = ha_buffer_printf(out, "%s %s %s: %s\n", status->cells[i]->name, stage->stage,
                                 stage->state, stage->reason);
        }
    }
    if (r == 0 && more > 0)
        r = ha_buffer_printf(out, "and %lld more; see hactl why or --json\n", (long long)more);
    return r;
}

int ha_status_view(const struct ha_status *status, const struct ha_view_style *style,
                   struct ha_buffer *out)
{
    int r = put_head(out, status);

    if (r == 0 && !style->summary)
        r = put_cells(out, status, style);
    if (r == 0)
        r = put_jobs(out, status);
    if (r == 0)
        r = put_reasons(out, status);
    return r;
}

int ha_status_put_mates(struct ha_buffer *out, const struct ha_wire_stage_row *stage)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < stage->n_mates; i++)
        r = ha_buffer_printf(out, "%s%s", i == 0 ? "; in one job with " : ", ", stage->mates[i]);
    return r;
}
