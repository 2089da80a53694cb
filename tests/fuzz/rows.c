/* Preference data: JSON Lines, plain or gzip, to pairs and prompts.  The first
 * byte chooses the tokenizer, the template and where pairs are cut. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "worker/data/chat.h"
#include "worker/data/pairs.h"
#include "worker/data/prompts.h"
#include "worker/data/rows.h"
#include "worker/tokenizer/tokenizer.h"

enum { TOKENIZERS = 3, MAX_LENGTH = 64 };

static const char *const names[TOKENIZERS] = {"llama-2-demo", "llama-3.1-demo", "qwen3-demo"};
static const char *const formats[TOKENIZERS] = {"llama-2", "llama-3.1", "qwen3"};
static struct ha_tokenizer *tokenizers[TOKENIZERS];
static struct ha_chat chats[TOKENIZERS];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[4096];
    struct ha_error err = {0};

    (void)argc;
    (void)argv;
    for (int i = 0; i < TOKENIZERS; i++) {
        (void)snprintf(path, sizeof path, "%s/deploy/demo/models/%s", HA_SOURCE_DIR, names[i]);
        FUZZ_CHECK(ha_tokenizer_load(path, &tokenizers[i], NULL) == 0);
        FUZZ_CHECK(fuzz_result(ha_chat_open(formats[i], tokenizers[i], &chats[i], &err), &err) ==
                   0);
    }
    return 0;
}

static void make_pairs(const struct ha_rows *rows, int which, const struct ha_pair_options *options)
{
    struct ha_pair_set *set = NULL;
    struct ha_error err = {0};
    struct ha_buffer text;

    if (fuzz_result(ha_pair_set_create(rows, tokenizers[which], options, 0, 42, &set, &err), &err) <
        0)
        return;
    FUZZ_CHECK(set->offset[3 * set->n_pairs] >= 0 && set->longest <= MAX_LENGTH);
    ha_buffer_init(&text, 0);
    FUZZ_CHECK(ha_pair_report_text(&set->report, &text) == 0);
    ha_buffer_clear(&text);
    ha_pair_set_destroy(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t choice = fuzz_byte(&input);
    int which = choice % TOKENIZERS;
    const char *path = fuzz_file("rows.jsonl", input.at, input.size);
    const struct ha_chat *chat = choice & 0x10 ? &chats[which] : NULL;
    struct ha_pair_options options = {.split = choice & 0x20 ? HA_SPLIT_TURN : HA_SPLIT_TRL,
                                      .chat = chat,
                                      .max_length = MAX_LENGTH,
                                      .require_prompt = choice & 0x40};
    struct ha_prompt_set *prompts = NULL;
    struct ha_rows *rows = NULL;
    struct ha_error err = {0};

    if (fuzz_result(ha_rows_open(&path, 1, &rows, &err), &err) < 0)
        return 0;
    if (chat || !ha_rows_are_messages(rows)) {
        if (ha_rows_form(rows) != HA_ROWS_PROMPT)
            make_pairs(rows, which, &options);
        if (fuzz_result(ha_prompt_set_create(rows, tokenizers[which], chat, MAX_LENGTH, 0, 42,
                                             &prompts, &err),
                        &err) == 0)
            ha_prompt_set_destroy(prompts);
    }
    ha_rows_close(rows);
    return 0;
}
