/* Why a gang over several workers ended: what its parts told, in whatever order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buffer.h"
#include "coordinator/core/gang.h"

#define PART(name, first, how, text)                                                               \
    {                                                                                              \
        .worker = (name), .first_rank = (first), .ranks = 2, .ended = true, .outcome = (how),      \
        .order = (first), .reason = (text)                                                         \
    }
#define SILENT(name, first)                                                                        \
    {                                                                                              \
        .worker = (name), .first_rank = (first), .ranks = 2, .reason = ""                          \
    }

static const int64_t untold[4] = {-1, -1, -1, -1};
static const bool nobody[4];

static void expect(const struct ha_gang_part *parts, const int64_t *started, bool late,
                   enum ha_outcome outcome, int64_t part, const char *reason)
{
    const struct ha_gang_view view = {.parts = parts,
                                      .part_count = 2,
                                      .started = started,
                                      .ready = nobody,
                                      .late = late,
                                      .time_ms = 9000};
    struct ha_buffer text;
    enum ha_outcome got;
    int64_t cause;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_gang_judge(&view, &got, &cause, &text), 0);
    assert_string_equal(ha_buffer_text(&text), reason);
    assert_int_equal(got, outcome);
    assert_int_equal(cause, part);
    ha_buffer_clear(&text);
}

static void what_explains_most_counts(void **state)
{
    struct ha_gang_part parts[2] = {PART("a", 0, HA_OUTCOME_FAILED, "rank 0: others failed"),
                                    PART("b", 2, HA_OUTCOME_FAILED, "rank 3: no memory")};

    (void)state;
    parts[0].followed = true;
    expect(parts, untold, false, HA_OUTCOME_FAILED, 1, "worker b: rank 3: no memory");
    parts[1].outcome = HA_OUTCOME_REFUSED;
    expect(parts, untold, false, HA_OUTCOME_REFUSED, 1, "worker b: rank 3: no memory");
    parts[1].outcome = HA_OUTCOME_STOPPED;
    parts[1].reason = "the worker is leaving";
    expect(parts, untold, false, HA_OUTCOME_STOPPED, 1, "worker b: the worker is leaving");
    parts[1] = parts[0]; /* both followed: the one that ended first */
    parts[1].worker = "b";
    parts[1].first_rank = 2;
    parts[1].order = 1;
    expect(parts, untold, false, HA_OUTCOME_FAILED, 0, "worker a: rank 0: others failed");
    parts[0].order = 2;
    expect(parts, untold, false, HA_OUTCOME_FAILED, 1, "worker b: rank 0: others failed");
}

/* Memory that ran out would run out again, which no other word changes. */
static void memory_that_ran_out_is_refused(void **state)
{
    static const char why[] = "memory ran out, which the plan did not foresee: worker b: rank 3: "
                              "exit code 79; set train.memory_limit to less than was there, or "
                              "ask for more with resources.min_gpu_memory or host_memory, then "
                              "hactl retry";
    const int64_t behind[4] = {9, 9, 9, 4};
    struct ha_gang_part parts[2] = {PART("a", 0, HA_OUTCOME_FAILED, "rank 0: rank 3 is gone"),
                                    PART("b", 2, HA_OUTCOME_FAILED, "rank 3: exit code 79")};

    (void)state;
    parts[1].starved = true;
    parts[0].followed = true;
    expect(parts, behind, false, HA_OUTCOME_REFUSED, 1, why);
    parts[0].followed = false; /* it crashed first */
    expect(parts, untold, false, HA_OUTCOME_REFUSED, 1, why);
    expect(parts, untold, true, HA_OUTCOME_REFUSED, 1, why); /* while they came together */
    parts[0].ended = false;
    expect(parts, untold, false, HA_OUTCOME_REFUSED, 1, why);
    parts[0].ended = true;
    parts[0].outcome = HA_OUTCOME_REFUSED;
    parts[0].reason = "bad data";
    expect(parts, untold, false, HA_OUTCOME_REFUSED, 0, "worker a: bad data");
    parts[0].outcome = HA_OUTCOME_DONE;
    parts[1].outcome = HA_OUTCOME_STOPPED; /* somebody had asked it to end */
    expect(parts, untold, false, HA_OUTCOME_STOPPED, 1, "worker b: rank 3: exit code 79");
}

static void a_silent_part_is_a_loss(void **state)
{
    struct ha_gang_part parts[2] = {PART("a", 0, HA_OUTCOME_FAILED, "rank 0: rank 2 is gone"),
                                    SILENT("b", 2)};

    (void)state;
    parts[0].followed = true;
    expect(
        parts, untold, false, HA_OUTCOME_LOST, 1,
        "worker b did not tell how its ranks of the gang ended; worker a: rank 0: rank 2 is gone");
    parts[0].followed = false; /* it failed by itself, whatever became of the others */
    expect(parts, untold, false, HA_OUTCOME_FAILED, 0, "worker a: rank 0: rank 2 is gone");
}

/* The cause is the part that was first: what a rank says of others is charged to nobody, a worker
 * that is lost costs no attempt, a rank that crashed one, in whatever order it is told. */
static void who_is_charged(void **state)
{
    enum { OWN, OTHERS, LOST, MUTE };
    static const struct {
        int how[2], order[2];
        enum ha_outcome outcome;
        int64_t cause;
    } table[] = {
        {{OTHERS, MUTE}, {0, 0}, HA_OUTCOME_LOST, 1}, /* ncclRemoteError: the machine is gone */
        {{OTHERS, LOST}, {0, 1}, HA_OUTCOME_LOST, 1}, /* and so it was found */
        {{LOST, OTHERS}, {0, 1}, HA_OUTCOME_LOST, 0},
        {{OTHERS, OWN}, {0, 1}, HA_OUTCOME_FAILED, 1}, /* its peer's crash is told later */
        {{OWN, OTHERS}, {1, 0}, HA_OUTCOME_FAILED, 0},
        {{OWN, LOST}, {0, 1}, HA_OUTCOME_FAILED, 0},      /* a crash, and then a loss */
        {{OTHERS, OTHERS}, {0, 1}, HA_OUTCOME_FAILED, 0}, /* the network alone: one crash */
        {{OTHERS, OTHERS}, {1, 0}, HA_OUTCOME_FAILED, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct ha_gang_part parts[2] = {PART("a", 0, HA_OUTCOME_FAILED, "x"),
                                        PART("b", 2, HA_OUTCOME_FAILED, "x")};
        const struct ha_gang_view view = {
            .parts = parts, .part_count = 2, .started = untold, .ready = nobody};
        struct ha_buffer text;
        enum ha_outcome outcome;
        int64_t cause;

        for (int k = 0; k < 2; k++) {
            parts[k].followed = table[i].how[k] == OTHERS;
            parts[k].ended = table[i].how[k] != MUTE;
            parts[k].order = table[i].order[k];
            if (table[i].how[k] == LOST)
                parts[k].outcome = HA_OUTCOME_LOST;
        }
        ha_buffer_init(&text, 0);
        assert_int_equal(ha_gang_judge(&view, &outcome, &cause, &text), 0);
        assert_int_equal(outcome, table[i].outcome);
        assert_int_equal(cause, table[i].cause);
        ha_buffer_clear(&text);
    }
}

static void who_was_late_is_named(void **state)
{
    struct ha_gang_part parts[2] = {SILENT("a", 0), SILENT("b", 2)};

    (void)state;
    expect(parts, untold, true, HA_OUTCOME_FAILED, 0,
           "a gang of 4 ranks: not ready within 9 s: worker a: rank 0 rank 1; worker b: rank 2 "
           "rank 3");
}

static void who_was_behind_is_named(void **state)
{
    const int64_t started[4] = {18, 18, 18, 17}, one_silent[4] = {18, 18, -1, 18};
    const int64_t two_silent[4] = {18, -1, -1, 18}, even[4] = {5, 5, 5, 5};
    struct ha_gang_part parts[2] = {PART("a", 0, HA_OUTCOME_FAILED, "rank 0: no sign of others"),
                                    PART("b", 2, HA_OUTCOME_FAILED, "rank 2: told to give up")};

    (void)state;
    parts[0].followed = parts[1].followed = true;
    expect(parts, started, false, HA_OUTCOME_FAILED, 0,
           "worker a: rank 0: no sign of others; rank 3 (worker b) was behind: it had begun 17 "
           "collectives, others 18");
    expect(parts, one_silent, false, HA_OUTCOME_FAILED, 0,
           "worker a: rank 0: no sign of others; rank 2 (worker b) told nothing, others had begun "
           "18 collectives");
    expect(parts, two_silent, false, HA_OUTCOME_FAILED, 0, "worker a: rank 0: no sign of others");
    expect(parts, even, false, HA_OUTCOME_FAILED, 0, "worker a: rank 0: no sign of others");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_explains_most_counts),
        cmocka_unit_test(memory_that_ran_out_is_refused),
        cmocka_unit_test(a_silent_part_is_a_loss),
        cmocka_unit_test(who_is_charged),
        cmocka_unit_test(who_was_late_is_named),
        cmocka_unit_test(who_was_behind_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
