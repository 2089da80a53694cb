/* The twenty-four replies that a judge client must survive, as HTTP bodies.
 * What is inside a text is test_parser.c's; here is what becomes of the call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/conf/json.h"
#include "judge-worker/outcome.h"
#include "tests/unit/judge/replies.h"

struct row {
    const char *provider;
    int status;
    const char *body;
    enum ha_judge_kind kind;
    enum ha_judge_class class;
    const char *words; /* in the fault */
};

static void read_end(const struct ha_judge_end *end, struct ha_judge_outcome *ret_outcome)
{
    assert_int_equal(ha_judge_outcome_read(end, ret_outcome, NULL), 0);
}

static struct ha_judge_end end_of(const char *provider, int status, const char *body)
{
    return (struct ha_judge_end){.provider = provider,
                                 .model = "qwen3-max",
                                 .max_tokens = 4096,
                                 .max_reasks = 2,
                                 .transport_text = "",
                                 .http_status = status,
                                 .raw = body,
                                 .raw_size = strlen(body)};
}

static void check(const struct row *row)
{
    struct ha_judge_end end = end_of(row->provider, row->status, row->body);
    struct ha_judge_outcome outcome;

    read_end(&end, &outcome);
    if (outcome.kind != row->kind || outcome.class != row->class ||
        !strstr(outcome.fault, row->words))
        fail_msg("%s %d %s\n-> %s, %s, \"%s\" (wanted \"%s\")", row->provider, row->status,
                 row->body, ha_judge_kind_name(outcome.kind), ha_judge_class_name(outcome.class),
                 outcome.fault, row->words);
    ha_judge_outcome_clear(&outcome);
}

static void check_all(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(&rows[i]);
}

/* {"choices": [{"message": {"content": TEXT}, "finish_reason": FINISH}], ...} */
static char *completion(const char *text, const char *finish)
{
    struct ha_json *string = ha_json_new_string(text);
    char *quoted = ha_json_dump(string, HA_JSON_COMPACT);
    struct ha_buffer body;

    ha_buffer_init(&body, 0);
    ha_buffer_printf(
        &body,
        "{\"id\":\"x\",\"object\":\"chat.completion\",\"model\":\"qwen3-max-2025-09-23\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":%s},"
        "\"finish_reason\":\"%s\"}],\"usage\":{\"prompt_tokens\":900,"
        "\"completion_tokens\":700,\"total_tokens\":1600},\"timings\":{\"x\":1.5e-05}}",
        quoted, finish);
    free(quoted);
    ha_json_destroy(string);
    return ha_buffer_detach(&body);
}

static void reads_scores_and_usage(void **state)
{
    struct ha_judge_outcome outcome;
    struct ha_buffer text;
    struct ha_judge_end end;
    char *body;

    (void)state;
    ha_buffer_init(&text, 0);
    append_array(&text);
    body = completion(text.data, "stop");
    end = end_of("dashscope", 200, body);
    read_end(&end, &outcome);
    assert_int_equal(outcome.kind, HA_JUDGE_SCORED);
    assert_int_equal(outcome.class, HA_JUDGE_CLASS_REPLY);
    assert_false(outcome.possibly_paid);
    assert_int_equal(outcome.scores.value[15], score_of(15));
    assert_int_equal(outcome.prompt_tokens, 900);
    assert_int_equal(outcome.completion_tokens, 700);
    ha_judge_outcome_clear(&outcome);
    free(body);
    ha_buffer_clear(&text);
}

/* Numbers 7 and 16: asked again until the cap, then the item ends. */
static void asks_again_within_the_cap(void **state)
{
    static const char *const finishes[] = {"length", "stop"};
    static const char *const words[] = {"reply: it was cut at the limit of 4096",
                                        "reply: it holds no JSON array"};
    struct ha_judge_outcome outcome;
    struct ha_judge_end end;
    char *body;

    (void)state;
    for (int i = 0; i < 2; i++) {
        body = completion("I am sorry, but I cannot rate this.", finishes[i]);
        end = end_of("generic", 200, body);
        for (end.reasks = 0; end.reasks <= 2; end.reasks++) {
            read_end(&end, &outcome);
            assert_int_equal(outcome.kind, end.reasks < 2 ? HA_JUDGE_REASK : HA_JUDGE_FAILED);
            assert_non_null(strstr(outcome.fault, words[i]));
            ha_judge_outcome_clear(&outcome);
        }
        free(body);
    }
}

/* Numbers 14 to 18. */
static void tells_bodies_apart(void **state)
{
    static const struct row rows[] = {
        {"generic", 200,
         "{\"choices\":[{\"message\":{\"content\":null,\"reasoning_content\":\"[]\"},"
         "\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_REASK, HA_JUDGE_CLASS_REPLY, "only its reasoning"},
        {"vllm", 200,
         "{\"choices\":[{\"message\":{\"content\":null,\"reasoning\":\"[]\"},"
         "\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_REASK, HA_JUDGE_CLASS_REPLY, "no JSON array"},
        {"generic", 200,
         "{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "empty"},
        {"generic", 200, "{\"choices\":[]}", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "empty"},
        {"generic", 200, "{\"id\":\"x\"}", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "empty"},
        {"generic", 200, "", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "empty"},
        {"openai", 200,
         "{\"choices\":[{\"message\":{\"content\":null,\"refusal\":\"I can't.\"},"
         "\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "refused: I can't."},
        {"openai", 200,
         "{\"choices\":[{\"message\":{\"content\":\"[\"},\"finish_reason\":\"content_filter\"}]}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "filter"},
        {"azure", 400,
         "{\"error\":{\"message\":\"blocked\",\"code\":\"content_filter\",\"innererror\":{\"code\":"
         "\"ResponsibleAIPolicyViolation\"}}}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "blocked"},
        {"dashscope", 400,
         "{\"error\":{\"code\":\"data_inspection_failed\",\"message\":\"Input data may contain "
         "inappropriate content.\"}}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "inappropriate"},
        {"generic", 200, "{\"error\":{\"message\":\"overloaded\",\"code\":503}}", HA_JUDGE_RETRY,
         HA_JUDGE_CLASS_TRANSIENT, "overloaded"},
        {"generic", 200, "{\"error\":\"rate limit reached\"}", HA_JUDGE_RELEASE, HA_JUDGE_CLASS_RPM,
         "rate limit"},
        {"generic", 200, "{\"code\":\"InvalidApiKey\",\"message\":\"no\",\"request_id\":\"r\"}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "key"},
        {"generic", 200, "\"just a text\"", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT,
         "no chat completion"},
        {"generic", 200, "\n <html><body>Login</body></html>", HA_JUDGE_RETRY,
         HA_JUDGE_CLASS_TRANSIENT, "HTML under status 200"},
        {"generic", 502, "<html>Bad gateway</html>", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT,
         "HTTP 502"},
        {"generic", 200, "data: {\"choices\":[]}\n\ndata: [DONE]\n", HA_JUDGE_RELEASE,
         HA_JUDGE_CLASS_CONFIG, "streams"},
        {"generic", 200, "{\"choices\":[{\"message\":{\"content\":\"[1,", HA_JUDGE_RETRY,
         HA_JUDGE_CLASS_TRANSIENT, "no chat completion"},
        {"generic", 200, "\x1f\x8b\x08garbage", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT,
         "no chat completion"},
        {"openai", 200,
         "{\"model\":\"gpt-9\",\"choices\":[{\"message\":{\"content\":\"[]\"},"
         "\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "answered as model \"gpt-9\""},
        {"llama.cpp", 200,
         "{\"model\":\"gpt-9\",\"choices\":[{\"message\":{\"content\":\"[]\"},"
         "\"finish_reason\":\"stop\"}]}",
         HA_JUDGE_REASK, HA_JUDGE_CLASS_REPLY, "no JSON array"},
    };

    (void)state;
    check_all(rows, sizeof rows / sizeof rows[0]);
}

/* Numbers 22 and 23, and table 2.4. */
static void acts_by_the_table(void **state)
{
    static const struct row rows[] = {
        {"generic", 401, "{\"error\":{\"message\":\"Incorrect API key\"}}", HA_JUDGE_RELEASE,
         HA_JUDGE_CLASS_CONFIG, "refuses the key"},
        {"generic", 403, "{\"detail\":\"no\"}", HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "no"},
        {"generic", 404, "{\"error\":{\"code\":\"model_not_found\",\"message\":\"m\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "no such model"},
        {"generic", 302, "", HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "redirect"},
        {"dashscope", 400,
         "{\"error\":{\"code\":\"invalid_parameter_error\",\"message\":\"parameter.enable_thinking "
         "must be set to false for non-streaming calls\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "enable_thinking"},
        {"openai", 400, "{\"error\":{\"code\":\"context_length_exceeded\",\"message\":\"long\"}}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "long"},
        {"generic", 500, "{\"error\":\"This model's maximum context length is 4096 tokens\"}",
         HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "maximum context"},
        {"generic", 413, "too large", HA_JUDGE_FAILED, HA_JUDGE_CLASS_ITEM, "too large"},
        {"generic", 402, "{}", HA_JUDGE_RELEASE, HA_JUDGE_CLASS_WALLET, "cannot pay"},
        {"dashscope", 400, "{\"error\":{\"code\":\"Arrearage\",\"message\":\"overdue\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_WALLET, "overdue"},
        {"openai", 429,
         "{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"You exceeded your current "
         "quota\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_WALLET, "quota"},
        {"dashscope", 429,
         "{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"You exceeded your current "
         "quota\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_TPM, "tokens per minute"},
        {"dashscope", 429, "{\"error\":{\"message\":\"Request rate increased too quickly\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_RAMP, "quickly"},
        {"openai", 429, "{\"error\":{\"type\":\"tokens\",\"message\":\"Rate limit reached\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_TPM, "tokens per minute"},
        {"openai", 429, "{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"slow down\"}}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_RPM, "slow down"},
        {"vllm", 429, "", HA_JUDGE_RELEASE, HA_JUDGE_CLASS_RPM, "limit of requests"},
        {"vllm", 400,
         "{\"object\":\"error\",\"message\":\"extra fields\",\"type\":\"BadRequestError\","
         "\"param\":null,\"code\":400}",
         HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, "extra fields"},
        {"llama.cpp", 503, "{\"error\":{\"code\":503,\"message\":\"Loading model\"}}",
         HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "Loading"},
        {"generic", 408, "", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "408"},
        {"generic", 529, "{}", HA_JUDGE_RETRY, HA_JUDGE_CLASS_TRANSIENT, "529"},
    };

    (void)state;
    check_all(rows, sizeof rows / sizeof rows[0]);
}

/* Number 21. */
static void knows_what_may_be_paid(void **state)
{
    static const struct {
        enum ha_judge_transport transport;
        enum ha_judge_kind kind;
        enum ha_judge_class class;
        bool paid;
    } rows[] = {
        {HA_JUDGE_TRANSPORT_NOT_SENT, HA_JUDGE_RETRY, HA_JUDGE_CLASS_NOT_SENT, false},
        {HA_JUDGE_TRANSPORT_CONFIG, HA_JUDGE_RELEASE, HA_JUDGE_CLASS_CONFIG, false},
        {HA_JUDGE_TRANSPORT_UNKNOWN, HA_JUDGE_RETRY, HA_JUDGE_CLASS_UNKNOWN, true},
        {HA_JUDGE_TRANSPORT_TOO_LONG, HA_JUDGE_RETRY, HA_JUDGE_CLASS_UNKNOWN, true},
    };
    struct ha_judge_outcome outcome;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct ha_judge_end end = end_of("generic", 0, "");

        end.transport = rows[i].transport;
        end.transport_text = "why";
        read_end(&end, &outcome);
        assert_int_equal(outcome.kind, rows[i].kind);
        assert_int_equal(outcome.class, rows[i].class);
        assert_int_equal(outcome.possibly_paid, rows[i].paid);
        assert_non_null(strstr(outcome.fault, "why"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_scores_and_usage), cmocka_unit_test(asks_again_within_the_cap),
        cmocka_unit_test(tells_bodies_apart),     cmocka_unit_test(acts_by_the_table),
        cmocka_unit_test(knows_what_may_be_paid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
