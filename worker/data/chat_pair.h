/* chat_pair.h - a preference pair as conversation, for a chat template
 *
 * What TRL 1.9 makes of conversational rows: prompt = the messages that both sides begin with (its
 * extract_prompt on lists; of two equal lists all but the last), then three texts: the prompt with
 * the generation prompt, prompt + chosen, prompt + rejected.  No EOS is added: the template ends
 * the turn.
 *
 * Rows of text become conversations first:
 *   {"chosen", "rejected"}            both are hh-rlhf dialogues (messages.h)
 *   {"prompt", "chosen", "rejected"}  a prompt that begins with "\n\nHuman:" or "\n\nAssistant:" is
 *                                     a dialogue, whose empty last turn of the assistant is left
 *                                     out; any other is one turn of the user.  Each reply is one
 *                                     turn of the assistant, less one leading space */
#ifndef HA_WORKER_DATA_CHAT_PAIR_H
#define HA_WORKER_DATA_CHAT_PAIR_H

#include "worker/data/chat.h"
#include "worker/data/rows.h"

/* A row's conversations: prompt, and what each side adds to it. */
struct ha_chat_pair {
    struct ha_messages prompt, chosen, rejected; /* texts borrowed from the row */
};

/* What makes a row no pair. */
enum ha_chat_flaw {
    HA_CHAT_FINE,
    HA_CHAT_NO_DIALOGUE, /* a text does not begin with a turn */
    HA_CHAT_NO_PROMPT,   /* the first messages differ, or there is one only */
};

void ha_chat_pair_clear(struct ha_chat_pair *pair);

/* at_turn: the prompt ends before the last turn of the assistant that both sides begin, wherever
 * they part (pairs.h, HA_SPLIT_TURN); *ret_no_turn tells that there is none, the prompt is then
 * TRL's.  form: not HA_ROWS_PROMPT.  pair is to be {0} or cleared, and is cleared by the caller in
 * every case.  Returns 0 or -ENOMEM. */
int ha_chat_pair_make(const struct ha_row *row, enum ha_rows_form form, bool at_turn,
                      struct ha_chat_pair *pair, enum ha_chat_flaw *ret_flaw, bool *ret_no_turn);

/* The prompt of a row to generate for: of {"chosen", "rejected"} chosen before its last turn of the
 * assistant, else the prompt.  messages borrows the row's texts; the caller clears it. */
int ha_chat_prompt_make(const struct ha_row *row, enum ha_rows_form form,
                        struct ha_messages *messages, enum ha_chat_flaw *ret_flaw);

/* Append such a prompt as the template writes it.  One that a row gives and that ends with an
 * answer is continued, as in TRL's apply_chat_template; an answer that only stands before another
 * one in a dialogue is not.  -EINVAL where the template has no way to write it. */
int ha_chat_prompt_render(const struct ha_chat *chat, const struct ha_messages *messages,
                          enum ha_rows_form form, struct ha_buffer *text);

#endif
