#!/bin/sh
# jobs and durable state changes a second as fast as it goes, 1 to 1,000 jobs in flight
#
# A job is a grant, a report that ends it, and its acknowledgement; a state change is a row of the
# history (job and stage each: ready, leased, running, done), durable before anybody is told.  The
# workers and the coordinator share this machine's processors.
. tests/bench/control/lib.sh
disk
log_level=debug
echo "null executor"
head_of_flow
for workers in 1 10 100 1000; do
    flow --workers "$workers" --cells $((2 * workers + (workers < 100 ? 2000 : 10000)))
done
null=$changed
log_moved
echo "a training and its answers in each cell"
head_of_flow
flow --workers 1000 --pairs --cells 6000
disk
target "10,000 changes/s with 1,000 in flight, where fdatasync takes at most 5 ms"
echo "completion value $null changes/s (1000 in flight)"
