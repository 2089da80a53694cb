#!/bin/sh
# Installs what the tests need, builds, runs every test; ends with
# "N passed, N failed" alone on a line.
#
#   sh tests/run.sh            everything
#   sh tests/run.sh SUITE ...  some of: lint unit sanitize threads torture integration fault fuzz
#
# HA_TEST_DATA names a folder of real data (hh-rlhf, tokenizers, configs);
# tests that need it are skipped, with a message, where it is not set.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
suites=${*:-lint unit sanitize threads torture integration fault fuzz}
passed=0
failed=0

sh deploy/dependencies.sh tests || exit $?
mkdir -p build

# Fuzzing takes what the other suites leave of the processors, most of which are waiting most of
# the time, from here to the suite of its name: a minute a target, two at a time.
fuzzing=
case " $suites " in
*" fuzz "*)
    sh deploy/dependencies.sh fuzz || exit $?
    sh tests/fuzz/run.sh --build >build/fuzz.results 2>&1 # what fails here fails again, and is told
    setsid sh tests/fuzz/run.sh --seconds 60 --idle >build/fuzz.results 2>build/fuzz.err &
    fuzzing=$!
    # Its processes are a group, which ends with this one.
    trap '[ -z "$fuzzing" ] || kill -- "-$fuzzing" 2>/dev/null' EXIT
    trap 'exit 130' INT TERM
    ;;
esac

# One line per result: "ok NAME" or "not ok NAME"; "skip NAME: why" counts as neither.
count() {
    passed=$((passed + $(grep -c '^ok ' "$1")))
    failed=$((failed + $(grep -c '^not ok ' "$1")))
    grep -E '^(not ok|skip) ' "$1"
}

build() { # folder, meson options...
    folder=$1
    shift
    if [ ! -f "$folder/build.ninja" ]; then
        meson setup "$folder" . "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; return 1; }
    fi
    # targets: those that the caller needs; all of them without.
    # shellcheck disable=SC2086
    ninja -C "$folder" ${targets:-} >"$folder.log" 2>&1 || { tail -n 40 "$folder.log"; return 1; }
}

# Runs meson's tests in a build folder and prints a line for each.
meson_tests() { # folder, name, meson test options...
    folder=$1
    name=$2
    shift 2
    meson test -C "$folder" --no-rebuild --print-errorlogs "$@" >"$folder/$name.log" 2>&1
    python3 - "$folder/meson-logs/testlog.json" "$name" >"$folder/$name.results" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    test = json.loads(line)
    name, result = f"{sys.argv[2]}: {test['name']}", test["result"]
    if result == "SKIP":
        print(f"skip {name}: its data or tool is not here")
    else:
        print(("ok " if result in ("OK", "EXPECTEDFAIL") else "not ok ") + name)
PYTHON
    count "$folder/$name.results"
    grep -q '^not ok' "$folder/$name.results" && grep -vE '^ *[0-9]+/[0-9]+ .* OK ' "$folder/$name.log" | tail -n 60
    return 0
}

fail() {
    echo "not ok $1"
    failed=$((failed + 1))
}

for suite in $suites; do
    started=$(date +%s)
    case $suite in
    lint)
        sh tests/lint/run.sh >build/lint.results 2>&1
        count build/lint.results
        grep -vE '^(ok|skip) ' build/lint.results
        ;;
    unit)
        if build build/test; then meson_tests build/test unit --no-suite torture; else fail "build"; fi
        ;;
    sanitize)
        if build build/sanitize -Db_sanitize=address,undefined -Db_lundef=false; then
            ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
                meson_tests build/sanitize sanitize --no-suite large --no-suite torture --timeout-multiplier 6
        else
            fail "build with sanitizers"
        fi
        ;;
    threads)
        # What has threads of its own: the CPU's pool, sockets and their key check, the
        # artifacts' thread, a worker's transfers, the evaluator client; then the programs at
        # work.  (test_daemon forks with threads running, which the sanitizer cannot follow.)
        threaded_targets='tests/unit/kernels/test_pool tests/unit/kernels/test_rows
            tests/unit/kernels/test_optimizer tests/unit/net/test_net_loop
            tests/unit/net/test_net_socket tests/unit/net/test_net_curve
            tests/unit/server/test_server_files tests/unit/daemon/test_daemon_transfer
            tests/unit/judge/test_client ha-coordinator ha-worker ha-attempt ha-judge-worker hactl
            ha-evaluator'
        rm -f build/threads.report.*
        if targets=$threaded_targets build build/threads -Db_sanitize=thread -Db_lundef=false; then
            export TSAN_OPTIONS="suppressions=$root/tests/threads.supp:second_deadlock_stack=1"
            meson_tests build/threads threads --timeout-multiplier 4 kernels_pool kernels_rows \
                kernels_optimizer 'net loop' 'net socket' 'net curve' server_files 'daemon transfer' client
            TSAN_OPTIONS="$TSAN_OPTIONS:log_path=$root/build/threads.report" \
                HA_BUILD=$root/build/threads sh tests/integration/grid.sh >build/threads.results 2>build/threads.run.log
            if grep -q '^not ok ' build/threads.results || ls build/threads.report.* >/dev/null 2>&1; then
                fail "threads: a grid"
                grep '^not ok ' build/threads.results
                cat build/threads.report.* 2>/dev/null | head -n 60
            else
                passed=$((passed + 1))
            fi
            unset TSAN_OPTIONS
        else
            fail "build with the thread sanitizer"
        fi
        ;;
    torture)
        if build build/sanitize -Db_sanitize=address,undefined -Db_lundef=false; then
            for program in build/sanitize/tests/torture/test_torture_*; do
                [ -x "$program" ] && [ ! -d "$program" ] || continue
                name=$(basename "$program")
                ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
                    "$program" >"build/$name.results" 2>"build/$name.log"
                status=$?
                count "build/$name.results"
                if [ $status -ne 0 ]; then
                    grep -q '^not ok ' "build/$name.results" || fail "$name (exit code $status)"
                    head -n 40 "build/$name.log"
                fi
            done
        else
            fail "build with sanitizers"
        fi
        ;;
    integration)
        # One more at a time than there are processors, as most of a script is waiting; the longest
        # first, so that none of them is left alone at the end.
        if build build/test; then
            {
                for name in device gang gpu devices attempt keys demo resume nodes resident probe fuse; do
                    echo "tests/integration/$name.sh"
                done
                ls tests/integration/*.sh
            } | grep -v /lib.sh | awk '!seen[$0]++' |
                HA_BUILD=$root/build/test xargs -P $(($(nproc) + 1)) -I SCRIPT sh -c \
                    'name=$(basename SCRIPT .sh)
                     sh SCRIPT >build/$name.results 2>build/$name.log
                     echo $? >build/$name.status'
            for script in tests/integration/*.sh; do
                [ "$(basename "$script")" = lib.sh ] && continue
                name=$(basename "$script" .sh)
                count "build/$name.results"
                if [ "$(cat "build/$name.status")" != 0 ] &&
                    ! grep -q '^not ok ' "build/$name.results"; then
                    fail "$name (exit code $(cat "build/$name.status"))"
                fi
                grep -q '^not ok ' "build/$name.results" && tail -n 40 "build/$name.log"
            done
        else
            fail "build"
        fi
        ;;
    fault)
        # Kills, cuts and bad disks, always with the same seed: two to four minutes on two processors.
        sh tests/fault/run.sh --seed 7 >build/fault.results 2>build/fault.err
        status=$?
        count build/fault.results
        if [ $status -ne 0 ] && ! grep -q '^not ok ' build/fault.results; then
            fail "fault (exit code $status)"
            tail -n 40 build/fault.results build/fault.err
        fi
        ;;
    fuzz)
        # What was begun above.  Hours by hand.
        wait "$fuzzing"
        status=$?
        fuzzing=
        count build/fuzz.results
        grep '^ok ' build/fuzz.results
        sh tests/fuzz/selftest.sh >build/fuzz.self.results 2>&1
        count build/fuzz.self.results
        if [ $status -ne 0 ]; then
            grep -q '^not ok ' build/fuzz.results || fail "fuzz (exit code $status)"
            grep -vE '^(ok|not ok|skip) ' build/fuzz.results | tail -n 40
            cat build/fuzz.err
        fi
        ;;
    *)
        echo "tests/run.sh: unknown suite $suite (lint, unit, sanitize, threads, torture, integration, fault, fuzz)" >&2
        exit 2
        ;;
    esac
    echo "# $suite: $(($(date +%s) - started)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
