#!/bin/sh
# Everything on a GPU: the operation tests, then the benchmarks, ending with one table.
# "skipped" and exit code 0 on a machine without one.
#
#   sh tests/gpu/run.sh             builds into build/gpu first
#   sh FOLDER/run.sh                in a folder made by pack.sh: builds nothing
#
# HA_GPU_SANITIZE=1 runs the small cases under compute-sanitizer too (memcheck, racecheck).
# HA_GPU_MODULE runs against another module, such as the emulated one.
set -u
here=$(cd "$(dirname "$0")" && pwd)
started=$(date +%s)

if [ -z "${HA_GPU_MODULE:-}" ] && [ ! -e /dev/nvidiactl ] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
    echo "skipped: no NVIDIA GPU on this machine"
    exit 0
fi
. "$here/programs.sh"

if [ -f "$here/ha-kernels-cuda.so" ]; then # a packed folder
    module=${HA_GPU_MODULE:-$here/ha-kernels-cuda.so}
    find_program() { echo "$here/$(basename "$1")"; }
    LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    root=$(cd "$here/../.." && pwd)
    build=${HA_BUILD:-$root/build/gpu}
    if [ -z "${HA_BUILD:-}" ]; then
        [ -f "$build/build.ninja" ] || meson setup "$build" "$root" -Dcuda=enabled >/dev/null || exit 1
        # shellcheck disable=SC2086
        ninja -C "$build" ha-kernels-cuda.so $programs >/dev/null || { echo "not ok build"; exit 1; }
    fi
    module=${HA_GPU_MODULE:-$build/ha-kernels-cuda.so}
    find_program() { echo "$build/$1"; }
fi

# cuBLASLt may lie outside the loader's path: with the toolkit, or in Python's packages.
if ldd "$module" | grep -q 'libcublasLt.* not found'; then
    for dir in /usr/local/cuda/lib64 $(python3 -c 'import sys; print("\n".join(p + "/nvidia/" + d + "/lib" for p in sys.path if p for d in ("cu13", "cublas")))' 2>/dev/null); do
        if ls "$dir"/libcublasLt.so.* >/dev/null 2>&1; then
            LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir
        fi
    done
fi
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
export HA_CUDA_MODULE="$module" HA_KERNEL_TEST_BACKEND=cuda

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
row() { printf '%-34s %-8s %5s s\n' "$1" "$2" "$3" >>"$work/table"; }

run() { # name, seconds, command...
    name=$1
    limit=$2
    shift 2
    begin=$(date +%s)
    timeout "$limit" "$@" >"$work/out" 2>&1
    status=$?
    took=$(($(date +%s) - begin))
    case $status in
    0) row "$name" ok "$took" ;;
    77) row "$name" skipped "$took" && head -n 1 "$work/out" ;;
    *)
        row "$name" "FAILED" "$took"
        failed=$((failed + 1))
        echo "--- $name (exit code $status)"
        grep -vE '^\[ +(OK|RUN)' "$work/out" | tail -n 30
        ;;
    esac
    return "$status"
}

for name in $tests; do
    run "test $name" 120 "$(find_program "tests/unit/kernels/test_$name")"
done
if [ -n "${HA_GPU_SANITIZE:-}" ] && command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        for name in rows specials; do
            run "$tool $name" 150 compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$(find_program "tests/unit/kernels/test_$name")"
        done
    done
fi
# shellcheck disable=SC2086
if run "bench kernels" 240 "$(find_program tests/gpu/bench_kernels)" ${HA_GPU_BENCH:-}; then
    cat "$work/out"
fi
echo
cat "$work/table"
echo "$(grep -c ' ok ' "$work/table") passed, $failed failed, $(($(date +%s) - started)) s"
[ "$failed" -eq 0 ]
