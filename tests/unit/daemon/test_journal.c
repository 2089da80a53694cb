/* What an attempt told, in a file: read back whole, torn, shortened, and given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "proto/wire.h"
#include "worker/daemon/journal.h"

static char *folder, *file;
static char seen[4096];

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-journal-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    file = ha_path_join(folder, JOURNAL_FILE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ha_path_remove_tree(folder, NULL);
    free(folder);
    free(file);
    return 0;
}

static int on_event(void *context, const struct ha_wire_attempt_event *event, const char *path)
{
    size_t used = strlen(seen);

    (void)context;
    if (event->kind == HA_WIRE_ATTEMPT_EVENT_METRIC)
        snprintf(seen + used, sizeof seen - used, "%s=%g ", event->event.metric.name,
                 event->event.metric.value);
    else if (event->kind == HA_WIRE_ATTEMPT_EVENT_ARTIFACT)
        snprintf(seen + used, sizeof seen - used, "%s at %s ", event->event.artifact.name, path);
    else
        snprintf(seen + used, sizeof seen - used, "%s ", event->event.end.reason);
    return 0;
}

static void expect(const char *text)
{
    struct journal *journal;

    seen[0] = '\0';
    assert_int_equal(journal_open(folder, on_event, NULL, &journal, NULL), 0);
    journal_destroy(journal);
    assert_string_equal(seen, text);
}

static void metric(struct journal *journal, const char *name, double value)
{
    const struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
                                                .event.metric = {.name = name, .value = value}};

    assert_int_equal(journal_append(journal, &event, NULL, NULL), 0);
}

static struct journal *fill(void)
{
    const struct ha_wire_attempt_event artifact = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {.cell = 1, .kind = "adapter", .name = "weights"}};
    const struct ha_wire_attempt_event end = {.kind = HA_WIRE_ATTEMPT_EVENT_END,
                                              .event.end = {.outcome = "done", .reason = "over"}};
    struct journal *journal;

    assert_int_equal(journal_create(folder, &journal, NULL), 0);
    metric(journal, "a", 1);
    assert_int_equal(journal_append(journal, &artifact, "out/weights", NULL), 0);
    assert_int_equal(journal_append(journal, &end, NULL, NULL), 0);
    assert_int_equal(journal_sync(journal, NULL), 0);
    return journal;
}

static void gives_back_what_was_appended(void **state)
{
    struct journal *journal = fill();

    (void)state;
    journal_destroy(journal);
    expect("a=1 weights at out/weights over ");
    assert_int_equal(journal_open(folder, on_event, NULL, &journal, NULL), 0);
    metric(journal, "b", 2);
    journal_destroy(journal);
    expect("a=1 weights at out/weights over b=2 ");
}

static void a_torn_end_is_left_out(void **state)
{
    struct stat st;
    int64_t end_bytes;

    (void)state;
    journal_destroy(fill());
    assert_int_equal(stat(file, &st), 0);
    end_bytes = st.st_size;
    for (int64_t cut = 1; cut < 12; cut++) {
        assert_int_equal(truncate(file, end_bytes - cut), 0);
        expect("a=1 weights at out/weights ");
        unlink(file);
        journal_destroy(fill());
    }
}

static void changed_bytes_are_left_out(void **state)
{
    FILE *stream;
    struct stat st;

    (void)state;
    journal_destroy(fill());
    assert_int_equal(stat(file, &st), 0);
    stream = fopen(file, "r+b");
    assert_int_equal(fseek(stream, st.st_size - 3, SEEK_SET), 0);
    assert_int_equal(fputc('#', stream), '#');
    fclose(stream);
    expect("a=1 weights at out/weights ");
}

static void what_is_delivered_goes(void **state)
{
    struct journal *journal = fill();
    struct stat st;

    (void)state;
    assert_int_equal(journal_keep_from(journal, 1, NULL), 0); /* not worth writing it anew */
    assert_int_equal(journal_keep_from(journal, 3, NULL), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_size, 0);
    metric(journal, "c", 3);
    assert_int_equal(journal_keep_from(journal, 3, NULL), 0);
    journal_destroy(journal);
    expect("c=3 ");
}

static void a_long_one_is_written_anew(void **state)
{
    char *name = malloc(60001);
    struct journal *journal;
    struct stat st;

    (void)state;
    memset(name, 'x', 60000);
    name[60000] = '\0';
    assert_int_equal(journal_create(folder, &journal, NULL), 0);
    for (int i = 0; i < 40; i++)
        metric(journal, name, i);
    metric(journal, "last", 1);
    assert_int_equal(journal_keep_from(journal, 10, NULL), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_true(st.st_size > 40 * 60000);
    assert_int_equal(journal_keep_from(journal, 40, NULL), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_true(st.st_size < 1000);
    metric(journal, "more", 2);
    assert_int_equal(journal_keep_from(journal, 41, NULL), 0);
    journal_destroy(journal);
    expect("last=1 more=2 ");
    free(name);
}

/* Half of what happened must not pass for all of it. */
static void one_that_grows_too_long_is_removed(void **state)
{
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE + 1);
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                          .event.answer = {.prompt_text = "q", .finish = "eos"}};
    struct journal *journal;
    int r = 0;

    (void)state;
    memset(text, 'x', SIZE);
    text[SIZE] = '\0';
    event.event.answer.text = event.event.answer.raw = text;
    assert_int_equal(journal_create(folder, &journal, NULL), 0);
    for (int i = 0; i < 40 && r == 0; i++)
        r = journal_append(journal, &event, NULL, NULL);
    assert_int_equal(r, -EFBIG);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(journal_append(journal, &event, NULL, NULL), 0); /* nothing is kept now */
    assert_int_equal(journal_keep_from(journal, 3, NULL), 0);
    assert_int_equal(access(file, F_OK), -1);
    journal_destroy(journal);
    free(text);
}

static void none_is_found(void **state)
{
    struct journal *journal;

    (void)state;
    assert_int_equal(journal_open(folder, on_event, NULL, &journal, NULL), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(gives_back_what_was_appended),
        TEST(a_torn_end_is_left_out),
        TEST(changed_bytes_are_left_out),
        TEST(what_is_delivered_goes),
        TEST(a_long_one_is_written_anew),
        TEST(one_that_grows_too_long_is_removed),
        TEST(none_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
