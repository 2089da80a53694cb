/* The rows of a run and the order of an epoch, against the libraries' own vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "common/base/error.h"
#include "worker/data/select.h"

static void rows_are_numpys_permutation(void **state)
{
    static const int64_t ten[] = {5, 6, 0, 7, 3, 2, 4, 9, 1, 8};
    struct ha_error err = {0};
    int64_t *rows, n;

    (void)state;
    for (int64_t wanted = 0; wanted <= 12; wanted++) {
        assert_int_equal(ha_select_rows(10, wanted, 42, &rows, &n, &err), 0);
        assert_int_equal(n, wanted == 0 || wanted > 10 ? 10 : wanted);
        assert_memory_equal(rows, ten, (size_t)n * sizeof(ten[0]));
        free(rows);
    }
}

static void epochs_are_torchs_permutations(void **state)
{
    static const int64_t epochs[2][4] = {{542, 618, 816, 68}, {588, 148, 223, 575}};
    struct ha_error err = {0};
    int64_t order[1000];

    (void)state;
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(ha_select_epoch_order(1000, 42, epoch, order, &err), 0);
        assert_memory_equal(order, epochs[epoch], sizeof(epochs[epoch]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_numpys_permutation),
        cmocka_unit_test(epochs_are_torchs_permutations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
