/* Reference log-probs between jobs: a changed byte of any input is another key, and a file of
 * another key, or a damaged one, is refused by name. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "kernels/cpu/cpu.h"
#include "tests/unit/dpo/pair_sets.h"
#include "worker/dpo/work.h"

enum { N_TRAIN = 9, N_EVAL = 3, VOCAB = 53, RANK = 2 };

static char dir[] = "/tmp/ha_test_reference_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static const char *file_path(void)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/references", dir);
    return path;
}

static const struct ha_dpo_origin origin = {.model = "11ab",
                                            .tokenizer = "22ab",
                                            .train_data = "33ab",
                                            .eval_data = "44ab",
                                            .prompt_template = "hh",
                                            .split = "trl",
                                            .ends = "EOS",
                                            .max_length = 2048};

static void key_of(const struct ha_dpo_origin *from, const char *const rest[5],
                   struct ha_dpo_reference_key *key)
{
    assert_ok(
        ha_dpo_reference_key_make(from, rest[0], rest[1], rest[2], rest[3], rest[4], key, &err));
}

static void every_field_counts(void **state)
{
    static const char *const rest[5] = {"77ab", "F32", "cpu kernels 1", "55ab", ""};
    struct ha_dpo_reference_key key, again, other;

    (void)state;
    key_of(&origin, rest, &key);
    key_of(&origin, rest, &again);
    assert_string_equal(key.hex, again.hex);
    for (int i = 0; i < HA_DPO_KEY_FIELDS; i++) {
        struct ha_dpo_origin changed = origin;
        const char *texts[5] = {rest[0], rest[1], rest[2], rest[3], rest[4]};
        const char **fields[] = {&changed.model,     &changed.tokenizer,       &changed.train_data,
                                 &changed.eval_data, &changed.prompt_template, &changed.split,
                                 &changed.ends};
        char text[64];

        if (i < 7) {
            snprintf(text, sizeof(text), "%sx", *fields[i]);
            *fields[i] = text;
        } else if (i == 7) {
            changed.max_length++;
        } else {
            snprintf(text, sizeof(text), "%sx", texts[i - 8]);
            texts[i - 8] = text;
        }
        key_of(&changed, texts, &other);
        assert_string_not_equal(key.hex, other.hex);
        assert_string_equal(key.fields[i].name, other.fields[i].name);
        for (int f = 0; f < HA_DPO_KEY_FIELDS; f++)
            assert_int_equal(strcmp(key.fields[f].value, other.fields[f].value) != 0, f == i);
    }
}

/* Text that wanders from one field to the next is another key. */
static void fields_have_borders(void **state)
{
    static const char *const rest[5] = {"77ab", "F32", "cpu", "55ab", ""};
    struct ha_dpo_origin moved = origin;
    struct ha_dpo_reference_key key, other;
    char text[HA_DPO_KEY_VALUE_BYTES + 1];

    (void)state;
    moved.model = "11a";
    moved.tokenizer = "b22ab";
    key_of(&origin, rest, &key);
    key_of(&moved, rest, &other);
    assert_string_not_equal(key.hex, other.hex);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    moved.split = text;
    assert_int_equal(
        ha_dpo_reference_key_make(&moved, rest[0], rest[1], rest[2], rest[3], rest[4], &key, NULL),
        -EINVAL);
}

/* ---- of a trainer ---- */

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pair_set train, eval;
    struct ha_dpo_origin origin;
    struct ha_dpo_job job;
    struct ha_dpo_cell cell;
};

static void set_up_on(struct fixture *fixture, struct ha_backend *backend)
{
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);

    memset(fixture, 0, sizeof(*fixture));
    fixture->backend = backend;
    small_model_open(&fixture->small, fixture->backend, &config, HA_DTYPE_BF16, 7);
    fixture->train = random_pair_set(N_TRAIN, VOCAB, 21);
    fixture->eval = random_pair_set(N_EVAL, VOCAB, 22);
    fixture->origin = origin;
    ha_dpo_job_defaults(&fixture->job);
    fixture->job.train = &fixture->train;
    fixture->job.eval = &fixture->eval;
    fixture->job.origin = &fixture->origin;
    fixture->job.batch_size = 2;
    fixture->job.gradient_accumulation = 2;
    fixture->job.tokens_per_microbatch = 40;
    ha_dpo_cell_defaults(&fixture->cell);
    fixture->cell.name = "mid";
    fixture->cell.adapter = random_adapter(fixture->backend, &config, 1, 2, 0xf, RANK, 0.0f, 5);
}

static void set_up(struct fixture *fixture)
{
    set_up_on(fixture, open_cpu(1));
}

static void tear_down(struct fixture *fixture)
{
    ha_adapter_destroy(fixture->cell.adapter);
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    clear_pair_set(&fixture->train);
    clear_pair_set(&fixture->eval);
}

static void no_metrics(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n_metrics)
{
    (void)user;
    (void)cell;
    (void)step;
    (void)metrics;
    (void)n_metrics;
}

static struct ha_dpo_trainer *make_trainer(struct fixture *fixture)
{
    struct ha_dpo_callbacks callbacks = {.metrics = no_metrics};
    struct ha_dpo_trainer *trainer = NULL;

    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, &fixture->cell, 1,
                                    &callbacks, NULL, &trainer, &err));
    return trainer;
}

static void write_references(struct fixture *fixture)
{
    struct ha_dpo_trainer *trainer = make_trainer(fixture);

    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_ok(ha_dpo_trainer_save_references(trainer, file_path(), &err));
    ha_dpo_trainer_destroy(trainer);
}

/* Try to take the file with the fixture's present settings; nothing is touched where that fails. */
static int try_load(struct fixture *fixture, const char *names)
{
    struct ha_dpo_trainer *trainer = make_trainer(fixture);
    struct ha_error err = {0};
    int r = ha_dpo_trainer_load_references(trainer, file_path(), NULL, &err);

    if (r < 0) {
        for (int64_t i = 0; i < trainer->train.batch.n_pairs; i++)
            assert_false(ha_dpo_reference_known(&trainer->train_reference[i]));
        if (!strstr(err.text, names))
            fail_msg("\"%s\" does not say \"%s\"", err.text, names);
    } else {
        assert_true(ha_dpo_trainer_has_references(trainer));
    }
    ha_dpo_trainer_destroy(trainer);
    return r;
}

static void stale_files_are_refused(void **state)
{
    struct fixture fixture;
    struct ha_adapter *reference;

    (void)state;
    set_up(&fixture);
    write_references(&fixture);
    assert_int_equal(try_load(&fixture, ""), 0);

    /* The same file for more epochs, other strategies, other losses. */
    fixture.job.epochs = 3;
    fixture.cell.learning_rate *= 2;
    fixture.cell.loss.beta = 0.5;
    assert_int_equal(try_load(&fixture, ""), 0);

    fixture.origin.model = "11ac";
    assert_int_equal(try_load(&fixture, "another model"), -ESTALE);
    fixture.origin = origin;
    fixture.origin.tokenizer = "";
    assert_int_equal(try_load(&fixture, "another tokenizer"), -ESTALE);
    fixture.origin = origin;
    fixture.origin.max_length--;
    assert_int_equal(try_load(&fixture, "another max_length"), -ESTALE);
    fixture.origin = origin;

    fixture.train.ids[5] = (fixture.train.ids[5] + 1) % VOCAB;
    assert_int_equal(try_load(&fixture, "another selection of pairs"), -ESTALE);
    fixture.train.ids[5] = (fixture.train.ids[5] + VOCAB - 1) % VOCAB;
    fixture.eval.ids[2] = (fixture.eval.ids[2] + 1) % VOCAB;
    assert_int_equal(try_load(&fixture, "another selection of pairs"), -ESTALE);
    fixture.eval.ids[2] = (fixture.eval.ids[2] + VOCAB - 1) % VOCAB;
    fixture.job.order_seed++;
    assert_int_equal(try_load(&fixture, "another batch plan"), -ESTALE);
    fixture.job.order_seed--;
    fixture.job.tokens_per_microbatch++;
    assert_int_equal(try_load(&fixture, "another batch plan"), -ESTALE);
    fixture.job.tokens_per_microbatch--;
    fixture.job.batch_size++;
    assert_int_equal(try_load(&fixture, "another batch plan"), -ESTALE);
    fixture.job.batch_size--;
    fixture.job.share_prompt = false;
    assert_int_equal(try_load(&fixture, "another batch plan"), -ESTALE);
    fixture.job.share_prompt = true;
    fixture.job.round_logits_bf16 = true;
    assert_int_equal(try_load(&fixture, "another precision"), -ESTALE);
    fixture.job.round_logits_bf16 = false;

    reference = random_adapter(fixture.backend, &fixture.small.config, 1, 2, 0xf, RANK, 0.2f, 9);
    fixture.job.reference = reference;
    assert_int_equal(try_load(&fixture, "made with another"), -ESTALE);
    fixture.job.reference = NULL;
    assert_int_equal(try_load(&fixture, ""), 0);
    ha_adapter_destroy(reference);
    tear_down(&fixture);
}

/* ---- when they are told of ---- */

struct telling {
    int64_t times, step, evaluations; /* the step they were told at, evaluations before it */
    int64_t told_after;               /* evaluations when they were */
};

static void count_evaluations(void *user, int64_t cell, int64_t step,
                              const struct ha_dpo_metric *metrics, int64_t n_metrics)
{
    struct telling *telling = user;

    (void)cell;
    (void)step;
    if (n_metrics > 0 && strncmp(metrics[0].name, "eval_", 5) == 0)
        telling->evaluations++;
}

static int save_told(void *user, struct ha_dpo_trainer *trainer, struct ha_error *error)
{
    struct telling *telling = user;

    telling->times++;
    telling->step = ha_dpo_trainer_step(trainer);
    telling->told_after = telling->evaluations;
    return ha_dpo_trainer_save_references(trainer, file_path(), error);
}

static struct telling tell(struct fixture *fixture, bool loads)
{
    struct telling telling = {0};
    struct ha_dpo_callbacks callbacks = {
        .user = &telling, .metrics = count_evaluations, .references = save_told};
    struct ha_dpo_trainer *trainer = NULL;

    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, &fixture->cell, 1,
                                    &callbacks, NULL, &trainer, &err));
    if (loads)
        assert_ok(ha_dpo_trainer_load_references(trainer, file_path(), NULL, &err));
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_int_equal(telling.evaluations,
                     fixture->job.eval ? 1 + (fixture->job.eval_steps > 0) : 0);
    ha_dpo_trainer_destroy(trainer);
    return telling;
}

/* Once, as soon as the last of them is known: behind the last evaluation of a single epoch, behind
 * an earlier one, behind the first epoch of several, at once where they were loaded; the same bytes
 * whenever it is. */
static void told_when_complete(void **state)
{
    char *first, *second;
    size_t n_first, n_second;
    struct telling telling;
    struct fixture fixture;

    (void)state;
    set_up(&fixture); /* 9 pairs: steps of 4, 4 and 1 */
    telling = tell(&fixture, false);
    assert_int_equal(telling.times, 1);
    assert_int_equal(telling.step, 3);
    assert_int_equal(telling.told_after, 1);
    assert_ok(ha_file_read(file_path(), 1 << 20, &first, &n_first, &err));
    fixture.job.epochs = 2;
    telling = tell(&fixture, false);
    assert_int_equal(telling.times, 1);
    assert_int_equal(telling.step, 3);
    assert_int_equal(telling.told_after, 0);
    assert_ok(ha_file_read(file_path(), 1 << 20, &second, &n_second, &err));
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, n_first);
    free(second);
    fixture.job.eval_steps = 4;
    telling = tell(&fixture, false);
    assert_int_equal(telling.times, 1);
    assert_int_equal(telling.step, 3);
    telling = tell(&fixture, true);
    assert_int_equal(telling.times, 1);
    assert_int_equal(telling.step, 0);
    fixture.job.eval = NULL;
    telling = tell(&fixture, false);
    assert_int_equal(telling.times, 1);
    assert_int_equal(telling.step, 3);
    free(first);
    tear_down(&fixture);
}

/* Files of another plan, where they are asked for: taken, with their distance from ours; the pairs,
 * the model and the precision have to be the same all the same. */
static void other_plans_are_taken_if_asked(void **state)
{
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    struct ha_error why = {0};
    double offset = -1;
    bool same = false;

    (void)state;
    set_up(&fixture);
    write_references(&fixture);
    trainer = make_trainer(&fixture);
    assert_ok(ha_dpo_trainer_load_references(trainer, file_path(), &same, &err));
    assert_true(same);
    assert_ok(ha_dpo_trainer_reference_offset(trainer, &offset, &err));
    assert_true(offset == 0);
    ha_dpo_trainer_destroy(trainer);

    fixture.job.tokens_per_microbatch++;
    fixture.job.batch_size++;
    fixture.job.order_seed++;
    trainer = make_trainer(&fixture);
    assert_int_equal(ha_dpo_trainer_load_references(trainer, file_path(), NULL, NULL), -ESTALE);
    assert_ok(ha_dpo_trainer_load_references(trainer, file_path(), &same, &err));
    assert_false(same);
    assert_true(ha_dpo_trainer_has_references(trainer));
    assert_ok(ha_dpo_trainer_reference_offset(trainer, &offset, &err));
    assert_true(offset >= 0 && offset < 1e-4); /* rounding */
    /* Every pair of the first step counts, and what is found changes nothing. */
    trainer->train_reference[trainer->train.order[0]].rejected += 0.5;
    assert_ok(ha_dpo_trainer_reference_offset(trainer, &offset, &err));
    assert_true(fabs(offset - 0.5) < 1e-4);
    assert_ok(ha_dpo_trainer_reference_offset(trainer, &offset, &err));
    assert_true(fabs(offset - 0.5) < 1e-4);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);

    fixture.train.ids[5] = (fixture.train.ids[5] + 1) % VOCAB;
    trainer = make_trainer(&fixture);
    assert_int_equal(ha_dpo_trainer_load_references(trainer, file_path(), &same, &why), -ESTALE);
    assert_non_null(strstr(why.text, "another selection of pairs"));
    assert_false(ha_dpo_reference_known(&trainer->train_reference[0]));
    ha_dpo_trainer_destroy(trainer);
    fixture.train.ids[5] = (fixture.train.ids[5] + VOCAB - 1) % VOCAB;
    fixture.job.round_logits_bf16 = true;
    trainer = make_trainer(&fixture);
    assert_int_equal(ha_dpo_trainer_load_references(trainer, file_path(), &same, &why), -ESTALE);
    assert_non_null(strstr(why.text, "another precision"));
    ha_dpo_trainer_destroy(trainer);
    tear_down(&fixture);
}

/* Any byte of a reference adapter. */
static void adapters_are_in_the_key(void **state)
{
    struct fixture fixture;
    struct ha_adapter *reference;
    struct ha_dpo_trainer *trainer;
    char hex[HA_SHA256_HEX_BYTES];

    (void)state;
    set_up(&fixture);
    reference = random_adapter(fixture.backend, &fixture.small.config, 1, 2, 0xf, RANK, 0.2f, 9);
    fixture.job.reference = reference;
    trainer = make_trainer(&fixture);
    memcpy(hex, ha_dpo_trainer_key(trainer)->hex, sizeof(hex));
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_params(reference)[ha_adapter_n_params(reference) - 1] += 1e-6f;
    trainer = make_trainer(&fixture);
    assert_string_not_equal(hex, ha_dpo_trainer_key(trainer)->hex);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(reference);
    tear_down(&fixture);
}

static void other_kernels_compute_their_own(void **state)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_backend *baseline = NULL;
    struct fixture fixture;
    bool same;

    (void)state;
    set_up(&fixture);
    write_references(&fixture);
    assert_ok(ha_cpu_open_with(&options, "baseline", &baseline, &err));
    same = strcmp(ha_backend_fingerprint(baseline), ha_backend_fingerprint(fixture.backend)) == 0;
    tear_down(&fixture);
    if (same) {
        ha_backend_close(baseline);
        skip(); /* this processor has but one form of the kernels */
    }
    set_up_on(&fixture, baseline);
    assert_int_equal(try_load(&fixture, "another backend"), -ESTALE);
    tear_down(&fixture);
}

static void damaged_files_are_refused(void **state)
{
    struct fixture fixture;
    char *bytes = NULL;
    size_t size = 0;

    (void)state;
    set_up(&fixture);
    write_references(&fixture);
    assert_ok(ha_file_read(file_path(), 1 << 24, &bytes, &size, &err));
    for (size_t at = 0; at < size; at += 1 + size / 80) {
        bytes[at] = (char)(bytes[at] ^ 0x10);
        assert_ok(ha_file_write(file_path(), bytes, size, 0644, &err));
        assert_true(try_load(&fixture, "") < 0);
        bytes[at] = (char)(bytes[at] ^ 0x10);
    }
    for (size_t cut = 0; cut < size; cut += 1 + size / 20) {
        assert_ok(ha_file_write(file_path(), bytes, cut, 0644, &err));
        assert_true(try_load(&fixture, "") < 0);
    }
    assert_ok(ha_file_write(file_path(), bytes, size, 0644, &err));
    assert_int_equal(try_load(&fixture, ""), 0);
    assert_ok(ha_path_remove_tree(file_path(), &err));
    assert_int_equal(try_load(&fixture, ""), -ENOENT);
    free(bytes);
    tear_down(&fixture);
}

/* The pairs that a checkpoint's steps have seen are known, the others are not. */
static void half_of_them_are_no_file(void **state)
{
    struct fixture fixture;
    struct ha_dpo_trainer *trainer;
    int64_t known = 0;

    (void)state;
    set_up(&fixture);
    fixture.job.max_steps = 1;
    trainer = make_trainer(&fixture);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    for (int64_t i = 0; i < N_TRAIN; i++)
        known += ha_dpo_reference_known(&trainer->train_reference[i]);
    assert_int_equal(known, 4); /* of the first window */
    assert_false(ha_dpo_trainer_has_references(trainer));
    assert_int_equal(ha_dpo_trainer_save_references(trainer, file_path(), NULL), -EINVAL);
    ha_dpo_trainer_destroy(trainer);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_counts),
        cmocka_unit_test(fields_have_borders),
        cmocka_unit_test(stale_files_are_refused),
        cmocka_unit_test(other_plans_are_taken_if_asked),
        cmocka_unit_test(told_when_complete),
        cmocka_unit_test(adapters_are_in_the_key),
        cmocka_unit_test(other_kernels_compute_their_own),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(half_of_them_are_no_file),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
