/* Chat templates: recognising their text, and writing conversations in each
 * format.  The first byte chooses the format and the end. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "worker/data/chat.h"
#include "worker/data/messages.h"

/* Writing a dialogue out and reading it again gives the same messages. */
static void check_dialogue(const struct ha_messages *messages)
{
    struct ha_messages again = {0};
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    FUZZ_CHECK(ha_messages_to_dialogue(messages, &text) == 0);
    FUZZ_CHECK(ha_messages_from_dialogue(ha_buffer_text(&text), text.size, &again) == 0);
    FUZZ_CHECK(ha_messages_common(messages, &again) == messages->count);
    FUZZ_CHECK(again.count == messages->count);
    ha_messages_clear(&again);
    ha_buffer_clear(&text);
}

static void render(const struct ha_messages *messages, uint8_t choice)
{
    struct ha_chat chat = {.format = choice % (HA_CHAT_QWEN3 + 1), .bos = "<s>", .eos = "</s>"};
    enum ha_chat_end end = choice / 8 % (HA_CHAT_CONTINUE + 1);
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_chat_render(&chat, messages, end, &text);
    FUZZ_CHECK(r == 0 || r == -EINVAL);
    ha_buffer_clear(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t choice = fuzz_byte(&input);
    struct ha_messages messages = {0};
    enum ha_chat_format format;
    int r = ha_chat_recognise((const char *)input.at, input.size, &format);

    FUZZ_CHECK(r == 0 || r == -ENOENT);
    r = ha_messages_from_dialogue((const char *)input.at, input.size, &messages);
    FUZZ_CHECK(r == 0 || r == -EINVAL);
    if (r == 0) {
        FUZZ_CHECK(messages.count > 0);
        check_dialogue(&messages);
        render(&messages, choice);
    }
    ha_messages_clear(&messages);
    return 0;
}
