/* model_thread.h - looking for models off the heartbeat
 *
 * Reading 16 GB for a digest takes minutes the first time, so every search has
 * a thread of its own; they go one after the other. */
#ifndef HA_WORKER_DAEMON_MODEL_THREAD_H
#define HA_WORKER_DAEMON_MODEL_THREAD_H

#include "worker/daemon/session.h"

struct ha_error;
struct ha_loop;
struct ha_text_list;
struct model_threads;

/* text: why it was not found, or NULL. */
typedef void (*model_found_fn)(void *context, const struct attempt_id *id, const char *path,
                               const char *text);

/* roots and cache are borrowed; found is called in the loop's thread. */
int model_threads_create(struct ha_loop *loop, const struct ha_text_list *roots, const char *cache,
                         model_found_fn found, void *context, struct model_threads **ret_threads,
                         struct ha_error *err);

/* Waits for the searches that are under way; found is not called any more, if
 * the loop does not turn again. */
void model_threads_destroy(struct model_threads *threads);

/* See model_find.  Returns 0, -ENOMEM or -EAGAIN (no further thread). */
int model_threads_find(struct model_threads *threads, const struct attempt_id *id, const char *path,
                       const char *digest);

#endif
