#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "common/base/utf8.h"
#include "tests/gpu/shape_model.h"
#include "worker/tokenizer/byte_alphabet.h"

enum { LETTERS = 26, WORDS = 26 * 26 * 26 * 26, SCATTER = 7919 /* shares no divisor with WORDS */ };

static const char begin_token[] = "<|begin|>", end_token[] = "<|end|>";

static void print_added(FILE *file, int id, const char *text, const char *end)
{
    fprintf(file,
            "{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}%s",
            id, text, end);
}

/* The words of neighbouring ids have little in common: that an answer meets a stop string is then
 * a matter of chance. */
static void print_word(FILE *file, int64_t index)
{
    int64_t value = index * SCATTER % WORDS;
    char word[5] = {0};

    for (int i = 0; i < 4; i++, value /= LETTERS)
        word[i] = (char)('a' + value % LETTERS);
    fprintf(file, "\xc4\xa0%s", word); /* U+0120, which stands for the space */
}

static void print_vocab(FILE *file, int64_t vocab)
{
    fprintf(file, "\"%s\": %d, \"%s\": %d", begin_token, BEGIN_ID, end_token, END_ID);
    for (int byte = 0; byte < 256; byte++) {
        char text[5] = {0};

        (void)ha_utf8_encode(ha_byte_alphabet_code((uint8_t)byte), text);
        fprintf(file, ",\n\"%s%s\": %d", *text == '"' || *text == '\\' ? "\\" : "", text,
                FIRST_BYTE_ID + byte);
    }
    for (int64_t id = FIRST_WORD_ID; id < vocab; id++) {
        fputs(",\n\"", file);
        print_word(file, id - FIRST_WORD_ID);
        fprintf(file, "\": %lld", (long long)id);
    }
}

static void print_tokenizer(FILE *file, int64_t vocab)
{
    fputs("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n\"added_tokens\": [",
          file);
    print_added(file, BEGIN_ID, begin_token, ",\n");
    print_added(file, END_ID, end_token, "],\n");
    fputs("\"normalizer\": null,\n"
          "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
          "  {\"type\": \"Split\", \"pattern\": {\"Regex\": \" ?[^\\\\s]+|\\\\s\"},\n"
          "   \"behavior\": \"Isolated\", \"invert\": false},\n"
          "  {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true,\n"
          "   \"use_regex\": false}]},\n"
          "\"post_processor\": null,\n"
          "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true,\n"
          "  \"trim_offsets\": true, \"use_regex\": true},\n"
          "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
          "  \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
          "  \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": true,\n"
          "  \"vocab\": {",
          file);
    print_vocab(file, vocab);
    fputs("},\n  \"merges\": []}}\n", file);
}

static void print_settings(FILE *file)
{
    fprintf(file,
            "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"bos_token\": \"%s\",\n"
            " \"eos_token\": \"%s\", \"clean_up_tokenization_spaces\": false}\n",
            begin_token, end_token);
}

static int write_file(const char *dir, const char *name, int64_t vocab, struct ha_error *err)
{
    char *path = ha_path_join(dir, name);
    FILE *file = path ? fopen(path, "we") : NULL;
    int r = 0;

    if (!file)
        r = ha_error_set(err, errno, "%s/%s: %s", dir, name, strerror(errno));
    else if (vocab > 0)
        print_tokenizer(file, vocab);
    else
        print_settings(file);
    if (file && fclose(file) != 0)
        r = ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    free(path);
    return r;
}

int shape_write_tokenizer(const char *dir, int64_t vocab, struct ha_error *err)
{
    int r = write_file(dir, "tokenizer.json", vocab, err);

    return r < 0 ? r : write_file(dir, "tokenizer_config.json", 0, err);
}
