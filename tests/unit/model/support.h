/* support.h - small random models in memory, and the golden files, for the tests of model and dpo
 */
#ifndef HA_TESTS_UNIT_MODEL_SUPPORT_H
#define HA_TESTS_UNIT_MODEL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/io/safetensors.h"
#include "worker/model/model.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        struct ha_error err = {0};                                                                 \
        int ok_rc = (call);                                                                        \
        if (ok_rc != 0)                                                                            \
            fail_msg("%s: %s", #call, ha_error_text(&err));                                        \
    } while (0)

/* Numbers in [-1, 1) that are the same everywhere. */
struct random {
    uint64_t state;
};

float random_uniform(struct random *random);
int64_t random_below(struct random *random, int64_t n);

/* The CPU backend with this many threads. */
struct ha_backend *open_cpu(int threads);

/* The backend that HA_KERNEL_TEST_BACKEND names, as in the tests of kernels; the CPU without it. */
struct ha_backend *open_backend(int threads);
bool is_cpu(const struct ha_backend *backend);

/* Bytes of a backend's memory, in new host memory. */
void *to_host(struct ha_backend *backend, const void *memory, size_t bytes);

/* A model with random weights of about unit gain. */
struct small_model {
    struct ha_backend *backend;
    struct ha_model_config config;
    struct ha_weights weights;
    struct ha_model *model;
    void *memory;          /* the weights on the host */
    const void **imported; /* and as the backend reads them */
    int64_t n_imported;
    void **joined; /* of small_model_join */
    int64_t n_joined;
};

/* 4 layers, width 24, grouped heads, QK-norm or biases as the family has them. */
struct ha_model_config small_config(enum ha_model_family family);

/* Weights of one type. */
void small_model_open(struct small_model *small, struct ha_backend *backend,
                      const struct ha_model_config *config, enum ha_dtype dtype, uint64_t seed);
/* The same values, rounded to `precision` and then stored as dtype. */
void small_model_open_rounded(struct small_model *small, struct ha_backend *backend,
                              const struct ha_model_config *config, enum ha_dtype dtype,
                              enum ha_dtype precision, uint64_t seed);
void small_model_close(struct small_model *small);

/* Lay the weights out as ha_weight_files_open does where a backend copies them: q, k, v in one
 * matrix and gate and up in another, with so many columns for LoRA.  Nothing on the CPU. */
void small_model_join(struct small_model *small, int64_t lora_columns);

/* An adapter over layers first..last with random A and B (b_scale 0: B = 0). */
struct ha_adapter *random_adapter(struct ha_backend *backend, const struct ha_model_config *config,
                                  int64_t first, int64_t last, uint32_t modules, int64_t rank,
                                  float b_scale, uint64_t seed);

/* Pairs with random ids; some answers are empty.  The memory of ids is one block in *ret_ids. */
struct ha_pack_pair *random_pairs(int64_t n, int64_t vocab, uint64_t seed, int32_t **ret_ids);

/* ||a - b|| / ||b||, Frobenius; 0 for two zero tensors. */
double relative_gap(const float *a, const float *b, int64_t n);

/* ---- golden files ---- */

extern const char *const golden_families[4];

/* "<golden dir>/<family>/<name>", "<demo models>/<family>"; static memory, two at a time. */
const char *golden_path(const char *family, const char *name);
const char *demo_model_path(const char *family);

struct ha_json *golden_json(const char *family, const char *name);
struct ha_safetensors *golden_tensors(const char *family, const char *name);

/* Integers of a JSON array into new memory. */
int32_t *json_ids(const struct ha_json *array, int64_t *ret_n);

#endif
