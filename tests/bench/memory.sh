#!/bin/sh
# bytes of the coordinator for each job that waits, while workers take the others
#
# CELLS: of each of SWEEPS sweeps, two jobs each (default 10,000 and 10).  The most that the process
# ever had in memory since its start with all of these jobs, 100 workers included, less that of one
# with an empty database and no worker.  SQLite's cache of pages, which has a limit whatever the
# number of jobs is, is told apart, as is what a submit of one sweep takes until its cells are rows.
. tests/bench/control/lib.sh
cells=${CELLS:-10000}
sweeps=${SWEEPS:-10}
jobs=$((2 * cells * sweeps))

fresh
ask hello
empty=$(memory VmHWM)
ask fill --cells "$cells" --pairs
submitted=$(memory VmHWM)
copy_rows "$sweeps"
log_level=debug
start
ask hello
started=$(memory VmHWM)
ask quiet --workers 100 --seconds 5 | sed 's/^/while 100 workers take jobs: /'
most=$(memory VmHWM)
stop
cache=$(sed -n 's/.*cache of pages: \([0-9]*\) bytes.*/\1/p' "$work/coordinator.log" | tail -n 1)
printf '%-48s %8s MB\n' "no job" "$((empty >> 10))"
printf '%-48s %8s MB\n' "most while $((2 * cells)) jobs were submitted" "$((submitted >> 10))"
printf '%-48s %8s MB\n' "started with $jobs jobs" "$((started >> 10))"
printf '%-48s %8s MB\n' "most while workers took them" "$((most >> 10))"
printf '%-48s %8s MB\n' "of these, cache of pages" "$((cache >> 20))"
printf '%-48s %8s bytes/job\n' "cache of pages" "$((cache / jobs))"
printf '%-48s %8s bytes/job\n' "all else that is not there with no job" \
    "$((((most - empty) * 1024 - cache) / jobs))"
printf '%-48s %8s bytes/job\n' "with the cache at its limit of 64 MB" \
    "$((((most - empty) * 1024 - cache + (64 << 20)) / jobs))"
target "below 1024 bytes"
echo "memory value $(((most - empty) * 1024 / jobs)) bytes/job"
