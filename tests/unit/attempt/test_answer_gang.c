/* Ranks that answer together: what each has of a queue, and what comes of an exchange.  Ranks are
 * processes, forked before they open anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/backend.h"
#include "kernels/collective.h"
#include "worker/attempt/answer_gang.h"
#include "worker/attempt/answer_part.h"

enum { PROMPTS = 50, VARIANTS = 3, QUEUE = PROMPTS * VARIANTS, RANKS = 3, WAIT_MS = 20000 };

/* ---- parts ---- */

struct queue {
    int32_t ids[PROMPTS][8];
    struct ha_generate_rules rules[VARIANTS];
    struct ha_generate_request requests[QUEUE];
    int64_t n;
};

/* Some prompts have lost a request to an earlier attempt. */
static void fill(struct queue *queue)
{
    for (int v = 0; v < VARIANTS; v++)
        queue->rules[v] = (struct ha_generate_rules){.max_new_tokens = 10 + 30 * v};
    for (int p = 0; p < PROMPTS; p++)
        for (int v = p % 5 == 0; v < VARIANTS; v++)
            queue->requests[queue->n++] = (struct ha_generate_request){
                .ids = queue->ids[p], .n_ids = 1 + p % 8, .rules = &queue->rules[v]};
}

static int64_t work_of(const struct ha_answer_part *part)
{
    int64_t work = 0;

    for (int64_t i = 0; i < part->n; i++) {
        work += part->requests[i].rules->max_new_tokens;
        if (i == 0 || part->requests[i].ids != part->requests[i - 1].ids)
            work += part->requests[i].n_ids;
    }
    return work;
}

static void parts_are_the_queue(void **state)
{
    struct queue queue = {.n = 0};
    struct ha_error err;

    (void)state;
    fill(&queue);
    for (int ranks = 1; ranks <= 70; ranks += ranks < 5 ? 1 : 13) {
        int owner[QUEUE], of_prompt[PROMPTS];
        int64_t least = INT64_MAX, most = 0;

        memset(owner, -1, sizeof(owner));
        memset(of_prompt, -1, sizeof(of_prompt));
        for (int rank = 0; rank < ranks; rank++) {
            struct ha_answer_part part;
            int64_t work;

            assert_int_equal(ha_answer_part_take(queue.requests, queue.n, ranks, rank, &part, &err),
                             0);
            for (int64_t i = 0; i < part.n; i++) {
                int64_t place = part.place[i];
                int64_t prompt = (queue.requests[place].ids - queue.ids[0]) / 8;

                assert_true(i == 0 || place > part.place[i - 1]);
                assert_int_equal(owner[place], -1);
                owner[place] = rank;
                assert_memory_equal(&part.requests[i], &queue.requests[place],
                                    sizeof(part.requests[i]));
                assert_true(of_prompt[prompt] == -1 || of_prompt[prompt] == rank);
                of_prompt[prompt] = rank;
            }
            work = work_of(&part);
            least = work < least ? work : least;
            most = work > most ? work : most;
            ha_answer_part_clear(&part);
        }
        for (int64_t i = 0; i < queue.n; i++)
            assert_true(owner[i] >= 0);
        /* No more apart than one prompt. */
        assert_true(most - least <= 10 + 40 + 70 + 8);
    }
}

static void a_part_may_be_empty(void **state)
{
    struct ha_answer_part part;
    struct ha_error err;

    (void)state;
    assert_int_equal(ha_answer_part_take(NULL, 0, 4, 1, &part, &err), 0);
    assert_int_equal(part.n, 0);
    ha_answer_part_clear(&part);
}

static void digest_of(const struct ha_generate_request *request, uint8_t digest[HA_SHA256_BYTES])
{
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    ha_answer_hash_request(request, &hash);
    ha_sha256_final(&hash, digest);
}

static void other_requests_have_other_digests(void **state)
{
    int32_t ids[] = {1, 2, 3}, eos[] = {2};
    struct ha_generate_rules rules = {.max_new_tokens = 4, .eos = eos, .n_eos = 1};
    struct ha_generate_request request = {.ids = ids, .n_ids = 3, .rules = &rules, .number = 5};
    uint8_t first[HA_SHA256_BYTES], other[HA_SHA256_BYTES];

    (void)state;
    digest_of(&request, first);
    digest_of(&request, other);
    assert_memory_equal(first, other, sizeof(first));
    for (int change = 0; change < 5; change++) {
        struct ha_generate_rules new_rules = rules;
        struct ha_generate_request new_request = request;

        new_request.rules = &new_rules;
        new_request.number += change == 0;
        new_request.n_ids -= change == 1;
        new_rules.seed += change == 2;
        new_rules.n_eos -= change == 3;
        new_rules.sampler.temperature += change == 4;
        digest_of(&new_request, other);
        assert_memory_not_equal(first, other, sizeof(first));
    }
}

/* ---- exchanges ---- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, line %d: %s: %s\n", rank->rank, __LINE__, #condition,        \
                    ha_error_text(&rank->err));                                                    \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

enum { MANY = 60, LONG = 60000 };

struct rank {
    int rank;
    struct ha_comm_id id;
    struct ha_backend *backend;
    struct ha_model *model;
    struct ha_comm *comm;
    struct ha_answer_gang *gang;
    int seen[RANKS * MANY];
    int failures;
    struct ha_error err;
};

/* As long as its number says; some are longer than an exchange takes. */
static int64_t length_of(int64_t request)
{
    return request % 10 == 3 ? LONG : request % 7;
}

static int on_answer(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct rank *rank = context;

    (void)err;
    CHECK(answer->request / MANY != rank->rank);
    CHECK(answer->n_ids == length_of(answer->request));
    CHECK(answer->finish == HA_FINISH_STOP);
    CHECK(answer->cost.flops == (double)answer->request);
    for (int64_t i = 0; i < answer->n_ids; i++)
        CHECK(answer->ids[i] == (int32_t)(answer->request + i));
    rank->seen[answer->request]++;
    return 0;
}

static int on_failed(void *context, int64_t request, struct ha_error *why, struct ha_error *err)
{
    struct rank *rank = context;

    (void)err;
    CHECK(request == MANY + 7 && why->code == EDOM);
    CHECK(strcmp(ha_error_text(why), "it has diverged") == 0);
    rank->failures++;
    return 0;
}

static void put(struct rank *rank, int64_t request)
{
    static int32_t ids[LONG];
    struct ha_generate_answer answer = {.request = request,
                                        .ids = ids,
                                        .n_ids = length_of(request),
                                        .finish = HA_FINISH_STOP,
                                        .cost = {.flops = (double)request}};

    for (int64_t i = 0; i < answer.n_ids; i++)
        ids[i] = (int32_t)(request + i);
    CHECK(ha_answer_gang_put(rank->gang, &answer, &rank->err) == 0);
}

static void open_rank(struct rank *rank)
{
    struct ha_backend_options backend = {.name = "cpu", .threads = 1};
    struct ha_comm_options options = {
        .kind = "shm", .id = &rank->id, .rank = rank->rank, .size = RANKS, .timeout_ms = WAIT_MS};
    struct ha_answer_gang_options gang = {
        .n_requests = RANKS * MANY, .context = rank, .answer = on_answer, .failed = on_failed};

    CHECK(ha_backend_open(&backend, &rank->backend, &rank->err) == 0);
    CHECK(ha_model_prepare(rank->backend, HA_DEMO_MODEL, &rank->model, &rank->err) == 0);
    options.backend = rank->backend;
    CHECK(ha_comm_create(&options, &rank->comm, &rank->err) == 0);
    gang.comm = rank->comm;
    gang.model = rank->model;
    CHECK(ha_answer_gang_create(&gang, &rank->gang, &rank->err) == 0);
}

static void close_rank(struct rank *rank)
{
    ha_answer_gang_destroy(rank->gang);
    ha_comm_destroy(rank->comm);
    ha_model_destroy(rank->model);
    ha_backend_close(rank->backend);
}

/* Rank 0 is soon done, the last one has most; all get all that the others have. */
static void exchange_all(struct rank *rank)
{
    int64_t tokens, n = rank->rank == 0 ? 2 : rank->rank == 1 ? 10 : MANY;
    double flops;

    for (int64_t i = 0; i < n; i++) {
        if (rank->rank == 1 && i == 7) {
            struct ha_error why;

            (void)ha_error_set(&why, EDOM, "it has diverged");
            CHECK(ha_answer_gang_put_failure(rank->gang, MANY + 7, &why, &rank->err) == 0);
        } else {
            put(rank, rank->rank * MANY + i);
        }
        ha_answer_gang_tell(rank->gang, 10 * rank->rank + 1, 0.5);
        CHECK(ha_answer_gang_step(rank->gang, false, &rank->err) == 0);
    }
    CHECK(ha_answer_gang_finish(rank->gang, NULL, &rank->err) == 0);
    CHECK(rank->failures == (rank->rank != 1));
    for (int i = 0; i < RANKS * MANY; i++) {
        int of = i / MANY, number = i % MANY;
        int made = number < (of == 0 ? 2 : of == 1 ? 10 : MANY) && i != MANY + 7;

        CHECK(rank->seen[i] == (made && of != rank->rank));
    }
    ha_answer_gang_told(rank->gang, &tokens, &flops);
    CHECK(tokens == 33 - (10 * rank->rank + 1) && flops == 1.0);
}

/* One is told to stop in its middle, another has nothing left. */
static void stop_all(struct rank *rank)
{
    static volatile sig_atomic_t none;

    put(rank, rank->rank * MANY);
    if (rank->rank == 0) {
        CHECK(ha_answer_gang_step(rank->gang, true, &rank->err) == -EINTR);
    } else {
        CHECK(ha_answer_gang_finish(rank->gang, &none, &rank->err) == -EINTR);
        CHECK(rank->seen[0] == 1);
    }
}

static void run_ranks(void (*body)(struct rank *rank))
{
    struct rank rank = {.rank = 0};
    pid_t pids[RANKS];

    assert_int_equal(ha_comm_make_id("shm", RANKS, &rank.id, &rank.err), 0);
    fflush(NULL);
    for (rank.rank = 0; rank.rank < RANKS; rank.rank++) {
        pids[rank.rank] = fork();
        assert_true(pids[rank.rank] >= 0);
        if (pids[rank.rank] == 0) {
            open_rank(&rank);
            body(&rank);
            close_rank(&rank);
            _exit(0);
        }
    }
    for (int i = 0; i < RANKS; i++) {
        int status = -1;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

static void all_answers_come_to_all(void **state)
{
    (void)state;
    run_ranks(exchange_all);
}

static void one_stops_all(void **state)
{
    (void)state;
    run_ranks(stop_all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_queue),
        cmocka_unit_test(a_part_may_be_empty),
        cmocka_unit_test(other_requests_have_other_digests),
        cmocka_unit_test(all_answers_come_to_all),
        cmocka_unit_test(one_stops_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
