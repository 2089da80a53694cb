#include "judge-worker/lane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "judge-worker/identity.h"
#include "judge-worker/profile.h"
#include "proto/wire.h"

/* An evaluator that never answered in this many calls and this long a time is
 * not there: a wrong address, or not started. */
enum { DEAD_CALLS = 5, DEAD_MS = 20000, FIRST_COMPLETION_TOKENS = 1300 };

struct ha_judge *ha_judge_table_find(const struct ha_judge_table *table, uint64_t id)
{
    struct ha_judge *judge = table->judges;

    while (judge && judge->id != id)
        judge = judge->next;
    return judge;
}

static int find_lane(struct ha_judge_table *table, const struct ha_sweep_judge *settings,
                     int64_t now_ms, struct ha_judge_lane **ret_lane)
{
    const char *key = settings->api_key       ? settings->api_key
                      : settings->api_key_env ? settings->api_key_env
                                              : settings->api_key_file;
    char *name = ha_format("%s %s%s%s", settings->base_url, settings->model,
                           key ? " with key " : "", key ? key : "");
    struct ha_judge_lane *lane = table->lanes;

    if (!name)
        return -ENOMEM;
    while (lane && strcmp(lane->name, name) != 0)
        lane = lane->next;
    if (lane) {
        free(name);
    } else {
        lane = calloc(1, sizeof *lane);
        if (!lane) {
            free(name);
            return -ENOMEM;
        }
        lane->name = name;
        lane->completion_tokens = FIRST_COMPLETION_TOKENS;
        ha_judge_limits_init(&lane->limits, settings->concurrency, settings->requests_per_minute,
                             settings->tokens_per_minute,
                             ha_judge_profile_find(settings->provider)->limits_per_second, now_ms);
        lane->next = table->lanes;
        table->lanes = lane;
    }
    *ret_lane = lane;
    return 0;
}

static int read_settings(const struct ha_wire_judge_spec *spec, struct ha_sweep_judge *settings,
                         struct ha_error *err)
{
    struct ha_json *json;
    int r = ha_section_init(&ha_sweep_judge_section, settings, err);

    if (r < 0)
        return r;
    r = ha_json_parse(spec->settings_json, strlen(spec->settings_json), "judge", &json, err);
    if (r < 0)
        return r;
    r = ha_section_from_json(&ha_sweep_judge_section, json, "judge", settings, err);
    ha_json_destroy(json);
    if (r == 0 && !settings->name)
        r = (settings->name = ha_strdup(settings->model ? settings->model : "")) ? 0 : -ENOMEM;
    if (r == 0 && (!settings->model || !settings->base_url))
        r = ha_error_set(err, EINVAL, "judge %llu has no model or no base_url",
                         (unsigned long long)spec->judge);
    return r;
}

int ha_judge_table_put(struct ha_judge_table *table, const struct ha_wire_judge_spec *spec,
                       int64_t now_ms, struct ha_error *err)
{
    struct ha_judge *judge = ha_judge_table_find(table, spec->judge);
    struct ha_judge_lane *lane = NULL;
    struct ha_sweep_judge settings;
    char identity[HA_SHA256_HEX_BYTES];
    int r;

    memset(&settings, 0, sizeof settings);
    r = read_settings(spec, &settings, err);
    if (r == 0)
        r = ha_judge_identity(&settings, identity, err);
    if (r == 0 && find_lane(table, &settings, now_ms, &lane) < 0)
        r = ha_error_set(err, ENOMEM, "no memory for a judge");
    if (r == 0 && !judge) {
        judge = calloc(1, sizeof *judge);
        if (judge) {
            judge->id = spec->judge;
            judge->next = table->judges;
            table->judges = judge;
        } else {
            r = ha_error_set(err, ENOMEM, "no memory for a judge");
        }
    }
    if (r < 0) {
        ha_section_clear(&ha_sweep_judge_section, &settings);
        return r;
    }
    ha_section_clear(&ha_sweep_judge_section, &judge->settings);
    judge->settings = settings;
    memcpy(judge->identity, identity, sizeof identity);
    judge->lane = lane;
    lane->limits.ceiling = settings.concurrency;
    return 0;
}

void ha_judge_table_clear(struct ha_judge_table *table)
{
    while (table->judges) {
        struct ha_judge *next = table->judges->next;

        ha_section_clear(&ha_sweep_judge_section, &table->judges->settings);
        free(table->judges);
        table->judges = next;
    }
    while (table->lanes) {
        struct ha_judge_lane *next = table->lanes->next;

        free(table->lanes->name);
        free(table->lanes);
        table->lanes = next;
    }
}

int64_t ha_judge_lane_tokens(const struct ha_judge_lane *lane, int64_t prompt_tokens)
{
    return prompt_tokens + (int64_t)lane->completion_tokens;
}

void ha_judge_lane_learn(struct ha_judge_lane *lane, enum ha_judge_class class, bool http,
                         const char *fault, int64_t completion_tokens, int64_t now_ms)
{
    bool mend = class == HA_JUDGE_CLASS_CONFIG || class == HA_JUDGE_CLASS_WALLET ||
                class == HA_JUDGE_CLASS_NOT_SENT;

    if (completion_tokens > 0)
        lane->completion_tokens += 0.05 * ((double)completion_tokens - lane->completion_tokens);
    if (http) {
        lane->reached = true;
        lane->dead = false;
    } else if (class == HA_JUDGE_CLASS_NOT_SENT && !lane->reached) {
        if (lane->unreached_calls++ == 0)
            lane->unreached_since = now_ms;
        lane->dead |=
            lane->unreached_calls >= DEAD_CALLS && now_ms - lane->unreached_since >= DEAD_MS;
    }
    snprintf(lane->trouble, sizeof lane->trouble, "%s", mend ? fault : "");
}
