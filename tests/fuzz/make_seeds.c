/* Seeds that only the project's own code can write: frames of every kind, a
 * checkpoint and a file of references, a blob of algorithms.
 *
 *     fuzz-seeds FOLDER      writes FOLDER/wire/..., FOLDER/checkpoint/..., FOLDER/choices/...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "kernels/cuda/gemm_choice.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/small_trainer.h"
#include "tests/unit/wire/random_message.h"

static void put(const char *folder, const char *target, const char *name, const void *bytes,
                size_t size)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s", folder, target);
    FUZZ_CHECK(ha_path_make_dirs(path, 0755, NULL) == 0);
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FUZZ_CHECK(ha_file_write(path, bytes, size, 0644, NULL) == 0);
}

static void make_frames(const char *folder)
{
    for (int body = 0; body < random_message_bodies(); body++) {
        struct ha_wire_message message;
        struct ha_arena arena;
        struct ha_buffer frame;
        char name[64];

        ha_arena_init(&arena, 1 << 24);
        ha_buffer_init(&frame, 0);
        random_message(&arena, (uint64_t)body, body, &message);
        FUZZ_CHECK(ha_wire_encode(&message, &frame, NULL) == 0);
        (void)snprintf(name, sizeof name, "%s", ha_wire_body_name(message.kind));
        put(folder, "wire", name, ha_buffer_text(&frame), frame.size);
        ha_buffer_clear(&frame);
        ha_arena_clear(&arena);
    }
}

/* A state file behind the byte that tells the target what it is. */
static void put_state(const char *folder, const char *name, const char *path, char choice)
{
    struct ha_buffer seed;
    char *bytes;
    size_t size;

    FUZZ_CHECK(ha_file_read(path, 1 << 26, &bytes, &size, NULL) == 0);
    ha_buffer_init(&seed, 0);
    FUZZ_CHECK(ha_buffer_append(&seed, &choice, 1) == 0);
    FUZZ_CHECK(ha_buffer_append(&seed, bytes, size) == 0);
    put(folder, "checkpoint", name, seed.data, seed.size);
    ha_buffer_clear(&seed);
    free(bytes);
}

static void make_states(const char *folder)
{
    struct ha_dpo_trainer *trainer = small_trainer_create();
    const char *path = fuzz_file("state", "", 0);
    struct ha_error err = {0};

    FUZZ_CHECK(fuzz_result(ha_dpo_trainer_run(trainer, &err), &err) == 0);
    FUZZ_CHECK(fuzz_result(ha_dpo_trainer_save(trainer, 0, path, &err), &err) == 0);
    put_state(folder, "checkpoint", path, 1);
    put_state(folder, "checkpoint-mended", path, (char)0x81);
    FUZZ_CHECK(fuzz_result(ha_dpo_trainer_save_references(trainer, path, &err), &err) == 0);
    put_state(folder, "references", path, 0);
    put_state(folder, "references-mended", path, (char)0x80);
}

static void make_choices(const char *folder)
{
    struct ha_cuda_choices choices = {0};
    struct ha_buffer seed;
    size_t bytes;
    void *blob;

    for (int i = 0; i < 3; i++) {
        struct ha_cuda_choice choice = {.product = {.rows = 16,
                                                    .cols = 8 << i,
                                                    .depth = 4,
                                                    .align_a = 16,
                                                    .align_b = 8,
                                                    .align_c = 16},
                                        .algorithm = {1, 2, 3},
                                        .timed = 1};

        FUZZ_CHECK(ha_cuda_choices_put(&choices, &choice, NULL) == 0);
    }
    FUZZ_CHECK(
        ha_cuda_choices_export(&choices, "H100 sm_90, cuBLASLt 120000", &blob, &bytes, NULL) == 0);
    for (int mend = 0; mend < 2; mend++) {
        ha_buffer_init(&seed, 0);
        FUZZ_CHECK(ha_buffer_append(&seed, mend ? "\x80" : "\0", 1) == 0);
        FUZZ_CHECK(ha_buffer_append(&seed, blob, bytes) == 0);
        put(folder, "choices", mend ? "mended" : "plain", seed.data, seed.size);
        ha_buffer_clear(&seed);
    }
    free(blob);
    ha_cuda_choices_clear(&choices);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz-seeds FOLDER\n");
        return 2;
    }
    make_frames(argv[1]);
    make_states(argv[1]);
    make_choices(argv[1]);
    return 0;
}
