/* call.h - calls to evaluators: what was reserved, sent, paid and replied */
#ifndef HA_COORDINATOR_STORE_CALL_H
#define HA_COORDINATOR_STORE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_buffer;
struct ha_error;
struct ha_store;

/* "About to send", with its reservation.  Returns 1 and the call, or 0 when the
 * budget of the judge or of its sweep does not allow it, or the sweep stores max_bytes (0: any). */
int ha_store_call_begin(struct ha_store *store, int64_t item, int64_t epoch, int64_t worker,
                        double reserve, int64_t max_bytes, int64_t now_ms, int64_t *ret_call,
                        struct ha_error *err);

struct ha_call_reply {
    int64_t call, item;
    int64_t http_status; /* 0: none came */
    const void *raw;
    size_t raw_bytes;
    const char *host, *error;
    int64_t latency_ms, prompt_tokens, completion_tokens;
    double cost;
    bool possibly_paid;
};

enum ha_call_taken {
    HA_CALL_TAKEN,
    HA_CALL_AGAIN,  /* this reply is stored already */
    HA_CALL_UNKNOWN /* no such call of this item */
};

/* Store a reply and settle its money: what it cost, or the whole reservation
 * when it may have been paid.  A late reply to a call of unknown outcome
 * replaces the guess. */
int ha_store_call_reply(struct ha_store *store, const struct ha_call_reply *reply, int64_t now_ms,
                        enum ha_call_taken *ret_taken, struct ha_error *err);

/* The call of this lease: 1, and *ret_call is 0 when it is over already; 0: none was
 * begun.  A lease has one call. */
int ha_store_call_open(struct ha_store *store, int64_t item, int64_t epoch, int64_t *ret_call,
                       struct ha_error *err);

/* 1 when the reply of this call of the item is stored, else 0. */
int ha_store_call_replied(struct ha_store *store, int64_t call, int64_t item, struct ha_error *err);

/* A begun call that was not sent: its reservation is free again. */
int ha_store_call_unsent(struct ha_store *store, int64_t call, int64_t item, struct ha_error *err);

/* Calls of an item's lease without a reply, when its worker is lost: possibly
 * paid.  Returns how many there were. */
int64_t ha_store_calls_unknown(struct ha_store *store, int64_t item, int64_t epoch,
                               struct ha_error *err);

int ha_store_call_outcome(struct ha_store *store, int64_t call, const char *outcome,
                          struct ha_error *err);

/* The raw reply of a call into out: 1 or 0. */
int ha_store_call_raw(struct ha_store *store, int64_t call, struct ha_buffer *out,
                      struct ha_error *err);

#endif
