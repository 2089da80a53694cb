/* Windows and weights: the paper's epoch, and small cases against a plain walk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "worker/data/batch.h"

static void the_papers_epoch(void **state)
{
    static const int64_t sizes[] = {6, 6, 4};
    const struct ha_batch batch = {10000, 6, 4};
    struct ha_window last;

    (void)state;
    assert_int_equal(ha_batch_windows(&batch), 417);
    last = ha_batch_window(&batch, 416);
    assert_int_equal(last.first, 416 * 24);
    assert_int_equal(last.n_pairs, 16);
    assert_int_equal(last.n_micro, 3);
    for (int64_t j = 0; j < 3; j++) {
        struct ha_micro micro = ha_batch_micro(&batch, 416, j);

        assert_int_equal(micro.first, 416 * 24 + 6 * j);
        assert_int_equal(micro.n_pairs, sizes[j]);
        assert_true(micro.weight == 1.0 / (3.0 * (double)sizes[j]));
    }
    assert_true(ha_batch_micro(&batch, 0, 3).weight == 1.0 / 24.0);
}

/* Every pair is in exactly one micro-batch, in order, and the weights of a window add up to 1. */
static void small_epochs_are_covered(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 40; n++)
        for (int64_t b = 1; b < 8; b++)
            for (int64_t m = 1; m < 6; m++) {
                const struct ha_batch batch = {n, b, m};
                int64_t next = 0;

                for (int64_t w = 0; w < ha_batch_windows(&batch); w++) {
                    struct ha_window window = ha_batch_window(&batch, w);
                    double sum = 0;

                    assert_int_equal(window.first, next);
                    assert_in_range(window.n_micro, 1, m);
                    for (int64_t j = 0; j < window.n_micro; j++) {
                        struct ha_micro micro = ha_batch_micro(&batch, w, j);

                        assert_int_equal(micro.first, next);
                        assert_in_range(micro.n_pairs, 1, b);
                        sum += (double)micro.n_pairs * micro.weight;
                        next += micro.n_pairs;
                    }
                    assert_int_equal(window.first + window.n_pairs, next);
                    assert_true(sum > 1 - 1e-12 && sum < 1 + 1e-12);
                }
                assert_int_equal(next, n);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_papers_epoch),
        cmocka_unit_test(small_epochs_are_covered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
