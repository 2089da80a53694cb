/* Times the tokenizer over texts: bench_tokenize MODEL FILE, one JSON string per line.
 *
 * Prints texts, bytes, ids, a sum over the ids that any other tokenizer must give too, and the
 * processor time of the fastest of some passes. */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"
#include "worker/tokenizer/tokenizer.h"

enum { PASSES = 3 };

struct texts {
    struct ha_json **items;
    int64_t n, capacity;
    size_t bytes;
};

static double seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int read_texts(const char *path, struct texts *texts, struct ha_error *err)
{
    struct ha_jsonl *reader;
    struct ha_json *json;
    int r = ha_jsonl_open(path, 0, &reader, err);

    if (r < 0)
        return r;
    while ((r = ha_jsonl_next(reader, &json, err)) > 0) {
        if (ha_grow((void **)&texts->items, &texts->capacity, texts->n + 1, sizeof(*texts->items)) <
            0) {
            ha_json_destroy(json);
            r = ha_error_set(err, ENOMEM, "%s: no memory", path);
            break;
        }
        texts->items[texts->n++] = json;
        texts->bytes += ha_json_string_size(json);
    }
    ha_jsonl_close(reader);
    return r;
}

static int encode_all(struct ha_tokenizer *tokenizer, const struct texts *texts, int64_t *ret_ids,
                      uint64_t *ret_sum, struct ha_error *err)
{
    struct ha_ids ids = {0};
    int r = 0;

    *ret_ids = 0;
    *ret_sum = 0;
    for (int64_t i = 0; r == 0 && i < texts->n; i++) {
        const struct ha_json *text = texts->items[i];

        ids.count = 0;
        r = ha_tokenizer_encode(tokenizer, ha_json_string(text, ""), ha_json_string_size(text),
                                false, &ids, err);
        *ret_ids += ids.count;
        for (int64_t k = 0; k < ids.count; k++)
            *ret_sum += (uint64_t)(k + 1) * (uint64_t)ids.data[k];
    }
    ha_ids_clear(&ids);
    return r;
}

int main(int argc, char **argv)
{
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_error err = {0};
    struct texts texts = {0};
    double best = 1e9;
    uint64_t sum = 0;
    int64_t n_ids = 0;
    int r;

    if (argc != 3) {
        fputs("usage: bench_tokenize MODEL FILE\n", stderr);
        return 2;
    }
    r = ha_tokenizer_load(argv[1], &tokenizer, &err);
    if (r == 0)
        r = read_texts(argv[2], &texts, &err);
    for (int pass = 0; r == 0 && pass < PASSES; pass++) {
        double start = seconds(), took;

        r = encode_all(tokenizer, &texts, &n_ids, &sum, &err);
        took = seconds() - start;
        best = took < best ? took : best;
    }
    if (r < 0)
        fprintf(stderr, "bench_tokenize: %s\n", ha_error_text(&err));
    else
        printf("%" PRId64 " %zu %" PRId64 " %" PRIu64 " %.6f\n", texts.n, texts.bytes, n_ids, sum,
               best);
    for (int64_t i = 0; i < texts.n; i++)
        ha_json_destroy(texts.items[i]);
    free(texts.items);
    ha_tokenizer_destroy(tokenizer);
    return r < 0;
}
