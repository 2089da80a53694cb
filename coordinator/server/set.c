/* set.c - Change "set": settings of a sweep that change no result (inside.h)
 *
 * The grid's text stays, the settings are added to its overrides as --set would
 * have, and the whole is applied as a submit with the same cells is.  A large
 * grid is read over several turns, of which nothing is stored; then all of it is
 * in one, unless the sweep changed meanwhile: then it is read anew, or whoever
 * asked is told what is in the way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/server/submit.h"
#include "coordinator/store/sweep.h"

enum { SETTINGS_LIMIT = 64, SETTINGS_BYTES = 1 << 20 };

/* What may be set; the others change results, cells or names. */
static const struct {
    const char *section;
    const char *keys; /* between spaces */
} settable[] = {
    {"sweep", " priority budget "},
    {"retry", " max_attempts max_failures on_worker_lost "},
    {"resources", " gpus nodes min_gpu_memory cpus host_memory labels time_limit "},
    {"judge", " budget concurrency requests_per_minute tokens_per_minute price_input price_output "
              "max_attempts max_reasks timeout connect_timeout "},
};

/* section[0..length) is a section, key one of its keys that may be set. */
static bool may_set(const char *section, size_t length, const char *key, size_t key_length)
{
    for (size_t i = 0; i < sizeof settable / sizeof *settable; i++) {
        const char *at = settable[i].keys;

        if (strlen(settable[i].section) != length || memcmp(settable[i].section, section, length))
            continue;
        while ((at = strchr(at, ' ')) && at[1]) {
            at++;
            if (strncmp(at, key, key_length) == 0 && at[key_length] == ' ')
                return true;
        }
    }
    return false;
}

struct setting {
    int64_t sweep;
    struct ha_arena arena;
    const char **overrides;
    int64_t count, asked;
    struct ha_grid_work *work;
    char submit_sha256[65]; /* of the grid that work was read from */
    struct ha_waiter waiter;
};

static int add(struct setting *s, const char *text)
{
    const char **place =
        text ? ha_scratch_grow(&s->arena, &s->overrides, &s->count, sizeof *place) : NULL;

    if (!place)
        return -ENOMEM;
    *place = text;
    return 0;
}

/* "concurrency=4" is that of every judge. */
static int add_to_judges(void *context, const struct ha_judge_row *row)
{
    struct setting *s = context;
    const char *setting = s->overrides[s->count - 1];

    if (!row->live)
        return 0;
    s->count--;
    return add(s, ha_scratch_format(&s->arena, "judge.%s.%s", row->name, setting)) < 0 ||
                   add(s, setting) < 0
               ? -ENOMEM
               : 0;
}

/* One "key=value" as an override with its section. */
static int read_one(struct ha_store *store, struct setting *s, const char *text,
                    struct ha_error *err)
{
    const char *equals = strchr(text, '='), *dot = NULL, *first;
    int r;

    for (const char *at = text; equals && at < equals; at++)
        dot = *at == '.' ? at : dot;
    if (!equals || equals == text)
        return ha_error_set(err, EINVAL, "\"%.60s\": write key=value, as priority=3", text);
    if (!dot && may_set("sweep", 5, text, (size_t)(equals - text)))
        return add(s, ha_scratch_format(&s->arena, "sweep.%s", text));
    if (!dot && may_set("judge", 5, text, (size_t)(equals - text))) {
        r = add(s, text);
        if (r == 0)
            r = ha_store_judge_each(store, s->sweep, 0, add_to_judges, s, err);
        s->count--;
        return r;
    }
    first = dot ? strchr(text, '.') : NULL;
    if (!dot || !may_set(text, (size_t)(first - text), dot + 1, (size_t)(equals - dot - 1)))
        return ha_error_set(err, EINVAL,
                            "%.*s cannot be set for a sweep that runs: set can change priority, "
                            "budget, retry.KEY, resources.KEY, and of judges concurrency, budget, "
                            "prices and limits (judge.NAME.KEY); submit changes the others",
                            (int)(equals - text > 60 ? 60 : equals - text), text);
    return add(s, ha_scratch_text(&s->arena, text));
}

static int read_all(struct ha_request *q, struct setting *s, struct ha_error *err)
{
    const struct ha_wire_change *change = &q->message->body.change;
    int r = 0;

    if (change->n_settings == 0 || change->n_settings > SETTINGS_LIMIT)
        return ha_error_set(err, EINVAL, "name 1 to %d settings", SETTINGS_LIMIT);
    for (int64_t i = 0; r == 0 && i < change->n_settings; i++)
        r = read_one(q->c->store, s, change->settings[i], err);
    s->asked = change->n_settings;
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for settings") : r;
}

/* ---- the grid ---------------------------------------------------------------------------- */

struct found {
    enum ha_sweep_state state;
    bool expanding; /* without a chore: it could not be, and is tried again */
    char submit_sha256[65];
};

static int read_found(void *context, const struct ha_sweep_row *row)
{
    struct found *found = context;

    found->state = row->state;
    found->expanding = row->expanding;
    ha_utf8_copy(found->submit_sha256, sizeof found->submit_sha256, row->submit_sha256);
    return 1;
}

static int find(struct ha_coordinator *c, int64_t sweep, struct found *found, struct ha_error *err)
{
    return ha_store_sweep_each(c->store, sweep, NULL, read_found, found, err);
}

/* What keeps the sweep from being set. */
static int check(struct ha_coordinator *c, const struct setting *s, const struct found *found,
                 struct ha_error *err)
{
    if (found->state == HA_SWEEP_CANCELLED)
        return ha_error_set(err, EINVAL, "the sweep is cancelled; submit it again");
    if (ha_chore_of_sweep(c, s->sweep, "comparing the grids") ||
        ha_chore_of_sweep(c, s->sweep, "expanding the grid") ||
        ha_chore_of_sweep(c, s->sweep, "changing the stages"))
        return ha_error_set(err, EBUSY, "the sweep is being changed just now; set it again");
    return 0;
}

/* The grid that the sweep has now, with the settings. */
static int begin(struct ha_coordinator *c, struct setting *s, const struct found *found,
                 struct ha_error *err)
{
    ha_grid_work_destroy(s->work);
    s->work = NULL;
    memcpy(s->submit_sha256, found->submit_sha256, sizeof s->submit_sha256);
    return ha_grid_work_load_begin(c->store, s->sweep, s->overrides, s->count, &s->work, err);
}

static int write_history(struct ha_coordinator *c, const struct ha_by *by, struct setting *s,
                         struct ha_error *err)
{
    const char *subject = ha_scratch_format(&s->arena, "sweep %s", s->work->submit.name);
    int r = subject ? 0 : ha_error_set(err, ENOMEM, "no memory for settings");

    for (int64_t i = 0; r == 0 && i < s->count; i++)
        r = ha_store_event_add(
            c->store, by,
            &(struct ha_event){
                .sweep = s->sweep, .subject = subject, .after = "set", .reason = s->overrides[i]},
            err);
    return r;
}

static int store(struct ha_coordinator *c, const struct ha_by *by, struct setting *s,
                 const struct found *found, struct ha_error *err)
{
    int64_t same;
    int r = write_history(c, by, s, err);

    return r < 0 ? r : ha_submit_apply(c, by, s->sweep, s->work, found->expanding, &same, err);
}

/* ---- over several turns ------------------------------------------------------------------- */

static void destroy(void *state)
{
    struct setting *s = state;

    ha_grid_work_destroy(s->work);
    ha_arena_clear(&s->arena);
    free(s);
}

static int failed(struct ha_coordinator *c, void *state, const struct ha_error *why)
{
    struct setting *s = state;

    return ha_server_hold_error(c, s->waiter.peer, s->waiter.request_id, why);
}

static int answer(struct ha_coordinator *c, const struct setting *s, struct ha_error *err)
{
    struct ha_wire_message reply = {.protocol = HA_WIRE_PROTOCOL,
                                    .kind = HA_WIRE_CHANGE_REPLY,
                                    .body.change_reply = {.changed = s->asked, .text = "set"}};
    int r = ha_server_once_store(c, s->waiter.key, s->waiter.client, s->waiter.hash, &reply, err);

    reply.request_id = s->waiter.request_id;
    return r < 0 ? r : ha_server_hold(c, s->waiter.peer, &reply, err);
}

/* Settings that the grid does not take, or a sweep that is changed, are an answer and no failure
 * of the coordinator; nothing was stored yet. */
static int refuse(struct ha_coordinator *c, struct setting *s, int code, const struct ha_error *why,
                  struct ha_error *err)
{
    if (code != -EINVAL && code != -E2BIG && code != -EBUSY)
        return ha_error_set(err, -code, "%s", ha_error_text(why));
    code = failed(c, s, why);
    return code < 0 ? code : 1;
}

static int step(struct ha_coordinator *c, void *state, struct ha_error *err)
{
    struct setting *s = state;
    struct ha_by by = {.now_ms = c->wall_ms, .actor = s->waiter.client};
    struct ha_error why = {0};
    struct found found = {0};
    int r;

    HA_CRASH_POINT("coordinator.slice_sets");
    r = ha_grid_work_step(s->work, HA_SUBMIT_SLICE_POINTS, &why);
    if (r == 0)
        return 0;
    if (r > 0)
        r = find(c, s->sweep, &found, &why);
    if (r == 0)
        r = check(c, s, &found, &why);
    /* Another set, or a submit, came in between: its settings count as well. */
    if (r == 0 && strcmp(found.submit_sha256, s->submit_sha256) != 0) {
        r = begin(c, s, &found, &why);
        if (r == 0)
            return 0;
    }
    if (r < 0)
        return refuse(c, s, r, &why, err);
    HA_CRASH_POINT("coordinator.last_set");
    r = store(c, &by, s, &found, err);
    if (r == 0)
        r = answer(c, s, err);
    return r < 0 ? r : 1;
}

/* Takes over s. */
static int set_slowly(struct ha_request *q, struct setting *s, struct ha_error *err)
{
    int r;

    ha_server_waiter(q, q->message->body.change.key, &s->waiter);
    r = ha_chore_admit(q->c, &s->waiter, err);
    if (r < 0) {
        destroy(s);
        return r;
    }
    q->deferred = true;
    return ha_chore_add(q->c,
                        &(struct ha_chore){.what = "setting",
                                           .sweep = s->sweep,
                                           .awaited = true,
                                           .waiter = &s->waiter,
                                           .step = step,
                                           .failed = failed,
                                           .destroy = destroy,
                                           .state = s},
                        err);
}

int ha_server_set(struct ha_request *q, int64_t sweep, const char **ret_text, struct ha_error *err)
{
    struct setting *s = ha_calloc(1, sizeof *s);
    struct found found = {0};
    int r;

    if (!s)
        return ha_error_set(err, ENOMEM, "no memory for settings");
    s->sweep = sweep;
    ha_arena_init(&s->arena, SETTINGS_BYTES);
    r = find(q->c, sweep, &found, err);
    if (r == 0)
        r = check(q->c, s, &found, err);
    if (r == 0)
        r = read_all(q, s, err);
    if (r == 0)
        r = begin(q->c, s, &found, err);
    if (r == 0 && s->work->grid->points > HA_SUBMIT_AT_ONCE)
        return set_slowly(q, s, err);
    if (r == 0)
        r = ha_grid_work_step(s->work, INT64_MAX, err);
    if (r >= 0)
        r = store(q->c, &q->by, s, &found, err);
    destroy(s);
    *ret_text = "set";
    return r;
}
