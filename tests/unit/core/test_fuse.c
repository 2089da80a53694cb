/* One job or several: the choice on small tables, and what holds for any input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "common/conf/json.h"
#include "coordinator/core/fuse.h"

enum { MOST = 96, ROUNDS = 400 };

/* The paper's strategies of a model with nine layers, in passes of a pair. */
static void four_strategies(struct ha_fuse_need cells[4])
{
    static const int64_t lowest[] = {0, 3, 6, 0}, layers[] = {3, 3, 3, 9};
    struct ha_fuse_model model;

    ha_fuse_model_read(NULL, 9, &model);
    for (int i = 0; i < 4; i++)
        cells[i] = ha_fuse_train_need(&model, lowest[i], layers[i], 16);
}

/* A set holds the model and the passes' largest buffers once, and what each cell keeps;
 * 0: not known. */
static int64_t set_bytes(const struct ha_fuse_group *group, const int64_t *set_of, int64_t set)
{
    int64_t pass_bytes = 0, bytes = group->cells[0].shared_bytes;

    if (bytes <= 0)
        return 0;
    for (int64_t i = 0; i < group->count; i++) {
        if (set_of[i] != set)
            continue;
        bytes += group->cells[i].bytes;
        if (group->cells[i].pass_bytes > pass_bytes)
            pass_bytes = group->cells[i].pass_bytes;
    }
    return bytes + pass_bytes;
}

static void one_device_fuses(void **state)
{
    struct ha_fuse_need cells[4];
    struct ha_fuse_group group = {.cells = cells, .count = 4};
    int64_t set_of[4];
    double finish;

    (void)state;
    four_strategies(cells);
    assert_int_equal(ha_fuse_choose(&group, 1, set_of, &finish), 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(set_of[i], 0);
    /* 2 for all, then 4, 8/3, 4/3 and 4. */
    assert_true(finish > 13.99 && finish < 14.01);
}

static void many_devices_spread(void **state)
{
    struct ha_fuse_need cells[4];
    struct ha_fuse_group group = {.cells = cells, .count = 4};
    int64_t set_of[4];
    double finish;

    (void)state;
    four_strategies(cells);
    /* The largest ends at 6 wherever the others are; mid and global may share a device. */
    assert_int_equal(ha_fuse_choose(&group, 4, set_of, &finish), 3);
    assert_true(finish > 5.99 && finish < 6.01);
    assert_int_equal(set_of[1], set_of[2]);
    assert_int_not_equal(set_of[0], set_of[3]);
    assert_int_equal(ha_fuse_choose(&group, 2, set_of, &finish), 2);
    assert_true(finish < 9);
}

static void the_mode_decides(void **state)
{
    struct ha_fuse_need cells[4];
    struct ha_fuse_group group = {.cells = cells, .count = 4, .mode = HA_FUSE_ALWAYS};
    int64_t set_of[4];

    (void)state;
    four_strategies(cells);
    assert_int_equal(ha_fuse_choose(&group, 4, set_of, NULL), 1);
    group.mode = HA_FUSE_NEVER;
    assert_int_equal(ha_fuse_choose(&group, 1, set_of, NULL), 4);
}

static void memory_divides(void **state)
{
    struct ha_fuse_need cells[3];
    struct ha_fuse_group group = {
        .cells = cells, .count = 3, .memory_bytes = 1000, .mode = HA_FUSE_ALWAYS};
    int64_t set_of[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        cells[i] = (struct ha_fuse_need){
            .shared = 1, .cost = 1, .shared_bytes = 500, .pass_bytes = 100, .bytes = 200};
    assert_int_equal(ha_fuse_choose(&group, 1, set_of, NULL), 2);
    group.memory_bytes = 1200;
    assert_int_equal(ha_fuse_choose(&group, 1, set_of, NULL), 1);
    assert_int_equal(set_bytes(&group, set_of, 0), 1200);
    group.memory_bytes = 400; /* not even one fits: each by itself */
    assert_int_equal(ha_fuse_choose(&group, 1, set_of, NULL), 3);
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void make_group(uint64_t *seed, struct ha_fuse_need *cells, struct ha_fuse_group *group)
{
    bool bytes = next(seed) % 3 != 0;
    double shared = (double)(next(seed) % 100);

    *group = (struct ha_fuse_group){.cells = cells,
                                    .count = 1 + (int64_t)(next(seed) % MOST),
                                    .memory_bytes = bytes ? 500 + (int64_t)(next(seed) % 9000) : 0};
    for (int64_t i = 0; i < group->count; i++)
        cells[i] = (struct ha_fuse_need){.shared = shared,
                                         .cost = (double)(1 + next(seed) % 400),
                                         .shared_bytes = bytes ? 300 : 0,
                                         .pass_bytes = (int64_t)(next(seed) % 200),
                                         .bytes = (int64_t)(next(seed) % 300)};
}

static void check_sets(const struct ha_fuse_group *group, const int64_t *set_of, int64_t sets)
{
    int64_t most = group->memory_bytes > 0 ? HA_FUSE_CELLS : HA_FUSE_CELLS_BLIND;
    double before = 0;

    for (int64_t s = 0; s < sets; s++) {
        double load = group->cells[0].shared;
        int64_t cells = 0;

        for (int64_t i = 0; i < group->count; i++) {
            assert_in_range(set_of[i], 0, sets - 1);
            if (set_of[i] == s) {
                load += group->cells[i].cost;
                cells++;
            }
        }
        assert_in_range(cells, 1, most);
        if (cells > 1 && group->memory_bytes > 0)
            assert_true(set_bytes(group, set_of, s) <= group->memory_bytes);
        if (s > 0)
            assert_true(load <= before);
        before = load;
    }
}

static void properties(void **state)
{
    static struct ha_fuse_need cells[MOST];
    uint64_t seed = 1;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct ha_fuse_group group, other;
        int64_t set_of[MOST], again[MOST], devices = 1 + (int64_t)(next(&seed) % 20), sets;
        double finish, extreme, recomputed;

        make_group(&seed, cells, &group);
        sets = ha_fuse_choose(&group, devices, set_of, &finish);
        assert_true(sets >= 1);
        check_sets(&group, set_of, sets);
        assert_int_equal(ha_fuse_place(&group, set_of, sets, devices, NULL, &recomputed), 0);
        assert_true(recomputed <= finish * (1 + 1e-12) && recomputed >= finish * (1 - 1e-12));
        assert_int_equal(ha_fuse_choose(&group, devices, again, &recomputed), sets);
        assert_memory_equal(again, set_of, (size_t)group.count * sizeof *again);
        assert_true(recomputed == finish);
        other = group;
        other.mode = HA_FUSE_ALWAYS;
        assert_true(ha_fuse_choose(&other, devices, again, &extreme) >= 1);
        check_sets(&group, again, ha_fuse_choose(&other, devices, again, &extreme));
        assert_true(finish <= extreme);
        other.mode = HA_FUSE_NEVER;
        assert_int_equal(ha_fuse_choose(&other, devices, again, &extreme), group.count);
        assert_true(finish <= extreme);
        /* One device more never ends later. */
        assert_true(ha_fuse_choose(&group, devices + 1, again, &extreme) >= 1);
        assert_true(extreme <= finish * (1 + 1e-12));
    }
}

/* Devices of unequal speed: the finish is in seconds, the heavy set is where it ends soonest, and
 * a device that is too slow to help gets nothing. */
static void speeds_are_weighed(void **state)
{
    static const double uneven[] = {4, 1}, hopeless[] = {100, 0.01}, triple[] = {3, 3, 3};
    struct ha_fuse_need cells[5];
    struct ha_fuse_group group = {.cells = cells, .count = 5, .mode = HA_FUSE_NEVER};
    int64_t set_of[5], device_of[5], sets;
    double finish, equal;

    (void)state;
    for (int i = 0; i < 5; i++)
        cells[i] = (struct ha_fuse_need){.shared = 0, .cost = 10};
    group.speeds = uneven;
    assert_int_equal(ha_fuse_choose(&group, 2, set_of, &finish), 5);
    assert_true(finish == 10); /* four go one after the other to the fast one */
    assert_int_equal(ha_fuse_place(&group, set_of, 5, 2, device_of, &finish), 0);
    assert_int_equal(device_of[0], 0);
    assert_int_equal(device_of[0] + device_of[1] + device_of[2] + device_of[3] + device_of[4], 1);

    /* Sets as uneven as the devices. */
    for (int i = 0; i < 5; i++)
        cells[i].shared = 10;
    group.mode = HA_FUSE_AUTO;
    sets = ha_fuse_choose(&group, 2, set_of, &finish);
    assert_int_equal(sets, 1); /* 60 / 4; two of them end at 12.5 and 20 */
    assert_true(finish == 15);
    for (int i = 0; i < 5; i++)
        cells[i].shared = 1;
    sets = ha_fuse_choose(&group, 2, set_of, &finish);
    assert_int_equal(sets, 2);
    assert_true(finish == 11); /* 41 / 4 and 11 / 1 */

    group.speeds = hopeless;
    assert_int_equal(ha_fuse_choose(&group, 2, set_of, &finish), 1);
    assert_true(finish == 0.51);

    group.speeds = NULL;
    sets = ha_fuse_choose(&group, 3, set_of, &equal);
    group.speeds = triple;
    assert_int_equal(ha_fuse_choose(&group, 3, set_of, &finish), sets);
    assert_true(finish * 3 < equal * (1 + 1e-12) && finish * 3 > equal * (1 - 1e-12));
}

static void make_speeds(uint64_t *seed, double *speeds, int64_t count)
{
    speeds[0] = 1e12;
    for (int64_t i = 1; i < count; i++)
        speeds[i] = speeds[i - 1] * (double)(next(seed) % 100 + 1) / 100;
}

/* What holds for any speeds. */
static void properties_of_speeds(void **state)
{
    static struct ha_fuse_need cells[MOST];
    uint64_t seed = 5;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t set_of[MOST], again[MOST], device_of[MOST],
            devices = 1 + (int64_t)(next(&seed) % 20);
        double speeds[20], doubled[20], finish, other_finish, work = 0, total = 0, ends[20] = {0};
        struct ha_fuse_group group, other;
        int64_t sets;

        make_group(&seed, cells, &group);
        make_speeds(&seed, speeds, devices);
        group.speeds = speeds;
        sets = ha_fuse_choose(&group, devices, set_of, &finish);
        check_sets(&group, set_of, sets);
        assert_int_equal(ha_fuse_place(&group, set_of, sets, devices, device_of, &other_finish), 0);
        assert_true(other_finish <= finish * (1 + 1e-12) && other_finish >= finish * (1 - 1e-12));
        /* The finish is that of the placement, and no faster than all devices at work. */
        for (int64_t s = 0; s < sets; s++) {
            double load = group.cells[0].shared;

            assert_in_range(device_of[s], 0, devices - 1);
            for (int64_t i = 0; i < group.count; i++)
                load += set_of[i] == s ? group.cells[i].cost : 0;
            ends[device_of[s]] += load / speeds[device_of[s]];
            work += load;
        }
        for (int64_t d = 0; d < devices; d++) {
            assert_true(ends[d] <= finish * (1 + 1e-9));
            total += speeds[d];
        }
        assert_true(finish >= work / total * (1 - 1e-9));
        /* Never worse than all in one or each by itself. */
        other = group;
        for (int mode = HA_FUSE_ALWAYS; mode <= HA_FUSE_NEVER; mode++) {
            other.mode = (enum ha_fuse_mode)mode;
            assert_true(ha_fuse_choose(&other, devices, again, &other_finish) >= 1);
            assert_true(finish <= other_finish);
        }
        /* Twice as fast: the same sets in half the time. */
        for (int64_t d = 0; d < devices; d++)
            doubled[d] = 2 * speeds[d];
        other = group;
        other.speeds = doubled;
        assert_int_equal(ha_fuse_choose(&other, devices, again, &other_finish), sets);
        assert_memory_equal(again, set_of, (size_t)group.count * sizeof *again);
        assert_true(2 * other_finish == finish);
    }
}

/* Steps are counted, the same for the same input, and few enough: divisions that cannot be the best
 * are not made, whether cells go together or hardly two of them fit. */
static void steps_are_counted(void **state)
{
    enum { CELLS = 512 };
    static struct ha_fuse_need cells[CELLS];
    static double speeds[CELLS];
    static int64_t set_of[CELLS];
    uint64_t seed = 7;

    (void)state;
    for (int i = 0; i < CELLS; i++) {
        cells[i] = (struct ha_fuse_need){.shared = 3,
                                         .cost = 10 + (double)(next(&seed) % 30),
                                         .shared_bytes = 3,
                                         .bytes = 20 + (int64_t)(next(&seed) % 30)};
        speeds[i] = 4 - 0.005 * i;
    }
    for (int64_t memory_bytes = 60; memory_bytes <= 6000; memory_bytes *= 10) {
        int64_t work = 0, again = 0;
        struct ha_fuse_group group = {.cells = cells,
                                      .count = CELLS,
                                      .memory_bytes = memory_bytes,
                                      .speeds = speeds,
                                      .work = &work};

        assert_true(ha_fuse_choose(&group, CELLS - 22, set_of, NULL) > 0);
        assert_in_range(work, CELLS, 500000);
        group.work = &again;
        assert_true(ha_fuse_choose(&group, CELLS - 22, set_of, NULL) > 0);
        assert_int_equal(again, work);
    }
}

static void a_plan_is_read(void **state)
{
    static const char text[] =
        "{\"strategies\": {\"global\": {\"layers\": \"6-8\", \"lockstep_flops_per_pair\": 80},"
        " \"full\": {\"layers\": \"0-8\", \"lockstep_flops_per_pair\": 200,"
        " \"reference_flops_per_pair\": 80,"
        " \"weight_bytes\": 1000, \"activation_bytes\": 500, \"adapter_bytes\": 90}}}";
    struct ha_fuse_model model;
    struct ha_fuse_need need;
    struct ha_json *json;

    (void)state;
    assert_int_equal(ha_json_parse(text, sizeof text - 1, "plan", &json, NULL), 0);
    ha_fuse_model_read(json, 9, &model);
    ha_json_destroy(json);
    need = ha_fuse_train_need(&model, 3, 3, 32);
    assert_true(need.shared == 80);
    assert_true(need.cost == 140);
    assert_int_equal(need.shared_bytes, 1000);
    assert_int_equal(need.pass_bytes, 500);
    assert_int_equal(need.bytes, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_device_fuses),     cmocka_unit_test(many_devices_spread),
        cmocka_unit_test(the_mode_decides),     cmocka_unit_test(memory_divides),
        cmocka_unit_test(properties),           cmocka_unit_test(speeds_are_weighed),
        cmocka_unit_test(properties_of_speeds), cmocka_unit_test(steps_are_counted),
        cmocka_unit_test(a_plan_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
