/* replies.h - texts that the tests of the judge make replies of */
#ifndef HA_TESTS_UNIT_JUDGE_REPLIES_H
#define HA_TESTS_UNIT_JUDGE_REPLIES_H

#include "common/base/buffer.h"
#include "common/conf/dimensions.h"

/* One entry; score as it is to stand in the JSON. */
static inline void append_entry(struct ha_buffer *out, int i, const char *score)
{
    ha_buffer_printf(out, "{\"dimension\": \"%s\", \"score\": %s, \"reason\": \"because %d\"}",
                     ha_dimensions[i].name, score, i);
}

/* The score of dimension i in the texts below. */
static inline int score_of(int i)
{
    return 1 + i % 5;
}

/* count entries from `from` on with `between` between them. */
static inline void append_entries(struct ha_buffer *out, int from, int count, const char *between)
{
    for (int i = from; i < from + count; i++) {
        const char score[] = {(char)('0' + score_of(i)), '\0'};

        if (i > from)
            ha_buffer_append_text(out, between);
        append_entry(out, i, score);
    }
}

/* "[" sixteen entries "]" */
static inline void append_array(struct ha_buffer *out)
{
    ha_buffer_append_text(out, "[");
    append_entries(out, 0, HA_DIMENSIONS, ", ");
    ha_buffer_append_text(out, "]");
}

#endif
