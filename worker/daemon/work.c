#include "worker/daemon/work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"
#include "worker/contract.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/crew.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/folders.h"
#include "worker/daemon/preflight.h"
#include "worker/daemon/rank_log.h"
#include "worker/daemon/residents.h"

static const char inputs_folder[] = "inputs/";

enum {
    MAX_RANKS = 256,
    PREFLIGHT_MS = 2 * 60 * 1000,   /* opening a device included */
    DEVICE_WAIT_MS = 5 * 60 * 1000, /* for GPUs that are held */
    ABORT_MS = 20 * 1000,           /* at most, for what is left of a gang to end by itself */
};

enum stage { FETCHING, RUNNING, ENDED };

struct upload_path {
    int64_t number;
    char *path;
};

struct work {
    struct work_options options;
    struct attempt_id id;
    enum stage stage;
    struct ha_wire_message *grant;
    char *folder, *model;
    int64_t n_missing; /* inputs that are not there yet */
    bool *have;        /* per input */
    struct crew *crew;
    int64_t ranks; /* processes of this attempt here */
    struct ha_wire_rank_count *counts;
    struct rank_log log;
    struct journal *journal;   /* NULL: nothing is kept */
    bool unsynced;             /* more than metrics was kept since the last sync */
    bool has_spec, is_checked; /* written; all its devices are fit */
    bool admitted;             /* it counts as an attempt at the residents */
    struct runner *resumed;    /* a process that waits for this job, until it is told of it */
    bool is_resumed, spoke; /* its process is one that waited; it has said something of the job */
    bool fresh;             /* no process that waited is wanted any more */
    bool stopping, waits_for_room;
    struct resident_place place; /* its devices */
    char *visible;               /* these, for its environment */
    struct preflight *preflight;
    int64_t device_since_ms; /* it waits for devices; 0: it does not */
    struct upload_path *uploads;
    int64_t n_uploads, upload_capacity;
    char *error; /* what the attempt said before it ended with an error code */
    char *reason;
    struct work_end end;
    bool end_taken;
};

static const struct ha_wire_grant *grant_of(const struct work *work)
{
    return &work->grant->body.grant;
}

static bool is_alone(const struct work *work)
{
    return grant_of(work)->gang.parts == 0;
}

/* ---- the end ------------------------------------------------------------------------------- */

static void leave(struct work *work)
{
    if (work->admitted)
        residents_leave(work->options.residents);
    work->admitted = false;
}

static void end(struct work *work, enum attempt_outcome outcome, const char *reason)
{
    if (work->stage == ENDED)
        return;
    work->stage = ENDED;
    leave(work);
    free(work->reason);
    work->reason = ha_strdup(reason);
    work->end.outcome = outcome;
    work->end.reason = work->reason ? work->reason : "out of memory";
}

bool work_take_end(struct work *work, struct work_end *ret_end)
{
    struct stat st;
    char *log;

    if (work->stage != ENDED || work->end_taken)
        return false;
    work->end_taken = true;
    work->end.log = (struct ha_wire_rank_log){work->log.path, work->log.tail};
    log = work->folder ? ha_path_join(work->folder, RUNNER_LOG) : NULL;
    if (log && stat(log, &st) == 0 && st.st_size > 0)
        work->end.log_path = RUNNER_LOG;
    free(log);
    *ret_end = work->end;
    return true;
}

/* All its processes have ended. */
static void release_devices(struct work *work, bool spoke, bool failed)
{
    if (work->place.claim == 0)
        return;
    ha_devices_release(work->options.devices, work->place.claim, work->id.job, spoke, failed,
                       ha_loop_now_ms(work->options.loop));
    free(work->place.uuids);
    free(work->visible);
    work->place = (struct resident_place){0};
    work->visible = NULL;
}

static void start_if_ready(struct work *work);

/* A process that waited has ended before it had begun this job: another does it. */
static void start_afresh(struct work *work)
{
    crew_destroy(work->crew);
    work->crew = NULL;
    free(work->error);
    work->error = NULL;
    leave(work);
    release_devices(work, false, false);
    if (work->stopping) {
        end(work, ATTEMPT_STOPPED, "before its process was started");
        return;
    }
    ha_log_warning("job %" PRIu64 ": the process that had its model is gone; it begins anew",
                   work->id.job);
    work->fresh = true;
    work->is_resumed = work->is_checked = false;
    work->stage = FETCHING;
    start_if_ready(work);
}

/* What its ranks told of their collectives; without memory nothing. */
static void keep_counts(struct work *work)
{
    const struct ha_wire_gang *gang = &grant_of(work)->gang;

    work->counts = ha_calloc(work->ranks, sizeof(*work->counts));
    for (int64_t i = 0; work->counts && i < work->ranks; i++) {
        struct ha_wire_rank_count *count = &work->counts[work->end.n_counts];

        count->rank = gang->first_rank + (uint32_t)i;
        work->end.n_counts +=
            crew_counts(work->crew, (int)count->rank, &count->started, &count->finished);
    }
    work->end.counts = work->counts;
}

static void on_ended(void *context, int status)
{
    struct work *work = context;
    char words[HA_EXIT_WORDS_BYTES], *both = NULL;
    enum attempt_outcome outcome = ATTEMPT_FAILED;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    bool failed, blameless; /* the device is */

    if (work->is_resumed && !work->spoke) {
        start_afresh(work);
        return;
    }
    if (code == HA_ATTEMPT_DONE)
        outcome = ATTEMPT_DONE;
    else if (code == HA_ATTEMPT_STOPPED)
        outcome = ATTEMPT_STOPPED;
    else if (code == HA_ATTEMPT_REFUSED)
        outcome = ATTEMPT_REFUSED;
    else if (code == HA_ATTEMPT_STARVED || (work->error && contract_is_starved(work->error)))
        outcome = ATTEMPT_STARVED;
    (void)ha_exit_words(status, words);
    if (work->error && outcome != ATTEMPT_DONE)
        both = ha_format("%s (%s)", work->error, words);
    work->end.exit_code = code;
    end(work, outcome, both ? both : words);
    free(both);
    failed = outcome == ATTEMPT_FAILED || outcome == ATTEMPT_STARVED;
    work->end.followed = failed && crew_followed(work->crew);
    keep_counts(work);
    rank_log_read(work->folder, is_alone(work) ? -1 : crew_failed_rank(work->crew),
                  !work->end.followed, &work->log);
    crew_destroy(work->crew);
    work->crew = NULL;
    blameless =
        outcome == ATTEMPT_STARVED || (work->error && strstr(work->error, CONTRACT_STARVED));
    if (grant_of(work)->gang.parts > 1 && work->end.followed)
        blameless = true; /* also where another worker's ranks failed */
    release_devices(work, !blameless && (outcome == ATTEMPT_DONE || failed), failed);
}

/* ---- running --------------------------------------------------------------------------------- */

static void on_line(void *context, const struct contract_line *line)
{
    struct work *work = context;

    if (line->kind == CONTRACT_ERROR) {
        free(work->error);
        work->error = ha_strdup(line->text);
        return;
    }
    work->spoke = true;
    work->options.line(work->options.context, work, line);
}

/* Its job is done; the next one of the model may have the process. */
static void on_keep(void *context, struct runner *runner)
{
    struct work *work = context;
    char *key = resident_key(work->model, grant_of(work)->model_digest);

    /* Without memory for the key it is one that nobody asks for. */
    residents_put(work->options.residents, runner, key ? key : "", work->id.job, &work->place);
    free(key);
    free(work->visible);
    work->visible = NULL;
}

static void on_gang_ready(void *context, int rank, const char *id)
{
    struct work *work = context;

    work->options.gang_ready(work->options.context, work, rank, id);
}

static void on_broken(void *context, const char *reason)
{
    struct work *work = context;

    free(work->error);
    work->error = ha_strdup(reason);
}

/* How many of the job's ranks run here. */
static int read_ranks(struct work *work, const struct ha_json *spec, struct ha_error *err)
{
    const struct ha_wire_gang *gang = &grant_of(work)->gang;
    int64_t ranks = ha_json_int(ha_json_get(spec, "ranks"), 1);

    if (ranks < 1 || ranks > MAX_RANKS || (ranks > 1) != (gang->parts > 0) ||
        (ranks > 1 && (gang->world != ranks || gang->ranks < 1 || gang->ranks > ranks ||
                       gang->first_rank > ranks - gang->ranks || gang->part >= gang->parts)))
        return ha_error_set(err, EINVAL, "the job's spec has ranks = %lld, its grant %u of %u",
                            (long long)ranks, gang->ranks, gang->world);
    work->ranks = ranks > 1 ? gang->ranks : 1;
    return 0;
}

/* The spec with what only this worker knows: where the model is, how many
 * threads, which backend, which digests of files and choices of products. */
static int write_spec(struct work *work, struct ha_error *err)
{
    const char *text = grant_of(work)->spec_json;
    char *path = ha_path_join(work->folder, HA_ATTEMPT_SPEC_FILE), *out = NULL;
    struct ha_json *spec = NULL, *model;
    int64_t threads;
    int r = path ? ha_json_parse(text, strlen(text), "the job's spec", &spec, err)
                 : ha_error_set(err, ENOMEM, "out of memory");

    if (r < 0)
        goto out;
    model = ha_json_get(spec, "model");
    if (!ha_json_is(model, HA_JSON_OBJECT)) {
        r = ha_error_set(err, EINVAL, "the job's spec has no model");
        goto out;
    }
    r = read_ranks(work, spec, err);
    if (r < 0)
        goto out;
    /* The ranks share what one attempt has. */
    threads = work->options.threads / work->ranks;
    if (ha_json_set(model, "path", ha_json_new_string(work->model)) < 0 ||
        ha_json_set(spec, "threads", ha_json_new_int(threads > 0 ? threads : 1)) < 0 ||
        ha_json_set(spec, "first_rank", ha_json_new_int(grant_of(work)->gang.first_rank)) < 0 ||
        ha_json_set(spec, "gang_wait_ms", ha_json_new_int(work->options.gang_wait_ms)) < 0 ||
        ha_json_set(spec, "backend", ha_json_new_string(work->options.backend)) < 0 ||
        ha_json_set(spec, "digests", ha_json_new_string(folders_digests(work->options.folders))) <
            0 ||
        ha_json_set(spec, "choices", ha_json_new_string(folders_choices(work->options.folders))) <
            0 ||
        (out = ha_json_dump(spec, HA_JSON_PRETTY)) == NULL)
        r = ha_error_set(err, ENOMEM, "out of memory");
    else
        r = ha_file_write(path, out, strlen(out), 0600, err);
out:
    ha_json_destroy(spec);
    free(out);
    free(path);
    return r;
}

static int set_visible(struct work *work, struct ha_error *err)
{
    work->visible = ha_format("CUDA_VISIBLE_DEVICES=%s", work->place.uuids);
    return work->visible ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

/* All ranks see the devices of the whole gang: each takes the one of its number.
 * -EAGAIN: there are none yet. */
static int take_devices(struct work *work, struct ha_error *err)
{
    int64_t now_ms = ha_loop_now_ms(work->options.loop);
    struct resident_place *place = &work->place;
    int r;

    if (!work->options.devices || place->claim != 0)
        return 0;
    r = ha_devices_take(work->options.devices, work->ranks, now_ms, &place->claim, &place->uuids,
                        err);
    if (r == 0) {
        ha_log_info("job %" PRIu64 " has GPU %s", work->id.job, place->uuids);
        return set_visible(work, err);
    }
    if (r == -EAGAIN && residents_yield(work->options.residents, work->ranks))
        ha_log_info("job %" PRIu64 " needs a GPU that keeps another model", work->id.job);
    if (r == -EAGAIN && work->device_since_ms == 0) {
        work->device_since_ms = now_ms;
        ha_log_info("job %" PRIu64 " waits: %s", work->id.job, ha_error_text(err));
    } else if (r == -EAGAIN && now_ms - work->device_since_ms >= DEVICE_WAIT_MS) {
        end(work, ATTEMPT_STOPPED, ha_error_text(err));
    }
    return r;
}

/* A process that keeps the model, or room for a new one.  -EAGAIN: not yet. */
static int take_place(struct work *work, struct ha_error *err)
{
    char *key = resident_key(work->model, grant_of(work)->model_digest);

    if (!key)
        return ha_error_set(err, ENOMEM, "out of memory");
    /* One of before this worker's attempts got GPUs has no use for a process that has one. */
    if (is_alone(work) && !work->fresh &&
        residents_devices(work->options.residents) == work->options.devices)
        work->resumed = residents_take(work->options.residents, key, &work->place);
    free(key);
    work->is_resumed = work->resumed != NULL;
    work->admitted = work->is_resumed || residents_admit(work->options.residents, work->ranks);
    work->waits_for_room = !work->admitted;
    if (work->is_resumed) {
        ha_log_info("job %" PRIu64 " goes on with a process that has its model", work->id.job);
        work->is_checked = true; /* by the process itself */
    }
    if (work->place.claim != 0)
        return set_visible(work, err);
    return work->admitted ? 0 : -EAGAIN;
}

/* With so many set aside the cause may be what they have in common; the coordinator counts it
 * against this worker. */
static void fail_preflight(struct work *work, const char *uuid, const char *why)
{
    char *text = ha_format("GPU %s: %s; as many GPUs as may be are set aside already "
                           "(max_devices_aside)",
                           uuid, why);

    end(work, ATTEMPT_FAILED, text ? text : "out of memory");
    free(text);
}

static void on_preflight(void *context, const char *uuid, const char *why)
{
    struct work *work = context;
    bool aside = true;

    if (why) {
        uuid = uuid ? uuid : "?";
        ha_log_warning("job %" PRIu64 " does not begin on GPU %s: %s", work->id.job, uuid, why);
        aside = ha_devices_condemn(work->options.devices, uuid, why);
        if (!aside)
            fail_preflight(work, uuid, why);
    }
    preflight_destroy(work->preflight);
    work->preflight = NULL;
    if (why) {
        release_devices(work, false, false);
        work->device_since_ms = aside ? ha_loop_now_ms(work->options.loop) : 0; /* for others */
        return;
    }
    ha_log_info("job %" PRIu64 ": its GPUs multiply rightly", work->id.job);
    work->is_checked = true;
    start_if_ready(work);
}

static int start_preflight(struct work *work, struct ha_error *err)
{
    const struct preflight_options options = {.loop = work->options.loop,
                                              .program = work->options.program,
                                              .backend = work->options.backend,
                                              .folder = work->folder,
                                              .mark = work->options.mark,
                                              .uuids = work->place.uuids,
                                              .limit_ms = PREFLIGHT_MS,
                                              .done = on_preflight,
                                              .context = work};
    int r = preflight_create(&options, &work->preflight, err);

    if (r < 0)
        release_devices(work, false, false);
    return r;
}

static int start_crew(struct work *work, struct ha_error *err)
{
    int64_t grace_ms = work->options.grace_ms;
    const char *environment[] = {work->options.mark, work->visible, NULL};
    struct crew_options options = {
        .runner = {.loop = work->options.loop,
                   .program = work->options.program,
                   .folder = work->folder,
                   .grace_ms = grace_ms,
                   .log_bytes = work->options.log_bytes,
                   .log_files = work->options.log_files,
                   .groups = work->options.groups,
                   .serves = is_alone(work) && residents_keeps(work->options.residents),
                   .line = on_line,
                   .broken = on_broken,
                   .ended = on_ended,
                   .context = work},
        .first_rank = (int)grant_of(work)->gang.first_rank,
        .ranks = (int)work->ranks,
        .world = is_alone(work) ? 1 : (int)grant_of(work)->gang.world,
        .ready = on_gang_ready,
        .resumed = work->resumed,
        .keep = on_keep,
        .prepare_ms = work->options.prepare_ms,
        .abort_ms = grace_ms < ABORT_MS ? grace_ms : ABORT_MS};
    int r;

    options.runner.environment = work->options.mark ? environment : NULL;
    work->resumed = NULL;
    r = crew_create(&options, &work->crew, err);
    if (r < 0 && work->is_resumed) {
        start_afresh(work);
        return -EAGAIN;
    }
    if (r < 0)
        release_devices(work, false, false);
    return r;
}

static void start_if_ready(struct work *work)
{
    const struct contract_line load = {.kind = CONTRACT_PHASE, .text = "load"};
    struct ha_error err = {0};
    int r;

    if (work->stage != FETCHING || work->n_missing > 0 || !work->model || work->preflight)
        return;
    r = work->has_spec ? 0 : write_spec(work, &err);
    work->has_spec = r == 0;
    if (r == 0 && !work->admitted)
        r = take_place(work, &err);
    if (r == 0 && !work->is_resumed)
        r = take_devices(work, &err);
    if (r == -EAGAIN)
        return;
    if (r == 0 && work->place.claim != 0 && !work->is_checked) {
        r = start_preflight(work, &err);
        if (r == 0)
            return;
    }
    if (r == 0)
        r = start_crew(work, &err);
    if (r == -EAGAIN)
        return;
    if (r < 0) {
        end(work, r == -EINVAL ? ATTEMPT_REFUSED : ATTEMPT_FAILED, ha_error_text(&err));
        return;
    }
    work->stage = RUNNING;
    /* So that one that never says a word is ended, too. */
    work->options.line(work->options.context, work, &load);
}

void work_room_changed(struct work *work)
{
    if (work->device_since_ms > 0 || work->waits_for_room)
        start_if_ready(work);
}

void work_stop(struct work *work)
{
    work->stopping = true;
    if (work->crew) {
        crew_stop(work->crew);
        return;
    }
    preflight_destroy(work->preflight);
    work->preflight = NULL;
    release_devices(work, false, false);
    end(work, ATTEMPT_STOPPED, "before its process was started");
}

void work_gang(struct work *work, const char *id)
{
    if (work->crew && id)
        crew_go(work->crew, id);
    else if (work->crew)
        crew_abort(work->crew);
    if (work->crew || id)
        return;
    preflight_destroy(work->preflight);
    work->preflight = NULL;
    release_devices(work, false, false);
    work->end.followed = true;
    end(work, ATTEMPT_FAILED, "the gang was given up before its processes were started");
}

void work_check_child(struct work *work)
{
    if (work->preflight)
        preflight_check(work->preflight);
    else if (work->crew)
        crew_check(work->crew);
}

/* ---- fetching -------------------------------------------------------------------------------- */

/* Work goes on without it, only slower: the attempt starts anew. */
static bool is_optional(const struct ha_wire_grant *grant, const struct ha_wire_input *input)
{
    /* All ranks of a gang begin at the same step, wherever they are. */
    return grant->gang.parts <= 1 &&
           (strcmp(input->path, "inputs/reference") == 0 ||
            strncmp(input->path, "inputs/checkpoint/", strlen("inputs/checkpoint/")) == 0);
}

/* Give an input its place in the attempt's folder, from the cache. */
static int place_input(struct work *work, const struct ha_wire_input *input, struct ha_error *err)
{
    char *path = ha_path_join(work->folder, input->path);
    int r = path ? folders_link(work->options.folders, input->sha256, path, err)
                 : ha_error_set(err, ENOMEM, "out of memory");

    free(path);
    return r;
}

static void fetch_input(struct work *work, int64_t i)
{
    const struct ha_wire_input *input = &grant_of(work)->inputs[i];

    if (strncmp(input->path, inputs_folder, strlen(inputs_folder)) != 0 ||
        input->sha256[0] == '\0') {
        end(work, ATTEMPT_REFUSED, "the job names an input that is not below inputs/");
        return;
    }
    /* Also when the cache has it: whoever fetches sees that it is not damaged. */
    work->options.fetch(work->options.context, work, input->sha256, input->size);
}

void work_fetched(struct work *work, const char *sha256, const char *text)
{
    const struct ha_wire_grant *grant = grant_of(work);
    struct ha_error err = {0};

    for (int64_t i = 0; i < grant->n_inputs && work->stage == FETCHING; i++) {
        const struct ha_wire_input *input = &grant->inputs[i];

        if (work->have[i] || strcmp(input->sha256, sha256) != 0)
            continue;
        if (text && !is_optional(grant, input)) {
            end(work, ATTEMPT_FAILED, text);
            return;
        }
        if (!text && place_input(work, input, &err) < 0) {
            end(work, ATTEMPT_FAILED, ha_error_text(&err));
            return;
        }
        work->have[i] = true;
        work->n_missing--;
    }
    start_if_ready(work);
}

void work_model_found(struct work *work, const char *path, const char *text)
{
    if (text) {
        end(work, ATTEMPT_FAILED, text);
        return;
    }
    work->model = ha_strdup(path);
    if (!work->model)
        end(work, ATTEMPT_FAILED, "out of memory");
    start_if_ready(work);
}

static int prepare(struct work *work, struct ha_error *err)
{
    const struct ha_wire_grant *grant = grant_of(work);
    int r = folders_make_attempt(work->options.folders, &work->id, &work->folder, err);

    if (r < 0)
        return r;
    r = journal_create(work->folder, &work->journal, err);
    if (r < 0)
        return r;
    work->n_missing = grant->n_inputs;
    work->have = ha_calloc(grant->n_inputs, sizeof(*work->have));
    return work->have ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

struct work *work_create(const struct work_options *options, const struct attempt_id *id,
                         const struct ha_wire_grant *grant)
{
    const struct ha_wire_message message = {.kind = HA_WIRE_GRANT, .body.grant = *grant};
    struct work *work = ha_calloc(1, sizeof(*work));
    struct ha_error err = {0};

    if (!work)
        return NULL;
    work->options = *options;
    work->id = *id;
    if (ha_wire_copy(&message, &work->grant, NULL, &err) < 0) {
        free(work);
        return NULL;
    }
    grant = grant_of(work);
    if (prepare(work, &err) < 0)
        end(work, ATTEMPT_FAILED, ha_error_text(&err));
    for (int64_t i = 0; i < grant->n_inputs && work->stage == FETCHING; i++)
        fetch_input(work, i);
    if (work->stage == FETCHING)
        work->options.find_model(work->options.context, work, grant->model_path,
                                 grant->model_digest);
    return work;
}

int work_recover(const struct work_options *options, const struct attempt_id *id,
                 const char *folder, journal_fn fn, void *context, struct work **ret_work,
                 struct ha_error *err)
{
    struct work *work = ha_calloc(1, sizeof(*work));
    int r;

    if (!work)
        return ha_error_set(err, ENOMEM, "out of memory");
    work->options = *options;
    work->id = *id;
    work->stage = ENDED;
    work->end_taken = true;
    work->folder = ha_strdup(folder);
    r = work->folder ? journal_open(folder, fn, context, &work->journal, err)
                     : ha_error_set(err, ENOMEM, "out of memory");
    if (r < 0) {
        work_destroy(work);
        return r;
    }
    *ret_work = work;
    return 0;
}

void work_destroy(struct work *work)
{
    if (!work)
        return;
    crew_destroy(work->crew);
    runner_destroy(work->resumed);
    preflight_destroy(work->preflight);
    leave(work);
    release_devices(work, false, false);
    journal_destroy(work->journal);
    for (int64_t i = 0; i < work->n_uploads; i++)
        free(work->uploads[i].path);
    free(work->uploads);
    ha_wire_message_destroy(work->grant);
    free(work->folder);
    free(work->model);
    free(work->have);
    free(work->counts);
    free(work->error);
    free(work->reason);
    free(work);
}

const struct attempt_id *work_id(const struct work *work)
{
    return &work->id;
}

bool work_model(const struct work *work, const char **ret_path, const char **ret_digest)
{
    if (!work->model || work->stage == ENDED)
        return false;
    *ret_path = work->model;
    *ret_digest = grant_of(work)->model_digest ? grant_of(work)->model_digest : "";
    return true;
}

const char *work_folder(const struct work *work)
{
    return work->folder;
}

/* ---- uploads
 * --------------------------------------------------------------------------------------- */

static const char *recall_upload(const struct work *work, int64_t number)
{
    for (int64_t i = 0; i < work->n_uploads; i++) {
        if (work->uploads[i].number == number)
            return work->uploads[i].path;
    }
    return NULL;
}

char *work_upload_path(struct work *work, int64_t number, const char *path)
{
    if (path) {
        char *copy = ha_strdup(path);

        if (!copy || ha_grow((void **)&work->uploads, &work->upload_capacity, work->n_uploads + 1,
                             sizeof(*work->uploads)) < 0) {
            free(copy);
            return NULL;
        }
        work->uploads[work->n_uploads++] = (struct upload_path){.number = number, .path = copy};
    } else {
        path = recall_upload(work, number);
    }
    return path && work->folder ? ha_path_join(work->folder, path) : NULL;
}

/* ---- what it told ---------------------------------------------------------------------------- */

/* Results are not worth less for it: they are only lost if the daemon dies before they are
 * delivered. */
static void note_unkept(const struct work *work, const struct ha_error *err)
{
    ha_log_warning("job %" PRIu64 ": what it tells is in memory only: %s", work->id.job, err->text);
}

void work_keep(struct work *work, const struct ha_wire_attempt_event *event, const char *path)
{
    struct ha_error err = {0};

    if (!work->journal)
        return;
    if (journal_append(work->journal, event, path, &err) < 0)
        note_unkept(work, &err);
    work->unsynced = work->unsynced || event->kind != HA_WIRE_ATTEMPT_EVENT_METRIC;
}

void work_sync_kept(struct work *work)
{
    struct ha_error err = {0};

    if (work->journal && work->unsynced && journal_sync(work->journal, &err) < 0)
        note_unkept(work, &err);
    work->unsynced = false;
    if (work->journal)
        HA_FAULT_DURABLE(work->folder, JOURNAL_FILE);
}

void work_delivered(struct work *work, int64_t number)
{
    struct ha_error err = {0};

    if (work->journal && journal_keep_from(work->journal, number, &err) < 0)
        note_unkept(work, &err);
}

void work_drop_kept(struct work *work)
{
    if (work->journal)
        journal_remove(work->journal);
}
