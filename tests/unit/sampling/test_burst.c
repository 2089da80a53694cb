/* Bursts of steps against one step at a time, on every backend: whatever their length, the hooks
 * see the same tokens and answers in the same order.  HA_KERNEL_TEST_BACKEND names the backend. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "worker/sampling/generate.h"

enum { REQUESTS = 8, PROMPT_MAX = 9, NEW = 17, VOCAB = 53, MOST_EVENTS = 4 * REQUESTS * NEW };

/* The first N_EMULATED of them on a device, which here is slow. */
static const int64_t bursts[] = {16, 3, 2, 7, 64};
enum { N_BURSTS = sizeof(bursts) / sizeof(bursts[0]), N_EMULATED = 1 };

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapters[2];
    int32_t prompts[REQUESTS][PROMPT_MAX], eos[2];
    struct ha_generate_rules rules[REQUESTS];
    struct ha_generate_request requests[REQUESTS];
    bool warm; /* something has run */
};

/* Different lengths, penalties, ways to draw and adapters. */
static void fixture_open(struct fixture *f)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);
    struct random random = {5};

    memset(f, 0, sizeof(*f));
    f->backend = open_backend(1);
    small_model_open(&f->small, f->backend, &config, HA_DTYPE_BF16, 4);
    for (int i = 0; i < 2; i++)
        f->adapters[i] = random_adapter(f->backend, &config, i, 3, 0xf, 2 + i, 1.0f, 5 + i);
    for (int i = 0; i < REQUESTS; i++) {
        bool drawn = is_cpu(f->backend) ? i % 4 != 0 : i == 1; /* which takes long on the device */

        f->rules[i] =
            (struct ha_generate_rules){.sampler = {drawn ? 1.5 : 0.0, i % 3 ? 0 : 20,
                                                   i % 2 ? 0.95 : 1.0, i % 5 ? 1.0 : 1.2, 0},
                                       .seed = 42,
                                       .max_new_tokens = i == 6 ? 1 : NEW - i};
        f->requests[i] = (struct ha_generate_request){
            f->prompts[i], 1 + random_below(&random, PROMPT_MAX),
            i % 3 ? f->adapters[i % 3 - 1] : NULL, &f->rules[i], (uint64_t)i};
        for (int t = 0; t < PROMPT_MAX; t++)
            f->prompts[i][t] = (int32_t)random_below(&random, VOCAB);
    }
}

static void fixture_close(struct fixture *f)
{
    ha_adapter_destroy(f->adapters[0]);
    ha_adapter_destroy(f->adapters[1]);
    small_model_close(&f->small);
    ha_backend_close(f->backend);
}

/* ---- what the hooks saw ---- */

enum what { TOKEN, ANSWER, FAILURE };

struct event {
    enum what what;
    int64_t request, n_ids;
    int32_t last; /* token; of an answer why it ended */
};

struct record {
    struct event events[MOST_EVENTS];
    int64_t n_events;
    int32_t ids[REQUESTS][NEW];
    int64_t n_ids[REQUESTS];
    enum ha_generate_finish finish[REQUESTS];
    double flops;       /* of the answers */
    int32_t stop_token; /* -1: none */
    bool ended[3];      /* kinds of requests that have failed */
    int64_t cancel_after, asked;
    const struct ha_backend *backend;
    int64_t most_bytes; /* that it held at a token */
    struct ha_generate_counts counts;
};

static void note(struct record *record, struct event event)
{
    assert_true(record->n_events < MOST_EVENTS);
    record->events[record->n_events++] = event;
}

static int stop(void *context, int64_t request, const int32_t *ids, int64_t n, struct ha_error *err)
{
    struct record *record = context;

    (void)err;
    if (ha_backend_allocated_bytes(record->backend) > record->most_bytes)
        record->most_bytes = ha_backend_allocated_bytes(record->backend);
    note(record, (struct event){TOKEN, request, n, ids[n - 1]});
    return ids[n - 1] == record->stop_token;
}

static int finished(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct record *record = context;

    (void)err;
    note(record, (struct event){ANSWER, answer->request, answer->n_ids, (int32_t)answer->finish});
    memcpy(record->ids[answer->request], answer->ids, (size_t)answer->n_ids * sizeof(*answer->ids));
    record->n_ids[answer->request] = answer->n_ids;
    record->finish[answer->request] = answer->finish;
    record->flops += answer->cost.flops;
    return 0;
}

static int failed(void *context, int64_t request, struct ha_error *err)
{
    struct record *record = context;

    (void)err;
    note(record, (struct event){.what = FAILURE, .request = request});
    record->ended[request % 3] = true;
    return 0;
}

static bool unwanted(void *context, int64_t request)
{
    const struct record *record = context;

    return record->ended[request % 3];
}

static bool cancelled(void *context)
{
    struct record *record = context;

    return record->cancel_after && record->asked++ == record->cancel_after;
}

static int generate(struct fixture *f, int64_t burst, int64_t at_once, struct record *record,
                    struct ha_error *err)
{
    struct ha_generate_settings settings = {
        .max_sequences = at_once, .burst = burst, .batch_invariant = true};
    struct ha_generate_hooks hooks = {.context = record,
                                      .stop = stop,
                                      .finished = finished,
                                      .failed = failed,
                                      .unwanted = unwanted,
                                      .cancelled = cancelled};

    record->backend = f->backend;
    return ha_generate(f->small.model, f->requests, REQUESTS, &settings, &hooks, &record->counts,
                       err);
}

/* All work is charged to answers, where none has failed, and memory is as planned. */
static struct record *run(struct fixture *f, int64_t burst, int64_t at_once, int32_t stop_token)
{
    struct ha_generate_settings settings = {.max_sequences = at_once, .burst = burst};
    struct record *record = ha_calloc(1, sizeof(*record));
    int64_t bytes = ha_backend_allocated_bytes(f->backend);
    double flops = ha_backend_flops(f->backend);
    struct ha_generate_sizes plan;

    assert_non_null(record);
    record->stop_token = stop_token;
    assert_ok(generate(f, burst, at_once, record, &err));
    if (!record->ended[0] && !record->ended[1] && !record->ended[2])
        assert_true(fabs(ha_backend_flops(f->backend) - flops - record->flops) <=
                    1e-9 * record->flops);
    assert_ok(ha_generate_plan(f->small.model, f->requests, REQUESTS, &settings, &plan, &err));
    if (f->warm) { /* the backend's scratch and the table of positions are there */
        assert_int_equal(ha_backend_allocated_bytes(f->backend), bytes);
        assert_true(record->most_bytes <= bytes + plan.total);
        assert_true(record->most_bytes > bytes + plan.decoder);
    }
    f->warm = true;
    return record;
}

static int n_bursts(const struct fixture *f)
{
    return is_cpu(f->backend) ? N_BURSTS : N_EMULATED;
}

static void same_events(const struct record *got, const struct record *want)
{
    assert_int_equal(got->n_events, want->n_events);
    for (int64_t i = 0; i < got->n_events; i++) {
        assert_int_equal(got->events[i].what, want->events[i].what);
        assert_int_equal(got->events[i].request, want->events[i].request);
        assert_int_equal(got->events[i].n_ids, want->events[i].n_ids);
        assert_int_equal(got->events[i].last, want->events[i].last);
    }
    assert_int_equal(got->counts.new_tokens, want->counts.new_tokens);
}

static void same_answers(const struct record *got, const struct record *want)
{
    assert_memory_equal(got->ids, want->ids, sizeof(got->ids));
    assert_memory_equal(got->n_ids, want->n_ids, sizeof(got->n_ids));
    assert_memory_equal(got->finish, want->finish, sizeof(got->finish));
    assert_int_equal(got->counts.new_tokens, want->counts.new_tokens);
    assert_int_equal(got->n_events, want->n_events); /* in whatever order */
}

/* ---- cases ---- */

/* End tokens and a stop that come up early and late in bursts, and all ends by length. */
static void bursts_change_no_answer(void **state)
{
    struct record *whole, *one;
    int64_t seen[3] = {0};
    int32_t stop_token;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    whole = run(&f, 1, REQUESTS, -1);
    f.eos[0] = whole->ids[1][4];
    f.eos[1] = whole->ids[2][9];
    stop_token = whole->ids[5][6];
    for (int i = 0; i < REQUESTS; i += 1 + (i == 2)) { /* not the fourth */
        f.rules[i].eos = f.eos;
        f.rules[i].n_eos = 2;
    }
    one = run(&f, 1, REQUESTS, stop_token);
    for (int i = 0; i < REQUESTS; i++)
        seen[one->finish[i]]++;
    assert_true(seen[HA_FINISH_EOS] >= 2 && seen[HA_FINISH_STOP] >= 1 &&
                seen[HA_FINISH_LENGTH] >= 2);
    for (int i = 0; i < n_bursts(&f); i++) {
        struct record *few = run(&f, bursts[i], 3, stop_token);
        struct record *other = run(&f, bursts[i], REQUESTS, stop_token);

        same_events(other, one);
        same_answers(few, one);
        assert_true((other->counts.replayed > 0) == (!is_cpu(f.backend) && bursts[i] >= 16));
        free(few);
        free(other);
    }
    free(one);
    free(whole);
    fixture_close(&f);
}

/* Bursts end with the first sequence's last token: no row is run in vain. */
static void no_step_is_wasted(void **state)
{
    struct record *one, *many;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    one = run(&f, 1, REQUESTS, -1);
    many = run(&f, bursts[0], REQUESTS, -1);
    assert_int_equal(many->counts.steps, one->counts.steps);
    assert_true(fabs(many->flops - one->flops) <= 1e-9 * one->flops);
    free(one);
    free(many);
    fixture_close(&f);
}

/* The embedding of a token becomes NaN: whoever draws it has diverged with the next step. */
static void poison(struct fixture *f, int32_t token)
{
    const struct ha_matrix *table = &f->small.weights.embedding;
    size_t bytes = (size_t)table->stride * sizeof(uint16_t);
    uint16_t *row = ha_calloc(1, bytes);

    assert_non_null(row);
    for (int64_t i = 0; i < table->stride; i++)
        row[i] = 0x7fc0;
    assert_int_equal(table->dtype, HA_DTYPE_BF16);
    assert_ok(ha_backend_upload(f->backend, (char *)table->data + (size_t)token * bytes, row, bytes,
                                &err));
    assert_ok(ha_backend_sync(f->backend, &err));
    free(row);
}

static void failures_come_at_their_step(void **state)
{
    struct record *whole, *one;
    int64_t n_failed = 0, n_dropped = 0;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    whole = run(&f, 1, REQUESTS, -1);
    poison(&f, whole->ids[4][10]);
    one = run(&f, 1, REQUESTS, -1);
    for (int64_t i = 0; i < one->n_events; i++)
        n_failed += one->events[i].what == FAILURE;
    for (int i = 0; i < REQUESTS; i++)
        n_dropped += one->n_ids[i] == 0;
    assert_true(n_failed >= 1 && n_dropped > n_failed && n_dropped < REQUESTS);
    for (int i = 0; i < n_bursts(&f); i++) {
        struct record *other = run(&f, bursts[i], REQUESTS, -1);

        same_events(other, one);
        free(other);
    }
    free(one);
    free(whole);
    fixture_close(&f);
}

static void it_can_be_stopped_between_bursts(void **state)
{
    struct record record = {.stop_token = -1, .cancel_after = 2};
    struct ha_generate_settings settings = {.max_sequences = 1, .burst = -1};
    struct ha_generate_sizes plan;
    struct ha_error why;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_int_equal(generate(&f, 4, REQUESTS, &record, &why), -ECANCELED);
    assert_int_equal(record.counts.steps, 8);
    assert_int_equal(ha_generate_plan(f.small.model, f.requests, REQUESTS, &settings, &plan, &why),
                     -EINVAL);
    settings.burst = HA_GENERATE_BURST_MOST + 1;
    assert_int_equal(ha_generate_plan(f.small.model, f.requests, REQUESTS, &settings, &plan, &why),
                     -EINVAL);
    fixture_close(&f);
}

/* Where steps cannot be recorded they are made call by call; a device that fails is told of. */
static void steps_do_not_need_recordings(void **state)
{
    struct record *one, *many, lost = {.stop_token = -1};
    struct ha_error why;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    if (!strstr(ha_backend_description(f.backend), "emulated on the CPU")) {
        fixture_close(&f);
        skip(); /* nothing fails on demand there */
    }
    one = run(&f, 16, REQUESTS, -1);
    assert_int_equal(setenv("HA_EMULATED_FAULT", "cudaGraphInstantiateWithFlags:1:2", 1), 0);
    many = run(&f, 16, REQUESTS, -1);
    same_events(many, one);
    assert_true(one->counts.replayed > 0);
    assert_int_equal(many->counts.replayed, 0);
    assert_int_equal(setenv("HA_EMULATED_FAULT", "cudaGraphLaunch:1:719", 1), 0);
    assert_int_equal(generate(&f, 16, REQUESTS, &lost, &why), -EIO);
    assert_int_equal(unsetenv("HA_EMULATED_FAULT"), 0);
    free(one);
    free(many);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bursts_change_no_answer),
        cmocka_unit_test(no_step_is_wasted),
        cmocka_unit_test(failures_come_at_their_step),
        cmocka_unit_test(it_can_be_stopped_between_bursts),
        cmocka_unit_test(steps_do_not_need_recordings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
