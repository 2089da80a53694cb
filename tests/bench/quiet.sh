#!/bin/sh
# % of one processor that a coordinator needs for 1,000 workers that have nothing to do
#
# WORKERS: default 1,000, each with heartbeats as it is told; of 20 s.
. tests/bench/control/lib.sh
fresh
ask quiet --workers "${WORKERS:-1000}" | tee "$work/table"
target "below 1 % with 1,000 workers"
sed -n 's/.*processor \([0-9.]*\) %/quiet value \1 %/p' "$work/table"
