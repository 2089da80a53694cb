/* ha-coordinator - wiring: settings, lock, store, sockets, loop */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/arguments.h"
#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/net/socket.h"
#include "common/proc/notify.h"
#include "common/proc/spawn.h"
#include "coordinator/server/fuse_preview.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/server/files.h"
#include "coordinator/server/inspect.h"
#include "coordinator/server/restore.h"
#include "coordinator/server/space.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/store.h"
#include "proto/wire.h"

enum {
    OVERRIDES = 32,
    MESSAGES_PER_TURN = 64,
    TURN_US = 4000, /* of reading: some of the messages take a slice of 2 ms each */
    RESERVE_BYTES = 16 << 20,
    LOOK_MS = 5000,
    SPARE_DESCRIPTORS = 256
};

struct program {
    struct ha_coordinator_config config;
    char *dir; /* of the database: lock, endpoint file, reserve */
    struct ha_lock *lock;
    struct ha_store *store;
    struct ha_loop *loop;
    struct ha_net *net;
    struct ha_server *server;
    struct ha_files *files;
    struct ha_space *space;
    struct ha_coordinator *c;
    struct ha_loop_timer *tick;
    struct ha_loop_fd *watch;
    struct ha_loop_fd *keys_watch;
    int64_t looked_ms, refused, keys_version;
    int64_t max_artifact_bytes, max_sweep_bytes; /* 0: any */
    char libraries[96];
    int status;
};

static const struct ha_option options[] = {
    {"config", "FILE", "coordinator.toml; without it the defaults"},
    {"dir", "DIR", "database DIR/coordinator.db and artifacts DIR/artifacts"},
    {"listen", "ENDPOINT", "control socket, tcp://HOST:PORT or ipc://PATH"},
    {"files", "ENDPOINT", "artifact socket; default: next to the control socket"},
    {"keys", "DIR", "keys and allow-list (hactl keys init)"},
    {"insecure-loopback", NULL, "tcp:// without keys, on this machine only"},
    {"set", "KEY=VALUE", "any key of coordinator.toml (may be repeated)"},
    {"log-format", "FORMAT", "text or json"},
    {"log-level", "LEVEL", "debug, info, warning or error"},
    {"watch-fd", "N", "end when this descriptor does: for programs that start a coordinator"},
    {"fuse", "FILE", "print how the cells in FILE (JSON of hactl) would share jobs, and end"},
    {"check", NULL, "check settings and database, print the settings and end"},
    {"inspect", "FILE", "check a copy of a database, print what it holds and end (hactl backup)"},
    {"restore", "BACKUP", "take a backup's database and artifacts and end (hactl restore)"},
    {"discard-newer", NULL, "restore also over a database that knows more than the backup"},
    {"version", NULL, "print the version and end"},
};

static const struct ha_command command = {
    .name = "ha-coordinator",
    .synopsis = "",
    .summary = "Keep sweeps, give their jobs to workers and their answers to judges.",
    .example = "ha-coordinator --dir /var/lib/hierarchical-align --listen tcp://*:8470",
    .options = options,
    .n_options = sizeof options / sizeof *options,
};

/* ---- settings --------------------------------------------------------------------------- */

static char *absolute(const char *path)
{
    char *here = getcwd(NULL, 0), *joined = here ? ha_path_join(here, path) : NULL;

    free(here);
    return joined;
}

struct overrides {
    char *items[OVERRIDES];
    int64_t count;
};

/* "key=value"; name, when given, is a file of the folder `value`. */
static int override(struct overrides *o, const char *key, const char *value, const char *name,
                    bool is_path, struct ha_error *err)
{
    char *path = is_path ? absolute(value) : NULL;
    char *text;

    if (o->count == OVERRIDES)
        return ha_error_set(err, E2BIG, "more than %d settings on the command line", OVERRIDES);
    text = ha_format("%s=%s%s%s", key, path ? path : value, name ? "/" : "", name ? name : "");
    free(path);
    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    o->items[o->count++] = text;
    return 0;
}

static int collect(const struct ha_arguments *arguments, struct overrides *o, struct ha_error *err)
{
    static const struct {
        const char *option, *key, *name;
        bool is_path;
    } keys[] = {
        {"dir", "database", "coordinator.db", true},
        {"dir", "artifacts", "artifacts", true},
        {"dir", "keys", "keys", true},
        {"listen", "listen", NULL, false},
        {"files", "files_listen", NULL, false},
        {"keys", "keys", NULL, true},
        {"log-format", "log_format", NULL, false},
        {"log-level", "log_level", NULL, false},
    };
    int64_t count;
    const char *const *given = ha_arguments_values(arguments, "set", &count);
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof keys / sizeof *keys; i++) {
        const char *value = ha_arguments_value(arguments, keys[i].option, NULL);

        if (value)
            r = override(o, keys[i].key, value, keys[i].name, keys[i].is_path, err);
    }
    if (r == 0 && ha_arguments_given(arguments, "insecure-loopback"))
        r = override(o, "insecure_loopback", "true", NULL, false, err);
    for (int64_t i = 0; r == 0 && i < count; i++) {
        if (o->count == OVERRIDES)
            return ha_error_set(err, E2BIG, "more than %d settings on the command line", OVERRIDES);
        o->items[o->count] = ha_strdup(given[i]);
        r = o->items[o->count] ? 0 : ha_error_set(err, ENOMEM, "out of memory");
        o->count += r == 0;
    }
    return r;
}

static int load(const struct ha_arguments *arguments, struct ha_coordinator_config *ret_config,
                struct ha_error *err)
{
    struct overrides o = {.count = 0};
    int r = collect(arguments, &o, err);

    if (r == 0)
        r = ha_coordinator_config_load(ha_arguments_value(arguments, "config", NULL),
                                       (const char *const *)o.items, o.count, ret_config, err);
    for (int64_t i = 0; i < o.count; i++)
        free(o.items[i]);
    return r;
}

static void set_up_log(const struct ha_coordinator_config *config)
{
    enum ha_log_level level = HA_LOG_INFO;

    ha_log_level_parse(config->log_level, &level);
    ha_log_setup("ha-coordinator", level,
                 strcmp(config->log_format, "json") == 0 ? HA_LOG_JSON : HA_LOG_TEXT);
}

/* ---- hooks ------------------------------------------------------------------------------- */

static int on_send(void *context, uint64_t peer, const void *data, size_t size)
{
    struct program *p = context;
    int r = ha_server_send(p->server, peer, data, size);

    if (r < 0 && r != -EHOSTUNREACH)
        ha_log_warning("a message to a peer was dropped: %s", strerror(-r));
    return r;
}

static void on_artifact_durable(void *context, const char *sha256)
{
    struct program *p = context;

    ha_files_committed(p->files, sha256);
}

static void on_artifact_refused(void *context, const char *sha256, const struct ha_error *why)
{
    struct program *p = context;

    ha_files_not_stored(p->files, sha256, why);
}

static void on_orphan(void *context, const char *sha256)
{
    struct program *p = context;

    ha_files_orphan(p->files, sha256);
}

static void on_snapshot_copied(void *context, int64_t number, const char *path)
{
    struct program *p = context;
    struct ha_error err = {0};

    if (ha_files_adopt(p->files, number, path) < 0) {
        ha_error_set(&err, ENOMEM, "no memory for a backup");
        ha_coordinator_snapshot(p->c, number, "", 0, &err);
    }
}

static void on_snapshot_end(void *context, const char *sha256)
{
    struct program *p = context;

    ha_files_drop_snapshot(p->files, sha256);
}

static void on_snapshot(void *context, int64_t number, const char *sha256, int64_t size,
                        const struct ha_error *why)
{
    struct program *p = context;

    ha_coordinator_snapshot(p->c, number, sha256, size, why);
}

static void on_disk_full(void *context)
{
    struct program *p = context;

    ha_space_give_up(p->space);
    p->looked_ms = 0;
}

static void begin_turn(struct program *p)
{
    ha_coordinator_turn_begin(p->c, ha_loop_now_ms(p->loop), ha_clock_wall_ms());
}

static void on_artifact_stored(void *context, const char *sha256, int64_t size)
{
    struct program *p = context;

    HA_CRASH_POINT("coordinator.artifact_stored");
    begin_turn(p);
    ha_coordinator_artifact(p->c, sha256, size);
}

static void on_files_fatal(void *context, const char *why)
{
    struct program *p = context;

    ha_log_error("%s", why);
    p->status = EXIT_FAILURE;
    ha_loop_stop(p->loop);
}

static void on_message(void *context, const struct ha_server_message *from)
{
    struct program *p = context;
    struct ha_origin origin = {.peer = from->peer, .key = from->name, .role = from->role};
    struct ha_wire_limits limits = ha_wire_default_limits;
    struct ha_wire_message *message;
    struct ha_error err = {0};

    limits.frame_bytes = (size_t)p->config.max_frame_bytes;
    begin_turn(p);
    if (ha_wire_decode(from->data, from->size, &limits, &message, &err) < 0) {
        ha_coordinator_garbage(p->c, &origin, ha_wire_peek_request_id(from->data, from->size),
                               &err);
        return;
    }
    ha_coordinator_message(p->c, &origin, message);
    ha_wire_message_destroy(message);
}

static void on_gone(void *context, ha_peer peer)
{
    struct program *p = context;

    ha_coordinator_peer_gone(p->c, peer);
}

/* ---- the loop ------------------------------------------------------------------------------ */

static void look_at_disk(struct program *p)
{
    int64_t now = ha_loop_now_ms(p->loop), refused;
    struct ha_error err = {0};

    if (p->looked_ms != 0 && now - p->looked_ms < LOOK_MS)
        return;
    p->looked_ms = now;
    ha_coordinator_set_disk_low(p->c, ha_space_look(p->space));
    refused = ha_server_refused(p->server) + ha_files_refused(p->files);
    if (refused > p->refused)
        ha_log_warning("%lld messages were refused: keys that are not allowed, or over the limits",
                       (long long)(refused - p->refused));
    p->refused = refused;
    if (ha_net_keys_trouble(p->net, &err) < 0)
        ha_log_error("the allow-list cannot be read, the keys that it lacks are refused: %s",
                     ha_error_text(&err));
    ha_coordinator_set_refused(p->c, refused);
}

static void look_at_keys(struct program *p)
{
    int64_t version = ha_net_keys_version(p->net);

    if (version == p->keys_version)
        return;
    p->keys_version = version;
    ha_coordinator_keys_changed(p->c);
}

static enum ha_net_role on_key_role(void *context, const char *name)
{
    struct program *p = context;

    return ha_net_role_named(p->net, name);
}

/* The end of the turn looks at what changed. */
static void on_keys(void *context, int fd, unsigned events)
{
    (void)context;
    (void)fd;
    (void)events;
}

static enum ha_leisure leisure(const struct program *p)
{
    if (ha_loop_input_pending(p->loop) || ha_coordinator_idle_ms(p->c) == 0)
        return HA_LEISURE_NONE;
    return ha_coordinator_at_rest(p->c) ? HA_LEISURE_REST : HA_LEISURE_TURN;
}

static void on_turn_end(void *context)
{
    struct program *p = context;
    struct ha_error err = {0};
    int64_t idle_ms;

    begin_turn(p);
    look_at_keys(p);
    look_at_disk(p);
    if (ha_coordinator_turn_end(p->c, ha_loop_input_pending(p->loop), &err) < 0) {
        ha_log_error("%s", ha_error_text(&err));
        p->status = EXIT_FAILURE;
        ha_loop_stop(p->loop);
        return;
    }
    idle_ms = ha_coordinator_idle_ms(p->c);
    if (ha_store_tidy(p->store, leisure(p), &err) < 0)
        ha_log_warning("%s", ha_error_text(&err));
    if (idle_ms > HA_COORDINATOR_REST_MS && ha_store_wants_rest(p->store))
        idle_ms = HA_COORDINATOR_REST_MS;
    ha_loop_timer_set_after(p->tick, idle_ms);
    ha_loop_rest(p->loop, ha_coordinator_rest_ms(p->c));
}

/* The timer only makes a turn; its end does the work. */
static void on_tick(void *context)
{
    (void)context;
}

static void on_stop(void *context, int number)
{
    struct program *p = context;

    ha_log_info("stopping (signal %d)", number);
    ha_loop_stop(p->loop);
}

static void on_reload(void *context, int number)
{
    struct program *p = context;
    struct ha_error err = {0};

    (void)number;
    if (ha_net_reload_keys(p->net, &err) < 0)
        ha_log_error("the old allow-list stays: %s", ha_error_text(&err));
    else
        ha_log_info("the allow-list was read again");
}

static void on_watch(void *context, int fd, unsigned events)
{
    struct program *p = context;
    char byte;

    (void)events;
    if (read(fd, &byte, 1) > 0)
        return;
    ha_log_info("stopping: the program that started this one is gone");
    ha_loop_fd_end(p->watch);
    p->watch = NULL;
    ha_loop_stop(p->loop);
}

/* SQLite's log needs a disk of this machine; a folder shared over the network
 * works while nobody else opens it, so it is a warning. */
static void warn_of_network(const char *dir)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } table[] = {{0x6969, "NFS"},        {0x517b, "SMB"},        {0xff534d42, "CIFS"},
                 {0xfe534d42, "SMB2"},   {0x0bd00bd0, "Lustre"}, {0x65735546, "FUSE"},
                 {0x19830326, "BeeGFS"}, {0x00c36400, "Ceph"},   {0x47504653, "GPFS"}};
    struct statfs fs;

    if (statfs(dir, &fs) < 0)
        return;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if ((uint32_t)fs.f_type == table[i].magic)
            ha_log_warning("%s is on %s: keep the database on a disk of this machine", dir,
                           table[i].name);
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

static int lock_folder(struct program *p, struct ha_error *err)
{
    char *lock_path;
    int r;

    p->dir = ha_path_dirname(p->config.database);
    lock_path = p->dir ? ha_path_join(p->dir, "coordinator.lock") : NULL;
    if (!lock_path)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = ha_path_make_durable(p->dir, 0700, err);
    if (r == 0) {
        r = ha_lock_take(lock_path, &p->lock, err);
        if (r == -EWOULDBLOCK)
            ha_error_prefix(err, "another coordinator is running here");
    }
    free(lock_path);
    if (r == 0)
        warn_of_network(p->dir);
    return r;
}

static int open_store(struct program *p, struct ha_error *err)
{
    int r = lock_folder(p, err);

    if (r == 0)
        r = ha_restore_check_marker(p->config.database, err);
    if (r == 0)
        r = ha_store_open(p->config.database, &p->store, err);
    if (r == 0)
        r = ha_space_create(p->dir, RESERVE_BYTES, &p->space, err);
    return r;
}

static bool is_tcp(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", 6) == 0;
}

static bool serves_with_keys(const struct program *p)
{
    return !p->config.insecure_loopback &&
           (is_tcp(p->config.listen) || is_tcp(p->config.files_listen));
}

static int secure(struct program *p, struct ha_error *err)
{
    char *key, *allowed;
    int r;

    if (!serves_with_keys(p))
        return 0;
    key = ha_path_join(p->config.keys, "server.key");
    allowed = ha_path_join(p->config.keys, "clients");
    r = key && allowed ? ha_net_secure_server(p->net, key, allowed, err)
                       : ha_error_set(err, ENOMEM, "out of memory");
    if (r == -ENOENT)
        ha_error_prefix(err, "tcp:// needs keys (hactl keys init makes them)");
    free(key);
    free(allowed);
    return r;
}

/* "none" is 0. */
static int read_size(const char *key, const char *text, int64_t *ret_bytes, struct ha_error *err)
{
    *ret_bytes = 0;
    return strcmp(text, "none") == 0 ? 0 : ha_memory_parse(key, text, ret_bytes, err);
}

static int read_sizes(struct program *p, struct ha_error *err)
{
    const struct ha_coordinator_config *from = &p->config;
    int r = read_size("max_artifact_size", from->max_artifact_size, &p->max_artifact_bytes, err);

    return r < 0 ? r : read_size("max_sweep_size", from->max_sweep_size, &p->max_sweep_bytes, err);
}

static int bind_files(struct program *p, struct ha_error *err)
{
    return ha_files_start(
        &(struct ha_files_options){.net = p->net,
                                   .main_loop = p->loop,
                                   .endpoint = p->config.files_listen,
                                   .dir = p->config.artifacts,
                                   .socket = {.insecure_loopback = p->config.insecure_loopback,
                                              .max_message_bytes = 4 << 20,
                                              .max_peers = p->config.max_connections,
                                              .max_per_second = p->config.max_requests_per_second},
                                   .max_artifact_bytes = p->max_artifact_bytes,
                                   .stored = on_artifact_stored,
                                   .fatal = on_files_fatal,
                                   .snapshot = on_snapshot,
                                   .context = p},
        &p->files, err);
}

static int start_core(struct program *p, struct ha_error *err)
{
    struct ha_coordinator_options core = {
        .rules = {p->config.heartbeat_ms, p->config.late_ms, p->config.lost_ms},
        .preempt_ms = p->config.preempt_after_s * 1000,
        .gang = {p->config.gang_ready_s * 1000, p->config.gang_abort_s * 1000},
        .suspect_jobs = p->config.set_aside_after,
        .artifacts = p->config.artifacts,
        .database = p->config.database,
        .keys = serves_with_keys(p) ? p->config.keys : NULL,
        .libraries = p->libraries,
        .gc_after_ms = p->config.gc_after_s * 1000,
        .max_sweep_bytes = p->max_sweep_bytes,
        .max_grids = p->config.max_grids,
        .max_grids_per_client = p->config.max_grids_per_client,
        .version = HA_VERSION,
        .files_endpoint = ha_files_endpoint(p->files)};
    struct ha_coordinator_hooks hooks = {.send = on_send,
                                         .artifact_stored = on_artifact_durable,
                                         .artifact_not_stored = on_artifact_refused,
                                         .artifact_orphan = on_orphan,
                                         .disk_full = on_disk_full,
                                         .snapshot_copied = on_snapshot_copied,
                                         .snapshot_end = on_snapshot_end,
                                         .key_role = on_key_role,
                                         .context = p};

    return ha_coordinator_create(&core, &hooks, p->store, ha_clock_boot_ms(), ha_clock_wall_ms(),
                                 &p->c, err);
}

static int bind_control(struct program *p, struct ha_error *err)
{
    struct ha_socket_options socket = {.insecure_loopback = p->config.insecure_loopback,
                                       .max_message_bytes = p->config.max_frame_bytes,
                                       .max_peers = p->config.max_connections,
                                       .max_per_second = p->config.max_requests_per_second,
                                       .messages_per_turn = MESSAGES_PER_TURN,
                                       .turn_us = TURN_US};
    struct ha_server_handlers handlers = {.message = on_message, .gone = on_gone, .context = p};

    return ha_server_create(p->net, p->loop, p->config.listen, &socket, &handlers, &p->server, err);
}

/* Where clients of this folder find the sockets: two lines. */
static int write_endpoints(struct program *p, struct ha_error *err)
{
    char *path = ha_path_join(p->dir, "endpoint");
    char *text = ha_format("%s\n%s\n", ha_server_endpoint(p->server), ha_files_endpoint(p->files));
    int r = path && text ? ha_file_write(path, text, strlen(text), 0600, err)
                         : ha_error_set(err, ENOMEM, "out of memory");

    free(path);
    free(text);
    return r;
}

static int watch(struct program *p, const char *number, struct ha_error *err)
{
    char *end;
    long fd = strtol(number, &end, 10);

    if (*end || end == number || fd < 0 || fd > 65535)
        return ha_error_set(err, EINVAL, "--watch-fd %s: not a descriptor", number);
    return ha_loop_watch_fd(p->loop, (int)fd, HA_LOOP_READ, on_watch, p, &p->watch, err);
}

/* Every connection is a descriptor, and a peer may have one to either socket. */
static void raise_descriptors(const struct program *p)
{
    rlim_t least = (rlim_t)p->config.max_connections + SPARE_DESCRIPTORS;
    rlim_t need = least + (rlim_t)p->config.max_connections;
    struct rlimit limit;

    if ((!is_tcp(p->config.listen) && !is_tcp(p->config.files_listen)) ||
        getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < least)
        ha_log_warning("%lld descriptors are allowed, max_connections = %lld needs %lld; raise "
                       "LimitNOFILE (ulimit -n), or lower max_connections",
                       (long long)limit.rlim_cur, (long long)p->config.max_connections,
                       (long long)least);
}

/* Lock, database, then sockets: a second bind on an ipc path would steal it. */
static int start(struct program *p, const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *watched = ha_arguments_value(arguments, "watch-fd", NULL);
    int r = read_sizes(p, err);

    (void)snprintf(p->libraries, sizeof p->libraries, "SQLite %s, libzmq %s", ha_store_library(),
                   ha_net_library());
    raise_descriptors(p);
    if (r == 0)
        r = open_store(p, err);
    if (r == 0)
        r = ha_loop_create(&p->loop, err);
    if (r == 0)
        r = ha_loop_on_signal(p->loop, SIGTERM, on_stop, p, err);
    if (r == 0)
        r = ha_loop_on_signal(p->loop, SIGINT, on_stop, p, err);
    if (r == 0)
        r = ha_loop_on_signal(p->loop, SIGHUP, on_reload, p, err);
    if (r == 0)
        r = ha_net_create(&p->net, err);
    if (r == 0)
        r = secure(p, err);
    if (r == 0)
        r = bind_files(p, err);
    if (r == 0)
        r = start_core(p, err);
    if (r == 0)
        r = bind_control(p, err);
    if (r == 0 && watched)
        r = watch(p, watched, err);
    if (r == 0 && ha_net_keys_fd(p->net) >= 0)
        r = ha_loop_watch_fd(p->loop, ha_net_keys_fd(p->net), HA_LOOP_READ, on_keys, p,
                             &p->keys_watch, err);
    if (r == 0)
        r = ha_loop_timer_create(p->loop, on_tick, p, &p->tick, err);
    if (r == 0)
        r = write_endpoints(p, err);
    if (r == 0) {
        ha_loop_on_turn_end(p->loop, on_turn_end, p);
        ha_loop_timer_set_after(p->tick, 0);
    }
    return r;
}

static void stop(struct program *p)
{
    char *endpoint = p->dir && p->server ? ha_path_join(p->dir, "endpoint") : NULL;

    if (endpoint)
        unlink(endpoint);
    free(endpoint);
    ha_server_destroy(p->server);
    ha_coordinator_destroy(p->c); /* what waited for a backup to end is removed by the thread */
    ha_files_stop(p->files);
    ha_loop_fd_end(p->watch);
    ha_loop_fd_end(p->keys_watch);
    ha_loop_timer_destroy(p->tick);
    ha_loop_destroy(p->loop);
    ha_net_destroy(p->net);
    ha_space_destroy(p->space);
    ha_store_close(p->store);
    ha_lock_release(p->lock);
    free(p->dir);
}

static int serve(struct program *p, const struct ha_arguments *arguments)
{
    struct ha_error err = {0};
    int r = start(p, arguments, &err);

    if (r == 0) {
        ha_log_info("listening on %s, artifacts on %s", ha_server_endpoint(p->server),
                    ha_files_endpoint(p->files));
        ha_notify("READY=1");
        r = ha_loop_run(p->loop, &err);
        ha_notify("STOPPING=1");
    }
    if (r < 0) {
        ha_log_error("%s", ha_error_text(&err));
        p->status = EXIT_FAILURE;
    }
    stop(p);
    return p->status;
}

static int check(struct program *p)
{
    struct ha_error err = {0};
    struct ha_buffer text;
    int r = 0;

    ha_buffer_init(&text, 0);
    if (ha_section_print(&ha_coordinator_section, &p->config, &text) < 0)
        r = ha_error_set(&err, ENOMEM, "out of memory");
    fputs(ha_buffer_text(&text), stdout);
    ha_buffer_clear(&text);
    if (r == 0 && ha_path_exists(p->config.database))
        r = open_store(p, &err);
    if (r == 0 && p->store)
        r = ha_store_check(p->store, &err);
    stop(p);
    if (r < 0)
        ha_log_error("%s", ha_error_text(&err));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- restore --------------------------------------------------------------------------------- */

static int restore(struct program *p, const struct ha_arguments *arguments)
{
    struct ha_restore_options order = {
        .backup = ha_arguments_value(arguments, "restore", ""),
        .database = p->config.database,
        .artifacts = p->config.artifacts,
        .discard_newer = ha_arguments_given(arguments, "discard-newer"),
    };
    struct ha_error err = {0};
    int r = lock_folder(p, &err);

    if (r == 0)
        r = ha_restore_and_tell(&order, &err);
    stop(p);
    if (r < 0)
        ha_log_error("%s", ha_error_text(&err));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct program program = {.status = EXIT_SUCCESS};
    struct ha_arguments *arguments;
    struct ha_error err = {0};
    int status = EXIT_SUCCESS;

    ha_log_setup("ha-coordinator", HA_LOG_INFO, HA_LOG_TEXT);
    if (ha_arguments_parse(&command, argc, (const char *const *)argv, 1, &arguments, &err) < 0) {
        fprintf(stderr, "%s\n", ha_error_text(&err));
        return 2;
    }
    if (ha_arguments_help(arguments)) {
        ha_command_print_help(&command);
    } else if (ha_arguments_given(arguments, "version")) {
        printf("ha-coordinator %s\n", HA_VERSION);
    } else if (ha_arguments_given(arguments, "fuse")) {
        if (ha_fuse_preview(ha_arguments_value(arguments, "fuse", ""), &err) < 0) {
            fprintf(stderr, "ha-coordinator: %s\n", ha_error_text(&err));
            status = EXIT_FAILURE;
        }
    } else if (ha_arguments_given(arguments, "inspect")) {
        if (ha_inspect(ha_arguments_value(arguments, "inspect", ""), &err) < 0)
            status = EXIT_FAILURE;
    } else if (load(arguments, &program.config, &err) < 0) {
        fprintf(stderr, "ha-coordinator: %s\n", ha_error_text(&err));
        status = 2;
    } else {
        set_up_log(&program.config);
        if (ha_arguments_given(arguments, "restore"))
            status = restore(&program, arguments);
        else
            status = ha_arguments_given(arguments, "check") ? check(&program)
                                                            : serve(&program, arguments);
        ha_coordinator_config_clear(&program.config);
    }
    ha_arguments_destroy(arguments);
    return status;
}
