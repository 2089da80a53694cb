/* arguments.hpp - every pointer that a launch gives to a kernel is one that the device can see */
#ifndef HA_TESTS_CUDA_ARGUMENTS_HPP
#define HA_TESTS_CUDA_ARGUMENTS_HPP

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"
#include "tests/cuda/device_memory.hpp"

namespace emulator
{

template <typename... T> void check_arguments(const char *kernel, const T &...arguments);

template <typename T> void check_argument(const char *kernel, T *argument)
{
    expect_visible(kernel, argument);
}

/* Numbers, and structs of numbers. */
template <typename T> void check_argument(const char *, const T &)
{
}

inline void check_argument(const char *kernel, const ha_cuda_head_chunk &c)
{
    check_arguments(kernel, c.logits, c.targets, c.logp, c.logsumexp, c.entropy, c.mean_logit,
                    c.logsumexp2, c.argmax, c.fault_word);
}

inline void check_argument(const char *kernel, const ha_cuda_attention &c)
{
    check_arguments(kernel, c.q, c.k, c.v, c.query_tiles, c.key_tiles, c.ranges, c.out, c.logsumexp,
                    c.dout, c.delta, c.dq, c.dk, c.dv);
}

inline void check_argument(const char *kernel, const ha_cuda_decode &c)
{
    check_arguments(kernel, c.out, c.q, c.caches, c.positions, c.partial);
}

inline void check_argument(const char *kernel, const ha_lora_columns &c)
{
    check_arguments(kernel, c.b.data, c.a.data);
    for (int i = 0; i < c.n_parts; i++)
        check_arguments(kernel, c.parts[i].a, c.parts[i].b);
}

inline void check_argument(const char *kernel, const ha_sample &s)
{
    check_arguments(kernel, s.logits, s.row, s.draws, s.drawn, s.ids, s.positions);
}

template <typename... T> void check_arguments(const char *kernel, const T &...arguments)
{
    (check_argument(kernel, arguments), ...);
}

} // namespace emulator

#endif
