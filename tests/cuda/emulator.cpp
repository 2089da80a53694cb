/* emulator.cpp - blocks of threads as fibers */
#include "tests/cuda/emulator.hpp"

#include <cstdio>
#include <cstdlib>
#include <link.h>
#include <memory>
#include <vector>

#include "tests/cuda/context.hpp"
#include "tests/cuda/queue.hpp"

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef __shared__

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SWITCH_BEGIN(save, stack, bytes) __sanitizer_start_switch_fiber(save, stack, bytes)
#define SWITCH_END(save, from, bytes) __sanitizer_finish_switch_fiber(save, from, bytes)
#else
#define SWITCH_BEGIN(save, stack, bytes) ((void)(save), (void)(stack), (void)(bytes))
#define SWITCH_END(save, from, bytes) ((void)(save), (void)(from), (void)(bytes))
#endif

namespace emulator
{

/* What a lane that is not there gives, undefined on a device: a NaN. */
const uint64_t NOBODY = 0xfff8dead7fc0deadu;

enum { WARP = WARP_LANES, MOST_THREADS = 1024, STACK_BYTES = 128 << 10, MOST_SHARED = 227 << 10 };

const unsigned ALL = 0xffffffffu;

enum wait { READY, WAIT_BLOCK, WAIT_WARP, ENDED };

struct fiber {
    emulator::context context;
    std::unique_ptr<char[]> stack;
    void *fake_stack;
    enum wait wait;
    unsigned mask;    /* of the exchange it waits for */
    uint64_t phase;   /* exchanges it has come to */
    uint64_t slot[2]; /* its values of the last two */
};

struct warp {
    uint64_t there; /* the last exchange of all lanes that all are known to have come to, */
    uint64_t known; /* and that of which the result is known: */
    uint64_t result;
};

struct block_state {
    std::vector<fiber> fibers;
    warp warps[MOST_THREADS / WARP];
    int n_threads = 0, current = 0;
    position where;
    const std::function<void()> *kernel = nullptr;
    context scheduler;
    void *scheduler_fake_stack = nullptr;
    const void *scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
};

static block_state state;
alignas(256) static unsigned char shared[MOST_SHARED];

/* Kernels' own shared variables are thread-local (emulator.hpp), and nothing else of this module is
 * but this one, so that they can be found: they are the module's block of the running thread. */
static thread_local char anchor;

struct variables {
    void *begin;
    size_t bytes;
};

static int find_variables(struct dl_phdr_info *module, size_t, void *context)
{
    char *begin = static_cast<char *>(module->dlpi_tls_data), *own = &anchor;

    for (int i = 0; begin && i < module->dlpi_phnum; i++) {
        size_t bytes = module->dlpi_phdr[i].p_memsz;

        if (module->dlpi_phdr[i].p_type != PT_TLS || own < begin || own >= begin + bytes)
            continue;
        *static_cast<variables *>(context) = {begin, bytes};
        return 1;
    }
    return 0;
}

[[noreturn]] static void give_up(const char *why)
{
    fprintf(stderr, "emulator: %s (block %u,%u,%u)\n", why, state.where.block.x,
            state.where.block.y, state.where.block.z);
    abort();
}

const position &here()
{
    return state.where;
}

int lane()
{
    return state.current % WARP;
}

unsigned char *shared_bytes()
{
    return shared;
}

static void back_to_scheduler()
{
    fiber &self = state.fibers[(size_t)state.current];

    SWITCH_BEGIN(&self.fake_stack, state.scheduler_stack, state.scheduler_stack_bytes);
    switch_context(self.context, state.scheduler);
    SWITCH_END(self.fake_stack, &state.scheduler_stack, &state.scheduler_stack_bytes);
}

void wait_for_block()
{
    state.fibers[(size_t)state.current].wait = WAIT_BLOCK;
    back_to_scheduler();
}

/* Come to an exchange with a value and wait for the others; returns its number. */
static uint64_t come_together(unsigned mask, uint64_t value)
{
    fiber &self = state.fibers[(size_t)state.current];
    uint64_t phase = self.phase;

    if (!(mask >> lane() & 1))
        give_up("a lane that its own mask leaves out");
    self.slot[phase & 1] = value;
    self.phase++;
    self.mask = mask;
    self.wait = WAIT_WARP;
    back_to_scheduler();
    return phase;
}

uint64_t exchange(unsigned mask, uint64_t value, int from)
{
    uint64_t phase = come_together(mask, value);
    int thread = state.current / WARP * WARP + from;

    if (!(mask >> from & 1) || thread >= state.n_threads)
        return NOBODY;
    return state.fibers[(size_t)thread].slot[phase & 1];
}

bool gather(uint64_t value, uint64_t all[WARP_LANES], uint64_t **result)
{
    uint64_t phase = come_together(ALL, value);
    int first = state.current / WARP * WARP;
    warp &own = state.warps[first / WARP];

    /* None of its lanes comes to the next exchange before it has read this one's. */
    *result = &own.result;
    if (own.known == phase + 1)
        return false;
    own.known = phase + 1;
    for (int i = 0; i < WARP; i++)
        all[i] = first + i < state.n_threads ? state.fibers[(size_t)(first + i)].slot[phase & 1]
                                             : NOBODY;
    return true;
}

unsigned ballot(unsigned mask, bool predicate)
{
    uint64_t phase = come_together(mask, predicate);
    int first = state.current / WARP * WARP;
    unsigned bits = 0;

    for (int i = 0; i < WARP && first + i < state.n_threads; i++)
        if (mask >> i & 1 && state.fibers[(size_t)(first + i)].slot[phase & 1])
            bits |= 1u << i;
    return bits;
}

/* All lanes of the mask have come to the exchange that this fiber waits for. */
static bool warp_is_there(int thread)
{
    const fiber &self = state.fibers[(size_t)thread];
    int first = thread / WARP * WARP;
    warp &own = state.warps[first / WARP];

    if (self.mask == ALL && own.there == self.phase)
        return true;
    for (int i = 0; i < WARP && first + i < state.n_threads; i++) {
        const fiber &other = state.fibers[(size_t)(first + i)];

        if (self.mask >> i & 1 && other.phase < self.phase) {
            if (other.wait == ENDED)
                give_up("a lane ended that its warp waits for");
            return false;
        }
    }
    if (self.mask == ALL)
        own.there = self.phase;
    return true;
}

/* A thread of one block after the other. */
static void run_fiber()
{
    SWITCH_END(nullptr, &state.scheduler_stack, &state.scheduler_stack_bytes);
    for (;;) {
        (*state.kernel)();
        state.fibers[(size_t)state.current].wait = ENDED;
        back_to_scheduler();
    }
}

static void resume(int thread)
{
    fiber &next = state.fibers[(size_t)thread];
    dim3 dim = state.where.block_dim;
    unsigned n = (unsigned)thread;

    state.current = thread;
    state.where.thread = make_uint3(n % dim.x, n / dim.x % dim.y, n / dim.x / dim.y);
    next.wait = READY;
    SWITCH_BEGIN(&state.scheduler_fake_stack, next.stack.get(), STACK_BYTES);
    switch_context(state.scheduler, next.context);
    SWITCH_END(state.scheduler_fake_stack, nullptr, nullptr);
}

static void prepare(fiber &next)
{
    if (!next.stack) {
        next.stack = std::make_unique<char[]>(STACK_BYTES);
        make_context(next.context, next.stack.get(), STACK_BYTES, run_fiber);
        next.fake_stack = nullptr;
    }
    next.wait = READY;
    next.phase = 0;
}

/* Let each thread go on that can.  Returns how many could. */
static int pass_over_threads(bool reverse)
{
    int moved = 0;

    for (int i = 0; i < state.n_threads; i++) {
        int thread = reverse ? state.n_threads - 1 - i : i;
        fiber &next = state.fibers[(size_t)thread];

        if (next.wait == READY || (next.wait == WAIT_WARP && warp_is_there(thread))) {
            resume(thread);
            moved++;
        }
    }
    return moved;
}

static void run_block(bool reverse)
{
    for (int i = 0; i < state.n_threads; i++)
        prepare(state.fibers[(size_t)i]);
    memset(state.warps, 0, sizeof(state.warps)); /* exchanges count from 1 */
    for (;;) {
        int ended = 0, waiting = 0;

        if (pass_over_threads(reverse) > 0)
            continue;
        for (int i = 0; i < state.n_threads; i++) {
            ended += state.fibers[(size_t)i].wait == ENDED;
            waiting += state.fibers[(size_t)i].wait == WAIT_BLOCK;
        }
        if (ended == state.n_threads)
            return;
        if (ended + waiting < state.n_threads || ended > 0)
            give_up("a barrier that not all threads of the block come to");
        for (int i = 0; i < state.n_threads; i++)
            state.fibers[(size_t)i].wait = READY;
    }
}

static void run_grid(dim3 grid, dim3 block, size_t shared_size, const std::function<void()> &kernel)
{
    unsigned n_blocks = 0;
    variables own = {nullptr, 0};

    if (!dl_iterate_phdr(find_variables, &own))
        give_up("the kernels' shared variables are not found");
    state.n_threads = (int)(block.x * block.y * block.z);
    state.kernel = &kernel;
    state.where.block_dim = block;
    state.where.grid_dim = grid;
    state.fibers.resize(MOST_THREADS); /* once: they stay where they are */
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                state.where.block = make_uint3(x, y, z);
                memset(shared, 0xff, shared_size);
                memset(own.begin, 0xff, own.bytes);
                run_block(n_blocks++ % 2 != 0);
            }
}

void launch(const void *address, dim3 grid, dim3 block, size_t shared_size, void *stream,
            std::function<void()> check, std::function<void()> kernel)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z;

    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
        grid.z > 65535 || threads == 0 || threads > MOST_THREADS ||
        shared_size > shared_allowed(address) || shared_size > MOST_SHARED || !stream) {
        set_last_error(cudaErrorInvalidConfiguration);
        return;
    }
    enqueue(stream, std::move(check), [=] { run_grid(grid, block, shared_size, kernel); });
}

} // namespace emulator
