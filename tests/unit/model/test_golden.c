/* Logits and log-probs of the demo models against Transformers. */
#include "tests/unit/model/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "common/io/file.h"

/* ENGINE.md, numerics 1: of the largest logit. */
#define LOGIT_LIMIT 1e-5

static struct ha_pass *forward_whole(struct ha_model *model, const struct ha_pack *pack,
                                     struct ha_pass_rows *rows)
{
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens,
                                    .max_rows = pack->n_tokens,
                                    .lowest_layer = ha_model_config(model)->n_layers};
    struct ha_pass *pass = NULL;

    assert_ok(ha_pass_create(model, &limits, &pass, &err));
    assert_ok(ha_pass_forward(pass, pack, NULL, false, rows, &err));
    return pass;
}

static double largest_gap(const float *got, const float *want, int64_t n)
{
    double gap = 0;

    for (int64_t i = 0; i < n; i++)
        gap = fmax(gap, fabs((double)got[i] - (double)want[i]));
    return gap;
}

static void check_prompt(struct ha_model *model, const struct ha_json *prompt, int64_t index,
                         const struct ha_safetensors *tensors)
{
    double limit = LOGIT_LIMIT * ha_json_real(ha_json_get(prompt, "largest_logit"), 0);
    const struct ha_safetensors_tensor *logits, *logps;
    struct ha_pack_sequence sequence;
    struct ha_pack *pack = NULL;
    struct ha_pass_rows rows;
    struct ha_pass *pass;
    int32_t *ids = json_ids(ha_json_get(prompt, "ids"), &sequence.n_ids);
    int64_t positions, *token;
    float *got;
    char name[64];

    sequence.ids = ids;
    assert_ok(ha_pack_create_sequences(&sequence, 1, true, &pack, &err));
    pass = forward_whole(model, pack, &rows);
    snprintf(name, sizeof(name), "prompt%d.target_logps", (int)index);
    logps = ha_safetensors_find(tensors, name);
    snprintf(name, sizeof(name), "prompt%d.last_logits", (int)index);
    logits = ha_safetensors_find(tensors, name);
    assert_non_null(logps);
    assert_non_null(logits);
    assert_int_equal(logps->n_elements, rows.n_rows);
    /* A log-prob carries the errors of two logits. */
    assert_true(limit > 0);
    assert_true(largest_gap(rows.logp, logps->data, rows.n_rows) <= 2 * limit);

    positions = logits->shape[0];
    token = ha_calloc(positions, sizeof(*token));
    got = ha_calloc(logits->n_elements, sizeof(*got));
    assert_non_null(token);
    assert_non_null(got);
    for (int64_t i = 0; i < positions; i++)
        token[i] = sequence.n_ids - positions + i;
    assert_ok(ha_pass_logits(pass, token, positions, got, &err));
    print_message("  prompt %d: %d tokens, logits differ by %.2g of %.2g allowed\n", (int)index,
                  (int)sequence.n_ids, largest_gap(got, logits->data, logits->n_elements), limit);
    assert_true(largest_gap(got, logits->data, logits->n_elements) <= limit);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    free(got);
    free(token);
    free(ids);
}

static void logits_agree(void **state)
{
    const char *family = *state;
    struct ha_backend *backend;
    struct ha_model *model = NULL;
    struct ha_json *json, *prompts;
    struct ha_safetensors *tensors;

    backend = open_cpu(1);
    json = golden_json(family, "logits.json");
    tensors = golden_tensors(family, "logits.safetensors");
    prompts = ha_json_get(json, "prompts");
    assert_ok(ha_model_open(backend, demo_model_path(family), &model, &err));
    assert_true(ha_json_size(prompts) > 0);
    for (int64_t i = 0; i < ha_json_size(prompts); i++)
        check_prompt(model, ha_json_at(prompts, i), i, tensors);
    ha_model_destroy(model);
    ha_safetensors_close(tensors);
    ha_json_destroy(json);
    ha_backend_close(backend);
}

/* A trained Llama: each id of its greedy text is the arg max after those before it. */
static void greedy_text_of_stories(void **state)
{
    const char *data = getenv("HA_TEST_DATA");
    struct ha_pass_limits limits = {.statistics = true};
    struct ha_pack_sequence sequence = {NULL, 0};
    struct ha_backend *backend;
    struct ha_model *model = NULL;
    struct ha_pack *pack = NULL;
    struct ha_pass *pass = NULL;
    struct ha_pass_rows rows;
    char path[4096], *text = NULL, *at, *end;
    size_t size = 0;
    int32_t *ids;

    (void)state;
    if (!data) {
        print_message("[ SKIPPED ] HA_TEST_DATA is not set\n");
        skip();
    }
    snprintf(path, sizeof(path), "%s/models/stories260K/expected-greedy-ids.txt", data);
    assert_ok(ha_file_read(path, 1 << 20, &text, &size, &err));
    ids = ha_calloc((int64_t)size, sizeof(*ids));
    assert_non_null(ids);
    for (at = text; ids[sequence.n_ids] = (int32_t)strtol(at, &end, 10), end != at; at = end)
        sequence.n_ids++;
    assert_true(sequence.n_ids > 100);
    sequence.ids = ids;
    backend = open_cpu(1);
    snprintf(path, sizeof(path), "%s/models/stories260K", data);
    assert_ok(ha_model_open(backend, path, &model, &err));
    assert_ok(ha_pack_create_sequences(&sequence, 1, true, &pack, &err));
    limits.max_tokens = limits.max_rows = pack->n_tokens;
    limits.lowest_layer = ha_model_config(model)->n_layers;
    assert_ok(ha_pass_create(model, &limits, &pass, &err));
    assert_ok(ha_pass_forward(pass, pack, NULL, false, &rows, &err));
    for (int64_t i = 0; i < rows.n_rows; i++)
        assert_int_equal(rows.argmax[i], pack->row_target[i]);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    ha_model_destroy(model);
    ha_backend_close(backend);
    free(ids);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"logits of llama-2-demo", logits_agree, NULL, NULL, (void *)(uintptr_t) "llama-2-demo"},
        {"logits of llama-3.1-demo", logits_agree, NULL, NULL,
         (void *)(uintptr_t) "llama-3.1-demo"},
        {"logits of qwen2.5-demo", logits_agree, NULL, NULL, (void *)(uintptr_t) "qwen2.5-demo"},
        {"logits of qwen3-demo", logits_agree, NULL, NULL, (void *)(uintptr_t) "qwen3-demo"},
        cmocka_unit_test(greedy_text_of_stories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
