#include "judge-worker/classify.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "judge-worker/profile.h"
#include "judge-worker/reply.h"

/* Words of an error that end one item: the text itself was refused or is too long. */
static const char *const item_words[] = {
    "context_length_exceeded", "maximum context length",        "context window",
    "exceed_context_size",     "exceeds the available context", "range of input length",
    "content_filter",          "content_policy_violation",      "responsibleaipolicyviolation",
    "data_inspection_failed",  "datainspectionfailed",          "inappropriate content",
    "invalid_prompt",
};
static const char *const wallet_words[] = {"arrearage",
                                           "billing_hard_limit",
                                           "insufficient_balance",
                                           "insufficient balance",
                                           "not enough credit",
                                           "account is not in good standing"};
static const char *const quota_words[] = {"insufficient_quota", "exceeded your current quota",
                                          "allocated quota exceeded"};
static const char *const ramp_words[] = {"rate increased too quickly", "limit_burst_rate"};
static const char *const token_words[] = {"tokens per min", "tokens_per_min", "token limit",
                                          "throttling.allocationquota", "(tpm)"};

#define WORDS(list) list, (int)(sizeof(list) / sizeof((list)[0]))

static bool holds(const struct ha_judge_reply *reply, const char *const *words, int count)
{
    const char *const texts[] = {reply->error_code, reply->error_type, reply->error_message};

    for (int t = 0; t < 3; t++) {
        for (int i = 0; texts[t] && i < count; i++) {
            if (strcasestr(texts[t], words[i]))
                return true;
        }
    }
    return false;
}

static void say(struct ha_judge_verdict *verdict, enum ha_judge_class class, const char *format,
                ...) __attribute__((format(printf, 3, 4)));

static void say(struct ha_judge_verdict *verdict, enum ha_judge_class class, const char *format,
                ...)
{
    va_list args;

    verdict->class = class;
    va_start(args, format);
    vsnprintf(verdict->text, sizeof verdict->text, format, args);
    va_end(args);
}

/* A reply under a status of success that is no error object. */
static void classify_success(const struct ha_judge_evidence *e, struct ha_judge_verdict *v)
{
    const struct ha_judge_reply *reply = e->reply;
    bool answered = reply->content || (reply->reasoning && e->profile->answer_in_reasoning);

    switch (reply->kind) {
    case HA_JUDGE_REPLY_CHAT:
        if (strcmp(reply->finish, "content_filter") == 0)
            say(v, HA_JUDGE_CLASS_ITEM, "filtered: the evaluator's content filter ended the reply");
        else if (reply->refusal && !reply->content)
            say(v, HA_JUDGE_CLASS_ITEM, "refused: %.200s", reply->refusal);
        else if (answered || strcmp(reply->finish, "length") == 0)
            say(v, HA_JUDGE_CLASS_REPLY, "%s", "");
        else if (reply->reasoning)
            say(v, HA_JUDGE_CLASS_REPLY, "%s", "");
        else
            say(v, HA_JUDGE_CLASS_TRANSIENT, "empty: the evaluator's reply has no text");
        break;
    case HA_JUDGE_REPLY_STREAM:
        say(v, HA_JUDGE_CLASS_CONFIG,
            "the evaluator streams its reply although it was not asked to; switch that off there");
        break;
    case HA_JUDGE_REPLY_EMPTY:
        say(v, HA_JUDGE_CLASS_TRANSIENT, "empty: the evaluator's reply has no choices");
        break;
    case HA_JUDGE_REPLY_HTML:
        say(v, HA_JUDGE_CLASS_TRANSIENT,
            "the evaluator sent HTML under status %d; is base_url right? %s", e->http_status,
            reply->excerpt);
        break;
    default:
        say(v, HA_JUDGE_CLASS_TRANSIENT, "the evaluator's reply is no chat completion: %s",
            reply->excerpt);
        break;
    }
}

static void classify_429(const struct ha_judge_evidence *e, const char *words,
                         struct ha_judge_verdict *v)
{
    if (holds(e->reply, WORDS(ramp_words)))
        say(v, HA_JUDGE_CLASS_RAMP, "rate grew too quickly: %s", words);
    else if (holds(e->reply, WORDS(quota_words)))
        say(v, e->profile->quota_is_rate ? HA_JUDGE_CLASS_TPM : HA_JUDGE_CLASS_WALLET,
            e->profile->quota_is_rate ? "limit of tokens per minute: %s"
                                      : "the account has no quota left: %s",
            words);
    else if (holds(e->reply, WORDS(token_words)) ||
             (e->reply->error_type && strcmp(e->reply->error_type, "tokens") == 0))
        say(v, HA_JUDGE_CLASS_TPM, "limit of tokens per minute: %s", words);
    else
        say(v, HA_JUDGE_CLASS_RPM, "limit of requests: %s", words);
}

static void classify_client_error(const struct ha_judge_evidence *e, int status, const char *words,
                                  struct ha_judge_verdict *v)
{
    if (holds(e->reply, WORDS(item_words)) || status == 413)
        say(v, HA_JUDGE_CLASS_ITEM, "%s: %s", status == 413 ? "too long" : "filtered or too long",
            words);
    else if (status == 402 || holds(e->reply, WORDS(wallet_words)))
        say(v, HA_JUDGE_CLASS_WALLET, "the account cannot pay: %s", words);
    else if (status == 408 || status == 409)
        say(v, HA_JUDGE_CLASS_TRANSIENT, "HTTP %d: %s", status, words);
    else if (status == 401 || status == 403)
        say(v, HA_JUDGE_CLASS_CONFIG, "the evaluator refuses the key (HTTP %d): %s", status, words);
    else if (status == 404)
        say(v, HA_JUDGE_CLASS_CONFIG, "no such model or path at the evaluator (HTTP 404): %s",
            words);
    else
        say(v, HA_JUDGE_CLASS_CONFIG, "the evaluator does not take the request (HTTP %d): %s",
            status, words);
}

static void classify_error(const struct ha_judge_evidence *e, int status,
                           struct ha_judge_verdict *v)
{
    const struct ha_judge_reply *reply = e->reply;
    const char *words =
        reply->error_message && reply->error_message[0] ? reply->error_message : reply->excerpt;
    char shortened[201];

    snprintf(shortened, sizeof shortened, "%s", words);
    if (status == 429)
        classify_429(e, shortened, v);
    else if (status >= 400 && status < 500)
        classify_client_error(e, status, shortened, v);
    else if (holds(reply, WORDS(item_words)))
        say(v, HA_JUDGE_CLASS_ITEM, "filtered or too long: %s", shortened);
    else if (holds(reply, WORDS(wallet_words)))
        say(v, HA_JUDGE_CLASS_WALLET, "the account cannot pay: %s", shortened);
    else if (status == 501)
        say(v, HA_JUDGE_CLASS_CONFIG, "the evaluator does not support the request: %s", shortened);
    else
        say(v, HA_JUDGE_CLASS_TRANSIENT, "HTTP %d: %s", status, shortened);
}

/* The status that an error object under status 200 stands for. */
static int inner_status(const struct ha_judge_evidence *e)
{
    const char *code = e->reply->error_code;
    int status = 0;

    if (code && strlen(code) == 3 && sscanf(code, "%d", &status) == 1 && status >= 400 &&
        status < 600)
        return status;
    if (holds(e->reply, WORDS(quota_words)) || holds(e->reply, WORDS(ramp_words)) ||
        holds(e->reply, WORDS(token_words)) ||
        holds(e->reply, (const char *const[]){"rate limit", "rate_limit"}, 2))
        return 429;
    if (holds(e->reply, (const char *const[]){"invalid_api_key", "invalidapikey"}, 2))
        return 401;
    if (holds(e->reply, (const char *const[]){"model_not_found"}, 1))
        return 404;
    return 500;
}

static void classify_done(const struct ha_judge_evidence *e, struct ha_judge_verdict *v)
{
    int status = e->http_status;
    bool error = e->reply->kind == HA_JUDGE_REPLY_ERROR;

    if (status >= 200 && status < 300 && error) {
        classify_error(e, inner_status(e), v);
        v->possibly_paid = true;
    } else if (status >= 200 && status < 300) {
        classify_success(e, v);
        v->possibly_paid = v->class != HA_JUDGE_CLASS_REPLY;
    } else if (status >= 300 && status < 400) {
        say(v, HA_JUDGE_CLASS_CONFIG,
            "the evaluator answers with a redirect (HTTP %d), which is not followed; base_url must "
            "name the place itself",
            status);
    } else {
        classify_error(e, status, v);
        v->possibly_paid = status >= 500;
    }
}

void ha_judge_classify(const struct ha_judge_evidence *e, struct ha_judge_verdict *ret_verdict)
{
    struct ha_judge_verdict v = {0};

    switch (e->transport) {
    case HA_JUDGE_TRANSPORT_DONE:
        classify_done(e, &v);
        break;
    case HA_JUDGE_TRANSPORT_NOT_SENT:
        say(&v, HA_JUDGE_CLASS_NOT_SENT, HA_JUDGE_UNREACHED "%.300s", e->transport_text);
        break;
    case HA_JUDGE_TRANSPORT_CONFIG:
        say(&v, HA_JUDGE_CLASS_CONFIG, "no connection to the evaluator is possible: %.300s",
            e->transport_text);
        break;
    case HA_JUDGE_TRANSPORT_TOO_LONG:
        say(&v, HA_JUDGE_CLASS_UNKNOWN, "the evaluator's reply is too long: %.300s",
            e->transport_text);
        v.possibly_paid = true;
        break;
    default:
        say(&v, HA_JUDGE_CLASS_UNKNOWN, "sent, but no whole reply came: %.300s", e->transport_text);
        v.possibly_paid = true;
        break;
    }
    *ret_verdict = v;
}

const char *ha_judge_class_name(enum ha_judge_class class)
{
    static const char *const names[HA_JUDGE_CLASSES] = {"reply",
                                                        "not sent",
                                                        "item",
                                                        "config",
                                                        "wallet",
                                                        "requests per minute",
                                                        "tokens per minute",
                                                        "ramp",
                                                        "transient",
                                                        "unknown outcome"};

    return names[class];
}
