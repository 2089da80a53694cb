/* question.h - the judged texts out of a chat-completions request */
#ifndef HA_TESTS_EVALUATOR_QUESTION_H
#define HA_TESTS_EVALUATOR_QUESTION_H

#include <stddef.h>
#include <stdint.h>

struct ha_error;

struct ha_evaluator_question {
    char *prompt, *answer;
    int64_t tokens; /* of the messages, about */
};

/* Reads the request's last user message by the headings of the judge's prompt,
 * "paper" or "guarded".  -EINVAL with what is wrong. */
int ha_evaluator_question_read(const char *body, size_t size,
                               struct ha_evaluator_question *ret_question, struct ha_error *err);
void ha_evaluator_question_clear(struct ha_evaluator_question *question);

#endif
