/* set.c - Change "set": settings of a sweep that change no result (inside.h)
 *
 * The grid's text stays, the settings are added to its overrides as --set would
 * have, and the whole is applied as a submit with the same cells is. */
#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "common/conf/sweep.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/submit.h"
#include "coordinator/store/sweep.h"

enum { SETTINGS_LIMIT = 64 };

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

struct setter {
    struct ha_request *q;
    const char **overrides;
    int64_t count;
};

static int add(struct setter *s, const char *text)
{
    const char **place =
        text ? ha_scratch_grow(&s->q->arena, &s->overrides, &s->count, sizeof *place) : NULL;

    if (!place)
        return -ENOMEM;
    *place = text;
    return 0;
}

/* "concurrency=4" is that of every judge. */
static int add_to_judges(void *context, const struct ha_judge_row *row)
{
    struct setter *s = context;
    const char *setting = s->overrides[s->count - 1];

    if (!row->live)
        return 0;
    s->count--;
    return add(s, ha_scratch_format(&s->q->arena, "judge.%s.%s", row->name, setting)) < 0 ||
                   add(s, setting) < 0
               ? -ENOMEM
               : 0;
}

/* One "key=value" as an override with its section. */
static int read_setting(struct setter *s, int64_t sweep, const char *text, struct ha_error *err)
{
    const char *equals = strchr(text, '='), *dot = NULL, *first;
    int r;

    for (const char *at = text; equals && at < equals; at++)
        dot = *at == '.' ? at : dot;
    if (!equals || equals == text)
        return ha_error_set(err, EINVAL, "\"%.60s\": write key=value, as priority=3", text);
    if (!dot && may_set("sweep", 5, text, (size_t)(equals - text)))
        return add(s, ha_scratch_format(&s->q->arena, "sweep.%s", text));
    if (!dot && may_set("judge", 5, text, (size_t)(equals - text))) {
        r = add(s, text);
        if (r == 0)
            r = ha_store_judge_each(s->q->c->store, sweep, 0, add_to_judges, s, err);
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
    return add(s, text);
}

static int read_all(struct setter *s, int64_t sweep, struct ha_error *err)
{
    const struct ha_wire_change *change = &s->q->message->body.change;
    int r = 0;

    if (change->n_settings == 0 || change->n_settings > SETTINGS_LIMIT)
        return ha_error_set(err, EINVAL, "name 1 to %d settings", SETTINGS_LIMIT);
    for (int64_t i = 0; r == 0 && i < change->n_settings; i++)
        r = read_setting(s, sweep, change->settings[i], err);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for settings") : r;
}

static int write_history(struct setter *s, int64_t sweep, const char *name, struct ha_error *err)
{
    const char *subject = ha_scratch_format(&s->q->arena, "sweep %s", name);
    int r = subject ? 0 : ha_error_set(err, ENOMEM, "no memory for settings");

    for (int64_t i = 0; r == 0 && i < s->count; i++)
        r = ha_store_event_add(
            s->q->c->store, &s->q->by,
            &(struct ha_event){
                .sweep = sweep, .subject = subject, .after = "set", .reason = s->overrides[i]},
            err);
    return r;
}

static int read_expanding(void *context, const struct ha_sweep_row *row)
{
    *(bool *)context = row->expanding;
    return 1;
}

int ha_server_set(struct ha_request *q, int64_t sweep, const char **ret_text, struct ha_error *err)
{
    struct setter s = {.q = q};
    struct ha_grid_work *work = NULL;
    bool unfinished = false; /* its grid could not be expanded: it is tried again */
    int64_t same;
    int r = 0;

    if (ha_chore_of_sweep(q->c, sweep, "comparing the grids") ||
        ha_chore_of_sweep(q->c, sweep, "expanding the grid") ||
        ha_chore_of_sweep(q->c, sweep, "changing the stages"))
        return ha_error_set(err, EBUSY, "the sweep is being changed just now; set it again");
    r = ha_store_sweep_each(q->c->store, sweep, NULL, read_expanding, &unfinished, err);
    if (r == 0)
        r = read_all(&s, sweep, err);
    if (r == 0)
        r = ha_grid_work_load(q->c->store, sweep, s.overrides, s.count, &work, err);
    if (r == 0)
        r = write_history(&s, sweep, work->submit.name, err);
    if (r == 0)
        r = ha_submit_apply(q->c, &q->by, sweep, work, unfinished, &same, err);
    ha_grid_work_destroy(work);
    *ret_text = "set";
    return r;
}
