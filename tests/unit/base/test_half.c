/* 16-bit floats: every value widens and comes back, and narrowing gives the nearest value, ties to
 * even, found by looking at both neighbours in double precision. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "common/base/half.h"

struct form {
    float (*widen)(uint16_t bits);
    uint16_t (*narrow)(float value);
    int mantissa, bias;
};

static const struct form forms[] = {{ha_half_from_f16, ha_half_to_f16, 10, 15},
                                    {ha_half_from_bf16, ha_half_to_bf16, 7, 127}};

static double value_of(const struct form *form, uint16_t bits)
{
    int exponent = (bits & 0x7fff) >> form->mantissa;
    double mantissa = bits & ((1 << form->mantissa) - 1), unit = 1 << form->mantissa;
    double value = exponent == 0 ? ldexp(mantissa / unit, 1 - form->bias)
                                 : ldexp(1 + mantissa / unit, exponent - form->bias);

    return bits & 0x8000 ? -value : value;
}

static void every_value(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        const struct form *form = &forms[f];
        uint16_t infinity = (uint16_t)(0x7fff >> form->mantissa << form->mantissa);

        for (uint32_t i = 0; i < 65536; i++) {
            uint16_t bits = (uint16_t)i, magnitude = bits & 0x7fff;
            float wide = form->widen(bits);

            if (magnitude > infinity) {
                assert_true(isnan(wide));
                assert_true((form->narrow(wide) & 0x7fff) > infinity);
                continue;
            }
            if (magnitude == infinity)
                assert_true(isinf(wide));
            else
                assert_true((double)wide == value_of(form, bits));
            assert_int_equal(!!signbit(wide), bits >> 15);
            assert_int_equal(form->narrow(wide), bits);
        }
    }
}

/* Between two neighbours: the middle goes to the even one, a float to each side to the nearer. */
static void rounds_to_nearest_even(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        const struct form *form = &forms[f];
        uint16_t infinity = (uint16_t)(0x7fff >> form->mantissa << form->mantissa);

        for (uint16_t bits = 0; bits < infinity; bits++) {
            /* Above the largest value the next step would have been the power of two above it. */
            float middle =
                (float)((value_of(form, bits) + value_of(form, (uint16_t)(bits + 1))) / 2);
            uint16_t even = bits & 1 ? (uint16_t)(bits + 1) : bits;

            assert_int_equal(form->narrow(middle), even);
            assert_int_equal(form->narrow(-middle), even | 0x8000);
            assert_int_equal(form->narrow(nextafterf(middle, 0)), bits);
            assert_int_equal(form->narrow(nextafterf(middle, INFINITY)), bits + 1);
        }
    }
}

static void far_values(void **state)
{
    (void)state;
    assert_int_equal(ha_half_to_f16(3e38f), 0x7c00);
    assert_int_equal(ha_half_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(ha_half_to_f16(1e-30f), 0);
    assert_int_equal(ha_half_to_f16(-1e-44f), 0x8000);
    assert_int_equal(ha_half_to_bf16(3.402823466e38f), 0x7f80);
    assert_int_equal(ha_half_to_bf16(INFINITY), 0x7f80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value),
        cmocka_unit_test(rounds_to_nearest_even),
        cmocka_unit_test(far_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
