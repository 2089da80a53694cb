#include "worker/attempt/answer_gang.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/memory.h"
#include "kernels/collective.h"

/* Often enough to be seen and to lose little with a rank, seldom enough that waiting for a rank in
 * the middle of its step costs little. */
enum { EVERY_MS = 1000, EVERY_STEPS = 16, MOST_BYTES = 1 << 20 };

/* What each rank sends first.  Ranks are of one build (gang.h). */
struct head {
    int64_t bytes; /* of the records that follow */
    int64_t done;  /* nothing is left but what it sends now */
    int64_t stop;
    int64_t tokens;
    double flops;
};

enum { FAILED = -1 };

/* Then, for each answer or failure, this and the answer's ids or the failure's text, filled up to a
 * multiple of 8 bytes. */
struct record {
    int64_t request, size; /* size: ids, or bytes of the text */
    int64_t finish;        /* or FAILED */
    int64_t code;          /* of the failure */
    struct ha_generate_cost cost;
};

struct ha_answer_gang {
    struct ha_answer_gang_options options;
    struct ha_buffer pending; /* records */
    struct head own, *heads;  /* (ranks) */
    int64_t last_ms, steps;   /* the last exchange, steps since then */
    bool stopped, finished;   /* one asked for it; all have nothing left */
};

/* ---- the whole ---- */

int ha_answer_gang_create(const struct ha_answer_gang_options *options,
                          struct ha_answer_gang **ret_gang, struct ha_error *err)
{
    struct ha_answer_gang *gang = ha_calloc(1, sizeof(*gang));

    if (gang)
        gang->heads = ha_calloc(ha_comm_size(options->comm), sizeof(*gang->heads));
    if (!gang || !gang->heads) {
        free(gang);
        return ha_error_set(err, ENOMEM, "no memory for a gang that answers");
    }
    gang->options = *options;
    gang->last_ms = ha_clock_boot_ms();
    ha_buffer_init(&gang->pending, 0);
    *ret_gang = gang;
    return 0;
}

void ha_answer_gang_destroy(struct ha_answer_gang *gang)
{
    if (!gang)
        return;
    ha_buffer_clear(&gang->pending);
    free(gang->heads);
    free(gang);
}

void ha_answer_gang_tell(struct ha_answer_gang *gang, int64_t tokens, double flops)
{
    gang->own.tokens = tokens;
    gang->own.flops = flops;
}

void ha_answer_gang_told(const struct ha_answer_gang *gang, int64_t *ret_tokens, double *ret_flops)
{
    *ret_tokens = 0;
    *ret_flops = 0;
    for (int i = 0; i < ha_comm_size(gang->options.comm); i++) {
        if (i == ha_comm_rank(gang->options.comm))
            continue;
        *ret_tokens += gang->heads[i].tokens;
        *ret_flops += gang->heads[i].flops;
    }
}

/* ---- records ---- */

static size_t payload_bytes(const struct record *record)
{
    size_t bytes = (size_t)record->size * (record->finish == FAILED ? 1 : sizeof(int32_t));

    return (bytes + 7) / 8 * 8;
}

static int append(struct ha_answer_gang *gang, const struct record *record, const void *payload,
                  size_t bytes, struct ha_error *err)
{
    static const char zeros[8];
    size_t before = gang->pending.size;
    int r = ha_buffer_append(&gang->pending, record, sizeof(*record));

    if (r == 0)
        r = ha_buffer_append(&gang->pending, payload, bytes);
    if (r == 0)
        r = ha_buffer_append(&gang->pending, zeros, payload_bytes(record) - bytes);
    if (r == 0)
        return 0;
    ha_buffer_truncate(&gang->pending, before);
    return ha_error_set(err, ENOMEM, "no memory for answers on their way to rank 0");
}

int ha_answer_gang_put(struct ha_answer_gang *gang, const struct ha_generate_answer *answer,
                       struct ha_error *err)
{
    struct record record = {.request = answer->request,
                            .size = answer->n_ids,
                            .finish = answer->finish,
                            .cost = answer->cost};

    return append(gang, &record, answer->ids, (size_t)answer->n_ids * sizeof(*answer->ids), err);
}

int ha_answer_gang_put_failure(struct ha_answer_gang *gang, int64_t request,
                               const struct ha_error *why, struct ha_error *err)
{
    const char *text = ha_error_text(why);
    struct record record = {
        .request = request, .size = (int64_t)strlen(text), .finish = FAILED, .code = why->code};

    return append(gang, &record, text, strlen(text), err);
}

/* Bytes of the first records that go into one exchange: as many as fit, at least one. */
static size_t first_bytes(const struct ha_answer_gang *gang)
{
    const struct ha_buffer *pending = &gang->pending;
    size_t at = 0;

    while (at < pending->size) {
        struct record record;
        size_t bytes;

        memcpy(&record, pending->data + at, sizeof(record));
        bytes = sizeof(record) + payload_bytes(&record);
        if (at > 0 && at + bytes > MOST_BYTES)
            break;
        at += bytes;
    }
    return at;
}

static int take_record(const struct ha_answer_gang *gang, const struct record *record,
                       const char *payload, struct ha_error *err)
{
    const struct ha_answer_gang_options *options = &gang->options;
    struct ha_generate_answer answer = {.request = record->request,
                                        .ids = (const int32_t *)(const void *)payload,
                                        .n_ids = record->size,
                                        .finish = (enum ha_generate_finish)record->finish,
                                        .cost = record->cost};
    struct ha_error why;

    if (record->finish != FAILED)
        return options->answer(options->context, &answer, err);
    (void)ha_error_set(&why, (int)record->code, "%.*s", (int)record->size, payload);
    return options->failed(options->context, record->request, &why, err);
}

static int take_records(const struct ha_answer_gang *gang, int rank, const char *at, size_t left,
                        struct ha_error *err)
{
    int r = 0;

    while (r == 0 && left > 0) {
        struct record record = {.size = -1};

        if (left >= sizeof(record))
            memcpy(&record, at, sizeof(record));
        if (record.size < 0 || (size_t)record.size > left || record.request < 0 ||
            record.request >= gang->options.n_requests || record.finish < FAILED ||
            record.finish > HA_FINISH_LENGTH || payload_bytes(&record) > left - sizeof(record))
            return ha_error_set(err, EBADMSG,
                                "rank %d of the gang sent something else than answers", rank);
        r = take_record(gang, &record, at + sizeof(record), err);
        at += sizeof(record) + payload_bytes(&record);
        left -= sizeof(record) + payload_bytes(&record);
    }
    return r;
}

/* ---- exchanges ---- */

/* The records of all ranks; heads are there. */
static int exchange_records(struct ha_answer_gang *gang, struct ha_error *err)
{
    struct ha_comm *comm = gang->options.comm;
    int size = ha_comm_size(comm), r;
    size_t most = 0;
    char *all, *own;

    for (int i = 0; i < size; i++)
        most = (size_t)gang->heads[i].bytes > most ? (size_t)gang->heads[i].bytes : most;
    if (most == 0)
        return 0;
    all = ha_calloc((int64_t)size + 1, most);
    if (!all)
        return ha_error_set(err, ENOMEM, "no memory for the answers of %d ranks", size);
    own = all + (size_t)size * most;
    if (gang->own.bytes > 0)
        memcpy(own, gang->pending.data, (size_t)gang->own.bytes);
    r = ha_comm_gather(comm, all, own, most, err);
    if (r == 0)
        ha_buffer_consume(&gang->pending, (size_t)gang->own.bytes);
    for (int i = 0; r == 0 && i < size; i++)
        if (i != ha_comm_rank(comm))
            r = take_records(gang, i, all + (size_t)i * most, (size_t)gang->heads[i].bytes, err);
    free(all);
    return r;
}

static int exchange(struct ha_answer_gang *gang, bool done, bool stop, struct ha_error *err)
{
    struct ha_comm *comm = gang->options.comm;
    int r;

    HA_CRASH_POINT("attempt.gang_answers");
    gang->own.bytes = (int64_t)first_bytes(gang);
    gang->own.done = done && (size_t)gang->own.bytes == gang->pending.size;
    gang->own.stop = stop;
    r = ha_model_idle(gang->options.model, err);
    if (r == 0)
        r = ha_comm_gather(comm, gang->heads, &gang->own, sizeof(gang->own), err);
    if (r == 0)
        r = exchange_records(gang, err);
    if (r < 0)
        return r;
    gang->finished = true;
    for (int i = 0; i < ha_comm_size(comm); i++) {
        gang->finished = gang->finished && gang->heads[i].done;
        gang->stopped = gang->stopped || gang->heads[i].stop;
    }
    gang->last_ms = ha_clock_boot_ms();
    gang->steps = 0;
    return 0;
}

/* A rank with few and long steps must not let the others wait for too many of them. */
static bool is_due(const struct ha_answer_gang *gang)
{
    int64_t passed_ms = ha_clock_boot_ms() - gang->last_ms, wait_ms = gang->options.wait_ms;

    return passed_ms >= EVERY_MS &&
           (gang->steps >= EVERY_STEPS || (wait_ms > 0 && passed_ms >= wait_ms / 8));
}

static int say_stopped(struct ha_error *err)
{
    return ha_error_set(err, EINTR, "stopped as asked");
}

int ha_answer_gang_step(struct ha_answer_gang *gang, bool stop, struct ha_error *err)
{
    int r = 0;

    gang->steps++;
    if (stop || is_due(gang))
        r = exchange(gang, false, stop, err);
    return r == 0 && gang->stopped ? say_stopped(err) : r;
}

int ha_answer_gang_finish(struct ha_answer_gang *gang, const volatile sig_atomic_t *stop,
                          struct ha_error *err)
{
    int r = 0;

    while (r == 0 && !gang->finished && !gang->stopped)
        r = exchange(gang, true, stop && *stop, err);
    return r == 0 && !gang->finished ? say_stopped(err) : r;
}
