#include "judge-worker/flag.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#include "common/conf/dimensions.h"

static const char *const phrases[] = {
    /* addressed to whoever evaluates */
    "ignore the rubric", "ignore all previous", "ignore previous", "ignore the previous",
    "ignore the above", "ignore all instructions", "ignore the instructions",
    "disregard the rubric", "disregard all", "disregard previous", "disregard the above",
    "new instructions:", "note to the evaluator", "note to evaluator", "dear evaluator",
    "dear judge", "attention evaluator", "rate this response", "rate this answer",
    "score this response", "score this answer", "give this response", "give this answer a",
    "full marks", "score of 5", "scores of 5", "highest score", "5 out of 5", "5/5",
    "system prompt",
    /* parts of the request and of its reply */
    "json array", "\"dimension\"", "'dimension'", "\"score\"", "'score'", "[output requirements]",
    "[scoring criteria", "[dimension definitions]", "[system role]", "[baseline case",
    "[response to evaluate]", "[insert ", "<think>", "</think>", "<|im_start|>", "<|im_end|>"};

/* An opening bracket with an object after it. */
static bool array_of_objects(const char *text)
{
    for (const char *at = text; (at = strchr(at, '[')) != NULL;) {
        at++;
        if (at[strspn(at, " \t\r\n")] == '{')
            return true;
    }
    return false;
}

/* "Tone: 5", "\"Tone\": 4", "Tone - 5/5": a dimension with a digit soon after it. */
static bool scored_dimension(const char *text)
{
    for (int i = 0; i < HA_DIMENSIONS; i++) {
        const char *name = ha_dimensions[i].name;
        const char *at = text;

        while ((at = strcasestr(at, name)) != NULL) {
            const char *end = at + strlen(name);
            const char *after = end + strspn(end, "\":=- \t*");
            bool separated = strcspn(end, ":=-") < (size_t)(after - end);

            if (separated && *after >= '1' && *after <= '5' && !isdigit((unsigned char)after[1]))
                return true;
            at = end;
        }
    }
    return false;
}

bool ha_judge_flag(const char *text)
{
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (strcasestr(text, phrases[i]))
            return true;
    }
    return array_of_objects(text) || scored_dimension(text);
}
