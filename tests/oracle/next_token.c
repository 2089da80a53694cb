/* The sampler's distribution for check_processors.py.  Standard input: JSON Lines
 *   {"settings": {...}, "ids": [...], "new": N, "eos": [...], "vocabulary": V, "logits": FILE}
 * with V f32 in FILE, which V f64 replace: the probabilities. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "kernels/cpu/sample.h"
#include "worker/sampling/sampler.h"

struct question {
    struct ha_sampler_settings settings;
    int32_t *ids, *eos;
    int64_t n_ids, n_eos, n_new;
    const char *path;
    int64_t vocab;
};

static int32_t *read_ids(const struct ha_json *list, int64_t *ret_n)
{
    int64_t n = ha_json_size(list);
    int32_t *ids = ha_calloc(n + 1, sizeof(*ids));

    for (int64_t i = 0; ids && i < n; i++)
        ids[i] = (int32_t)ha_json_int(ha_json_at(list, i), -1);
    *ret_n = n;
    return ids;
}

static void read_question(const struct ha_json *json, struct question *question)
{
    const struct ha_json *settings = ha_json_get(json, "settings");

    *question = (struct question){
        .settings = {.temperature = ha_json_real(ha_json_get(settings, "temperature"), NAN),
                     .top_k = ha_json_int(ha_json_get(settings, "top_k"), -1),
                     .top_p = ha_json_real(ha_json_get(settings, "top_p"), NAN),
                     .repetition_penalty =
                         ha_json_real(ha_json_get(settings, "repetition_penalty"), NAN),
                     .min_new_tokens = ha_json_int(ha_json_get(settings, "min_new_tokens"), -1)},
        .path = ha_json_string(ha_json_get(json, "logits"), ""),
        .vocab = ha_json_int(ha_json_get(json, "vocabulary"), 0)};
    question->ids = read_ids(ha_json_get(json, "ids"), &question->n_ids);
    question->eos = read_ids(ha_json_get(json, "eos"), &question->n_eos);
    question->n_new = ha_json_int(ha_json_get(json, "new"), 0);
}

static int exchange(const char *path, const char *mode, void *data, int64_t n, size_t size,
                    struct ha_error *err)
{
    FILE *file = fopen(path, mode);
    size_t done = 0;

    if (file) {
        done = mode[0] == 'r' ? fread(data, size, (size_t)n, file)
                              : fwrite(data, size, (size_t)n, file);
        if (fclose(file) != 0)
            done = 0;
    }
    return done == (size_t)n ? 0 : ha_error_set(err, EIO, "%s: not read or written", path);
}

static int answer(const struct question *question, struct ha_error *err)
{
    const struct ha_cpu_candidate *candidates = NULL;
    uint32_t *seen = ha_calloc(ha_sampler_seen_words(question->vocab), sizeof(*seen));
    void *scratch = ha_calloc(ha_cpu_sample_bytes(question->vocab), 1);
    struct ha_draw draw;
    float *logits = ha_calloc(question->vocab, sizeof(*logits));
    double *chances = ha_calloc(question->vocab, sizeof(*chances)), total = 0;
    int64_t n = 0;
    int r = logits && chances && seen && scratch && question->ids && question->eos ? 0 : -ENOMEM;

    if (r < 0)
        ha_error_set(err, ENOMEM, "no memory");
    if (r == 0)
        r = exchange(question->path, "rb", logits, question->vocab, sizeof(*logits), err);
    if (r == 0)
        r = ha_sampler_settings_check(&question->settings, err);
    if (r == 0) {
        ha_sampler_rules(&question->settings, &draw);
        ha_sampler_see(seen, question->vocab, question->ids, question->n_ids);
        draw.seen = seen;
        draw.eos = question->eos;
        draw.n_eos = (int32_t)question->n_eos;
        draw.n_new = (int32_t)question->n_new;
        n = ha_cpu_sample_candidates(&draw, logits, question->vocab, scratch, &candidates);
        if (n == 0)
            r = ha_error_set(err, EDOM, "%s: the logits have diverged", question->path);
    }
    for (int64_t i = 0; r == 0 && i < n; i++)
        total += (double)candidates[i].weight;
    for (int64_t i = 0; r == 0 && i < n; i++)
        chances[candidates[i].id] = (double)candidates[i].weight / total;
    if (r == 0)
        r = exchange(question->path, "wb", chances, question->vocab, sizeof(*chances), err);
    free(scratch);
    free(seen);
    free(chances);
    free(logits);
    return r;
}

int main(void)
{
    struct ha_error err = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    int r = 0;

    while (r == 0 && (size = getline(&line, &capacity, stdin)) > 0) {
        struct ha_json *json = NULL;
        struct question question;

        r = ha_json_parse(line, (size_t)size, "standard input", &json, &err);
        if (r < 0)
            break;
        read_question(json, &question);
        r = answer(&question, &err);
        free(question.ids);
        free(question.eos);
        ha_json_destroy(json);
    }
    free(line);
    if (r < 0)
        fprintf(stderr, "next_token: %s\n", ha_error_text(&err));
    return r < 0;
}
