/* support.h - a coordinator in a test: no sockets, a clock that the test sets */
#ifndef HA_TESTS_UNIT_SERVER_SUPPORT_H
#define HA_TESTS_UNIT_SERVER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/store/store.h"
#include "proto/wire.h"

enum { SENT_LIMIT = 512, ARTIFACT_LIMIT = 64, FAKE_CELLS = 8 };

struct sent {
    uint64_t peer;
    struct ha_wire_message *message;
};

struct bench {
    char dir[64];
    struct ha_store *store;
    struct ha_coordinator *c;
    int64_t boot_ms, wall_ms;
    struct sent sent[SENT_LIMIT]; /* not yet looked at */
    int count;
    char stored[ARTIFACT_LIMIT][65], orphans[ARTIFACT_LIMIT][65];
    int stored_count, not_stored_count, orphan_count, full_count;
    int64_t snapshot_number; /* the newest copy of the database, and where it is */
    char snapshot_path[128];
    int snapshots, snapshots_ended;
    int64_t max_sweep_bytes, max_grids, max_grids_per_client, slice_us; /* for the next start */
    uint64_t next_request;
    const char *key;               /* that messages come with; NULL: "local" */
    const char *revoked;           /* a key that is not in the allow-list; NULL: none */
    enum ha_net_role revoked_role; /* or that has this role there */
};

/* A coordinator with an empty store in a folder of its own. */
void bench_open(struct bench *b);
void bench_close(struct bench *b);

/* kill -9 and a new start: memory is lost, the store stays. */
void bench_restart(struct bench *b);

/* The two halves of it. */
void bench_kill(struct bench *b);
void bench_start(struct bench *b);

/* Send one message in a turn of its own; returns the request id. */
uint64_t bench_send(struct bench *b, uint64_t peer, const struct ha_wire_message *message);
uint64_t bench_send_as(struct bench *b, uint64_t peer, enum ha_net_role role,
                       const struct ha_wire_message *message);

/* The same without ending the turn. */
uint64_t bench_post(struct bench *b, uint64_t peer, enum ha_net_role role,
                    const struct ha_wire_message *message);

/* One turn without messages, after so much time; then turns until nothing is
 * left to do. */
void bench_turn(struct bench *b, int64_t after_ms);
void bench_settle(struct bench *b);

/* Take the reply to a request, or the next push of a kind to a peer, out of what
 * was sent; the test destroys it.  NULL: there is none. */
struct ha_wire_message *bench_reply(struct bench *b, uint64_t peer, uint64_t request_id);
struct ha_wire_message *bench_push(struct bench *b, uint64_t peer, enum ha_wire_body kind);

/* Turns until it is there. */
struct ha_wire_message *bench_wait(struct bench *b, uint64_t peer, uint64_t request_id);

/* Send, and take the reply, which must be of this kind. */
struct ha_wire_message *bench_call(struct bench *b, uint64_t peer,
                                   const struct ha_wire_message *message,
                                   enum ha_wire_body expected);

/* Send, and expect Error with this code. */
void bench_refused(struct bench *b, uint64_t peer, enum ha_net_role role,
                   const struct ha_wire_message *message, uint32_t code);

/* ---- a small grid: one model, two cells ------------------------------------------------ */

extern const char *const bench_grid;

#define DIGEST(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
#define MODEL_DIGEST DIGEST("a1")
#define TOKENIZER_DIGEST DIGEST("b2")
#define TRAIN_DIGEST DIGEST("c3")
#define EVAL_DIGEST DIGEST("d4")
#define ADAPTER_DIGEST DIGEST("e5")
#define CONFIG_DIGEST DIGEST("f6")

void bench_hello_client(struct bench *b, uint64_t peer);
void bench_hello_worker(struct bench *b, uint64_t peer, const char *name, const char *instance,
                        uint32_t slots);
void bench_hello_judge(struct bench *b, uint64_t peer, const char *name, const char *instance);
void bench_artifact(struct bench *b, const char *sha256);

/* Submit the grid with its files uploaded; the reply is the caller's. */
struct ha_wire_message *bench_submit(struct bench *b, uint64_t peer, const char *key,
                                     const char *toml, bool extend);

/* The same, and what comes back is not looked at. */
struct ha_wire_message *bench_submit_any(struct bench *b, uint64_t peer, const char *key,
                                         const char *toml, bool extend);

/* Ask only, in a turn of its own; returns the request id. */
uint64_t bench_submit_ask(struct bench *b, uint64_t peer, const char *key, const char *toml,
                          bool extend);

/* The same grid with all five strategies, whose cells may share jobs. */
const char *bench_fused_grid(void);

/* The small grid with a replicate for each of so many seeds, and something more; the caller's. */
char *bench_replicated(int seeds, const char *more);

/* Submit the grid and expand it. */
void bench_create(struct bench *b, uint64_t peer);

/* ---- a fake worker ----------------------------------------------------------------------- */

struct fake_job {
    uint64_t job;
    struct ha_wire_epoch epoch;
    bool train, probe;
    char layers[64]; /* of the first cell, as the job has them */
    uint64_t cell;   /* the first one; what bench_do_job works on */
    uint64_t cells[FAKE_CELLS];
    bool checkpoint[FAKE_CELLS]; /* came along */
    int n_cells;
    bool reference;      /* came along */
    const char *summary; /* of each cell that ends; NULL: one that says little */
    uint64_t sequence;
};

/* Read the next grant that was pushed to the peer; false when there is none. */
bool bench_granted(struct bench *b, uint64_t peer, struct fake_job *ret_job);

/* Report events; returns the reply. */
struct ha_wire_message *bench_report(struct bench *b, uint64_t peer, struct fake_job *job,
                                     struct ha_wire_attempt_event *events, int64_t count);

/* Do one cell of it: metrics and adapter, or answers, then its end. */
void bench_do_cell(struct bench *b, uint64_t peer, struct fake_job *job, uint64_t cell,
                   int prompts);

/* Do the whole job: metrics, adapter or answers to `prompts` prompts, cell, end. */
void bench_do_job(struct bench *b, uint64_t peer, struct fake_job *job, int prompts);

/* ---- what a client sees -------------------------------------------------------------------- */

struct ha_wire_message *bench_status(struct bench *b, uint64_t peer, const char *sweep);
const struct ha_wire_stage_row *bench_stage(const struct ha_wire_message *status, const char *cell,
                                            const char *stage);

/* The state of a stage, and its reason when that is not NULL. */
void bench_expect_stage(struct bench *b, uint64_t peer, const char *cell, const char *stage,
                        const char *state, const char *reason);
void bench_expect_sweep(struct bench *b, uint64_t peer, const char *state);

/* A heartbeat that lists these attempts; the reply is the caller's. */
struct ha_wire_message *bench_beat(struct bench *b, uint64_t peer, const struct fake_job *jobs,
                                   int64_t count);

/* End an attempt: "failed", "refused", "stopped". */
void bench_end(struct bench *b, uint64_t peer, struct fake_job *job, const char *outcome,
               const char *reason);

/* ---- a fake judge worker ---------------------------------------------------------------- */

struct fake_item {
    uint64_t item, call, reply_call;
    struct ha_wire_epoch epoch;
    uint32_t reasks;
    char fault[128];
};

/* Lease up to limit items; returns how many. */
int bench_items(struct bench *b, uint64_t peer, struct fake_item *items, int limit);

/* Begin one item: true and its call, or false when it was refused. */
bool bench_begin(struct bench *b, uint64_t peer, struct fake_item *item, double reserve);

/* Deliver a raw reply (status 200), and its outcome.  Both return true when the
 * acknowledgement calls the item stale. */
bool bench_raw(struct bench *b, uint64_t peer, const struct fake_item *item, double cost);
bool bench_outcome(struct bench *b, uint64_t peer, const struct fake_item *item, const char *kind,
                   const char *fault);

/* Judge everything that can be leased; returns how many items there were. */
int bench_judge_all(struct bench *b, uint64_t peer);

#endif
