#include "worker/daemon/residents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/runner.h"

struct resident {
    struct residents *owner;
    struct runner *runner;
    struct resident_place place;
    char *key;
    int64_t since_ms;
    bool ending, gone;
};

struct residents {
    struct residents_options options;
    struct resident **list; /* and what the policy sees of them beside it */
    struct resident_view *views;
    int64_t n, capacity, view_capacity;
    int64_t active; /* attempts that run, or are about to */
    struct ha_loop_timer *timer;
};

static void look_at(struct residents *residents)
{
    for (int64_t i = 0; i < residents->n; i++) {
        const struct resident *one = residents->list[i];

        residents->views[i] = (struct resident_view){
            .key = one->key, .since_ms = one->since_ms, .ending = one->ending};
    }
}

static void dismiss(struct residents *residents, int64_t at)
{
    struct resident *one = residents->list[at];

    one->ending = residents->views[at].ending = true;
    runner_dismiss(one->runner);
}

static void free_resident(struct resident *one)
{
    free(one->place.uuids);
    free(one->key);
    free(one);
}

static void release(struct residents *residents, const struct resident *one)
{
    if (residents->options.devices && one->place.claim != 0)
        ha_devices_release(residents->options.devices, one->place.claim, 0, false, false,
                           ha_loop_now_ms(residents->options.loop));
}

/* False: it has no GPU although attempts get some now, or its GPU is not well. */
static bool is_of_use(const struct residents *residents, const struct resident *one)
{
    const struct ha_devices *devices = residents->options.devices;

    return !devices || (one->place.claim != 0 && ha_devices_are_well(devices, one->place.claim));
}

static void set_timer(struct residents *residents)
{
    int64_t first;

    look_at(residents);
    first = resident_oldest(residents->views, residents->n);
    if (first < 0)
        ha_loop_timer_unset(residents->timer);
    else
        ha_loop_timer_set(residents->timer,
                          residents->views[first].since_ms + residents->options.rules.keep_ms);
}

static void on_timer(void *context)
{
    struct residents *residents = context;
    int64_t now_ms = ha_loop_now_ms(residents->options.loop), first;

    look_at(residents);
    while ((first = resident_oldest(residents->views, residents->n)) >= 0 &&
           residents->views[first].since_ms + residents->options.rules.keep_ms <= now_ms)
        dismiss(residents, first);
    set_timer(residents);
}

static void on_ended(void *context, int status)
{
    struct resident *one = context;

    (void)status;
    one->gone = true;
}

/* ---- life -------------------------------------------------------------------------------- */

int residents_create(const struct residents_options *options, struct residents **ret_residents,
                     struct ha_error *err)
{
    struct residents *residents = ha_calloc(1, sizeof(*residents));
    int r;

    if (!residents)
        return ha_error_set(err, ENOMEM, "out of memory");
    residents->options = *options;
    r = ha_loop_timer_create(options->loop, on_timer, residents, &residents->timer, err);
    if (r < 0) {
        residents_destroy(residents);
        return r;
    }
    *ret_residents = residents;
    return 0;
}

void residents_destroy(struct residents *residents)
{
    if (!residents)
        return;
    for (int64_t i = 0; i < residents->n; i++) {
        runner_destroy(residents->list[i]->runner);
        release(residents, residents->list[i]);
        free_resident(residents->list[i]);
    }
    ha_loop_timer_destroy(residents->timer);
    free(residents->list);
    free(residents->views);
    free(residents);
}

/* ---- coming and going -------------------------------------------------------------------- */

static struct resident *add(struct residents *residents, struct runner *runner, const char *key)
{
    struct resident *one = ha_calloc(1, sizeof(*one));

    if (one)
        one->key = ha_strdup(key);
    if (!one || !one->key ||
        ha_grow((void **)&residents->list, &residents->capacity, residents->n + 1,
                sizeof(struct resident *)) < 0 ||
        ha_grow((void **)&residents->views, &residents->view_capacity, residents->n + 1,
                sizeof(*residents->views)) < 0) {
        if (one)
            free_resident(one);
        return NULL;
    }
    one->owner = residents;
    one->runner = runner;
    one->since_ms = ha_loop_now_ms(residents->options.loop);
    residents->list[residents->n++] = one;
    return one;
}

char *resident_key(const char *path, const char *digest)
{
    return ha_format("%s\n%s", path, digest ? digest : "");
}

bool residents_have(const struct residents *residents, const char *key)
{
    for (int64_t i = 0; i < residents->n; i++) {
        if (!residents->list[i]->ending && strcmp(residents->list[i]->key, key) == 0)
            return true;
    }
    return false;
}

bool residents_keeps(const struct residents *residents)
{
    return residents->options.rules.keep_ms > 0;
}

void residents_put(struct residents *residents, struct runner *runner, const char *key,
                   uint64_t job, struct resident_place *place)
{
    struct resident *one = add(residents, runner, key);

    if (!one) {
        struct resident none = {.place = *place};

        runner_destroy(runner);
        release(residents, &none);
        free(place->uuids);
        *place = (struct resident_place){0};
        return;
    }
    one->place = *place;
    *place = (struct resident_place){0};
    runner_rest(runner, on_ended, one);
    if (residents->options.devices && one->place.claim != 0)
        ha_devices_pass(residents->options.devices, one->place.claim, job, one->since_ms);
    look_at(residents);
    if (residents->options.rules.keep_ms == 0 || !is_of_use(residents, one))
        dismiss(residents, residents->n - 1);
    set_timer(residents);
}

static void drop(struct residents *residents, int64_t at)
{
    memmove(&residents->list[at], &residents->list[at + 1],
            (size_t)(residents->n - at - 1) * sizeof(struct resident *));
    residents->n--;
    set_timer(residents);
}

struct runner *residents_take(struct residents *residents, const char *key,
                              struct resident_place *ret_place)
{
    struct runner *runner;
    struct resident *one;
    int64_t at;

    residents_look(residents);
    look_at(residents);
    at = resident_find(residents->views, residents->n, key);
    if (at < 0)
        return NULL;
    one = residents->list[at];
    runner = one->runner;
    *ret_place = one->place;
    one->place.uuids = NULL;
    free_resident(one);
    drop(residents, at);
    residents->active++;
    return runner;
}

bool residents_admit(struct residents *residents, int64_t ranks)
{
    const struct resident_rules *rules = &residents->options.rules;
    int64_t next;

    look_at(residents);
    while ((next = resident_to_end(residents->views, residents->n, rules, residents->active,
                                   ranks)) >= 0)
        dismiss(residents, next);
    set_timer(residents);
    if (!resident_has_room(residents->n, rules, residents->active, ranks))
        return false;
    residents->active++;
    return true;
}

void residents_leave(struct residents *residents)
{
    residents->active--;
}

bool residents_yield(struct residents *residents, int64_t ranks)
{
    bool any = false;
    int64_t next;

    look_at(residents);
    while ((next = resident_oldest(residents->views, residents->n)) >= 0 && (ranks > 1 || !any)) {
        dismiss(residents, next);
        any = true;
    }
    set_timer(residents);
    return any;
}

void residents_check(struct residents *residents)
{
    bool any = false;

    for (int64_t i = residents->n; i-- > 0;) {
        struct resident *one = residents->list[i];

        runner_check(one->runner);
        if (!one->gone)
            continue;
        any = true;
        runner_destroy(one->runner);
        release(residents, one);
        free_resident(one);
        drop(residents, i);
    }
    if (any)
        residents->options.changed(residents->options.context);
}

void residents_look(struct residents *residents)
{
    look_at(residents);
    for (int64_t i = 0; i < residents->n; i++) {
        if (!residents->views[i].ending && !is_of_use(residents, residents->list[i]))
            dismiss(residents, i);
    }
}

void residents_set_devices(struct residents *residents, struct ha_devices *devices)
{
    residents->options.devices = devices;
    residents->options.rules.shared = devices == NULL;
    residents_look(residents);
}

struct ha_devices *residents_devices(const struct residents *residents)
{
    return residents->options.devices;
}

void residents_end(struct residents *residents)
{
    residents->options.rules.keep_ms = 0;
    look_at(residents);
    for (int64_t i = 0; i < residents->n; i++) {
        if (!residents->views[i].ending)
            dismiss(residents, i);
    }
}
