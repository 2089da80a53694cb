#include "judge-worker/profile.h"

#include <stddef.h>
#include <string.h>

static const struct ha_judge_profile profiles[] = {
    {.name = "generic", .max_tokens_key = "max_tokens"},
    {.name = "openai", .max_tokens_key = "max_completion_tokens", .checks_model = true},
    {.name = "azure", .max_tokens_key = "max_completion_tokens", .api_key_header = true},
    {.name = "dashscope",
     .max_tokens_key = "max_tokens",
     .quota_is_rate = true,
     .limits_per_second = true,
     .thinking_switch = true,
     .checks_model = true},
    {.name = "vllm",
     .max_tokens_key = "max_tokens",
     .answer_in_reasoning = true,
     .checks_model = true},
    {.name = "llama.cpp", .max_tokens_key = "max_tokens"},
    {.name = "ha-evaluator",
     .max_tokens_key = "max_tokens",
     .checks_model = true,
     .label = "ha-evaluator (text statistics, not a language model)"},
};

const struct ha_judge_profile *ha_judge_profile_find(const char *provider)
{
    for (size_t i = 0; provider && i < sizeof profiles / sizeof profiles[0]; i++) {
        if (strcmp(profiles[i].name, provider) == 0)
            return &profiles[i];
    }
    return &profiles[0];
}
