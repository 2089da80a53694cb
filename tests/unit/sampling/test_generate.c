#include "worker/sampling/generate.h"
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/decode.h"

enum { REQUESTS = 9, PROMPT_MAX = 12, NEW = 10, VOCAB = 53 };

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapters[2];
    int32_t prompts[REQUESTS][PROMPT_MAX];
    struct ha_generate_request requests[REQUESTS];
    struct ha_generate_rules rules;
    struct ha_generate_settings settings;
};

static void fixture_open(struct fixture *f, int threads)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN2);
    struct random random = {3};

    memset(f, 0, sizeof(*f));
    f->backend = open_cpu(threads);
    small_model_open(&f->small, f->backend, &config, HA_DTYPE_BF16, 4);
    for (int i = 0; i < 2; i++)
        f->adapters[i] = random_adapter(f->backend, &config, i, 3, 0xf, 2 + i, 1.0f, 5 + i);
    for (int i = 0; i < REQUESTS; i++) {
        f->requests[i] = (struct ha_generate_request){
            f->prompts[i], 1 + random_below(&random, PROMPT_MAX),
            i % 3 ? f->adapters[i % 3 - 1] : NULL, &f->rules, (uint64_t)i};
        for (int t = 0; t < PROMPT_MAX; t++)
            f->prompts[i][t] = (int32_t)random_below(&random, VOCAB);
    }
    f->rules = (struct ha_generate_rules){
        .sampler = {0.0, 0, 1.0, 1.0, 0}, .seed = 42, .max_new_tokens = NEW};
    f->settings = (struct ha_generate_settings){.max_sequences = 4};
}

static void fixture_close(struct fixture *f)
{
    ha_adapter_destroy(f->adapters[0]);
    ha_adapter_destroy(f->adapters[1]);
    small_model_close(&f->small);
    ha_backend_close(f->backend);
}

/* What the hooks saw. */
struct record {
    int32_t ids[REQUESTS][NEW];
    int64_t n_ids[REQUESTS];
    enum ha_generate_finish finish[REQUESTS];
    int64_t order[REQUESTS], n_finished;
    int32_t stop_token; /* ends an answer; -1: none */
    int64_t stop_calls;
    int fail_after; /* finished() fails at this answer; 0: never */
    int64_t cancel_after, steps;
};

static int stop(void *context, int64_t request, const int32_t *ids, int64_t n_ids,
                struct ha_error *err)
{
    struct record *record = context;

    (void)request;
    (void)err;
    record->stop_calls++;
    assert_true(n_ids >= 1 && n_ids <= NEW);
    return ids[n_ids - 1] == record->stop_token;
}

static int finished(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct record *record = context;

    if (record->fail_after && record->n_finished + 1 == record->fail_after)
        return ha_error_set(err, ENOSPC, "the disk is full");
    memcpy(record->ids[answer->request], answer->ids, (size_t)answer->n_ids * sizeof(*answer->ids));
    record->n_ids[answer->request] = answer->n_ids;
    record->finish[answer->request] = answer->finish;
    record->order[record->n_finished++] = answer->request;
    return 0;
}

static bool cancelled(void *context)
{
    struct record *record = context;

    return record->cancel_after && record->steps++ == record->cancel_after;
}

static int generate(struct fixture *f, struct record *record, struct ha_generate_counts *counts,
                    struct ha_error *err)
{
    struct ha_generate_hooks hooks = {
        .context = record, .stop = stop, .finished = finished, .cancelled = cancelled};

    return ha_generate(f->small.model, f->requests, REQUESTS, &f->settings, &hooks, counts, err);
}

static struct record generate_all(struct fixture *f, int32_t stop_token)
{
    struct record record = {.stop_token = stop_token};
    struct ha_generate_counts counts;

    assert_ok(generate(f, &record, &counts, &err));
    assert_int_equal(record.n_finished, REQUESTS);
    assert_true(counts.most_sequences <= f->settings.max_sequences);
    return record;
}

static void same_answers(const struct record *a, const struct record *b)
{
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(a->n_ids[i], b->n_ids[i]);
        assert_int_equal(a->finish[i], b->finish[i]);
        assert_memory_equal(a->ids[i], b->ids[i], (size_t)a->n_ids[i] * sizeof(int32_t));
    }
}

/* Each greedy token is the arg max of the whole sequence so far, run from scratch. */
static void greedy_agrees_with_prefill(void **state)
{
    static const struct ha_decoder_limits limits = {1, PROMPT_MAX + NEW, 3};
    struct ha_decoder *decoder = NULL;
    struct ha_kv_cache *cache = NULL;
    struct fixture f;
    struct record record;

    (void)state;
    fixture_open(&f, 2);
    record = generate_all(&f, -1);
    assert_ok(ha_decoder_create(f.small.model, &limits, &decoder, &err));
    assert_ok(ha_kv_cache_create(f.small.model, PROMPT_MAX + NEW, &cache, &err));
    for (int i = 0; i < REQUESTS; i++) {
        int64_t n_prompt = f.requests[i].n_ids;
        int32_t ids[PROMPT_MAX + NEW];

        assert_int_equal(record.n_ids[i], NEW);
        assert_int_equal(record.finish[i], HA_FINISH_LENGTH);
        memcpy(ids, f.prompts[i], sizeof(f.prompts[i]));
        for (int t = 0; t < NEW; t++) {
            struct ha_decoder_sequence sequence = {cache, f.requests[i].adapter, ids, n_prompt + t};
            float logits[VOCAB];
            int64_t row;
            int best = 0;

            ha_kv_cache_reset(cache);
            assert_ok(ha_decoder_prefill(decoder, &sequence, 1, logits, &row, &err));
            for (int v = 1; v < VOCAB; v++)
                best = logits[v] > logits[best] ? v : best;
            assert_int_equal(record.ids[i][t], best);
            ids[n_prompt + t] = record.ids[i][t];
        }
    }
    ha_kv_cache_destroy(cache);
    ha_decoder_destroy(decoder);
    fixture_close(&f);
}

/* Batch size, memory, threads and the order of admission change no answer. */
static void answers_do_not_depend_on_the_batch(void **state)
{
    struct fixture f;
    struct record first, other;
    int64_t largest = 0;

    (void)state;
    fixture_open(&f, 1);
    f.rules.sampler = (struct ha_sampler_settings){0.9, 20, 0.95, 1.1, 0};
    first = generate_all(&f, -1);
    for (int n = 1; n <= 16; n += 5) {
        f.settings.max_sequences = n;
        other = generate_all(&f, -1);
        same_answers(&first, &other);
    }
    for (int i = 0; i < REQUESTS; i++) {
        int64_t bytes =
            ha_kv_cache_bytes(&f.small.config, HA_DTYPE_F32, f.requests[i].n_ids + NEW - 1);

        largest = bytes > largest ? bytes : largest;
    }
    f.settings.max_kv_bytes = largest * 3 / 2;
    other = generate_all(&f, -1);
    same_answers(&first, &other);
    fixture_close(&f);
    fixture_open(&f, 3);
    f.rules.sampler = (struct ha_sampler_settings){0.9, 20, 0.95, 1.1, 0};
    other = generate_all(&f, -1);
    same_answers(&first, &other);
    f.rules.seed = 43;
    other = generate_all(&f, -1);
    assert_memory_not_equal(first.ids, other.ids, sizeof(first.ids));
    fixture_close(&f);
}

/* Nine requests of two prompts: variants and samples of one prompt enter together, and answer
 * as they do alone, in any room. */
static void variants_and_samples_share_their_prompt(void **state)
{
    static const int64_t per_prompt[] = {5, 4};
    struct record first, other, alone;
    struct fixture f;
    int64_t at = 0, largest;

    (void)state;
    fixture_open(&f, 2);
    f.rules.sampler = (struct ha_sampler_settings){0.9, 20, 0.95, 1.1, 0};
    for (int p = 0; p < 2; p++)
        for (int64_t i = 0; i < per_prompt[p]; i++, at++) {
            f.requests[at].ids = f.prompts[p];
            f.requests[at].n_ids = 9 + p;
            f.requests[at].number = (uint64_t)(p | (i == 4 || i == 2) << 4);
        }
    f.requests[2].adapter = f.requests[1].adapter; /* another sample of the same variant */
    f.settings.max_sequences = REQUESTS;
    first = generate_all(&f, -1);
    for (int n = 1; n < REQUESTS; n++) {
        f.settings.max_sequences = n;
        other = generate_all(&f, -1);
        same_answers(&first, &other);
    }
    largest = ha_kv_cache_bytes(&f.small.config, HA_DTYPE_F32, 10 + NEW - 1);
    for (int n = 1; n < 7; n += 2) {
        f.settings.max_kv_bytes = largest * n + largest / 3;
        other = generate_all(&f, -1);
        same_answers(&first, &other);
    }
    assert_memory_not_equal(first.ids[1], first.ids[2], sizeof(first.ids[1]));
    alone = first;
    for (int i = 0; i < REQUESTS; i++) {
        struct ha_generate_hooks hooks = {.context = &other, .finished = finished};
        struct ha_generate_request request = f.requests[i];

        other = (struct record){.stop_token = -1};
        assert_ok(ha_generate(f.small.model, &request, 1, &f.settings, &hooks, NULL, &err));
        alone.n_ids[i] = other.n_ids[0];
        alone.finish[i] = other.finish[0];
        memcpy(alone.ids[i], other.ids[0], sizeof(alone.ids[i]));
    }
    same_answers(&first, &alone);
    fixture_close(&f);
}

/* End tokens and stops cut the same answers short; the end token is left out. */
static void answers_end_for_three_reasons(void **state)
{
    struct fixture f;
    struct record whole, cut;
    int32_t eos[2];
    int seen[3] = {0};

    (void)state;
    fixture_open(&f, 1);
    f.rules.sampler.temperature = 1.0;
    whole = generate_all(&f, -1);
    eos[0] = whole.ids[1][3];
    eos[1] = whole.ids[2][0];
    f.rules.eos = eos;
    f.rules.n_eos = 2;
    cut = generate_all(&f, whole.ids[4][5]);
    for (int i = 0; i < REQUESTS; i++) {
        int64_t n = 0;

        while (n < NEW && whole.ids[i][n] != eos[0] && whole.ids[i][n] != eos[1] &&
               whole.ids[i][n] != cut.stop_token)
            n++;
        seen[cut.finish[i]]++;
        if (n == NEW)
            assert_int_equal(cut.finish[i], HA_FINISH_LENGTH);
        else if (whole.ids[i][n] == eos[0] || whole.ids[i][n] == eos[1])
            assert_int_equal(cut.finish[i], HA_FINISH_EOS);
        else
            assert_int_equal(cut.finish[i], HA_FINISH_STOP);
        assert_int_equal(cut.n_ids[i], n + (cut.finish[i] == HA_FINISH_STOP));
        assert_memory_equal(cut.ids[i], whole.ids[i], (size_t)cut.n_ids[i] * sizeof(int32_t));
    }
    assert_true(seen[HA_FINISH_EOS] >= 2 && seen[HA_FINISH_STOP] >= 1);
    assert_string_equal(ha_generate_finish_name(HA_FINISH_EOS), "eos");
    assert_string_equal(ha_generate_finish_name(HA_FINISH_STOP), "stop");
    assert_string_equal(ha_generate_finish_name(HA_FINISH_LENGTH), "length");
    fixture_close(&f);
}

static void memory_is_planned_and_given_back(void **state)
{
    struct fixture f;
    struct record record = {.stop_token = -1};
    struct ha_generate_counts counts;
    struct ha_generate_sizes plan;
    int64_t before, prompt_tokens = 0;

    (void)state;
    fixture_open(&f, 1);
    (void)generate_all(&f, -1); /* the backend's scratch and the table of positions are there now */
    before = ha_backend_allocated_bytes(f.backend);
    assert_ok(ha_generate_plan(f.small.model, f.requests, REQUESTS, &f.settings, &plan, &err));
    assert_ok(generate(&f, &record, &counts, &err));
    assert_int_equal(ha_backend_allocated_bytes(f.backend), before);
    assert_true(ha_backend_peak_bytes(f.backend) <= before + plan.total);
    for (int i = 0; i < REQUESTS; i++)
        prompt_tokens += f.requests[i].n_ids;
    assert_int_equal(counts.prompt_tokens, prompt_tokens);
    assert_int_equal(counts.new_tokens, REQUESTS * NEW);
    assert_int_equal(counts.most_sequences, 4);
    assert_int_equal(record.stop_calls, REQUESTS * NEW);
    fixture_close(&f);
}

static void failures_leave_nothing_behind(void **state)
{
    struct fixture f;
    struct record record = {.stop_token = -1, .fail_after = 3};
    struct ha_generate_counts counts;
    struct ha_error why;

    (void)state;
    fixture_open(&f, 1);
    assert_int_equal(generate(&f, &record, &counts, &why), -ENOSPC);
    assert_string_equal(why.text, "the disk is full");
    assert_int_equal(record.n_finished, 2);
    record = (struct record){.stop_token = -1, .cancel_after = 4};
    assert_int_equal(generate(&f, &record, &counts, &why), -ECANCELED);
    assert_int_equal(counts.steps, 4);
    ha_adapter_params(f.adapters[0])[0] = NAN;
    record = (struct record){.stop_token = -1};
    assert_int_equal(generate(&f, &record, &counts, &why), -EDOM);
    assert_non_null(strstr(why.text, "request 1: "));
    fixture_close(&f);
}

struct cells {
    struct record record;
    bool ended[3]; /* by request % 3 */
    int64_t n_failed;
};

static int cell_finished(void *context, const struct ha_generate_answer *answer,
                         struct ha_error *err)
{
    struct cells *cells = context;

    assert_false(cells->ended[answer->request % 3]);
    assert_true(answer->cost.flops > 0 && answer->cost.bytes_moved > 0);
    return finished(&cells->record, answer, err);
}

static int cell_failed(void *context, int64_t request, struct ha_error *err)
{
    struct cells *cells = context;

    assert_non_null(strstr(err->text, "diverged"));
    cells->ended[request % 3] = true;
    cells->n_failed++;
    return 0;
}

static bool cell_unwanted(void *context, int64_t request)
{
    const struct cells *cells = context;

    return cells->ended[request % 3];
}

/* A variant that has diverged ends alone: the others' answers are what they are without it. */
static void a_failed_request_ends_its_own_kind(void **state)
{
    struct cells cells = {.record = {.stop_token = -1}};
    struct ha_generate_hooks hooks = {.context = &cells,
                                      .finished = cell_finished,
                                      .failed = cell_failed,
                                      .unwanted = cell_unwanted};
    struct record whole;
    struct fixture f;
    int64_t before;

    (void)state;
    fixture_open(&f, 1);
    whole = generate_all(&f, -1);
    before = ha_backend_allocated_bytes(f.backend);
    ha_adapter_params(f.adapters[0])[0] = NAN;
    assert_ok(ha_generate(f.small.model, f.requests, REQUESTS, &f.settings, &hooks, NULL, &err));
    assert_int_equal(ha_backend_allocated_bytes(f.backend), before);
    assert_int_equal(cells.record.n_finished, 6);
    assert_true(cells.ended[1] && !cells.ended[0] && !cells.ended[2]);
    assert_int_equal(cells.n_failed, 1);
    for (int i = 0; i < REQUESTS; i++) {
        if (i % 3 == 1)
            continue;
        assert_int_equal(cells.record.n_ids[i], whole.n_ids[i]);
        assert_memory_equal(cells.record.ids[i], whole.ids[i], sizeof(whole.ids[i]));
    }
    fixture_close(&f);
}

static void bad_settings_are_refused_before_anything_runs(void **state)
{
    struct fixture f;
    struct record record = {.stop_token = -1};
    struct ha_generate_settings good;
    struct ha_generate_rules good_rules;
    struct ha_generate_sizes plan;
    struct ha_error why;

    (void)state;
    fixture_open(&f, 1);
    good = f.settings;
    good_rules = f.rules;
    f.rules.max_new_tokens = 0;
    assert_int_equal(generate(&f, &record, NULL, &why), -EINVAL);
    f.rules = good_rules;
    f.settings.max_sequences = 0;
    assert_int_equal(generate(&f, &record, NULL, &why), -EINVAL);
    f.settings = good;
    f.rules.sampler.top_p = 2.0;
    assert_int_equal(generate(&f, &record, NULL, &why), -EINVAL);
    f.rules = good_rules;
    f.settings.max_kv_bytes = 100;
    assert_int_equal(generate(&f, &record, NULL, &why), -EINVAL);
    assert_non_null(strstr(why.text, "request 0, a prompt of "));
    assert_int_equal(
        ha_generate_plan(f.small.model, f.requests, REQUESTS, &f.settings, &plan, &why), -EINVAL);
    f.settings = good;
    f.requests[5].n_ids = 0;
    assert_int_equal(generate(&f, &record, NULL, &why), -EINVAL);
    assert_non_null(strstr(why.text, "request 5"));
    assert_int_equal(record.n_finished, 0);
    assert_int_equal(
        ha_generate(f.small.model, NULL, 0, &good, &(struct ha_generate_hooks){0}, NULL, &why), 0);
    fixture_close(&f);
}

struct stories {
    int32_t want[1024];
    int64_t n;
    bool equal;
};

static int compare_story(void *context, const struct ha_generate_answer *answer,
                         struct ha_error *err)
{
    struct stories *stories = context;

    (void)err;
    stories->equal =
        answer->n_ids == stories->n - 1 &&
        memcmp(answer->ids, stories->want + 1, (size_t)answer->n_ids * sizeof(int32_t)) == 0;
    return 0;
}

/* A trained model: decoding greedily from BOS gives its expected ids. */
static void greedy_text_of_stories(void **state)
{
    const char *data = getenv("HA_TEST_DATA");
    struct stories stories = {.n = 0};
    struct ha_generate_hooks hooks = {.context = &stories, .finished = compare_story};
    struct ha_generate_rules rules = {.sampler = {0.0, 0, 1.0, 1.0, 0}};
    struct ha_generate_request request = {stories.want, 1, NULL, &rules, 0};
    struct ha_generate_settings settings = {.max_sequences = 1};
    struct ha_backend *backend;
    struct ha_model *model = NULL;
    char path[4096];
    FILE *file;

    (void)state;
    if (!data) {
        print_message("[ SKIPPED ] HA_TEST_DATA is not set\n");
        skip();
    }
    snprintf(path, sizeof(path), "%s/models/stories260K/expected-greedy-ids.txt", data);
    file = fopen(path, "re");
    assert_non_null(file);
    while (stories.n < 1024 && fscanf(file, "%d", &stories.want[stories.n]) == 1)
        stories.n++;
    fclose(file);
    assert_true(stories.n > 100);
    rules.max_new_tokens = stories.n - 1;
    backend = open_cpu(2);
    snprintf(path, sizeof(path), "%s/models/stories260K", data);
    assert_ok(ha_model_open(backend, path, &model, &err));
    assert_ok(ha_generate(model, &request, 1, &settings, &hooks, NULL, &err));
    assert_true(stories.equal);
    ha_model_destroy(model);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_agrees_with_prefill),
        cmocka_unit_test(answers_do_not_depend_on_the_batch),
        cmocka_unit_test(variants_and_samples_share_their_prompt),
        cmocka_unit_test(answers_end_for_three_reasons),
        cmocka_unit_test(memory_is_planned_and_given_back),
        cmocka_unit_test(failures_leave_nothing_behind),
        cmocka_unit_test(a_failed_request_ends_its_own_kind),
        cmocka_unit_test(bad_settings_are_refused_before_anything_runs),
        cmocka_unit_test(greedy_text_of_stories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
