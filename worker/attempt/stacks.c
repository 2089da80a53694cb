#include "worker/attempt/stacks.h"

#include <execinfo.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Everything here but the last function runs in a signal's handler, at any place of the program:
 * no memory is asked for and nothing is locked. */

enum { FRAMES = 64, PATH_BYTES = 64, TEXT_BYTES = 64, WAIT_MS = 2, WAITS = 50, ALL_WAITS = 400 };

struct entry { /* of getdents64 */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static atomic_int done;

static void put(const char *text)
{
    size_t size = strlen(text);
    ssize_t n = write(STDERR_FILENO, text, size);

    (void)n; /* there is nobody to tell */
}

/* "/proc/self/task/TID/name" */
static void make_path(char path[PATH_BYTES], const char *tid, const char *name)
{
    static const char folder[] = "/proc/self/task/";
    size_t length = strlen(tid), rest = strlen(name);

    memcpy(path, folder, sizeof(folder) - 1);
    memcpy(path + sizeof(folder) - 1, tid, length);
    path[sizeof(folder) - 1 + length] = '/';
    memcpy(path + sizeof(folder) + length, name, rest + 1);
}

static const char *number_text(char text[TEXT_BYTES], long number)
{
    char *at = text + TEXT_BYTES - 1;

    *at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    return at;
}

/* The first line of a file about the thread. */
static void put_file(const char *tid, const char *name, const char *otherwise)
{
    char path[PATH_BYTES], text[TEXT_BYTES];
    ssize_t n;
    int fd;

    make_path(path, tid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    put(text[0] && strcmp(text, "0") != 0 ? text : otherwise);
}

static void put_thread(long tid)
{
    char text[TEXT_BYTES];
    const char *number = number_text(text, tid);

    put("thread ");
    put(number);
    put(" (");
    put_file(number, "comm", "?");
    put("), in the kernel: ");
    put_file(number, "wchan", "nothing");
    put("\n");
}

static void on_own(int number)
{
    int saved = errno;
    void *frames[FRAMES];

    (void)number;
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
    atomic_store(&done, 1);
    errno = saved;
}

/* One after the other; a thread that is in the kernel for good does not answer. */
static int ask(long tid)
{
    const struct timespec pause = {.tv_nsec = WAIT_MS * 1000000};
    int waits = 0;

    put_thread(tid);
    atomic_store(&done, 0);
    if (syscall(SYS_tgkill, getpid(), tid, SIGUSR2) < 0)
        return 0;
    while (!atomic_load(&done) && waits < WAITS) {
        nanosleep(&pause, NULL);
        waits++;
    }
    if (waits == WAITS)
        put("it does not answer\n");
    return waits;
}

static void ask_others(int folder, long own)
{
    uint64_t space[256];
    long size, tid;
    int waits = 0;

    while ((size = syscall(SYS_getdents64, folder, space, sizeof(space))) > 0) {
        for (long at = 0; at < size;) {
            const struct entry *entry = (const struct entry *)((const char *)space + at);

            at += entry->size;
            tid = 0;
            for (const char *digit = entry->name; *digit >= '0' && *digit <= '9'; digit++)
                tid = 10 * tid + (*digit - '0');
            if (tid > 0 && tid != own && waits < ALL_WAITS)
                waits += ask(tid);
        }
    }
}

static void on_all(int number)
{
    int saved = errno, folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long own = syscall(SYS_gettid);

    put("where its threads stand:\n");
    put_thread(own);
    on_own(number);
    if (folder >= 0) {
        ask_others(folder, own);
        close(folder);
    }
    errno = saved;
}

void ha_stacks_on_signal(void)
{
    struct sigaction all = {.sa_handler = on_all, .sa_flags = SA_RESTART};
    struct sigaction own = {.sa_handler = on_own, .sa_flags = SA_RESTART};
    void *frame;

    (void)backtrace(&frame, 1); /* loads what it needs, which a handler must not */
    (void)sigaction(SIGURG, &all, NULL);
    (void)sigaction(SIGUSR2, &own, NULL);
}
