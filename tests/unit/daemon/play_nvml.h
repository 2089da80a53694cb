/* play_nvml.h - what the fake management library (fake_nvml.c) tells, as a test plays it */
#ifndef HA_TESTS_UNIT_DAEMON_PLAY_NVML_H
#define HA_TESTS_UNIT_DAEMON_PLAY_NVML_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* For mkstemp, and then the library's environment (HA_FAKE_NVML). */
static char state_path[] = "/tmp/ha-fake-nvml-XXXXXX";

/* Written beside and moved: the library reads a whole state at any time. */
static void play(const char *text)
{
    char next[64];
    FILE *file;

    snprintf(next, sizeof next, "%s.next", state_path);
    file = fopen(next, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(next, state_path), 0);
}

#endif
