#include "worker/data/chat_pair.h"

#include <errno.h>
#include <string.h>

#include "worker/data/prompts.h"

void ha_chat_pair_clear(struct ha_chat_pair *pair)
{
    ha_messages_clear(&pair->prompt);
    ha_messages_clear(&pair->chosen);
    ha_messages_clear(&pair->rejected);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The messages of a part of a row, -EINVAL when its text is no dialogue. */
static int read_side(const struct ha_text *text, const struct ha_messages *list,
                     struct ha_messages *ret)
{
    return list->count > 0 ? ha_messages_join(ret, list)
                           : ha_messages_from_dialogue(text->data, text->size, ret);
}

static int add_reply(const struct ha_text *text, struct ha_messages *messages)
{
    size_t space = text->size > 0 && text->data[0] == ' ';

    return ha_messages_add(messages, HA_ROLE_ASSISTANT, text->data + space, text->size - space);
}

/* The prompt of a row that has one. */
static int read_prompt(const struct ha_row *row, struct ha_messages *messages)
{
    const struct ha_text *text = &row->prompt;
    int r = read_side(text, &row->prompt_list, messages);

    if (r == -EINVAL)
        return ha_messages_add(messages, HA_ROLE_USER, text->data, text->size);
    if (r == 0 && row->prompt_list.count == 0) {
        const struct ha_message *last = &messages->items[messages->count - 1];

        if (last->role == HA_ROLE_ASSISTANT && last->size == 0)
            messages->count--;
    }
    return r;
}

/* Index of the last answer that both sides begin; -1: none. */
static int64_t last_common_answer(const struct ha_messages *a, const struct ha_messages *b)
{
    int64_t i = least(ha_messages_common(a, b), least(a->count, b->count) - 1);

    while (i >= 0 &&
           (a->items[i].role != HA_ROLE_ASSISTANT || b->items[i].role != HA_ROLE_ASSISTANT))
        i--;
    return i;
}

/* Cut both conversations into prompt and rest. */
static int cut(struct ha_chat_pair *pair, bool at_turn, enum ha_chat_flaw *ret_flaw,
               bool *ret_no_turn)
{
    struct ha_messages *sides[] = {&pair->chosen, &pair->rejected};
    const struct ha_messages *a = &pair->chosen, *b = &pair->rejected;
    int64_t at = least(ha_messages_common(a, b), least(a->count, b->count) - 1);

    if (at_turn) {
        int64_t turn = last_common_answer(a, b);

        *ret_no_turn = turn <= 0;
        at = turn > 0 ? turn : at;
    }
    if (at == 0) {
        *ret_flaw = HA_CHAT_NO_PROMPT;
        return 0;
    }
    for (int64_t i = 0; i < at; i++)
        if (ha_messages_add(&pair->prompt, a->items[i].role, a->items[i].text, a->items[i].size) <
            0)
            return -ENOMEM;
    for (int i = 0; i < 2; i++) {
        sides[i]->count -= at;
        memmove(sides[i]->items, sides[i]->items + at,
                (size_t)sides[i]->count * sizeof(*sides[i]->items));
    }
    return 0;
}

int ha_chat_pair_make(const struct ha_row *row, enum ha_rows_form form, bool at_turn,
                      struct ha_chat_pair *pair, enum ha_chat_flaw *ret_flaw, bool *ret_no_turn)
{
    int r;

    *ret_flaw = HA_CHAT_FINE;
    *ret_no_turn = false;
    if (form == HA_ROWS_IMPLICIT) {
        r = read_side(&row->chosen, &row->chosen_list, &pair->chosen);
        if (r == 0)
            r = read_side(&row->rejected, &row->rejected_list, &pair->rejected);
        if (r == -EINVAL)
            *ret_flaw = HA_CHAT_NO_DIALOGUE;
        return r == -EINVAL ? 0 : r < 0 ? r : cut(pair, at_turn, ret_flaw, ret_no_turn);
    }
    r = read_prompt(row, &pair->prompt);
    if (pair->prompt.count == 0)
        *ret_flaw = HA_CHAT_NO_PROMPT;
    if (r == 0)
        r = row->chosen_list.count > 0 ? ha_messages_join(&pair->chosen, &row->chosen_list)
                                       : add_reply(&row->chosen, &pair->chosen);
    if (r < 0)
        return r;
    return row->rejected_list.count > 0 ? ha_messages_join(&pair->rejected, &row->rejected_list)
                                        : add_reply(&row->rejected, &pair->rejected);
}

int ha_chat_prompt_make(const struct ha_row *row, enum ha_rows_form form,
                        struct ha_messages *messages, enum ha_chat_flaw *ret_flaw)
{
    int r;

    *ret_flaw = HA_CHAT_FINE;
    r = form == HA_ROWS_IMPLICIT ? read_side(&row->chosen, &row->chosen_list, messages)
                                 : read_prompt(row, messages);
    if (r == -EINVAL) {
        *ret_flaw = HA_CHAT_NO_DIALOGUE;
        return 0;
    }
    if (form == HA_ROWS_IMPLICIT) {
        while (messages->count > 0 &&
               messages->items[messages->count - 1].role != HA_ROLE_ASSISTANT)
            messages->count--;
        messages->count -= messages->count > 0;
    }
    if (messages->count == 0)
        *ret_flaw = HA_CHAT_NO_PROMPT;
    return r;
}

int ha_chat_prompt_render(const struct ha_chat *chat, const struct ha_messages *messages,
                          enum ha_rows_form form, struct ha_buffer *text)
{
    bool answered =
        messages->count > 0 && messages->items[messages->count - 1].role == HA_ROLE_ASSISTANT;

    if (answered && form != HA_ROWS_IMPLICIT)
        return ha_chat_render(chat, messages, HA_CHAT_CONTINUE, text);
    if (answered && !ha_chat_has_generation_prompt(chat))
        return -EINVAL;
    return ha_chat_render(chat, messages, HA_CHAT_GENERATE, text);
}
