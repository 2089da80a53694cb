#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/base/utf8.h"

enum { MAX_FILES = 16 };

static char folder[64];
static char *files[MAX_FILES];

void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

int fuzz_result(int r, const struct ha_error *err)
{
    FUZZ_CHECK(r <= 0);
    if (r < 0) {
        FUZZ_CHECK(r != -ENOMEM && r != -EMFILE);
        FUZZ_CHECK(err->code == -r);
        FUZZ_CHECK(err->text[0] != '\0');
        FUZZ_CHECK(!strpbrk(err->text, "\n\r\t\x1b"));
        FUZZ_CHECK(ha_utf8_valid(err->text, strlen(err->text)) == strlen(err->text));
    }
    return r;
}

static void remove_folder(void)
{
    (void)ha_path_remove_tree(folder, NULL);
    for (int i = 0; i < MAX_FILES; i++)
        free(files[i]);
}

const char *fuzz_folder(void)
{
    if (!folder[0]) {
        const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

        (void)snprintf(folder, sizeof folder, "%s/ha-fuzz-XXXXXX", memory);
        FUZZ_CHECK(mkdtemp(folder));
        FUZZ_CHECK(atexit(remove_folder) == 0);
    }
    return folder;
}

static const char *path_of(const char *name)
{
    const char *dir = fuzz_folder();
    int i = 0;

    for (; files[i]; i++) {
        if (strcmp(files[i] + strlen(dir) + 1, name) == 0)
            return files[i];
        FUZZ_CHECK(i + 2 < MAX_FILES);
    }
    files[i] = ha_path_join(dir, name);
    FUZZ_CHECK(files[i]);
    return files[i];
}

const char *fuzz_file(const char *name, const void *bytes, size_t size)
{
    const char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(size == 0 || write(fd, bytes, size) == (ssize_t)size);
    FUZZ_CHECK(close(fd) == 0);
    return path;
}

uint8_t fuzz_byte(struct fuzz_input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->at++;
}

struct fuzz_input fuzz_until(struct fuzz_input *input, uint8_t end)
{
    const uint8_t *found = input->size ? memchr(input->at, end, input->size) : NULL;
    struct fuzz_input piece = {input->at, found ? (size_t)(found - input->at) : input->size};
    size_t past = piece.size + (found ? 1 : 0);

    if (past > 0)
        input->at += past;
    input->size -= past;
    return piece;
}

char *fuzz_text(struct fuzz_input input)
{
    char *text = ha_strndup((const char *)input.at, input.size);

    FUZZ_CHECK(text);
    return text;
}
