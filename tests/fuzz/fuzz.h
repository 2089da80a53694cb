/* fuzz.h - what the fuzz targets share
 *
 * A target is one C file with LLVMFuzzerTestOneInput (libFuzzer).  It gives the
 * input to one parser of the project as its callers do, and checks more than
 * that nothing crashes: an error has a code and one line of text, what was
 * accepted reads back equal.  A check that fails ends the process, which the
 * fuzzer reports with the input. */
#ifndef HA_TESTS_FUZZ_FUZZ_H
#define HA_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

struct ha_error;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Print the line and end the process. */
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)

/* What every function of the project promises: 0, or a negative errno with one
 * line of text in err, which was empty before.  Running out of memory or of
 * descriptors is a finding.  Returns r. */
int fuzz_result(int r, const struct ha_error *err);

/* A folder in memory where there is one, removed when the process ends. */
const char *fuzz_folder(void);

/* Replace a file of that folder.  Returns its path, which stays valid. */
const char *fuzz_file(const char *name, const void *bytes, size_t size);

/* Bytes of an input that are not read yet. */
struct fuzz_input {
    const uint8_t *at;
    size_t size;
};

/* The next byte; 0 at the end. */
uint8_t fuzz_byte(struct fuzz_input *input);

/* The bytes up to the next byte `end`, which is passed over, or all that are left. */
struct fuzz_input fuzz_until(struct fuzz_input *input, uint8_t end);

/* A zero-terminated copy, which the caller frees; it ends at the first zero byte. */
char *fuzz_text(struct fuzz_input input);

#endif
