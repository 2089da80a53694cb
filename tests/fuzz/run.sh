#!/bin/sh
# Fuzzes the parsers of everything that comes from outside.
#
#   sh tests/fuzz/run.sh [--seconds N] [--idle | --build] [TARGET ...]
#
# Every target (all of tests/fuzz/meson.build when none is named) takes its
# seeds, the inputs of tests/fuzz/corpus/TARGET (each once broke something), and
# changes of them for N seconds (5).  Prints a line per target:
#
#   ok fuzz: TARGET: N runs, N features, 0 findings
#
# or "not ok" and how to repeat it.  The random numbers begin with 1 (SEED=n
# changes that).  What was found to be worth keeping stays in
# build/fuzz/corpus/TARGET and is where the next run goes on: for hours, in
# parallel, as often as wanted.  HA_TEST_DATA adds the files of other projects
# to the seeds.
#
# --idle: run only while no other process wants the processors.  --build: build, and no more.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$(pwd)
seconds=5
idle=
only_build=
# Of one input: 10 s; where it may have to wait for a processor, more.
timeout=10
build=$root/build/fuzz
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    --idle) idle='chrt --idle 0' timeout=120 && shift ;;
    --build) only_build=yes && shift ;;
    --) shift && break ;;
    -*) echo "usage: sh tests/fuzz/run.sh [--seconds N] [--idle | --build] [TARGET ...]" >&2 && exit 2 ;;
    *) break ;;
    esac
done
targets=${*:-$(sed -n "s/^  \['\([a-z_]*\)',.*/\1/p" tests/fuzz/meson.build)}

sh deploy/dependencies.sh fuzz || exit $?
mkdir -p "$build"
if [ ! -f "$build/build.ninja" ]; then
    CC=clang-14 CXX=clang++-14 meson setup "$build" . -Dfuzz=true -Dcuda=disabled -Db_sanitize=address,undefined \
        -Db_lundef=false -Doptimization=1 >"$build.log" 2>&1 || { cat "$build.log"; echo "not ok fuzz: configure"; exit 1; }
fi
if ! ninja -C "$build" fuzzers >"$build.log" 2>&1; then
    tail -n 40 "$build.log"
    echo "not ok fuzz: build"
    exit 1
fi
if [ ! -d "$build/seeds" ]; then
    python3 tests/fuzz/seeds.py . "$build/seeds.new" && "$build/tests/fuzz/fuzz-seeds" "$build/seeds.new" &&
        mv "$build/seeds.new" "$build/seeds" || { echo "not ok fuzz: seeds"; exit 1; }
fi
[ -z "$only_build" ] || exit 0

fuzz() { # target
    known=$root/tests/fuzz/corpus/$1
    mkdir -p "$build/corpus/$1" "$build/findings/$1" "$build/results" "$build/seeds/$1"
    [ -d "$known" ] || known=
    started=$(date +%s)
    # Bounds of one input: its time, 256 MiB at once, 1 GiB in all.
    # shellcheck disable=SC2086
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        $idle "$build/tests/fuzz/fuzz-$1" -seed="${SEED:-1}" -max_total_time="$seconds" -timeout=$timeout -rss_limit_mb=1024 \
        -malloc_limit_mb=256 -print_final_stats=1 -artifact_prefix="$build/findings/$1/" \
        "$build/corpus/$1" "$build/seeds/$1" $known >"$build/results/$1.log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/results/$1.log")
    features=$(grep -o 'ft: [0-9]*' "$build/results/$1.log" | tail -n 1 | cut -c5-)
    if [ $status -eq 0 ]; then
        echo "ok fuzz: $1: ${runs:-0} runs, ${features:-0} features, 0 findings"
    else
        grep -E 'ERROR|runtime error|does not hold|SUMMARY' "$build/results/$1.log" | head -n 4
        echo "# again: $build/tests/fuzz/fuzz-$1 $(sed -n 's/.*Test unit written to //p' "$build/results/$1.log" | head -n 1)"
        echo "not ok fuzz: $1: ${runs:-0} runs, ${features:-0} features, 1 finding after $(($(date +%s) - started)) s"
    fi
}

# As many at a time as there are processors.
status=0
slots=$(nproc)
rm -rf "$build/results"
mkdir -p "$build/results"
set -- $targets
while [ $# -gt 0 ]; do
    batch=
    while [ $# -gt 0 ] && [ "$(echo $batch | wc -w)" -lt "$slots" ]; do
        if [ ! -x "$build/tests/fuzz/fuzz-$1" ]; then
            echo "not ok fuzz: there is no target $1"
            status=1
        else
            fuzz "$1" >"$build/results/$1" &
            batch="$batch $1"
        fi
        shift
    done
    wait
    for target in $batch; do
        cat "$build/results/$target"
        grep -q '^not ok' "$build/results/$target" && status=1
    done
done
exit $status
