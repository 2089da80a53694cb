/* Any text through the demo models' tokenizers: the first byte says which. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/utf8.h"
#include "worker/tokenizer/tokenizer.h"

enum { TOKENIZERS = 4 };

static struct ha_tokenizer *tokenizers[TOKENIZERS];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const names[TOKENIZERS] = {"llama-2-demo", "llama-3.1-demo", "qwen2.5-demo",
                                                  "qwen3-demo"};
    char path[4096];

    (void)argc;
    (void)argv;
    for (int i = 0; i < TOKENIZERS; i++) {
        (void)snprintf(path, sizeof path, "%s/deploy/demo/models/%s", HA_SOURCE_DIR, names[i]);
        FUZZ_CHECK(ha_tokenizer_load(path, &tokenizers[i], NULL) == 0);
    }
    return 0;
}

/* Decoding one by one says what decoding at once says. */
static void check_stream(const struct ha_tokenizer *tokenizer, const struct ha_ids *ids,
                         const char *decoded, size_t size)
{
    struct ha_tokenizer_stream *stream = NULL;
    struct ha_error err = {0};
    struct ha_buffer all;
    const char *text;
    size_t bytes;

    ha_buffer_init(&all, 0);
    FUZZ_CHECK(ha_tokenizer_stream_create(tokenizer, false, &stream, &err) == 0);
    for (int64_t i = 0; i < ids->count; i++) {
        FUZZ_CHECK(ha_tokenizer_stream_push(stream, ids->data[i], &text, &bytes, &err) == 0);
        FUZZ_CHECK(ha_buffer_append(&all, text, bytes) == 0);
    }
    FUZZ_CHECK(ha_tokenizer_stream_finish(stream, &text, &bytes, &err) == 0);
    FUZZ_CHECK(ha_buffer_append(&all, text, bytes) == 0);
    FUZZ_CHECK(all.size == size && memcmp(ha_buffer_text(&all), decoded, size) == 0);
    ha_tokenizer_stream_destroy(stream);
    ha_buffer_clear(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t which = fuzz_byte(&input);
    struct ha_tokenizer *tokenizer = tokenizers[which % TOKENIZERS];
    struct ha_ids ids = {0};
    struct ha_error err = {0};
    char *decoded = NULL;
    size_t bytes = 0;
    int r =
        ha_tokenizer_encode(tokenizer, (const char *)input.at, input.size, which & 4, &ids, &err);

    FUZZ_CHECK((fuzz_result(r, &err) == 0) ==
               (ha_utf8_valid((const char *)input.at, input.size) == input.size));
    FUZZ_CHECK(r == 0 || (r == -EILSEQ && ids.count == 0));
    if (r == 0) {
        FUZZ_CHECK(ha_tokenizer_decode(tokenizer, ids.data, ids.count, false, &decoded, &bytes,
                                       &err) == 0);
        /* Bytes to bytes, with nothing normalised: the text comes back. */
        if (which % TOKENIZERS == 1 && !(which & 4))
            FUZZ_CHECK(bytes == input.size && memcmp(decoded, input.at, bytes) == 0);
        check_stream(tokenizer, &ids, decoded, bytes);
    }
    free(decoded);
    ha_ids_clear(&ids);
    return 0;
}
