#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "common/base/error.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/outcome.h"

static void bad_content_comes_back(void **state)
{
    (void)state;
    assert_true(ha_outcome_is_permanent(-EINVAL));
    assert_true(ha_outcome_is_permanent(-ENOTSUP));
    assert_true(ha_outcome_is_permanent(-EDOM));
    assert_true(ha_outcome_is_permanent(-EMSGSIZE));
}

static void what_a_machine_lacks_may_heal(void **state)
{
    static const int errors[] = {ENOMEM, ENOSPC, EDQUOT, EIO,    EPIPE, ENOENT,
                                 EACCES, EROFS,  ENODEV, ESTALE, EMFILE};

    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        assert_false(ha_outcome_is_permanent(-errors[i]));
    assert_false(ha_outcome_is_permanent(0));
    assert_false(ha_outcome_is_permanent(EINVAL));
}

/* A rank that fails because of others is not charged with it. */
static void what_others_did_is_theirs(void **state)
{
    static const struct {
        int code;
        bool followed;
    } table[] = {{ECONNABORTED, true}, {ECONNRESET, true}, {ETIMEDOUT, true}, {ECANCELED, true},
                 {EIO, false},         {ENOMEM, false},    {EDOM, false},     {ENODEV, false},
                 {EINVAL, false},      {0, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const struct ha_error why = {.code = table[i].code};

        assert_int_equal(ha_gang_followed(&why), table[i].followed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_content_comes_back),
        cmocka_unit_test(what_a_machine_lacks_may_heal),
        cmocka_unit_test(what_others_did_is_theirs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
