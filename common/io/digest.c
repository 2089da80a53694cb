#include "common/io/digest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

enum { CACHE_LIMIT_BYTES = 64 << 20 };

/* What a cache line begins with; the file's real path ends the line, so that it
 * may hold anything but a line break. */
static char *cache_key(const char *path, const struct stat *st)
{
    char *real = realpath(path, NULL), *key = NULL;

    if (real && !strchr(real, '\n'))
        key = ha_format("%lld %lld.%09ld %llu %s", (long long)st->st_size,
                        (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
                        (unsigned long long)st->st_ino, real);
    free(real);
    return key;
}

/* Lines are "SHA256 KEY". */
static bool cache_find(const char *cache, const char *key, char ret_hex[HA_SHA256_HEX_BYTES])
{
    char *text = NULL;
    size_t size, length = strlen(key);
    bool found = false;

    if (ha_file_read(cache, CACHE_LIMIT_BYTES, &text, &size, NULL) < 0)
        return false;
    for (char *line = text; line && !found;) {
        char *end = strchr(line, '\n');

        /* A last line without its end was cut by a crash. */
        if (!end)
            break;
        if ((size_t)(end - line) == 65 + length && memcmp(line + 65, key, length) == 0) {
            memcpy(ret_hex, line, 64);
            ret_hex[64] = '\0';
            found = ha_sha256_hex_valid(ret_hex);
        }
        line = end + 1;
    }
    free(text);
    return found;
}

static void cache_add(const char *cache, const char *key, const char *hex)
{
    char *line = ha_format("%s %s\n", hex, key);
    int fd = open(cache, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    /* One write per line keeps the lines of several processes apart.  A line that
     * is lost or cut costs no more than a second reading of its file. */
    if (fd >= 0 && line && write(fd, line, strlen(line)) >= 0)
        (void)fdatasync(fd);
    if (fd >= 0)
        (void)close(fd);
    free(line);
}

int ha_digest_file(const char *path, const char *cache, char ret_hex[HA_SHA256_HEX_BYTES],
                   struct ha_error *err)
{
    struct stat st;
    char *key = NULL;
    int r;

    if (stat(path, &st) < 0)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    if (cache)
        key = cache_key(path, &st);
    if (key && cache_find(cache, key, ret_hex)) {
        free(key);
        return 0;
    }
    r = ha_file_sha256(path, ret_hex, NULL, err);
    if (r == 0 && key)
        cache_add(cache, key, ret_hex);
    free(key);
    return r;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);

    return length >= tail && strcmp(name + length - tail, end) == 0;
}

static bool of_model(const char *name)
{
    return strcmp(name, "config.json") == 0 || strcmp(name, "generation_config.json") == 0 ||
           ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json");
}

static bool of_tokenizer(const char *name)
{
    return strcmp(name, "tokenizer.json") == 0 || strcmp(name, "tokenizer_config.json") == 0 ||
           strcmp(name, "chat_template.jinja") == 0;
}

/* Hashes the lines of the files that belong; counts them. */
static int digest_files(const char *dir, struct dirent **entries, int count,
                        bool (*belongs)(const char *), const char *cache,
                        char ret_hex[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_buffer lines;
    int r = 0;

    ha_buffer_init(&lines, 0);
    for (int i = 0; i < count && r == 0; i++) {
        char hex[HA_SHA256_HEX_BYTES], *path;

        if (!belongs(entries[i]->d_name))
            continue;
        path = ha_path_join(dir, entries[i]->d_name);
        r = path ? ha_digest_file(path, cache, hex, err)
                 : ha_error_set(err, ENOMEM, "%s: out of memory", dir);
        free(path);
        if (r == 0 && ha_buffer_printf(&lines, "%s %s\n", entries[i]->d_name, hex) < 0)
            r = ha_error_set(err, ENOMEM, "%s: out of memory", dir);
    }
    ha_sha256(ha_buffer_text(&lines), lines.size, digest);
    ha_sha256_hex(digest, ret_hex);
    ha_buffer_clear(&lines);
    return r;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool has(struct dirent **entries, int count, const char *end)
{
    for (int i = 0; i < count; i++)
        if (ends_with(entries[i]->d_name, end))
            return true;
    return false;
}

int ha_digest_model(const char *dir, const char *cache, char ret_model[HA_SHA256_HEX_BYTES],
                    char ret_tokenizer[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    char model[HA_SHA256_HEX_BYTES], tokenizer[HA_SHA256_HEX_BYTES];
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, NULL, by_bytes), r = 0;

    if (count < 0)
        return ha_error_set(err, errno, "%s: %s", dir, strerror(errno));
    if (!has(entries, count, "config.json") || !has(entries, count, ".safetensors"))
        r = ha_error_set(err, ENOENT, "%s is no model folder: it has no %s", dir,
                         has(entries, count, "config.json") ? "*.safetensors" : "config.json");
    if (r == 0)
        r = digest_files(dir, entries, count, of_model, cache, model, err);
    if (r == 0)
        r = digest_files(dir, entries, count, of_tokenizer, cache, tokenizer, err);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    if (r < 0)
        return r;
    memcpy(ret_model, model, sizeof(model));
    memcpy(ret_tokenizer, tokenizer, sizeof(tokenizer));
    return 0;
}
