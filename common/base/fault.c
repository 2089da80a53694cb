/* Part of builds with -Dfaults=true only.  Nothing here is freed: it lives as
 * long as the process. */
#include "common/base/fault.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ORDERS = 48, PLACES = 128, TEXT_BYTES = 512, LOOK_US = 5000 };

enum deed { KILL, HANG, WAIT };

struct order {
    char name[64], arm[256], file[256];
    long left;
    enum deed deed;
};

static struct {
    pthread_mutex_t lock;
    int ready;
    struct order orders[ORDERS];
    int n_orders;
    const char *trace;
    const char *seen[PLACES];
    int n_seen;
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* NAME[:N][?ARM][@FILE] */
static void add_order(const char *text, size_t size, enum deed deed)
{
    struct order *order = &faults.orders[faults.n_orders];
    char copy[TEXT_BYTES], *file, *arm, *count;

    if (size == 0 || size >= sizeof(copy) || faults.n_orders == ORDERS)
        return;
    memcpy(copy, text, size);
    copy[size] = '\0';
    file = strchr(copy, '@');
    if (file)
        *file++ = '\0';
    arm = strchr(copy, '?');
    if (arm)
        *arm++ = '\0';
    count = strchr(copy, ':');
    if (count)
        *count++ = '\0';
    (void)snprintf(order->name, sizeof(order->name), "%s", copy);
    (void)snprintf(order->file, sizeof(order->file), "%s", file ? file : "");
    (void)snprintf(order->arm, sizeof(order->arm), "%s", arm ? arm : "");
    order->left = count ? strtol(count, NULL, 10) : 1;
    order->deed = deed;
    faults.n_orders++;
}

static void add_orders(const char *text, enum deed deed)
{
    while (text && *text) {
        size_t size = strcspn(text, ",");

        add_order(text, size, deed);
        text += size + (text[size] == ',');
    }
}

static void append_line(const char *path, const char *line)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char text[128];
    int size = snprintf(text, sizeof(text), "%s\n", line);

    if (fd < 0)
        return;
    if (size > 0 && (size_t)size < sizeof(text))
        (void)!write(fd, text, (size_t)size);
    close(fd);
}

static void trace(const char *name)
{
    if (!faults.trace)
        return;
    for (int i = 0; i < faults.n_seen; i++) {
        if (strcmp(faults.seen[i], name) == 0)
            return;
    }
    if (faults.n_seen < PLACES)
        faults.seen[faults.n_seen++] = name;
    append_line(faults.trace, name);
}

/* Is it time for this order? */
static int is_due(struct order *order, const char *name)
{
    int fd;

    if (strcmp(order->name, name) != 0 || order->left <= 0 ||
        (order->arm[0] && access(order->arm, F_OK) < 0) || --order->left > 0)
        return 0;
    if (!order->file[0])
        return 1;
    fd = open(order->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    (void)dprintf(fd, "%ld\n", (long)getpid());
    close(fd);
    return 1;
}

/* Until the file is gone; without one for ever. */
static void hang(const char *file)
{
    while (!file[0])
        pause();
    while (access(file, F_OK) == 0)
        usleep(LOOK_US);
}

void ha_fault_point(const char *name)
{
    const struct order *hangs = NULL;
    long wait_ms = 0;

    pthread_mutex_lock(&faults.lock);
    if (!faults.ready) {
        faults.ready = 1;
        faults.trace = getenv("HA_CRASH_TRACE");
        add_orders(getenv("HA_CRASH"), KILL);
        add_orders(getenv("HA_HANG"), HANG);
        add_orders(getenv("HA_SLOW"), WAIT);
    }
    trace(name);
    for (int i = 0; i < faults.n_orders; i++) {
        struct order *order = &faults.orders[i];

        if (order->deed == WAIT && strcmp(order->name, name) == 0)
            wait_ms = order->left;
        if (order->deed == WAIT || !is_due(order, name))
            continue;
        if (order->deed == KILL)
            kill(getpid(), SIGKILL);
        hangs = order;
    }
    pthread_mutex_unlock(&faults.lock);
    if (hangs)
        hang(hangs->file);
    if (wait_ms > 0)
        usleep((useconds_t)wait_ms * 1000);
}

void ha_fault_durable(const char *folder, const char *name)
{
    void (*tell)(const char *path) =
        (void (*)(const char *))(uintptr_t)dlsym(RTLD_DEFAULT, "ha_shim_durable");
    char path[2 * TEXT_BYTES];

    if (!tell || !name)
        return;
    (void)snprintf(path, sizeof(path), "%s%s%s", folder ? folder : "", folder ? "/" : "", name);
    tell(path);
}
