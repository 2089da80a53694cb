/* session_support.h - a session whose effects are written down, and what the other sides say to it
 */
#ifndef HA_TESTS_UNIT_DAEMON_SESSION_SUPPORT_H
#define HA_TESTS_UNIT_DAEMON_SESSION_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/wire.h"
#include "worker/daemon/session.h"

#define SHA "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define BEAT 1000

extern struct session *session;
extern int64_t now;
extern uint64_t last_request; /* of the last message sent; set by the test's send */

/* The effects of the session as text, one after the other. */
extern char trace[8192];
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The trace so far must be this; it starts anew. */
#define EXPECT(text)                                                                               \
    do {                                                                                           \
        assert_string_equal(trace, text);                                                          \
        trace[0] = '\0';                                                                           \
    } while (0)

/* Effects that nobody looks at; a test puts its own in their place. */
extern const struct session_effects no_effects;

void say_upload(void *context, const struct attempt_id *id, int64_t number, const char *path);

/* Begin anew at `now`; end it (teardown of a test). */
int open_session(const struct session_options *options, const struct session_effects *effects);
int tear_down(void **state);

/* ---- what the coordinator says: to the last request, with epochs of generation 7 ------------- */

struct attempt_id id_of(uint64_t job, uint64_t epoch);
void receive(struct ha_wire_message message);
void hello_reply(void);
void grant(uint64_t job, uint64_t epoch);
/* What should run. */
void list(uint64_t request, int n, const struct attempt_id *ids);
void acknowledge(uint64_t job, uint64_t epoch, uint64_t sequence);

/* So much later, the session looks at its clock. */
void tick(int64_t ms);

/* ---- what attempts say ----------------------------------------------------------------------- */

void metric(uint64_t job, uint64_t epoch, const char *name, double value);
void artifact(uint64_t job, uint64_t epoch, const char *name);
void uploaded(uint64_t job, uint64_t epoch, int64_t number, int64_t size);
void ended(uint64_t job, uint64_t epoch, enum attempt_outcome outcome, const char *reason);

#endif
