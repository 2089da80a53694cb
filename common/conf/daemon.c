#include "common/conf/daemon.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/toml.h"

#define COUNT(rows) ((int64_t)(sizeof(rows) / sizeof((rows)[0])))
#define SECTION(variable, title, type, rows)                                                       \
    const struct ha_section variable = {title, rows, COUNT(rows), sizeof(struct type)}
#define AT(member) offsetof(struct ROW_STRUCT, member)
#define BETWEEN(low, high) .minimum = (low), .maximum = (high)
#define OURS .source = HA_SOURCE_OURS
#define LOG_ROWS                                                                                   \
    {"log_level",                                                                                  \
     HA_SETTING_CHOICE,                                                                            \
     AT(log_level),                                                                                \
     .choices = "debug|info|warning|error",                                                        \
     .otherwise = "info",                                                                          \
     OURS,                                                                                         \
     .help = "lines below it are dropped"},                                                        \
    {                                                                                              \
        "log_format", HA_SETTING_CHOICE, AT(log_format), .choices = "text|json",                   \
                                                         .otherwise = "text", OURS,                \
                                                         .help = "of the lines on standard error"  \
    }

static const char default_endpoint[] = "tcp://127.0.0.1:8470";

enum { JUDGE_KEYS_MAX = 256, MS_MAX = 86400000 };

/* clang-format off */
#define ROW_STRUCT ha_coordinator_config
static const struct ha_setting coordinator_rows[] = {
    {"listen", HA_SETTING_TEXT, AT(listen), .otherwise = default_endpoint, OURS,
     .help = "endpoint of the control socket, tcp:// or ipc://"},
    {"files_listen", HA_SETTING_TEXT, AT(files_listen), OURS,
     .help = "of the artifact socket; default: the next port, or listen + \".files\""},
    {"database", HA_SETTING_TEXT, AT(database), .otherwise = "coordinator.db", OURS,
     .help = "SQLite file; on a local disk"},
    {"artifacts", HA_SETTING_TEXT, AT(artifacts), .otherwise = "artifacts", OURS,
     .help = "folder of adapters, checkpoints and data files"},
    {"keys", HA_SETTING_TEXT, AT(keys), .otherwise = "keys", OURS,
     .help = "folder of the CURVE keys and the allow-list (hactl keys init)"},
    {"insecure_loopback", HA_SETTING_BOOL, AT(insecure_loopback), .otherwise = "false", OURS,
     .help = "tcp:// without keys, on this machine only"},
    {"heartbeat_ms", HA_SETTING_INT, AT(heartbeat_ms), BETWEEN(10, MS_MAX), .otherwise = "5000",
     OURS, .help = "how often workers report"},
    {"late_ms", HA_SETTING_INT, AT(late_ms), BETWEEN(10, MS_MAX), .otherwise = "15000", OURS,
     .help = "silence after which a worker gets no new work"},
    {"lost_ms", HA_SETTING_INT, AT(lost_ms), BETWEEN(10, MS_MAX), .otherwise = "60000", OURS,
     .help = "silence after which its jobs are leased again"},
    {"max_frame_bytes", HA_SETTING_INT, AT(max_frame_bytes), BETWEEN(1 << 21, 1 << 30),
     .otherwise = "67108864", OURS, .help = "larger messages are refused unread"},
    {"stop_grace", HA_SETTING_DURATION, AT(stop_grace_s), BETWEEN(0, 3600), .otherwise = "10s",
     OURS, .help = "for open requests when asked to stop"},
    {"preempt_after", HA_SETTING_DURATION, AT(preempt_after_s), BETWEEN(0, 8640000),
     .otherwise = "5m", OURS,
     .help = "an attempt that ran so long stops at a checkpoint when a sweep of higher priority "
             "waits and no other place fits; 0: never"},
    {"gang_ready", HA_SETTING_DURATION, AT(gang_ready_s), BETWEEN(1, 8640000), .otherwise = "30m",
     OURS,
     .help = "from the lease of a gang until all its ranks, on all its workers, are ready; it is "
             "tried again else"},
    {"gang_abort", HA_SETTING_DURATION, AT(gang_abort_s), BETWEEN(1, 86400), .otherwise = "1m", OURS,
     .help = "that the workers of a gang have to end their ranks and say how, once one of them has "
             "failed"},
    {"set_aside_after", HA_SETTING_INT, AT(set_aside_after), BETWEEN(0, 100), .otherwise = "3",
     OURS,
     .help = "so many different jobs that fail on a worker in a row, and not elsewhere, drain it; "
             "0: never"},
    {"gc_after", HA_SETTING_DURATION, AT(gc_after_s), BETWEEN(3600, 315360000), .otherwise = "168h",
     OURS, .help = "hactl gc leaves what was needed since (a submit under way uploads first)"},
    {"max_artifact_size", HA_SETTING_TEXT, AT(max_artifact_size), .memory = true,
     .otherwise = "none", OURS, .help = "larger files are not stored; 4GiB"},
    {"max_sweep_size", HA_SETTING_TEXT, AT(max_sweep_size), .memory = true, .otherwise = "none",
     OURS, .help = "a sweep's data files, adapters, checkpoints, logs, cells, history, answers, "
             "metrics, items and replies together; 100GiB"},
    {"max_connections", HA_SETTING_INT, AT(max_connections), BETWEEN(16, 1000000),
     .otherwise = "15000", OURS, .help = "peers of one socket; messages of further ones are dropped"},
    {"max_requests_per_second", HA_SETTING_INT, AT(max_requests_per_second), BETWEEN(0, 1000000),
     .otherwise = "20000", OURS, .help = "of one connection; further ones are dropped; 0: any"},
    {"max_grids", HA_SETTING_INT, AT(max_grids), BETWEEN(0, 10000), .otherwise = "32", OURS,
     .help = "large submits that are read or compared at a time; further ones are refused; 0: any"},
    {"max_grids_per_client", HA_SETTING_INT, AT(max_grids_per_client), BETWEEN(0, 10000),
     .otherwise = "8", OURS, .help = "the same, of one key; 0: any"},
    LOG_ROWS,
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_worker_config
static const struct ha_setting worker_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), OURS, .help = "of this worker; default: the host's name"},
    {"coordinator", HA_SETTING_TEXT, AT(coordinator), .otherwise = default_endpoint, OURS,
     .help = "its control endpoint"},
    {"files", HA_SETTING_TEXT, AT(files), OURS,
     .help = "its artifact endpoint; default: the next port, or coordinator + \".files\""},
    {"work_dir", HA_SETTING_TEXT, AT(work_dir), .otherwise = "work", OURS,
     .help = "folder of running attempts; on a local disk"},
    {"model_roots", HA_SETTING_LIST, AT(model_roots), OURS,
     .help = "folders below which models are looked for"},
    {"slots", HA_SETTING_INT, AT(slots), BETWEEN(1, 1024), .otherwise = "1", OURS,
     .help = "attempts at a time"},
    {"threads", HA_SETTING_INT, AT(threads), BETWEEN(0, 4096), .otherwise = "0", OURS,
     .help = "of one attempt; 0: the cores shared by the slots"},
    {"backend", HA_SETTING_CHOICE, AT(backend), .choices = "auto|cpu|cuda", .otherwise = "auto",
     OURS, .help = "auto: cuda where there is one"},
    {"labels", HA_SETTING_LIST, AT(labels), OURS, .help = "that resources.labels may ask for"},
    {"gpus", HA_SETTING_INT, AT(gpus), BETWEEN(0, 64), .otherwise = "0", OURS,
     .help = "that one attempt has; resources.gpus asks for them, a process works on each"},
    {"gpu_memory", HA_SETTING_TEXT, AT(gpu_memory), .memory = true, OURS,
     .help = "of each GPU; resources.min_gpu_memory asks for it"},
    {"devices", HA_SETTING_LIST, AT(devices), OURS,
     .help = "GPUs by index or UUID, or \"all\"; default with CUDA: all that "
             "CUDA_VISIBLE_DEVICES leaves"},
    {"device_free_memory", HA_SETTING_TEXT, AT(device_free_memory), .memory = true,
     .otherwise = "1GiB", OURS, .help = "a GPU is offered when no more of its memory is in use"},
    {"device_release", HA_SETTING_DURATION, AT(device_release_s), BETWEEN(1, 3600),
     .otherwise = "60s", OURS, .help = "a GPU whose memory is held so long after its attempt is set aside"},
    {"driver_answer", HA_SETTING_DURATION, AT(driver_answer_s), BETWEEN(1, 600), .otherwise = "15s",
     OURS,
     .help = "a GPU driver that is silent so long at the start: its GPUs are set aside; it is asked "
             "again as often"},
    {"without_driver", HA_SETTING_CHOICE, AT(without_driver), .choices = "wait|cpu",
     .otherwise = "wait", OURS,
     .help = "with backend = auto, until such a driver answers: take no job, or compute on the CPU"},
    {"max_devices_aside", HA_SETTING_INT, AT(max_devices_aside), BETWEEN(0, 256), .otherwise = "2",
     OURS, .help = "GPUs that are set aside for errors until hactl workers undrain"},
    {"key_file", HA_SETTING_TEXT, AT(key_file), OURS,
     .help = "file of mode 0600 with this worker's keys"},
    {"server_key_file", HA_SETTING_TEXT, AT(server_key_file), OURS,
     .help = "file with the coordinator's public key"},
    {"insecure_loopback", HA_SETTING_BOOL, AT(insecure_loopback), .otherwise = "false", OURS,
     .help = "tcp:// without keys, on this machine only"},
    {"cgroup", HA_SETTING_TEXT, AT(cgroup), .otherwise = "auto", OURS,
     .help = "where attempts get control groups: auto (below the worker's own, where it may), off, "
             "or a folder of cgroup version 2"},
    {"attempt_memory", HA_SETTING_TEXT, AT(attempt_memory), .memory = true, OURS,
     .help = "memory.max of each process of an attempt; default: no limit"},
    {"stop_grace", HA_SETTING_DURATION, AT(stop_grace_s), BETWEEN(0, 3600), .otherwise = "60s",
     OURS, .help = "for an attempt's last checkpoint, between SIGTERM and SIGKILL"},
    {"keep_model", HA_SETTING_DURATION, AT(keep_model_s), BETWEEN(0, 86400), .otherwise = "5m",
     OURS, .help = "an attempt's process waits so long, model loaded, for the next job of it; 0: it ends"},
    {"load_disk", HA_SETTING_TEXT, AT(load_disk), .memory = true, .otherwise = "1GiB", OURS,
     .help = "of a model a second from the disk: what the coordinator places jobs by, until a GPU's is measured"},
    {"load_cache", HA_SETTING_TEXT, AT(load_cache), .memory = true, .otherwise = "5GiB", OURS,
     .help = "the same from the page cache"},
    {"stall_load", HA_SETTING_DURATION, AT(stall_load_s), BETWEEN(1, 864000), .otherwise = "30m",
     OURS, .help = "loading longer than this without progress is ended"},
    {"stall_step", HA_SETTING_DURATION, AT(stall_step_s), BETWEEN(1, 864000), .otherwise = "30m",
     OURS, .help = "the same for one optimizer step, or a piece of any other phase"},
    {"stall_generate", HA_SETTING_DURATION, AT(stall_generate_s), BETWEEN(1, 864000),
     .otherwise = "30m", OURS, .help = "the same for generation"},
    {"log_size", HA_SETTING_TEXT, AT(log_size), .memory = true, .otherwise = "64MiB", OURS,
     .help = "of one file of what an attempt prints; the last one is stored"},
    {"log_files", HA_SETTING_INT, AT(log_files), BETWEEN(1, 100), .otherwise = "4", OURS,
     .help = "so many such files are kept in work_dir while it runs"},
    LOG_ROWS,
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_judge_config
static const struct ha_setting judge_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), OURS,
     .help = "of this judge worker; default: the host's name"},
    {"coordinator", HA_SETTING_TEXT, AT(coordinator), .otherwise = default_endpoint, OURS,
     .help = "its control endpoint"},
    {"files", HA_SETTING_TEXT, AT(files), OURS,
     .help = "its artifact endpoint; default: the next port, or coordinator + \".files\""},
    {"spool", HA_SETTING_TEXT, AT(spool), .otherwise = "spool", OURS,
     .help = "folder of replies that the coordinator has not stored yet"},
    {"concurrency", HA_SETTING_INT, AT(concurrency), BETWEEN(1, 4096), .otherwise = "64", OURS,
     .help = "requests at a time over all judges"},
    {"max_reply_bytes", HA_SETTING_INT, AT(max_reply_bytes), BETWEEN(4096, 1 << 26),
     .otherwise = "1048576", OURS, .help = "longer replies are cut off"},
    {"key_file", HA_SETTING_TEXT, AT(key_file), OURS,
     .help = "file of mode 0600 with this judge worker's keys"},
    {"server_key_file", HA_SETTING_TEXT, AT(server_key_file), OURS,
     .help = "file with the coordinator's public key"},
    {"insecure_loopback", HA_SETTING_BOOL, AT(insecure_loopback), .otherwise = "false", OURS,
     .help = "tcp:// without keys, on this machine only"},
    {"grid_keys", HA_SETTING_BOOL, AT(grid_keys), .otherwise = "false", OURS,
     .help = "take api_key_env and api_key_file from grids: the embedded form only"},
    {"stop_grace", HA_SETTING_DURATION, AT(stop_grace_s), BETWEEN(0, 3600), .otherwise = "60s",
     OURS, .help = "for replies that are already paid for"},
    LOG_ROWS,
};
#undef ROW_STRUCT

#define ROW_STRUCT ha_judge_key
static const struct ha_setting judge_key_rows[] = {
    {"name", HA_SETTING_TEXT, AT(name), .required = true, OURS,
     .help = "as a grid's api_key names it"},
    {"env", HA_SETTING_TEXT, AT(env), OURS, .help = "variable that holds the key"},
    {"file", HA_SETTING_TEXT, AT(file), OURS, .help = "file of mode 0600 that holds the key"},
    {"hosts", HA_SETTING_LIST, AT(hosts), .required = true, OURS,
     .help = "the hosts that it may be sent to"},
};
#undef ROW_STRUCT
/* clang-format on */

SECTION(ha_coordinator_section, "", ha_coordinator_config, coordinator_rows);
SECTION(ha_worker_section, "", ha_worker_config, worker_rows);
SECTION(ha_judge_section, "", ha_judge_config, judge_rows);
SECTION(ha_judge_key_section, "key", ha_judge_key, judge_key_rows);

/* --- shared --------------------------------------------------------------- */

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

static int set_override(const struct ha_section *section, const char *override, void *values,
                        struct ha_error *err)
{
    const char *equals = strchr(override, '='), *keys[64], *nearest;
    const struct ha_setting *row = NULL;
    char *key = equals ? ha_strndup(override, (size_t)(equals - override)) : NULL;
    char *where = key ? ha_format("--set %s", key) : NULL;
    int r = 0;

    if (!equals) {
        r = ha_error_set(err, EINVAL, "--set %.80s: write key=value", override);
    } else if (!key || !where) {
        r = no_memory(err);
    } else if ((row = ha_section_find(section, key))) {
        r = ha_section_set(section, row, equals + 1, where, values, err);
    } else {
        for (int64_t i = 0; i < section->count; i++)
            keys[i] = section->rows[i].key;
        nearest = ha_settings_nearest(key, keys, section->count);
        r = ha_error_set(err, EINVAL, "%s: unknown key%s%s%s", where,
                         nearest ? "; did you mean " : "", nearest ? nearest : "",
                         nearest ? "?" : "");
    }
    free(where);
    free(key);
    return r;
}

/* Defaults, the file, the overrides.  *ret_root: the file's tree for further
 * tables; NULL without a file. */
static int load_flat(const struct ha_section *section, const char *path, const char *const *skip,
                     const char *const *overrides, int64_t count, void *values,
                     struct ha_toml **ret_root, struct ha_error *err)
{
    int r = ha_section_init(section, values, err);

    if (r == 0 && path)
        r = ha_toml_load(path, ret_root, err);
    if (r == 0 && path)
        r = ha_section_read(section, *ret_root, path, skip, values, err);
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = set_override(section, overrides[i], values, err);
    return r;
}

/* Put the folder of the config file in front of a relative path. */
static int resolve_path(const char *file, char **path, struct ha_error *err)
{
    char *dir, *whole;

    if (!file || !*path)
        return 0;
    dir = ha_path_dirname(file);
    whole = dir ? ha_path_join(dir, *path) : NULL;
    free(dir);
    if (!whole)
        return no_memory(err);
    free(*path);
    *path = whole;
    return 0;
}

static int resolve_paths(const char *file, char **const *paths, int64_t count, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < count; i++)
        r = resolve_path(file, paths[i], err);
    return r;
}

static int fill_host_name(char **name, struct ha_error *err)
{
    char host[256] = "";

    if (*name)
        return 0;
    if (gethostname(host, sizeof(host) - 1) < 0 || !host[0])
        (void)snprintf(host, sizeof(host), "worker");
    *name = ha_strdup(host);
    return *name ? 0 : no_memory(err);
}

char *ha_endpoint_files(const char *endpoint, struct ha_error *err)
{
    const char *colon = strrchr(endpoint, ':');
    char *end = NULL, *files;
    long port;

    if (strncmp(endpoint, "tcp://", 6) != 0) {
        files = ha_format("%s.files", endpoint);
    } else {
        port = colon > endpoint + 5 ? strtol(colon + 1, &end, 10) : 0;
        if (port < 1 || port > 65534 || *end) {
            (void)ha_error_set(err, EINVAL,
                               "%s has no port from 1 to 65534; name the artifact endpoint too",
                               endpoint);
            return NULL;
        }
        files = ha_format("%.*s:%ld", (int)(colon - endpoint), endpoint, port + 1);
    }
    if (!files)
        (void)no_memory(err);
    return files;
}

static bool endpoint_valid(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", 6) == 0 || strncmp(endpoint, "ipc://", 6) == 0 ||
           strncmp(endpoint, "inproc://", 9) == 0;
}

/* Check the control endpoint and fill the artifact one. */
static int fill_endpoints(const char *file, const char *key, const char *control, char **files,
                          struct ha_error *err)
{
    const char *wrong = !endpoint_valid(control)            ? control
                        : *files && !endpoint_valid(*files) ? *files
                                                            : NULL;

    if (wrong)
        return ha_error_set(err, EINVAL, "%s: endpoint \"%.80s\" must begin with tcp:// or ipc://",
                            file ? file : key, wrong);
    if (*files)
        return 0;
    *files = ha_endpoint_files(control, err);
    return *files ? 0 : ha_error_prefix(err, "%s", file ? file : key);
}

/* --- the three files ------------------------------------------------------ */

static int check_coordinator(const struct ha_coordinator_config *config, const char *file,
                             struct ha_error *err)
{
    if (config->late_ms < config->heartbeat_ms || config->lost_ms < config->late_ms ||
        config->lost_ms / 3 < config->heartbeat_ms)
        return ha_error_set(err, EINVAL,
                            "%s: heartbeat_ms <= late_ms <= lost_ms and 3 heartbeats within "
                            "lost_ms must hold, not %lld, %lld, %lld",
                            file ? file : "coordinator", (long long)config->heartbeat_ms,
                            (long long)config->late_ms, (long long)config->lost_ms);
    return 0;
}

int ha_coordinator_config_load(const char *path, const char *const *overrides, int64_t count,
                               struct ha_coordinator_config *ret_config, struct ha_error *err)
{
    struct ha_coordinator_config config = {0};
    char **const paths[] = {&config.database, &config.artifacts, &config.keys};
    struct ha_toml *root = NULL;
    int r = load_flat(&ha_coordinator_section, path, NULL, overrides, count, &config, &root, err);

    if (r == 0)
        r = resolve_paths(path, paths, 3, err);
    if (r == 0)
        r = check_coordinator(&config, path, err);
    if (r == 0)
        r = fill_endpoints(path, "listen", config.listen, &config.files_listen, err);
    ha_toml_destroy(root);
    if (r == 0)
        *ret_config = config;
    else
        ha_coordinator_config_clear(&config);
    return r;
}

int ha_worker_config_load(const char *path, const char *const *overrides, int64_t count,
                          struct ha_worker_config *ret_config, struct ha_error *err)
{
    struct ha_worker_config config = {0};
    char **const paths[] = {&config.work_dir, &config.key_file, &config.server_key_file};
    struct ha_toml *root = NULL;
    int r = load_flat(&ha_worker_section, path, NULL, overrides, count, &config, &root, err);

    if (r == 0)
        r = resolve_paths(path, paths, 3, err);
    for (int64_t i = 0; r == 0 && i < config.model_roots.count; i++)
        r = resolve_path(path, &config.model_roots.items[i], err);
    if (r == 0)
        r = fill_host_name(&config.name, err);
    if (r == 0)
        r = fill_endpoints(path, "coordinator", config.coordinator, &config.files, err);
    if (r == 0 && config.gpus > 1 && config.slots > 1)
        r = ha_error_set(err, EINVAL,
                         "%s: gpus = %lld with slots = %lld: attempts would meet on the same GPUs; "
                         "start a worker for each slot, each with its CUDA_VISIBLE_DEVICES",
                         path ? path : "the settings", (long long)config.gpus,
                         (long long)config.slots);
    ha_toml_destroy(root);
    if (r == 0)
        *ret_config = config;
    else
        ha_worker_config_clear(&config);
    return r;
}

static int read_key(const struct ha_toml *table, const char *file, struct ha_judge_key *key,
                    struct ha_error *err)
{
    int64_t line = ha_toml_line(table);
    int r = ha_section_init(&ha_judge_key_section, key, err);

    if (r == 0)
        r = ha_section_read(&ha_judge_key_section, table, file, NULL, key, err);
    if (r == 0)
        r = ha_section_check_required(&ha_judge_key_section, key, file, line, err);
    if (r == 0 && (key->env != NULL) == (key->file != NULL))
        r = ha_error_set(err, EINVAL, "%s:%lld: key \"%s\" needs either env or file", file,
                         (long long)line, key->name);
    if (r == 0 && key->hosts.count == 0)
        r = ha_error_set(err, EINVAL, "%s:%lld: key \"%s\" may be sent to no host", file,
                         (long long)line, key->name);
    return r == 0 ? resolve_path(file, &key->file, err) : r;
}

static int read_keys(const struct ha_toml *array, const char *file, struct ha_judge_config *config,
                     struct ha_error *err)
{
    int64_t count = ha_toml_size(array);
    int r = 0;

    if (!array)
        return 0;
    if (!ha_toml_is(array, HA_TOML_ARRAY) || count > JUDGE_KEYS_MAX)
        return ha_error_set(err, EINVAL, "%s:%lld: write [[key]], one for each, at most %d", file,
                            (long long)ha_toml_key_line(array), JUDGE_KEYS_MAX);
    config->keys = ha_calloc(count, sizeof(*config->keys));
    if (!config->keys)
        return no_memory(err);
    for (int64_t i = 0; r == 0 && i < count; i++) {
        config->key_count++;
        if (!ha_toml_is(ha_toml_at(array, i), HA_TOML_TABLE))
            return ha_error_set(err, EINVAL, "%s:%lld: write [[key]], one for each", file,
                                (long long)ha_toml_line(array));
        r = read_key(ha_toml_at(array, i), file, &config->keys[i], err);
        for (int64_t j = 0; r == 0 && j < i; j++)
            if (strcmp(config->keys[i].name, config->keys[j].name) == 0)
                r = ha_error_set(err, EINVAL, "%s:%lld: a second key \"%s\"", file,
                                 (long long)ha_toml_line(ha_toml_at(array, i)),
                                 config->keys[i].name);
    }
    return r;
}

static int load_judge(const char *path, const char *const *overrides, int64_t count,
                      struct ha_judge_config *config, struct ha_error *err)
{
    static const char *const skip[] = {"key", NULL};
    char **const paths[] = {&config->spool, &config->key_file, &config->server_key_file};
    struct ha_toml *root = NULL;
    int r = load_flat(&ha_judge_section, path, skip, overrides, count, config, &root, err);

    if (r == 0)
        r = resolve_paths(path, paths, 3, err);
    if (r == 0)
        r = read_keys(ha_toml_get(root, "key"), path, config, err);
    if (r == 0)
        r = fill_host_name(&config->name, err);
    if (r == 0)
        r = fill_endpoints(path, "coordinator", config->coordinator, &config->files, err);
    ha_toml_destroy(root);
    return r;
}

int ha_judge_config_load(const char *path, const char *const *overrides, int64_t count,
                         struct ha_judge_config *ret_config, struct ha_error *err)
{
    struct ha_judge_config config = {0};
    int r = load_judge(path, overrides, count, &config, err);

    if (r == 0)
        *ret_config = config;
    else
        ha_judge_config_clear(&config);
    return r;
}

void ha_coordinator_config_clear(struct ha_coordinator_config *config)
{
    ha_section_clear(&ha_coordinator_section, config);
}

void ha_worker_config_clear(struct ha_worker_config *config)
{
    ha_section_clear(&ha_worker_section, config);
}

void ha_judge_config_clear(struct ha_judge_config *config)
{
    for (int64_t i = 0; i < config->key_count; i++)
        ha_section_clear(&ha_judge_key_section, &config->keys[i]);
    free(config->keys);
    ha_section_clear(&ha_judge_section, config);
}
