/* Objects that end during a turn are marked and freed at its end, because the
 * turn may still hold pointers to them.  Watches, sources and posted calls are
 * linked lists; set timers are a binary heap by (time, order of setting). */
#include "common/net/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop_source.h"

enum { EVENTS_PER_WAIT = 256, MAX_SIGNALS = 8 };

struct ha_loop_fd {
    struct ha_loop *loop;
    struct ha_loop_fd *next;
    int fd;
    unsigned interest;
    ha_loop_fd_fn fn; /* NULL: ended, or only there to wake the loop */
    void *context;
    bool dead;
};

struct ha_loop_source {
    struct ha_loop *loop;
    struct ha_loop_source *next;
    struct ha_loop_fd *watch;
    const struct ha_loop_source_ops *ops;
    void *context;
    bool dead;
};

struct ha_loop_timer {
    struct ha_loop *loop;
    ha_loop_fn fn;
    void *context;
    int64_t at_ms;
    uint64_t order;
    int64_t slot; /* in the heap; -1: not set */
};

struct post {
    struct post *next;
    ha_loop_fn fn;
    void *context;
};

struct signal_call {
    int signal;
    ha_loop_signal_fn fn;
    void *context;
};

struct ha_loop {
    int epoll_fd, wake_fd, signal_fd;
    int64_t now_ms;
    int64_t rest_ms; /* before the next turn */
    bool stopping, input_pending, has_dead;
    struct ha_loop_fd *watches;
    struct ha_loop_source *sources;
    struct ha_loop_timer **heap;
    int64_t n_timers;   /* set */
    int64_t n_reserved; /* that exist */
    int64_t timer_capacity;
    uint64_t next_order;
    struct signal_call signals[MAX_SIGNALS];
    int n_signals;
    sigset_t signal_set;
    ha_loop_fn turn_end;
    void *turn_end_context;
    pthread_mutex_t post_lock; /* guards the two below */
    struct post *posts, **last_post;
};

/* ---- life -------------------------------------------------------------------------- */

static void drain_wake(void *context, int fd, unsigned events)
{
    uint64_t count;

    (void)context;
    (void)events;
    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

int ha_loop_create(struct ha_loop **ret_loop, struct ha_error *err)
{
    struct ha_loop *loop = ha_calloc(1, sizeof(*loop));
    struct ha_loop_fd *watch;
    int r;

    if (!loop)
        return ha_error_set(err, ENOMEM, "event loop: out of memory");
    loop->signal_fd = -1;
    loop->last_post = &loop->posts;
    sigemptyset(&loop->signal_set);
    pthread_mutex_init(&loop->post_lock, NULL);
    loop->now_ms = ha_clock_boot_ms();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0)
        r = ha_error_set(err, errno, "event loop: %s", strerror(errno));
    else
        r = ha_loop_watch_fd(loop, loop->wake_fd, HA_LOOP_READ, drain_wake, loop, &watch, err);
    if (r < 0) {
        ha_loop_destroy(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

static void free_dead_watches(struct ha_loop *loop, bool all)
{
    for (struct ha_loop_fd **at = &loop->watches; *at;) {
        struct ha_loop_fd *watch = *at;

        if (watch->dead || all) {
            *at = watch->next;
            free(watch);
        } else {
            at = &watch->next;
        }
    }
}

static void free_dead_sources(struct ha_loop *loop, bool all)
{
    for (struct ha_loop_source **at = &loop->sources; *at;) {
        struct ha_loop_source *source = *at;

        if (source->dead || all) {
            *at = source->next;
            free(source);
        } else {
            at = &source->next;
        }
    }
}

void ha_loop_destroy(struct ha_loop *loop)
{
    if (!loop)
        return;
    free_dead_sources(loop, true);
    free_dead_watches(loop, true);
    for (int64_t i = 0; i < loop->n_timers; i++)
        loop->heap[i]->slot = -1;
    free(loop->heap);
    while (loop->posts) {
        struct post *next = loop->posts->next;

        free(loop->posts);
        loop->posts = next;
    }
    if (loop->signal_fd >= 0)
        close(loop->signal_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->post_lock);
    free(loop);
}

int64_t ha_loop_now_ms(const struct ha_loop *loop)
{
    return loop->now_ms;
}

bool ha_loop_input_pending(const struct ha_loop *loop)
{
    return loop->input_pending;
}

void ha_loop_on_turn_end(struct ha_loop *loop, ha_loop_fn fn, void *context)
{
    loop->turn_end = fn;
    loop->turn_end_context = context;
}

/* ---- watches and sources ------------------------------------------------------------ */

static uint32_t epoll_events(unsigned interest)
{
    return (interest & HA_LOOP_READ ? (uint32_t)EPOLLIN : 0) |
           (interest & HA_LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
}

int ha_loop_watch_fd(struct ha_loop *loop, int fd, unsigned interest, ha_loop_fd_fn fn,
                     void *context, struct ha_loop_fd **ret_watch, struct ha_error *err)
{
    struct ha_loop_fd *watch = ha_calloc(1, sizeof(*watch));
    struct epoll_event event = {.events = epoll_events(interest), .data.ptr = watch};

    if (!watch)
        return ha_error_set(err, ENOMEM, "event loop: out of memory");
    *watch = (struct ha_loop_fd){
        .loop = loop, .fd = fd, .interest = interest, .fn = fn, .context = context};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int code = errno;

        free(watch);
        return ha_error_set(err, code, "event loop: cannot watch descriptor %d: %s", fd,
                            strerror(code));
    }
    watch->next = loop->watches;
    loop->watches = watch;
    *ret_watch = watch;
    return 0;
}

int ha_loop_fd_set_interest(struct ha_loop_fd *watch, unsigned interest, struct ha_error *err)
{
    struct epoll_event event = {.events = epoll_events(interest), .data.ptr = watch};

    if (interest == watch->interest)
        return 0;
    if (epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
        return ha_error_set(err, errno, "event loop: cannot watch descriptor %d: %s", watch->fd,
                            strerror(errno));
    watch->interest = interest;
    return 0;
}

void ha_loop_fd_end(struct ha_loop_fd *watch)
{
    if (!watch || watch->dead)
        return;
    (void)epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->dead = true;
    watch->fn = NULL;
    watch->loop->has_dead = true;
}

int ha_loop_source_create(struct ha_loop *loop, int fd, const struct ha_loop_source_ops *ops,
                          void *context, struct ha_loop_source **ret_source, struct ha_error *err)
{
    struct ha_loop_source *source = ha_calloc(1, sizeof(*source));
    int r;

    if (!source)
        return ha_error_set(err, ENOMEM, "event loop: out of memory");
    *source = (struct ha_loop_source){.loop = loop, .ops = ops, .context = context};
    r = ha_loop_watch_fd(loop, fd, HA_LOOP_READ, NULL, NULL, &source->watch, err);
    if (r < 0) {
        free(source);
        return r;
    }
    source->next = loop->sources;
    loop->sources = source;
    *ret_source = source;
    return 0;
}

void ha_loop_source_destroy(struct ha_loop_source *source)
{
    if (!source || source->dead)
        return;
    ha_loop_fd_end(source->watch);
    source->dead = true;
}

/* ---- timers ----------------------------------------------------------------------------- */

static bool before(const struct ha_loop_timer *a, const struct ha_loop_timer *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void put(struct ha_loop *loop, int64_t slot, struct ha_loop_timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

/* Let the timer find its place from slot, up or down. */
static void settle(struct ha_loop *loop, int64_t slot, struct ha_loop_timer *timer)
{
    while (slot > 0 && before(timer, loop->heap[(slot - 1) / 2])) {
        put(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        int64_t child = 2 * slot + 1;

        if (child + 1 < loop->n_timers && before(loop->heap[child + 1], loop->heap[child]))
            child++;
        if (child >= loop->n_timers || !before(loop->heap[child], timer))
            break;
        put(loop, slot, loop->heap[child]);
        slot = child;
    }
    put(loop, slot, timer);
}

/* The heap has room for every timer that exists, so that setting cannot fail. */
int ha_loop_timer_create(struct ha_loop *loop, ha_loop_fn fn, void *context,
                         struct ha_loop_timer **ret_timer, struct ha_error *err)
{
    struct ha_loop_timer *timer = ha_calloc(1, sizeof(*timer));

    if (!timer || ha_grow((void **)&loop->heap, &loop->timer_capacity, loop->n_reserved + 1,
                          sizeof(*loop->heap)) < 0) {
        free(timer);
        return ha_error_set(err, ENOMEM, "event loop: out of memory");
    }
    loop->n_reserved++;
    *timer = (struct ha_loop_timer){.loop = loop, .fn = fn, .context = context, .slot = -1};
    *ret_timer = timer;
    return 0;
}

void ha_loop_timer_set(struct ha_loop_timer *timer, int64_t at_ms)
{
    struct ha_loop *loop = timer->loop;

    timer->at_ms = at_ms;
    timer->order = loop->next_order++;
    settle(loop, timer->slot >= 0 ? timer->slot : loop->n_timers++, timer);
}

void ha_loop_timer_set_after(struct ha_loop_timer *timer, int64_t after_ms)
{
    ha_loop_timer_set(timer, timer->loop->now_ms + after_ms);
}

void ha_loop_timer_unset(struct ha_loop_timer *timer)
{
    struct ha_loop *loop = timer->loop;
    int64_t slot = timer->slot;

    if (slot < 0)
        return;
    timer->slot = -1;
    loop->n_timers--;
    if (slot < loop->n_timers)
        settle(loop, slot, loop->heap[loop->n_timers]);
}

bool ha_loop_timer_is_set(const struct ha_loop_timer *timer)
{
    return timer->slot >= 0;
}

void ha_loop_timer_destroy(struct ha_loop_timer *timer)
{
    if (!timer)
        return;
    ha_loop_timer_unset(timer);
    timer->loop->n_reserved--;
    free(timer);
}

/* Timers set during this phase wait for the next turn. */
static void run_timers(struct ha_loop *loop)
{
    uint64_t order = loop->next_order;

    while (loop->n_timers > 0 && loop->heap[0]->at_ms <= loop->now_ms &&
           loop->heap[0]->order < order) {
        struct ha_loop_timer *timer = loop->heap[0];

        ha_loop_timer_unset(timer);
        timer->fn(timer->context);
    }
}

/* ---- posted calls and signals --------------------------------------------------------- */

int ha_loop_post(struct ha_loop *loop, ha_loop_fn fn, void *context)
{
    struct post *post = ha_calloc(1, sizeof(*post));
    uint64_t one = 1;

    if (!post)
        return -ENOMEM;
    *post = (struct post){.fn = fn, .context = context};
    pthread_mutex_lock(&loop->post_lock);
    *loop->last_post = post;
    loop->last_post = &post->next;
    pthread_mutex_unlock(&loop->post_lock);
    while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    return 0;
}

static void run_posts(struct ha_loop *loop)
{
    struct post *posts;

    pthread_mutex_lock(&loop->post_lock);
    posts = loop->posts;
    loop->posts = NULL;
    loop->last_post = &loop->posts;
    pthread_mutex_unlock(&loop->post_lock);
    while (posts) {
        struct post *next = posts->next;

        posts->fn(posts->context);
        free(posts);
        posts = next;
    }
}

static void read_signals(void *context, int fd, unsigned events)
{
    struct ha_loop *loop = context;
    struct signalfd_siginfo info;

    (void)events;
    while (read(fd, &info, sizeof(info)) == sizeof(info)) {
        for (int i = 0; i < loop->n_signals; i++) {
            if (loop->signals[i].signal == (int)info.ssi_signo)
                loop->signals[i].fn(loop->signals[i].context, loop->signals[i].signal);
        }
    }
}

int ha_loop_on_signal(struct ha_loop *loop, int signal, ha_loop_signal_fn fn, void *context,
                      struct ha_error *err)
{
    struct ha_loop_fd *watch;
    bool first = loop->signal_fd < 0;
    int fd;

    if (loop->n_signals == MAX_SIGNALS)
        return ha_error_set(err, ENOSPC, "event loop: more than %d signals", MAX_SIGNALS);
    sigaddset(&loop->signal_set, signal);
    pthread_sigmask(SIG_BLOCK, &loop->signal_set, NULL);
    fd = signalfd(loop->signal_fd, &loop->signal_set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return ha_error_set(err, errno, "event loop: signalfd: %s", strerror(errno));
    loop->signal_fd = fd;
    loop->signals[loop->n_signals++] =
        (struct signal_call){.signal = signal, .fn = fn, .context = context};
    return first ? ha_loop_watch_fd(loop, fd, HA_LOOP_READ, read_signals, loop, &watch, err) : 0;
}

/* ---- the turn ---------------------------------------------------------------------------- */

static bool sources_ready(const struct ha_loop *loop)
{
    for (const struct ha_loop_source *source = loop->sources; source; source = source->next) {
        if (!source->dead && source->ops->ready(source->context))
            return true;
    }
    return false;
}

static int wait_ms(const struct ha_loop *loop, int64_t max_wait_ms)
{
    if (loop->stopping || sources_ready(loop))
        return 0;
    if (loop->n_timers > 0) {
        int64_t left = loop->heap[0]->at_ms - ha_clock_boot_ms();

        if (left < 0)
            left = 0;
        if (max_wait_ms < 0 || left < max_wait_ms)
            max_wait_ms = left;
    }
    return max_wait_ms > INT_MAX ? INT_MAX : (int)max_wait_ms;
}

static void run_watch(const struct epoll_event *event)
{
    struct ha_loop_fd *watch = event->data.ptr;
    unsigned ready = 0;

    if (!watch->fn)
        return;
    if (event->events & EPOLLIN)
        ready |= HA_LOOP_READ;
    if (event->events & EPOLLOUT)
        ready |= HA_LOOP_WRITE;
    if (event->events & (EPOLLERR | EPOLLHUP))
        ready |= watch->interest;
    watch->fn(watch->context, watch->fd, ready);
}

/* At most as long as the turn may wait. */
static void rest(struct ha_loop *loop, int64_t max_wait_ms)
{
    int64_t ms = max_wait_ms >= 0 && max_wait_ms < loop->rest_ms ? max_wait_ms : loop->rest_ms;
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    if (ms > 0 && !loop->stopping)
        (void)nanosleep(&time, NULL);
    loop->rest_ms = 0;
}

int ha_loop_turn(struct ha_loop *loop, int64_t max_wait_ms, struct ha_error *err)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int n;

    rest(loop, max_wait_ms);
    n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, wait_ms(loop, max_wait_ms));
    if (n < 0 && errno != EINTR)
        return ha_error_set(err, errno, "event loop: waiting: %s", strerror(errno));
    loop->now_ms = ha_clock_boot_ms();
    for (int i = 0; i < n; i++)
        run_watch(&events[i]);
    run_posts(loop);
    loop->input_pending = false;
    for (struct ha_loop_source *source = loop->sources; source; source = source->next) {
        if (!source->dead && source->ops->drain(source->context))
            loop->input_pending = true;
    }
    run_timers(loop);
    if (loop->turn_end)
        loop->turn_end(loop->turn_end_context);
    if (loop->has_dead) {
        free_dead_sources(loop, false);
        free_dead_watches(loop, false);
        loop->has_dead = false;
    }
    return 0;
}

int ha_loop_run(struct ha_loop *loop, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && !loop->stopping)
        r = ha_loop_turn(loop, -1, err);
    loop->stopping = false;
    return r;
}

void ha_loop_rest(struct ha_loop *loop, int64_t ms)
{
    loop->rest_ms = ms;
}

void ha_loop_stop(struct ha_loop *loop)
{
    loop->stopping = true;
}
