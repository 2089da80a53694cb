#include "kernels/cpu/leaf.h"

#include <string.h>

#define HA_LEAF_DEFINE(suffix)                                                                     \
    void ha_leaf_set_matrix_##suffix(struct ha_leaf *leaf);                                        \
    void ha_leaf_set_rows_##suffix(struct ha_leaf *leaf);                                          \
    void ha_leaf_set_exp_##suffix(struct ha_leaf *leaf);                                           \
    void ha_leaf_set_dropout_##suffix(struct ha_leaf *leaf);                                       \
    static bool fill_##suffix(const char *name, struct ha_leaf *leaf)                              \
    {                                                                                              \
        leaf->name = name;                                                                         \
        ha_leaf_set_matrix_##suffix(leaf);                                                         \
        ha_leaf_set_rows_##suffix(leaf);                                                           \
        ha_leaf_set_exp_##suffix(leaf);                                                            \
        ha_leaf_set_dropout_##suffix(leaf);                                                        \
        return true;                                                                               \
    }

HA_LEAF_DEFINE(baseline)

#ifdef HA_LEAF_X86

HA_LEAF_DEFINE(avx2)
HA_LEAF_DEFINE(avx512)

static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool ha_leaf_named(const char *name, struct ha_leaf *ret_leaf)
{
    if (strcmp(name, "AVX-512") == 0)
        return runs_avx512() && fill_avx512(name, ret_leaf);
    if (strcmp(name, "AVX2") == 0)
        return runs_avx2() && fill_avx2(name, ret_leaf);
    return strcmp(name, "baseline") == 0 && fill_baseline(name, ret_leaf);
}

#else

bool ha_leaf_named(const char *name, struct ha_leaf *ret_leaf)
{
    return strcmp(name, "baseline") == 0 && fill_baseline(name, ret_leaf);
}

#endif

void ha_leaf_best(struct ha_leaf *ret_leaf)
{
    if (!ha_leaf_named("AVX-512", ret_leaf) && !ha_leaf_named("AVX2", ret_leaf))
        (void)ha_leaf_named("baseline", ret_leaf);
}
