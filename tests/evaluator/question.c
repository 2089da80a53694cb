#include "tests/evaluator/question.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"

/* The last place where a text stands in another, or NULL. */
static const char *find_last(const char *text, const char *wanted)
{
    const char *last = NULL;

    for (const char *at = text; (at = strstr(at, wanted)) != NULL; at++)
        last = at;
    return last;
}

static char *copy_trimmed(const char *from, const char *to)
{
    while (from < to && strchr(" \n", *from))
        from++;
    while (from < to && strchr(" \n", to[-1]))
        to--;
    return strndup(from, (size_t)(to - from));
}

/* Without the lines that the guarded prompt puts around a text. */
static char *copy_text(const char *from, const char *to)
{
    char *text = copy_trimmed(from, to), *inner;
    const char *first, *last;

    if (!text || strncmp(text + strcspn(text, " \n"), " begin ", 7) != 0)
        return text;
    first = strchr(text, '\n');
    last = strrchr(text, '\n');
    if (!first || last == first)
        return text;
    inner = copy_trimmed(first, last);
    free(text);
    return inner;
}

static int cut(const char *message, struct ha_evaluator_question *question, struct ha_error *err)
{
    static const char prompt_mark[] = "- User Prompt:", answer_mark[] = "\n- Model Response:";
    const char *head = strstr(message, "[Response to Evaluate]");
    const char *prompt = head ? strstr(head, prompt_mark) : NULL;
    const char *answer = prompt ? strstr(prompt, answer_mark) : NULL;
    const char *end = answer ? find_last(answer, "\n[Output Requirements]") : NULL;

    if (!end)
        return ha_error_set(err, EINVAL,
                            "the message is not the judge's prompt: it lacks a heading");
    question->prompt = copy_text(prompt + strlen(prompt_mark), answer);
    question->answer = copy_text(answer + strlen(answer_mark), end);
    return question->prompt && question->answer ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

int ha_evaluator_question_read(const char *body, size_t size,
                               struct ha_evaluator_question *ret_question, struct ha_error *err)
{
    struct ha_evaluator_question question = {0};
    const struct ha_json *messages, *last;
    struct ha_json *root;
    int r;

    r = ha_json_parse(body, size, "request", &root, err);
    if (r < 0)
        return r;
    messages = ha_json_get(root, "messages");
    last = ha_json_at(messages, ha_json_size(messages) - 1);
    for (int64_t i = 0; i < ha_json_size(messages); i++)
        question.tokens +=
            (int64_t)ha_json_string_size(ha_json_get(ha_json_at(messages, i), "content")) / 4 + 4;
    if (!ha_json_string(ha_json_get(root, "model"), NULL))
        r = ha_error_set(err, EINVAL, "you must provide a model parameter");
    else if (!ha_json_string(ha_json_get(last, "content"), NULL))
        r = ha_error_set(err, EINVAL, "messages must hold texts");
    else
        r = cut(ha_json_string(ha_json_get(last, "content"), ""), &question, err);
    ha_json_destroy(root);
    if (r < 0)
        ha_evaluator_question_clear(&question);
    else
        *ret_question = question;
    return r;
}

void ha_evaluator_question_clear(struct ha_evaluator_question *question)
{
    free(question->prompt);
    free(question->answer);
    *question = (struct ha_evaluator_question){0};
}
