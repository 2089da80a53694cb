/* Weight files: single and sharded, aligned or not, and every refusal by name. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

enum { MAX_TENSORS = 96, NAME_BYTES = 96 };

static char dir[] = "/tmp/ha_test_weights_XXXXXX";

/* The tensors of a small model, as files hold them. */
struct tensors {
    struct ha_safetensors_item items[MAX_TENSORS];
    char names[MAX_TENSORS][NAME_BYTES];
    int64_t n;
};

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static void add(struct tensors *tensors, const char *name, const struct ha_matrix *matrix)
{
    struct ha_safetensors_item *item = &tensors->items[tensors->n];

    if (!matrix->data)
        return;
    snprintf(tensors->names[tensors->n], NAME_BYTES, "%s", name);
    *item = (struct ha_safetensors_item){
        tensors->names[tensors->n],
        matrix->dtype == HA_DTYPE_F32    ? HA_SAFETENSORS_F32
        : matrix->dtype == HA_DTYPE_BF16 ? HA_SAFETENSORS_BF16
                                         : HA_SAFETENSORS_F16,
        matrix->rows == 1 ? 1 : 2,
        {matrix->rows == 1 ? matrix->cols : matrix->rows, matrix->rows == 1 ? 0 : matrix->cols},
        matrix->data};
    tensors->n++;
}

static void list_tensors(const struct small_model *small, struct tensors *tensors)
{
    const struct ha_weights *weights = &small->weights;
    char name[NAME_BYTES];

    tensors->n = 0;
    add(tensors, "model.embed_tokens.weight", &weights->embedding);
    add(tensors, "model.norm.weight", &weights->final_norm);
    add(tensors, "lm_head.weight", &weights->head);
    for (int i = 0; i < (int)small->config.n_layers; i++) {
        const struct ha_layer_weights *layer = &weights->layers[i];
        const struct {
            const char *name;
            const struct ha_matrix *matrix;
        } norms[] = {{"input_layernorm", &layer->input_norm},
                     {"post_attention_layernorm", &layer->post_norm},
                     {"self_attn.q_norm", &layer->q_norm},
                     {"self_attn.k_norm", &layer->k_norm}};

        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const char *path = ha_module_path((enum ha_module)module);

            snprintf(name, sizeof(name), "model.layers.%d.%s.weight", i, path);
            add(tensors, name, &layer->linear[module]);
            snprintf(name, sizeof(name), "model.layers.%d.%s.bias", i, path);
            add(tensors, name, &layer->bias[module]);
        }
        for (size_t j = 0; j < 4; j++) {
            snprintf(name, sizeof(name), "model.layers.%d.%s.weight", i, norms[j].name);
            add(tensors, name, norms[j].matrix);
        }
    }
}

static void write_items(const char *name, const struct ha_safetensors_item *items, int64_t n)
{
    char *path = ha_path_join(dir, name);

    assert_ok(ha_safetensors_write(path, items, n, NULL, 0, &err));
    free(path);
}

static void write_text(const char *name, const char *text)
{
    char *path = ha_path_join(dir, name);

    assert_ok(ha_file_write(path, text, strlen(text), 0644, &err));
    free(path);
}

static void clear_dir(void)
{
    assert_ok(ha_path_remove_tree(dir, &err));
    assert_ok(ha_path_make_dirs(dir, 0700, &err));
}

static void expect_equal(const struct ha_matrix *got, const struct ha_matrix *want)
{
    if (!want->data) {
        assert_null(got->data);
        return;
    }
    assert_non_null(got->data);
    assert_int_equal(got->rows, want->rows);
    assert_int_equal(got->cols, want->cols);
    assert_int_equal(got->dtype, want->dtype);
    assert_memory_equal(got->data, want->data,
                        (size_t)(want->rows * want->cols) * ha_dtype_bytes(want->dtype));
}

static void expect_weights(const struct small_model *small)
{
    struct ha_weight_files *files = NULL;
    const struct ha_weights *got;

    assert_ok(ha_weight_files_open(small->backend, &small->config, dir, &files, &err));
    got = ha_weight_files_weights(files);
    expect_equal(&got->embedding, &small->weights.embedding);
    expect_equal(&got->head, &small->weights.head);
    expect_equal(&got->final_norm, &small->weights.final_norm);
    if (small->config.tied)
        assert_ptr_equal(got->head.data, got->embedding.data);
    for (int64_t i = 0; i < small->config.n_layers; i++) {
        const struct ha_layer_weights *a = &got->layers[i], *b = &small->weights.layers[i];

        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            expect_equal(&a->linear[module], &b->linear[module]);
            expect_equal(&a->bias[module], &b->bias[module]);
        }
        expect_equal(&a->input_norm, &b->input_norm);
        expect_equal(&a->post_norm, &b->post_norm);
        expect_equal(&a->q_norm, &b->q_norm);
        expect_equal(&a->k_norm, &b->k_norm);
    }
    ha_weight_files_close(files);
}

static void files_of_every_form(void **state)
{
    static const enum ha_dtype dtypes[] = {HA_DTYPE_F32, HA_DTYPE_BF16, HA_DTYPE_F16};

    (void)state;
    for (int form = 0; form < 7; form++) {
        struct ha_backend *backend = open_cpu(1);
        struct ha_model_config config = small_config((enum ha_model_family)(form % 3));
        struct small_model small;
        struct tensors tensors;
        int64_t half;

        config.o_bias = config.qkv_bias = form == 3 || form % 3 == HA_FAMILY_QWEN2;
        config.o_bias = form == 3;
        config.tied = form >= 4;
        small_model_open(&small, backend, &config, dtypes[form * 2 % 3], 1);
        list_tensors(&small, &tensors);
        clear_dir();
        half = tensors.n / 2;
        if (form < 3) {
            write_items("model.safetensors", tensors.items, tensors.n);
        } else {
            char index[16384];
            size_t used = (size_t)snprintf(index, sizeof(index), "{\"weight_map\": {");

            write_items("model-00001-of-00002.safetensors", tensors.items, half);
            write_items("model-00002-of-00002.safetensors", tensors.items + half, tensors.n - half);
            for (int64_t i = 0; i < tensors.n; i++)
                used += (size_t)snprintf(index + used, sizeof(index) - used,
                                         "%s\"%s\": \"model-0000%d-of-00002.safetensors\"",
                                         i ? ", " : "", tensors.names[i], i < half ? 1 : 2);
            snprintf(index + used, sizeof(index) - used, "}}");
            write_text("model.safetensors.index.json", index);
        }
        expect_weights(&small);
        small_model_close(&small);
        ha_backend_close(backend);
    }
}

/* The same file with a header one byte longer: no tensor is aligned any more. */
static void unaligned_tensors_are_copied(void **state)
{
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct small_model small;
    struct tensors tensors;
    char *path, *bytes = NULL, *shifted;
    size_t size = 0;
    uint64_t header;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 1);
    list_tensors(&small, &tensors);
    clear_dir();
    write_items("model.safetensors", tensors.items, tensors.n);
    path = ha_path_join(dir, "model.safetensors");
    assert_ok(ha_file_read(path, 1 << 24, &bytes, &size, &err));
    memcpy(&header, bytes, sizeof(header));
    shifted = ha_calloc((int64_t)size + 1, 1);
    assert_non_null(shifted);
    memcpy(shifted, bytes, 8 + header);
    shifted[8 + header] = ' ';
    memcpy(shifted + 9 + header, bytes + 8 + header, size - 8 - header);
    header++;
    memcpy(shifted, &header, sizeof(header));
    assert_ok(ha_file_write(path, shifted, size + 1, 0644, &err));
    expect_weights(&small);
    free(shifted);
    free(bytes);
    free(path);
    small_model_close(&small);
    ha_backend_close(backend);
}

static void expect_refused(const struct small_model *small, const char *names)
{
    struct ha_weight_files *files = NULL;
    struct ha_error err = {0};

    if (ha_weight_files_open(small->backend, &small->config, dir, &files, &err) == 0)
        fail_msg("accepted; expected an error that names %s", names);
    if (!strstr(err.text, names))
        fail_msg("\"%s\" does not name %s", err.text, names);
    assert_null(files);
}

static void refusals_name_the_tensor(void **state)
{
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);
    struct small_model small;
    struct tensors tensors;
    struct ha_safetensors_item saved;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 1);
    list_tensors(&small, &tensors);
    clear_dir();
    expect_refused(&small, "model.safetensors");

    /* Each tensor in turn is left out, then has another shape. */
    for (int64_t i = 0; i < tensors.n; i++) {
        saved = tensors.items[i];
        tensors.items[i] = tensors.items[tensors.n - 1];
        write_items("model.safetensors", tensors.items, tensors.n - 1);
        expect_refused(&small, saved.name);
        tensors.items[i] = saved;
        tensors.items[i].shape[0]--;
        write_items("model.safetensors", tensors.items, tensors.n);
        expect_refused(&small, saved.name);
        tensors.items[i] = saved;
    }

    /* A tensor of no place, of a layer that is not there, of another family. */
    tensors.items[tensors.n] = tensors.items[1];
    static const char *const strangers[] = {"model.layers.4.mlp.up_proj.weight",
                                            "model.layers.01.mlp.up_proj.weight",
                                            "model.layers.1.mlp.up_proj.bias",
                                            "model.layers.1.self_attn.q_proj.bias",
                                            "transformer.h.0.weight",
                                            "model.layers.99999999999999999999.x"};
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        tensors.items[tensors.n].name = strangers[i];
        write_items("model.safetensors", tensors.items, tensors.n + 1);
        expect_refused(&small, strangers[i]);
    }
    tensors.items[tensors.n].name = "model.layers.1.self_attn.rotary_emb.inv_freq";
    write_items("model.safetensors", tensors.items, tensors.n + 1);
    expect_weights(&small);

    /* A type that is not read. */
    tensors.items[1].dtype = HA_SAFETENSORS_I32;
    write_items("model.safetensors", tensors.items, tensors.n);
    expect_refused(&small, "I32");
    small_model_close(&small);
    ha_backend_close(backend);
}

static void bad_indexes(void **state)
{
    static const struct {
        const char *index, *names;
    } cases[] = {
        {"{}", "weight_map"},
        {"{\"weight_map\": {}}", "weight_map"},
        {"{\"weight_map\": {\"a\": \"../x\"}}", "weight_map.a"},
        {"{\"weight_map\": {\"a\": 3}}", "weight_map.a"},
        {"{\"weight_map\": {\"a\": \"missing.safetensors\"}}", "missing.safetensors"},
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}", "twice"},
    };
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct small_model small;
    struct tensors tensors;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 1);
    list_tensors(&small, &tensors);
    clear_dir();
    write_items("one.safetensors", tensors.items, tensors.n);
    write_items("two.safetensors", tensors.items, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text("model.safetensors.index.json", cases[i].index);
        expect_refused(&small, cases[i].names);
    }
    small_model_close(&small);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_every_form),
        cmocka_unit_test(unaligned_tensors_are_copied),
        cmocka_unit_test(refusals_name_the_tensor),
        cmocka_unit_test(bad_indexes),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
