/* shape_model.h - the parts of shape_model: models of published shapes with random weights */
#ifndef HA_TESTS_GPU_SHAPE_MODEL_H
#define HA_TESTS_GPU_SHAPE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

/* What config.json of a model says; all heads are 128 wide and nothing is tied. */
struct shape {
    const char *name, *type, *class;
    int64_t width, inner, layers, heads, kv_heads, vocab, context;
    const char *eps;
    int64_t rope_theta;
    bool llama3_scaling, bias, qk_norm; /* bias: of q, k and v */
};

enum { HEAD_DIM = 128, BEGIN_ID = 0, END_ID = 1, FIRST_BYTE_ID = 2, FIRST_WORD_ID = 258 };

/* tokenizer.json and tokenizer_config.json of so many ids: begin, end, the 256 bytes, and words of
 * four letters with a space before them, each of one token.  A text of n such words has n tokens.
 */
int shape_write_tokenizer(const char *dir, int64_t vocab, struct ha_error *err);

/* The weights in bf16, in `shards` files that threads write side by side; more than one have an
 * index.  Uniform with the variance of an initialised model (0.02), norms 1.  The same shape gives
 * the same bytes, and a layer the same as in a model of fewer layers.  ret_bytes: in all. */
int shape_write_weights(const char *dir, const struct shape *shape, int shards, int64_t *ret_bytes,
                        struct ha_error *err);

#endif
