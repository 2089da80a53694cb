/* The two generators against published streams and vectors (design reference, sections 2.4, 3.1
 * and 5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/rng_numpy.h"
#include "common/base/rng_torch.h"

static void numpy_stream(void **state)
{
    static const uint64_t raw[] = {0xc621fbcd16d92688, 0x705a5661a791ffc1, 0xdbcd12c26eda1624,
                                   0xb286b60e1600888d};
    static const double reals[] = {0.7739560485559633, 0.4388784397520523, 0.8585979199113825};
    struct ha_rng_numpy rng;

    (void)state;
    ha_rng_numpy_init(&rng, 42);
    for (int i = 0; i < 4; i++)
        assert_true(ha_rng_numpy_u64(&rng) == raw[i]);
    ha_rng_numpy_init(&rng, 42);
    for (int i = 0; i < 3; i++)
        assert_true(ha_rng_numpy_double(&rng) == reals[i]);
    ha_rng_numpy_init(&rng, 42);
    assert_true(ha_rng_numpy_u32(&rng) == (uint32_t)raw[0]);
    assert_true(ha_rng_numpy_u32(&rng) == (uint32_t)(raw[0] >> 32));
    assert_true(ha_rng_numpy_u32(&rng) == (uint32_t)raw[1]);
}

static uint64_t fnv_of_order(const int64_t *order, int64_t n)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (int64_t i = 0; i < n; i++)
        for (int byte = 0; byte < 8; byte++)
            hash = (hash ^ (((uint64_t)order[i] >> (8 * byte)) & 0xff)) * 0x100000001b3;
    return hash;
}

static void numpy_permutation(void **state)
{
    static const struct {
        int64_t n, first[5];
        uint64_t fnv;
    } cases[] = {
        {160800, {142780, 36562, 3888, 81143, 108089}, 0x590b7e43b7d31509},
        {8552, {5772, 3151, 4968, 2482, 7527}, 0xc2aef0c7119450f5},
        {43835, {4102, 26902, 34562, 9618, 37874}, 0x9951d2b491c25537},
        {42537, {13414, 41071, 9629, 8976, 26331}, 0x3c9deb6e890d527b},
    };
    static const int64_t ten[] = {5, 6, 0, 7, 3, 2, 4, 9, 1, 8};
    int64_t *order = malloc(160800 * sizeof(*order));
    struct ha_rng_numpy rng;

    (void)state;
    assert_non_null(order);
    ha_rng_numpy_init(&rng, 42);
    ha_rng_numpy_permutation(&rng, order, 10);
    assert_memory_equal(order, ten, sizeof(ten));
    ha_rng_numpy_init(&rng, 1234);
    ha_rng_numpy_permutation(&rng, order, 30);
    assert_int_equal(order[0], 28);
    assert_int_equal(order[2], 10);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ha_rng_numpy_init(&rng, 42);
        ha_rng_numpy_permutation(&rng, order, cases[i].n);
        assert_memory_equal(order, cases[i].first, sizeof(cases[i].first));
        assert_true(fnv_of_order(order, cases[i].n) == cases[i].fnv);
    }
    free(order);
}

/* default_rng(2**40 + 7).permutation(6) and default_rng(0).permutation(6), NumPy 2.4. */
static void numpy_other_seeds(void **state)
{
    static const int64_t wide[] = {5, 4, 3, 1, 0, 2}, zero[] = {3, 2, 5, 4, 0, 1};
    struct ha_rng_numpy rng;
    int64_t order[6];

    (void)state;
    ha_rng_numpy_init(&rng, (UINT64_C(1) << 40) + 7);
    ha_rng_numpy_permutation(&rng, order, 6);
    assert_memory_equal(order, wide, sizeof(wide));
    ha_rng_numpy_init(&rng, 0);
    ha_rng_numpy_permutation(&rng, order, 6);
    assert_memory_equal(order, zero, sizeof(zero));
}

static void torch_randperm(void **state)
{
    static const int64_t ten[] = {2, 6, 1, 8, 4, 5, 0, 9, 3, 7};
    static const int64_t thousand[] = {542, 618, 816, 68, 94, 215, 60, 585, 942, 165};
    static const int64_t epoch_1[] = {588, 148, 223, 575};
    static const int64_t large[] = {155142, 127343, 143264, 101914, 6638};
    int64_t *order = malloc(160800 * sizeof(*order));
    struct ha_rng_torch rng;
    struct ha_error err = {0};

    (void)state;
    assert_non_null(order);
    ha_rng_torch_init(&rng, 42);
    assert_int_equal(ha_rng_torch_randperm(&rng, order, 10, &err), 0);
    assert_memory_equal(order, ten, sizeof(ten));
    ha_rng_torch_init(&rng, 42);
    assert_int_equal(ha_rng_torch_randperm(&rng, order, 1000, &err), 0);
    assert_memory_equal(order, thousand, sizeof(thousand));
    ha_rng_torch_init(&rng, 43);
    assert_int_equal(ha_rng_torch_randperm(&rng, order, 1000, &err), 0);
    assert_memory_equal(order, epoch_1, sizeof(epoch_1));
    ha_rng_torch_init(&rng, (UINT64_C(1) << 32) + 42);
    assert_int_equal(ha_rng_torch_randperm(&rng, order, 160800, &err), 0);
    assert_memory_equal(order, large, sizeof(large));
    assert_int_equal(ha_rng_torch_randperm(&rng, order, 214748364, &err), -ERANGE);
    free(order);
}

/* The start of LoRA A of the first target 4096 -> 4096, rank 8: two inits are drawn and discarded
 * before it. */
static void torch_uniform(void **state)
{
    static const float expected[] = {0.0077247228f, 0.0127180330f, 0.0136874765f, 0.0040318519f};
    struct ha_rng_torch rng;

    (void)state;
    ha_rng_torch_init(&rng, 42);
    for (int i = 0; i < 2 * 8 * 4096; i++)
        (void)ha_rng_torch_u32(&rng);
    for (int i = 0; i < 4; i++)
        assert_true(ha_rng_torch_uniform(&rng, -1.0f / 64, 1.0f / 64) == expected[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpy_stream),      cmocka_unit_test(numpy_permutation),
        cmocka_unit_test(numpy_other_seeds), cmocka_unit_test(torch_randperm),
        cmocka_unit_test(torch_uniform),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
