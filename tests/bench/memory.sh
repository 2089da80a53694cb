#!/bin/sh
# bytes of the coordinator for each job that waits, while workers take the others
#
# CELLS: of each of SWEEPS sweeps, two jobs each (default 10,000 and 10).  The most that the process
# ever had in memory, 100 workers included, less that of one with an empty database.  Most of it is
# SQLite's cache of pages, which ends at 64 MB, so the figure falls with more jobs.
. tests/bench/control/lib.sh
cells=${CELLS:-10000}
sweeps=${SWEEPS:-10}

peak() {
    sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$coordinator/status"
}

now() {
    sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$coordinator/status"
}

fresh
ask hello
empty=$(peak)
ask fill --sweeps "$sweeps" --cells "$cells" --pairs
filled=$(peak)
ask quiet --workers 100 --seconds 5 | sed 's/^/while 100 workers take jobs: /'
printf '%-40s %8s MB\n' "no job" "$((empty >> 10))"
printf '%-40s %8s MB\n' "most while $((2 * cells * sweeps)) jobs were submitted" "$((filled >> 10))"
printf '%-40s %8s MB\n' "most while workers took them" "$(($(peak) >> 10))"
printf '%-40s %8s MB\n' now "$(($(now) >> 10))"
target "below 1024 bytes"
echo "memory value $((($(peak) - empty) * 1024 / (2 * cells * sweeps))) bytes/job"
