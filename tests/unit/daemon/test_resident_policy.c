/* Which process that keeps a model goes, and which is used again: tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "worker/daemon/resident_policy.h"

enum { MOST = 4 };

static const struct resident_view waiting[MOST] = {
    {"a", 300, false}, {"b", 100, false}, {"a", 400, true}, {"a", 200, false}};

static void the_last_one_is_used_again(void **state)
{
    (void)state;
    assert_int_equal(resident_find(waiting, MOST, "a"), 0); /* the newest is ending */
    assert_int_equal(resident_find(waiting, MOST, "b"), 1);
    assert_int_equal(resident_find(waiting, MOST, "c"), -1);
    assert_int_equal(resident_find(waiting, 0, "a"), -1);
}

static void the_first_one_goes(void **state)
{
    (void)state;
    assert_int_equal(resident_oldest(waiting, MOST), 1);
    assert_int_equal(resident_oldest(&waiting[2], 1), -1);
}

/* How many go before a new process may begin, and whether it may at once. */
static void room_is_made(void **state)
{
    static const struct {
        int64_t slots;
        bool shared;
        int64_t waiting, active, ranks;
        int64_t ended;
    } rows[] = {
        /* The only slot: the one that waits goes. */
        {1, false, 1, 0, 1, 1},
        {1, false, 0, 0, 1, 0},
        /* A GPU each: as long as there are slots, they stay. */
        {4, false, 3, 0, 1, 0},
        {4, false, 3, 1, 1, 1},
        {4, false, 2, 3, 1, 2},
        /* A gang wants all of them. */
        {8, false, 3, 0, 2, 3},
        /* One memory for all. */
        {8, true, 2, 0, 1, 2},
        {8, true, 1, 5, 1, 1},
        /* More run than there are slots, for a moment. */
        {2, false, 1, 3, 1, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct resident_rules rules = {.slots = rows[i].slots, .shared = rows[i].shared};
        struct resident_view list[MOST] = {{"a", 1, false}, {"b", 2, false}, {"c", 3, false}};
        int64_t ended = 0, next;

        while ((next = resident_to_end(list, rows[i].waiting, &rules, rows[i].active,
                                       rows[i].ranks)) >= 0) {
            assert_int_equal(next, ended); /* the one that waits longest */
            list[next].ending = true;
            ended++;
        }
        assert_int_equal(ended, rows[i].ended);
        /* One that is ending still has what it holds. */
        assert_int_equal(resident_has_room(rows[i].waiting, &rules, rows[i].active, rows[i].ranks),
                         ended == 0);
        assert_true(
            resident_has_room(rows[i].waiting - ended, &rules, rows[i].active, rows[i].ranks));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_one_is_used_again),
        cmocka_unit_test(the_first_one_goes),
        cmocka_unit_test(room_is_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
