#!/bin/sh
# CPU matrix product and attention, one thread, against OpenBLAS sgemm of this machine
set -eu
ninja -C "$HA_BUILD" tests/bench/bench_gemm >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
exec "$HA_BUILD/tests/bench/bench_gemm"
