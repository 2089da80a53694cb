#include "worker/daemon/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "proto/wire.h"

enum {
    SIZES_BYTES = 8,
    HEAD_BYTES = 16,
    PATH_BYTES = 4096,
    COMPACT_BYTES = 1 << 20 /* delivered ones, before the others are written anew */
};

struct journal {
    char *folder, *path;
    int fd; /* -1: no file */
    bool broken;
    bool dirty, named; /* records, and the file's name, that are not synced; named: it is */
    int64_t *starts;   /* offsets of records first .. first + n - 1 */
    int64_t first, n, capacity;
    int64_t bytes;
};

/* ---- life ---------------------------------------------------------------------------------- */

int journal_create(const char *folder, struct journal **ret_journal, struct ha_error *err)
{
    struct journal *journal = ha_calloc(1, sizeof(*journal));

    if (!journal)
        return ha_error_set(err, ENOMEM, "out of memory");
    journal->fd = -1;
    journal->folder = ha_strdup(folder);
    journal->path = ha_path_join(folder, JOURNAL_FILE);
    if (!journal->folder || !journal->path) {
        journal_destroy(journal);
        return ha_error_set(err, ENOMEM, "out of memory");
    }
    *ret_journal = journal;
    return 0;
}

void journal_destroy(struct journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->folder);
    free(journal->path);
    free(journal->starts);
    free(journal);
}

void journal_remove(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    (void)unlink(journal->path);
    journal->broken = true;
}

static int give_up(struct journal *journal, struct ha_error *err, int code, const char *what)
{
    journal_remove(journal);
    return ha_error_set(err, code, "cannot %s %s: %s", what, journal->path, strerror(code));
}

/* ---- records --------------------------------------------------------------------------------- */

static void put_size(uint8_t *at, size_t size)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(size >> (8 * i));
}

static size_t get_size(const uint8_t *at)
{
    return (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

static void sum(const uint8_t *head, const void *body, size_t body_bytes,
                uint8_t ret_digest[HA_SHA256_BYTES])
{
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, head, SIZES_BYTES);
    ha_sha256_update(&hash, body, body_bytes);
    ha_sha256_final(&hash, ret_digest);
}

static int encode(const struct ha_wire_attempt_event *event, const char *path,
                  struct ha_buffer *out, struct ha_error *err)
{
    struct ha_wire_attempt_event one = *event;
    const struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL,
                                            .kind = HA_WIRE_REPORT,
                                            .body.report = {.events = &one, .n_events = 1}};
    size_t path_bytes = path ? strlen(path) : 0, frame_bytes;
    uint8_t head[HEAD_BYTES] = {0}, digest[HA_SHA256_BYTES];
    int r = ha_buffer_append(out, head, sizeof(head));

    if (path_bytes >= PATH_BYTES)
        return ha_error_set(err, ENAMETOOLONG, "the path of an artifact is too long");
    if (r == 0)
        r = ha_wire_encode(&message, out, err);
    frame_bytes = out->size - HEAD_BYTES;
    if (r == 0)
        r = ha_buffer_append(out, path ? path : "", path_bytes);
    if (r < 0)
        return r;
    put_size(head, frame_bytes);
    put_size(head + 4, path_bytes);
    sum(head, out->data + HEAD_BYTES, frame_bytes + path_bytes, digest);
    memcpy(head + SIZES_BYTES, digest, HEAD_BYTES - SIZES_BYTES);
    memcpy(out->data, head, HEAD_BYTES);
    return 0;
}

static int open_file(struct journal *journal, struct ha_error *err)
{
    if (journal->fd >= 0)
        return 0;
    journal->fd = open(journal->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal->fd < 0)
        return give_up(journal, err, errno, "make");
    return 0;
}

int journal_append(struct journal *journal, const struct ha_wire_attempt_event *event,
                   const char *path, struct ha_error *err)
{
    struct ha_buffer record;
    int r;

    if (journal->broken)
        return 0;
    ha_buffer_init(&record, 0);
    r = encode(event, path, &record, err);
    if (r == 0)
        r = ha_grow((void **)&journal->starts, &journal->capacity, journal->n + 1,
                    sizeof(*journal->starts));
    if (r == 0 && journal->bytes + (int64_t)record.size > JOURNAL_BYTES)
        r = -EFBIG;
    if (r < 0) {
        r = give_up(journal, err, -r, "write to");
        goto out;
    }
    r = open_file(journal, err);
    if (r < 0)
        goto out;
    r = ha_file_write_all(journal->fd, record.data, record.size);
    if (r < 0) {
        r = give_up(journal, err, -r, "write to");
        goto out;
    }
    journal->starts[journal->n++] = journal->bytes;
    journal->bytes += (int64_t)record.size;
    journal->dirty = true;
out:
    ha_buffer_clear(&record);
    return r;
}

int journal_sync(struct journal *journal, struct ha_error *err)
{
    int r;

    if (journal->broken || !journal->dirty)
        return 0;
    if (fdatasync(journal->fd) < 0)
        return give_up(journal, err, errno, "sync");
    journal->dirty = false;
    if (journal->named)
        return 0;
    /* The folder's own name was synced when it was made. */
    r = ha_file_sync_dir(journal->folder, err);
    journal->named = r == 0;
    return r;
}

/* ---- delivered ------------------------------------------------------------------------------- */

/* Write the records from an offset on into a file of their own. */
static int compact(struct journal *journal, int64_t start, struct ha_error *err)
{
    size_t size = (size_t)(journal->bytes - start), have = 0;
    uint8_t *bytes = malloc(size);
    int r = bytes ? 0 : -ENOMEM;

    while (r == 0 && have < size) {
        ssize_t n = pread(journal->fd, bytes + have, size - have, start + (int64_t)have);

        if (n > 0)
            have += (size_t)n;
        else if (n == 0 || errno != EINTR)
            r = n == 0 ? -EIO : -errno;
    }
    if (r == 0)
        r = ha_file_write(journal->path, bytes, size, 0600, err);
    free(bytes);
    if (r < 0)
        return give_up(journal, err, -r, "shorten");
    close(journal->fd);
    journal->fd = -1;
    journal->bytes = (int64_t)size;
    for (int64_t i = 0; i < journal->n; i++)
        journal->starts[i] -= start;
    return open_file(journal, err);
}

int journal_keep_from(struct journal *journal, int64_t number, struct ha_error *err)
{
    int64_t gone = number - journal->first;

    if (journal->broken || gone <= 0)
        return 0;
    if (gone >= journal->n) {
        journal->first += journal->n;
        journal->n = journal->bytes = 0;
        journal->dirty = false;
        return journal->fd >= 0 && ftruncate(journal->fd, 0) < 0
                   ? give_up(journal, err, errno, "shorten")
                   : 0;
    }
    if (journal->starts[gone] < COMPACT_BYTES || journal->starts[gone] < journal->bytes / 2)
        return 0;
    journal->first = number;
    journal->n -= gone;
    memmove(journal->starts, journal->starts + gone, (size_t)journal->n * sizeof(*journal->starts));
    return compact(journal, journal->starts[0], err);
}

/* ---- what an earlier daemon left ------------------------------------------------------------- */

/* The record at an offset: its size, 0 when it is not whole, or what fn returned. */
static int64_t read_record(const uint8_t *bytes, size_t size, journal_fn fn, void *context,
                           struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_wire_message *message;
    size_t frame_bytes, path_bytes;
    char *path = NULL;
    int r;

    if (size < HEAD_BYTES)
        return 0;
    frame_bytes = get_size(bytes);
    path_bytes = get_size(bytes + 4);
    if (path_bytes >= PATH_BYTES || frame_bytes > size - HEAD_BYTES ||
        path_bytes > size - HEAD_BYTES - frame_bytes)
        return 0;
    sum(bytes, bytes + HEAD_BYTES, frame_bytes + path_bytes, digest);
    if (memcmp(digest, bytes + SIZES_BYTES, HEAD_BYTES - SIZES_BYTES) != 0)
        return 0;
    r = ha_wire_decode(bytes + HEAD_BYTES, frame_bytes, &ha_wire_default_limits, &message, err);
    if (r < 0)
        return r == -ENOMEM ? r : 0; /* of another version */
    if (path_bytes > 0 &&
        !(path = ha_strndup((const char *)bytes + HEAD_BYTES + frame_bytes, path_bytes)))
        r = ha_error_set(err, ENOMEM, "out of memory");
    else if (message->kind == HA_WIRE_REPORT && message->body.report.n_events == 1)
        r = fn(context, &message->body.report.events[0], path);
    free(path);
    ha_wire_message_destroy(message);
    return r < 0 ? r : (int64_t)(HEAD_BYTES + frame_bytes + path_bytes);
}

static int read_all(struct journal *journal, const uint8_t *bytes, size_t size, journal_fn fn,
                    void *context, struct ha_error *err)
{
    int64_t n;

    while ((n = read_record(bytes + journal->bytes, size - (size_t)journal->bytes, fn, context,
                            err)) > 0) {
        if (ha_grow((void **)&journal->starts, &journal->capacity, journal->n + 1,
                    sizeof(*journal->starts)) < 0)
            return ha_error_set(err, ENOMEM, "out of memory");
        journal->starts[journal->n++] = journal->bytes;
        journal->bytes += n;
    }
    return (int)n;
}

int journal_open(const char *folder, journal_fn fn, void *context, struct journal **ret_journal,
                 struct ha_error *err)
{
    struct journal *journal;
    char *bytes = NULL;
    size_t size;
    int r = journal_create(folder, &journal, err);

    if (r < 0)
        return r;
    r = ha_file_read(journal->path, JOURNAL_BYTES, &bytes, &size, err);
    if (r == 0)
        r = read_all(journal, (const uint8_t *)bytes, size, fn, context, err);
    if (r == 0)
        r = open_file(journal, err);
    if (r == 0 && ftruncate(journal->fd, journal->bytes) < 0)
        r = ha_error_set(err, errno, "cannot shorten %s: %s", journal->path, strerror(errno));
    free(bytes);
    if (r < 0) {
        journal_destroy(journal);
        return r;
    }
    *ret_journal = journal;
    return 0;
}
