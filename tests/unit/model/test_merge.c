/* Merged directories: adapted weights are W + scale * B A rounded once to W's type, all others are
 * the same bytes, in one file and in shards. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "worker/model/merge.h"

enum { MAX_TENSORS = 256 };

static char dir[] = "/tmp/ha_test_merge_XXXXXX";

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

/* "DIR/a/b"; static memory, four at a time. */
static const char *in_dir(const char *folder, const char *name)
{
    static char texts[4][512];
    static int next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof(texts[0]), "%s/%s/%s", dir, folder, name);
    return text;
}

static float value_at(const struct ha_safetensors_tensor *tensor, int64_t i)
{
    float value;
    uint16_t half;

    if (tensor->dtype == HA_SAFETENSORS_F32) {
        memcpy(&value, (const char *)tensor->data + i * 4, sizeof(value));
        return value;
    }
    memcpy(&half, (const char *)tensor->data + i * 2, sizeof(half));
    return tensor->dtype == HA_SAFETENSORS_F16 ? ha_half_from_f16(half) : ha_half_from_bf16(half);
}

static void copy(const char *family, const char *name, const char *folder)
{
    char from[512];

    snprintf(from, sizeof(from), "%s/%s", demo_model_path(family), name);
    assert_ok(ha_file_copy(from, in_dir(folder, name), 0644, &err));
}

/* A demo model with its weights as this type, in n_shards files. */
static void convert_model(const char *family, const char *folder, enum ha_safetensors_dtype dtype,
                          int n_shards)
{
    struct ha_safetensors_item items[MAX_TENSORS];
    struct ha_safetensors *file = NULL;
    char path[512], index[65536] = "{\"metadata\": {}, \"weight_map\": {", name[64];
    size_t bytes = ha_safetensors_dtype_bytes(dtype);
    int64_t n, done = 0;

    assert_ok(ha_path_make_dirs(in_dir(folder, ""), 0700, &err));
    copy(family, "config.json", folder);
    copy(family, "tokenizer.json", folder);
    snprintf(path, sizeof(path), "%s/model.safetensors", demo_model_path(family));
    assert_ok(ha_safetensors_open(path, &file, &err));
    n = ha_safetensors_count(file);
    assert_in_range(n, 1, MAX_TENSORS);
    for (int64_t t = 0; t < n; t++) {
        const struct ha_safetensors_tensor *tensor = ha_safetensors_at(file, t);
        char *data = ha_calloc(tensor->n_elements, bytes);
        size_t used = strlen(index);

        assert_non_null(data);
        for (int64_t i = 0; i < tensor->n_elements; i++) {
            float value = value_at(tensor, i);
            uint16_t half =
                dtype == HA_SAFETENSORS_F16 ? ha_half_to_f16(value) : ha_half_to_bf16(value);

            memcpy(data + (size_t)i * bytes, bytes == 4 ? (void *)&value : (void *)&half, bytes);
        }
        items[t] = (struct ha_safetensors_item){
            .name = tensor->name, .dtype = dtype, .rank = tensor->rank, .data = data};
        memcpy(items[t].shape, tensor->shape, sizeof(items[t].shape));
        snprintf(index + used, sizeof(index) - used, "%s\"%s\": \"part-%d.safetensors\"",
                 t ? ", " : "", tensor->name, (int)(t * n_shards / n));
    }
    if (n_shards == 1)
        assert_ok(
            ha_safetensors_write(in_dir(folder, "model.safetensors"), items, n, NULL, 0, &err));
    for (int shard = 0; n_shards > 1 && shard < n_shards; shard++) {
        int64_t end = done;

        while (end < n && end * n_shards / n == shard)
            end++;
        snprintf(name, sizeof(name), "part-%d.safetensors", shard);
        assert_ok(
            ha_safetensors_write(in_dir(folder, name), items + done, end - done, NULL, 0, &err));
        done = end;
    }
    snprintf(index + strlen(index), sizeof(index) - strlen(index), "}}");
    if (n_shards > 1)
        assert_ok(ha_file_write(in_dir(folder, "model.safetensors.index.json"), index,
                                strlen(index), 0644, &err));
    for (int64_t t = 0; t < n; t++)
        free((void *)(uintptr_t)items[t].data);
    ha_safetensors_close(file);
}

/* The merged tensor against W + scale * B A in double: it is the nearest value of W's type, but
 * where the double lies within f32 noise of the middle between two. */
static void expect_merged(const struct ha_safetensors_tensor *before,
                          const struct ha_safetensors_tensor *after, const struct ha_lora *lora,
                          float scale)
{
    static const double steps[] = {[HA_SAFETENSORS_F32] = 0x1p-23,
                                   [HA_SAFETENSORS_BF16] = 0x1p-7,
                                   [HA_SAFETENSORS_F16] = 0x1p-10};
    const float *a = lora->a.data, *b = lora->b.data;
    int64_t changed = 0, cols = lora->a.cols, rank = lora->a.rows;

    for (int64_t i = 0; i < before->n_elements; i++) {
        double delta = 0, size = 0, want;

        for (int64_t k = 0; k < rank; k++) {
            double term = (double)b[i / cols * rank + k] * (double)a[k * cols + i % cols];

            delta += term;
            size += fabs(term);
        }
        want = (double)value_at(before, i) + (double)scale * delta;
        /* Half a step of the type, subnormal halves included, and the noise of f32. */
        if (fabs((double)value_at(after, i) - want) >
            steps[before->dtype] * fabs(want) / 2 + 0x1p-25 +
                0x1p-22 * ((double)scale * size + fabs(want)))
            fail_msg("%s[%lld]: %.9g, not %.9g", before->name, (long long)i,
                     (double)value_at(after, i), want);
        changed +=
            value_at(after, i) < value_at(before, i) || value_at(after, i) > value_at(before, i);
    }
    assert_true(changed > before->n_elements / 4);
}

static void expect_file(const char *name, const struct ha_adapter *adapter, int64_t *ret_adapted)
{
    struct ha_safetensors *before = NULL, *after = NULL;

    assert_ok(ha_safetensors_open(in_dir("model", name), &before, &err));
    assert_ok(ha_safetensors_open(in_dir("out", name), &after, &err));
    assert_int_equal(ha_safetensors_count(before), ha_safetensors_count(after));
    assert_string_equal(ha_safetensors_metadata(after, "format"), "pt");
    for (int64_t t = 0; t < ha_safetensors_count(before); t++) {
        const struct ha_safetensors_tensor *old = ha_safetensors_at(before, t);
        const struct ha_safetensors_tensor *new = ha_safetensors_find(after, old->name);
        const struct ha_lora *lora = NULL;
        long long layer;
        char path[64];

        assert_non_null(new);
        assert_int_equal(new->dtype, old->dtype);
        assert_int_equal(new->bytes, old->bytes);
        if (sscanf(old->name, "model.layers.%lld.%63s", &layer, path) == 2) {
            for (int module = 0; module < HA_MODULE_COUNT; module++) {
                const char *tail = ha_module_path((enum ha_module)module);

                if (strncmp(path, tail, strlen(tail)) == 0 &&
                    strcmp(path + strlen(tail), ".weight") == 0)
                    lora = ha_adapter_lora(adapter, layer, (enum ha_module)module);
            }
        }
        if (lora && lora->a.data) {
            expect_merged(old, new, lora, ha_adapter_scale(adapter));
            ++*ret_adapted;
        } else {
            assert_memory_equal(old->data, new->data, old->bytes);
        }
    }
    ha_safetensors_close(after);
    ha_safetensors_close(before);
}

static void merged_files(void **state)
{
    static const struct {
        const char *family; /* of those whose weights are one file */
        enum ha_safetensors_dtype dtype;
        int n_shards;
    } forms[] = {{"llama-2-demo", HA_SAFETENSORS_BF16, 1},
                 {"qwen2.5-demo", HA_SAFETENSORS_F16, 3},
                 {"qwen3-demo", HA_SAFETENSORS_F32, 2},
                 {"llama-2-demo", HA_SAFETENSORS_BF16, 2}};
    struct ha_backend *backend = open_cpu(1);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        const char *family = forms[i].family;
        char adapter_dir[512];
        const struct ha_adapter_settings *settings;
        struct ha_adapter_geometry geometry;
        struct ha_adapter *adapter = NULL;
        struct ha_model_config config;
        struct ha_model *model = NULL;
        struct ha_error refusal = {0};
        int64_t adapted = 0;
        char name[64];

        snprintf(adapter_dir, sizeof(adapter_dir), "%s", golden_path(family, "adapter-random"));
        assert_ok(ha_path_remove_tree(in_dir("model", ""), &err));
        assert_ok(ha_path_remove_tree(in_dir("out", ""), &err));
        convert_model(family, "model", forms[i].dtype, forms[i].n_shards);
        assert_ok(ha_model_config_load(demo_model_path(family), &config, &err));
        ha_model_config_geometry(&config, &geometry);
        assert_ok(ha_adapter_load(backend, &geometry, adapter_dir, &adapter, &err));
        assert_ok(
            ha_model_merge(backend, in_dir("model", ""), adapter_dir, in_dir("out", ""), &err));
        for (int shard = 0; shard < forms[i].n_shards; shard++) {
            snprintf(name, sizeof(name), "part-%d.safetensors", shard);
            expect_file(forms[i].n_shards == 1 ? "model.safetensors" : name, adapter, &adapted);
        }
        settings = ha_adapter_settings(adapter);
        assert_int_equal(adapted, settings->n_layers * __builtin_popcount(settings->modules));
        assert_true(ha_path_exists(in_dir("out", "tokenizer.json")));
        assert_ok(ha_model_open(backend, in_dir("out", ""), &model, &err));
        ha_model_destroy(model);

        /* Never over a model that is there. */
        assert_int_equal(ha_model_merge(backend, in_dir("model", ""), adapter_dir,
                                        in_dir("model", ""), &refusal),
                         -EEXIST);
        assert_non_null(strstr(ha_error_text(&refusal), "config.json"));
        ha_adapter_destroy(adapter);
    }
    ha_backend_close(backend);
}

/* An adapter whose product leaves fp16's range is refused by the tensor's name, and leaves no
 * config.json that would make the directory look like a model. */
static void overflow_is_refused(void **state)
{
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter_geometry geometry;
    struct ha_model_config config;
    struct ha_adapter *adapter;
    struct ha_error refusal = {0};
    const char *family = golden_families[3];

    (void)state;
    assert_ok(ha_path_remove_tree(in_dir("model", ""), &err));
    assert_ok(ha_path_remove_tree(in_dir("out", ""), &err));
    convert_model(family, "model", HA_SAFETENSORS_F16, 1);
    assert_ok(ha_model_config_load(demo_model_path(family), &config, &err));
    ha_model_config_geometry(&config, &geometry);
    adapter = random_adapter(backend, &config, 0, 0, 1u << HA_MODULE_V, 2, 1e7f, 3);
    assert_ok(ha_adapter_save(adapter, in_dir("adapter", ""), NULL, &err));
    assert_int_equal(ha_model_merge(backend, in_dir("model", ""), in_dir("adapter", ""),
                                    in_dir("out", ""), &refusal),
                     -ERANGE);
    assert_non_null(strstr(ha_error_text(&refusal), "model.layers.0.self_attn.v_proj.weight"));
    assert_false(ha_path_exists(in_dir("out", "config.json")));
    assert_false(ha_path_exists(in_dir("out", "model.safetensors")));
    ha_adapter_destroy(adapter);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_files),
        cmocka_unit_test(overflow_is_refused),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
