#include "worker/daemon/crew.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"
#include "worker/contract.h"
#include "worker/daemon/contract_line.h"

enum { REASON_BYTES = 1024 };

struct member {
    struct crew *crew;
    struct runner *runner; /* NULL: ended */
    int rank, status;
    bool ready, killed;        /* killed: by us */
    bool followed;             /* it failed because others had */
    char *error;               /* its own words */
    int64_t started, finished; /* collectives, as it told when it failed; -1: it did not */
};

struct crew {
    struct crew_options options;
    struct member *members;
    struct ha_loop_timer *prepare_timer, *kill_timer;
    int n_ready, n_ended;
    int failed;          /* the member that did so first, by itself if one did; -1: none */
    bool gone, aborting; /* gone: the id went to the ranks */
    char *late;          /* why we gave it up */
};

static bool is_gang(const struct crew *crew)
{
    return crew->options.world > 1;
}

static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- giving up --------------------------------------------------------------------------- */

static void kill_rest(void *context)
{
    struct crew *crew = context;

    for (int i = 0; i < crew->options.ranks; i++) {
        if (!crew->members[i].runner)
            continue;
        crew->members[i].killed = true;
        runner_signal(crew->members[i].runner, SIGKILL);
    }
}

static void abort_rest(struct crew *crew)
{
    if (crew->aborting)
        return;
    crew->aborting = true;
    for (int i = 0; i < crew->options.ranks; i++) {
        if (crew->members[i].runner)
            runner_signal(crew->members[i].runner, SIGUSR1);
    }
    ha_loop_timer_set_after(crew->kill_timer, crew->options.abort_ms);
}

static void on_late(void *context)
{
    struct crew *crew = context;
    char text[REASON_BYTES];
    size_t used = (size_t)snprintf(
        text, sizeof(text), "not ready within %" PRId64 " s:", crew->options.prepare_ms / 1000);

    for (int i = 0; i < crew->options.ranks && used + 1 < sizeof(text); i++) {
        if (!crew->members[i].ready)
            used += (size_t)snprintf(text + used, sizeof(text) - used, " rank %d",
                                     crew->members[i].rank);
    }
    crew->late = ha_strdup(text);
    abort_rest(crew);
}

/* ---- coming together ------------------------------------------------------------------------ */

void crew_go(struct crew *crew, const char *id)
{
    if (crew->gone || crew->aborting)
        return;
    crew->gone = true;
    for (int i = 0; i < crew->options.ranks; i++) {
        if (crew->members[i].runner && runner_tell(crew->members[i].runner, id) < 0)
            abort_rest(crew);
    }
}

void crew_abort(struct crew *crew)
{
    abort_rest(crew);
}

static void take_gang_line(struct member *member, const struct contract_line *line)
{
    struct crew *crew = member->crew;

    if (strcmp(line->text, "failed") == 0) {
        member->started = line->gang_started;
        member->finished = line->gang_finished;
        member->followed = line->gang_followed;
    }
    if (strcmp(line->text, "ready") != 0 || member->ready || crew->aborting)
        return;
    member->ready = true;
    crew->n_ready++;
    if (crew->n_ready == crew->options.ranks)
        ha_loop_timer_unset(crew->prepare_timer);
    crew->options.ready(crew->options.runner.context, member->rank,
                        member->rank == 0 ? line->gang_id : "");
}

/* ---- what the ranks say ---------------------------------------------------------------------- */

static void on_line(void *context, const struct contract_line *line)
{
    struct member *member = context;
    const struct runner_options *owner = &member->crew->options.runner;

    if (!is_gang(member->crew)) {
        owner->line(owner->context, line);
    } else if (line->kind == CONTRACT_GANG) {
        take_gang_line(member, line);
    } else if (line->kind == CONTRACT_ERROR) {
        free(member->error);
        member->error = ha_strdup(line->text);
    } else if (member == member->crew->members) {
        owner->line(owner->context, line);
    }
}

static void on_broken(void *context, const char *reason)
{
    struct member *member = context;
    const struct runner_options *owner = &member->crew->options.runner;

    if (!is_gang(member->crew)) {
        owner->broken(owner->context, reason);
        return;
    }
    free(member->error);
    member->error = ha_strdup(reason);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* ": rank R was behind (...)" where the counts tell it. */
static void say_behind(const struct crew *crew, char *text, size_t text_bytes)
{
    int least = -1, silent = -1, n_silent = 0;
    int64_t most = 0;

    text[0] = '\0';
    for (int i = 0; i < crew->options.ranks; i++) {
        const struct member *member = &crew->members[i];

        if (member->started < 0) {
            silent = i;
            n_silent++;
            continue;
        }
        most = member->started > most ? member->started : most;
        if (least < 0 || member->started < crew->members[least].started)
            least = i;
    }
    if (n_silent == 1 && crew->members[silent].killed && least >= 0)
        (void)snprintf(text, text_bytes, "; rank %d did not answer and was killed",
                       crew->members[silent].rank);
    else if (n_silent == 0 && crew->members[least].started < most)
        (void)snprintf(text, text_bytes,
                       "; rank %d was behind: it had begun %" PRId64
                       " collectives, others %" PRId64,
                       crew->members[least].rank, crew->members[least].started, most);
}

static void say_why(struct crew *crew, int status)
{
    const struct runner_options *owner = &crew->options.runner;
    const struct member *first = crew->failed >= 0 ? &crew->members[crew->failed] : NULL;
    struct contract_line line = {.kind = CONTRACT_ERROR};
    char behind[REASON_BYTES], text[REASON_BYTES];

    if (code_of(status) == HA_ATTEMPT_DONE || code_of(status) == HA_ATTEMPT_STOPPED)
        return;
    say_behind(crew, behind, sizeof(behind));
    if (crew->late)
        (void)snprintf(text, sizeof(text), "a gang of %d ranks: %s", crew->options.world,
                       crew->late);
    else
        (void)snprintf(text, sizeof(text), "rank %d of %d%s%s%s",
                       first ? first->rank : crew->options.first_rank, crew->options.world,
                       first && first->error ? ": " : "", first && first->error ? first->error : "",
                       behind);
    line.text = text;
    owner->line(owner->context, &line);
}

static void end_crew(struct crew *crew)
{
    const struct runner_options *owner = &crew->options.runner;
    int status = crew->members[0].status, code = code_of(status);

    if (code != HA_ATTEMPT_DONE && code != HA_ATTEMPT_STOPPED && crew->failed >= 0)
        status = crew->members[crew->failed].status;
    if (is_gang(crew))
        say_why(crew, status);
    owner->ended(owner->context, status);
}

static bool is_follower(const struct member *member)
{
    return member->followed || member->killed;
}

bool crew_followed(const struct crew *crew)
{
    return !crew->late && (crew->failed < 0 || is_follower(&crew->members[crew->failed]));
}

int crew_failed_rank(const struct crew *crew)
{
    return crew->failed < 0 ? -1 : crew->members[crew->failed].rank;
}

bool crew_counts(const struct crew *crew, int rank, int64_t *ret_started, int64_t *ret_finished)
{
    int i = rank - crew->options.first_rank;

    if (i < 0 || i >= crew->options.ranks || crew->members[i].started < 0)
        return false;
    *ret_started = crew->members[i].started;
    *ret_finished = crew->members[i].finished;
    return true;
}

static void on_ended(void *context, int status)
{
    struct member *member = context;
    struct crew *crew = member->crew;
    int code = code_of(status);
    struct runner *runner = member->runner;

    member->status = status;
    member->runner = NULL;
    runner_destroy(runner);
    crew->n_ended++;
    if (code != HA_ATTEMPT_DONE && code != HA_ATTEMPT_STOPPED &&
        (crew->failed < 0 || (is_follower(&crew->members[crew->failed]) && !is_follower(member))))
        crew->failed = (int)(member - crew->members);
    if (crew->n_ended == crew->options.ranks) {
        end_crew(crew); /* the crew may be gone */
        return;
    }
    if (code == HA_ATTEMPT_DONE || code == HA_ATTEMPT_STOPPED) {
        /* The others are about to end in the same way. */
        ha_loop_timer_set_after(crew->kill_timer, crew->options.runner.grace_ms);
        return;
    }
    abort_rest(crew);
}

static void on_waits(void *context)
{
    struct member *member = context;
    struct crew *crew = member->crew;
    struct runner *runner = member->runner;

    member->runner = NULL;
    member->status = 0;
    crew->n_ended++;
    crew->options.keep(crew->options.runner.context, runner);
    end_crew(crew); /* the crew may be gone */
}

/* ---- the whole
 * ---------------------------------------------------------------------------------- */

void crew_stop(struct crew *crew)
{
    for (int i = 0; i < crew->options.ranks; i++) {
        if (crew->members[i].runner)
            runner_stop(crew->members[i].runner);
    }
}

void crew_check(struct crew *crew)
{
    int ranks = crew->options.ranks;

    for (int i = 0; i < ranks; i++) {
        bool last = crew->n_ended == ranks - 1;
        struct runner *runner = crew->members[i].runner;

        if (!runner)
            continue;
        if (last) {
            runner_check(runner); /* the crew may be gone */
            return;
        }
        runner_check(runner);
    }
}

static int start_member(struct crew *crew, int i, struct ha_error *err)
{
    struct member *member = &crew->members[i];
    struct runner_options options = crew->options.runner;

    *member = (struct member){.crew = crew, .rank = crew->options.first_rank + i, .started = -1};
    options.line = on_line;
    options.broken = on_broken;
    options.ended = on_ended;
    options.waits = on_waits;
    options.context = member;
    options.rank = member->rank;
    options.ranks = crew->options.world;
    if (!crew->options.resumed)
        return runner_create(&options, &member->runner, err);
    member->runner = crew->options.resumed;
    return runner_resume(member->runner, &options, err);
}

int crew_create(const struct crew_options *options, struct crew **ret_crew, struct ha_error *err)
{
    struct crew *crew = ha_calloc(1, sizeof(*crew));
    int r;

    if (!crew) {
        runner_destroy(options->resumed);
        return ha_error_set(err, ENOMEM, "out of memory");
    }
    crew->options = *options;
    crew->failed = -1;
    crew->members = ha_calloc(options->ranks, sizeof(*crew->members));
    r = crew->members
            ? ha_loop_timer_create(options->runner.loop, on_late, crew, &crew->prepare_timer, err)
            : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = ha_loop_timer_create(options->runner.loop, kill_rest, crew, &crew->kill_timer, err);
    for (int i = 0; r == 0 && i < options->ranks; i++)
        r = start_member(crew, i, err);
    if (r < 0) {
        if (options->resumed && !(crew->members && crew->members[0].runner))
            runner_destroy(options->resumed);
        crew_destroy(crew);
        return r;
    }
    crew->options.runner.folder = crew->options.runner.program = NULL; /* not ours to keep */
    crew->options.runner.environment = NULL;
    if (is_gang(crew))
        ha_loop_timer_set_after(crew->prepare_timer, options->prepare_ms);
    *ret_crew = crew;
    return 0;
}

void crew_destroy(struct crew *crew)
{
    if (!crew)
        return;
    for (int i = 0; crew->members && i < crew->options.ranks; i++) {
        runner_destroy(crew->members[i].runner);
        free(crew->members[i].error);
    }
    ha_loop_timer_destroy(crew->prepare_timer);
    ha_loop_timer_destroy(crew->kill_timer);
    free(crew->members);
    free(crew->late);
    free(crew);
}
