#!/bin/sh
# ms from a slot's release to its next job, at a rate that is not the limit; 1 to 1,000 workers
#
# RATE: jobs a second of all workers together (default 200).  dispatch: from the report that frees
# the slot, sent by the worker, to the grant it gets: both are durable before anybody is told of
# them.  complete: from the report to its acknowledgement.  null: the job is done when its time is
# over; true: it is /bin/true, started when the grant comes, its output in a file.
. tests/bench/control/lib.sh
rate_wanted=${RATE:-200}
disk
log_level=debug
echo "null executor, $rate_wanted jobs/s"
head_of_flow
for workers in 1 10 100 1000; do
    # One worker has no more to give than its round trips.
    run_ms=$((workers * 1000 / rate_wanted))
    flow --workers "$workers" --run-ms "$run_ms" --cells $((2 * workers + 1500))
done
p99=$(field dispatch 6)
log_moved
echo "fork+exec of /bin/true, as fast as it goes"
head_of_flow
mkdir "$work/out"
for workers in 1 10 100; do
    flow --workers "$workers" --spawn "$work/out" --cells $((2 * workers + 1000))
done
disk
target "$(awk -v p99="$sync_p99" 'BEGIN { printf "below %.1f ms", 5 + 2 * p99 }')" \
    "p99 with 1,000 workers (5 ms and twice the disk's p99 of $sync_p99 ms)"
echo "dispatch value $p99 ms (p99, 1000 workers)"
