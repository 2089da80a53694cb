/* peer.h - what the benchmarks of the control plane share: connections that speak the real wire
 * protocol, grids that need no files, times */
#ifndef HA_TESTS_BENCH_CONTROL_PEER_H
#define HA_TESTS_BENCH_CONTROL_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct ha_client;
struct ha_loop;
struct ha_net;

/* Prints why and ends the program: a benchmark has nothing to mend. */
void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- times ---------------------------------------------------------------------------------- */

struct bench_times {
    int64_t *ns, count, capacity;
};

void bench_times_add(struct bench_times *times, int64_t ns);

/* In milliseconds; part 0.5: the median.  0 without any. */
double bench_times_at(struct bench_times *times, double part);
void bench_times_print(const char *name, struct bench_times *times);
void bench_times_clear(struct bench_times *times);

/* Appends of 4 KiB, each with an fdatasync, to a file in the folder. */
void bench_fdatasync(const char *dir, int64_t count, struct bench_times *times);

/* ---- connections ----------------------------------------------------------------------------- */

/* Contexts of ZeroMQ have a limit of sockets: a new one for every so many. */
enum { BENCH_SOCKETS_PER_NET = 500 };

struct bench_network {
    struct ha_loop *loop;
    struct ha_net **nets;
    int64_t n_nets, n_sockets;
    const char *endpoint;
};

void bench_network_open(struct bench_network *network, const char *endpoint);

/* Clients must be gone. */
void bench_network_close(struct bench_network *network);

typedef void (*bench_message_fn)(void *context, const struct ha_wire_message *message);

struct bench_peer {
    struct bench_network *network;
    struct ha_client *client;
    bench_message_fn fn;
    void *context;
    uint64_t next_request;
};

/* fn gets every message that comes. */
void bench_peer_open(struct bench_peer *peer, struct bench_network *network, const char *endpoint,
                     bench_message_fn fn, void *context);
void bench_peer_close(struct bench_peer *peer);

/* Fills in protocol and request id, and returns that. */
uint64_t bench_peer_send(struct bench_peer *peer, struct ha_wire_message *message);

/* Send and wait for the reply, at most 120 s; the peer was opened with bench_keep and its own
 * address as context.  The reply is the caller's.  An Error ends the program. */
struct ha_wire_message *bench_peer_call(struct bench_peer *peer, struct ha_wire_message *message);
void bench_keep(void *context, const struct ha_wire_message *message);

/* Say hello as a client and wait for the answer, sent anew every 20 ms: until a coordinator is
 * there. */
void bench_hello_client(struct bench_peer *peer);

/* ---- grids
 * --------------------------------------------------------------------------------------- */

/* Upload one small artifact, which every file of every grid and every adapter is. */
void bench_upload(struct bench_network *network, struct bench_peer *client);

/* The artifact's digest. */
const char *bench_blob(void);

/* A grid of so many cells whose jobs nobody else has.  pairs: a training and answers that wait for
 * it in each cell; else answers of the base model alone.  fuse: "never" or "auto". */
void bench_submit(struct bench_peer *client, const char *name, int64_t cells, bool pairs,
                  const char *fuse);

/* The message of it, to be sent by bench_peer_send; *text is freed after that. */
void bench_submit_message(const char *name, int64_t cells, bool pairs, const char *fuse,
                          struct ha_wire_message *ret_message, char **ret_text);

/* Wait until every cell of the sweep is expanded. */
void bench_wait_expanded(struct bench_peer *client, const char *name, int64_t cells, bool pairs);

#endif
