#include "judge-worker/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/proc/spawn.h"

static const char file_name[] = "replies.spool";

enum { LINE_BYTES = 128, MAX_FILE_BYTES = 1 << 30 };

struct ha_judge_spool {
    char *path;
    struct ha_lock *lock;
    int fd;
    int64_t size;    /* of the file */
    uint64_t *calls; /* needed */
    int64_t count, capacity;
    bool dirty;
};

/* ---- writing ------------------------------------------------------------------------ */

/* Append, or leave the file as it was. */
static int append(struct ha_judge_spool *spool, const char *bytes, size_t size,
                  struct ha_error *err)
{
    int r = ha_file_write_all(spool->fd, bytes, size);

    if (r < 0) {
        if (ftruncate(spool->fd, spool->size) < 0)
            return ha_error_set(err, EIO, "%s: %s, and it cannot be cut off: %s", spool->path,
                                strerror(-r), strerror(errno));
        return ha_error_set(err, -r, "%s: %s%s", spool->path, strerror(-r),
                            r == -ENOSPC ? "; make room on the disk" : "");
    }
    spool->size += (int64_t)size;
    spool->dirty = true;
    return 0;
}

static void digest_of(const char *header, size_t header_size, const char *raw, size_t raw_size,
                      char hex[HA_SHA256_HEX_BYTES])
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, header, header_size);
    if (raw_size > 0)
        ha_sha256_update(&hash, raw, raw_size);
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
}

static int encode(const struct ha_judge_record *record, struct ha_buffer *out, struct ha_error *err)
{
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_buffer header;
    int r;

    ha_buffer_init(&header, 0);
    r = ha_judge_record_encode(record, &header, err);
    if (r == 0) {
        digest_of(header.data, header.size, record->raw, record->raw_size, hex);
        r = ha_buffer_printf(out, "R %s %zu %zu\n%s\n", hex, header.size, record->raw_size,
                             header.data);
        if (r == 0 && record->raw_size > 0)
            r = ha_buffer_append(out, record->raw, record->raw_size);
        if (r == 0)
            r = ha_buffer_append(out, "\n", 1);
        if (r < 0)
            ha_error_set(err, -r, "no memory for an evaluator's reply");
    }
    ha_buffer_clear(&header);
    return r;
}

static int need(struct ha_judge_spool *spool, uint64_t call)
{
    int r =
        ha_grow((void **)&spool->calls, &spool->capacity, spool->count + 1, sizeof *spool->calls);

    if (r == 0)
        spool->calls[spool->count++] = call;
    return r;
}

static bool forget(struct ha_judge_spool *spool, uint64_t call)
{
    for (int64_t i = 0; i < spool->count; i++) {
        if (spool->calls[i] == call) {
            spool->calls[i] = spool->calls[--spool->count];
            return true;
        }
    }
    return false;
}

int ha_judge_spool_add(struct ha_judge_spool *spool, const struct ha_judge_record *record,
                       struct ha_error *err)
{
    struct ha_buffer bytes;
    int r;

    ha_buffer_init(&bytes, 0);
    r = encode(record, &bytes, err);
    if (r == 0 && need(spool, record->call) < 0)
        r = ha_error_set(err, ENOMEM, "no memory for an evaluator's reply");
    if (r == 0) {
        r = append(spool, bytes.data, bytes.size, err);
        if (r < 0)
            spool->count--;
    }
    ha_buffer_clear(&bytes);
    return r;
}

int ha_judge_spool_sync(struct ha_judge_spool *spool, struct ha_error *err)
{
    if (!spool->dirty)
        return 0;
    if (fdatasync(spool->fd) < 0)
        return ha_error_set(err, errno, "%s: %s", spool->path, strerror(errno));
    spool->dirty = false;
    HA_FAULT_DURABLE(NULL, spool->path);
    return 0;
}

/* A drop that a crash undoes only offers a reply once more, so it need not be synced. */
void ha_judge_spool_drop(struct ha_judge_spool *spool, uint64_t call)
{
    char line[LINE_BYTES];
    int n;

    if (!forget(spool, call))
        return;
    if (spool->count == 0 && ftruncate(spool->fd, 0) == 0) {
        spool->size = 0;
        return;
    }
    n = snprintf(line, sizeof line, "D %" PRIu64 "\n", call);
    (void)append(spool, line, (size_t)n, NULL);
}

int64_t ha_judge_spool_count(const struct ha_judge_spool *spool)
{
    return spool->count;
}

/* ---- reading -------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
    struct ha_judge_record *records;
    int64_t count, capacity;
};

enum piece { PIECE_OK, PIECE_CUT, PIECE_DAMAGED };

static void remove_record(struct reader *reader, uint64_t call)
{
    for (int64_t i = 0; i < reader->count; i++) {
        if (reader->records[i].call != call)
            continue;
        ha_judge_record_clear(&reader->records[i]);
        memmove(&reader->records[i], &reader->records[i + 1],
                (size_t)(reader->count - i - 1) * sizeof *reader->records);
        reader->count--;
        return;
    }
}

/* The part of a record behind its first line. */
static int read_record(struct reader *reader, const char *hex, size_t header_size, size_t raw_size,
                       enum piece *ret_piece)
{
    size_t left = (size_t)(reader->end - reader->at);
    const char *header = reader->at, *raw;
    char found[HA_SHA256_HEX_BYTES];
    struct ha_judge_record record;
    int r;

    *ret_piece = PIECE_CUT;
    if (header_size > left || raw_size > left || header_size + raw_size + 2 > left)
        return 0;
    raw = header + header_size + 1;
    digest_of(header, header_size, raw, raw_size, found);
    *ret_piece = PIECE_DAMAGED;
    if (strcmp(found, hex) != 0)
        return 0;
    r = ha_judge_record_decode(header, header_size, &record, NULL);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    record.raw = ha_calloc((int64_t)raw_size + 1, 1);
    r = record.raw ? ha_grow((void **)&reader->records, &reader->capacity, reader->count + 1,
                             sizeof record)
                   : -ENOMEM;
    if (r < 0) {
        ha_judge_record_clear(&record);
        return r;
    }
    memcpy(record.raw, raw, raw_size);
    record.raw_size = raw_size;
    reader->records[reader->count++] = record;
    reader->at = raw + raw_size + 1;
    *ret_piece = PIECE_OK;
    return 0;
}

static int read_piece(struct reader *reader, enum piece *ret_piece)
{
    const char *newline = memchr(reader->at, '\n', (size_t)(reader->end - reader->at));
    char line[LINE_BYTES], hex[HA_SHA256_HEX_BYTES];
    size_t size = newline ? (size_t)(newline - reader->at) : 0, header_size, raw_size;
    uint64_t call;

    *ret_piece = newline ? PIECE_DAMAGED : PIECE_CUT;
    if (!newline || size >= sizeof line)
        return 0;
    memcpy(line, reader->at, size);
    line[size] = '\0';
    if (sscanf(line, "D %" SCNu64, &call) == 1) {
        remove_record(reader, call);
        reader->at = newline + 1;
        *ret_piece = PIECE_OK;
        return 0;
    }
    if (sscanf(line, "R %64[0-9a-f] %zu %zu", hex, &header_size, &raw_size) != 3)
        return 0;
    reader->at = newline + 1;
    return read_record(reader, hex, header_size, raw_size, ret_piece);
}

static int read_file(struct reader *reader, bool *ret_damaged)
{
    enum piece piece = PIECE_OK;
    int r = 0;

    while (r == 0 && reader->at < reader->end && piece == PIECE_OK)
        r = read_piece(reader, &piece);
    *ret_damaged = piece == PIECE_DAMAGED;
    return r;
}

/* ---- opening ------------------------------------------------------------------------------ */

/* Write what is needed into a new file in place of the old one. */
static int rewrite(const struct ha_judge_spool *spool, const struct reader *reader,
                   struct ha_error *err)
{
    struct ha_buffer bytes;
    int r = 0;

    ha_buffer_init(&bytes, 0);
    for (int64_t i = 0; i < reader->count && r == 0; i++)
        r = encode(&reader->records[i], &bytes, err);
    if (r == 0)
        r = ha_file_write(spool->path, ha_buffer_text(&bytes), bytes.size, 0600, err);
    if (r == 0)
        HA_FAULT_DURABLE(NULL, spool->path);
    ha_buffer_clear(&bytes);
    return r;
}

static int set_aside(const struct ha_judge_spool *spool, char **ret_note, struct ha_error *err)
{
    char *aside = ha_format("%s.damaged", spool->path);

    if (!aside)
        return ha_error_set(err, ENOMEM, "no memory to open the spool");
    if (rename(spool->path, aside) < 0) {
        int r = ha_error_set(err, errno, "%s: %s", spool->path, strerror(errno));

        free(aside);
        return r;
    }
    *ret_note = ha_format("%s is damaged; it was set aside as %s", spool->path, aside);
    free(aside);
    return 0;
}

static int offer(struct ha_judge_spool *spool, const struct reader *reader, ha_judge_spool_fn fn,
                 void *context, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; i < reader->count && r == 0; i++) {
        r = need(spool, reader->records[i].call);
        if (r < 0)
            return ha_error_set(err, -r, "no memory to open the spool");
        r = fn(context, &reader->records[i], err);
    }
    return r;
}

static int load(struct ha_judge_spool *spool, ha_judge_spool_fn fn, void *context, char **ret_note,
                struct ha_error *err)
{
    struct reader reader = {0};
    bool damaged = false;
    char *bytes = NULL;
    size_t size = 0;
    int r = 0;

    if (ha_path_exists(spool->path))
        r = ha_file_read(spool->path, MAX_FILE_BYTES, &bytes, &size, err);
    if (r == 0 && size > 0) {
        reader.at = bytes;
        reader.end = bytes + size;
        r = read_file(&reader, &damaged);
        if (r < 0)
            ha_error_set(err, -r, "no memory to open the spool");
    }
    if (r == 0 && damaged)
        r = set_aside(spool, ret_note, err);
    if (r == 0)
        r = rewrite(spool, &reader, err);
    if (r == 0)
        r = offer(spool, &reader, fn, context, err);
    for (int64_t i = 0; i < reader.count; i++)
        ha_judge_record_clear(&reader.records[i]);
    free(reader.records);
    free(bytes);
    return r;
}

static int open_file(struct ha_judge_spool *spool, struct ha_error *err)
{
    struct stat status;

    spool->fd = open(spool->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (spool->fd < 0 || fstat(spool->fd, &status) < 0)
        return ha_error_set(err, errno, "%s: %s", spool->path, strerror(errno));
    spool->size = status.st_size;
    return 0;
}

int ha_judge_spool_open(const char *dir, ha_judge_spool_fn fn, void *context,
                        struct ha_judge_spool **ret_spool, char **ret_note, struct ha_error *err)
{
    struct ha_judge_spool *spool = calloc(1, sizeof *spool);
    char *lock = ha_path_join(dir, "lock"), *note = NULL;
    int r = spool && lock ? 0 : ha_error_set(err, ENOMEM, "no memory to open the spool");

    if (spool) {
        spool->fd = -1;
        spool->path = ha_path_join(dir, file_name);
        if (r == 0 && !spool->path)
            r = ha_error_set(err, ENOMEM, "no memory to open the spool");
    }
    if (r == 0)
        r = ha_path_make_durable(dir, 0700, err);
    if (r == 0)
        r = ha_lock_take(lock, &spool->lock, err);
    if (r == 0)
        r = load(spool, fn, context, &note, err);
    if (r == 0)
        r = open_file(spool, err);
    free(lock);
    if (r < 0) {
        ha_judge_spool_close(spool);
        free(note);
        return r;
    }
    *ret_spool = spool;
    *ret_note = note;
    return 0;
}

void ha_judge_spool_close(struct ha_judge_spool *spool)
{
    if (!spool)
        return;
    if (spool->fd >= 0)
        close(spool->fd);
    ha_lock_release(spool->lock);
    free(spool->path);
    free(spool->calls);
    free(spool);
}
