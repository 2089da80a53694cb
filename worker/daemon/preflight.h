/* preflight.h - is a GPU fit for an attempt? A process of its own multiplies on each of them
 *
 * The process (ha-attempt backend --check) sees one device, compares its product with a known one
 * and ends; one that takes too long, as on a device that hangs, is killed. */
#ifndef HA_WORKER_DAEMON_PREFLIGHT_H
#define HA_WORKER_DAEMON_PREFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_loop;
struct preflight;

struct preflight_options {
    struct ha_loop *loop;
    const char *program; /* ha-attempt */
    const char *backend;
    const char *folder; /* of the attempt; the processes' words are in PREFLIGHT_LOG there */
    const char *mark;   /* for their environment (orphan.h) */
    const char *uuids;  /* separated by commas; one after the other is looked at.  NULL: what the
                           process sees by itself, named by no UUID */
    int64_t limit_ms;   /* for each */
    bool patient;       /* one that does not even die is waited for, instead of being left behind */
    /* All are fit (why NULL), or this one is not, and why.  The preflight may be destroyed here. */
    void (*done)(void *context, const char *uuid, const char *why);
    void *context;
};

#define PREFLIGHT_LOG "preflight.log"

/* Texts of options are copied. */
int preflight_create(const struct preflight_options *options, struct preflight **ret_preflight,
                     struct ha_error *err);
void preflight_destroy(struct preflight *preflight); /* NULL is legal; kills its process */

/* In done: the last line of what the process said, the backend's description where it is fit.  The
 * caller's; NULL: there is none. */
char *preflight_last_line(const struct preflight *preflight);

/* SIGCHLD came: look whether it was for this one. */
void preflight_check(struct preflight *preflight);

#endif
