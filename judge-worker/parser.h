/* parser.h - sixteen scores out of an evaluator's text, or the reason why not
 *
 * Either every one of the sixteen known dimensions stands there exactly once
 * with an integer from 1 to 5, or there is no score at all: nothing is clamped,
 * averaged, defaulted or guessed.  What the parser may mend is the fixed list
 * below, and what it did mend is kept with the scores.
 *
 * Text before the last </think> is never read.  JSON values are looked for from
 * left to right, arrays first: an array of entries wins over the entries in it.
 * Two complete sets of scores are a fault, because one of them may be an echo of
 * the judged text. */
#ifndef HA_JUDGE_WORKER_PARSER_H
#define HA_JUDGE_WORKER_PARSER_H

#include <stddef.h>
#include <stdint.h>

#include "common/conf/dimensions.h"

struct ha_error;

/* Part of the judge identity: raised whenever a text is read differently. */
enum { HA_JUDGE_PARSER_VERSION = 1 };

/* Bytes of a reason that are kept; the raw reply has all of it. */
enum { HA_JUDGE_REASON_BYTES = 2000 };

enum ha_judge_repair {
    HA_JUDGE_REPAIR_BOM,
    HA_JUDGE_REPAIR_THINK,
    HA_JUDGE_REPAIR_DOUBLE,
    HA_JUDGE_REPAIR_FENCE,
    HA_JUDGE_REPAIR_AROUND,
    HA_JUDGE_REPAIR_WRAPPER,
    HA_JUDGE_REPAIR_MAP,
    HA_JUDGE_REPAIR_BRACKETS,
    HA_JUDGE_REPAIR_COMMA,
    HA_JUDGE_REPAIR_CONTROL,
    HA_JUDGE_REPAIR_CHARACTER,
    HA_JUDGE_REPAIR_NAME,
    HA_JUDGE_REPAIR_KEY,
    HA_JUDGE_REPAIR_SCORE_TEXT,
    HA_JUDGE_REPAIR_SCORE_REAL,
    HA_JUDGE_REPAIR_TWICE,
    HA_JUDGE_REPAIR_NO_REASON,
    HA_JUDGE_REPAIR_REASON_CUT,
    HA_JUDGE_REPAIR_REASONING, /* set by the reader of the reply (reply.h) */
    HA_JUDGE_REPAIR_FLAT,      /* a note: all sixteen scores are equal */
    HA_JUDGE_REPAIRS
};

/* As it is stored and shown: "code fence". */
extern const char *const ha_judge_repair_names[HA_JUDGE_REPAIRS];

struct ha_judge_scores {
    int value[HA_DIMENSIONS]; /* 1..5, in the order of ha_dimensions */
    char *reason[HA_DIMENSIONS];
    uint32_t repairs; /* bit i: ha_judge_repair i */
};

/* Returns 0, -EBADMSG (err holds the fault as the evaluator is told it: no
 * capital, no full stop) or -ENOMEM. */
int ha_judge_parse(const char *text, size_t size, struct ha_judge_scores *ret_scores,
                   struct ha_error *err);

void ha_judge_scores_clear(struct ha_judge_scores *scores);

#endif
