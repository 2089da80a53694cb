#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/base/rng_philox.h"

/* kat_vectors of Random123. */
static void known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        uint32_t words[4];

        ha_philox(vectors[i].key, vectors[i].counter, words);
        assert_memory_equal(words, vectors[i].want, sizeof(words));
    }
}

static void uniform_uses_all_its_arguments(void **state)
{
    double base = ha_philox_uniform(1, HA_PHILOX_SAMPLING, 2, 3), sum = 0.0;

    (void)state;
    assert_true(base == ha_philox_uniform(1, HA_PHILOX_SAMPLING, 2, 3));
    assert_true(base != ha_philox_uniform(1 + ((uint64_t)1 << 32), HA_PHILOX_SAMPLING, 2, 3));
    assert_true(base != ha_philox_uniform(1, HA_PHILOX_DROPOUT, 2, 3));
    assert_true(base != ha_philox_uniform(1, HA_PHILOX_SAMPLING, 2 + ((uint64_t)1 << 32), 3));
    assert_true(base != ha_philox_uniform(1, HA_PHILOX_SAMPLING, 2, 4));
    for (uint32_t i = 0; i < 20000; i++) {
        double u = ha_philox_uniform(7, HA_PHILOX_SAMPLING, 0, i);

        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
    }
    assert_true(sum > 9900.0 && sum < 10100.0); /* 2.4 standard deviations are 98 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(uniform_uses_all_its_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
