#include "common/net/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"

enum { RULES = 160, DEFAULT_MS = 200, RULE_BYTES = 96 };

enum fault { DROP, DUP, DELAY, REORDER, FAULTS };

static const char *const names[FAULTS] = {"drop", "dup", "delay", "reorder"};

struct rule {
    enum fault fault;
    bool in, out;
    unsigned type; /* 0: all */
    double chance;
    int64_t ms;
};

struct held {
    struct held *next;
    int64_t due_ms;
    bool out, behind; /* behind: goes with the next one of its direction */
    size_t size;
    unsigned char data[];
};

struct ha_net_faults {
    struct ha_loop *loop;
    struct ha_loop_timer *timer;
    ha_net_pass_fn pass;
    void *context;
    struct rule rules[RULES];
    int n_rules;
    uint64_t state; /* of the random numbers */
    const char *trace;
    struct held *held;
    bool busy, dead; /* destroyed by its own callback: freed when that returns */
};

/* ---- rules -------------------------------------------------------------------------------- */

static int bad_rule(const char *text, struct ha_error *err)
{
    return ha_error_set(err, EINVAL, "HA_NET_FAULTS: \"%s\" is no rule", text);
}

/* [out:|in:][TYPE:]FAULT=CHANCE[/MS] */
static int add_rule(struct ha_net_faults *faults, const char *text, struct ha_error *err)
{
    struct rule rule = {.in = true, .out = true, .ms = DEFAULT_MS};
    const char *at = text;
    char *end;

    if (strncmp(at, "seed=", 5) == 0) {
        faults->state ^= strtoull(at + 5, NULL, 10) * 0x9e3779b97f4a7c15u;
        return 0;
    }
    if (strncmp(at, "out:", 4) == 0) {
        rule.in = false;
        at += 4;
    } else if (strncmp(at, "in:", 3) == 0) {
        rule.out = false;
        at += 3;
    }
    if (*at >= '0' && *at <= '9') {
        rule.type = (unsigned)strtoul(at, &end, 10);
        if (*end != ':')
            return bad_rule(text, err);
        at = end + 1;
    }
    for (rule.fault = DROP; rule.fault < FAULTS; rule.fault++) {
        size_t size = strlen(names[rule.fault]);

        if (strncmp(at, names[rule.fault], size) == 0 && at[size] == '=') {
            at += size + 1;
            break;
        }
    }
    if (rule.fault == FAULTS || faults->n_rules == RULES)
        return bad_rule(text, err);
    rule.chance = strtod(at, &end);
    if (*end == '/')
        rule.ms = strtoll(end + 1, &end, 10);
    if (*end || end == at || rule.ms < 1)
        return bad_rule(text, err);
    faults->rules[faults->n_rules++] = rule;
    return 0;
}

static int read_rules(struct ha_net_faults *faults, const char *text, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && *text) {
        size_t size = strcspn(text, ";");
        char rule[RULE_BYTES];

        if (size >= sizeof(rule))
            return bad_rule(text, err);
        memcpy(rule, text, size);
        rule[size] = '\0';
        if (size > 0)
            r = add_rule(faults, rule, err);
        text += size + (text[size] == ';');
    }
    return r;
}

/* SplitMix64, as a number from 0 up to 1. */
static double draw(struct ha_net_faults *faults)
{
    uint64_t x = faults->state += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}

/* ---- the type of a message ------------------------------------------------------------------ */

static const unsigned char *read_number(const unsigned char *at, const unsigned char *end,
                                        uint64_t *ret_value)
{
    *ret_value = 0;
    for (int shift = 0; at < end && shift < 64; shift += 7) {
        *ret_value |= (uint64_t)(*at & 0x7f) << shift;
        if (!(*at++ & 0x80))
            return at;
    }
    return NULL;
}

/* The number of the first field of an envelope that is a message: its body. */
static unsigned type_of(const unsigned char *at, size_t size)
{
    const unsigned char *end = at + size;

    while (at && at < end) {
        uint64_t tag, value;

        at = read_number(at, end, &tag);
        if (!at)
            return 0;
        if ((tag & 7) == 2)
            return (unsigned)(tag >> 3);
        if ((tag & 7) != 0)
            return 0;
        at = read_number(at, end, &value);
    }
    return 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

static void note(const struct ha_net_faults *faults, bool out, unsigned type, const char *what)
{
    int fd =
        faults->trace ? open(faults->trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    char line[64];
    int size = snprintf(line, sizeof(line), "%s %u %s\n", out ? "out" : "in", type, what);

    if (fd < 0)
        return;
    (void)!write(fd, line, (size_t)size);
    close(fd);
}

static void set_timer(struct ha_net_faults *faults)
{
    int64_t due = INT64_MAX;

    for (const struct held *held = faults->held; held; held = held->next)
        due = held->due_ms < due ? held->due_ms : due;
    if (due < INT64_MAX)
        ha_loop_timer_set(faults->timer, due);
    else
        ha_loop_timer_unset(faults->timer);
}

/* Without memory the message is lost, as it may be. */
static void hold(struct ha_net_faults *faults, bool out, bool behind, int64_t ms, const void *data,
                 size_t size)
{
    struct held **last = &faults->held;
    struct held *held = malloc(sizeof(*held) + size);

    if (!held)
        return;
    *held = (struct held){
        .due_ms = ha_loop_now_ms(faults->loop) + ms, .out = out, .behind = behind, .size = size};
    memcpy(held->data, data, size);
    while (*last)
        last = &(*last)->next;
    *last = held;
    set_timer(faults);
}

static void free_faults(struct ha_net_faults *faults)
{
    ha_net_faults_drop(faults);
    free(faults);
}

/* False when the callback destroyed us. */
static bool pass(struct ha_net_faults *faults, bool out, const void *data, size_t size)
{
    bool outer = faults->busy;

    faults->busy = true;
    faults->pass(faults->context, out, data, size);
    faults->busy = outer;
    if (!faults->dead)
        return true;
    if (!outer)
        free_faults(faults);
    return false;
}

/* Pass on what is due, or what waits for one of its direction to go ahead. */
static bool release(struct ha_net_faults *faults, bool behind, bool out)
{
    int64_t now = ha_loop_now_ms(faults->loop);
    struct held **at = &faults->held;

    while (*at) {
        struct held *held = *at;
        bool alive;

        if (held->due_ms > now && !(behind && held->behind && held->out == out)) {
            at = &held->next;
            continue;
        }
        *at = held->next;
        alive = pass(faults, held->out, held->data, held->size);
        free(held);
        if (!alive)
            return false;
        at = &faults->held; /* the callback may have changed the list */
    }
    set_timer(faults);
    return true;
}

static void on_timer(void *context)
{
    (void)release(context, false, false);
}

void ha_net_faults_take(struct ha_net_faults *faults, bool out, const void *data, size_t size)
{
    unsigned type = type_of(data, size);
    const struct rule *late = NULL;
    int copies = 1;

    for (int i = 0; i < faults->n_rules; i++) {
        const struct rule *rule = &faults->rules[i];

        if (!(out ? rule->out : rule->in) || (rule->type != 0 && rule->type != type) ||
            draw(faults) >= rule->chance)
            continue;
        note(faults, out, type, names[rule->fault]);
        if (rule->fault == DROP)
            return;
        if (rule->fault == DUP)
            copies++;
        else
            late = rule;
    }
    for (; copies > 1; copies--) {
        if (!pass(faults, out, data, size))
            return;
    }
    if (late && late->fault == REORDER)
        hold(faults, out, true, late->ms, data, size);
    else if (late)
        hold(faults, out, false, 1 + (int64_t)(draw(faults) * (double)late->ms), data, size);
    else if (pass(faults, out, data, size))
        (void)release(faults, true, out);
}

/* ---- life ------------------------------------------------------------------------------------ */

int ha_net_faults_create(struct ha_loop *loop, ha_net_pass_fn fn, void *context,
                         struct ha_net_faults **ret_faults, struct ha_error *err)
{
    static _Atomic uint64_t made; /* sockets of one process draw differently */
    const char *rules = getenv("HA_NET_FAULTS");
    struct ha_net_faults *faults;
    int r;

    *ret_faults = NULL;
    if (!rules || !*rules)
        return 0;
    faults = ha_calloc(1, sizeof(*faults));
    if (!faults)
        return ha_error_set(err, ENOMEM, "out of memory");
    *faults = (struct ha_net_faults){.loop = loop,
                                     .pass = fn,
                                     .context = context,
                                     .state = ++made,
                                     .trace = getenv("HA_NET_TRACE")};
    r = read_rules(faults, rules, err);
    if (r == 0)
        r = ha_loop_timer_create(loop, on_timer, faults, &faults->timer, err);
    if (r < 0) {
        ha_net_faults_destroy(faults);
        return r;
    }
    *ret_faults = faults;
    return 0;
}

void ha_net_faults_drop(struct ha_net_faults *faults)
{
    while (faults && faults->held) {
        struct held *next = faults->held->next;

        free(faults->held);
        faults->held = next;
    }
}

void ha_net_faults_destroy(struct ha_net_faults *faults)
{
    if (!faults)
        return;
    ha_loop_timer_destroy(faults->timer);
    faults->timer = NULL;
    faults->dead = true;
    if (!faults->busy)
        free_faults(faults);
}
