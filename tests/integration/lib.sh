# lib.sh - sourced by the integration tests
#
# HA_BUILD names the folder with the programs.  A test prints "ok NAME",
# "not ok NAME: why" or "skip NAME: why" for each thing it shows; its processes
# and its folder are gone when it ends.
set -u

HA_ROOT=$(cd "$(dirname "$0")/../.." && pwd)
HA_BUILD=${HA_BUILD:-$HA_ROOT/build/test}
HA_TEST=$(basename "$0" .sh)
HA_TMP=$(mktemp -d "${TMPDIR:-/tmp}/ha-$HA_TEST-XXXXXX")
HA_PIDS=
PATH=$HA_BUILD:$PATH
export PATH NO_COLOR=1
unset HA_COORDINATOR
cd "$HA_TMP" || exit 1

ok() {
    echo "ok $HA_TEST: $1"
}

not_ok() {
    echo "not ok $HA_TEST: $*"
}

# check NAME COMMAND...: ok when the command succeeds.
check() {
    check_name=$1
    shift
    if "$@" >"$HA_TMP/check.out" 2>&1; then
        ok "$check_name"
    else
        not_ok "$check_name: $(tail -n 1 "$HA_TMP/check.out")"
        tail -n 20 "$HA_TMP/check.out" >&2
    fi
}

# equal NAME GOT WANT
equal() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1: got '$2', wanted '$3'"; fi
}

# until_true SECONDS COMMAND...: polls ten times a second.
until_true() {
    tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

# background NAME COMMAND...: starts it with its output in NAME.log; sets HA_PID.
background() {
    log=$HA_TMP/$1.log
    shift
    "$@" >>"$log" 2>&1 &
    HA_PID=$!
    HA_PIDS="$HA_PIDS $HA_PID"
}

cleanup() {
    for pid in $HA_PIDS; do kill -TERM "$pid" 2>/dev/null; done
    sleep 0.3
    for pid in $HA_PIDS; do kill -KILL "$pid" 2>/dev/null; done
    wait 2>/dev/null
    if [ -n "${HA_KEEP:-}" ]; then echo "kept $HA_TMP" >&2; else rm -rf "$HA_TMP"; fi
}
trap cleanup EXIT
trap 'exit 1' INT TERM
