/* fixture.h - files and demo tokenizers for the tests of worker/data */
#ifndef HA_TESTS_UNIT_DATA_FIXTURE_H
#define HA_TESTS_UNIT_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "worker/tokenizer/tokenizer.h"

static char test_dir[] = "/tmp/ha_test_data_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(test_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(test_dir, NULL);
}

/* Write a file of the test's folder; returns its path, which the caller frees. */
static inline char *put(const char *name, const char *text)
{
    char *path = ha_path_join(test_dir, name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline struct ha_tokenizer *demo_tokenizer(const char *name)
{
    char *dir = ha_format(HA_SOURCE_ROOT "/deploy/demo/models/%s", name);
    struct ha_tokenizer *tokenizer = NULL;

    assert_int_equal(ha_tokenizer_load(dir, &tokenizer, NULL), 0);
    free(dir);
    return tokenizer;
}

#endif
