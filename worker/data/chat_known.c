/* Which format a model's chat template is, and whether its tokenizer can write it. */
#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "worker/data/chat.h"
#include "worker/tokenizer/tokenizer.h"

#define NAMES "llama-2, llama-3, llama-3.1, chatml, qwen2.5, qwen3"

static const char *const names[] = {
    [HA_CHAT_LLAMA2] = "llama-2", [HA_CHAT_LLAMA3] = "llama-3", [HA_CHAT_LLAMA31] = "llama-3.1",
    [HA_CHAT_CHATML] = "chatml",  [HA_CHAT_QWEN25] = "qwen2.5", [HA_CHAT_QWEN3] = "qwen3",
};

enum { N_NAMES = sizeof(names) / sizeof(names[0]) };

/* SHA-256 of published templates, without a newline at the very end, which Jinja does not write. */
static const struct {
    const char *sha256;
    enum ha_chat_format format;
} known[] = {
    /* Llama-2-*-chat-hf; the second with one space less in the program */
    {"e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf", HA_CHAT_LLAMA2},
    {"1623de5159d584da0b6c78f86ae57b2328746122f2c58446ab7f84bce8c7c57f", HA_CHAT_LLAMA2},
    /* Meta-Llama-3-*-Instruct, newlines as such and as \n */
    {"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", HA_CHAT_LLAMA3},
    {"4f46ecd43418f216df8c26936c60e5d04bcc81db47db5d86fbe889f64212dd4c", HA_CHAT_LLAMA3},
    /* Llama-3.1-*-Instruct, Llama-3.3-70B-Instruct */
    {"93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7", HA_CHAT_LLAMA31},
    /* The one-line ChatML of many models, in three spellings */
    {"fcf7a096fe99a48fd9ad2b250bf9237e96e8f48bffec1c7ea4d3f225176cd40e", HA_CHAT_CHATML},
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", HA_CHAT_CHATML},
    {"17762d2e5131cb2a950db7dd5700c50095547773d3302b52baebe9ae32257a55", HA_CHAT_CHATML},
    /* Qwen3-*-Instruct-2507, which never thinks: without tools it is ChatML */
    {"64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326", HA_CHAT_CHATML},
    /* Qwen2.5-*-Instruct */
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", HA_CHAT_QWEN25},
    /* Qwen3-*, today's and the first edition */
    {"a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8", HA_CHAT_QWEN3},
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", HA_CHAT_QWEN3},
};

const char *ha_chat_format_name(enum ha_chat_format format)
{
    return names[format];
}

int ha_chat_format_parse(const char *name, enum ha_chat_format *ret_format)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret_format = (enum ha_chat_format)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Hash of a template as the table has it. */
static const char *hash_of(const char *text, size_t size, char hex[HA_SHA256_HEX_BYTES])
{
    uint8_t digest[HA_SHA256_BYTES];

    ha_sha256(text, size - (size > 0 && text[size - 1] == '\n'), digest);
    return ha_sha256_hex(digest, hex);
}

int ha_chat_recognise(const char *template_text, size_t size, enum ha_chat_format *ret_format)
{
    char hex[HA_SHA256_HEX_BYTES];

    (void)hash_of(template_text, size, hex);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(hex, known[i].sha256) == 0) {
            *ret_format = known[i].format;
            return 0;
        }
    }
    return -ENOENT;
}

static int own_format(const struct ha_tokenizer *tokenizer, enum ha_chat_format *ret_format,
                      struct ha_error *err)
{
    const char *text = ha_tokenizer_chat_template(tokenizer);
    char hex[HA_SHA256_HEX_BYTES];

    if (!text)
        return ha_error_set(err, ENOTSUP,
                            "template = \"chat\": the model has no chat template; use \"hh\", or "
                            "name the format it was tuned with: " NAMES);
    if (ha_chat_recognise(text, strlen(text), ret_format) == 0)
        return 0;
    return ha_error_set(err, ENOTSUP,
                        "template = \"chat\": the model's chat template (sha256 %.12s...) is none "
                        "that is known; name the format that it writes: " NAMES ", or use \"hh\"",
                        hash_of(text, strlen(text), hex));
}

static int check_tokens(const struct ha_chat *chat, const struct ha_tokenizer *tokenizer,
                        struct ha_error *err)
{
    static const char *const llama[] = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                        NULL};
    static const char *const qwen[] = {"<|im_start|>", "<|im_end|>", NULL};
    static const char *const none[] = {NULL};
    const bool is_llama2 = chat->format == HA_CHAT_LLAMA2;
    const bool is_llama3 = chat->format == HA_CHAT_LLAMA3 || chat->format == HA_CHAT_LLAMA31;
    const char *const *tokens = is_llama2 ? none : is_llama3 ? llama : qwen;

    for (; *tokens; tokens++)
        if (ha_tokenizer_token_to_id(tokenizer, *tokens) < 0)
            return ha_error_set(err, EINVAL,
                                "template \"%s\" writes %s, which is no token of the model; "
                                "name the format it was tuned with: " NAMES ", or use \"hh\"",
                                names[chat->format], *tokens);
    if ((is_llama2 || is_llama3) && chat->bos[0] == '\0')
        return ha_error_set(err, EINVAL,
                            "template \"%s\" begins with the bos_token, and tokenizer_config.json "
                            "names none",
                            names[chat->format]);
    if (is_llama2 && chat->eos[0] == '\0')
        return ha_error_set(err, EINVAL,
                            "template \"%s\" ends answers with the eos_token, and "
                            "tokenizer_config.json names none",
                            names[chat->format]);
    return 0;
}

int ha_chat_open(const char *setting, const struct ha_tokenizer *tokenizer,
                 struct ha_chat *ret_chat, struct ha_error *err)
{
    const char *bos = ha_tokenizer_bos_text(tokenizer), *eos = ha_tokenizer_eos_text(tokenizer);
    struct ha_chat chat = {.bos = bos ? bos : "", .eos = eos ? eos : ""};
    int r;

    if (strcmp(setting, "chat") == 0)
        r = own_format(tokenizer, &chat.format, err);
    else if (ha_chat_format_parse(setting, &chat.format) == 0)
        r = 0;
    else
        r = ha_error_set(err, EINVAL, "template \"%s\" is none of hh, chat, " NAMES, setting);
    if (r == 0)
        r = check_tokens(&chat, tokenizer, err);
    if (r == 0)
        *ret_chat = chat;
    return r;
}
