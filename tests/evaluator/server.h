/* server.h - the HTTP side of the evaluator (libmicrohttpd in the project's loop) */
#ifndef HA_TESTS_EVALUATOR_SERVER_H
#define HA_TESTS_EVALUATOR_SERVER_H

#include <stdint.h>
#include <stdio.h>

struct ha_error;
struct ha_evaluator_way;
struct ha_loop;

enum { HA_EVALUATOR_RULES = 32 };

/* Every so-manieth request is answered in this way; the first rule that fits counts. */
struct ha_evaluator_rule {
    const struct ha_evaluator_way *way;
    int64_t every;
};

struct ha_evaluator_options {
    int port; /* of 127.0.0.1; 0: any free one */
    int64_t latency_ms;
    struct ha_evaluator_rule rules[HA_EVALUATOR_RULES];
    int n_rules;
    FILE *record; /* one line per request: number, SHA-256 of its body, way; NULL: none */
};

struct ha_evaluator_server;

/* -EADDRINUSE and others; the text names the port. */
int ha_evaluator_server_create(struct ha_loop *loop, const struct ha_evaluator_options *options,
                               struct ha_evaluator_server **ret_server, struct ha_error *err);
void ha_evaluator_server_destroy(struct ha_evaluator_server *server);

int ha_evaluator_server_port(const struct ha_evaluator_server *server);

#endif
