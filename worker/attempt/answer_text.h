/* answer_text.h - where an answer's text ends
 *
 * Pure functions over bytes. */
#ifndef HA_WORKER_ATTEMPT_ANSWER_TEXT_H
#define HA_WORKER_ATTEMPT_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the earliest stop string in text, searching from `from` on; size when
 * there is none.  Empty stop strings never match. */
size_t ha_answer_stop(const char *text, size_t size, size_t from, const char *const *stops,
                      int64_t n_stops);

/* The answer inside raw text: up to the earliest stop string, without thoughts where
 * thoughts_cut, outer white space (ASCII) removed.  Thoughts are what stands before the last
 * "</think>", and a "<think>" that is not closed with all behind it.  *ret_begin and
 * *ret_size are a slice of raw. */
void ha_answer_cut(const char *raw, size_t size, const char *const *stops, int64_t n_stops,
                   bool thoughts_cut, size_t *ret_begin, size_t *ret_size);

#endif
