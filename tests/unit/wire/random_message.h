/* random_message.h - messages of every kind that keep all rules, filled by a seed */
#ifndef HA_TESTS_UNIT_WIRE_RANDOM_MESSAGE_H
#define HA_TESTS_UNIT_WIRE_RANDOM_MESSAGE_H

#include <stdint.h>

#include "proto/arena.h"
#include "proto/wire.h"

/* The SHA-256 of nothing. */
#define DIGEST_TEXT "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* The next number behind *state: the same everywhere. */
uint64_t random_bits(uint64_t *state);

/* Kinds of messages. */
int random_message_bodies(void);

/* body: which kind, below random_message_bodies.  What it points to lies in the arena. */
void random_message(struct ha_arena *arena, uint64_t seed, int body,
                    struct ha_wire_message *ret_message);

#endif
