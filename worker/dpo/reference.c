#include "worker/dpo/reference.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"

static void hash_fields(struct ha_dpo_reference_key *key)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    for (int i = 0; i < HA_DPO_KEY_FIELDS; i++) {
        const struct ha_dpo_key_field *field = &key->fields[i];

        ha_sha256_update(&hash, field->name, strlen(field->name) + 1);
        ha_sha256_update(&hash, field->value, strlen(field->value) + 1);
    }
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, key->hex);
}

int ha_dpo_reference_key_make(const struct ha_dpo_origin *origin, const char *pairs,
                              const char *precision, const char *fingerprint, const char *plan,
                              const char *adapter, struct ha_dpo_reference_key *ret_key,
                              struct ha_error *err)
{
    char max_length[24];
    const struct {
        const char *name, *value;
    } fields[HA_DPO_KEY_FIELDS] = {
        {"model", origin->model},
        {"tokenizer", origin->tokenizer},
        {"training data", origin->train_data},
        {"held-out data", origin->eval_data},
        {"template", origin->prompt_template},
        {"split", origin->split},
        {"rule for BOS and EOS", origin->ends},
        {"max_length", max_length},
        {"selection of pairs", pairs},
        {"precision", precision},
        [HA_DPO_KEY_BACKEND] = {"backend", fingerprint},
        [HA_DPO_KEY_PLAN] = {"batch plan", plan},
        {"reference adapter", adapter},
    };
    struct ha_dpo_reference_key key;

    (void)snprintf(max_length, sizeof(max_length), "%lld", (long long)origin->max_length);
    for (int i = 0; i < HA_DPO_KEY_FIELDS; i++) {
        size_t size = strlen(fields[i].value) + 1;

        if (size > HA_DPO_KEY_VALUE_BYTES)
            return ha_error_set(err, EINVAL, "the %s of a reference's key is longer than %d bytes",
                                fields[i].name, HA_DPO_KEY_VALUE_BYTES - 1);
        key.fields[i].name = fields[i].name;
        memcpy(key.fields[i].value, fields[i].value, size);
    }
    hash_fields(&key);
    *ret_key = key;
    return 0;
}
