/* tokenizer.json, a zero byte, tokenizer_config.json: what loads can be used. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/utf8.h"
#include "worker/tokenizer/tokenizer.h"

static const char *const texts[] = {
    "",
    " ",
    "Hello world",
    "\n\nHuman: What's 12345?  \n\nAssistant:",
    "a  b\t\nc",
    "na\xc3\xafve caf\x65\xcc\x81 \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80</s><s><|eot_id|>",
};

static void use(struct ha_tokenizer *tokenizer, const char *text)
{
    struct ha_ids ids = {0};
    struct ha_error err = {0};
    char *decoded = NULL;
    size_t size = 0;

    if (fuzz_result(ha_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &err), &err) ==
        0) {
        for (int64_t i = 0; i < ids.count; i++)
            FUZZ_CHECK(ids.data[i] >= 0 && ids.data[i] < ha_tokenizer_vocab_size(tokenizer));
        if (fuzz_result(
                ha_tokenizer_decode(tokenizer, ids.data, ids.count, false, &decoded, &size, &err),
                &err) == 0)
            FUZZ_CHECK(decoded[size] == '\0');
    }
    free(decoded);
    ha_ids_clear(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, first = fuzz_until(&input, 0);
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_error err = {0};

    (void)fuzz_file("tokenizer.json", first.at, first.size);
    (void)fuzz_file("tokenizer_config.json", input.at, input.size);
    if (fuzz_result(ha_tokenizer_load(fuzz_folder(), &tokenizer, &err), &err) < 0)
        return 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        use(tokenizer, texts[i]);
    (void)ha_tokenizer_bos_text(tokenizer);
    (void)ha_tokenizer_eos_text(tokenizer);
    (void)ha_tokenizer_chat_template(tokenizer);
    (void)ha_tokenizer_pad_id(tokenizer);
    ha_tokenizer_destroy(tokenizer);
    return 0;
}
