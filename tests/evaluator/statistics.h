/* statistics.h - sixteen text statistics that stand in for a judge
 *
 * Counting, no understanding: each dimension is one number of the answer (and
 * for some of the prompt), cut at four steps into 1..5.  The same texts give the
 * same scores everywhere.  README.md lists the numbers and the steps. */
#ifndef HA_TESTS_EVALUATOR_STATISTICS_H
#define HA_TESTS_EVALUATOR_STATISTICS_H

#include "common/conf/dimensions.h"

struct ha_evaluator_score {
    int value;        /* 1..5 */
    char reason[160]; /* the statistic, its value and the steps */
};

/* Returns 0 or -ENOMEM.  scores is in the order of ha_dimensions. */
int ha_evaluator_scores(const char *prompt, const char *answer,
                        struct ha_evaluator_score scores[HA_DIMENSIONS]);

#endif
