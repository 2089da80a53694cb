/* reference.h - the key of reference log-probs
 *
 * The reference's log-probs of a set of pairs depend on the model, on the pairs
 * as token ids, and, in their last bits, on how pairs are packed and on which
 * kernels compute them.  The key names all of it; log-probs kept under one key
 * are those that would be computed anew under it, bit for bit.  They belong to
 * the packs of epoch 0: later epochs pack the pairs otherwise and use the same
 * ones.  On the CPU a row's bits do not depend on the rows beside it, so that
 * they are exact for those packs too; elsewhere the difference is rounding, equal
 * in every run. */
#ifndef HA_WORKER_DPO_REFERENCE_H
#define HA_WORKER_DPO_REFERENCE_H

#include <stdint.h>

#include "common/base/hash.h"

struct ha_error;

/* Where model and pairs come from; the trainer cannot know it.  No entry is NULL. */
struct ha_dpo_origin {
    const char *model;      /* digest of configuration and weights (common/io/digest.h) */
    const char *tokenizer;  /* digest of its files */
    const char *train_data; /* digests of the files that the rows are from; "": none */
    const char *eval_data;
    const char *prompt_template; /* "hh", "chat" */
    const char *split;           /* "trl", "turn" */
    const char *ends;            /* how sequences begin and end: the rule for BOS and EOS */
    int64_t max_length;          /* ids that a sequence is cut to */
};

enum {
    HA_DPO_KEY_FIELDS = 13,
    HA_DPO_KEY_BACKEND = 10, /* these two are the plan: they decide on last bits only */
    HA_DPO_KEY_PLAN = 11,
    HA_DPO_KEY_VALUE_BYTES = 512
};

struct ha_dpo_key_field {
    const char *name; /* "model", ...; static */
    char value[HA_DPO_KEY_VALUE_BYTES];
};

struct ha_dpo_reference_key {
    struct ha_dpo_key_field fields[HA_DPO_KEY_FIELDS];
    char hex[HA_SHA256_HEX_BYTES]; /* over the fields' names and values */
};

/* pairs: hash over the ids of training and held-out pairs.  precision: activations and logits.
 * fingerprint: ha_backend_fingerprint.  plan: hash over ids, batch settings and the packs of epoch
 * 0.  adapter: digest of the reference adapter, "" for the base model.  -EINVAL names a field that
 * is too long. */
int ha_dpo_reference_key_make(const struct ha_dpo_origin *origin, const char *pairs,
                              const char *precision, const char *fingerprint, const char *plan,
                              const char *adapter, struct ha_dpo_reference_key *ret_key,
                              struct ha_error *err);

#endif
