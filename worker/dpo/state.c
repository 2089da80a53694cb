/* Checkpoints and reference files.
 *
 * Both are safetensors files.  A checkpoint has the F32 tensors "params", "m",
 * "v" (the adapter's block and its moments), the F64 tensor "work" (what the steps
 * so far have cost), and the F64 tensors "references" (pairs, 4) and, with
 * held-out pairs, "eval_references": log-prob sums of chosen and rejected, and
 * those of their tokens behind the shorter one's length; NaN where no step has
 * needed them yet.  Where the backend chooses how to multiply, the U8 tensor "choices" has what it
 * chose (ha_backend_export_choices).  A reference file has the references only, complete. Metadata:
 *
 *     kind          "checkpoint" or "references"
 *     version       "3"
 *     digest        SHA-256 over the fields below and the tensors' bytes
 *
 * of a checkpoint
 *
 *     plan          hash of the batch plan
 *     settings      hash of the cell's settings
 *     fingerprint   of the backend
 *     step, tokens  optimizer steps done, tokens seen
 *
 * of references
 *
 *     key           their key (reference.h), and under its own name each of its fields */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/safetensors.h"
#include "worker/dpo/work.h"

#define FORMAT_VERSION "3"
#define CHOICES "choices"

enum {
    MAX_ITEMS = 7,
    MAX_CHOICE_BYTES = 16 << 20,
    ANY_LENGTH = -1, /* of an item that a file may have or not */
    MAX_FIELDS = HA_DPO_KEY_FIELDS + 1,
    FIXED_FIELDS = 3, /* kind, version, digest */
    NUMBER_BYTES = 24,
    WORK_VALUES = 9,
    FIRST_COUNT = 7, /* of these values: whole numbers, at most MAX_COUNT */
    REFERENCE_COLS = sizeof(struct ha_dpo_reference) / sizeof(double)
};

#define MAX_COUNT 0x1p60

/* Metadata that the digest covers. */
struct field {
    const char *name, *value;
    const char *what; /* reading: a file with another value is stale, made with another ...;
                         NULL: any value is taken */
    bool may_differ;
};

/* A file to write or one that was read. */
struct state {
    const char *kind;
    struct field fields[MAX_FIELDS];
    int n_fields;
    struct ha_safetensors_item items[MAX_ITEMS];
    int n_items;
};

static void add_field(struct state *state, const char *name, const char *value, const char *what)
{
    state->fields[state->n_fields++] = (struct field){name, value, what, false};
}

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
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, state->kind, strlen(state->kind) + 1);
    for (int i = 0; i < state->n_fields; i++) {
        const struct field *field = &state->fields[i];

        ha_sha256_update(&hash, field->name, strlen(field->name) + 1);
        ha_sha256_update(&hash, field->value, strlen(field->value) + 1);
    }
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
    struct ha_safetensors_pair metadata[FIXED_FIELDS + MAX_FIELDS] = {
        {"kind", state->kind}, {"version", FORMAT_VERSION}, {"digest", digest}};

    digest_state(state, digest);
    for (int i = 0; i < state->n_fields; i++)
        metadata[FIXED_FIELDS + i] =
            (struct ha_safetensors_pair){state->fields[i].name, state->fields[i].value};
    return ha_safetensors_write(path, state->items, state->n_items, metadata,
                                FIXED_FIELDS + state->n_fields, err);
}

/* ---- what the two kinds hold ---- */

/* Of a checkpoint; step and tokens are texts of numbers. */
static struct state checkpoint_state(const struct ha_dpo_trainer *trainer,
                                     const struct ha_dpo_cell_work *cell, const char *step,
                                     const char *tokens)
{
    struct state state = {.kind = "checkpoint"};

    add_field(&state, "plan", trainer->plan_hash,
              "batch plan (data, batch settings or model differ)");
    add_field(&state, "settings", cell->hash, "training settings of the cell");
    add_field(&state, "fingerprint", ha_backend_fingerprint(trainer->backend),
              "kernel build, library or processor: results would not be bit-identical "
              "(--allow-inexact accepts that)");
    add_field(&state, "step", step, NULL);
    add_field(&state, "tokens", tokens, NULL);
    return state;
}

/* The index of its fingerprint. */
enum { FINGERPRINT_FIELD = 2, STEP_FIELD = 3, TOKENS_FIELD = 4 };

static struct state reference_state(const struct ha_dpo_trainer *trainer)
{
    const struct ha_dpo_reference_key *key = &trainer->key;
    struct state state = {.kind = "references"};

    for (int i = 0; i < HA_DPO_KEY_FIELDS; i++)
        add_field(&state, key->fields[i].name, key->fields[i].value, key->fields[i].name);
    add_field(&state, "key", key->hex, "key");
    add_references(&state, trainer);
    return state;
}

static void pack_work(const struct ha_dpo_stats *stats, double values[WORK_VALUES])
{
    const double list[WORK_VALUES] = {
        stats->own.seconds,    stats->own.flops,     stats->own.bytes,
        stats->shared.seconds, stats->shared.flops,  stats->shared.bytes,
        stats->plain_flops,    (double)stats->pairs, (double)stats->tokens,
    };

    memcpy(values, list, sizeof(list));
}

/* False for values that no run has. */
static bool unpack_work(const void *data, int64_t steps, struct ha_dpo_stats *ret_stats)
{
    double values[WORK_VALUES];

    memcpy(values, data, sizeof(values));
    for (int i = 0; i < WORK_VALUES; i++) {
        if (!(values[i] >= 0) || (i >= FIRST_COUNT && values[i] > MAX_COUNT))
            return false;
    }
    *ret_stats = (struct ha_dpo_stats){
        .steps = steps,
        .own = {.seconds = values[0], .flops = values[1], .bytes = values[2]},
        .shared = {.seconds = values[3], .flops = values[4], .bytes = values[5]},
        .plain_flops = values[6],
        .pairs = (int64_t)values[7],
        .tokens = (int64_t)values[8],
    };
    return true;
}

/* ---- writing ---- */

int ha_dpo_trainer_save(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        struct ha_error *err)
{
    struct ha_dpo_cell_work *work = &trainer->cells[cell];
    int64_t n = ha_adapter_n_params(work->settings.adapter);
    char step[NUMBER_BYTES], tokens[NUMBER_BYTES];
    struct state state = checkpoint_state(trainer, work, step, tokens);
    const void *device[3] = {ha_adapter_params(work->settings.adapter), work->m, work->v};
    static const char *const names[3] = {"params", "m", "v"};
    double values[WORK_VALUES];
    void *choices = NULL;
    size_t choice_bytes = 0;
    float *host;
    int r = 0;

    if (work->stats.steps == 0)
        return ha_error_set(err, EINVAL, "%s: nothing to keep yet: no step is done", path);
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
    if (r == 0)
        r = ha_backend_export_choices(trainer->backend, &choices, &choice_bytes, err);
    pack_work(&work->stats, values);
    add_item(&state, "work", HA_SAFETENSORS_F64, WORK_VALUES, 0, values);
    if (choice_bytes > 0)
        add_item(&state, CHOICES, HA_SAFETENSORS_U8, (int64_t)choice_bytes, 0, choices);
    add_references(&state, trainer);
    snprintf(step, sizeof(step), "%" PRId64, work->stats.steps);
    snprintf(tokens, sizeof(tokens), "%" PRId64, work->n_tokens);
    if (r == 0)
        r = write_state(&state, path, err);
    free(choices);
    free(host);
    return r;
}

int ha_dpo_trainer_save_references(struct ha_dpo_trainer *trainer, const char *path,
                                   struct ha_error *err)
{
    struct state state = reference_state(trainer);

    if (!ha_dpo_trainer_has_references(trainer))
        return ha_error_set(err, EINVAL, "%s: not all references are known yet", path);
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

/* Compare the fields with ours, and take the file's where any will do. */
static int check_fields(const struct ha_safetensors *file, const char *path, struct state *state,
                        struct ha_error *err)
{
    for (int i = 0; i < state->n_fields; i++) {
        struct field *field = &state->fields[i];
        const char *theirs = ha_safetensors_metadata(file, field->name);

        if (!theirs)
            return damaged(err, path, "a field is missing");
        if (field->what && !field->may_differ && strcmp(theirs, field->value) != 0)
            return ha_error_set(err, ESTALE, "%s: made with another %s", path, field->what);
        field->value = theirs;
    }
    return 0;
}

static int check_identity(const struct ha_safetensors *file, const char *path, struct state *state,
                          struct ha_error *err)
{
    const char *version = ha_safetensors_metadata(file, "version");
    const char *kind = ha_safetensors_metadata(file, "kind");

    if (!version || !kind || strcmp(kind, state->kind) != 0)
        return ha_error_set(err, EINVAL, "%s: not a %s file", path, state->kind);
    if (strcmp(version, FORMAT_VERSION) != 0)
        return ha_error_set(err, EINVAL, "%s: has version %s of the format; this program reads %s",
                            path, version, FORMAT_VERSION);
    return check_fields(file, path, state, err);
}

/* An item of any length takes the file's, or goes where the file has none. */
static void settle_lengths(const struct ha_safetensors *file, struct state *state)
{
    int n = 0;

    for (int i = 0; i < state->n_items; i++) {
        struct ha_safetensors_item item = state->items[i];
        const struct ha_safetensors_tensor *tensor = ha_safetensors_find(file, item.name);

        if (item.shape[0] == ANY_LENGTH) {
            if (!tensor)
                continue;
            item.shape[0] = tensor->shape[0];
        }
        state->items[n++] = item;
    }
    state->n_items = n;
}

static int check_contents(const struct ha_safetensors *file, const char *path, struct state *state,
                          struct ha_error *err)
{
    const char *theirs = ha_safetensors_metadata(file, "digest");
    char digest[HA_SHA256_HEX_BYTES];
    int r = 0;

    settle_lengths(file, state);
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
static int open_state(struct state *state, const char *path, struct ha_safetensors **ret_file,
                      struct ha_error *err)
{
    struct ha_safetensors *file = NULL;
    int r = ha_safetensors_open(path, &file, err);

    if (r == 0)
        r = check_identity(file, path, state, err);
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

/* Rows of the file that say something; of the rows that both know, all are equal. */
static void take_rows(struct ha_dpo_reference *references, const void *data, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        struct ha_dpo_reference row;

        memcpy(&row, (const char *)data + (size_t)i * sizeof(row), sizeof(row));
        if (ha_dpo_reference_known(&row))
            references[i] = row;
    }
}

static void take_references(struct ha_dpo_trainer *trainer, const struct state *state)
{
    const struct ha_safetensors_item *item = &state->items[state->n_items - 1];

    if (trainer->eval.pairs) {
        take_rows(trainer->eval_reference, item->data, item->shape[0]);
        item--;
    }
    take_rows(trainer->train_reference, item->data, item->shape[0]);
}

int ha_dpo_trainer_load_references(struct ha_dpo_trainer *trainer, const char *path,
                                   bool *ret_same_plan, struct ha_error *err)
{
    struct state state = reference_state(trainer);
    struct ha_safetensors *file = NULL;
    int r;

    if (ret_same_plan)
        state.fields[HA_DPO_KEY_BACKEND].may_differ = state.fields[HA_DPO_KEY_PLAN].may_differ =
            state.fields[HA_DPO_KEY_FIELDS].may_differ = true;
    r = open_state(&state, path, &file, err);
    if (r < 0)
        return r;
    if (ret_same_plan)
        *ret_same_plan = strcmp(state.fields[HA_DPO_KEY_FIELDS].value, trainer->key.hex) == 0;
    take_references(trainer, &state);
    ha_safetensors_close(file);
    return 0;
}

int ha_dpo_trainer_load(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        bool allow_inexact, struct ha_error *err)
{
    struct ha_dpo_cell_work *work = &trainer->cells[cell];
    int64_t n = ha_adapter_n_params(work->settings.adapter), step = 0, tokens = 0;
    struct state state = checkpoint_state(trainer, work, "", "");
    void *device[3] = {ha_adapter_params(work->settings.adapter), work->m, work->v};
    struct ha_safetensors *file = NULL;
    struct ha_dpo_stats stats;
    int r;

    state.fields[FINGERPRINT_FIELD].may_differ = allow_inexact;
    add_item(&state, "params", HA_SAFETENSORS_F32, n, 0, NULL);
    add_item(&state, "m", HA_SAFETENSORS_F32, n, 0, NULL);
    add_item(&state, "v", HA_SAFETENSORS_F32, n, 0, NULL);
    add_item(&state, "work", HA_SAFETENSORS_F64, WORK_VALUES, 0, NULL);
    add_item(&state, CHOICES, HA_SAFETENSORS_U8, ANY_LENGTH, 0, NULL);
    add_references(&state, trainer);
    r = open_state(&state, path, &file, err);
    if (r < 0)
        return r;
    if (parse_number(state.fields[STEP_FIELD].value, &step) < 0 ||
        parse_number(state.fields[TOKENS_FIELD].value, &tokens) < 0 ||
        step > ha_dpo_schedule_steps(trainer) || !unpack_work(state.items[3].data, step, &stats))
        r = damaged(err, path, "its step or what it counts is out of range");
    for (int i = 0; r == 0 && i < 3; i++)
        r = ha_backend_upload(trainer->backend, device[i], state.items[i].data,
                              (size_t)n * sizeof(float), err);
    if (r == 0)
        r = ha_backend_sync(trainer->backend, err);
    if (r == 0) {
        work->stats = stats;
        work->n_tokens = tokens;
        take_references(trainer, &state);
        ha_dpo_align(trainer);
    }
    ha_safetensors_close(file);
    return r;
}

int ha_dpo_checkpoint_choices(const char *path, void **ret_blob, size_t *ret_bytes,
                              struct ha_error *err)
{
    const struct ha_safetensors_tensor *tensor;
    struct ha_safetensors *file = NULL;
    void *blob = NULL;
    int r = ha_safetensors_open(path, &file, err);

    if (r < 0)
        return r;
    tensor = ha_safetensors_find(file, CHOICES);
    if (tensor && (tensor->dtype != HA_SAFETENSORS_U8 || tensor->bytes > MAX_CHOICE_BYTES))
        r = damaged(err, path, "its choices of products are of another kind");
    if (r == 0 && tensor && tensor->bytes > 0) {
        blob = ha_calloc((int64_t)tensor->bytes, 1);
        if (blob)
            memcpy(blob, tensor->data, tensor->bytes);
        else
            r = ha_error_set(err, ENOMEM, "%s: no memory to read it", path);
    }
    if (r == 0) {
        *ret_blob = blob;
        *ret_bytes = tensor ? tensor->bytes : 0;
    }
    ha_safetensors_close(file);
    return r;
}
