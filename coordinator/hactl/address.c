#include "coordinator/hactl/address.h"

#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/settings.h"
#include "common/conf/toml.h"
#include "common/io/file.h"
#include "coordinator/hactl/cli.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/private_coordinator.h"

enum { ALIVE_MS = 1500, ENDPOINT_FILE_BYTES = 4096 };

struct ha_session {
    struct ha_link *link;
    struct ha_private_coordinator *private_coordinator;
    char *dir;
};

/* The user's config file, a table of settings like every other file. */
struct user_config {
    uint64_t given;
    char *connect, *key, *server_key;
    bool insecure_loopback;
};

static const struct ha_setting user_rows[] = {
    {.key = "connect",
     .type = HA_SETTING_TEXT,
     .offset = offsetof(struct user_config, connect),
     .source = HA_SOURCE_OURS,
     .help = "control endpoint of the coordinator"},
    {.key = "key",
     .type = HA_SETTING_TEXT,
     .offset = offsetof(struct user_config, key),
     .source = HA_SOURCE_OURS,
     .help = "file with this user's CURVE key pair"},
    {.key = "server_key",
     .type = HA_SETTING_TEXT,
     .offset = offsetof(struct user_config, server_key),
     .source = HA_SOURCE_OURS,
     .help = "file with the coordinator's public key"},
    {.key = "insecure_loopback",
     .type = HA_SETTING_BOOL,
     .offset = offsetof(struct user_config, insecure_loopback),
     .otherwise = "false",
     .source = HA_SOURCE_OURS,
     .help = "tcp:// on a loopback address without keys"},
};

static const struct ha_section user_section = {
    .name = "",
    .rows = user_rows,
    .count = sizeof(user_rows) / sizeof(user_rows[0]),
    .bytes = sizeof(struct user_config),
};

static int load_user_config(struct user_config *config, struct ha_error *err)
{
    const char *home = getenv("HOME");
    char *path = home ? ha_path_join(home, ".config/hierarchical-align/hactl.toml") : NULL;
    struct ha_toml *toml = NULL;
    int r = ha_section_init(&user_section, config, err);

    if (r == 0 && path && ha_path_exists(path)) {
        r = ha_toml_load(path, &toml, err);
        if (r == 0)
            r = ha_section_read(&user_section, toml, path, NULL, config, err);
    }
    ha_toml_destroy(toml);
    free(path);
    return r;
}

/* The two lines of an endpoint file: control, then files. */
static int read_endpoints(const char *dir, char **ret_control, char **ret_files,
                          struct ha_error *err)
{
    char *path = ha_path_join(dir, "endpoint"), *text = NULL, *line;
    size_t size;
    int r = path ? ha_file_read(path, ENDPOINT_FILE_BYTES, &text, &size, err)
                 : ha_error_set(err, ENOMEM, "hactl: out of memory");

    free(path);
    if (r < 0)
        return r;
    line = strchr(text, '\n');
    if (!line) {
        free(text);
        return ha_error_set(err, EBADMSG, "%s/endpoint is cut short", dir);
    }
    *line++ = '\0';
    line[strcspn(line, "\n")] = '\0';
    *ret_control = ha_strdup(text);
    *ret_files = ha_strdup(line);
    free(text);
    return *ret_control && *ret_files ? 0 : ha_error_set(err, ENOMEM, "hactl: out of memory");
}

/* Connects to the coordinator that wrote dir/endpoint, if it is alive. */
static int open_endpoint_file(struct ha_session *session, const char *dir, struct ha_error *err)
{
    char *control = NULL, *files = NULL;
    struct ha_link_options options = {.insecure_loopback = true, .hello_timeout_ms = ALIVE_MS};
    int r = read_endpoints(dir, &control, &files, err);

    if (r == 0) {
        options.endpoint = control;
        options.files_endpoint = files;
        r = ha_link_open(&options, &session->link, err);
    }
    free(control);
    free(files);
    return r;
}

static int open_dir(struct ha_session *session, const char *dir, struct ha_error *err)
{
    struct ha_error alive = {0};
    char *database = ha_path_join(dir, "coordinator.db");
    bool known = database && ha_path_exists(database);
    int r;

    free(database);
    session->dir = ha_strdup(dir);
    if (!database || !session->dir)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    /* Looking at a folder never makes a run of it. */
    if (!known)
        return ha_error_set(err, ENOTCONN, "%s: %s", dir,
                            ha_path_is_dir(dir) ? "no run is here (no coordinator.db)"
                                                : "there is no such sweep directory");
    r = open_endpoint_file(session, dir, &alive);
    if (r == 0 || (r != -ENOTCONN && r != -ENOENT)) {
        if (r < 0)
            *err = alive;
        return r;
    }
    r = ha_private_coordinator_start(dir, &session->private_coordinator, err);
    if (r < 0)
        return r;
    return open_endpoint_file(session, dir, err);
}

static int open_endpoint(struct ha_session *session, const struct ha_arguments *arguments,
                         const struct user_config *config, const char *endpoint,
                         struct ha_error *err)
{
    struct ha_link_options options = {
        .endpoint = endpoint,
        .key_file = ha_arguments_value(arguments, "key", config->key),
        .server_key_file = ha_arguments_value(arguments, "server-key", config->server_key),
        .insecure_loopback =
            ha_arguments_given(arguments, "insecure-loopback") || config->insecure_loopback,
    };

    if (options.key_file && !options.server_key_file)
        return ha_error_set(err, EINVAL, "--key needs --server-key, the coordinator's public key");
    return ha_link_open(&options, &session->link, err);
}

/* The folder under ./runs that alone has such a file: 1; 0 when none has it, 2 when
 * several have. */
static int only_run_with(const char *name, char **ret_dir, struct ha_error *err)
{
    char *pattern = ha_path_join("runs/*", name), *dir = NULL;
    glob_t found = {0};
    int r = 0;

    if (!pattern)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (glob(pattern, 0, NULL, &found) == 0)
        r = found.gl_pathc > 1 ? 2 : (int)found.gl_pathc;
    if (r == 1) {
        dir = ha_path_dirname(found.gl_pathv[0]);
        if (dir)
            *ret_dir = dir;
        else
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    globfree(&found);
    free(pattern);
    return r;
}

/* What runs in this folder; where nothing runs, the only run that there is. */
static int open_only_run(struct ha_session *session, struct ha_error *err)
{
    char *dir = NULL;
    int r = only_run_with("endpoint", &dir, err);

    if (r == 0)
        r = only_run_with("coordinator.db", &dir, err);
    if (r == 1)
        r = open_dir(session, dir, err);
    else if (r >= 0)
        r = ha_error_set(err, ENOTCONN,
                         "which coordinator? there are %s under ./runs; give --dir runs/NAME or "
                         "--connect ENDPOINT",
                         r == 0 ? "no runs" : "several runs");
    free(dir);
    return r;
}

int ha_session_open(const struct ha_arguments *arguments, struct ha_session **ret_session,
                    struct ha_error *err)
{
    struct ha_session *session = ha_calloc(1, sizeof(*session));
    const char *connect = ha_arguments_value(arguments, "connect", NULL);
    const char *dir = ha_arguments_value(arguments, "dir", NULL);
    struct user_config config = {0};
    int r;

    if (!session)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    r = load_user_config(&config, err);
    if (r < 0)
        goto out;
    if (!connect && !dir)
        connect = getenv("HA_COORDINATOR");
    if (!connect && !dir)
        connect = config.connect;
    if (connect)
        r = open_endpoint(session, arguments, &config, connect, err);
    else if (dir)
        r = open_dir(session, dir, err);
    else
        r = open_only_run(session, err);
out:
    ha_section_clear(&user_section, &config);
    if (r < 0) {
        ha_session_close(session);
        return r;
    }
    *ret_session = session;
    return 0;
}

void ha_session_close(struct ha_session *session)
{
    if (!session)
        return;
    ha_link_close(session->link);
    ha_private_coordinator_stop(session->private_coordinator);
    free(session->dir);
    free(session);
}

struct ha_link *ha_session_link(const struct ha_session *session)
{
    return session->link;
}

const char *ha_session_dir(const struct ha_session *session)
{
    return session->dir;
}
