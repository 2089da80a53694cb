/* stacks.h - where each thread of this process stands
 *
 * For an attempt that does not end when it is asked to: the daemon sends SIGURG, which means
 * nothing to other programs, before it kills it, and what is printed here is in the attempt's log.
 */
#ifndef HA_WORKER_ATTEMPT_STACKS_H
#define HA_WORKER_ATTEMPT_STACKS_H

/* From now on SIGURG prints, on standard error and within a second, the stack of each thread, and
 * what it waits for in the kernel.  SIGUSR2 serves that, too.  Addresses of the program are offsets
 * that addr2line reads. */
void ha_stacks_on_signal(void);

#endif
