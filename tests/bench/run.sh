#!/bin/sh
# One benchmark, both sides in one go; without a name: the list.
#
#   sh tests/bench/run.sh           the names, one line each
#   sh tests/bench/run.sh NAME      its table, then "NAME ratio X.XX" (ours ahead is
#                                   above 1) or "NAME value X UNIT"
#
# A benchmark is tests/bench/NAME.sh; its second line says what it measures.  HA_BUILD
# names the build folder (default: build/bench, built here without debugging checks).
set -eu
cd "$(dirname "$0")/../.."

if [ $# -eq 0 ]; then
    for script in tests/bench/*.sh; do
        name=$(basename "$script" .sh)
        [ "$name" = run ] || printf '%-12s %s\n' "$name" "$(sed -n '2s/^# *//p' "$script")"
    done
    exit 0
fi
if [ "$1" = run ] || [ ! -f "tests/bench/$1.sh" ]; then
    echo "tests/bench/run.sh: there is no benchmark '$1'; without a name it lists them" >&2
    exit 2
fi
if [ -z "${HA_BUILD:-}" ]; then
    HA_BUILD=build/bench
    mkdir -p build
    [ -f "$HA_BUILD/build.ninja" ] || meson setup "$HA_BUILD" . >"$HA_BUILD.log" 2>&1 ||
        { cat "$HA_BUILD.log" >&2; exit 1; }
fi
export HA_BUILD
exec sh "tests/bench/$1.sh"
