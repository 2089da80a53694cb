#include "judge-worker/outcome.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/error.h"
#include "common/base/utf8.h"
#include "judge-worker/profile.h"
#include "judge-worker/reply.h"
#include "judge-worker/request.h"

const char *ha_judge_kind_name(enum ha_judge_kind kind)
{
    static const char *const names[] = {"scored", "reask", "retry", "failed", "release"};

    return names[kind];
}

static enum ha_judge_kind kind_of(enum ha_judge_class class)
{
    switch (class) {
    case HA_JUDGE_CLASS_ITEM:
        return HA_JUDGE_FAILED;
    case HA_JUDGE_CLASS_NOT_SENT:
    case HA_JUDGE_CLASS_TRANSIENT:
    case HA_JUDGE_CLASS_UNKNOWN:
        return HA_JUDGE_RETRY;
    default:
        return HA_JUDGE_RELEASE;
    }
}

/* Servers answer with a dated or longer name of the model that was asked, or
 * with the last part of a path. */
static bool same_model(const char *asked, const char *answered)
{
    const char *last = strrchr(asked, '/');

    if (strncasecmp(asked, answered, strlen(asked)) == 0 ||
        strncasecmp(asked, answered, strlen(answered)) == 0)
        return true;
    return last && strncasecmp(last + 1, answered, strlen(last + 1)) == 0;
}

/* The text that holds the scores, or the fault that there is none. */
static int read_text(const struct ha_judge_end *end, const struct ha_judge_reply *reply,
                     struct ha_judge_outcome *outcome, struct ha_error *err)
{
    const struct ha_judge_profile *profile = ha_judge_profile_find(end->provider);
    bool reasoning = !reply->content && reply->reasoning && profile->answer_in_reasoning;
    struct ha_error fault = {0};
    int r;

    if (reasoning)
        r = ha_judge_parse(reply->reasoning, reply->reasoning_size, &outcome->scores, &fault);
    else if (reply->content)
        r = ha_judge_parse(reply->content, reply->content_size, &outcome->scores, &fault);
    else
        r = ha_error_set(&fault, EBADMSG, "%s",
                         reply->reasoning ? "it is empty, only its reasoning holds text"
                                          : "it is empty");
    if (r == -ENOMEM)
        return ha_error_set(err, ENOMEM, "no memory to read a reply");
    if (r == 0) {
        outcome->kind = HA_JUDGE_SCORED;
        if (reasoning)
            outcome->scores.repairs |= 1u << HA_JUDGE_REPAIR_REASONING;
        return 0;
    }
    outcome->kind = end->reasks < end->max_reasks ? HA_JUDGE_REASK : HA_JUDGE_FAILED;
    if (strcmp(reply->finish, "length") == 0)
        snprintf(outcome->fault, sizeof outcome->fault,
                 HA_JUDGE_FAULT_CUT " at the limit of %lld tokens", (long long)end->max_tokens);
    else
        snprintf(outcome->fault, sizeof outcome->fault, HA_JUDGE_FAULT_REPLY "%s", fault.text);
    return 0;
}

static int read_reply(const struct ha_judge_end *end, const struct ha_judge_reply *reply,
                      struct ha_judge_outcome *outcome, struct ha_error *err)
{
    const struct ha_judge_profile *profile = ha_judge_profile_find(end->provider);
    struct ha_judge_evidence evidence = {.transport = end->transport,
                                         .transport_text = end->transport_text,
                                         .http_status = end->http_status,
                                         .reply = reply,
                                         .profile = profile};
    struct ha_judge_verdict verdict;

    ha_judge_classify(&evidence, &verdict);
    if (verdict.class == HA_JUDGE_CLASS_REPLY && profile->checks_model && reply->model &&
        !same_model(end->model, reply->model)) {
        verdict.class = HA_JUDGE_CLASS_CONFIG;
        verdict.possibly_paid = true;
        snprintf(verdict.text, sizeof verdict.text,
                 "the evaluator answered as model \"%.100s\" although \"%.100s\" was asked",
                 reply->model, end->model);
    }
    outcome->class = verdict.class;
    outcome->possibly_paid = verdict.possibly_paid;
    outcome->prompt_tokens = reply->prompt_tokens;
    outcome->completion_tokens = reply->completion_tokens;
    if (verdict.class == HA_JUDGE_CLASS_REPLY)
        return read_text(end, reply, outcome, err);
    outcome->kind = kind_of(verdict.class);
    snprintf(outcome->fault, sizeof outcome->fault, "%s", verdict.text);
    return 0;
}

/* A fault is one line of UTF-8 without a character that was cut at its end. */
static void tidy(char *fault)
{
    fault[ha_utf8_valid(fault, strlen(fault))] = '\0';
    for (; *fault; fault++) {
        if ((unsigned char)*fault < ' ')
            *fault = ' ';
    }
}

int ha_judge_outcome_read(const struct ha_judge_end *end, struct ha_judge_outcome *ret_outcome,
                          struct ha_error *err)
{
    struct ha_judge_outcome outcome = {0};
    struct ha_judge_reply reply;
    int r;

    r = ha_judge_reply_read(end->raw, end->raw_size, &reply, err);
    if (r < 0)
        return r;
    r = read_reply(end, &reply, &outcome, err);
    ha_judge_reply_clear(&reply);
    tidy(outcome.fault);
    if (r < 0)
        ha_judge_outcome_clear(&outcome);
    else
        *ret_outcome = outcome;
    return r;
}

void ha_judge_outcome_clear(struct ha_judge_outcome *outcome)
{
    ha_judge_scores_clear(&outcome->scores);
}
