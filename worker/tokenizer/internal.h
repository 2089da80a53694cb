/* internal.h - what a tokenizer is made of; for this folder only */
#ifndef HA_WORKER_TOKENIZER_INTERNAL_H
#define HA_WORKER_TOKENIZER_INTERNAL_H

#include "worker/tokenizer/added.h"
#include "worker/tokenizer/bpe.h"
#include "worker/tokenizer/decode.h"
#include "worker/tokenizer/normalize.h"
#include "worker/tokenizer/pretok.h"
#include "worker/tokenizer/template.h"
#include "worker/tokenizer/tokenizer.h"

struct ha_piece {
    const char *text; /* NULL: the id has no token; owned by vocabulary or added tokens */
    uint32_t size;
    uint32_t bytes; /* of normalised text that it stands for */
    bool special;
};

struct ha_tokenizer {
    struct ha_normalizer *normalizer;
    struct ha_pretok *pretok;
    struct ha_bpe *bpe;
    struct ha_added *added;
    struct ha_template template;
    struct ha_tokenizer_decoder *decoder;

    struct ha_piece *pieces; /* [n_pieces] by id */
    int64_t n_pieces;

    char *bos_text, *eos_text;
    char *chat_template;
    int32_t bos_id, eos_id, pad_id;
};

#endif
