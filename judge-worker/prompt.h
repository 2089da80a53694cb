/* prompt.h - the two messages that an evaluator gets
 *
 * "paper" is the template of the paper's Appendix D word for word: the text
 * under [System Role] is the system message, everything after it one user
 * message.  "guarded" is the same with a mark, new for every call, around the
 * judged text.  Model and strategy never appear.
 *
 * The user message is a template of prompts/ in which, from left to right and
 * once, these are replaced (never inside what was put in):
 *
 *   (The dimensions defined in Table 6 ...)   common/conf/dimensions.h as a JSON array of
 *                                             {"dimension", "definition"}
 *   [INSERT PROMPT]                           the whole dialogue that the model saw
 *   [INSERT RESPONSE]                         its answer
 *   [INSERT NONCE]                            the mark of "guarded"
 *
 * An item that is asked again has prompts/reask.txt after it, with the fault. */
#ifndef HA_JUDGE_WORKER_PROMPT_H
#define HA_JUDGE_WORKER_PROMPT_H

#include <stdbool.h>

#include "common/base/hash.h"

struct ha_buffer;
struct ha_error;

enum { HA_JUDGE_NONCE_BYTES = 17 }; /* 16 hexadecimal digits */

struct ha_judge_prompt {
    const char *kind; /* "paper" | "guarded" */
    const char *prompt;
    const char *answer;
    const char *fault; /* why the reply before this one could not be used; NULL or "": the first */
    const char *nonce; /* of "guarded"; does not occur in prompt or answer */
};

/* Returns 0, -EINVAL for another kind, or -ENOMEM.  The buffers are appended to. */
int ha_judge_prompt_build(const struct ha_judge_prompt *prompt, struct ha_buffer *system,
                          struct ha_buffer *user, struct ha_error *err);

/* A mark that does not occur in either text. */
int ha_judge_prompt_nonce(const char *prompt, const char *answer,
                          char ret_nonce[HA_JUDGE_NONCE_BYTES], struct ha_error *err);

/* SHA-256 over the bytes of the texts of this kind.  -EINVAL for another kind. */
int ha_judge_prompt_digest(const char *kind, char ret_hex[HA_SHA256_HEX_BYTES],
                           struct ha_error *err);

#endif
