/* Checkpoints and reference files.
 *
 * Both are safetensors files.  A checkpoint has the F32 tensors "params", "m",
 * "v" (the adapter's block and its moments) and the F64 tensors "references"
 * (pairs, 4) and, with held-out pairs, "eval_references": log-prob sums of
 * chosen and rejected, and those of their tokens behind the shorter one's length.
 * A reference file has the latter two only.  Metadata:
 *
 *     kind          "checkpoint" or "references"
 *     version       "2"
 *     plan          hash of the batch plan
 *     fingerprint   of the backend
 *     settings      hash of the cell's settings (checkpoint)
 *     step, tokens  optimizer steps done, tokens seen (checkpoint)
 *     digest        SHA-256 over the tensors' bytes and the fields above */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/safetensors.h"
#include "worker/dpo/work.h"

#define FORMAT_VERSION "2"

enum {
    MAX_ITEMS = 5,
    NUMBER_BYTES = 24,
    REFERENCE_COLS = sizeof(struct ha_dpo_reference) / sizeof(double)
};

/* A file to write or one that was read. */
struct state {
    const char *kind, *plan, *fingerprint, *settings;
    char step[NUMBER_BYTES], tokens[NUMBER_BYTES];
    struct ha_safetensors_item items[MAX_ITEMS];
    int n_items;
};

static void add_item(struct state *state, const char *name, enum ha_safetensors_dtype dtype,
                     int64_t rows, int64_t cols, const void *data)
{
    state->items[state->n_items++] =
        (struct ha_safetensors_item){name, dtype, cols > 0 ? 2 : 1, {rows, cols}, data};
}

static void add_references(struct state *state, const struct ha_dpo_trainer *trainer)
{
    add_item(state, "references", HA_SAFETENSORS_F64, trainer->train.batch.n_pairs, REFERENCE_COLS,
             trainer->train_reference);
    if (trainer->eval.pairs)
        add_item(state, "eval_references", HA_SAFETENSORS_F64, trainer->eval.batch.n_pairs,
                 REFERENCE_COLS, trainer->eval_reference);
}

static void digest_state(const struct state *state, char hex[HA_SHA256_HEX_BYTES])
{
    const char *fields[] = {state->kind,     state->plan, state->fingerprint,
                            state->settings, state->step, state->tokens};
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        ha_sha256_update(&hash, fields[i], strlen(fields[i]) + 1);
    for (int i = 0; i < state->n_items; i++) {
        const struct ha_safetensors_item *item = &state->items[i];
        size_t bytes = ha_safetensors_dtype_bytes(item->dtype) * (size_t)item->shape[0];

        ha_sha256_update(&hash, item->data,
                         item->rank == 2 ? bytes * (size_t)item->shape[1] : bytes);
    }
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
}

static int write_state(const struct state *state, const char *path, struct ha_error *err)
{
    char digest[HA_SHA256_HEX_BYTES];
    struct ha_safetensors_pair metadata[] = {
        {"kind", state->kind},         {"version", FORMAT_VERSION},
        {"plan", state->plan},         {"fingerprint", state->fingerprint},
        {"settings", state->settings}, {"step", state->step},
        {"tokens", state->tokens},     {"digest", digest},
    };

    digest_state(state, digest);
    return ha_safetensors_write(path, state->items, state->n_items, metadata,
                                (int64_t)(sizeof(metadata) / sizeof(metadata[0])), err);
}

/* The kind and the hashes that a file of this trainer carries. */
static struct state begin_state(const struct ha_dpo_trainer *trainer, const char *kind,
                                const char *settings)
{
    return (struct state){.kind = kind,
                          .plan = trainer->plan_hash,
                          .fingerprint = ha_backend_fingerprint(trainer->backend),
                          .settings = settings};
}

int ha_dpo_trainer_save(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        struct ha_error *err)
{
    struct ha_dpo_cell_work *work = &trainer->cells[cell];
    int64_t n = ha_adapter_n_params(work->settings.adapter);
    struct state state = begin_state(trainer, "checkpoint", work->hash);
    const void *device[3] = {ha_adapter_params(work->settings.adapter), work->m, work->v};
    static const char *const names[3] = {"params", "m", "v"};
    float *host;
    int r = 0;

    if (!trainer->has_train_reference || (trainer->eval.pairs && !trainer->has_eval_reference))
        return ha_error_set(err, EINVAL, "%s: nothing to keep yet: the references are not done",
                            path);
    host = ha_calloc(3 * n, sizeof(float));
    if (!host)
        return ha_error_set(err, ENOMEM, "%s: no memory for a checkpoint", path);
    for (int i = 0; r == 0 && i < 3; i++) {
        r = ha_backend_download(trainer->backend, host + i * n, device[i],
                                (size_t)n * sizeof(float), err);
        add_item(&state, names[i], HA_SAFETENSORS_F32, n, 0, host + i * n);
    }
    if (r == 0)
        r = ha_backend_sync(trainer->backend, err);
    add_references(&state, trainer);
    snprintf(state.step, sizeof(state.step), "%" PRId64, trainer->step);
    snprintf(state.tokens, sizeof(state.tokens), "%" PRId64, trainer->n_tokens);
    if (r == 0)
        r = write_state(&state, path, err);
    free(host);
    return r;
}

int ha_dpo_trainer_save_references(struct ha_dpo_trainer *trainer, const char *path,
                                   struct ha_error *err)
{
    struct state state = begin_state(trainer, "references", "");
    int r = ha_dpo_make_references(trainer, err);

    if (r < 0)
        return r;
    add_references(&state, trainer);
    return write_state(&state, path, err);
}

/* ---- reading ---- */

static int damaged(struct ha_error *err, const char *path, const char *what)
{
    return ha_error_set(err, EINVAL, "%s: %s; the file is damaged or of another program", path,
                        what);
}

/* The tensor of an item, with its dtype and shape; item->data becomes the file's. */
static int take_item(const struct ha_safetensors *file, const char *path,
                     struct ha_safetensors_item *item, struct ha_error *err)
{
    const struct ha_safetensors_tensor *tensor = ha_safetensors_find(file, item->name);
    bool same = tensor && tensor->dtype == item->dtype && tensor->rank == item->rank;

    for (int i = 0; same && i < item->rank; i++)
        same = tensor->shape[i] == item->shape[i];
    if (!same)
        return ha_error_set(err, EINVAL,
                            "%s: tensor %s is missing or has another shape than this job needs",
                            path, item->name);
    item->data = tensor->data;
    return 0;
}

/* Compare one hash of the file with ours. */
static int same_field(const struct ha_safetensors *file, const char *path, const char *key,
                      const char *ours, const char *what, struct ha_error *err)
{
    const char *theirs = ha_safetensors_metadata(file, key);

    if (!theirs)
        return damaged(err, path, "a field is missing");
    if (strcmp(theirs, ours) == 0)
        return 0;
    return ha_error_set(err, ESTALE, "%s: made with another %s", path, what);
}

static int check_identity(const struct ha_safetensors *file, const char *path, struct state *state,
                          bool allow_inexact, struct ha_error *err)
{
    const char *version = ha_safetensors_metadata(file, "version");
    const char *kind = ha_safetensors_metadata(file, "kind");
    int r;

    if (!version || !kind || strcmp(kind, state->kind) != 0)
        return ha_error_set(err, EINVAL, "%s: not a %s file", path, state->kind);
    if (strcmp(version, FORMAT_VERSION) != 0)
        return ha_error_set(err, EINVAL, "%s: has version %s of the format; this program reads %s",
                            path, version, FORMAT_VERSION);
    r = same_field(file, path, "plan", state->plan,
                   "batch plan (data, batch settings or model differ)", err);
    if (r == 0)
        r = same_field(file, path, "settings", state->settings, "training settings of the cell",
                       err);
    if (r < 0)
        return r;
    r = same_field(file, path, "fingerprint", state->fingerprint,
                   "kernel build, library or processor: results would not be bit-identical "
                   "(--allow-inexact accepts that)",
                   err);
    if (r == -ESTALE && allow_inexact) {
        state->fingerprint = ha_safetensors_metadata(file, "fingerprint");
        r = 0;
    }
    return r;
}

/* A number as text; every file has the field, empty where it means nothing. */
static int copy_field(const struct ha_safetensors *file, const char *path, const char *key,
                      char copy[NUMBER_BYTES], struct ha_error *err)
{
    const char *text = ha_safetensors_metadata(file, key);

    if (!text || strlen(text) >= NUMBER_BYTES)
        return damaged(err, path, "a field is missing");
    memcpy(copy, text, strlen(text) + 1);
    return 0;
}

static int check_contents(const struct ha_safetensors *file, const char *path, struct state *state,
                          struct ha_error *err)
{
    const char *theirs = ha_safetensors_metadata(file, "digest");
    char digest[HA_SHA256_HEX_BYTES];
    int r = copy_field(file, path, "step", state->step, err);

    if (r == 0)
        r = copy_field(file, path, "tokens", state->tokens, err);
    for (int i = 0; r == 0 && i < state->n_items; i++)
        r = take_item(file, path, &state->items[i], err);
    if (r < 0)
        return r;
    if (ha_safetensors_count(file) != state->n_items)
        return damaged(err, path, "it has tensors that do not belong");
    digest_state(state, digest);
    if (!theirs || strcmp(theirs, digest) != 0)
        return damaged(err, path, "its contents do not match their digest");
    return 0;
}

/* Everything of the file is checked; the items' data are the file's. */
static int open_state(struct state *state, const char *path, bool allow_inexact,
                      struct ha_safetensors **ret_file, struct ha_error *err)
{
    struct ha_safetensors *file = NULL;
    int r = ha_safetensors_open(path, &file, err);

    if (r == 0)
        r = check_identity(file, path, state, allow_inexact, err);
    if (r == 0)
        r = check_contents(file, path, state, err);
    if (r < 0) {
        ha_safetensors_close(file);
        return r;
    }
    *ret_file = file;
    return 0;
}

static int parse_number(const char *text, int64_t *ret_value)
{
    char *end;
    long long value;

    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return -EINVAL;
    *ret_value = value;
    return 0;
}

static void take_references(struct ha_dpo_trainer *trainer, const struct state *state)
{
    const struct ha_safetensors_item *item = &state->items[state->n_items - 1];
    size_t row = sizeof(struct ha_dpo_reference);

    if (trainer->eval.pairs) {
        memcpy(trainer->eval_reference, item->data, (size_t)item->shape[0] * row);
        trainer->has_eval_reference = true;
        item--;
    }
    memcpy(trainer->train_reference, item->data, (size_t)item->shape[0] * row);
    trainer->has_train_reference = true;
}

int ha_dpo_trainer_load_references(struct ha_dpo_trainer *trainer, const char *path,
                                   struct ha_error *err)
{
    struct state state = begin_state(trainer, "references", "");
    struct ha_safetensors *file = NULL;
    int r;

    add_references(&state, trainer);
    r = open_state(&state, path, false, &file, err);
    if (r < 0)
        return r;
    take_references(trainer, &state);
    ha_safetensors_close(file);
    return 0;
}

int ha_dpo_trainer_load(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        bool allow_inexact, struct ha_error *err)
{
    struct ha_dpo_cell_work *work = &trainer->cells[cell];
    int64_t n = ha_adapter_n_params(work->settings.adapter), step = 0, tokens = 0;
    struct state state = begin_state(trainer, "checkpoint", work->hash);
    void *device[3] = {ha_adapter_params(work->settings.adapter), work->m, work->v};
    struct ha_safetensors *file = NULL;
    int r;

    add_item(&state, "params", HA_SAFETENSORS_F32, n, 0, NULL);
    add_item(&state, "m", HA_SAFETENSORS_F32, n, 0, NULL);
    add_item(&state, "v", HA_SAFETENSORS_F32, n, 0, NULL);
    add_references(&state, trainer);
    r = open_state(&state, path, allow_inexact, &file, err);
    if (r < 0)
        return r;
    if (parse_number(state.step, &step) < 0 || parse_number(state.tokens, &tokens) < 0 ||
        step > ha_dpo_schedule_steps(trainer))
        r = damaged(err, path, "its step is out of range");
    for (int i = 0; r == 0 && i < 3; i++)
        r = ha_backend_upload(trainer->backend, device[i], state.items[i].data,
                              (size_t)n * sizeof(float), err);
    if (r == 0)
        r = ha_backend_sync(trainer->backend, err);
    if (r == 0) {
        take_references(trainer, &state);
        trainer->step = step;
        trainer->n_tokens = tokens;
        work->step = step;
    }
    ha_safetensors_close(file);
    return r;
}
