"""Permutations that decide the order of training data."""

import numpy as np
import torch

from . import files

SIZES = [0, 1, 2, 3, 10, 12, 33, 100, 2354, 43835, 160800]
SEEDS = [0, 1, 42, 43, 1234, 2**32 - 1, 2**32 + 1]
WHOLE = 100     # longer permutations are given by both ends and two sums


def fnv1a_64(values):
    """FNV-1a over the values as little-endian 64-bit integers."""
    state = 0xCBF29CE484222325
    for byte in np.asarray(values, dtype="<u8").tobytes():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return f"{state:016x}"


def described(order):
    order = [int(value) for value in order]
    if len(order) <= WHOLE:
        return {"values": order}
    return {"first": order[:10], "last": order[-5:],
            "sum_of_index_times_value": sum(i * value for i, value in enumerate(order)),
            "fnv1a_64": fnv1a_64(order)}


def numpy_order(seed, size):
    return np.random.default_rng(seed).permutation(size)


def torch_order(seed, size):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


def make(out_dir):
    """random.json"""
    document = {name: [{"seed": seed, "n": size, **described(draw(seed, size))}
                       for seed in SEEDS for size in SIZES]
                for name, draw in (("numpy_default_rng_permutation", numpy_order),
                                   ("torch_randperm", torch_order))}
    files.write_json(out_dir / "random.json", document)
