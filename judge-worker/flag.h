/* flag.h - judged text that speaks to the judge
 *
 * A score cannot show whether the evaluator obeyed the text that it was to
 * judge.  So rows are flagged whose text holds something like the array that is
 * asked for, or words from a fixed list that address an evaluator; the report
 * shows its tables with and without them. */
#ifndef HA_JUDGE_WORKER_FLAG_H
#define HA_JUDGE_WORKER_FLAG_H

#include <stdbool.h>

bool ha_judge_flag(const char *text);

#endif
