/* profile.h - how the providers of the chat-completions API differ */
#ifndef HA_JUDGE_WORKER_PROFILE_H
#define HA_JUDGE_WORKER_PROFILE_H

#include <stdbool.h>

struct ha_judge_profile {
    const char *name;
    const char *max_tokens_key; /* "max_tokens" | "max_completion_tokens" */
    bool api_key_header;        /* "api-key: K" instead of "Authorization: Bearer K" */
    bool quota_is_rate;       /* "exceeded your current quota" means tokens per minute, not money */
    bool limits_per_second;   /* limits hold for a sixtieth of a minute too */
    bool thinking_switch;     /* send enable_thinking = false to Qwen3 models */
    bool answer_in_reasoning; /* known to put the answer into the reasoning field */
    bool checks_model;        /* its replies name the model that was asked */
    const char *label;        /* what tables say about it; NULL: nothing */
};

/* The profile of a [[judge]]'s provider; "generic" for a name that is not known. */
const struct ha_judge_profile *ha_judge_profile_find(const char *provider);

#endif
