#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/error.h"
#include "common/net/net_inside.h"

enum { MAX_IPC_PATH_BYTES = 107 }; /* sockaddr_un.sun_path without its zero */

static bool has_scheme(const char *endpoint, const char *scheme, const char **ret_rest)
{
    size_t length = strlen(scheme);

    if (strncmp(endpoint, scheme, length) != 0)
        return false;
    *ret_rest = endpoint + length;
    return true;
}

static bool is_loopback(const char *host, size_t length)
{
    if (length >= 4 && strncmp(host, "127.", 4) == 0)
        return strspn(host, "0123456789.") >= length;
    return (length == 9 && strncasecmp(host, "localhost", 9) == 0) ||
           (length == 5 && strncmp(host, "[::1]", 5) == 0);
}

static int check_ipc(const char *endpoint, const char *path, struct ha_error *err)
{
    size_t length = strlen(path);

    if (length == 0)
        return ha_error_set(err, EINVAL, "%s has no path", endpoint);
    if (length > MAX_IPC_PATH_BYTES)
        return ha_error_set(err, ENAMETOOLONG,
                            "%s: the path has %zu bytes, a socket's may have %d; use a folder "
                            "with a shorter name",
                            endpoint, length, MAX_IPC_PATH_BYTES);
    return 0;
}

static int check_tcp(const char *endpoint, const char *address, bool secure, bool insecure_loopback,
                     struct ha_error *err)
{
    const char *colon = strrchr(address, ':');
    char *end = NULL;
    long port = colon && colon[1] ? strtol(colon + 1, &end, 10) : -1;
    bool any_port = colon && strcmp(colon, ":*") == 0;

    if (!colon || colon == address || (!any_port && (port < 0 || port > 65535 || *end)))
        return ha_error_set(err, EINVAL, "%s is not of the form tcp://HOST:PORT", endpoint);
    if (insecure_loopback && is_loopback(address, (size_t)(colon - address)))
        return 0;
    if (secure)
        return 0;
    return ha_error_set(err, EACCES,
                        "%s needs keys (see `hactl keys`); without keys only ipc:// and, with "
                        "--insecure-loopback, loopback addresses are allowed",
                        endpoint);
}

int ha_endpoint_check(const char *endpoint, bool secure, bool insecure_loopback,
                      struct ha_error *err)
{
    const char *rest;

    if (has_scheme(endpoint, "ipc://", &rest))
        return check_ipc(endpoint, rest, err);
    if (has_scheme(endpoint, "inproc://", &rest) && *rest)
        return 0;
    if (has_scheme(endpoint, "tcp://", &rest))
        return check_tcp(endpoint, rest, secure, insecure_loopback, err);
    return ha_error_set(err, EINVAL, "%s is not an endpoint: ipc://PATH or tcp://HOST:PORT",
                        endpoint);
}

bool ha_endpoint_uses_keys(const char *endpoint, bool insecure_loopback)
{
    const char *rest, *colon;

    if (!has_scheme(endpoint, "tcp://", &rest))
        return false;
    colon = strrchr(rest, ':');
    return !(insecure_loopback && colon && is_loopback(rest, (size_t)(colon - rest)));
}
