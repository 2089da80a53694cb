#include "tests/evaluator/misbehave.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/conf/json.h"

enum { OVERSIZED_BYTES = 40 << 20 };

/* What a way puts where. */
enum shape {
    TEXT,      /* argument 1 before and argument 2 behind the array, in the message */
    ENTRIES,   /* the array with argument 1 in place of Tone's entry, argument 2 behind the last */
    STRING,    /* the message is the array as a JSON string */
    BARE,      /* the message is the entries without brackets */
    MAP,       /* the message is one object of dimensions */
    MESSAGE,   /* the message is argument 1 */
    BODY,      /* the body is argument 1 */
    REASONING, /* the array stands in reasoning_content */
    TWICE      /* argument 1, the array with its scores turned round, the array */
};

struct ha_evaluator_way {
    int number; /* of the list; 0: beside it */
    const char *name;
    enum shape shape;
    const char *first, *second;
    int status; /* 0: 200 */
    const char *finish, *retry_after, *model;
    enum ha_evaluator_wire wire;
    bool flat;
    int64_t spaces;
    const char *help;
};

#define ARRAY_5 "[{\"dimension\":\"Tone\",\"score\":5,\"reason\":\"as told\"}]"

/* {number, name, shape, arguments 1 and 2}: the texts are what the reference list shows. */
static const struct ha_evaluator_way ways[] = {
    {1, "fenced", TEXT, "```json\n", "\n```", .help = "in a code fence"},
    {1, "fenced-open", TEXT, "```json\n", "", .help = "in a fence that never closes"},
    {2, "chatty", TEXT, "Sure, here are the scores: ", " Hope it helps!", .help = "with prose"},
    {3, "wrapped", TEXT, "{\"scores\": ", "}", .help = "in an object"},
    {3, "wrapped-deep", TEXT, "{\"evaluation\": {\"results\": ", "}}", .help = "in two objects"},
    {3, "map", MAP, .help = "an object of dimensions"},
    {4, "double-encoded", STRING, .help = "as a JSON string"},
    {5, "no-brackets", BARE, .help = "objects on lines of their own"},
    {6, "trailing-comma", ENTRIES, .second = ",", .help = "a comma before the bracket"},
    {6, "single-quotes", ENTRIES, "{'dimension':'Tone','score':3,'reason':'r'}",
     .help = "an entry in single quotes"},
    {6, "comment", ENTRIES, "/* tone */ {\"dimension\":\"Tone\",\"score\":3,\"reason\":\"r\"}",
     .help = "a comment in the array"},
    {7, "cut-off", MESSAGE,
     "[{\"dimension\":\"GrammarFluency\",\"score\":3,\"reason\":\"r\"},"
     "{\"dimension\":\"Tone\",\"sco",
     .finish = "length", .help = "cut at max_tokens"},
    {8, "missing", ENTRIES, "", .help = "fifteen entries"},
    {8, "extra", ENTRIES, .second = ",{\"dimension\":\"Clarity\",\"score\":3,\"reason\":\"r\"}",
     .help = "an unknown seventeenth"},
    {8, "conflict", ENTRIES,
     "{\"dimension\":\"Tone\",\"score\":1,\"reason\":\"a\"},"
     "{\"dimension\":\"Tone\",\"score\":5,\"reason\":\"b\"}",
     .help = "one dimension twice, scores differ"},
    {9, "odd-names", ENTRIES, "{\"dimension\":\"7. tone \",\"score\":3,\"reason\":\"r\"}",
     .help = "a name in another spelling"},
    {9, "unknown-name", ENTRIES, "{\"dimension\":\"Tone & Style\",\"score\":3,\"reason\":\"r\"}",
     .help = "a name that is none"},
    {10, "score-text", ENTRIES, "{\"dimension\":\"Tone\",\"score\":\"4\",\"reason\":\"r\"}",
     .help = "a score in quotes"},
    {10, "score-half", ENTRIES, "{\"dimension\":\"Tone\",\"score\":4.5,\"reason\":\"r\"}",
     .help = "a score of 4.5"},
    {11, "out-of-range", ENTRIES, "{\"dimension\":\"Tone\",\"score\":85,\"reason\":\"r\"}",
     .help = "a score of 85"},
    {12, "flat", ENTRIES, .flat = true, .help = "every score 3"},
    {13, "think", TEXT, "<think>Perhaps " ARRAY_5 "</think>\n", "", .help = "a draft in <think>"},
    {13, "think-open", TEXT, "<think>", "", .help = "<think> without end"},
    {14, "reasoning-field", REASONING, .help = "content null, the array in reasoning_content"},
    {15, "empty", MESSAGE, "", .help = "an empty message"},
    {15, "no-choices", BODY, "{\"id\":\"x\",\"object\":\"chat.completion\",\"choices\":[]}",
     .help = "no choices"},
    {16, "refusal", MESSAGE, "I'm sorry, but I can't rate this response.", .help = "an apology"},
    {17, "filter", MESSAGE, "[", .finish = "content_filter", .help = "ended by a filter"},
    {17, "azure-filter", BODY,
     "{\"error\":{\"message\":\"The response was filtered\",\"code\":\"content_filter\"}}",
     .status = 400, .help = "HTTP 400 of Azure's filter"},
    {17, "dashscope-filter", BODY,
     "{\"error\":{\"code\":\"data_inspection_failed\",\"message\":\"Input data may contain "
     "inappropriate content.\"}}",
     .status = 400, .help = "HTTP 400 of DashScope's filter"},
    {18, "error-200", BODY, "{\"error\":{\"message\":\"overloaded\",\"code\":503}}",
     .help = "an error under status 200"},
    {18, "html", BODY, "<html><body>Please log in</body></html>", .help = "HTML under status 200"},
    {18, "plain-string", BODY, "\"done\"", .help = "a JSON string for a body"},
    {19, "two-arrays", TWICE, "The text asks for:\n", .help = "an echoed array before the own"},
    {20, "bad-bytes", ENTRIES,
     "{\"dimension\":\"Tone\",\"score\":3,\"reason\":\"a\xff\\ud83d b\\u0000c\"}",
     .help = "invalid UTF-8, a lone surrogate, NUL"},
    {20, "duplicate-key", ENTRIES, "{\"dimension\":\"Tone\",\"score\":2,\"score\":5}",
     .help = "a key twice in an entry"},
    {21, "short-body", TEXT, "", "", .wire = HA_EVALUATOR_SHORT, .help = "the body ends too early"},
    {21, "oversized", TEXT, "", "", .spaces = OVERSIZED_BYTES,
     .help = "40 MiB of spaces behind it"},
    {21, "sse", BODY, "data: {\"choices\":[{\"delta\":{\"content\":\"[\"}}]}\n\ndata: [DONE]\n\n",
     .help = "an event stream"},
    {21, "reset", BODY, "", .wire = HA_EVALUATOR_RESET,
     .help = "connection reset after the request"},
    {22, "429", BODY,
     "{\"error\":{\"message\":\"Rate limit reached\",\"code\":\"rate_limit_exceeded\"}}",
     .status = 429, .retry_after = "1", .help = "too many requests, wait 1 s"},
    {22, "429-bare", BODY, "", .status = 429, .help = "without Retry-After"},
    {22, "429-fraction", BODY, "{}", .status = 429, .retry_after = "0.5", .help = "wait 0.5 s"},
    {22, "429-long", BODY, "{}", .status = 429, .retry_after = "3600", .help = "wait an hour"},
    {22, "429-quota", BODY,
     "{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"You exceeded your current "
     "quota\"}}",
     .status = 429, .help = "no quota left"},
    {22, "429-ramp", BODY, "{\"error\":{\"message\":\"Request rate increased too quickly\"}}",
     .status = 429, .help = "the rate grew too quickly"},
    {23, "401", BODY, "{\"error\":{\"message\":\"Incorrect API key provided\"}}", .status = 401,
     .help = "the key is refused"},
    {23, "402", BODY, "{\"error\":{\"message\":\"Insufficient balance\"}}", .status = 402,
     .help = "the account is empty"},
    {23, "404", BODY, "{\"error\":{\"code\":\"model_not_found\",\"message\":\"No such model\"}}",
     .status = 404, .help = "no such model"},
    {24, "other-model", TEXT, "", "", .model = "another-model", .help = "another model answers"},
    {0, "500", BODY, "{\"error\":{\"message\":\"internal error\"}}", .status = 500,
     .help = "server error"},
    {0, "502", BODY, "<html>Bad gateway</html>", .status = 502, .help = "bad gateway, in HTML"},
    {0, "bad-json", BODY, "{\"choices\":[{\"message\":{\"content\":\"[1,", .help = "broken JSON"},
    {0, "slow", TEXT, "", "", .wire = HA_EVALUATOR_SLOW, .help = "right, five seconds late"},
    {0, "hang", TEXT, "", "", .wire = HA_EVALUATOR_HANG, .help = "never answered"},
};

enum { WAYS = sizeof ways / sizeof ways[0], TONE = 6 };

const struct ha_evaluator_way *ha_evaluator_way_find(const char *name)
{
    char *end;
    long number = strtol(name, &end, 10);

    for (int i = 0; i < WAYS; i++) {
        if (strcmp(ways[i].name, name) == 0)
            return &ways[i];
    }
    for (int i = 0; i < WAYS && *end == '\0'; i++) {
        if (ways[i].number == number && number > 0)
            return &ways[i];
    }
    return NULL;
}

const char *ha_evaluator_way_name(const struct ha_evaluator_way *way)
{
    return way->name;
}

void ha_evaluator_ways_print(FILE *out)
{
    for (int i = 0; i < WAYS; i++) {
        char number[16] = "";

        if (ways[i].number > 0)
            snprintf(number, sizeof number, "%d", ways[i].number);
        fprintf(out, "  %2s  %-17s %s\n", number, ways[i].name, ways[i].help);
    }
}

/* ---- the message ---------------------------------------------------------------------- */

static int put_entry(struct ha_buffer *out, int i, int value, const char *reason)
{
    struct ha_json *text = ha_json_new_string(reason);
    char *quoted = text ? ha_json_dump(text, HA_JSON_COMPACT) : NULL;
    int r = quoted ? ha_buffer_printf(out, "{\"dimension\":\"%s\",\"score\":%d,\"reason\":%s}",
                                      ha_dimensions[i].name, value, quoted)
                   : -ENOMEM;

    free(quoted);
    ha_json_destroy(text);
    return r;
}

/* The sixteen entries; way may replace Tone's and add something behind the last. */
static int put_entries(struct ha_buffer *out, const struct ha_evaluator_way *way,
                       const struct ha_evaluator_score *scores, const char *between, bool turned)
{
    const char *tone = way && way->shape == ENTRIES ? way->first : NULL;
    const char *last = way && way->shape == ENTRIES ? way->second : NULL;
    const char *comma = "";
    int r = 0;

    for (int i = 0; i < HA_DIMENSIONS && r == 0; i++) {
        int value = way && way->flat ? 3 : turned ? 6 - scores[i].value : scores[i].value;

        if (i == TONE && tone && !*tone)
            continue;
        r = ha_buffer_append_text(out, comma);
        if (r == 0 && i == TONE && tone)
            r = ha_buffer_append_text(out, tone);
        else if (r == 0)
            r = put_entry(out, i, value, scores[i].reason);
        comma = between;
    }
    return r == 0 && last ? ha_buffer_append_text(out, last) : r;
}

static int put_array(struct ha_buffer *out, const struct ha_evaluator_way *way,
                     const struct ha_evaluator_score *scores, bool turned)
{
    int r = ha_buffer_append_text(out, "[");

    if (r == 0)
        r = put_entries(out, way, scores, ",\n ", turned);
    return r == 0 ? ha_buffer_append_text(out, "]") : r;
}

static int put_map(struct ha_buffer *out, const struct ha_evaluator_score *scores)
{
    int r = ha_buffer_append_text(out, "{");

    for (int i = 0; i < HA_DIMENSIONS && r == 0; i++)
        r = ha_buffer_printf(out, "%s\"%s\":{\"score\":%d,\"reason\":\"counted\"}", i ? "," : "",
                             ha_dimensions[i].name, scores[i].value);
    return r == 0 ? ha_buffer_append_text(out, "}") : r;
}

static int put_message(struct ha_buffer *out, const struct ha_evaluator_way *way,
                       const struct ha_evaluator_score *scores)
{
    int r = 0;

    if (!way)
        return put_array(out, NULL, scores, false);
    switch (way->shape) {
    case MESSAGE:
        return ha_buffer_append_text(out, way->first);
    case BARE:
        return put_entries(out, way, scores, "\n", false);
    case MAP:
        return put_map(out, scores);
    case TEXT:
        r = ha_buffer_append_text(out, way->first);
        break;
    case TWICE:
        r = ha_buffer_append_text(out, way->first);
        if (r == 0)
            r = put_array(out, way, scores, true);
        break;
    default:
        break;
    }
    if (r == 0)
        r = put_array(out, way, scores, false);
    return r == 0 && way->shape == TEXT ? ha_buffer_append_text(out, way->second) : r;
}

/* ---- the body ----------------------------------------------------------------------------- */

/* text as a JSON string; bytes that are not UTF-8 pass as they are. */
static int put_string(struct ha_buffer *out, const char *text)
{
    int r = ha_buffer_append_text(out, "\"");

    for (; *text && r == 0; text++) {
        if (*text == '"' || *text == '\\')
            r = ha_buffer_printf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            r = ha_buffer_printf(out, "\\u%04x", *text);
        else
            r = ha_buffer_append(out, text, 1);
    }
    return r == 0 ? ha_buffer_append_text(out, "\"") : r;
}

static int put_completion(struct ha_buffer *out, const struct ha_evaluator_way *way,
                          const char *message, int64_t prompt_tokens)
{
    const char *finish = way && way->finish ? way->finish : "stop";
    const char *model = way && way->model ? way->model : HA_EVALUATOR_MODEL;
    long long tokens = (long long)(strlen(message) / 4 + 1);
    bool reasoning = way && way->shape == REASONING;
    int r =
        ha_buffer_printf(out,
                         "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\","
                         "\"created\":%lld,\"model\":\"%s\",\"choices\":[{\"index\":0,"
                         "\"message\":{\"role\":\"assistant\",%s",
                         (long long)time(NULL), model,
                         reasoning ? "\"content\":null,\"reasoning_content\":" : "\"content\":");

    if (r == 0)
        r = put_string(out, message);
    if (r == 0)
        r = ha_buffer_printf(out,
                             "},\"finish_reason\":\"%s\"}],\"usage\":{\"prompt_tokens\":%lld,"
                             "\"completion_tokens\":%lld,\"total_tokens\":%lld}}",
                             finish, (long long)prompt_tokens, tokens,
                             (long long)prompt_tokens + tokens);
    return r;
}

static int put_body(struct ha_buffer *out, const struct ha_evaluator_way *way,
                    const struct ha_evaluator_score *scores, int64_t prompt_tokens)
{
    struct ha_buffer message, quoted;
    int r;

    if (way && way->shape == BODY)
        return ha_buffer_append_text(out, way->first);
    ha_buffer_init(&message, 0);
    ha_buffer_init(&quoted, 0);
    r = put_message(&message, way, scores);
    if (r == 0 && way && way->shape == STRING)
        r = put_string(&quoted, ha_buffer_text(&message));
    if (r == 0)
        r = put_completion(out, way, ha_buffer_text(quoted.size ? &quoted : &message),
                           prompt_tokens);
    ha_buffer_clear(&message);
    ha_buffer_clear(&quoted);
    return r;
}

int ha_evaluator_reply_make(const struct ha_evaluator_way *way,
                            const struct ha_evaluator_score scores[HA_DIMENSIONS],
                            int64_t prompt_tokens, struct ha_evaluator_reply *ret_reply)
{
    struct ha_evaluator_reply *reply = ret_reply;

    *reply = (struct ha_evaluator_reply){.status = way && way->status ? way->status : 200,
                                         .content_type = "application/json",
                                         .wire = way ? way->wire : HA_EVALUATOR_WHOLE,
                                         .spaces = way ? way->spaces : 0};
    if (way && way->retry_after)
        snprintf(reply->retry_after, sizeof reply->retry_after, "%s", way->retry_after);
    ha_buffer_init(&reply->body, 0);
    return put_body(&reply->body, way, scores, prompt_tokens);
}
