/* From tokenizer.json and tokenizer_config.json to a tokenizer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "worker/tokenizer/bytemap.h"
#include "worker/tokenizer/internal.h"

enum { FILE_LIMIT_BYTES = 512 << 20, CONFIG_LIMIT_BYTES = 16 << 20 };

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for a tokenizer");
}

/* Tokens by id: the model's, then the added ones over them. */
static int index_pieces(struct ha_tokenizer *t, struct ha_error *err)
{
    const struct ha_bytemap *vocab = ha_bpe_vocab(t->bpe);
    int64_t last = -1;

    for (int64_t i = 0; i < vocab->count; i++)
        last = vocab->entries[i].value > last ? vocab->entries[i].value : last;
    for (int64_t i = 0; i < ha_added_count(t->added); i++)
        last = ha_added_id(t->added, i) > last ? ha_added_id(t->added, i) : last;
    t->pieces = ha_calloc(last + 1, sizeof(*t->pieces));
    if (!t->pieces)
        return no_memory(err);
    t->n_pieces = last + 1;
    for (int64_t i = 0; i < vocab->count; i++) {
        struct ha_piece *piece = &t->pieces[vocab->entries[i].value];

        piece->text = ha_bytemap_key(vocab, i);
        piece->size = vocab->entries[i].size;
        piece->bytes = ha_bpe_piece_bytes(t->bpe, piece->text, piece->size);
        piece->special = ha_added_is_special(t->added, piece->text, piece->size);
    }
    for (int64_t i = 0; i < ha_added_count(t->added); i++) {
        struct ha_piece *piece = &t->pieces[ha_added_id(t->added, i)];
        size_t size;

        piece->text = ha_added_content(t->added, i, &size);
        piece->size = piece->bytes = (uint32_t)size;
        piece->special = ha_added_is_special(t->added, piece->text, size);
    }
    return 0;
}

static int check_template(const struct ha_tokenizer *t, struct ha_error *err)
{
    const struct ha_ids *sides[] = {&t->template.before, &t->template.behind};

    for (int side = 0; side < 2; side++)
        for (int64_t i = 0; i < sides[side]->count; i++)
            if (sides[side]->data[i] >= t->n_pieces)
                return ha_error_set(err, EINVAL, "post_processor: id %d is not in the vocabulary",
                                    sides[side]->data[i]);
    return 0;
}

static int build(struct ha_tokenizer *t, const struct ha_json *json, struct ha_error *err)
{
    int64_t vocab_size = ha_json_size(ha_json_get(ha_json_get(json, "model"), "vocab"));
    int r;

    if (!ha_json_is(json, HA_JSON_OBJECT) || !ha_json_get(json, "model"))
        return ha_error_set(err, EINVAL, "this is not a tokenizer.json: \"model\" is missing");
    r = ha_normalizer_create(ha_json_get(json, "normalizer"), &t->normalizer, err);
    if (r == 0)
        r = ha_pretok_create(ha_json_get(json, "pre_tokenizer"), &t->pretok, err);
    if (r == 0)
        r = ha_bpe_create(ha_json_get(json, "model"), ha_pretok_byte_level(t->pretok), &t->bpe,
                          err);
    if (r == 0)
        r = ha_added_create(ha_json_get(json, "added_tokens"), ha_bpe_vocab(t->bpe),
                            (int32_t)vocab_size, t->normalizer, &t->added, err);
    if (r == 0)
        r = ha_template_read(ha_json_get(json, "post_processor"), &t->template, err);
    if (r == 0)
        r = ha_tokenizer_decoder_create(ha_json_get(json, "decoder"), &t->decoder, err);
    if (r == 0)
        r = index_pieces(t, err);
    return r < 0 ? r : check_template(t, err);
}

/* A token of tokenizer_config.json is a string, an object with "content", or null. */
static int config_token(const struct ha_tokenizer *t, const struct ha_json *config, const char *key,
                        const char **ret_text, int32_t *ret_id, struct ha_error *err)
{
    const struct ha_json *value = ha_json_get(config, key);
    const char *text;

    if (ha_json_is(value, HA_JSON_OBJECT))
        value = ha_json_get(value, "content");
    text = ha_json_string(value, NULL);
    *ret_text = text;
    *ret_id = -1;
    if (!text) {
        if (value && !ha_json_is(value, HA_JSON_NULL))
            return ha_error_set(err, EINVAL, "%s is neither a text nor null", key);
        return 0;
    }
    *ret_id = ha_tokenizer_token_to_id(t, text);
    if (*ret_id < 0)
        return ha_error_set(err, EINVAL, "%s \"%s\" is not in the vocabulary", key, text);
    return 0;
}

/* Transformers adds the tokens of added_tokens_decoder that tokenizer.json lacks; a published
 * model has none. */
static int check_added(const struct ha_tokenizer *t, const struct ha_json *config,
                       struct ha_error *err)
{
    const struct ha_json *list = ha_json_get(config, "added_tokens_decoder");
    void *iterator = NULL;
    const char *key;
    struct ha_json *value;

    while (ha_json_is(list, HA_JSON_OBJECT) && ha_json_next(list, &iterator, &key, &value)) {
        const char *content = ha_json_string(ha_json_get(value, "content"), "");
        int32_t id = ha_tokenizer_token_to_id(t, content);

        if (id < 0 || strtoll(key, NULL, 10) != id)
            return ha_error_set(err, ENOTSUP,
                                "added_tokens_decoder: token %s \"%s\" is not in tokenizer.json",
                                key, content);
    }
    return 0;
}

/* LlamaTokenizer classes rebuild the template from two switches; a file whose template says
 * otherwise is refused. */
static int check_switches(const struct ha_tokenizer *t, const struct ha_json *config,
                          struct ha_error *err)
{
    const char *class = ha_json_string(ha_json_get(config, "tokenizer_class"), "");
    const bool bos = t->template.before.count > 0, eos = t->template.behind.count > 0;

    if (strncmp(class, "LlamaTokenizer", 14) != 0)
        return 0;
    if (ha_json_bool(ha_json_get(config, "add_bos_token"), bos) != bos)
        return ha_error_set(err, ENOTSUP,
                            "add_bos_token contradicts the post_processor of "
                            "tokenizer.json");
    if (ha_json_bool(ha_json_get(config, "add_eos_token"), eos) != eos)
        return ha_error_set(err, ENOTSUP,
                            "add_eos_token contradicts the post_processor of "
                            "tokenizer.json");
    return 0;
}

/* A text, or a list of {"name", "template"}. */
static int take_chat_template(struct ha_tokenizer *t, const struct ha_json *value,
                              struct ha_error *err)
{
    const char *text = ha_json_string(value, NULL);

    for (int64_t i = 0; ha_json_is(value, HA_JSON_ARRAY) && i < ha_json_size(value); i++)
        if (strcmp(ha_json_string(ha_json_get(ha_json_at(value, i), "name"), ""), "default") == 0)
            text = ha_json_string(ha_json_get(ha_json_at(value, i), "template"), NULL);
    t->chat_template = ha_strdup(text);
    return text && !t->chat_template ? no_memory(err) : 0;
}

static int configure(struct ha_tokenizer *t, const struct ha_json *config, struct ha_error *err)
{
    const char *bos, *eos, *pad;
    int r = config_token(t, config, "bos_token", &bos, &t->bos_id, err);

    if (r == 0)
        r = config_token(t, config, "eos_token", &eos, &t->eos_id, err);
    if (r == 0)
        r = config_token(t, config, "pad_token", &pad, &t->pad_id, err);
    if (r == 0)
        r = check_added(t, config, err);
    if (r == 0)
        r = check_switches(t, config, err);
    if (r < 0)
        return r;
    if (t->pad_id < 0)
        t->pad_id = t->eos_id;
    t->bos_text = ha_strdup(bos);
    t->eos_text = ha_strdup(eos);
    if ((bos && !t->bos_text) || (eos && !t->eos_text))
        return no_memory(err);
    return take_chat_template(t, ha_json_get(config, "chat_template"), err);
}

/* Load one of the directory's files and apply it. */
static int with_file(struct ha_tokenizer *t, const char *dir, const char *name, size_t limit_bytes,
                     int (*apply)(struct ha_tokenizer *, const struct ha_json *, struct ha_error *),
                     struct ha_error *err)
{
    char *path = ha_path_join(dir, name);
    struct ha_json *json = NULL;
    int r;

    if (!path)
        return no_memory(err);
    r = ha_json_load(path, limit_bytes, &json, err);
    if (r == 0) {
        r = apply(t, json, err);
        if (r < 0)
            r = ha_error_prefix(err, "%s", path);
    }
    ha_json_destroy(json);
    free(path);
    return r;
}

/* A file of its own goes before tokenizer_config.json. */
static int read_chat_template(struct ha_tokenizer *t, const char *model_dir, struct ha_error *err)
{
    char *path = ha_path_join(model_dir, "chat_template.jinja"), *text;
    size_t size;
    int r = 0;

    if (!path)
        return no_memory(err);
    if (ha_path_exists(path)) {
        r = ha_file_read(path, CONFIG_LIMIT_BYTES, &text, &size, err);
        if (r == 0) {
            free(t->chat_template);
            t->chat_template = text;
        }
    }
    free(path);
    return r;
}

int ha_tokenizer_load(const char *model_dir, struct ha_tokenizer **ret_tokenizer,
                      struct ha_error *err)
{
    struct ha_tokenizer *t = calloc(1, sizeof(*t));
    struct ha_error local = {0};
    int r;

    if (!t)
        return no_memory(err);
    if (!err)
        err = &local;
    r = with_file(t, model_dir, "tokenizer.json", FILE_LIMIT_BYTES, build, err);
    if (r == 0)
        r = with_file(t, model_dir, "tokenizer_config.json", CONFIG_LIMIT_BYTES, configure, err);
    if (r == 0)
        r = read_chat_template(t, model_dir, err);
    if (r < 0) {
        ha_tokenizer_destroy(t);
        return r;
    }
    *ret_tokenizer = t;
    return 0;
}

void ha_tokenizer_destroy(struct ha_tokenizer *t)
{
    if (!t)
        return;
    ha_normalizer_destroy(t->normalizer);
    ha_pretok_destroy(t->pretok);
    ha_bpe_destroy(t->bpe);
    ha_added_destroy(t->added);
    ha_template_clear(&t->template);
    ha_tokenizer_decoder_destroy(t->decoder);
    free(t->pieces);
    free(t->bos_text);
    free(t->eos_text);
    free(t->chat_template);
    free(t);
}
