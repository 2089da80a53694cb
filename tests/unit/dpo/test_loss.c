/* DPO losses: values, slopes against differences, and arguments of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "worker/dpo/loss.h"

static void names(void **state)
{
    enum ha_dpo_loss_kind kind = HA_DPO_SIGMOID;

    (void)state;
    assert_int_equal(ha_dpo_loss_parse("sigmoid", &kind, NULL), 0);
    assert_string_equal(ha_dpo_loss_name(kind), "sigmoid");
    assert_int_equal(ha_dpo_loss_parse("sigmoids", &kind, NULL), -EINVAL);
    assert_int_equal(ha_dpo_loss_parse("", &kind, NULL), -EINVAL);
}

static struct ha_dpo_pair_loss one(double chosen, double rejected, double ref_chosen,
                                   double ref_rejected, double beta)
{
    struct ha_dpo_loss_settings settings = {HA_DPO_SIGMOID, beta};
    struct ha_dpo_pair_logps pair = {chosen, rejected, ref_chosen, ref_rejected, 3, 4};
    struct ha_dpo_pair_loss loss;

    ha_dpo_loss(&settings, &pair, 1, &loss);
    return loss;
}

static void sigmoid_values(void **state)
{
    struct ha_dpo_pair_loss loss = one(-5, -7, -5, -7, 0.1);

    (void)state;
    assert_true(loss.loss == log(2.0));
    assert_true(loss.dchosen == -0.05 && loss.drejected == 0.05);
    /* delta = 3, beta = 0.5: -log sigmoid(1.5). */
    loss = one(-4, -9, -5, -7, 0.5);
    assert_true(fabs(loss.loss - 0.20141327798275246) < 1e-15);
    assert_true(fabs(loss.dchosen + 0.5 * 0.18242552380635635) < 1e-15);
}

static void slopes_match_differences(void **state)
{
    static const double deltas[] = {-40, -3, -0.1, 0, 0.7, 5, 40};

    (void)state;
    for (size_t i = 0; i < sizeof(deltas) / sizeof(deltas[0]); i++) {
        double step = 1e-5, chosen = -20 + deltas[i];
        struct ha_dpo_pair_loss loss = one(chosen, -30, -20, -30, 0.3);
        double up = one(chosen + step, -30, -20, -30, 0.3).loss;
        double down = one(chosen - step, -30, -20, -30, 0.3).loss;

        assert_true(fabs((up - down) / (2 * step) - loss.dchosen) < 1e-9);
        assert_true(loss.drejected == -loss.dchosen);
    }
}

static void no_overflow(void **state)
{
    struct ha_dpo_pair_loss loss;

    (void)state;
    loss = one(-1e6, 0, 0, 0, 1);
    assert_true(loss.loss == 1e6 && loss.dchosen == -1);
    loss = one(0, -1e6, 0, 0, 1);
    assert_true(loss.loss == 0 && loss.dchosen == 0);
    assert_true(isnan(one(NAN, 0, 0, 0, 1).loss));
    assert_true(isinf(one(-INFINITY, 0, 0, 0, 1).loss));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(sigmoid_values),
        cmocka_unit_test(slopes_match_differences),
        cmocka_unit_test(no_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
