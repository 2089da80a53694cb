#!/bin/sh
# the same for the four strategies of a grid: one job of ours, four trainings of TRL
#
# Settings as dpo-one.sh says.  TRL needs about two hours for it on two cores.
set -eu
HA_BENCH_STRATEGIES=local,mid,global,full exec sh tests/bench/dpo-one.sh dpo-grid
