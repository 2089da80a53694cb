# lib.sh - sourced by the benchmarks of the control plane
#
# HA_BENCH_DIR: where the database lies, on a disk of this machine (default /var/tmp).
set -eu
ninja -C "$HA_BUILD" ha-coordinator hactl tests/bench/bench_control >"$HA_BUILD.log" 2>&1 ||
    { cat "$HA_BUILD.log" >&2; exit 1; }
control=$HA_BUILD/tests/bench/bench_control
work=$(mktemp -d "${HA_BENCH_DIR:-/var/tmp}/ha-bench-XXXXXX")
coordinator=
endpoint=tcp://127.0.0.1:0
files=tcp://127.0.0.1:0
ulimit -n 8192 2>/dev/null || ulimit -n "$(ulimit -H -n)"

cleanup() {
    [ -z "$coordinator" ] || kill -KILL "$coordinator" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# The second time on the same ports and the same database.
start() {
    rm -f "$work/run/endpoint"
    "${HA_BENCH_COORDINATOR:-$HA_BUILD/ha-coordinator}" --dir "$work/run" --listen "$endpoint" --files "$files" \
        --insecure-loopback --set max_connections=4000 --log-level "${log_level:-warning}" >>"$work/coordinator.log" 2>&1 &
    coordinator=$!
    while [ ! -s "$work/run/endpoint" ]; do
        kill -0 "$coordinator" 2>/dev/null || { cat "$work/coordinator.log" >&2; exit 1; }
        sleep 0.01
    done
    endpoint=$(sed -n 1p "$work/run/endpoint")
    files=$(sed -n 2p "$work/run/endpoint")
}

stop() {
    kill -TERM "$coordinator"
    wait "$coordinator" || true
    coordinator=
}

# Ends the coordinator, and makes its one sweep so many by copying rows.
copy_rows() { # sweeps
    stop
    python3 tests/bench/control/copies.py "$work/run/coordinator.db" "$1"
    printf '%-32s %8s MB\n' database "$(($(stat -c %s "$work/run/coordinator.db") >> 20))"
    printf '%-32s %8s\n' jobs "$(sqlite3 "$work/run/coordinator.db" 'SELECT count(*) FROM job')"
}

memory() { # VmRSS or VmHWM, in KiB
    sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" "/proc/$coordinator/status"
}

# A coordinator with an empty database.
fresh() {
    [ -z "$coordinator" ] || stop
    rm -rf "$work/run"
    start
}

ask() { # mode, options...: of the running coordinator
    "$control" "$@" --connect "$endpoint" --pid "$coordinator"
}

# Leaves the worse p99 of this run in $sync_p99, in ms.
sync_p99=0
disk() {
    "$control" fdatasync --dir "$work" | tee "$work/disk"
    sync_p99=$(awk -v most="$sync_p99" '{ print ($9 + 0 > most + 0 ? $9 : most) }' "$work/disk")
}

# What moving the log into the database took, of a coordinator that was stopped; log_level=debug.
log_moved() {
    sed -n 's/.*: log moved \([0-9]*\) times, \([0-9]*\) pages, \([0-9.]*\) ms, longest \([0-9.]*\) ms/\1 \2 \3 \4/p' \
        "$work/coordinator.log" | tail -n 1 | awk '{
        printf "log moved into the database %d times: mean %.1f ms, longest %.1f ms, %d pages each\n", $1,
            $3 / $1, $4, $2 / $1 }'
}

target() {
    echo "target: $*"
}

# Rows of the history per second between two wall times: every change of a job's or a stage's
# state is one.
changes() { # begin ms, end ms
    sqlite3 "$work/run/coordinator.db" "SELECT printf('%.0f', 1000.0 * count(*) / ($2 - $1))
        FROM event WHERE time_ms BETWEEN $1 AND $2"
}

# flow OPTIONS...: one line of a table; leaves jobs/s in $rate, changes/s in $changed.
flow() {
    fresh
    ask flow "$@" >"$work/flow"
    stop
    # shellcheck disable=SC2046
    changed=$(changes $(sed -n 's/^window //p' "$work/flow"))
    rate=$(sed -n 's/.*jobs\/s //p' "$work/flow")
    printf '%8s %8s %10s %12s %12s %12s %12s %12s\n' \
        "$(sed -n 's/^workers \([0-9]*\) .*/\1/p' "$work/flow")" "$rate" "$changed" \
        "$(field dispatch 3)" "$(field dispatch 6)" "$(field completion 3)" "$(field completion 6)" \
        "$(sed -n 's/^coordinator \([0-9]*\) us.*/\1/p' "$work/flow")"
}

field() { # line, word
    awk -v n="$2" -v line="$1" '$1 == line { print $n }' "$work/flow"
}

head_of_flow() {
    printf '%8s %8s %10s %12s %12s %12s %12s %12s\n' workers jobs/s changes/s dispatch-p50 \
        dispatch-p99 complete-p50 complete-p99 cpu-us/job
}
