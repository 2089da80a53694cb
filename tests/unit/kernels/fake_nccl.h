/* fake_nccl.h - what the library of fake_nccl.c does */
#ifndef HA_TESTS_UNIT_KERNELS_FAKE_NCCL_H
#define HA_TESTS_UNIT_KERNELS_FAKE_NCCL_H

#include <stdint.h>

struct fake_nccl {
    int version;
    int polls;        /* that say "in progress" before anything is looked at */
    int64_t fails_at; /* round from which fails_rank meets an error; 0: none */
    int fails_rank;
    int fails_code;         /* 0: a remote error */
    int destroyed, aborted; /* communicators so far */
};

#endif
