#!/bin/sh
# s from the start of ha-coordinator to its first answer, with a million jobs in the database
#
# CELLS: of each of SWEEPS sweeps, two jobs each (default 10,000 and 50), one of them submitted and the
# others copies of its rows.  After SIGTERM and after
# SIGKILL; the check of the whole file, which a start makes on another boot id only, is apart.
# Memory: of the process while 100 workers have jobs, less that of one with an empty database; most of
# it is SQLite's cache of pages, which ends at 64 MB.
. tests/bench/control/lib.sh
cells=${CELLS:-10000}
sweeps=${SWEEPS:-50}

started() { # how: prints seconds until the first answer
    begin=$(date +%s%N)
    start
    ask hello
    end=$(date +%s%N)
    took=$(awk -v ns=$((end - begin)) 'BEGIN { printf "%.2f", ns / 1e9 }')
    printf '%-32s %8s s\n' "start after $1" "$took"
}

disk
fresh
ask hello
empty=$(memory VmRSS)
ask fill --cells "$cells" --pairs
copy_rows "$sweeps"
started SIGTERM
term=$took
kill -KILL "$coordinator"
wait "$coordinator" 2>/dev/null || true
log_level=debug
started SIGKILL
ask quiet --workers 100 --seconds 5 | sed 's/^/with jobs waiting and 100 busy: /'
full=$(memory VmRSS)
stop
log_moved
begin=$(date +%s%N)
"$HA_BUILD/ha-coordinator" --dir "$work/run" --listen "$endpoint" --files "$files" \
    --insecure-loopback --check >/dev/null
end=$(date +%s%N)
printf '%-32s %8s s\n' "check of the whole file" \
    "$(awk -v ns=$((end - begin)) 'BEGIN { printf "%.2f", ns / 1e9 }')"
printf '%-32s %8s bytes\n' "memory for each waiting job" \
    $(((full - empty) * 1024 / (2 * cells * sweeps)))
target "below 5 s with 1,000,000 jobs, the check apart; below 1024 bytes for each (see memory)"
echo "restart value $term s"
