/* suspect.c - workers that fail one job after the other are set aside (inside.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/core/suspect.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/job.h"
#include "coordinator/store/worker.h"

enum { PICKS = 64 };

static int64_t group_of(int64_t sweep, enum ha_stage_kind kind)
{
    return sweep * HA_STAGE_KINDS + (int64_t)kind;
}

void ha_server_saw_end(struct ha_coordinator *c, const struct ha_attempt_row *attempt,
                       int64_t sweep, enum ha_stage_kind kind, bool good, const char *why)
{
    struct ha_member *m = ha_member_by_id(c, attempt->worker);

    ha_suspect_add(&c->suspects, &(struct ha_suspect_end){.worker = attempt->worker,
                                                          .job = attempt->job,
                                                          .group = group_of(sweep, kind),
                                                          .at_ms = c->boot_ms,
                                                          .good = good});
    if (good || !m)
        return;
    ha_utf8_copy(m->last_failure, sizeof m->last_failure, why);
    c->failure_seen = true;
}

struct facts {
    enum ha_job_state state;
    int64_t crashes, losses;
};

static int read_facts(void *context, const struct ha_job_row *row)
{
    *(struct facts *)context =
        (struct facts){.state = row->state, .crashes = row->crashes, .losses = row->losses};
    return 0;
}

/* The crashes were not the job's: it has its attempts back, if it still waits for one. */
static int give_back(struct ha_coordinator *c, int64_t worker, int64_t id, struct ha_error *err)
{
    int64_t failures = ha_suspect_failures(&c->suspects, worker, id);
    struct facts job = {0};
    int r = ha_store_job_get(c->store, id, read_facts, &job, err);

    if (r <= 0 || (job.state != HA_JOB_READY && job.state != HA_JOB_WAITING))
        return r < 0 ? r : 0;
    return ha_store_job_set_counts(
        c->store, id, job.crashes > failures ? job.crashes - failures : 0, job.losses, 0, err);
}

static int set_aside(struct ha_coordinator *c, struct ha_member *m, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = HA_SERVER_SETS_ASIDE};
    int64_t jobs[HA_SUSPECT_KEPT];
    int64_t n = ha_suspect_jobs(&c->suspects, m->id, c->boot_ms, jobs, HA_SUSPECT_KEPT);
    struct ha_error text;
    char reason[HA_ERROR_TEXT_BYTES];
    struct ha_worker_row row = {
        .drain_actor = by.actor, .drain_reason = reason, .drain_since_ms = by.now_ms};
    int r;

    ha_error_set(&text, EIO,
                 "set aside: %" PRId64 " different jobs failed here in a row, and not elsewhere; "
                 "last: %s; mend it, then hactl workers undrain %s",
                 n, m->last_failure, m->name);
    ha_utf8_copy(reason, sizeof reason, text.text);
    r = ha_store_worker_drain(c->store, &by, m->id, by.actor, reason, 0, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        r = give_back(c, m->id, jobs[i], err);
    if (r == 0 && ha_member_drain(c, m, &row) < 0)
        r = ha_error_set(err, ENOMEM, "no memory to set a worker aside");
    if (r == 0)
        c->changed = true;
    return r;
}

int ha_server_suspect(struct ha_coordinator *c, struct ha_error *err)
{
    struct ha_suspect_worker *workers;
    int64_t picks[PICKS], n;
    int r = 0;

    workers = ha_calloc(c->member_count, sizeof *workers);
    if (!workers)
        return ha_error_set(err, ENOMEM, "no memory for a table of workers");
    for (int64_t i = 0; i < c->member_count; i++) {
        const struct ha_member *m = c->members[i];

        workers[i] =
            (struct ha_suspect_worker){.id = m->id,
                                       .takes_work = !m->judge && !m->drained && !m->draining &&
                                                     ha_member_liveness(c, m) == HA_ALIVE,
                                       .aside = m->aside && ha_member_liveness(c, m) != HA_LOST};
    }
    n = ha_suspect_choose(&c->suspects, workers, c->member_count, c->options.suspect_jobs,
                          c->boot_ms, picks, PICKS);
    for (int64_t i = 0; r == 0 && i < n; i++)
        r = set_aside(c, ha_member_by_id(c, picks[i]), err);
    free(workers);
    if (r == 0)
        c->failure_seen = false;
    return r;
}
