/* allocator.h - the allocation functions of a program under torture
 *
 * Counts and failures are those of the thread that armed them. */
#ifndef HA_TESTS_TORTURE_ALLOCATOR_H
#define HA_TESTS_TORTURE_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

/* The nth allocation from now on fails (n counts from 1); sticky: and all behind it. */
void allocator_arm(int64_t n, bool sticky);

/* Allocations since then, but for those in pauses. */
int64_t allocator_count(void);

/* No more failures.  Returns whether there was one. */
bool allocator_disarm(void);

void allocator_pause(void);
void allocator_resume(void);

/* Must this allocation fail?  Counts it. */
bool allocator_fails(void);

#endif
