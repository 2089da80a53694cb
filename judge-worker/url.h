/* url.h - the parts of an evaluator's address that we look at */
#ifndef HA_JUDGE_WORKER_URL_H
#define HA_JUDGE_WORKER_URL_H

#include <stdbool.h>

struct ha_error;

/* The host of an http:// or https:// URL, in lower case and without port; the
 * caller frees it.  -EINVAL for another scheme, a user name, or no host. */
int ha_judge_url_host(const char *url, char **ret_host, struct ha_error *err);

/* base_url + "/chat/completions", in front of a query if base_url has one. */
int ha_judge_url_chat(const char *base_url, char **ret_url, struct ha_error *err);

/* localhost, 127.0.0.0/8, ::1. */
bool ha_judge_host_is_loopback(const char *host);

/* The key would cross a network unencrypted. */
bool ha_judge_url_exposes_key(const char *url);

#endif
