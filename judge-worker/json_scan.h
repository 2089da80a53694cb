/* json_scan.h - read one JSON value out of text that may hold more, and mend it
 *
 * The strict parser (common/conf/json.h) takes a whole text or nothing.  This
 * scanner walks one value by the JSON grammar, knows where it ends, and writes
 * it out in a form that the strict parser takes.  It mends only what cannot
 * change a score:
 *
 *   a comma before a closing bracket is left out
 *   raw control characters inside strings are escaped
 *   bytes that are not UTF-8, lone surrogates and \u0000 become U+FFFD
 *
 * Numbers of more than 17 characters or with an exponent are written as texts,
 * so that no reader overflows on them.  Everything else that is not JSON
 * (single quotes, comments, bare words) is refused. */
#ifndef HA_JUDGE_WORKER_JSON_SCAN_H
#define HA_JUDGE_WORKER_JSON_SCAN_H

#include <stddef.h>

struct ha_buffer;

enum { HA_JUDGE_SCAN_DEPTH = 64 };

enum ha_judge_mend {
    HA_JUDGE_MEND_COMMA = 1,
    HA_JUDGE_MEND_CONTROL = 2,
    HA_JUDGE_MEND_CHARACTER = 4
};

enum ha_judge_scan_result {
    HA_JUDGE_SCAN_VALUE,
    HA_JUDGE_SCAN_CUT,     /* the text ends inside the value */
    HA_JUDGE_SCAN_DEEP,    /* nested deeper than HA_JUDGE_SCAN_DEPTH */
    HA_JUDGE_SCAN_INVALID, /* not JSON */
    HA_JUDGE_SCAN_MEMORY
};

/* Scan the value that begins at text[at], spaces before it passed over.  For
 * HA_JUDGE_SCAN_VALUE: *ret_end is the offset after it, *ret_mends what was
 * mended (a set of ha_judge_mend), and the value is appended to out.  Otherwise
 * out may hold a part of it. */
enum ha_judge_scan_result ha_judge_scan(const char *text, size_t size, size_t at,
                                        struct ha_buffer *out, size_t *ret_end,
                                        unsigned *ret_mends);

#endif
