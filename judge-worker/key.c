#include "judge-worker/key.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/secret.h"
#include "common/conf/daemon.h"
#include "common/conf/sweep.h"
#include "common/io/file.h"
#include "judge-worker/url.h"

enum { KEY_BYTES = 16384 };

static int check_key(const char *key, const char *from, struct ha_error *err)
{
    if (key[0] == '\0')
        return ha_error_set(err, EINVAL, "%s holds no key", from);
    for (const char *at = key; *at; at++) {
        if (*at <= ' ' || *at > '~')
            return ha_error_set(err, EINVAL,
                                "%s holds a space or a character that no key has; it must be the "
                                "key alone",
                                from);
    }
    return 0;
}

static int key_from_env(const char *name, char **ret_key, struct ha_error *err)
{
    const char *value = getenv(name);

    if (!value)
        return ha_error_set(err, ENOENT,
                            "the environment variable %s, which is to hold the evaluator's key, is "
                            "not set",
                            name);
    *ret_key = ha_strdup(value);
    return *ret_key ? 0 : ha_error_set(err, ENOMEM, "no memory for a key");
}

static int key_from_file(const char *path, char **ret_key, struct ha_error *err)
{
    struct stat status;
    size_t size;
    char *key;
    int r;

    if (stat(path, &status) < 0)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    if (status.st_mode & 077)
        return ha_error_set(err, EACCES, "%s can be read by others; run: chmod 600 %s", path, path);
    r = ha_file_read(path, KEY_BYTES, &key, &size, err);
    if (r < 0)
        return r;
    key[strcspn(key, "\r\n")] = '\0';
    *ret_key = key;
    return 0;
}

static bool may_go_to(const struct ha_judge_key *binding, const char *host)
{
    for (int64_t i = 0; i < binding->hosts.count; i++) {
        if (strcasecmp(binding->hosts.items[i], host) == 0)
            return true;
    }
    return false;
}

static int find_binding(const struct ha_sweep_judge *judge, const struct ha_judge_config *config,
                        const struct ha_judge_key **ret_binding, struct ha_error *err)
{
    char *host;
    int r;

    for (int64_t i = 0; i < config->key_count; i++) {
        const struct ha_judge_key *binding = &config->keys[i];

        if (strcmp(binding->name, judge->api_key) != 0)
            continue;
        r = ha_judge_url_host(judge->base_url, &host, err);
        if (r < 0)
            return r;
        if (!may_go_to(binding, host))
            r = ha_error_set(err, EACCES,
                             "the key \"%s\" may not be sent to %s; add it to the key's hosts in "
                             "judge.toml",
                             judge->api_key, host);
        free(host);
        if (r == 0)
            *ret_binding = binding;
        return r;
    }
    return ha_error_set(err, ENOENT, "judge.toml has no [[key]] named \"%s\"", judge->api_key);
}

static int find_source(const struct ha_sweep_judge *judge, const struct ha_judge_config *config,
                       const char **ret_env, const char **ret_file, struct ha_error *err)
{
    const struct ha_judge_key *binding = NULL;
    int r;

    *ret_env = NULL;
    *ret_file = NULL;
    if (judge->api_key) {
        r = find_binding(judge, config, &binding, err);
        if (r < 0)
            return r;
        *ret_env = binding->env;
        *ret_file = binding->file;
        return 0;
    }
    if ((judge->api_key_env || judge->api_key_file) && !config->grid_keys)
        return ha_error_set(
            err, EACCES,
            "a grid may name api_key_env or api_key_file in the embedded form only; "
            "use api_key with a [[key]] of judge.toml");
    *ret_env = judge->api_key_env;
    *ret_file = judge->api_key_file;
    return 0;
}

int ha_judge_key_find(const struct ha_sweep_judge *judge, const struct ha_judge_config *config,
                      char **ret_key, struct ha_error *err)
{
    const char *env, *file;
    char *key = NULL;
    int r;

    r = find_source(judge, config, &env, &file, err);
    if (r == 0 && (env || file))
        ha_secret_guard();
    if (r == 0 && env)
        r = key_from_env(env, &key, err);
    else if (r == 0 && file)
        r = key_from_file(file, &key, err);
    if (r == 0 && key)
        r = check_key(key, env ? env : file, err);
    if (r == 0 && key && ha_judge_url_exposes_key(judge->base_url))
        r = ha_error_set(err, EINVAL,
                         "judge.base_url must begin with https:// where a key is sent");
    if (r < 0) {
        ha_judge_key_destroy(key);
        return ha_error_prefix(err, "judge \"%s\"", judge->name);
    }
    if (key)
        ha_log_redact(key);
    *ret_key = key;
    return 0;
}

void ha_judge_key_destroy(char *key)
{
    if (key)
        explicit_bzero(key, strlen(key));
    free(key);
}

void ha_judge_key_hide(const char *key, char *bytes, size_t size)
{
    size_t length = key ? strlen(key) : 0;
    char *at = bytes;

    if (length == 0)
        return;
    while ((at = memmem(at, size - (size_t)(at - bytes), key, length)) != NULL) {
        memset(at, '*', length);
        at += length;
    }
}
