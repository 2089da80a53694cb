/* Checkpoints and files of reference log-probs.  The first byte chooses which;
 * with its high bit the digest in the file is put right first, so that what lies
 * behind that check is reached too. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/io/safetensors.h"
#include "tests/fuzz/small_trainer.h"
#include "worker/dpo/work.h"

static struct ha_dpo_trainer *trainer;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    trainer = small_trainer_create();
    return 0;
}

static void hash_text(struct ha_sha256 *hash, const char *text)
{
    ha_sha256_update(hash, text, strlen(text) + 1);
}

/* The digest that state.c expects; false where something it covers is missing. */
static bool digest_of(const struct ha_safetensors *file, char hex[HA_SHA256_HEX_BYTES])
{
    static const char *const names[] = {"params", "m",          "v",
                                        "work",   "references", "eval_references"};
    const char *kind = ha_safetensors_metadata(file, "kind");
    bool checkpoint = kind && strcmp(kind, "checkpoint") == 0;
    static const char *const fields[] = {"plan", "settings", "fingerprint", "step", "tokens"};
    const struct ha_dpo_reference_key *key = ha_dpo_trainer_key(trainer);
    int n_fields = checkpoint ? 5 : HA_DPO_KEY_FIELDS + 1;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    if (!kind)
        return false;
    ha_sha256_init(&hash);
    hash_text(&hash, kind);
    for (int i = 0; i < n_fields; i++) {
        const char *name = checkpoint              ? fields[i]
                           : i < HA_DPO_KEY_FIELDS ? key->fields[i].name
                                                   : "key";
        const char *value = ha_safetensors_metadata(file, name);

        if (!value)
            return false;
        hash_text(&hash, name);
        hash_text(&hash, value);
    }
    for (int i = checkpoint ? 0 : 4; i < 6; i++) {
        const struct ha_safetensors_tensor *tensor = ha_safetensors_find(file, names[i]);

        if (!tensor)
            return false;
        ha_sha256_update(&hash, tensor->data, tensor->bytes);
    }
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
    return true;
}

/* Write the right digest over the one in the bytes. */
static void mend(const char *path, uint8_t *bytes, size_t size)
{
    struct ha_safetensors *file = NULL;
    char hex[HA_SHA256_HEX_BYTES];
    const char *theirs;
    uint8_t *at;

    if (ha_safetensors_open(path, &file, NULL) < 0)
        return;
    theirs = ha_safetensors_metadata(file, "digest");
    if (theirs && strlen(theirs) == HA_SHA256_HEX_BYTES - 1 && digest_of(file, hex)) {
        at = memmem(bytes, size, theirs, HA_SHA256_HEX_BYTES - 1);
        if (at)
            memcpy(at, hex, HA_SHA256_HEX_BYTES - 1);
    }
    ha_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t choice = fuzz_byte(&input);
    struct ha_error err = {0};
    const char *path = fuzz_file("state.safetensors", input.at, input.size);

    if (choice & 0x80) {
        uint8_t *copy = malloc(input.size + 1);

        FUZZ_CHECK(copy);
        if (input.size > 0)
            memcpy(copy, input.at, input.size);
        mend(path, copy, input.size);
        (void)fuzz_file("state.safetensors", copy, input.size);
        free(copy);
    }
    if (choice & 1)
        (void)fuzz_result(ha_dpo_trainer_load(trainer, 0, path, choice & 2, &err), &err);
    else
        (void)fuzz_result(ha_dpo_trainer_load_references(trainer, path, NULL, &err), &err);
    FUZZ_CHECK(ha_dpo_trainer_step(trainer) >= 0 &&
               ha_dpo_trainer_step(trainer) <= ha_dpo_trainer_total_steps(trainer));
    return 0;
}
