/* chat.h - chat templates as named formats
 *
 * A model's chat template is a Jinja program.  None is run here: the templates of the families are
 * written out as formats, and a model's is recognised by the SHA-256 of its text.  What a format
 * writes equals Transformers' apply_chat_template with that template, byte for byte, without tools
 * or documents and, for qwen3, with enable_thinking = False.
 *
 *   llama-2    <s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] ...
 *              texts stripped; user and assistant take turns, the user first; it has no generation
 *              prompt: a prompt ends with [/INST]
 *   llama-3    <|begin_of_text|><|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|> ...
 *              texts stripped
 *   llama-3.1  as llama-3, after a system turn that is always there: "Cutting Knowledge Date:
 *              December 2023\nToday Date: 26 Jul 2024\n\n" and the system's text
 *   chatml     <|im_start|>ROLE\nTEXT<|im_end|>\n ...
 *   qwen2.5    as chatml; without a system turn "You are Qwen, created by Alibaba Cloud. You are a
 *              helpful assistant." is the system's
 *   qwen3      as chatml; thoughts are taken off earlier answers, the last one and the generation
 *              prompt have an empty <think> block
 */
#ifndef HA_WORKER_DATA_CHAT_H
#define HA_WORKER_DATA_CHAT_H

#include <stdbool.h>

#include "worker/data/messages.h"

struct ha_buffer;
struct ha_error;
struct ha_tokenizer;

enum ha_chat_format {
    HA_CHAT_LLAMA2,
    HA_CHAT_LLAMA3,
    HA_CHAT_LLAMA31,
    HA_CHAT_CHATML,
    HA_CHAT_QWEN25,
    HA_CHAT_QWEN3,
};

struct ha_chat {
    enum ha_chat_format format;
    const char *bos, *eos; /* of the tokenizer, which must outlive this; "" where it has none */
};

/* How a rendered conversation ends. */
enum ha_chat_end {
    HA_CHAT_CLOSED,   /* as it stands */
    HA_CHAT_GENERATE, /* add_generation_prompt */
    HA_CHAT_CONTINUE, /* continue_final_message: the last message is left open */
};

const char *ha_chat_format_name(enum ha_chat_format format);

/* Named format -> format.  Returns 0 or -EINVAL. */
int ha_chat_format_parse(const char *name, enum ha_chat_format *ret_format);

/* The format of a template's text; -ENOENT when it is none of those that are known. */
int ha_chat_recognise(const char *template_text, size_t size, enum ha_chat_format *ret_format);

/* setting: "chat", the model's own template, or the name of a format, whatever the model's is.
 * -ENOTSUP when the model has none, or one that is not known, -EINVAL when the tokenizer lacks a
 * token that the format writes; the error names the mend. */
int ha_chat_open(const char *setting, const struct ha_tokenizer *tokenizer,
                 struct ha_chat *ret_chat, struct ha_error *err);

/* The token that ends the assistant's turn. */
const char *ha_chat_end_token(const struct ha_chat *chat);

/* False for llama-2: nothing tells the model to answer after an answer. */
bool ha_chat_has_generation_prompt(const struct ha_chat *chat);

/* Append the conversation (at least one message) to text.  -EINVAL when the template refuses it:
 * for llama-2 roles that do not take turns; for HA_CHAT_CONTINUE a last message that the template
 * changes.  -ENOMEM or -EMSGSIZE when the buffer cannot grow. */
int ha_chat_render(const struct ha_chat *chat, const struct ha_messages *messages,
                   enum ha_chat_end end, struct ha_buffer *text);

#endif
