#include "common/io/jsonl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

/* Bytes flow file -> input -> (inflate) -> text -> lines.  text holds what has
 * been read and not yet given out; a line is given out as a pointer into it. */

enum { READ_BYTES = 64 << 10 };

struct ha_jsonl {
    int fd;
    char *path; /* as shown in errors */
    size_t line_limit;
    int64_t line; /* of what was read last */

    struct ha_sha256 hash;
    uint8_t input[READ_BYTES];
    bool started; /* the first block was read: gzip is known */
    bool gzip, ended;
    bool member_ended; /* between gzip members */
    z_stream inflater;

    struct ha_buffer text;
    size_t given;   /* bytes of text that were given out */
    size_t scanned; /* bytes behind given that hold no newline */
};

static int fail(struct ha_jsonl *reader, int code, struct ha_error *err, const char *what)
{
    return ha_error_set(err, code, "%s:%" PRId64 ": %s", reader->path, reader->line + 1, what);
}

int ha_jsonl_open(const char *path, size_t line_limit_bytes, struct ha_jsonl **ret_reader,
                  struct ha_error *err)
{
    struct ha_jsonl *reader = calloc(1, sizeof(*reader));
    bool standard = strcmp(path, "-") == 0;

    if (!reader)
        return ha_error_set(err, ENOMEM, "%s: no memory to read it", path);
    reader->fd = -1;
    reader->line_limit = line_limit_bytes ? line_limit_bytes : HA_JSONL_LINE_BYTES;
    ha_buffer_init(&reader->text, 0);
    ha_sha256_init(&reader->hash);
    reader->path = ha_strdup(standard ? "standard input" : path);
    if (!reader->path) {
        ha_jsonl_close(reader);
        return ha_error_set(err, ENOMEM, "%s: no memory to read it", path);
    }
    reader->fd =
        standard ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path, O_RDONLY | O_CLOEXEC);
    if (reader->fd < 0) {
        int code = errno;

        ha_jsonl_close(reader);
        return ha_error_set(err, code, "%s: %s", path, strerror(code));
    }
    *ret_reader = reader;
    return 0;
}

void ha_jsonl_close(struct ha_jsonl *reader)
{
    if (!reader)
        return;
    if (reader->gzip)
        (void)inflateEnd(&reader->inflater);
    if (reader->fd >= 0)
        (void)close(reader->fd);
    ha_buffer_clear(&reader->text);
    free(reader->path);
    free(reader);
}

/* Fill input; *ret_size 0 at the end of the file. */
static int read_block(struct ha_jsonl *reader, size_t *ret_size, struct ha_error *err)
{
    size_t size = 0;

    /* The first block must show two bytes, which a pipe may deliver one by one. */
    while (size < (reader->started ? 1u : 2u)) {
        ssize_t n = read(reader->fd, reader->input + size, sizeof(reader->input) - size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ha_error_set(err, errno, "%s: %s", reader->path, strerror(errno));
        if (n == 0)
            break;
        size += (size_t)n;
    }
    ha_sha256_update(&reader->hash, reader->input, size);
    *ret_size = size;
    return 0;
}

static int start(struct ha_jsonl *reader, size_t size, struct ha_error *err)
{
    size_t length = strlen(reader->path);

    reader->started = true;
    reader->gzip = size >= 2 && reader->input[0] == 0x1f && reader->input[1] == 0x8b;
    if (!reader->gzip && length > 3 && strcmp(reader->path + length - 3, ".gz") == 0)
        return ha_error_set(err, EINVAL, "%s: not a gzip file, in spite of its name", reader->path);
    /* 16: gzip only. */
    if (reader->gzip && inflateInit2(&reader->inflater, 16 + MAX_WBITS) != Z_OK) {
        reader->gzip = false;
        return ha_error_set(err, ENOMEM, "%s: no memory to decompress it", reader->path);
    }
    return 0;
}

/* Decompress at most READ_BYTES to the end of text; *ret_size: what came out. */
static int inflate_some(struct ha_jsonl *reader, size_t *ret_size, struct ha_error *err)
{
    z_stream *z = &reader->inflater;
    int r = ha_buffer_reserve(&reader->text, READ_BYTES);

    if (r < 0)
        return fail(reader, -r, err, "no memory to decompress it");
    if (reader->member_ended && z->avail_in > 0) {
        (void)inflateReset(z);
        reader->member_ended = false;
    }
    z->next_out = (Bytef *)reader->text.data + reader->text.size;
    z->avail_out = READ_BYTES;
    r = inflate(z, Z_NO_FLUSH);
    *ret_size = READ_BYTES - z->avail_out;
    reader->text.size += *ret_size;
    reader->text.data[reader->text.size] = '\0';
    if (r == Z_STREAM_END)
        reader->member_ended = true;
    else if (r == Z_MEM_ERROR)
        return fail(reader, ENOMEM, err, "no memory to decompress it");
    else if (r != Z_OK && r != Z_BUF_ERROR)
        return fail(reader, EINVAL, err, "damaged gzip data");
    return 0;
}

/* Read a block; the reader has ended when there is none. */
static int next_block(struct ha_jsonl *reader, size_t *ret_size, struct ha_error *err)
{
    int r = read_block(reader, ret_size, err);

    if (r == 0 && !reader->started)
        r = start(reader, *ret_size, err);
    if (r == 0 && *ret_size == 0) {
        reader->ended = true;
        if (reader->gzip && !reader->member_ended)
            r = fail(reader, EINVAL, err, "the gzip data is cut off");
    }
    return r;
}

/* Append more of the file to text, or set ended. */
static int read_more(struct ha_jsonl *reader, struct ha_error *err)
{
    size_t size = 0;
    int r;

    /* The decompressor may hold output back although it has taken all input. */
    if (reader->gzip) {
        r = inflate_some(reader, &size, err);
        if (r < 0 || size > 0 || reader->inflater.avail_in > 0)
            return r;
    }
    r = next_block(reader, &size, err);
    if (r < 0 || reader->ended)
        return r;
    if (reader->gzip) {
        reader->inflater.next_in = reader->input;
        reader->inflater.avail_in = (uInt)size;
        return 0;
    }
    r = ha_buffer_append(&reader->text, reader->input, size);
    return r < 0 ? fail(reader, -r, err, "no memory to read it") : 0;
}

/* The next line of any kind, without its newline.  Returns 1, 0 or a negative errno. */
static int any_line(struct ha_jsonl *reader, const char **ret_line, size_t *ret_size,
                    struct ha_error *err)
{
    for (;;) {
        const char *begin = ha_buffer_text(&reader->text) + reader->given;
        size_t size = reader->text.size - reader->given;
        const char *newline = memchr(begin + reader->scanned, '\n', size - reader->scanned);
        size_t length = newline ? (size_t)(newline - begin) : size;
        int r;

        if (length > reader->line_limit)
            return ha_error_set(err, EMSGSIZE, "%s:%" PRId64 ": longer than %zu bytes",
                                reader->path, reader->line + 1, reader->line_limit);
        if (newline || (reader->ended && size > 0)) {
            reader->given += length + (newline ? 1 : 0);
            reader->scanned = 0;
            reader->line++;
            *ret_line = begin;
            *ret_size = length;
            return 1;
        }
        if (reader->ended)
            return 0;
        ha_buffer_consume(&reader->text, reader->given);
        reader->given = 0;
        reader->scanned = size;
        r = read_more(reader, err);
        if (r < 0)
            return r;
    }
}

static bool blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

int ha_jsonl_next_line(struct ha_jsonl *reader, const char **ret_line, size_t *ret_size,
                       struct ha_error *err)
{
    int r;

    do
        r = any_line(reader, ret_line, ret_size, err);
    while (r > 0 && blank(*ret_line, *ret_size));
    return r;
}

int ha_jsonl_next(struct ha_jsonl *reader, struct ha_json **ret_json, struct ha_error *err)
{
    struct ha_error local = {0};
    const char *line, *text;
    size_t size;
    int r = ha_jsonl_next_line(reader, &line, &size, err);

    if (r <= 0)
        return r;
    r = ha_json_parse(line, size, "", ret_json, &local);
    if (r == 0)
        return 1;
    /* ":1:COLUMN: what": the line within the text is always the first. */
    text = local.text + (strncmp(local.text, ":1:", 3) == 0 ? 3 : 1);
    return ha_error_set(err, -r, "%s:%" PRId64 ":%s", reader->path, reader->line, text);
}

int64_t ha_jsonl_line(const struct ha_jsonl *reader)
{
    return reader->line;
}

void ha_jsonl_digest(const struct ha_jsonl *reader, uint8_t digest[HA_SHA256_BYTES])
{
    struct ha_sha256 hash = reader->hash;

    ha_sha256_final(&hash, digest);
}
