#include "judge-worker/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

/* The part after "://", or NULL for another scheme. */
static const char *authority(const char *url)
{
    if (strncmp(url, "https://", 8) == 0)
        return url + 8;
    return strncmp(url, "http://", 7) == 0 ? url + 7 : NULL;
}

int ha_judge_url_host(const char *url, char **ret_host, struct ha_error *err)
{
    const char *from = authority(url);
    size_t size, end;
    char *host;

    if (!from)
        return ha_error_set(err, EINVAL, "judge.base_url must begin with https:// or http://");
    end = strcspn(from, "/?#");
    if (memchr(from, '@', end))
        return ha_error_set(err, EINVAL,
                            "judge.base_url holds a user name; give keys with api_key instead");
    if (from[0] == '[') {
        from++;
        size = strcspn(from, "]");
    } else {
        size = strcspn(from, ":/?#");
    }
    if (size == 0 || size > 253)
        return ha_error_set(err, EINVAL, "judge.base_url names no host");
    host = ha_strndup(from, size);
    if (!host)
        return ha_error_set(err, ENOMEM, "no memory for a host name");
    for (char *at = host; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    *ret_host = host;
    return 0;
}

int ha_judge_url_chat(const char *base_url, char **ret_url, struct ha_error *err)
{
    static const char path[] = "/chat/completions";
    size_t size = strcspn(base_url, "?#");
    const char *query = base_url + size;
    char *url;

    while (size > 0 && base_url[size - 1] == '/')
        size--;
    if (size >= strlen(path) && memcmp(base_url + size - strlen(path), path, strlen(path)) == 0)
        size -= strlen(path);
    url = ha_format("%.*s%s%s", (int)size, base_url, path, query);
    if (!url)
        return ha_error_set(err, ENOMEM, "no memory for an address");
    *ret_url = url;
    return 0;
}

bool ha_judge_host_is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == strlen(host));
}

bool ha_judge_url_exposes_key(const char *url)
{
    char *host = NULL;
    bool exposed;

    if (strncmp(url, "https://", 8) == 0)
        return false;
    exposed = ha_judge_url_host(url, &host, NULL) < 0 || !ha_judge_host_is_loopback(host);
    free(host);
    return exposed;
}
