/* Lines of an attempt that are new events on the wire: the norms of a probe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "worker/daemon/contract_line.h"

static void a_norm_is_an_event(void **state)
{
    static const char text[] =
        "{\"type\": \"probe\", \"cell\": 7, \"block\": \"mid\", \"layer\": 2, \"layers\": 3,"
        " \"module\": \"q_proj\", \"norm\": 0.25, \"parameters\": 4096, \"pairs\": 16}";
    struct contract_line line;
    const struct ha_wire_attempt_norm *norm;

    (void)state;
    assert_int_equal(contract_line_parse(text, strlen(text), &line, NULL), 0);
    assert_int_equal(line.kind, CONTRACT_EVENTS);
    assert_int_equal(line.n_events, 1);
    assert_int_equal(line.events[0].kind, HA_WIRE_ATTEMPT_EVENT_NORM);
    norm = &line.events[0].event.norm;
    assert_int_equal(norm->cell, 7);
    assert_string_equal(norm->block, "mid");
    assert_int_equal(norm->layer, 2);
    assert_int_equal(norm->layers, 3);
    assert_string_equal(norm->module, "q_proj");
    assert_true(norm->norm == 0.25);
    assert_int_equal(norm->parameters, 4096);
    assert_int_equal(norm->pairs, 16);
    contract_line_clear(&line);
}

/* JSON has no number that is not finite: the attempt writes null for one. */
static void what_is_no_norm_is_refused(void **state)
{
    static const char *const wrong[] = {
        "{\"type\": \"probe\", \"cell\": 1, \"norm\": null}",
        "{\"type\": \"probe\", \"cell\": 1, \"norm\": -1}",
        "{\"type\": \"probe\", \"cell\": 1}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct contract_line line;
        struct ha_error err = {0};

        assert_int_equal(contract_line_parse(wrong[i], strlen(wrong[i]), &line, &err), -EINVAL);
        assert_string_equal(err.text, "the attempt sent a line with a wrong norm");
    }
}

/* What could never be sent. */
static void what_breaks_a_rule_of_the_wire_is_refused(void **state)
{
    static const struct {
        const char *line, *names;
    } wrong[] = {
        {"{\"type\": \"artifact\", \"path\": \"a\", \"name\": \"b//c\"}", "name"},
        {"{\"type\": \"artifact\", \"path\": \"a\", \"name\": \"../c\"}", "name"},
        {"{\"type\": \"artifact\", \"path\": \"a\", \"name\": \"b\", \"step\": -1}", "step"},
        {"{\"type\": \"metric\", \"step\": -1, \"values\": {\"loss\": 1}}", "step"},
        {"{\"type\": \"answer\", \"prompt\": -1}", "prompt"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *text = wrong[i].line;
        struct contract_line line;
        struct ha_error err = {0};

        assert_int_equal(contract_line_parse(text, strlen(text), &line, &err), -EINVAL);
        assert_non_null(strstr(err.text, wrong[i].names));
    }
}

/* The coordinator takes a job apart for it, or fails its only cell. */
static void only_a_certain_kill_for_memory_counts(void **state)
{
    (void)state;
    assert_true(contract_is_starved(CONTRACT_STARVED));
    assert_true(contract_is_starved(CONTRACT_STARVED " when it had 3.2 GiB"));
    assert_true(contract_is_starved("rank 1 of 2: " CONTRACT_STARVED " when it had 3.2 GiB"));
    assert_false(contract_is_starved(CONTRACT_PERHAPS CONTRACT_STARVED " when it had 3.2 GiB"));
    assert_false(contract_is_starved("rank 1 of 2: " CONTRACT_PERHAPS CONTRACT_STARVED));
    assert_false(contract_is_starved("the device has no memory left"));
    assert_false(contract_is_starved(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_norm_is_an_event),
        cmocka_unit_test(what_is_no_norm_is_refused),
        cmocka_unit_test(what_breaks_a_rule_of_the_wire_is_refused),
        cmocka_unit_test(only_a_certain_kill_for_memory_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
