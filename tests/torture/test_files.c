/* common/base, common/io, and the files of common/net and common/proc. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/arguments.h"
#include "common/base/buffer.h"
#include "common/base/cgroup.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/digest.h"
#include "common/io/events.h"
#include "common/io/file.h"
#include "common/io/jsonl.h"
#include "common/io/safetensors.h"
#include "common/net/curve.h"
#include "common/proc/spawn.h"
#include "tests/torture/torture.h"

static int arguments(struct ha_error *err)
{
    static const struct ha_option options[] = {{"set", "K=V", "a setting"}, {"json", NULL, "JSON"}};
    static const struct ha_command command = {.name = "ha",
                                              .synopsis = "[X]",
                                              .summary = "s",
                                              .example = "ha",
                                              .options = options,
                                              .n_options = 2,
                                              .max_positional = 2};
    static const char *const argv[] = {"ha", "--set", "a=1", "x", "--json", "--set=b=2", "y"};
    struct ha_arguments *parsed = NULL;
    int64_t count = 0;
    int r = ha_arguments_parse(&command, 7, argv, 1, &parsed, err);

    if (r < 0)
        return r;
    (void)ha_arguments_values(parsed, "set", &count);
    TORTURE_CHECK(count == 2 && strcmp(ha_arguments_at(parsed, 1, ""), "y") == 0);
    ha_arguments_destroy(parsed);
    return 0;
}

static int texts(struct ha_error *err)
{
    char *joined = ha_path_join("a", "b"), *dir = joined ? ha_path_dirname(joined) : NULL;
    char *line = dir ? ha_format("%s-%d", dir, 7) : NULL;
    struct ha_buffer buffer;
    int r;

    ha_buffer_init(&buffer, 0);
    r = line ? ha_buffer_printf(&buffer, "%1000s", line) : -ENOMEM;
    if (r == 0)
        r = ha_buffer_append_text(&buffer, "end");
    if (r == 0)
        TORTURE_CHECK(buffer.size == 1003);
    ha_buffer_clear(&buffer);
    free(joined);
    free(dir);
    free(line);
    return r < 0 ? torture_no_memory(err) : 0;
}

static int whole_files(struct ha_error *err)
{
    const char *path = torture_path("file"), *copy = torture_path("copy");
    char hex[HA_SHA256_HEX_BYTES], *bytes = NULL;
    size_t size = 0;
    int r = ha_path_make_durable(torture_path("a/b"), 0700, err);

    if (r == 0)
        r = ha_file_write(path, "0123456789", 10, 0600, err);
    if (r == 0)
        r = ha_file_copy(path, copy, 0600, err);
    if (r == 0)
        r = ha_file_sha256(copy, hex, NULL, err);
    if (r == 0)
        r = ha_file_read(copy, 100, &bytes, &size, err);
    if (r == 0)
        TORTURE_CHECK(size == 10 && memcmp(bytes, "0123456789", 10) == 0);
    free(bytes);
    if (r == 0)
        r = ha_path_remove_tree(torture_path("a"), err);
    return r;
}

/* The file that is there is whole, and nothing lies beside it. */
static void file_is_whole(void)
{
    char *bytes = NULL;
    size_t size = 0;

    TORTURE_CHECK(ha_file_write(torture_path("file"), "0123456789", 10, 0600, NULL) == 0);
    TORTURE_CHECK(ha_file_read(torture_path("copy"), 100, &bytes, &size, NULL) == 0 && size == 10);
    free(bytes);
}

static int tensors(struct ha_error *err)
{
    static const float data[4] = {1, 2, 3, 4};
    static const struct ha_safetensors_item items[] = {
        {"a", HA_SAFETENSORS_F32, 2, {2, 2}, data},
        {"b", HA_SAFETENSORS_F32, 1, {4}, data},
    };
    static const struct ha_safetensors_pair pairs[] = {{"format", "pt"}};
    const char *path = torture_path("t.safetensors");
    struct ha_safetensors *file = NULL;
    int r = ha_safetensors_write(path, items, 2, pairs, 1, err);

    if (r == 0)
        r = ha_safetensors_open(path, &file, err);
    if (r == 0)
        TORTURE_CHECK(ha_safetensors_count(file) == 2 && ha_safetensors_find(file, "b"));
    ha_safetensors_close(file);
    return r;
}

static int read_lines(const char *path, struct ha_error *err)
{
    struct ha_jsonl *reader = NULL;
    struct ha_json *json = NULL;
    int64_t n = 0;
    int r = ha_jsonl_open(path, 0, &reader, err);

    if (r < 0)
        return r;
    while ((r = ha_jsonl_next(reader, &json, err)) > 0) {
        ha_json_destroy(json);
        n++;
    }
    if (r == 0)
        TORTURE_CHECK(n == 3);
    ha_jsonl_close(reader);
    return r;
}

/* {"a": 1} and so on, three lines. */
static const unsigned char gzip_bytes[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02,
                                           0x03, 0xab, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xac, 0xe5,
                                           0xaa, 0x06, 0xd1, 0x46, 0x50, 0xda, 0xb8, 0x96, 0x0b,
                                           0x00, 0xfd, 0x9f, 0x10, 0x6d, 0x18, 0x00, 0x00, 0x00};

static int lines(struct ha_error *err)
{
    static const char text[] = "{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}\n";
    const char *plain = torture_path("rows.jsonl"), *packed = torture_path("rows.jsonl.gz");
    int r;

    torture_pause();
    TORTURE_CHECK(ha_file_write(plain, text, sizeof(text) - 1, 0600, NULL) == 0);
    TORTURE_CHECK(ha_file_write(packed, gzip_bytes, sizeof(gzip_bytes), 0600, NULL) == 0);
    torture_resume();
    r = read_lines(plain, err);
    return r < 0 ? r : read_lines(packed, err);
}

static int events(struct ha_error *err)
{
    const char *dir = torture_path("board");
    struct ha_events *written = NULL;
    int r = ha_events_create(dir, 1760000000000, &written, err);

    for (int step = 0; r == 0 && step < 3; step++)
        r = ha_events_scalar(written, 1760000000000, step, "train/loss", 0.5f, err);
    ha_events_destroy(written);
    torture_pause();
    (void)ha_path_remove_tree(dir, NULL);
    torture_resume();
    return r;
}

static int digests(struct ha_error *err)
{
    const char *dir = torture_path("model"), *cache = torture_path("digests");
    char model[HA_SHA256_HEX_BYTES], tokenizer[HA_SHA256_HEX_BYTES];

    torture_pause();
    TORTURE_CHECK(ha_path_make_dirs(dir, 0700, NULL) == 0);
    TORTURE_CHECK(ha_file_write(torture_path("model/config.json"), "{}", 2, 0600, NULL) == 0);
    TORTURE_CHECK(ha_file_write(torture_path("model/m.safetensors"), "x", 1, 0600, NULL) == 0);
    TORTURE_CHECK(ha_file_write(torture_path("model/tokenizer.json"), "{}", 2, 0600, NULL) == 0);
    torture_resume();
    return ha_digest_model(dir, cache, model, tokenizer, err);
}

static int keys(struct ha_error *err)
{
    static struct ha_curve_key key;
    struct ha_curve_key loaded;
    const char *folder = torture_path("clients"), *path = torture_path("clients/ann.pub");
    struct ha_allow_list *list = NULL;
    int r;

    torture_pause();
    if (!key.public_key[0])
        TORTURE_CHECK(ha_curve_generate(&key, NULL) == 0);
    TORTURE_CHECK(ha_path_make_dirs(folder, 0700, NULL) == 0);
    torture_resume();
    r = ha_curve_key_save(torture_path("ann.key"), &key, err);
    if (r == 0)
        r = ha_curve_key_load(torture_path("ann.key"), &loaded, err);
    if (r == 0)
        r = ha_curve_public_save(path, key.public_key, HA_NET_ROLE_WORKER, err);
    if (r == 0)
        r = ha_allow_list_load(folder, &list, err);
    if (r == 0)
        TORTURE_CHECK(ha_allow_list_find(list, key.public_key)->role == HA_NET_ROLE_WORKER);
    ha_allow_list_destroy(list);
    return r;
}

static int locks(struct ha_error *err)
{
    struct ha_lock *lock = NULL;
    int r = ha_lock_take(torture_path("lock"), &lock, err);

    ha_lock_release(lock);
    return r;
}

/* What the system says needs no memory, so it is never overlooked for want of it: a group's limit
 * would seem to be the machine's memory. */
static int limits(struct ha_error *err)
{
    static int64_t total;
    char *path = ha_path_join("/proc", "self"), line[64] = "";
    bool there = ha_first_line("/proc/sys/kernel/ostype", line, sizeof(line));

    if (total == 0)
        total = ha_memory_total();
    TORTURE_CHECK(there && strcmp(line, "Linux") == 0);
    TORTURE_CHECK(total > 0 && ha_memory_total() == total && ha_memory_anonymous() > 0);
    free(path);
    return path ? 0 : torture_no_memory(err);
}

static int count_descriptors(void)
{
    DIR *dir;
    int count = 0;

    torture_pause();
    dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    closedir(dir);
    torture_resume();
    return count;
}

/* A program with all that it can be given; it ends well, or was not begun. */
static int spawn(struct ha_error *err)
{
    static const char *const arguments[] = {"cat", NULL};
    static const char *const environment[] = {"HA_TORTURE_A=1", "PATH=/usr/bin:/bin", NULL};
    struct ha_spawn_options options = {.program = "/bin/cat",
                                       .arguments = arguments,
                                       .dir = torture_folder(),
                                       .environment = environment,
                                       .log_path = torture_path("spawn.log"),
                                       .output_pipe = true,
                                       .input_pipe = true,
                                       .contract_pipe = true,
                                       .own_group = true,
                                       .death_signal = SIGKILL};
    int before = count_descriptors(), status = 0;
    struct ha_child child = {0};
    int r = ha_child_spawn(&options, &child, err);

    if (r == 0) {
        ha_child_close(&child); /* the end of its input */
        TORTURE_CHECK(waitpid(child.pid, &status, 0) == child.pid && status == 0);
    }
    TORTURE_CHECK(count_descriptors() == before);
    return r;
}

/* A program that cannot be begun: its words, or that there is no memory. */
static int spawn_nothing(struct ha_error *err)
{
    static const char *const arguments[] = {"nothing", NULL};
    struct ha_spawn_options options = {.program = torture_path("nothing"), .arguments = arguments};
    int before = count_descriptors();
    struct ha_child child = {0};
    int r = ha_child_spawn(&options, &child, err);

    TORTURE_CHECK(r == -ENOENT || r == -ENOMEM);
    TORTURE_CHECK(child.pid == 0 && count_descriptors() == before);
    return r == -ENOENT ? 0 : r;
}

/* Beside the program, and nowhere, by way of the build tree and PATH. */
static int programs(struct ha_error *err)
{
    char *path = NULL;
    int r = ha_program_find("test_torture_files", &path, err);

    free(path);
    if (r < 0)
        return r;
    path = NULL;
    r = ha_program_find("no-such-program", &path, err);
    TORTURE_CHECK(!path);
    return r == -ENOENT ? 0 : r;
}

int main(void)
{
    static const struct torture_scenario scenarios[] = {
        {"base: arguments", arguments, NULL},
        {"base: texts and paths", texts, NULL},
        {"io: whole files", whole_files, file_is_whole},
        {"io: safetensors", tensors, NULL},
        {"io: JSON Lines", lines, NULL},
        {"io: TensorBoard events", events, NULL},
        {"io: digests of a model", digests, NULL},
        {"net: keys and the allow-list", keys, NULL},
        {"proc: a lock", locks, NULL},
        {"base: limits of the control group, memory", limits, NULL},
        {"proc: a child", spawn, NULL},
        {"proc: a child that cannot be begun", spawn_nothing, NULL},
        {"proc: where programs are", programs, NULL},
    };

    return torture_run(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), INT64_MAX);
}
