#!/bin/sh
# ms of hactl status --json of a sweep of 10,000 cells, and of what a set, pause or cancel costs others
#
# CELLS: default 10,000, each with a training and its answers.  The median of 9 calls, from the start
# of hactl to its end; page by page over the wire alone beside it.
. tests/bench/control/lib.sh
fresh
disk
ask fill --name big --sweeps 1 --cells "${CELLS:-10000}" --pairs
ask status --name big-0
ask status --name big-0
for i in 1 2 3 4 5 6 7 8 9; do
    begin=$(date +%s%N)
    "$HA_BUILD/hactl" status big-0 --json --connect "$endpoint" --insecure-loopback >"$work/json"
    end=$(date +%s%N)
    echo $(((end - begin) / 10000))
done | sort -n | sed -n 5p >"$work/median"
awk -v bytes="$(stat -c %s "$work/json")" '{ printf "hactl status --json: %.1f ms, %.1f MB\n", $1 / 100, bytes / 1e6 }' \
    "$work/median"
ask change --name big-0
target "below 100 ms for 10,000 cells"
awk '{ printf "status value %.1f ms\n", $1 / 100 }' "$work/median"
