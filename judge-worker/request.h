/* request.h - the HTTP request of one question */
#ifndef HA_JUDGE_WORKER_REQUEST_H
#define HA_JUDGE_WORKER_REQUEST_H

#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct ha_sweep_judge;

/* Faults of a reply's text begin with this; only they are stated to the
 * evaluator when an item is asked again. */
#define HA_JUDGE_FAULT_REPLY "reply: "

/* A fault that begins with this is answered with twice the room for the reply. */
#define HA_JUDGE_FAULT_CUT HA_JUDGE_FAULT_REPLY "it was cut"

struct ha_judge_question {
    const char *prompt, *answer;
    const char *fault; /* what the item's last send came to; "" or NULL: nothing yet */
};

struct ha_judge_request {
    char *url;
    char *body; /* JSON */
    size_t body_size;
    int64_t prompt_tokens; /* estimated, rather too many */
    int64_t max_tokens;    /* of the reply */
};

/* -EINVAL when `extra` would replace what this program decides (messages, model,
 * stream, n). */
int ha_judge_request_build(const struct ha_sweep_judge *judge,
                           const struct ha_judge_question *question,
                           struct ha_judge_request *ret_request, struct ha_error *err);
void ha_judge_request_clear(struct ha_judge_request *request);

/* Money for a call, in the currency of the prices. */
double ha_judge_price(const struct ha_sweep_judge *judge, int64_t prompt_tokens,
                      int64_t completion_tokens);

#endif
