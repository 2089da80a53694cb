/* reporter.h - where an attempt tells what happens
 *
 * Training, probing and generation speak to this interface; contract_reporter.c writes
 * it to the daemon's pipe, console_reporter.c to the terminal and files of a person. */
#ifndef HA_WORKER_ATTEMPT_REPORTER_H
#define HA_WORKER_ATTEMPT_REPORTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct ha_json;

struct ha_reported_metric {
    const char *name;
    double value;
};

/* Of a phase.  What is not counted is 0. */
struct ha_reported_progress {
    int64_t step, steps;
    double tokens_per_second, pairs_per_second, flops_per_second;
    double utilisation; /* FLOP/s over the backend's peak */
    double saved;       /* part of the plain method's FLOPs that was not needed */
};

struct ha_reported_answer {
    int64_t cell;
    int64_t prompt; /* in the order of the selection, counted from 0 */
    int64_t row;    /* of the prompt in its files */
    int64_t sample;
    const char *prompt_text;
    size_t prompt_bytes;
    const char *text; /* cut and stripped */
    size_t text_bytes;
    const char *raw;
    size_t raw_bytes;
    const char *finish; /* "stop" | "eos" | "length" */
    int64_t prompt_tokens, tokens;
};

/* A mean of norms over the pairs of a probe; worker/contract.h, line "probe". */
struct ha_reported_norm {
    int64_t cell;
    const char *block; /* static; "" for one layer */
    int64_t layer, layers;
    const char *module; /* static */
    double norm;
    int64_t parameters, pairs;
};

/* Every call returns 0 or a negative errno that ends the attempt. */
struct ha_reporter {
    void *context;
    int (*phase)(void *context, const char *phase, struct ha_error *err);
    int (*progress)(void *context, const struct ha_reported_progress *progress,
                    struct ha_error *err);
    int (*metrics)(void *context, int64_t cell, int64_t step,
                   const struct ha_reported_metric *metrics, int64_t n, struct ha_error *err);
    int (*answer)(void *context, const struct ha_reported_answer *answer, struct ha_error *err);
    int (*norm)(void *context, const struct ha_reported_norm *norm, struct ha_error *err);
    /* The file is complete and synced, and never changes. */
    int (*artifact)(void *context, int64_t cell, const char *kind, const char *name,
                    const char *path, int64_t step, struct ha_error *err);
    /* A cell is final; takes summary over (NULL: none). */
    int (*cell)(void *context, int64_t cell, bool done, const char *reason, bool permanent,
                struct ha_json *summary, struct ha_error *err);
};

#endif
