#include "judge-worker/identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"
#include "judge-worker/parser.h"
#include "judge-worker/profile.h"
#include "judge-worker/prompt.h"
#include "judge-worker/url.h"

static bool seed_given(const struct ha_sweep_judge *judge)
{
    return ha_section_given(&ha_sweep_judge_section,
                            ha_section_find(&ha_sweep_judge_section, "seed"), judge);
}

static int set_extra(struct ha_json *json, const char *extra)
{
    struct ha_json *value = NULL;
    int r;

    if (!extra)
        return 0;
    r = ha_json_parse(extra, strlen(extra), "judge.extra", &value, NULL);
    return r < 0 ? r : ha_json_set(json, "extra", value);
}

int ha_judge_identity_json(const struct ha_sweep_judge *judge, struct ha_json **ret_json,
                           struct ha_error *err)
{
    char prompt[HA_SHA256_HEX_BYTES];
    struct ha_json *json;
    char *host = NULL;
    int r;

    r = ha_judge_prompt_digest(judge->prompt, prompt, err);
    if (r < 0)
        return r;
    if (!judge->endpoint) {
        r = ha_judge_url_host(judge->base_url, &host, err);
        if (r < 0)
            return r;
    }
    json = ha_json_new_object();
    r = json ? 0 : -ENOMEM;
    if (r == 0)
        r = ha_json_set(json, "prompt", ha_json_new_string(judge->prompt));
    if (r == 0)
        r = ha_json_set(json, "prompt_sha256", ha_json_new_string(prompt));
    if (r == 0)
        r = ha_json_set(json, "parser", ha_json_new_int(HA_JUDGE_PARSER_VERSION));
    if (r == 0)
        r = ha_json_set(json, "endpoint",
                        ha_json_new_string(judge->endpoint ? judge->endpoint : host));
    if (r == 0)
        r = ha_json_set(json, "provider",
                        ha_json_new_string(ha_judge_profile_find(judge->provider)->name));
    if (r == 0)
        r = ha_json_set(json, "model", ha_json_new_string(judge->model));
    if (r == 0)
        r = ha_json_set(json, "temperature", ha_json_new_real(judge->temperature));
    if (r == 0 && seed_given(judge))
        r = ha_json_set(json, "seed", ha_json_new_int(judge->seed));
    if (r == 0)
        r = ha_json_set(json, "max_tokens", ha_json_new_int(judge->max_tokens));
    if (r == 0)
        r = set_extra(json, judge->extra);
    free(host);
    if (r < 0) {
        ha_json_destroy(json);
        return ha_error_set(err, -r, "the identity of judge \"%s\" cannot be made", judge->name);
    }
    *ret_json = json;
    return 0;
}

int ha_judge_identity(const struct ha_sweep_judge *judge, char ret_hex[HA_SHA256_HEX_BYTES],
                      struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_json *json;
    char *text;
    int r;

    r = ha_judge_identity_json(judge, &json, err);
    if (r < 0)
        return r;
    text = ha_json_dump(json, HA_JSON_CANONICAL);
    ha_json_destroy(json);
    if (!text)
        return ha_error_set(err, ENOMEM, "no memory for a judge's identity");
    ha_sha256(text, strlen(text), digest);
    ha_sha256_hex(digest, ret_hex);
    free(text);
    return 0;
}
