/* rank.h - checks in a process of its own, a rank of a gang that a test plays */
#ifndef HA_TESTS_UNIT_RANK_H
#define HA_TESTS_UNIT_RANK_H

#include <stdio.h>
#include <unistd.h>

#include "common/base/error.h"

/* Where `rank` points to what has the members rank and err: end the process with a line that says
 * what is not so. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, line %d: %s: %s\n", rank->rank, __LINE__, #condition,        \
                    ha_error_text(&rank->err));                                                    \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#endif
