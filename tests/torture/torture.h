/* torture.h - scenarios in which each allocation fails in turn
 *
 * A scenario runs once with all the memory it wants; then again and again, each
 * time with the next allocation failing: only that one, and, in a second round,
 * that one and all behind it.  It must end with 0 or with -ENOMEM and a text,
 * crash nowhere and leak nothing (the leak sanitizer looks at the end), and what
 * `after` does must work.
 *
 * malloc, calloc, realloc, strdup, aligned_alloc, getline's and C++'s new are
 * replaced in the program, so that the C library, SQLite, jansson, zlib and
 * toml++ meet the failures as our own code does. */
#ifndef HA_TESTS_TORTURE_TORTURE_H
#define HA_TESTS_TORTURE_TORTURE_H

#include <stdint.h>

struct ha_error;

struct torture_scenario {
    const char *name;
    int (*run)(struct ha_error *err); /* 0, or the first failure; ends what it made */
    void (*after)(void);              /* may be NULL */
};

/* Runs all of them and prints a line for each.  A scenario with more allocations
 * than `points` meets about that many failures of each kind, spread evenly; all
 * of them with HA_TORTURE=all in the environment.  Returns the exit code. */
int torture_run(const struct torture_scenario *scenarios, int count, int64_t points);

/* A folder, removed when the process ends. */
const char *torture_folder(void);

/* A file of that folder; static memory, eight at a time. */
const char *torture_path(const char *name);

/* What a scenario does between the two meets no failure. */
void torture_pause(void);
void torture_resume(void);

/* -ENOMEM for a function that says so by NULL. */
int torture_no_memory(struct ha_error *err);

_Noreturn void torture_fail(const char *file, int line, const char *what);

#define TORTURE_CHECK(condition)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            torture_fail(__FILE__, __LINE__, #condition);                                          \
    } while (0)

#endif
