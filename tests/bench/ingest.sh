#!/bin/sh
# grids a second until their acknowledgement is durable, cells a second, and who waits meanwhile
#
# CELLS: of the large grid (default 10,000).  Each submit is durable (synchronous=FULL) before it is
# acknowledged; the cells become rows afterwards, in slices, and survive a restart.
. tests/bench/control/lib.sh
fresh
disk
ask ingest --sweeps 2000 --cells "${CELLS:-10000}" | tee "$work/table"
ask ingest --name pairs --pairs --sweeps 16 --cells "${CELLS:-10000}" |
    sed -n 's/^grid of/with trainings: grid of/p'
disk
sed -n 's/^grids of .*: \([0-9]*\) submits.*/ingest value \1 submits\/s/p' "$work/table"
