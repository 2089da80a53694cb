/* archive.h - the collections of HA_TEST_DATA/conformance, for the tests of this folder */
#ifndef HA_TESTS_CONFORMANCE_ARCHIVE_H
#define HA_TESTS_CONFORMANCE_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

struct archive_file {
    char name[100];
    char *text; /* zero-terminated, the zero not counted */
    size_t size;
};

struct archive {
    struct archive_file *files;
    int64_t count;
};

/* Read a .tar.gz of that folder; names lose `prefix` where they begin with it.  Skips the test
 * where HA_TEST_DATA is not set. */
void archive_read(const char *name, const char *prefix, struct archive *ret_archive);
void archive_clear(struct archive *archive);

/* Never NULL: the test fails where there is none. */
const struct archive_file *archive_find(const struct archive *archive, const char *name);

#endif
