#include "tests/conformance/archive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

enum { MAX_FILES = 2000, BLOCK_BYTES = 512, SIZE_AT = 124, TYPE_AT = 156 };

void archive_read(const char *name, const char *prefix, struct archive *ret_archive)
{
    const char *data = getenv("HA_TEST_DATA");
    char path[4096], header[BLOCK_BYTES];
    struct archive archive = {0};
    gzFile tar;

    if (!data) {
        print_message("HA_TEST_DATA is not set: %s is not run\n", name);
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/conformance/%s", data, name);
    tar = gzopen(path, "rb");
    assert_non_null(tar);
    archive.files = calloc(MAX_FILES, sizeof(*archive.files));
    assert_non_null(archive.files);
    while (gzread(tar, header, sizeof(header)) == sizeof(header) && header[0]) {
        size_t size = strtoul(header + SIZE_AT, NULL, 8);
        size_t padded = (size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        struct archive_file file = {.text = malloc(padded + 1), .size = size};

        assert_non_null(file.text);
        assert_int_equal(gzread(tar, file.text, (unsigned)padded), (int)padded);
        file.text[size] = '\0';
        header[sizeof(file.name) - 1] = '\0';
        if (header[TYPE_AT] != '0') {
            free(file.text);
            continue;
        }
        (void)snprintf(file.name, sizeof(file.name), "%s",
                       header +
                           (strncmp(header, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0));
        assert_true(archive.count < MAX_FILES);
        archive.files[archive.count++] = file;
    }
    (void)gzclose(tar);
    *ret_archive = archive;
}

void archive_clear(struct archive *archive)
{
    for (int64_t i = 0; i < archive->count; i++)
        free(archive->files[i].text);
    free(archive->files);
}

const struct archive_file *archive_find(const struct archive *archive, const char *name)
{
    for (int64_t i = 0; i < archive->count; i++)
        if (strcmp(archive->files[i].name, name) == 0)
            return &archive->files[i];
    fail_msg("%s is not in the archive", name);
    return NULL;
}
