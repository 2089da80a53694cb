/* context.hpp - one stack after the other on one thread of the CPU
 *
 * A switch is a call of a few instructions: setjmp and longjmp cost the address sanitizer two calls
 * of the system each, and it forgets then what it knows of the stack that is left; swapcontext()
 * asks the system for the mask of signals, which is the same for all.  It is taken on processors
 * for which nothing else is written here. */
#ifndef HA_TESTS_CUDA_CONTEXT_HPP
#define HA_TESTS_CUDA_CONTEXT_HPP

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator
{

#if defined(__x86_64__)

struct context {
    void *top; /* of its stack, while it does not run: six registers and where it goes on */
};

extern "C" void ha_emulator_switch(void **save_top, void *next_top);

asm(R"(
        .text
        .local ha_emulator_switch
        .type ha_emulator_switch, @function
ha_emulator_switch:
        pushq %rbp
        pushq %rbx
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        movq %rsp, (%rdi)
        movq %rsi, %rsp
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbx
        popq %rbp
        ret
        .size ha_emulator_switch, . - ha_emulator_switch
)");

/* The first switch to it calls entry, which never returns. */
static inline void make_context(context &made, char *stack, size_t bytes, void (*entry)())
{
    uintptr_t end = ((uintptr_t)stack + bytes) & ~(uintptr_t)15;
    void **top = (void **)end - 8; /* entry finds the stack as a call leaves it */

    for (int i = 0; i < 8; i++)
        top[i] = nullptr;
    top[6] = (void *)entry;
    made.top = top;
}

static inline void switch_context(context &from, context &to)
{
    ha_emulator_switch(&from.top, to.top);
}

#else

struct context {
    ucontext_t state;
};

static inline void make_context(context &made, char *stack, size_t bytes, void (*entry)())
{
    (void)getcontext(&made.state);
    made.state.uc_stack.ss_sp = stack;
    made.state.uc_stack.ss_size = bytes;
    made.state.uc_link = nullptr;
    makecontext(&made.state, entry, 0);
}

static inline void switch_context(context &from, context &to)
{
    (void)swapcontext(&from.state, &to.state);
}

#endif

} // namespace emulator

#endif
