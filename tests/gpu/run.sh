#!/bin/sh
# Everything on a GPU: the operation tests, golden files in bf16, compute-sanitizer on small cases, where the time of a
# step goes, then training and generation of models of real shapes beside PyTorch's libraries, in
# nine minutes, ending with one table.  "skipped" and exit code 0 on a machine without a GPU.
#
#   sh tests/gpu/run.sh             builds into build/gpu first
#   sh FOLDER/run.sh                in a folder made by pack.sh: builds nothing
#   sh tests/gpu/run.sh --dry       every part at a small size on this machine's processor, with the
#                                   emulated device where HA_BUILD has it: for tests, no figure counts
#
# HA_BUILD            a build folder that is built already
# HA_GPU_BUDGET       seconds for everything (540, dry 5400); what has no time is named
# HA_ORACLE_PYTHON    a Python with PyTorch, Transformers, PEFT, TRL, vLLM, as far as there are any;
#                     else python3.  Wheels in FOLDER/wheels are made known to it.
# HA_GPU_SCRATCH      a folder with room for 20 GB (else /dev/shm or the temporary folder)
# HA_GPU_MODULE       runs the tests against another module, such as the emulated one
set -u
here=$(cd "$(dirname "$0")" && pwd)
started=$(date +%s)
dry=
[ "${1:-}" = --dry ] && dry=1
# A dry run measures nothing: its limits only end what hangs, on however busy a machine.
patience=${dry:+10}
budget=${HA_GPU_BUDGET:-$((540 * ${patience:-1}))}
dry_backend=${HA_GPU_DRY_BACKEND:-cpu}
left() { echo $((budget - $(date +%s) + started)); }

if [ -z "$dry${HA_GPU_MODULE:-}" ] && [ ! -e /dev/nvidiactl ] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
    echo "skipped: no NVIDIA GPU on this machine"
    exit 0
fi
. "$here/programs.sh"

# ---- programs ----

if [ -f "$here/ha-kernels-cuda.so" ]; then # a packed folder
    module=${HA_GPU_MODULE:-$here/ha-kernels-cuda.so}
    find_program() { echo "$here/$(basename "$1")"; }
    LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    PYTHONPATH=$here
    golden=$here/golden
    demo=$here/models
else
    root=$(cd "$here/../.." && pwd)
    build=${HA_BUILD:-$root/build/gpu}
    if [ -z "${HA_BUILD:-}" ]; then
        [ -f "$build/build.ninja" ] || meson setup "$build" "$root" -Dcuda=enabled >/dev/null || exit 1
        # shellcheck disable=SC2086
        ninja -C "$build" ha-kernels-cuda.so $programs >/dev/null || { echo "not ok build"; exit 1; }
    fi
    module=${HA_GPU_MODULE:-$build/ha-kernels-cuda.so}
    [ -z "$dry" ] || module=$build/tests/cuda/ha-kernels-cuda-emulated.so
    find_program() { echo "$build/$1"; }
    PYTHONPATH=$here:$root/tests/bench
    golden=$root/tests/golden
    demo=$root/deploy/demo/models
fi
python=${HA_ORACLE_PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || python=

# cuBLASLt may lie outside the loader's path: with the toolkit, or in Python's packages.
if [ -f "$module" ] && ldd "$module" | grep -q 'libcublasLt.* not found'; then
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
trap 'exit 1' INT TERM
if [ -n "$python" ] && ls "$here"/wheels/*.whl >/dev/null 2>&1; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$here"/wheels/*.whl &&
        PYTHONPATH=$PYTHONPATH:$work/site
fi
export PYTHONPATH HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
failed=0
: >"$work/table"
row() { printf '%-34s %-8s %5s s\n' "$1" "$2" "$3" >>"$work/table"; }

# run NAME SECONDS COMMAND...: its output in $work/out; shown where it fails.
run() {
    name=$1
    limit=$(($2 * ${patience:-1}))
    shift 2
    if [ "$(left)" -lt 5 ]; then
        row "$name" "no time" 0
        return 75
    fi
    [ "$limit" -le "$(left)" ] || limit=$(left)
    begin=$(date +%s)
    timeout "$limit" "$@" >"$work/out" 2>&1
    status=$?
    took=$(($(date +%s) - begin))
    case $status in
    0) row "$name" ok "$took" ;;
    77) row "$name" skipped "$took" && head -n 1 "$work/out" ;;
    124) row "$name" "no time" "$took" ;;
    *)
        row "$name" "FAILED" "$took"
        failed=$((failed + 1))
        echo "--- $name (exit code $status)"
        grep -vE '^\[ +(OK|RUN)' "$work/out" | tail -n 30
        ;;
    esac
    return "$status"
}

# ---- tests ----

[ -z "$dry" ] || tests=$small_tests
for name in $tests; do
    run "$name" 120 "$(find_program "tests/unit/$name")"
    [ $? -ne 124 ] || failed=$((failed + 1)) # here no time means that it hangs
done
if [ -z "$python" ]; then
    row "golden files in bf16" "no Python" 0
else
    # shellcheck disable=SC2086
    if run "golden files in bf16" 90 "$python" "$here/golden_bf16.py" --program "$(find_program ha-attempt)" \
        --models "$demo" --golden "$golden" ${dry:+--family qwen3-demo --backend $dry_backend}; then
        cat "$work/out"
    fi
fi
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        for name in $small_tests; do
            run "$tool $name" 30 compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$(find_program "tests/unit/$name")"
        done
    done
else
    row "compute-sanitizer" "not here" 0
fi

# ---- where the time goes ----

# shellcheck disable=SC2086
if run "bench kernels" 40 "$(find_program tests/gpu/bench_kernels)" ${dry:+small}; then
    cat "$work/out"
fi
scratch=${HA_GPU_SCRATCH:-${TMPDIR:-/tmp}}
room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print int($4 / 1048576) }')
[ -n "${HA_GPU_SCRATCH:-}" ] || [ "${room:-0}" -lt 40 ] || scratch=/dev/shm
scratch=$(mktemp -d "$scratch/ha-gpu-XXXXXX") || exit 1
trap 'rm -rf "$work" "$scratch"' EXIT
# Where Python is missing: four layers, with which the share of embedding and head is too large.
# make and step MODEL COLUMN PAIRS SEQUENCES TOKENS [shape_model's options]
steps() {
    model=$1
    column=$2
    pairs=$3
    sequences=$4
    tokens=$5
    shift 5
    run "make $model" 60 "$(find_program tests/gpu/shape_model)" "$model" "$scratch/model" "$@" || return
    if run "step of $model" 60 "$(find_program tests/gpu/bench_step)" "$scratch/model" "$here/lengths.txt" \
        "$column" "$pairs" "$sequences" "$tokens" ${dry:+"$dry_backend"}; then
        cat "$work/out"
    fi
    rm -rf "$scratch/model"
}
if [ -n "$dry" ]; then
    steps llama-3.1-8b 3 2 3 20 --shrink 16 --layers 1
elif [ -z "$python" ]; then
    steps llama-3.1-8b 3 24 1000 300 --layers 4
fi

# ---- models ----

set --
[ -z "$dry" ] || set -- --backend "$dry_backend" --device cpu --shrink 16 --layers 3 --shorten "${HA_GPU_DRY_SHORTEN:-1}" --steps 2 --alone-steps 1 \
    --prompts 6 --peer-prompts 4 --new-tokens 8 --peer-tokens 8 --peer-batch 2 --peer-batch 4 --threads 1 \
    --models "${HA_GPU_MODELS:-llama-3.1-8b,qwen2.5-7b}"
if [ -z "$python" ]; then
    row "models" "no Python" 0
elif [ "$(left)" -lt 30 ]; then
    row "models" "no time" 0
else
    begin=$(date +%s)
    if "$python" "$here/bench_models.py" --program "$(find_program ha-attempt)" \
        --maker "$(find_program tests/gpu/shape_model)" --steps-of "$(find_program tests/gpu/bench_step)" \
        --scratch "$scratch" --budget "$(($(left) - 10))" --results "$work/results" "$@"; then
        row "models" ok "$(($(date +%s) - begin))"
    else
        row "models" FAILED "$(($(date +%s) - begin))"
        failed=$((failed + 1))
    fi
fi

echo
cat "$work/table"
echo "$(grep -c ' ok ' "$work/table") passed, $failed failed, $(($(date +%s) - started)) s"
if [ -s "$work/results" ]; then
    echo
    "$python" "$here/table.py" "$work/results" || failed=$((failed + 1))
fi
[ "$failed" -eq 0 ]
