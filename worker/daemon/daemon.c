#include "worker/daemon/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/conf/daemon.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/net/socket.h"
#include "common/proc/notify.h"
#include "proto/wire.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/errands.h"
#include "worker/daemon/folders.h"
#include "worker/daemon/groups.h"
#include "worker/daemon/identity.h"
#include "worker/daemon/keeping.h"
#include "worker/daemon/model_thread.h"
#include "worker/daemon/places.h"
#include "worker/daemon/recover.h"
#include "worker/daemon/session.h"
#include "worker/daemon/transfer.h"
#include "worker/daemon/work.h"

enum {
    HEARTBEAT_MS = 5000, /* until the coordinator says another */
    DRAIN_MS = 30000     /* for last reports and uploads, after the attempts' grace time */
};

static const int64_t cache_bytes = (int64_t)16 << 30;

struct entry {
    struct entry *next;
    struct work *work;
};

struct daemon {
    struct daemon_options options;
    struct ha_loop *loop;
    struct ha_net *net;
    struct ha_client *client;
    struct transfer *transfer;
    struct folders *folders;
    struct model_threads *models;
    struct places *places;
    struct groups *groups; /* NULL: none */
    struct keeping keeping;
    struct session *session;
    struct ha_loop_timer *session_timer, *drain_timer;
    struct ha_loop_fd *watch;
    struct entry *works;
    struct errands errands;
    int64_t threads;
    int64_t log_bytes; /* of one file of an attempt's log */
    bool draining;
    struct ha_error failure; /* why the loop was stopped, if for an error */
};

/* ---- small things ------------------------------------------------------------------------ */

static int64_t now_ms(const struct daemon *daemon)
{
    return ha_loop_now_ms(daemon->loop);
}

/* The daemon cannot go on; whoever watches it starts another. */
static void give_up(struct daemon *daemon, int code, const char *text)
{
    ha_error_set(&daemon->failure, code, "%s", text);
    ha_loop_stop(daemon->loop);
}

static struct work *find_work(const struct daemon *daemon, const struct attempt_id *id)
{
    for (const struct entry *entry = daemon->works; entry; entry = entry->next) {
        if (attempt_id_equal(work_id(entry->work), id))
            return entry->work;
    }
    return NULL;
}

/* ---- effects of the session: the wire -------------------------------------------------------- */

/* What a report tells is on our disk before it leaves. */
static void sync_kept(const struct daemon *daemon, const struct ha_wire_report *report)
{
    const struct attempt_id id = {.job = report->job, .epoch = report->epoch};
    struct work *work = find_work(daemon, &id);

    if (work)
        work_sync_kept(work);
    HA_CRASH_POINT("worker.before_report");
}

static void on_send(void *context, const struct ha_wire_message *message)
{
    struct daemon *daemon = context;
    struct ha_wire_message stamped = *message;
    struct ha_error err = {0};
    struct ha_buffer frame;
    int r;

    if (message->kind == HA_WIRE_REPORT)
        sync_kept(daemon, &message->body.report);
    if (message->kind == HA_WIRE_HEARTBEAT) {
        stamped.body.heartbeat.wall_ms = ha_clock_wall_ms();
        keeping_tell(&daemon->keeping, &stamped.body.heartbeat);
        places_tell(daemon->places, &stamped.body.heartbeat);
    }
    ha_buffer_init(&frame, 0);
    r = ha_wire_encode(&stamped, &frame, &err);
    if (r < 0)
        ha_log_error("a %s cannot be sent: %s", ha_wire_body_name(message->kind), err.text);
    else if (ha_client_send(daemon->client, frame.data, frame.size) < 0)
        ha_log_debug("a %s was not sent: the connection is full", ha_wire_body_name(message->kind));
    ha_buffer_clear(&frame);
    if (message->kind == HA_WIRE_REPORT)
        HA_CRASH_POINT("worker.after_report");
}

static void on_message(void *context, const void *data, size_t size)
{
    struct daemon *daemon = context;
    struct ha_wire_message *message;
    struct ha_error err = {0};

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, &err) < 0) {
        ha_log_warning("a message of the coordinator was dropped: %s", err.text);
        return;
    }
    if (message->kind == HA_WIRE_HEARTBEAT_REPLY)
        places_take_reply(daemon->places, &message->body.heartbeat_reply, now_ms(daemon));
    session_receive(daemon->session, message, now_ms(daemon));
    ha_wire_message_destroy(message);
}

static void on_reconnect(void *context)
{
    struct daemon *daemon = context;
    struct ha_error err = {0};

    if (ha_client_reopen(daemon->client, &err) < 0)
        ha_log_warning("cannot connect again: %s", err.text);
}

static bool files_given(const struct ha_worker_config *config)
{
    return ha_section_given(&ha_worker_section, ha_section_find(&ha_worker_section, "files"),
                            config);
}

static void on_files_endpoint(void *context, const char *said)
{
    struct daemon *daemon = context;
    const struct ha_worker_config *config = daemon->options.config;
    struct ha_error err = {0};
    char *endpoint;

    if (files_given(config))
        return;
    endpoint = transfer_endpoint(said, config->coordinator);
    if (!endpoint)
        give_up(daemon, ENOMEM, "out of memory");
    else if (ha_endpoint_check(endpoint, config->key_file != NULL, config->insecure_loopback,
                               &err) < 0)
        ha_log_warning("the coordinator's file endpoint cannot be used: %s", err.text);
    else if (transfer_connect(daemon->transfer, endpoint) < 0)
        give_up(daemon, ENOMEM, "out of memory");
    free(endpoint);
}

static void on_note(void *context, const char *text)
{
    (void)context;
    ha_log_info("%s", text);
}

/* ---- effects of the session: attempts -------------------------------------------------------- */

static struct errand *add_errand(struct daemon *daemon, const struct attempt_id *id)
{
    struct errand *errand = errands_add(&daemon->errands, id);

    if (!errand)
        give_up(daemon, ENOMEM, "out of memory");
    return errand;
}

static void on_fetch(void *context, struct work *work, const char *sha256, int64_t size)
{
    struct daemon *daemon = context;
    const struct errand *same = errands_download(&daemon->errands, sha256);
    struct errand *errand = add_errand(daemon, work_id(work));
    char *path;

    if (!errand)
        return;
    (void)snprintf(errand->sha256, sizeof(errand->sha256), "%s", sha256);
    if (same) {
        errand->tag = same->tag;
        return;
    }
    path = folders_cached(daemon->folders, sha256);
    if (!path || transfer_download(daemon->transfer, errand->tag, sha256, size, path) < 0)
        give_up(daemon, ENOMEM, "out of memory");
    free(path);
}

static void on_find_model(void *context, struct work *work, const char *path, const char *digest)
{
    struct daemon *daemon = context;

    if (model_threads_find(daemon->models, work_id(work), path, digest) < 0)
        give_up(daemon, ENOMEM, "out of memory, or no further thread");
}

static void on_line(void *context, struct work *work, const struct contract_line *line)
{
    struct daemon *daemon = context;
    const struct attempt_id *id = work_id(work);
    const char *model, *digest;
    int64_t now = now_ms(daemon);

    switch (line->kind) {
    case CONTRACT_PHASE:
        session_attempt_phase(daemon->session, id, line->text, now);
        break;
    case CONTRACT_PROGRESS:
        session_attempt_progress(daemon->session, id, &line->progress, now);
        break;
    case CONTRACT_EVENTS:
        for (int64_t i = 0; i < line->n_events; i++)
            session_attempt_event(daemon->session, id, &line->events[i], now);
        break;
    case CONTRACT_ARTIFACT:
        HA_CRASH_POINT("worker.artifact_told");
        session_attempt_artifact(daemon->session, id, &line->artifact, line->text, now);
        break;
    case CONTRACT_MODEL:
        if (work_model(work, &model, &digest))
            holdings_loaded(daemon->keeping.holdings, model, &line->model);
        break;
    case CONTRACT_ERROR: /* kept by work.c for the end */
    case CONTRACT_GANG:  /* crew.c's */
    case CONTRACT_WAITS: /* runner.c's */
    case CONTRACT_OTHER:
        break;
    }
}

static void on_gang_ready(void *context, struct work *work, int rank, const char *id)
{
    struct daemon *daemon = context;

    session_gang_ready(daemon->session, work_id(work), rank, id);
}

static struct work_options work_options(struct daemon *daemon)
{
    const struct ha_worker_config *config = daemon->options.config;

    return (struct work_options){.loop = daemon->loop,
                                 .folders = daemon->folders,
                                 .program = daemon->options.program,
                                 .backend = places_setting(daemon->places),
                                 .threads = daemon->threads,
                                 .grace_ms = config->stop_grace_s * 1000,
                                 .log_bytes = daemon->log_bytes,
                                 .log_files = config->log_files,
                                 /* Both before the attempt as a whole counts as stalled. */
                                 .prepare_ms = config->stall_load_s * 1000 / 4 * 3,
                                 .gang_wait_ms = config->stall_step_s * 1000 / 2,
                                 .devices = places_devices(daemon->places),
                                 .groups = daemon->groups,
                                 .residents = daemon->keeping.residents,
                                 .mark = places_mark(daemon->places),
                                 .fetch = on_fetch,
                                 .find_model = on_find_model,
                                 .line = on_line,
                                 .gang_ready = on_gang_ready,
                                 .context = daemon};
}

/* Takes the work, also when it fails. */
static int add_work(void *context, struct work *work)
{
    struct daemon *daemon = context;
    struct entry *entry = ha_calloc(1, sizeof(*entry));

    if (!entry || !work) {
        free(entry);
        work_destroy(work);
        return -ENOMEM;
    }
    entry->work = work;
    entry->next = daemon->works;
    daemon->works = entry;
    return 0;
}

static void on_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    struct daemon *daemon = context;
    const struct work_options options = work_options(daemon);

    HA_CRASH_POINT("worker.before_start");
    if (add_work(daemon, work_create(&options, id, grant)) < 0) {
        give_up(daemon, ENOMEM, "out of memory");
        return;
    }
    /* Granted before the first heartbeat told that there is no place. */
    if (places_wait(daemon->places))
        work_stop(daemon->works->work);
    else
        ha_log_info("job %" PRIu64 " (%s of sweep %s) begins", id->job, grant->kind, grant->sweep);
}

static void on_stop(void *context, const struct attempt_id *id)
{
    struct work *work = find_work(context, id);

    if (work)
        work_stop(work);
}

static void on_gang(void *context, const struct attempt_id *id, const char *comm_id)
{
    struct work *work = find_work(context, id);

    if (work)
        work_gang(work, comm_id);
}

static void on_upload(void *context, const struct attempt_id *id, int64_t number, const char *path)
{
    struct daemon *daemon = context;
    struct work *work = find_work(daemon, id);
    struct errand *errand = work ? add_errand(daemon, id) : NULL;
    char *file;

    if (!errand)
        return;
    HA_CRASH_POINT("worker.before_upload");
    errand->is_upload = true;
    errand->number = number;
    file = work_upload_path(work, number, path);
    if (!file || transfer_upload(daemon->transfer, errand->tag, file) < 0)
        give_up(daemon, ENOMEM, "out of memory");
    free(file);
}

static void on_keep(void *context, const struct attempt_id *id,
                    const struct ha_wire_attempt_event *event, const char *path)
{
    struct work *work = find_work(context, id);

    if (work)
        work_keep(work, event, path);
}

static void on_delivered(void *context, const struct attempt_id *id, int64_t number)
{
    struct work *work = find_work(context, id);

    if (work)
        work_delivered(work, number);
}

static void on_forget(void *context, const struct attempt_id *id, bool failed)
{
    struct daemon *daemon = context;

    for (struct entry **at = &daemon->works; *at; at = &(*at)->next) {
        struct entry *entry = *at;

        if (!attempt_id_equal(work_id(entry->work), id))
            continue;
        HA_CRASH_POINT("worker.before_forget");
        *at = entry->next;
        work_drop_kept(entry->work);
        if (work_folder(entry->work))
            folders_end_attempt(daemon->folders, work_folder(entry->work), failed);
        work_destroy(entry->work);
        free(entry);
        folders_trim(daemon->folders, cache_bytes);
        return;
    }
}

static const struct session_effects effects = {.send = on_send,
                                               .reconnect = on_reconnect,
                                               .files_endpoint = on_files_endpoint,
                                               .start = on_start,
                                               .stop = on_stop,
                                               .upload = on_upload,
                                               .keep = on_keep,
                                               .delivered = on_delivered,
                                               .forget = on_forget,
                                               .gang = on_gang,
                                               .note = on_note};

/* ---- what comes back from threads ------------------------------------------------------------ */

static void upload_done(struct daemon *daemon, const struct errand *errand,
                        const struct transfer_result *result)
{
    struct work *work = find_work(daemon, &errand->id);
    char *file;

    if (!work)
        return;
    if (result->code < 0) {
        session_upload_failed(daemon->session, &errand->id, errand->number, result->text,
                              now_ms(daemon));
        return;
    }
    HA_CRASH_POINT("worker.after_upload");
    file = work_upload_path(work, errand->number, NULL);
    if (file && result->size < cache_bytes / 4)
        folders_remember(daemon->folders, result->sha256, file);
    free(file);
    session_uploaded(daemon->session, &errand->id, errand->number, result->sha256, result->size,
                     now_ms(daemon));
}

static void on_transfer_done(void *context, const struct transfer_result *result)
{
    struct daemon *daemon = context;
    /* Off the list first: what follows may add some. */
    struct errand *done = errands_take(&daemon->errands, result->tag);

    while (done) {
        struct errand *next = done->next;
        struct work *work = find_work(daemon, &done->id);

        if (done->is_upload) {
            upload_done(daemon, done, result);
        } else if (work) {
            if (result->code < 0)
                ha_log_warning("job %" PRIu64 ": an input cannot be had: %s", done->id.job,
                               result->text);
            work_fetched(work, done->sha256, result->code < 0 ? result->text : NULL);
        }
        free(done);
        done = next;
    }
}

static void on_model_found(void *context, const struct attempt_id *id, const char *path,
                           const char *text)
{
    struct daemon *daemon = context;
    struct work *work = find_work(daemon, id);
    const char *model, *digest;

    if (!work)
        return;
    work_model_found(work, path, text);
    if (work_model(work, &model, &digest))
        holdings_add(daemon->keeping.holdings, model, digest);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void on_session_timer(void *context)
{
    struct daemon *daemon = context;

    session_tick(daemon->session, now_ms(daemon));
}

/* Tell the session what ended in this turn, and when to be called again. */
static void on_turn_end(void *context)
{
    struct daemon *daemon = context;
    struct entry *entry = daemon->works;

    HA_CRASH_POINT("worker.turn");
    while (entry) {
        struct entry *next = entry->next;
        struct attempt_id id = *work_id(entry->work);
        struct work_end end;

        if (work_take_end(entry->work, &end)) {
            ha_log_info("job %" PRIu64 " ended: %s", id.job, end.reason);
            session_gang_ended(daemon->session, &id, end.followed, end.counts, end.n_counts,
                               &end.log);
            session_attempt_ended(daemon->session, &id, end.outcome, end.reason, end.exit_code,
                                  end.log_path, now_ms(daemon));
            next = daemon->works; /* the list may be another one */
        }
        entry = next;
    }
    ha_loop_timer_set(daemon->session_timer, session_next_ms(daemon->session));
    if (daemon->draining && session_is_empty(daemon->session))
        ha_loop_stop(daemon->loop);
}

static void on_child(void *context, int number)
{
    struct daemon *daemon = context;

    (void)number;
    for (const struct entry *entry = daemon->works; entry; entry = entry->next)
        work_check_child(entry->work);
    places_check(daemon->places);
    residents_check(daemon->keeping.residents);
}

static void on_room(void *context)
{
    struct daemon *daemon = context;

    for (const struct entry *entry = daemon->works; entry; entry = entry->next)
        work_room_changed(entry->work);
}

/* The driver has answered: from now on attempts get GPUs. */
static void tell_news(struct daemon *daemon)
{
    const struct places *now = daemon->places;

    keeping_set_devices(&daemon->keeping, places_devices(now));
    if (session_describe(daemon->session, places_backend(now), places_attempt_memory(now),
                         places_gpus(now), places_gpu_memory_bytes(now), now_ms(daemon)) < 0)
        give_up(daemon, ENOMEM, "out of memory");
}

static void on_devices(void *context)
{
    struct daemon *daemon = context;

    if (daemon->session && places_news(daemon->places))
        tell_news(daemon);
    if (daemon->keeping.residents)
        residents_look(daemon->keeping.residents);
    on_room(daemon);
}

static void on_drain_timer(void *context)
{
    struct daemon *daemon = context;

    ha_log_warning("leaving although the coordinator did not take everything");
    ha_loop_stop(daemon->loop);
}

static void on_leave(void *context, int number)
{
    struct daemon *daemon = context;

    if (daemon->draining) {
        ha_log_warning("%s again: leaving at once", number == SIGINT ? "SIGINT" : "SIGTERM");
        ha_loop_stop(daemon->loop);
        return;
    }
    ha_log_info("leaving: attempts are stopped with a checkpoint");
    ha_notify("STOPPING=1");
    daemon->draining = true;
    residents_end(daemon->keeping.residents);
    ha_loop_timer_set_after(daemon->drain_timer,
                            daemon->options.config->stop_grace_s * 1000 + DRAIN_MS);
    session_drain(daemon->session, now_ms(daemon));
}

static void on_watch(void *context, int fd, unsigned events)
{
    struct daemon *daemon = context;
    char bytes[64];
    ssize_t n = read(fd, bytes, sizeof(bytes));

    (void)events;
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    ha_log_info("the program that started this worker is gone: leaving");
    ha_loop_stop(daemon->loop);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int open_session(struct daemon *daemon, struct ha_error *err)
{
    const struct ha_worker_config *config = daemon->options.config;
    char host[HOST_NAME_MAX + 1] = "localhost", instance[IDENTITY_INSTANCE_BYTES];
    struct session_options options = {.version = HA_VERSION,
                                      .instance = instance,
                                      .backend = places_backend(daemon->places),
                                      .host = host,
                                      .pid = getpid(),
                                      .slots = (uint32_t)config->slots,
                                      .memory_bytes = places_attempt_memory(daemon->places),
                                      .labels = &config->labels,
                                      .cpus = (uint32_t)daemon->threads,
                                      .gpus = places_gpus(daemon->places),
                                      .gpu_memory_bytes = places_gpu_memory_bytes(daemon->places),
                                      .host_memory_bytes = ha_memory_total() / config->slots,
                                      .stop_grace_ms = config->stop_grace_s * 1000,
                                      .heartbeat_ms = HEARTBEAT_MS,
                                      .stall_load_ms = config->stall_load_s * 1000,
                                      .stall_step_ms = config->stall_step_s * 1000,
                                      .stall_generate_ms = config->stall_generate_s * 1000};
    char *machine;
    int r = identity_instance(instance, err);

    (void)gethostname(host, sizeof(host) - 1);
    machine = identity_machine(host);
    options.name = config->name ? config->name : host;
    options.machine = machine;
    if (r == 0 && !machine)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = session_create(&options, &effects, daemon, now_ms(daemon), &daemon->session, err);
    free(machine);
    return r;
}

static int open_network(struct daemon *daemon, struct ha_error *err)
{
    const struct ha_worker_config *config = daemon->options.config;
    const struct ha_socket_options socket = {.insecure_loopback = config->insecure_loopback};
    struct transfer_options transfer = {
        .loop = daemon->loop, .socket = socket, .done = on_transfer_done, .context = daemon};
    int r = ha_net_create(&daemon->net, err);

    if (r == 0 && config->key_file) {
        if (!config->server_key_file)
            r = ha_error_set(err, EINVAL, "key_file needs server_key_file (--server-key) as well");
        else
            r = ha_net_secure_client(daemon->net, config->key_file, config->server_key_file, err);
    }
    if (r == 0)
        r = ha_endpoint_check(config->files, config->key_file != NULL, config->insecure_loopback,
                              err);
    if (r == 0)
        r = ha_client_create(daemon->net, daemon->loop, config->coordinator, &socket, on_message,
                             daemon, &daemon->client, err);
    transfer.net = daemon->net;
    if (r == 0)
        r = transfer_create(&transfer, &daemon->transfer, err);
    if (r == 0 && transfer_connect(daemon->transfer, config->files) < 0)
        r = ha_error_set(err, ENOMEM, "out of memory");
    return r;
}

static int open_loop(struct daemon *daemon, struct ha_error *err)
{
    int fd = daemon->options.watch_fd;
    int r = ha_loop_create(&daemon->loop, err);

    if (r == 0)
        r = ha_loop_on_signal(daemon->loop, SIGCHLD, on_child, daemon, err);
    if (r == 0)
        r = ha_loop_on_signal(daemon->loop, SIGTERM, on_leave, daemon, err);
    if (r == 0)
        r = ha_loop_on_signal(daemon->loop, SIGINT, on_leave, daemon, err);
    if (r == 0)
        r = ha_loop_timer_create(daemon->loop, on_session_timer, daemon, &daemon->session_timer,
                                 err);
    if (r == 0)
        r = ha_loop_timer_create(daemon->loop, on_drain_timer, daemon, &daemon->drain_timer, err);
    if (r == 0 && fd >= 0)
        r = ha_loop_watch_fd(daemon->loop, fd, HA_LOOP_READ, on_watch, daemon, &daemon->watch, err);
    return r;
}

static bool works_with(void *context, const char *path, const char *digest)
{
    const struct daemon *daemon = context;

    for (const struct entry *entry = daemon->works; entry; entry = entry->next) {
        const char *at, *is;

        if (work_model(entry->work, &at, &is) && strcmp(at, path) == 0 && strcmp(is, digest) == 0)
            return true;
    }
    return false;
}

static int open_keeping(struct daemon *daemon, struct ha_error *err)
{
    const struct keeping_options options = {.loop = daemon->loop,
                                            .config = daemon->options.config,
                                            .devices = places_devices(daemon->places),
                                            .changed = on_room,
                                            .works_with = works_with,
                                            .context = daemon};

    return keeping_open(&options, &daemon->keeping, err);
}

static int recover(struct daemon *daemon, struct ha_error *err)
{
    const struct work_options options = work_options(daemon);

    return recover_all(daemon->session, daemon->folders, &options, now_ms(daemon), add_work, daemon,
                       err);
}

int daemon_create(const struct daemon_options *options, struct daemon **ret_daemon,
                  struct ha_error *err)
{
    const struct ha_worker_config *config = options->config;
    struct daemon *daemon = ha_calloc(1, sizeof(*daemon));
    int r;

    if (!daemon)
        return ha_error_set(err, ENOMEM, "out of memory");
    daemon->options = *options;
    daemon->threads = config->threads;
    if (daemon->threads == 0)
        daemon->threads = identity_cores() > config->slots ? identity_cores() / config->slots : 1;
    r = ha_memory_parse("log_size", config->log_size, &daemon->log_bytes, err);
    if (r == 0)
        r = folders_open(config->work_dir, &daemon->folders, err);
    if (r == 0)
        r = groups_open(config, &daemon->groups, err);
    if (r == 0)
        r = open_loop(daemon, err);
    if (r == 0)
        r = places_create(daemon->loop, config, options, on_devices, daemon, &daemon->places, err);
    if (r == 0)
        r = open_keeping(daemon, err);
    if (r == 0)
        r = open_network(daemon, err);
    if (r == 0)
        r = model_threads_create(daemon->loop, &config->model_roots,
                                 folders_digests(daemon->folders), on_model_found, daemon,
                                 &daemon->models, err);
    if (r == 0)
        r = open_session(daemon, err);
    if (r == 0)
        r = recover(daemon, err);
    if (r < 0) {
        daemon_destroy(daemon);
        return r;
    }
    ha_loop_on_turn_end(daemon->loop, on_turn_end, daemon);
    *ret_daemon = daemon;
    return 0;
}

void daemon_destroy(struct daemon *daemon)
{
    if (!daemon)
        return;
    while (daemon->works) {
        struct entry *next = daemon->works->next;

        work_destroy(daemon->works->work);
        free(daemon->works);
        daemon->works = next;
    }
    errands_clear(&daemon->errands);
    model_threads_destroy(daemon->models);
    keeping_close(&daemon->keeping);
    places_destroy(daemon->places);
    transfer_destroy(daemon->transfer);
    session_destroy(daemon->session);
    ha_client_destroy(daemon->client);
    ha_net_destroy(daemon->net);
    if (daemon->loop) {
        ha_loop_timer_destroy(daemon->session_timer);
        ha_loop_timer_destroy(daemon->drain_timer);
    }
    ha_loop_destroy(daemon->loop);
    groups_close(daemon->groups);
    folders_close(daemon->folders);
    free(daemon);
}

const char *daemon_backend(const struct daemon *daemon)
{
    return places_backend(daemon->places);
}

int daemon_run(struct daemon *daemon, struct ha_error *err)
{
    int r;

    session_tick(daemon->session, ha_clock_boot_ms());
    ha_loop_timer_set(daemon->session_timer, session_next_ms(daemon->session));
    r = ha_loop_run(daemon->loop, err);
    if (r == 0 && daemon->failure.code)
        r = ha_error_set(err, daemon->failure.code, "%s", daemon->failure.text);
    return r;
}
