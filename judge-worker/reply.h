/* reply.h - the body of an evaluator's HTTP reply, whatever it is
 *
 * A chat completion as OpenAI defines it, one of the error shapes of the field
 * (error as object or text, code as text or number, keys at the root, `detail`),
 * or something else: HTML, an event stream, a bare text, rubbish.  An error
 * object counts as an error also under status 200. */
#ifndef HA_JUDGE_WORKER_REPLY_H
#define HA_JUDGE_WORKER_REPLY_H

#include <stddef.h>
#include <stdint.h>

struct ha_error;

enum ha_judge_reply_kind {
    HA_JUDGE_REPLY_CHAT,
    HA_JUDGE_REPLY_ERROR,
    HA_JUDGE_REPLY_HTML,
    HA_JUDGE_REPLY_STREAM, /* server-sent events, which were not asked for */
    HA_JUDGE_REPLY_EMPTY,  /* no bytes, or a completion without choices */
    HA_JUDGE_REPLY_OTHER
};

enum { HA_JUDGE_EXCERPT_BYTES = 201 };

struct ha_judge_reply {
    enum ha_judge_reply_kind kind;
    char *content; /* of the first choice; NULL: null or absent */
    size_t content_size;
    char *reasoning; /* reasoning_content or reasoning; NULL: absent or empty */
    size_t reasoning_size;
    char *refusal;                        /* NULL: none */
    char *model;                          /* as the server names it; NULL: absent */
    char finish[32];                      /* finish_reason; "" when absent */
    int64_t prompt_tokens;                /* -1: not said */
    int64_t completion_tokens;            /* -1: not said */
    char *error_code, *error_type;        /* NULL: absent; a number is written as text */
    char *error_message;                  /* never NULL for an error */
    char excerpt[HA_JUDGE_EXCERPT_BYTES]; /* printable beginning of a body that is no chat */
};

/* Returns 0 for every body, or -ENOMEM.  bytes may be NULL when size is 0. */
int ha_judge_reply_read(const void *bytes, size_t size, struct ha_judge_reply *ret_reply,
                        struct ha_error *err);
void ha_judge_reply_clear(struct ha_judge_reply *reply);

#endif
