/* loop.h - one thread's event loop
 *
 * A turn: wait until something is ready, take `now` once, then run signals and
 * foreign file descriptors, posted calls, and sockets (each a bounded number of
 * messages), then the timers that are due by `now` in order of their time and,
 * for equal times, in the order in which they were set, and at last the
 * turn-end hook.  So a program that commits in the hook has seen all input
 * of the turn, and nothing expires before input that was already there.
 *
 * Everything here belongs to the thread that runs the loop, except
 * ha_loop_post.  Callbacks may create and end anything, themselves included. */
#ifndef HA_COMMON_NET_LOOP_H
#define HA_COMMON_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_loop;
struct ha_loop_fd;
struct ha_loop_timer;

typedef void (*ha_loop_fn)(void *context);

int ha_loop_create(struct ha_loop **ret_loop, struct ha_error *err);

/* Watches that still exist end with it; timers and sockets must be gone. */
void ha_loop_destroy(struct ha_loop *loop);

/* Boot time of the running turn, in milliseconds. */
int64_t ha_loop_now_ms(const struct ha_loop *loop);

/* True when a socket used up its share of this turn, and so may still have input. */
bool ha_loop_input_pending(const struct ha_loop *loop);

/* Turns until ha_loop_stop.  Returns 0 or the error of waiting. */
int ha_loop_run(struct ha_loop *loop, struct ha_error *err);

/* One turn that waits at most this long (0: not at all, -1: for ever). */
int ha_loop_turn(struct ha_loop *loop, int64_t max_wait_ms, struct ha_error *err);

/* The next turn begins this many milliseconds after this one at the soonest, whatever comes:
 * several messages then cost one turn.  Called during a turn; 0: at once. */
void ha_loop_rest(struct ha_loop *loop, int64_t ms);

/* Let ha_loop_run return after this turn, or at once when it is not running. */
void ha_loop_stop(struct ha_loop *loop);

/* Called at the end of every turn; NULL: nothing. */
void ha_loop_on_turn_end(struct ha_loop *loop, ha_loop_fn fn, void *context);

/* From any thread: run fn(context) in the loop's thread, in order of posting.
 * What was posted and never ran is dropped with the loop.  Returns 0 or -ENOMEM. */
int ha_loop_post(struct ha_loop *loop, ha_loop_fn fn, void *context);

/* ---- file descriptors of others --------------------------------------------- */

enum { HA_LOOP_READ = 1, HA_LOOP_WRITE = 2 };

/* events: what is ready; errors and hang-ups are reported as all of the interest. */
typedef void (*ha_loop_fd_fn)(void *context, int fd, unsigned events);

/* Watch fd while it is open, level-triggered.  The watch does not own fd and
 * must end before fd is closed. */
int ha_loop_watch_fd(struct ha_loop *loop, int fd, unsigned interest, ha_loop_fd_fn fn,
                     void *context, struct ha_loop_fd **ret_watch, struct ha_error *err);
int ha_loop_fd_set_interest(struct ha_loop_fd *watch, unsigned interest, struct ha_error *err);
void ha_loop_fd_end(struct ha_loop_fd *watch); /* NULL is legal */

/* ---- timers -------------------------------------------------------------------- */

/* A timer that is not set. */
int ha_loop_timer_create(struct ha_loop *loop, ha_loop_fn fn, void *context,
                         struct ha_loop_timer **ret_timer, struct ha_error *err);

/* Fire once at this boot time; replaces an earlier setting. */
void ha_loop_timer_set(struct ha_loop_timer *timer, int64_t at_ms);

/* ha_loop_timer_set for now + after_ms. */
void ha_loop_timer_set_after(struct ha_loop_timer *timer, int64_t after_ms);
void ha_loop_timer_unset(struct ha_loop_timer *timer);
bool ha_loop_timer_is_set(const struct ha_loop_timer *timer);
void ha_loop_timer_destroy(struct ha_loop_timer *timer); /* NULL is legal */

/* ---- signals ------------------------------------------------------------------ */

typedef void (*ha_loop_signal_fn)(void *context, int signal);

/* Block the signal in this thread and call fn in a turn after it came; several
 * may come as one.  Call before threads are started, so that they inherit the
 * block.  One function per signal. */
int ha_loop_on_signal(struct ha_loop *loop, int signal, ha_loop_signal_fn fn, void *context,
                      struct ha_error *err);

#endif
