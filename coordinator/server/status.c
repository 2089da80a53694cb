/* status.c - StatusRequest: cells, stages, and why each stands where it stands */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/rows.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/job.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/sweep.h"

enum {
    PAGE_CELLS = 512, /* as far as a slice's time goes */
    BATCH_CELLS = 64, /* that are read together; the time is looked at between them */
    MATES = 64
};

struct page {
    struct ha_request *q;
    struct ha_arena *arena;
    struct ha_wire_status_reply *reply;
    struct ha_plan_snapshot workers;
    int64_t judges; /* alive */
    int64_t limit;
    struct ha_fit fit; /* what the sweep's attempts need */
    bool expanding;
    bool fuses;              /* its cells may share jobs */
    const char *grows_key;   /* the fuse_key that was looked for last, NULL: none was, */
    bool grows;              /* and whether cells with it wait for their training */
    enum ha_why category;    /* of the reason that was written last */
    bool one;                /* asked for a single cell */
    bool ended;              /* the stage that is being written is final */
    bool holds;              /* somebody holds a part of the sweep */
    const char *held;        /* of the cell that is being written: by whom; NULL: by nobody */
    struct ha_plan_job said; /* the last job whose reason was worked out, */
    enum ha_why said_category;
    const char *said_text;         /* and the reason; NULL: none was */
    int64_t from;                  /* the first cell of the batch */
    struct ha_wire_cell_row *cell; /* that is being written; NULL: none is yet */
};

/* ---- one stage ------------------------------------------------------------------------- */

static int add_product(void *context, const struct ha_product *product)
{
    struct page *p = context;
    struct ha_wire_stage_row *stage = &p->cell->stages[p->cell->n_stages - 1];
    struct ha_wire_attempt_artifact *place =
        ha_scratch_grow(p->arena, &stage->artifacts, &stage->n_artifacts, sizeof *place);

    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_attempt_artifact){
        .cell = p->cell->cell,
        .kind = ha_scratch_text(p->arena, product->kind),
        .name = ha_scratch_text(p->arena, product->name),
        .sha256 = ha_scratch_text(p->arena, product->sha256),
        .size = product->size,
        .step = product->step,
    };
    return place->kind && place->name && place->sha256 ? 0 : -ENOMEM;
}

/* The stage that makes the answers of the cell that is being written: it comes before the judges'.
 */
static const struct ha_wire_stage_row *answers_of(const struct page *p)
{
    for (int64_t i = 0; i < p->cell->n_stages; i++)
        if (p->cell->stages[i].stage == ha_stage_kind_name(HA_STAGE_GENERATE))
            return &p->cell->stages[i];
    return NULL;
}

static bool is_final(const struct ha_wire_stage_row *stage)
{
    enum ha_stage_state state;

    return stage && ha_stage_state_parse(stage->state, &state) && ha_stage_final(state);
}

static int why_judge(struct page *p, const struct ha_stage_row *row, struct ha_buffer *text)
{
    const struct ha_wire_stage_row *answers = answers_of(p);
    int64_t open = row->total - row->done - row->failed;
    struct ha_plan_judging judging = {
        .total = row->total,
        .scored = row->done,
        .failed = row->failed,
        .blocked = open - row->ready - row->leased,
        .ready = row->ready,
        .leased = row->leased,
        .answers_complete = is_final(answers),
        .answers_why = answers ? answers->reason : "",
        .judges = p->judges,
        .stop = row->judge_stop,
        .trouble = row->judge_trouble,
        .held = p->held,
    };

    return ha_plan_why_judging(&judging, text, &p->category);
}

/* Do they stand where they stand for the same reason?  Cells mostly do as the one before. */
static bool same_reason(const struct ha_plan_job *a, const struct ha_plan_job *b)
{
    return a->state == HA_JOB_READY && b->state == HA_JOB_READY && a->kind == b->kind &&
           a->expanding == b->expanding && a->held == b->held && a->grows == b->grows &&
           a->not_before_ms == 0 && b->not_before_ms == 0;
}

/* Do cells that could share the stage's job wait for their training?  Neighbours mostly have the
 * same key. */
static bool grows(struct page *p, const struct ha_stage_row *row)
{
    if (!p->fuses || !row->fuse_key[0])
        return false;
    if (!p->grows_key || strcmp(p->grows_key, row->fuse_key) != 0) {
        p->grows_key = ha_scratch_text(p->arena, row->fuse_key);
        p->grows = ha_store_stage_grows(p->q->c->store, row->sweep, row->fuse_key, NULL) == 1;
    }
    return p->grows;
}

/* The stage's reason in words, from the function that plans. */
static const char *why(struct page *p, const struct ha_stage_row *row)
{
    struct ha_plan_job job = {
        .id = row->job,
        .state = row->job_state,
        .kind = row->kind,
        .fit = &p->fit,
        .expanding = p->expanding,
        .not_before_ms = row->not_before_ms,
        .held = p->held,
        .stopping = row->stop_reason,
        .gathers = ha_gang_gathers(p->q->c, p->arena, row->job),
        .grows = grows(p, row),
        .reason = row->reason,
        .waits_for = row->kind == HA_STAGE_TRAIN      ? "the probe"
                     : row->kind == HA_STAGE_GENERATE ? "training"
                                                      : NULL,
    };
    struct ha_buffer text;
    const char *copy;
    int r = 0;

    p->category = HA_WHY_NONE;
    if (ha_stage_final(row->state))
        return ha_scratch_text(p->arena, row->reason);
    /* The plan looks at every worker, so that it is not asked the same again. */
    if (row->job != 0 && p->said_text && same_reason(&p->said, &job)) {
        p->category = p->said_category;
        return p->said_text;
    }
    ha_buffer_init(&text, 0);
    if (row->kind == HA_STAGE_JUDGE)
        r = why_judge(p, row, &text);
    else if (row->job != 0)
        r = ha_plan_why(&p->workers, &job, p->q->c->wall_ms, &text, &p->category);
    copy = r < 0 ? NULL : ha_scratch_text(p->arena, ha_buffer_text(&text));
    ha_buffer_clear(&text);
    if (copy && row->job != 0) {
        p->said = job;
        p->said_category = p->category;
        p->said_text = copy;
    }
    return copy;
}

/* The other cells that its job works on, by name; of a single cell that was asked for, those that
 * its job worked on. */
static int add_mate(void *context, const struct ha_job_cell_row *row)
{
    struct page *p = context;
    struct ha_wire_stage_row *stage = &p->cell->stages[p->cell->n_stages - 1];
    const char **place;

    if (row->cell == (int64_t)p->cell->cell || (!p->ended && strcmp(row->outcome, "pending") != 0))
        return 0;
    if (stage->n_mates == MATES)
        return 1;
    place = ha_scratch_grow(p->arena, &stage->mates, &stage->n_mates, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = ha_scratch_text(p->arena, row->name);
    return *place ? 0 : -ENOMEM;
}

static int add_mates(struct page *p, const struct ha_stage_row *row)
{
    int r;

    p->ended = ha_stage_final(row->state);
    /* A job is of one cell until it is leased. */
    if (row->job == 0 || row->attempts == 0 || (p->ended && !p->one))
        return 0;
    r = ha_store_job_has_mates(p->q->c->store, row->job, NULL);
    return r <= 0 ? r : ha_store_job_cell_each(p->q->c->store, row->job, add_mate, p, NULL);
}

/* The phase that counts the units of a stage's own total; "" for those that
 * report what they did. */
static const char *counting_phase(enum ha_stage_kind kind)
{
    return kind == HA_STAGE_PROBE ? "probe" : kind == HA_STAGE_TRAIN ? "step" : "";
}

static void add_progress(struct page *p, const struct ha_stage_row *row,
                         struct ha_wire_stage_row *stage)
{
    const struct ha_progress *progress = row->state == HA_STAGE_RUNNING && row->job != 0
                                             ? ha_member_progress(p->q->c, row->job)
                                             : NULL;

    if (!progress)
        return;
    stage->tokens_per_second = progress->tokens_per_second;
    stage->utilisation = progress->utilisation;
    if (strcmp(progress->phase, counting_phase(row->kind)) == 0) {
        stage->done = progress->step > stage->done ? progress->step : stage->done;
        stage->total = progress->steps > stage->total ? progress->steps : stage->total;
    }
    if (!stage->reason[0])
        stage->reason = progress->phase;
}

static const char *stage_name(struct page *p, const struct ha_stage_row *row)
{
    return row->kind == HA_STAGE_JUDGE ? ha_scratch_format(p->arena, "judge:%s", row->judge_name)
                                       : ha_stage_kind_name(row->kind);
}

static int add_stage(void *context, const struct ha_stage_row *row)
{
    struct page *p = context;
    struct ha_wire_stage_row *stage =
        ha_scratch_grow(p->arena, &p->cell->stages, &p->cell->n_stages, sizeof *stage);
    const struct ha_wire_stage_row *answers;

    if (!stage)
        return -ENOMEM;
    *stage = (struct ha_wire_stage_row){
        .stage = stage_name(p, row),
        .state = ha_stage_state_name(row->state),
        .reason = why(p, row),
        .done = row->done,
        .total = row->total,
        .failed = row->failed,
        .attempts = (uint32_t)row->attempts,
        .worker = ha_scratch_text(p->arena, row->worker),
        .job = (uint64_t)row->job,
        .started_ms = row->started_ms,
        .finished_ms = row->finished_ms,
        .summary_json = ha_scratch_text(p->arena, row->summary),
    };
    if (!stage->stage || !stage->reason || !stage->worker || !stage->summary_json)
        return -ENOMEM;
    stage->category = ha_why_name(p->category);
    stage->mend = ha_why_mend(p->category);
    add_progress(p, row, stage);
    if (add_mates(p, row) < 0)
        return -ENOMEM;
    answers = row->kind == HA_STAGE_JUDGE ? answers_of(p) : NULL;
    if (answers && !is_final(answers) && stage->total < answers->total * row->judge_samples)
        stage->total = answers->total * row->judge_samples;
    return 0;
}

/* ---- one cell -------------------------------------------------------------------------- */

static int add_cell(void *context, const struct ha_cell_row *row)
{
    struct page *p = context;
    struct ha_wire_cell_row *cell;

    if (p->reply->n_cells >= p->limit) {
        p->reply->more = true;
        return 1;
    }
    cell = ha_scratch_grow(p->arena, &p->reply->cells, &p->reply->n_cells, sizeof *cell);
    if (!cell)
        return -ENOMEM;
    *cell = (struct ha_wire_cell_row){
        .cell = (uint64_t)row->id,
        .model = ha_scratch_text(p->arena, row->model_name),
        .strategy = ha_scratch_text(p->arena, row->strategy),
        .name = ha_scratch_text(p->arena, row->name),
        .layers = ha_scratch_text(p->arena, row->chosen[0] ? row->chosen : row->layers),
        .settings_json = p->one ? ha_scratch_text(p->arena, row->settings) : "",
        .in_grid = row->live,
        .choice = {.count = row->auto_layers,
                   .measure = ha_scratch_text(p->arena, row->measure),
                   .layers = ha_scratch_text(p->arena, row->chosen),
                   .share = row->share,
                   .probe = (uint64_t)row->probe},
    };
    return cell->model && cell->strategy && cell->name && cell->layers && cell->settings_json &&
                   cell->choice.measure && cell->choice.layers
               ? 0
               : -ENOMEM;
}

static int add_products(struct page *p, const struct ha_stage_row *row, struct ha_error *err)
{
    int r = ha_store_product_each(p->q->c->store, row->result, NULL, add_product, p, err);

    if (r == 0 && row->job != 0)
        r = ha_store_product_each_of_job(p->q->c->store, row->job, add_product, p, err);
    return r;
}

static int add_stage_whole(void *context, const struct ha_stage_row *row)
{
    int r = add_stage(context, row);

    return r < 0 ? r : add_products(context, row, NULL);
}

static int read_hold(void *context, const struct ha_hold *hold)
{
    struct page *p = context;

    p->held = ha_server_holder(p->arena, hold);
    return p->held ? 1 : -ENOMEM;
}

/* The cell that the stage is of, which is mostly that of the one before it, or the next. */
static int find_cell(struct page *p, const struct ha_stage_row *row)
{
    const struct ha_wire_status_reply *reply = p->reply;
    int64_t at = p->cell ? p->cell - reply->cells : p->from;

    while (at < reply->n_cells && (int64_t)reply->cells[at].cell < row->cell)
        at++;
    if (at == reply->n_cells || (int64_t)reply->cells[at].cell != row->cell)
        for (at = p->from; at < reply->n_cells && (int64_t)reply->cells[at].cell != row->cell;)
            at++;
    if (at == reply->n_cells)
        return -ENOENT;
    if (p->cell == &reply->cells[at])
        return 0;
    p->cell = &p->reply->cells[at];
    p->held = NULL;
    return p->holds ? ha_store_hold_of_cell(p->q->c->store, row->cell, read_hold, p, NULL) : 0;
}

static int place_stage(void *context, const struct ha_stage_row *row)
{
    struct page *p = context;
    int r = find_cell(p, row);

    if (r < 0)
        return r;
    return p->one ? add_stage_whole(p, row) : add_stage(p, row);
}

static int rank_of(const struct ha_wire_stage_row *stage)
{
    static const enum ha_stage_kind order[] = {HA_STAGE_PROBE, HA_STAGE_TRAIN, HA_STAGE_GENERATE};
    int rank = 0;

    while (rank < 3 && stage->stage != ha_stage_kind_name(order[rank]))
        rank++;
    return rank;
}

/* The few stages before the judges' in the order in which they are worked on. */
static void order_stages(struct ha_wire_cell_row *cell)
{
    for (int64_t i = 1; i < cell->n_stages && rank_of(&cell->stages[i]) < 3; i++) {
        struct ha_wire_stage_row stage = cell->stages[i];
        int64_t at = i;

        for (; at > 0 && rank_of(&cell->stages[at - 1]) > rank_of(&stage); at--)
            cell->stages[at] = cell->stages[at - 1];
        cell->stages[at] = stage;
    }
}

/* The stages of the cells from an index on. */
static int add_stages(struct page *p, int64_t sweep, int64_t from, struct ha_error *err)
{
    struct ha_wire_cell_row *cells = p->reply->cells;
    int64_t count = p->reply->n_cells;
    int r;

    p->from = from;
    p->cell = NULL;
    r = ha_store_stage_each_of_cells(p->q->c->store, sweep, (int64_t)cells[from].cell,
                                     (int64_t)cells[count - 1].cell, place_stage, p, err);
    for (int64_t i = from; i < count; i++)
        order_stages(&cells[i]);
    return r;
}

/* What a slice's time is not enough for comes with the next page. */
static int add_cells(struct page *p, int64_t sweep, int64_t after, struct ha_error *err)
{
    int64_t end_ns = ha_clock_work_ns() + p->q->c->options.slice_us * 1000, most = p->limit;
    int r = 0;

    do {
        int64_t from = p->reply->n_cells;

        p->limit = from + BATCH_CELLS < most ? from + BATCH_CELLS : most;
        p->reply->more = false;
        r = ha_store_cell_each(p->q->c->store, sweep, after, p->limit - from + 1, add_cell, p, err);
        if (r < 0 || p->reply->n_cells == from)
            return r;
        after = (int64_t)p->reply->cells[p->reply->n_cells - 1].cell;
        r = add_stages(p, sweep, from, err);
    } while (r == 0 && p->reply->more && p->limit < most && ha_clock_work_ns() < end_ns);
    return r;
}

static int add_one(struct page *p, int64_t sweep, int64_t cell, struct ha_error *err)
{
    int r = ha_store_cell_get(p->q->c->store, cell, add_cell, p, err);

    return r <= 0 ? r : add_stages(p, sweep, 0, err);
}

/* ---- the sweep ------------------------------------------------------------------------- */

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct page *p = context;
    bool first = p->q->message->body.status_request.after_cell == 0;

    p->fit = row->need;
    p->fit.labels = ha_scratch_text(p->arena, row->need.labels);
    p->fuses = row->fuse != HA_FUSE_NEVER;
    p->expanding = row->expanding && p->fuses;
    p->reply->judge_label = ha_scratch_text(p->arena, row->judge_label);
    p->reply->toml = first ? ha_scratch_text(p->arena, row->toml) : "";
    if (!p->fit.labels || !p->reply->judge_label || !p->reply->toml)
        return -ENOMEM;
    return ha_row_sweep(p->arena, row, &p->reply->sweep);
}

static int read_model(void *context, const struct ha_model_row *row)
{
    struct page *p = context;
    struct ha_wire_submit_model *place =
        ha_scratch_grow(p->arena, &p->reply->models, &p->reply->n_models, sizeof *place);

    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_submit_model){
        .name = ha_scratch_text(p->arena, row->name),
        .path = ha_scratch_text(p->arena, row->path),
        .digest = ha_scratch_text(p->arena, row->digest),
        .tokenizer_digest = ha_scratch_text(p->arena, row->tokenizer_digest),
        .layers = (uint32_t)row->layers,
        .family = ha_scratch_text(p->arena, row->family),
    };
    return place->name && place->path && place->digest && place->tokenizer_digest && place->family
               ? 0
               : -ENOMEM;
}

static void count_members(struct page *p)
{
    for (int64_t i = 0; i < p->q->c->member_count; i++) {
        const struct ha_member *m = p->q->c->members[i];

        if (m->peer == 0 || ha_member_liveness(p->q->c, m) == HA_LOST)
            continue;
        p->reply->workers += !m->judge;
        p->reply->judges += m->judge;
    }
    p->judges = p->reply->judges;
}

static int add_money(struct page *p, int64_t sweep, struct ha_error *err)
{
    struct ha_money money = {0};
    int r = ha_store_sweep_money(p->q->c->store, sweep, &money, err);

    p->reply->spent = money.spent;
    p->reply->reserved = money.reserved;
    p->reply->budget = money.budget;
    p->reply->possibly_paid = money.possibly_paid;
    return r < 0 ? r : 0;
}

static int fill(struct page *p, int64_t sweep, int64_t cell, struct ha_error *err)
{
    const struct ha_wire_status_request *ask = &p->q->message->body.status_request;
    struct ha_store *store = p->q->c->store;
    int r = ha_store_sweep_each(store, sweep, NULL, read_sweep, p, err);

    if (r == 0 && ask->after_cell == 0)
        r = ha_store_model_each(store, sweep, read_model, p, err);
    if (r == 0)
        r = add_money(p, sweep, err);
    if (r == 0)
        r = ha_server_plan_workers(p->q->c, p->arena, true, &p->workers, err);
    if (r == 0)
        r = ha_store_hold_any(store, sweep, err);
    if (r < 0)
        return r;
    p->holds = r > 0;
    count_members(p);
    return cell != 0 ? add_one(p, sweep, cell, err)
                     : add_cells(p, sweep, (int64_t)ask->after_cell, err);
}

int ha_handle_status(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_status_request *ask = &q->message->body.status_request;
    struct page p = {.q = q,
                     .arena = &q->arena,
                     .reply = &q->reply.body.status_reply,
                     .limit = ask->limit == 0 || ask->limit > PAGE_CELLS ? PAGE_CELLS : ask->limit};
    int64_t sweep, cell;
    int r = ha_server_find_sweep(q->c, ask->sweep, &sweep, err);

    if (r == 0)
        r = ha_server_find_cell(q->c, sweep, ask->cell, &cell, err);
    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_STATUS_REPLY;
    p.one = cell != 0;
    p.reply->now_ms = q->c->wall_ms;
    r = fill(&p, sweep, cell, err);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for the reply") : r;
}
