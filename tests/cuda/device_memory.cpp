/* device_memory.cpp - blocks in one range, whose protection is lifted for the device */
#include "tests/cuda/device_memory.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <type_traits>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(memory, bytes) __asan_poison_memory_region(memory, bytes)
#define UNPOISON(memory, bytes) __asan_unpoison_memory_region(memory, bytes)
#else
#define POISON(memory, bytes) ((void)(memory), (void)(bytes))
#define UNPOISON(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace
{

/* Pages as large as the system has them: opening and closing costs time for each. */
const size_t ALIGNMENT = 256, PAGE = 2 << 20, RANGE = (size_t)64 << 30;

struct block {
    size_t bytes, held; /* as asked for; with what lies behind it */
};

std::recursive_mutex lock;
char *range;   /* RANGE addresses */
size_t n_ever; /* bytes of the range that were a block's at some time */
size_t n_open; /* of them, open now; 0: closed */
int n_at_work; /* device_at_work's that live */
size_t n_held;
std::map<char *, block> blocks;
std::map<char *, size_t> pinned;
struct sigaction before;

[[noreturn]] void give_up(const char *what, const char *why, const void *memory)
{
    fprintf(stderr, "emulator: %s: %p %s\n", what, memory, why);
    abort();
}

bool in_range(const void *memory)
{
    return range && memory >= range && memory < range + RANGE;
}

/* Say what happened, then let it happen as if nobody had looked. */
void on_fault(int, siginfo_t *info, void *)
{
    static const char text[] = "emulator: the host follows a pointer of the device\n";

    if (in_range(info->si_addr) && write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(1);
    (void)sigaction(SIGSEGV, &before, nullptr);
}

void make_range()
{
    struct sigaction action = {};
    void *memory =
        mmap(nullptr, RANGE + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        give_up("device memory", "cannot be reserved", nullptr);
    range =
        reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(memory) + PAGE - 1) / PAGE * PAGE);
    (void)madvise(range, RANGE, MADV_HUGEPAGE);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    (void)sigaction(SIGSEGV, &action, &before);
}

void protect(size_t bytes, int protection)
{
    if (bytes > 0 && mprotect(range, bytes, protection) != 0)
        give_up("device memory", "cannot be opened or closed", range);
}

/* Open what has been in use by now. */
void open_range()
{
    if (n_at_work > 0 && n_open < n_ever) {
        protect(n_ever, PROT_READ | PROT_WRITE);
        n_open = n_ever;
    }
}

/* The first gap of so many bytes. */
char *find_place(size_t held)
{
    char *at = range;

    for (const auto &entry : blocks) {
        if ((size_t)(entry.first - at) >= held)
            return at;
        at = entry.first + entry.second.held;
    }
    return held <= (size_t)(range + RANGE - at) ? at : nullptr;
}

/* The block or pinned memory that holds the address, or NULL. */
template <typename Map> const char *holder(const Map &map, const char *at, size_t *ret_bytes)
{
    auto next = map.upper_bound(const_cast<char *>(at));

    if (next == map.begin())
        return nullptr;
    --next;
    if constexpr (std::is_same_v<Map, std::map<char *, block>>)
        *ret_bytes = next->second.bytes;
    else
        *ret_bytes = next->second;
    return at <= next->first + *ret_bytes ? next->first : nullptr;
}

bool is_visible(const void *memory)
{
    const char *at = static_cast<const char *>(memory);
    size_t bytes;

    return holder(blocks, at, &bytes) || holder(pinned, at, &bytes);
}

} // namespace

namespace emulator
{

size_t device_bytes()
{
    const char *text = getenv("HA_EMULATED_MEMORY");

    return text ? strtoull(text, nullptr, 10) : (size_t)8 << 30;
}

device_at_work::device_at_work()
{
    lock.lock();
    n_at_work++;
    open_range();
}

device_at_work::~device_at_work()
{
    if (--n_at_work == 0) {
        protect(n_open, PROT_NONE);
        n_open = 0;
    }
    lock.unlock();
}

bool device_alloc(size_t bytes, void **memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, most = device_bytes();
    char *at;

    if (!range)
        make_range();
    if (rounded < bytes || n_held > most || rounded > most - n_held)
        return false;
    /* With a gap behind it, for the sanitizer. */
    at = find_place(rounded + ALIGNMENT);
    if (!at)
        return false;
    blocks[at] = {bytes, rounded + ALIGNMENT};
    n_held += rounded;
    if ((size_t)(at - range) + rounded + ALIGNMENT > n_ever)
        n_ever = ((size_t)(at - range) + rounded + ALIGNMENT + PAGE - 1) / PAGE * PAGE;
    POISON(at, rounded + ALIGNMENT);
    UNPOISON(at, bytes);
    {
        device_at_work work;

        memset(at, 0xff, bytes);
    }
    *memory = at;
    return true;
}

bool device_free(void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = blocks.find(static_cast<char *>(memory));

    if (found == blocks.end())
        return false;
    n_held -= found->second.held - ALIGNMENT;
    POISON(found->first, found->second.held);
    blocks.erase(found);
    return true;
}

bool pinned_alloc(size_t bytes, void **memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    if (posix_memalign(memory, ALIGNMENT, bytes) != 0)
        return false;
    pinned[static_cast<char *>(*memory)] = bytes;
    return true;
}

void pinned_free(void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    pinned.erase(static_cast<char *>(memory));
    free(memory);
}

void expect_device(const char *what, const void *memory, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    const char *at = static_cast<const char *>(memory), *begin;
    size_t there;

    if (bytes == 0)
        return;
    begin = holder(blocks, at, &there);
    if (!begin)
        give_up(what, in_range(memory) ? "is in no block of the device" : "is memory of the host",
                memory);
    if (bytes > there - (size_t)(at - begin))
        give_up(what, "reaches over the end of its block", memory);
}

void expect_host(const char *what, const void *memory, size_t bytes)
{
    const char *at = static_cast<const char *>(memory);

    if (bytes > 0 && (in_range(at) || in_range(at + bytes - 1)))
        give_up(what, "is memory of the device", memory);
}

void expect_visible(const char *kernel, const void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    if (memory && !is_visible(memory))
        give_up(kernel, "is an argument that the device cannot see", memory);
}

} // namespace emulator
