/* The parts of the CUDA backend that need no device. */
#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "kernels/cuda/gemm_choice.h"
#include "kernels/cuda/limit.h"

static void limits_are_read(void **state)
{
    static const struct {
        const char *text;
        int64_t bytes; /* -1: refused */
    } cases[] = {
        {NULL, 0},
        {"", 0},
        {"1", 1},
        {"25769803776", 25769803776},
        {"24G", (int64_t)24 << 30},
        {"24GiB", (int64_t)24 << 30},
        {"1.5GB", (int64_t)3 << 29},
        {"512m", 512 << 20},
        {"2T", (int64_t)2 << 40},
        {"7KiB", 7 << 10},
        {"0", -1},
        {"0.5", -1},
        {"-1", -1},
        {"24X", -1},
        {"24 G", -1},
        {"24Gi B", -1},
        {"G", -1},
        {"nan", -1},
        {"inf", -1},
        {"1e400", -1},
        {"9999999999T", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_error why = {0};
        int64_t bytes = -1;
        int rc = ha_cuda_limit_parse(cases[i].text, &bytes, &why);

        if (bytes != cases[i].bytes || rc != (cases[i].bytes < 0 ? -EINVAL : 0))
            fail_msg("\"%s\" gives %d, %lld", cases[i].text ? cases[i].text : "(none)", rc,
                     (long long)bytes);
        if (rc < 0)
            assert_non_null(strstr(why.text, cases[i].text));
    }
}

static void operands_meet_in_one_type(void **state)
{
    const enum ha_dtype F32 = HA_DTYPE_F32, BF16 = HA_DTYPE_BF16, F16 = HA_DTYPE_F16;
    const enum ha_dtype cases[][4] = {
        {F32, F32, F32, F32},    {BF16, BF16, F32, BF16}, {F16, F16, F32, F16},
        {BF16, F32, F32, BF16},  {F32, BF16, F32, BF16},  {F16, F32, F32, F32},
        {BF16, F16, F32, BF16},  {F32, F32, BF16, BF16},  {F16, F16, BF16, BF16},
        {BF16, F32, BF16, BF16},
    };
    enum ha_dtype in = HA_DTYPE_F32;
    struct ha_error why;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_ok(ha_cuda_product_type(cases[i][0], cases[i][1], cases[i][2], &in, &err));
        assert_int_equal(in, cases[i][3]);
    }
    assert_int_equal(ha_cuda_product_type(HA_DTYPE_F16, HA_DTYPE_F16, HA_DTYPE_F16, &in, &why),
                     -EINVAL);
}

static void shapes_share_a_coarse_grid(void **state)
{
    int64_t last = 0, different = 0;

    (void)state;
    for (int64_t n = 1; n <= 20000; n++) {
        int64_t rounded = ha_cuda_product_rounded(n);

        assert_true(rounded >= n && rounded >= last && rounded - n <= n / 8);
        assert_int_equal(ha_cuda_product_rounded(rounded), rounded);
        different += rounded != last;
        last = rounded;
    }
    assert_true(different < 120);
    assert_int_equal(ha_cuda_product_rounded(4096), 4096);
    assert_int_equal(ha_cuda_product_rounded(14336), 14336);
}

/* Packs of like length share a key; what an algorithm depends on is in it. */
static void keys_tell_products_apart(void **state)
{
    struct ha_matrix c = matrix_of((void *)0x1000, HA_DTYPE_BF16, 1000, 4096, 4096);
    struct ha_matrix a = matrix_of((void *)0x2000, HA_DTYPE_BF16, 1000, 512, 512);
    struct ha_matrix b = matrix_of((void *)0x3000, HA_DTYPE_BF16, 4096, 512, 512);
    struct ha_cuda_product first = ha_cuda_product_of(&c, &a, false, &b, true, 0.0f), other;

    (void)state;
    assert_int_equal(first.rows, 1024);
    assert_int_equal(first.depth, 512);
    assert_true(first.align_a == 16 && first.align_b == 16 && first.align_c == 16);
    c.rows = a.rows = 1001;
    other = ha_cuda_product_of(&c, &a, false, &b, true, 0.0f);
    assert_memory_equal(&first, &other, sizeof(first));
    other = ha_cuda_product_of(&c, &a, false, &b, true, 1.0f);
    assert_int_equal(other.accumulate, 1);
    a.stride = 513;
    b.data = (void *)0x3004;
    c.data = (void *)0x1008;
    other = ha_cuda_product_of(&c, &a, false, &b, true, 0.0f);
    assert_true(other.align_a == 2 && other.align_b == 4 && other.align_c == 8);
    a = matrix_of((void *)0x2000, HA_DTYPE_F32, 512, 1001, 1001);
    other = ha_cuda_product_of(&c, &a, true, &b, true, 0.0f);
    assert_true(other.depth == 512 && other.align_a == 4 && other.transpose_a);
}

static struct ha_cuda_choice choice_of(struct random *random, int64_t rows)
{
    struct ha_cuda_choice choice = {
        .product = {rows, 4096, 512, HA_DTYPE_BF16, HA_DTYPE_F32, 0, 1, 16, 2, 4, 1},
        .timed = (uint8_t)random_below(random, 2)};

    for (int i = 0; i < HA_CUDA_ALGORITHM_WORDS; i++)
        choice.algorithm[i] = (uint64_t)random_below(random, INT64_MAX);
    return choice;
}

static void fill(struct ha_cuda_choices *choices, int64_t n)
{
    struct random random = {51};

    for (int64_t i = 0; i < n; i++) {
        struct ha_cuda_choice choice = choice_of(&random, i * 7919 % n + 1);

        assert_ok(ha_cuda_choices_put(choices, &choice, &err));
    }
}

static void choices_are_found_and_replaced(void **state)
{
    struct ha_cuda_choices choices = {0};
    struct random random = {52};
    struct ha_cuda_choice other = choice_of(&random, 17);

    (void)state;
    assert_null(ha_cuda_choices_find(&choices, &other.product));
    fill(&choices, 300);
    assert_int_equal(choices.n, 300);
    for (int64_t i = 0; i < 300; i++)
        assert_int_equal(choices.list[i].product.rows, i + 1);
    assert_ok(ha_cuda_choices_put(&choices, &other, &err));
    assert_int_equal(choices.n, 300);
    assert_memory_equal(ha_cuda_choices_find(&choices, &other.product)->algorithm, other.algorithm,
                        sizeof(other.algorithm));
    other.product.align_b = 8;
    assert_null(ha_cuda_choices_find(&choices, &other.product));
    ha_cuda_choices_clear(&choices);
}

static void blobs_come_back(void **state)
{
    struct ha_cuda_choices choices = {0}, back = {0};
    int64_t n_timed = 0;
    void *blob, *again;
    size_t bytes, bytes_again;
    struct ha_error why;

    (void)state;
    fill(&choices, 40);
    for (int64_t i = 0; i < choices.n; i++)
        n_timed += choices.list[i].timed;
    assert_true(n_timed > 0 && n_timed < 40);
    assert_ok(ha_cuda_choices_export(&choices, "a kind", &blob, &bytes, &err));
    assert_ok(ha_cuda_choices_import(&back, "a kind", blob, bytes, &err));
    assert_ok(ha_cuda_choices_export(&back, "a kind", &again, &bytes_again, &err));
    assert_int_equal(bytes, bytes_again);
    assert_memory_equal(blob, again, bytes);
    assert_int_equal(ha_cuda_choices_import(&back, "another kind", blob, bytes, &why), -ESTALE);
    assert_non_null(strstr(why.text, "a kind"));
    assert_int_equal(back.n, n_timed);
    for (int64_t i = 0; i < back.n; i++)
        assert_true(back.list[i].timed);
    free(blob);
    free(again);
    ha_cuda_choices_clear(&choices);
    ha_cuda_choices_clear(&back);
}

static void sign(uint8_t *blob, size_t bytes)
{
    ha_sha256(blob, bytes - HA_SHA256_BYTES, blob + bytes - HA_SHA256_BYTES);
}

/* Cut off anywhere, changed anywhere, or changed and signed again: refused or read, never
 * followed; the table stays as it was when it is refused. */
static void bad_blobs_are_refused(void **state)
{
    enum { ENTRIES_AT = 8 + 12 + 6 };
    struct ha_cuda_choices choices = {0}, table = {0};
    uint8_t *blob, *copy;
    void *made;
    size_t bytes;

    (void)state;
    fill(&choices, 3);
    for (int64_t i = 0; i < choices.n; i++)
        choices.list[i].timed = 1;
    fill(&table, 2);
    assert_ok(ha_cuda_choices_export(&choices, "a kind", &made, &bytes, &err));
    blob = made;
    for (size_t n = 0; n < bytes; n++) {
        copy = malloc(n ? n : 1); /* of that very size, for sanitizers */
        assert_non_null(copy);
        memcpy(copy, blob, n);
        assert_int_equal(ha_cuda_choices_import(&table, "a kind", copy, n, NULL), -EINVAL);
        if (n > HA_SHA256_BYTES) {
            sign(copy, n);
            assert_int_equal(ha_cuda_choices_import(&table, "a kind", copy, n, NULL), -EINVAL);
        }
        free(copy);
    }
    assert_int_equal(table.n, 2);
    for (size_t i = 0; i < bytes; i++) {
        blob[i] ^= 0x80;
        assert_int_equal(ha_cuda_choices_import(&table, "a kind", blob, bytes, NULL), -EINVAL);
        blob[i] ^= 0x80;
    }
    blob[ENTRIES_AT] = 3; /* rows of the first entry: not in ascending order */
    sign(blob, bytes);
    assert_int_equal(ha_cuda_choices_import(&table, "a kind", blob, bytes, NULL), -EINVAL);
    blob[ENTRIES_AT] = 1;
    blob[ENTRIES_AT + 24 + 4] = 3; /* an alignment that is no power of two */
    sign(blob, bytes);
    assert_int_equal(ha_cuda_choices_import(&table, "a kind", blob, bytes, NULL), -EINVAL);
    blob[ENTRIES_AT + 24 + 4] = 16;
    blob[ENTRIES_AT + 24] = 7; /* no type */
    sign(blob, bytes);
    assert_int_equal(ha_cuda_choices_import(&table, "a kind", blob, bytes, NULL), -EINVAL);
    memset(blob + 16, 0xff, 4); /* entries without end */
    sign(blob, bytes);
    assert_int_equal(ha_cuda_choices_import(&table, "a kind", blob, bytes, NULL), -EINVAL);
    assert_int_equal(table.n, 2);
    free(blob);
    ha_cuda_choices_clear(&choices);
    ha_cuda_choices_clear(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_read),
        cmocka_unit_test(operands_meet_in_one_type),
        cmocka_unit_test(shapes_share_a_coarse_grid),
        cmocka_unit_test(keys_tell_products_apart),
        cmocka_unit_test(choices_are_found_and_replaced),
        cmocka_unit_test(blobs_come_back),
        cmocka_unit_test(bad_blobs_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
