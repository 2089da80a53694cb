/* allocator.c - malloc and its relatives in front of the C library's, or of the address sanitizer's
 *
 * A program's own definitions are found first by every library it uses; the next
 * ones in line do the work. */
#include "tests/torture/allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* The dynamic linker allocates while it is asked for the next malloc. */
enum { EARLY_BYTES = 1 << 16, ALIGN = 16 };

static _Alignas(ALIGN) char early[EARLY_BYTES];
static size_t early_used;

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned)(size_t, size_t);
static void (*next_free)(void *);
static bool looking;

static _Thread_local int64_t left, counted;
static _Thread_local bool armed, paused, sticks, failed;

void allocator_arm(int64_t n, bool sticky)
{
    left = n;
    counted = 0;
    sticks = sticky;
    failed = false;
    paused = false;
    armed = true;
}

int64_t allocator_count(void)
{
    return counted;
}

bool allocator_disarm(void)
{
    armed = false;
    return failed;
}

void allocator_pause(void)
{
    paused = true;
}

void allocator_resume(void)
{
    paused = false;
}

bool allocator_fails(void)
{
    if (!armed || paused)
        return false;
    counted++;
    if (left > 0)
        left--;
    if (left > 0 || (failed && !sticks))
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

/* C has no conversion from an object's pointer to a function's. */
static void find(const char *name, void *ret_function)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(ret_function, &found, sizeof found);
}

static bool ready(void)
{
    if (next_free)
        return true;
    if (looking)
        return false;
    looking = true;
    find("malloc", &next_malloc);
    find("calloc", &next_calloc);
    find("realloc", &next_realloc);
    find("aligned_alloc", &next_aligned);
    find("free", &next_free);
    looking = false;
    return next_free != NULL;
}

static void *early_memory(size_t bytes)
{
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;

    if (need > EARLY_BYTES - early_used)
        return NULL;
    early_used += need;
    return early + early_used - need;
}

static bool is_early(const void *memory)
{
    return (const char *)memory >= early && (const char *)memory < early + EARLY_BYTES;
}

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
    if (!ready())
        return early_memory(bytes);
    return allocator_fails() ? NULL : next_malloc(bytes);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t bytes)
{
    if (!ready())
        return early_memory(count * bytes);
    return allocator_fails() ? NULL : next_calloc(count, bytes);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t bytes)
{
    if (!ready() || is_early(old)) {
        void *memory = malloc(bytes);

        if (memory && old)
            memcpy(memory, old, bytes);
        return memory;
    }
    return allocator_fails() ? NULL : next_realloc(old, bytes);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t bytes)
{
    return !ready() || allocator_fails() ? NULL : next_aligned(alignment, bytes);
}

__attribute__((visibility("default"))) void free(void *memory)
{
    if (memory && !is_early(memory) && ready())
        next_free(memory);
}

/* The address sanitizer has its own, which would go past ours. */
__attribute__((visibility("default"))) char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);

    return copy ? memcpy(copy, text, size) : NULL;
}
