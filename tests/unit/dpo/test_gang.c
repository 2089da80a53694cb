/* Gangs: the adapters of 1, 2, 3 and 4 ranks are the same, byte for byte, however the ranks' speeds
 * differ and wherever they were interrupted, and those of a job alone within rounding. Ranks are
 * processes, forked before they open anything. */
#include "tests/unit/dpo/lockstep_cells.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/memory.h"
#include "kernels/collective.h"
#include "worker/dpo/work.h"

enum { MOST_RANKS = 4, ACCUMULATION = 5, BATCH = 2, N_STEPS = 4 };

/* What a result has behind the adapter of each cell. */
enum { OUTCOME = 128, BEHIND = 3 * sizeof(double) + sizeof(int64_t) + OUTCOME };

/* ---- dealing ---- */

static void deals_everything_once(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 17; n++) {
        for (int ranks = 1; ranks <= 9; ranks++) {
            struct ha_dpo_share share;
            int64_t at = 0, most = 0;
            bool added[9] = {false};

            ha_dpo_share_deal(n, ranks, &share);
            for (int i = 0; i < ranks; i++) {
                int64_t own = share.of_rank[i].end - share.of_rank[i].first;

                if (own == 0)
                    continue;
                assert_int_equal(share.of_rank[i].first, at);
                at = share.of_rank[i].end;
                most = own > most ? own : most;
            }
            assert_int_equal(at, n);
            assert_int_equal(share.n_adds, (ranks < n ? ranks : n) - 1);
            for (int i = 0; i < share.n_adds; i++) {
                assert_true(share.adds[i].into < share.adds[i].from);
                assert_false(added[share.adds[i].from] || added[share.adds[i].into]);
                added[share.adds[i].from] = true;
            }
            assert_true(ha_dpo_share_depth(most) <= ha_dpo_share_most(17, ranks));
        }
    }
}

/* The tree over n values with one rank, as the text of share.h says it. */
static float whole_tree(const float *x, int64_t first, int64_t end)
{
    int64_t middle = (first + end + 1) / 2;
    float left, right;

    if (end - first == 1)
        return x[first];
    left = whole_tree(x, first, middle);
    right = whole_tree(x, middle, end);
    return left + right;
}

static void every_deal_has_one_sum(void **state)
{
    float x[17], want[18];

    (void)state;
    for (int i = 0; i < 17; i++)
        x[i] = (float)sin(i * 12.9898) * (i % 3 ? 1e-3f : 1e3f);
    for (int64_t n = 1; n <= 17; n++) {
        want[n] = whole_tree(x, 0, n);
        for (int ranks = 1; ranks <= 9; ranks++) {
            struct ha_dpo_share share;
            float value[9];

            ha_dpo_share_deal(n, ranks, &share);
            for (int i = 0; i < ranks; i++)
                value[i] = share.of_rank[i].end > share.of_rank[i].first
                               ? whole_tree(x, share.of_rank[i].first, share.of_rank[i].end)
                               : NAN;
            for (int i = 0; i < share.n_adds; i++)
                value[share.adds[i].into] += value[share.adds[i].from];
            assert_memory_equal(&value[0], &want[n], sizeof(float));
        }
    }
}

/* ---- gangs ---- */

struct run {
    int ranks;
    int64_t stop_at, resume_at; /* steps; 0: none */
    int stop_rank;              /* that is told to stop at step stop_at */
    bool unequal;               /* ranks work at unequal speeds */
    int spoil_rank;             /* its cell 1 has another learning rate; -1: none */
    bool diverge;               /* cell 3 has a learning rate without measure */
    int expect;                 /* of the run */
};

static struct run base_run(int ranks)
{
    return (struct run){.ranks = ranks, .spoil_rank = -1};
}

static int rank_of_process = -1;
static const struct run *run_of_process;
static int n_references; /* times that they were told of */

static void on_gang_progress(void *user, const struct ha_dpo_progress *progress)
{
    struct fixture *fixture = user;

    if (run_of_process->unequal)
        (void)usleep((useconds_t)((rank_of_process * 3 + progress->done) % 4 * 4000));
    if (progress->phase == HA_DPO_STEP && run_of_process->stop_at > 0 &&
        progress->done == run_of_process->stop_at && rank_of_process == run_of_process->stop_rank)
        fixture->stop = 1;
}

static void no_metrics(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n)
{
    (void)user;
    (void)cell;
    (void)step;
    (void)metrics;
    (void)n;
}

/* Of a run that began at step 0: with the first epoch's end, held-out pairs included. */
static int on_references(void *user, struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    (void)user;
    if (!ha_dpo_trainer_has_references(trainer))
        return ha_error_set(err, EBADMSG, "not all references are known");
    if (run_of_process->resume_at == 0 && ha_dpo_trainer_step(trainer) != N_STEPS / 2)
        return ha_error_set(err, EBADMSG, "references are told of after step %d",
                            (int)ha_dpo_trainer_step(trainer));
    n_references++;
    return 0;
}

static void set_up_gang(struct fixture *fixture)
{
    set_up(fixture, 1);
    fixture->dropout = 0.1; /* of all cells but the last */
    fixture->job.batch_size = BATCH;
    fixture->job.gradient_accumulation = ACCUMULATION;
    fixture->job.epochs = 2;
}

/* Callbacks of rank 0 keep what the fixture's do; the others' keep nothing. */
static struct ha_dpo_trainer *make_rank(struct fixture *fixture, const struct run *run)
{
    struct ha_dpo_trainer *trainer = NULL;
    struct ha_dpo_callbacks callbacks;
    struct ha_dpo_trainer *template;

    template = make_trainer(fixture, 0, N_CELLS);
    callbacks = template->callbacks;
    ha_dpo_trainer_destroy(template);
    callbacks.progress = on_gang_progress;
    callbacks.references = on_references;
    if (rank_of_process > 0) {
        callbacks.metrics = no_metrics;
        callbacks.checkpoint = NULL;
    }
    fixture->job.ranks = run->ranks;
    fixture->job.rank = rank_of_process;
    if (run->spoil_rank == rank_of_process)
        fixture->cells[1].learning_rate *= 2;
    if (run->diverge)
        fixture->cells[3].learning_rate = 1e30;
    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, fixture->cells, N_CELLS,
                                    &callbacks, &fixture->stop, &trainer, &err));
    return trainer;
}

static void write_result(struct fixture *fixture, const struct ha_dpo_trainer *trainer)
{
    char name[32];
    FILE *file;

    snprintf(name, sizeof(name), "rank%d", rank_of_process);
    file = fopen(path_of(name, 0), "wb");
    assert_non_null(file);
    for (int i = 0; i < N_CELLS; i++) {
        const char *outcome = ha_dpo_trainer_outcome(trainer, i);
        struct ha_dpo_stats stats;
        char text[OUTCOME] = "";

        ha_dpo_trainer_stats(trainer, i, &stats);
        snprintf(text, sizeof(text), "%s", outcome ? outcome : "");
        fwrite(ha_adapter_params(fixture->cells[i].adapter), 1, params_bytes(fixture, i), file);
        fwrite(&fixture->losses[i], sizeof(double), 1, file);
        fwrite(&fixture->evals[i], sizeof(double), 1, file);
        fwrite(&stats.own.flops, sizeof(double), 1, file);
        fwrite(&stats.tokens, sizeof(int64_t), 1, file);
        fwrite(text, sizeof(text), 1, file);
    }
    assert_int_equal(fclose(file), 0);
}

static void be_rank(const struct run *run, const struct ha_comm_id *id)
{
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    struct ha_comm *comm = NULL;
    struct ha_comm_options options = {
        .kind = "shm", .id = id, .rank = rank_of_process, .size = run->ranks, .timeout_ms = 20000};
    struct ha_error why = {0};
    char name[32];
    int r;

    run_of_process = run;
    set_up_gang(&fixture);
    make_cells(&fixture);
    trainer = make_rank(&fixture, run);
    snprintf(name, sizeof(name), "step%d", (int)run->resume_at);
    for (int i = 0; run->resume_at > 0 && i < N_CELLS; i++)
        assert_ok(ha_dpo_trainer_load(trainer, i, path_of(name, i), false, &err));
    options.backend = fixture.backend;
    assert_ok(ha_comm_create(&options, &comm, &err));
    r = ha_dpo_trainer_join(trainer, comm, &why);
    if (r == 0)
        r = ha_dpo_trainer_run(trainer, &why);
    if (r != run->expect)
        fail_msg("rank %d: %d: %s", rank_of_process, r, ha_error_text(&why));
    if (r == 0)
        assert_int_equal(n_references, 1);
    if (r == 0)
        write_result(&fixture, trainer);
    ha_comm_destroy(comm);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

static void run_gang(const struct run *run)
{
    pid_t pids[MOST_RANKS];
    struct ha_comm_id id;

    assert_ok(ha_comm_make_id("shm", run->ranks, &id, &err));
    fflush(NULL);
    for (int i = 0; i < run->ranks; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            rank_of_process = i;
            be_rank(run, &id);
            _exit(0);
        }
    }
    for (int i = 0; i < run->ranks; i++) {
        int status = -1;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (status != 0)
            fail_msg("rank %d of %d ended with %d", i, run->ranks, status);
    }
}

/* The bytes that a rank has left. */
static char *result_of(int rank, size_t *ret_bytes)
{
    char name[32], *bytes;
    FILE *file;
    long size;

    snprintf(name, sizeof(name), "rank%d", rank);
    file = fopen(path_of(name, 0), "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    bytes = malloc((size_t)size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    fclose(file);
    *ret_bytes = (size_t)size;
    return bytes;
}

/* Adapters of all ranks are those of `want`; with rank 0 also its losses and counts. */
static void assert_results(const struct run *run, const char *want, size_t want_bytes, bool counts)
{
    struct fixture fixture;

    set_up_gang(&fixture);
    make_cells(&fixture);
    for (int rank = 0; rank < run->ranks; rank++) {
        size_t bytes, at = 0;
        char *result = result_of(rank, &bytes);

        assert_int_equal(bytes, want_bytes);
        for (int i = 0; i < N_CELLS; i++) {
            if (memcmp(result + at, want + at, params_bytes(&fixture, i)) != 0)
                fail_msg("%d ranks: %s of rank %d differs", run->ranks, plans[i].name, rank);
            at += params_bytes(&fixture, i);
            if (rank == 0 && counts)
                assert_memory_equal(result + at, want + at, BEHIND);
            /* What ended a cell, which those know too that had no part in it. */
            assert_string_equal(result + at + BEHIND - OUTCOME, want + at + BEHIND - OUTCOME);
            at += BEHIND;
        }
        free(result);
    }
    destroy_cells(&fixture);
    tear_down(&fixture);
}

/* Relative distance of what training has changed. */
static double distance(const float *a, const float *b, const float *start, int64_t n)
{
    double apart = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        apart += pow((double)a[i] - (double)b[i], 2);
        all += pow((double)b[i] - (double)start[i], 2);
    }
    return sqrt(apart / all);
}

static void compare_with_alone(const char *gang)
{
    struct fixture fixture;
    struct ha_dpo_trainer *trainer;
    size_t at = 0;

    set_up_gang(&fixture);
    make_cells(&fixture);
    trainer = make_trainer(&fixture, 0, N_CELLS);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_int_equal(ha_dpo_trainer_step(trainer), N_STEPS);
    for (int i = 0; i < N_CELLS; i++) {
        struct ha_adapter *start = make_adapter(&fixture, i);
        double apart = distance((const float *)(const void *)(gang + at),
                                ha_adapter_params(fixture.cells[i].adapter),
                                ha_adapter_params(start), ha_adapter_n_params(start)),
               losses[2];

        assert_true(apart < 1e-3);
        at += params_bytes(&fixture, i);
        memcpy(losses, gang + at, sizeof(losses));
        assert_true(fabs(losses[0] - fixture.losses[i]) < 1e-4 * (1 + fabs(fixture.losses[i])));
        assert_true(fabs(losses[1] - fixture.evals[i]) < 1e-4 * (1 + fabs(fixture.evals[i])));
        at += BEHIND;
        ha_adapter_destroy(start);
    }
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

static void any_number_of_ranks(void **state)
{
    struct run run = base_run(1);
    size_t bytes;
    char *one;

    (void)state;
    run_gang(&run);
    one = result_of(0, &bytes);
    compare_with_alone(one);
    for (run.ranks = 2; run.ranks <= MOST_RANKS; run.ranks++) {
        run.unequal = run.ranks == 3;
        run_gang(&run);
        assert_results(&run, one, bytes, true);
    }
    /* One is told to stop; all do, and rank 0 keeps the checkpoint, from which a gang of another
     * size goes on. */
    for (int stopped = 0; stopped < 2; stopped++) {
        run = base_run(2);
        run.stop_at = 1 + stopped;
        run.stop_rank = stopped;
        run.expect = -EINTR;
        run_gang(&run);
        run = base_run(4);
        run.resume_at = 1 + stopped;
        run_gang(&run);
        assert_results(&run, one, bytes, false);
    }
    free(one);
}

/* The ranks agree on a cell that ends. */
static void a_cell_ends_for_all(void **state)
{
    struct run run = base_run(1);
    size_t bytes;
    char *one;

    (void)state;
    run.diverge = true;
    run_gang(&run);
    one = result_of(0, &bytes);
    assert_non_null(memmem(one, bytes, "is not finite", strlen("is not finite")));
    run.ranks = 3;
    run_gang(&run);
    /* What was done for that cell after its end hangs on who had which pairs. */
    assert_results(&run, one, bytes, false);
    free(one);
}

static void differing_ranks_are_refused(void **state)
{
    struct run run = base_run(2);

    (void)state;
    run.spoil_rank = 1;
    run.expect = -ESTALE;
    run_gang(&run);
}

static void more_ranks_than_work_are_refused(void **state)
{
    struct ha_dpo_trainer *trainer;
    struct ha_error why;
    struct fixture fixture;

    (void)state;
    set_up_gang(&fixture);
    make_cells(&fixture);
    fixture.job.ranks = ACCUMULATION + 1;
    assert_int_equal(ha_dpo_trainer_create(fixture.small.model, &fixture.job, fixture.cells,
                                           N_CELLS, NULL, NULL, &trainer, &why),
                     -EINVAL);
    assert_non_null(strstr(ha_error_text(&why), "gradient_accumulation"));
    destroy_cells(&fixture);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deals_everything_once),
        cmocka_unit_test(every_deal_has_one_sum),
        cmocka_unit_test(any_number_of_ranks),
        cmocka_unit_test(a_cell_ends_for_all),
        cmocka_unit_test(differing_ranks_are_refused),
        cmocka_unit_test(more_ranks_than_work_are_refused),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
