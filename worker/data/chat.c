/* What the formats write; chat_known.c finds a model's. */
#include "worker/data/chat.h"

#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/utf8.h"

struct text {
    const char *data;
    size_t size;
};

/* One conversation on its way to text. */
struct rendering {
    const struct ha_chat *chat;
    const struct ha_message *items;
    int64_t count;
    enum ha_chat_end end;
    struct ha_buffer *out;
};

static const char think_begin[] = "<think>", think_end[] = "</think>";

bool ha_chat_has_generation_prompt(const struct ha_chat *chat)
{
    return chat->format != HA_CHAT_LLAMA2;
}

const char *ha_chat_end_token(const struct ha_chat *chat)
{
    switch (chat->format) {
    case HA_CHAT_LLAMA2:
        return chat->eos;
    case HA_CHAT_LLAMA3:
    case HA_CHAT_LLAMA31:
        return "<|eot_id|>";
    case HA_CHAT_CHATML:
    case HA_CHAT_QWEN25:
    case HA_CHAT_QWEN3:
        break;
    }
    return "<|im_end|>";
}

/* ---- texts ---- */

static struct text text_of(const struct ha_message *message)
{
    return (struct text){message->text, message->size};
}

/* What Python's str.strip() takes off. */
static bool is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
           code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

static struct text strip_left(struct text text)
{
    uint32_t code;
    size_t n;

    while ((n = ha_utf8_decode(text.data, text.size, &code)) > 0 && is_space(code)) {
        text.data += n;
        text.size -= n;
    }
    return text;
}

static struct text strip_right(struct text text)
{
    while (text.size > 0) {
        size_t start = text.size - 1;
        uint32_t code = 0;

        while (start > 0 && ((uint8_t)text.data[start] & 0xc0) == 0x80)
            start--;
        (void)ha_utf8_decode(text.data + start, text.size - start, &code);
        if (!is_space(code))
            break;
        text.size = start;
    }
    return text;
}

static struct text strip(struct text text)
{
    return strip_right(strip_left(text));
}

static struct text strip_newlines_left(struct text text)
{
    while (text.size > 0 && text.data[0] == '\n') {
        text.data++;
        text.size--;
    }
    return text;
}

static struct text strip_newlines_right(struct text text)
{
    while (text.size > 0 && text.data[text.size - 1] == '\n')
        text.size--;
    return text;
}

/* Offset of the first / behind the last occurrence of part; -1: none. */
static int64_t find_first(struct text text, const char *part)
{
    const char *found = text.size > 0 ? memmem(text.data, text.size, part, strlen(part)) : NULL;

    return found ? found - text.data : -1;
}

static int64_t find_behind_last(struct text text, const char *part)
{
    size_t length = strlen(part);

    for (size_t end = text.size; end >= length; end--)
        if (memcmp(text.data + end - length, part, length) == 0)
            return (int64_t)end;
    return -1;
}

static struct text from(struct text text, int64_t at)
{
    return (struct text){text.data + at, text.size - (size_t)at};
}

static bool begins_with(struct text text, const char *part)
{
    return text.size >= strlen(part) && memcmp(text.data, part, strlen(part)) == 0;
}

static bool ends_with(struct text text, const char *part)
{
    size_t length = strlen(part);

    return text.size >= length && memcmp(text.data + text.size - length, part, length) == 0;
}

static int put(struct rendering *r, struct text text)
{
    return ha_buffer_append(r->out, text.data, text.size);
}

static int put_all(struct rendering *r, const char *const *parts, int n)
{
    int result = 0;

    for (int i = 0; i < n && result == 0; i++)
        result = ha_buffer_append_text(r->out, parts[i]);
    return result;
}

#define PUT(r, ...)                                                                                \
    put_all((r), (const char *const[]){__VA_ARGS__},                                               \
            (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)))

/* The message after which nothing more is written. */
static bool left_open(const struct rendering *r, int64_t i)
{
    return r->end == HA_CHAT_CONTINUE && i == r->count - 1;
}

/* ---- llama-2 ---- */

/* Strips what was written from `begin` on. */
static void strip_written(struct rendering *r, size_t begin, bool right)
{
    struct text all = {r->out->data + begin, r->out->size - begin}, text = strip_left(all);

    if (right)
        text = strip_right(text);
    memmove(r->out->data + begin, text.data, text.size);
    ha_buffer_truncate(r->out, begin + text.size);
}

static int put_llama2_turn(struct rendering *r, int64_t i, const struct ha_message *system)
{
    const bool user = r->items[i].role == HA_ROLE_USER, open = left_open(r, i);
    size_t begin;
    int result;

    if (r->items[i].role == HA_ROLE_SYSTEM)
        return 0;
    result = user ? PUT(r, r->chat->bos, "[INST] ") : PUT(r, " ");
    begin = r->out->size;
    if (result == 0 && system)
        result = PUT(r, "<<SYS>>\n");
    if (result == 0 && system)
        result = put(r, text_of(system));
    if (result == 0 && system)
        result = PUT(r, "\n<</SYS>>\n\n");
    if (result == 0)
        result = put(r, text_of(&r->items[i]));
    if (result < 0)
        return result;
    strip_written(r, begin, !open);
    if (open)
        return 0;
    return user ? PUT(r, " [/INST]") : PUT(r, " ", r->chat->eos);
}

static int render_llama2(struct rendering *r)
{
    const struct ha_message *system = NULL;
    int64_t first = 0;
    int result = 0;

    if (r->items[0].role == HA_ROLE_SYSTEM) {
        system = &r->items[0];
        first = 1;
    }
    for (int64_t i = first; i < r->count && result == 0; i++) {
        if ((r->items[i].role == HA_ROLE_USER) != ((i - first) % 2 == 0))
            return -EINVAL;
        result = put_llama2_turn(r, i, i == first ? system : NULL);
    }
    return result;
}

/* ---- llama-3, llama-3.1 ---- */

static int put_llama3_turn(struct rendering *r, int64_t i)
{
    const struct ha_message *message = &r->items[i];
    int result =
        PUT(r, "<|start_header_id|>", ha_role_name(message->role), "<|end_header_id|>\n\n");

    if (result == 0)
        result = put(r, strip(text_of(message)));
    if (result < 0 || !left_open(r, i))
        return result < 0 ? result : PUT(r, "<|eot_id|>");
    /* Transformers strips the whole text where the template strips the message. */
    ha_buffer_truncate(r->out, strip_right((struct text){r->out->data, r->out->size}).size);
    return 0;
}

static int render_llama3(struct rendering *r)
{
    int64_t first = 0;
    int result = PUT(r, r->chat->bos);

    if (result == 0 && r->chat->format == HA_CHAT_LLAMA31) {
        result = PUT(r, "<|start_header_id|>system<|end_header_id|>\n\n",
                     "Cutting Knowledge Date: December 2023\n", "Today Date: 26 Jul 2024\n\n");
        if (r->items[0].role == HA_ROLE_SYSTEM) {
            first = 1;
            if (result == 0)
                result = put(r, strip(text_of(&r->items[0])));
        }
        if (result == 0)
            result = PUT(r, "<|eot_id|>");
    }
    for (int64_t i = first; i < r->count && result == 0; i++)
        result = put_llama3_turn(r, i);
    if (result < 0 || r->end != HA_CHAT_GENERATE)
        return result;
    return PUT(r, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* ---- chatml, qwen2.5, qwen3 ---- */

/* The last message that asks something: from there on an answer keeps its thoughts. */
static int64_t last_query(const struct rendering *r)
{
    for (int64_t i = r->count - 1; i >= 0; i--) {
        struct text text = text_of(&r->items[i]);

        if (r->items[i].role == HA_ROLE_USER &&
            !(begins_with(text, "<tool_response>") && ends_with(text, "</tool_response>")))
            return i;
    }
    return r->count - 1;
}

/* What stands before the first end of a thought, from its beginning on. */
static struct text thought_of(struct text text)
{
    struct text thought = {text.data, (size_t)find_first(text, think_end)};
    int64_t begin;

    thought = strip_newlines_right(thought);
    begin = find_behind_last(thought, think_begin);
    return strip_newlines_left(begin >= 0 ? from(thought, begin) : thought);
}

static int put_qwen3_answer(struct rendering *r, int64_t i, int64_t query)
{
    struct text text = text_of(&r->items[i]), thought = {"", 0};
    int64_t behind = find_behind_last(text, think_end);
    int result = PUT(r, "<|im_start|>assistant\n");

    if (behind >= 0) {
        thought = thought_of(text);
        text = strip_newlines_left(from(text, behind));
    }
    if (i > query && (i == r->count - 1 || thought.size > 0)) {
        if (result == 0)
            result = PUT(r, "<think>\n");
        if (result == 0)
            result = put(r, strip_newlines_right(thought));
        if (result == 0)
            result = PUT(r, "\n</think>\n\n");
        text = strip_newlines_left(text);
    }
    return result < 0 ? result : put(r, text);
}

static int put_chatml_turn(struct rendering *r, int64_t i)
{
    int result = PUT(r, "<|im_start|>", ha_role_name(r->items[i].role), "\n");

    return result < 0 ? result : put(r, text_of(&r->items[i]));
}

static int render_chatml(struct rendering *r)
{
    const bool qwen3 = r->chat->format == HA_CHAT_QWEN3;
    int64_t query = last_query(r);
    int result = 0;

    if (r->chat->format == HA_CHAT_QWEN25 && r->items[0].role != HA_ROLE_SYSTEM)
        result = PUT(r, "<|im_start|>system\n",
                     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                     "<|im_end|>\n");
    for (int64_t i = 0; i < r->count && result == 0; i++) {
        result = qwen3 && r->items[i].role == HA_ROLE_ASSISTANT ? put_qwen3_answer(r, i, query)
                                                                : put_chatml_turn(r, i);
        if (result == 0 && !left_open(r, i))
            result = PUT(r, "<|im_end|>\n");
    }
    if (result < 0 || r->end != HA_CHAT_GENERATE)
        return result;
    return PUT(r, "<|im_start|>assistant\n", qwen3 ? "<think>\n\n</think>\n\n" : "");
}

/* ---- all ---- */

/* Transformers wants to find the message that goes on in what was written. */
static bool holds(const struct ha_buffer *out, size_t start, struct text part)
{
    part = strip(part);
    return part.size == 0 ||
           memmem(out->data + start, out->size - start, part.data, part.size) != NULL;
}

int ha_chat_render(const struct ha_chat *chat, const struct ha_messages *messages,
                   enum ha_chat_end end, struct ha_buffer *text)
{
    struct rendering r = {chat, messages->items, messages->count, end, text};
    size_t start = text->size;
    int result;

    if (messages->count == 0)
        return -EINVAL;
    switch (chat->format) {
    case HA_CHAT_LLAMA2:
        result = render_llama2(&r);
        break;
    case HA_CHAT_LLAMA3:
    case HA_CHAT_LLAMA31:
        result = render_llama3(&r);
        break;
    default:
        result = render_chatml(&r);
        break;
    }
    if (result == 0 && end == HA_CHAT_CONTINUE &&
        !holds(text, start, text_of(&messages->items[messages->count - 1])))
        result = -EINVAL;
    if (result < 0)
        ha_buffer_truncate(text, start);
    return result;
}
