#include "tests/torture/torture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "tests/torture/allocator.h"

enum { PATH_BYTES = 256, PATHS = 8 };

static const char *running = "";
static int64_t failing;
static char folder[64];

void torture_fail(const char *file, int line, const char *what)
{
    (void)allocator_disarm();
    printf("not ok torture: %s: allocation %lld: %s:%d: does not hold: %s\n", running,
           (long long)failing, file, line, what);
    fflush(stdout);
    abort();
}

int torture_no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

void torture_pause(void)
{
    allocator_pause();
}

void torture_resume(void)
{
    allocator_resume();
}

static void remove_folder(void)
{
    (void)ha_path_remove_tree(folder, NULL);
}

const char *torture_folder(void)
{
    if (!folder[0]) {
        /* In memory where that is possible: a scenario may sync files thousands of times. */
        (void)snprintf(folder, sizeof folder, "%s/ha-torture-XXXXXX",
                       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        TORTURE_CHECK(mkdtemp(folder));
        TORTURE_CHECK(atexit(remove_folder) == 0);
    }
    return folder;
}

const char *torture_path(const char *name)
{
    static char paths[PATHS][PATH_BYTES];
    static int turn;

    turn = (turn + 1) % PATHS;
    (void)snprintf(paths[turn], PATH_BYTES, "%s/%s", torture_folder(), name);
    return paths[turn];
}

/* One run with the nth allocation failing; false when there was no nth. */
static bool run_once(const struct torture_scenario *scenario, int64_t n, bool sticky,
                     int64_t *absorbed)
{
    struct ha_error err = {0};
    bool fired;
    int r;

    failing = n;
    allocator_arm(n, sticky);
    r = scenario->run(&err);
    fired = allocator_disarm();
    if (r == 0) {
        *absorbed += fired;
    } else {
        if (r != -ENOMEM || err.code != ENOMEM || err.text[0] == '\0')
            printf("# %s, allocation %lld%s: %d, \"%s\"\n", scenario->name, (long long)n,
                   sticky ? " and on" : "", r, err.text);
        TORTURE_CHECK(fired);
        TORTURE_CHECK(r == -ENOMEM);
        TORTURE_CHECK(err.code == ENOMEM && err.text[0] != '\0');
    }
    if (scenario->after)
        scenario->after();
    return fired;
}

/* Allocations of a whole run; what libraries keep for good has been made by then. */
static int64_t count_allocations(const struct torture_scenario *scenario)
{
    struct ha_error err = {0};

    for (int i = 0; i < 2; i++) {
        allocator_arm(INT64_MAX, false);
        if (scenario->run(&err) < 0) {
            printf("# %s\n", err.text);
            TORTURE_CHECK(!"a run with all memory");
        }
        (void)allocator_disarm();
        if (scenario->after)
            scenario->after();
    }
    return allocator_count();
}

static void run_scenario(const struct torture_scenario *scenario, int64_t points)
{
    const char *all = getenv("HA_TORTURE");
    int64_t total, step, counts[2] = {0}, absorbed = 0;

    running = scenario->name;
    failing = 0;
    total = count_allocations(scenario);
    TORTURE_CHECK(total > 0);
    step = all && strcmp(all, "all") == 0 ? 1 : (total - 1) / points + 1;
    for (int sticky = 0; sticky < 2; sticky++)
        for (int64_t n = 1; run_once(scenario, n, sticky, &absorbed); n += step)
            counts[sticky]++;
    printf("ok torture: %s: of %lld allocations %lld failed one by one, %lld with all behind them, "
           "%lld were got over\n",
           scenario->name, (long long)total, (long long)counts[0], (long long)counts[1],
           (long long)absorbed);
    fflush(stdout);
}

int torture_run(const struct torture_scenario *scenarios, int count, int64_t points)
{
    (void)torture_folder();
    for (int i = 0; i < count; i++)
        run_scenario(&scenarios[i], points);
    return 0;
}
