#!/bin/sh
# The fault tests: programs are killed, stopped, cut off and lied to, and what is
# in the database afterwards is held to the guarantees.  See README.md.
#
#   sh tests/fault/run.sh                        a selection of two to four minutes
#   sh tests/fault/run.sh --only 9 12 --seed 7   some scenarios, as printed
#   sh tests/fault/run.sh --soak SECONDS [--seed N]
#
# HA_BUILD names a folder built with -Dfaults=true; without it build/fault is used.
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${HA_BUILD:-}" ]; then
    HA_BUILD=$(pwd)/build/fault
    [ -f "$HA_BUILD/build.ninja" ] ||
        meson setup "$HA_BUILD" . -Dfaults=true -Dtests=false -Dcuda=disabled >/dev/null
    ninja -C "$HA_BUILD" >"$HA_BUILD/ninja.log" 2>&1 || { tail -n 40 "$HA_BUILD/ninja.log"; exit 1; }
fi
export HA_BUILD
exec python3 tests/fault/main.py "$@"
