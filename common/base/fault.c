/* Part of builds with -Dfaults=true only.  Nothing here is freed: it lives as
 * long as the process. */
#include "common/base/fault.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ORDERS = 16, PLACES = 128, TEXT_BYTES = 512 };

struct order {
    char name[64], file[256];
    long left;
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

/* NAME[:N][@FILE] */
static void add_order(const char *text, size_t size)
{
    struct order *order = &faults.orders[faults.n_orders];
    char copy[TEXT_BYTES], *file, *count;

    if (size == 0 || size >= sizeof(copy) || faults.n_orders == ORDERS)
        return;
    memcpy(copy, text, size);
    copy[size] = '\0';
    file = strchr(copy, '@');
    if (file)
        *file++ = '\0';
    count = strchr(copy, ':');
    if (count)
        *count++ = '\0';
    (void)snprintf(order->name, sizeof(order->name), "%s", copy);
    (void)snprintf(order->file, sizeof(order->file), "%s", file ? file : "");
    order->left = count ? strtol(count, NULL, 10) : 1;
    faults.n_orders++;
}

static void read_environment(void)
{
    const char *text = getenv("HA_CRASH");

    faults.ready = 1;
    faults.trace = getenv("HA_CRASH_TRACE");
    while (text && *text) {
        size_t size = strcspn(text, ",");

        add_order(text, size);
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

/* May this order still kill? */
static int claim(const struct order *order)
{
    int fd;

    if (!order->file[0])
        return 1;
    fd = open(order->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    close(fd);
    return 1;
}

void ha_fault_point(const char *name)
{
    pthread_mutex_lock(&faults.lock);
    if (!faults.ready)
        read_environment();
    trace(name);
    for (int i = 0; i < faults.n_orders; i++) {
        struct order *order = &faults.orders[i];

        if (strcmp(order->name, name) == 0 && order->left > 0 && --order->left == 0 && claim(order))
            kill(getpid(), SIGKILL);
    }
    pthread_mutex_unlock(&faults.lock);
}
